"""What the circuit's nodes mean: where they fire, what they promote, where heads look, and how they are wired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from sparse_circuits.errors import InputError
from sparse_circuits.features.feature import Context
from sparse_circuits.graph import Graph
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.markup import (
    Html,
    Piece,
    anchor,
    join,
    link,
    listed,
    more,
    number,
    pairs,
    table,
    tag,
)
from sparse_circuits.view.trace_card import ends_shown, readable

_CONTEXTS, _TOKENS, _WIRES, _PROMPTS = 4, 8, 5, 2


def meaning(g: Given) -> Html:
    rest = [name for name in g.nodes if g.meaning(name) and name not in g.told]
    cards = [_told(g, name, _card) for name in g.told]
    return join(_from(g), *cards, _others([_told(g, name, _row) for name in rest]))


def _told(g: Given, name: str, how: Callable[[Given, str], Any]) -> Any:
    """
    Raises:
        InputError: for something that is not what is known of a node.
    """
    try:
        return how(g, name)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"report(meanings=...): what is known of {name!r} cannot be shown ({error!r}); expected what feature_pages or "
            "head_report returns."
        ) from None


def _from(g: Given) -> Html:
    if not g.told:
        how = g.missing.get("meanings") or "Pass meanings= of feature_pages or head_report."
        return tag("p", "What the nodes mean was not looked at. ", how, class_="missing")
    about = (
        "The strongest nodes first. Words are shaded by how strongly the node fires on them, purple above 0, ochre and "
        "underlined below; the bold one is where it fires most."
    )
    looked = f" {g.looked_at}" if g.looked_at else ""
    how = g.missing.get("contexts")
    return join(tag("p", about, looked), tag("p", how, class_="missing") if how else None)


def _card(g: Given, name: str) -> Html:
    known = g.meaning(name) or {}
    label = _text(known.get("label"))
    score = g.nodes.get(name)
    head = known.get("source") == "heads"  # which writes everywhere, so that only how much says something
    title = tag("h3", name, tag("span", f" {label}", class_="label") if label else None)
    page = _text(known.get("link"))
    rows: list[tuple[str, Piece]] = [
        ("score", None if score is None else number(score)),
        ("fires on", None if head else _density(known)),
        ("size of what it writes" if head else "its value there", _values(known)),
        ("promotes", _tokens(known.get("promoted"))),
        ("suppresses", _tokens(known.get("suppressed"))),
        ("looks at", _tokens(known.get("looks_at"), sign=False)),
        ("most like", _tokens(known.get("similar"), sign=False)),
        ("reads", _wires(g, name, into=True)),
        ("is read by", _wires(g, name, into=False)),
        ("page", link(page, page) if page else None),
    ]
    return tag(
        "section",
        title,
        pairs(rows),
        _contexts("Writes most at" if head else "Fires most on", contexts_in(known)),
        _weaker(known, "Where it writes less" if head else "Where it fires less strongly"),
        _patterns(known),
        class_="card",
        id=anchor(name),
    )


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _density(known: Mapping[str, Any]) -> str | None:
    if not known.get("tokens"):
        return f"{float(known['density']):.2%} of tokens" if known.get("density") else None
    if not known.get("fired"):
        return f"none of {known['tokens']:,} tokens"
    return f"{known['fired'] / known['tokens']:.2%} of {known['tokens']:,} tokens"


def _values(known: Mapping[str, Any]) -> str | None:
    if not known.get("fired"):
        return None
    ends = [f"{word} {number(known[word])}" for word in ("highest", "lowest") if known.get(word)]
    return ", ".join([f"mean {number(known.get('mean'))}", *ends])


def _tokens(found: Sequence[Sequence[Any]] | None, sign: bool = True) -> Html | None:
    if not found:
        return None
    form = "+.2f" if sign else ".2f"
    shown = [join(tag("b", _visible(str(token))), f" {value:{form}}") for token, value in found[:_TOKENS]]
    return join(*shown, by=", ")


def _visible(token: str) -> Html:
    """A token whose spaces and controls can be seen, and whose direction of writing moves nothing around it."""
    return tag("bdi", ends_shown(readable(token)) or "\u2205")


def _wires(g: Given, name: str, into: bool) -> Html | None:
    """The strongest edges into a node or out of it, summed over positions, with the input of a head that reads them."""
    inputs = _inputs(g, name) if into else set()
    sums: dict[str, float] = {}
    for edge, score in g.edges.items():
        source, _, target = (end.partition("@")[0] for end in edge.partition("->"))
        if target in inputs or (not into and source == name):
            reader, _, port = target.partition("<")
            shared = f", shared by {reader}" if into and reader != name else ""
            other = (source if into else reader) + (f" ({port.rstrip('>')}{shared})" if port else "")
            sums[other] = sums.get(other, 0.0) + score
    strongest = sorted(sums, key=lambda other: -abs(sums[other]))[:_WIRES]
    return join(*(f"{other} {sums[other]:+.2f}" for other in strongest), by=", ") if strongest else None


def _inputs(g: Given, name: str) -> set[str]:
    """What edges into a node are named after, without positions: of a head its query, and its group's keys and values."""
    graph = g.circuit.graph
    if not isinstance(graph, Graph) or name not in graph.sources:
        return {name}
    columns = graph.owned(graph.sources.index(name) * graph.n_positions)
    return {graph.columns[column].partition("@")[0] for column in columns}


