"""The words around a trace's picture: what it is of, and what its marks mean, for the marks that there are."""

from __future__ import annotations

from collections.abc import Iterable

from sparse_circuits.graph.features import LOGITS
from sparse_circuits.view.contents import brief
from sparse_circuits.view.legend import LegendRow
from sparse_circuits.view.naming import method_name
from sparse_circuits.view.strokes import NEUTRAL, Pens
from sparse_circuits.view.trace_card import Card, Token
from sparse_circuits.view.trace_look import LOWERS, RAISES, TraceLook

_SHARES = (1.0, 0.3, 0.05)


def caption_of(look: TraceLook, title: str | None) -> tuple[str, list[str]]:
    """The title, and, in parts, below it the size, how it was traced, and how much of it is drawn."""
    trace = look.trace
    known = trace.provenance
    if title is None:
        title = ", ".join(str(known[key]) for key in ("task", "model") if known.get(key)) or "Trace"
    parts = [f"{_count(len(trace.nodes), 'node')}, {_count(len(trace.edges), 'edge')}"]
    if trace.runs:
        parts.append(_count(len(trace.runs), "run"))
    parts += dict.fromkeys(method_name(run["method"]) for run in trace.runs if run.get("method"))
    if known.get("ablation"):
        parts.append(f"{known['ablation']} ablation")
    fewer, left = len(look.nodes) < len(trace.nodes), len(trace.edges) - len(look.edges)
    if fewer:
        unseen = len(trace.nodes) - len(look.nodes)
        parts.append(f"only the {len(look.nodes):,} strongest nodes are drawn, {unseen:,} are left out")
    if len(look.edges) < look.between:
        between = " between them" if fewer else ""
        parts.append(f"only the {len(look.edges):,} strongest edges{between} are drawn, {left:,} are left out")
    elif fewer and trace.edges:
        parts.append(f"with the {_count(len(look.edges), 'edge')} between them, {left:,} are left out")
    return title, parts


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def legend_of_trace(look: TraceLook, cards: Iterable[Card]) -> list[LegendRow]:
    """Rows of the legend, none of them wider than the narrowest picture."""
    cards = list(cards)
    rows: list[LegendRow] = []
    effects = [edge.effect for edge in look.edges]
    if any(effect < 0 for effect in effects):
        rows.append(LegendRow("negative: ablating the source lowers the target, which it drives", ((2.4, LOWERS, ""),)))
    if any(effect > 0 for effect in effects):
        text = "positive: ablating the source raises the target, which it holds back"
        rows.append(LegendRow(text, ((2.4, RAISES, ""),), dashed=True))
    if effects and look.trace.form == "gradient":
        rows.append(LegendRow("These are first-order estimates of what ablation changes."))
    rows += _sizes(look.activations, "width: |effect| on a feature's value, summed over tokens", look, logits=False)
    rows += _sizes(look.metric, "width: |effect| on the metric, of edges into the logits", look, logits=True)
    rows += _of_boxes(look, cards)
    return rows


def _sizes(pens: Pens, text: str, look: TraceLook, logits: bool) -> list[LegendRow]:
    if not pens.strongest or not any((edge.target == LOGITS) == logits for edge in look.edges):
        return []
    sizes = [pens.strongest * share for share in _SHARES]
    return [LegendRow(text, tuple((pens.width(size), NEUTRAL, brief(size, 2)) for size in sizes))]


def _of_boxes(look: TraceLook, cards: list[Card]) -> list[LegendRow]:
    rows = []
    strongest = look.shades.strongest
    if strongest:
        levels = [strongest * share for share in (-1.0, -0.3, 0.3, 1.0)]
        samples = tuple((8.0, look.shades.colour(effect), brief(effect, 2)) for effect in levels)
        rows.append(LegendRow("effect of ablating a node on the metric", samples))
    tokens = [token for card in cards for strip in card.contexts for token in strip.tokens]
    if tokens:
        shares = [1.0, 0.5, 0.15, *([-0.15, -0.5, -1.0] if any(token.share < 0 for token in tokens) else [])]
        samples = tuple((8.0, Token("", share).fill or "white", "") for share in shares)
        below = "; underlined below 0" if len(shares) > 3 else ""
        rows.append(LegendRow(f"tokens where a feature is strongest (bold), coloured by its value{below}", samples))
    verbs = {verb for card in cards for verb, _ in card.moves}
    if verbs & {"raises", "lowers"}:
        rows.append(LegendRow("Raises, lowers: the tokens whose logits change most where the node is ablated."))
    if verbs & {"promotes", "suppresses"}:
        rows.append(LegendRow("Promotes, suppresses: what one unit of the feature adds to logits on the direct way."))
    roles = {card.role for card in cards}
    if "error" in roles:
        rows.append(LegendRow("dashed box: what is there and in none of the site's features", symbol="error"))
    if any(card.effect is None for card in cards):
        rows.append(LegendRow("Not ablated: a run reached it, and none has started from it yet."))
    return rows