def contexts_in(known: Mapping[str, Any]) -> list[Context]:
    """Contexts as :meth:`Feature.to_dict` has them, or shorter ones under "contexts"."""
    return [_context(one) for one in known.get("top") or known.get("contexts") or ()]


def _context(known: Mapping[str, Any]) -> Context:
    tokens = tuple(map(str, known["tokens"]))
    values = tuple(
        float(value or 0.0) for value in known.get("values") or known.get("activations") or [0.0] * len(tokens)
    )
    peak = known.get("peak")
    if peak is None:
        peak = max(range(len(values)), key=lambda i: abs(values[i]), default=0)
    return Context(tokens, values, int(peak), float(known.get("value") or (values[peak] if values else 0.0)))


def _contexts(title: str, contexts: Iterable[Context]) -> Html | None:
    shown = list(islice(contexts, _CONTEXTS))
    if not shown:
        return None
    scale = max((abs(value) for context in shown for value in context.values), default=0.0)
    lines = [join(tag("span", number(one.value), class_="value"), " ", _strip(one, scale or None)) for one in shown]
    return join(tag("h4", title), listed(lines, class_="contexts paper"))


def _strip(context: Context, scale: float | None) -> Html:
    """A context's tokens in a row, controls shown as in lists; its spaces need no dots."""
    return Html(readable(context.to_html(scale)))  # which has none of its own


def _weaker(known: Mapping[str, Any], title: str) -> Html | None:
    """Contexts at lower strengths: what a feature fires on when it does so weakly often says more."""
    bands = [band for band in known.get("quantiles") or () if band.get("contexts")]
    if not bands:
        return None
    parts = [
        _contexts(
            f"From {100 * band['from']:.0f}% to {100 * band['to']:.0f}% of all places, by strength",
            [_context(one) for one in band["contexts"][:2]],
        )
        for band in bands[1:]
    ]
    return more(title, *parts) if any(parts) else None


def _patterns(known: Mapping[str, Any]) -> Html | None:
    """Where a head's last token looks, on a few prompts."""
    prompts = [one for one in known.get("prompts") or () if one.get("pattern")][:_PROMPTS]
    if not prompts:
        return None
    lines = []
    for one in prompts:
        row = [float(value or 0.0) for value in one["pattern"][-1]]
        last = Context(tuple(map(str, one["tokens"])), tuple(row), len(row) - 1, max(row))
        lines.append(_strip(last, 1.0))
    title = tag("h4", "Where its last token (bold) looks, on prompts of the task")
    rows = listed(lines, class_="contexts plain paper")
    return join(title, rows, more("The whole pattern of the first", _grid(prompts[0])))


def _grid(prompt: Mapping[str, Any]) -> Html:
    """From each token (row) to each one that it can see (column): a table, so that it can be read by ear too."""
    tokens = [_visible(str(token)) for token in prompt["tokens"]]
    rows = [
        tag(
            "tr",
            tag("th", token, scope="row"),
            *(
                tag("td", tag("span", f"{value:.2f}"), style=f"--share:{100 * max(0.0, min(1.0, float(value))):.0f}%")
                for value in (row if any(row[i + 1 :]) else row[: i + 1])
            ),
        )
        for i, (token, row) in enumerate(zip(tokens, prompt["pattern"], strict=False))
    ]
    head = tag("tr", tag("th"), *(tag("th", tag("span", token), scope="col") for token in tokens))
    made = tag(
        "table",
        tag("caption", "From each token, down, to those that it looks at"),
        tag("thead", head),
        tag("tbody", *rows),
    )
    return tag("div", made, class_="pattern paper", tabindex=0, role="region", aria_label="Attention pattern")


def _row(g: Given, name: str) -> list[Piece]:
    known = g.meaning(name) or {}
    most = Counter(context.tokens[context.peak] for context in contexts_in(known) if context.tokens)
    peaks = join(*(_visible(token) for token, _ in most.most_common(5)), by=" ")
    promoted = join(*(_visible(str(token)) for token, _ in (known.get("promoted") or ())[:5]), by=" ")
    return [name, number(g.nodes.get(name)), _density(known) or "", peaks, promoted, _text(known.get("label")) or ""]


def _others(rows: Sequence[Sequence[Piece]]) -> Html | None:
    """The weaker nodes of which something is known, a line each."""
    if not rows:
        return None
    columns = ["", "score", "fires on", "most on", "promotes", "label"]
    title = f"The other nodes ({len(rows):,})"
    return more(title, table(title, columns, rows, text=(0, 3, 4, 5)))
