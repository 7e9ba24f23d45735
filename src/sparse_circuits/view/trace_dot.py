"""A trace as Graphviz text, for ``dot -Tsvg`` and the tools that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from sparse_circuits.graph.features import LOGITS
from sparse_circuits.tracing.trace import Trace, TracedNode
from sparse_circuits.view.contents import brief
from sparse_circuits.view.dot import listed, quoted
from sparse_circuits.view.trace_card import Card, Cards, Strip, readable
from sparse_circuits.view.trace_look import LOWERS, RAISES, TraceLook

_BAR, _FAINT = "#E4E7EB", "#6B7380"
_BORDERS = {"feature": 'BORDER="1"', "error": 'BORDER="1" STYLE="DASHED"', "whole": 'BORDER="2"'}


def trace_dot(
    trace: Trace,
    *,
    meanings: Mapping[str, Any] | None = None,
    contexts: int = 3,
    max_nodes: int | None = None,
    max_edges: int | None = None,
) -> str:
    """Graphviz text of a trace, the model's input at the bottom, a site's nodes on one rank.

    A node is an HTML-like table with what :func:`sparse_circuits.view.trace_picture.draw_trace` says of it; edges have that
    picture's colours, dashes and widths, and the effect as tooltip and as the attribute ``effect``. What is longer than a
    picture's box is not shortened here, since Graphviz measures text itself.

    Args:
        meanings, contexts: as there. max_nodes, max_edges: as there; None, for all, where nothing is said.

    Raises:
        InputError: as there.
    """
    look = TraceLook.of(trace, max_nodes, max_edges, "trace_dot")
    known = Cards(meanings, contexts, "trace_dot")
    about = " ".join(str(trace.provenance[key]) for key in ("task", "model") if trace.provenance.get(key))
    lines = [
        f"digraph {quoted(readable(about) or 'trace')} {{",
        "  rankdir=BT;",
        '  node [shape=plain, fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=8];',
    ]
    if any(edge.target == LOGITS for edge in look.edges):
        bar = {"shape": "box", "style": "rounded,filled", "fillcolor": _BAR}
        lines.append(f"  {quoted(LOGITS)} [{listed(bar)}];")
    nodes = [_node(node, known.of(node, look.role_of(node.name)), look) for node in look.nodes]
    return "\n".join([*lines, *nodes, *_ranks(look), *_edges(look), "}", ""])


def _node(node: TracedNode, card: Card, look: TraceLook) -> str:
    effect = {} if node.effect is None else {"effect": repr(node.effect)}
    said = node.name if node.effect is None else f"{node.name}: {node.effect:.4g}"
    attributes = listed({"id": node.name, **effect, "tooltip": said})
    return f"  {quoted(node.name)} [{attributes}, label=<{_table(card, look)}>];"


def _table(card: Card, look: TraceLook) -> str:
    """A row for the name and the effect, for the label, for each context and for each list of tokens."""
    ink = "white" if look.shades.dark(card.effect) else "black"
    effect = "not ablated" if card.effect is None else brief(card.effect, 2)
    fill = look.shades.colour(card.effect)
    name = _cells([_cell(f"<B>{_text(card.name)}</B>", ink, fill), _cell(_text(effect), ink, fill, align="RIGHT")])
    rows = [f'<TD BGCOLOR="{fill}">{name}</TD>']
    if card.label:
        rows.append(f'<TD ALIGN="LEFT"><I>{_text(card.label)}</I></TD>')
    rows += [f"<TD>{_strip(strip)}</TD>" for strip in card.contexts]
    rows += [f"<TD>{_move(verb, tokens)}</TD>" for verb, tokens in card.moves]
    body = "".join(f"<TR>{row}</TR>" for row in rows)
    return f'<TABLE {_BORDERS[card.role]} CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{body}</TABLE>'


def _strip(strip: Strip) -> str:
    cells = []
    for i, token in enumerate(strip.tokens):
        if i and strip.gap:
            cells.append(_cell("&#160;"))
        text = _text(token.text)
        said = f"<U>{text}</U>" if token.share < 0 else text
        cells.append(_cell(f"<B>{said}</B>" if token.peak else said, "white" if token.dark else "black", token.fill))
    return _cells(cells)


def _move(verb: str, tokens: Sequence[tuple[str, float | None]]) -> str:
    cells = [_cell(verb, _FAINT, size=8)]
    for token, change in tokens:
        cells.append(_cell(f"&#160;&#160;{_text(token)}"))
        if change is not None:
            sign = "+" if change > 0 else ""
            cells.append(_cell(f"&#160;{sign}{brief(change, 2)}", LOWERS if change < 0 else RAISES, size=8))
    return _cells(cells)


def _cells(cells: Sequence[str]) -> str:
    """A table of one row, so that its columns are its own."""
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1"><TR>{"".join(cells)}</TR></TABLE>'


def _cell(text: str, ink: str = "black", fill: str | None = None, size: int = 9, align: str = "LEFT") -> str:
    behind = f' BGCOLOR="{fill}"' if fill else ""
    return f'<TD ALIGN="{align}"{behind}><FONT COLOR="{ink}" POINT-SIZE="{size}">{text}</FONT></TD>'


def _text(text: str) -> str:
    """Text in a table; spaces at its ends, and several together, would get lost."""
    return escape(text).replace(" ", "&#160;") or "&#160;"


def _ranks(look: TraceLook) -> Iterator[str]:
    """A site's nodes side by side, and sites above each other also where no edge says so."""
    rows: dict[int, list[str]] = {}
    for node in look.nodes:
        rows.setdefault(look.place_of[node.name], []).append(node.name)
    for row in rows.values():
        if len(row) > 1:
            yield f"  {{ rank=same; {' '.join(f'{quoted(name)};' for name in row)} }}"
    unseen = listed({"style": "invis"})
    bar = [LOGITS] if any(edge.target == LOGITS for edge in look.edges) else []
    first = [*(rows[place][0] for place in sorted(rows)), *bar]
    yield from (f"  {quoted(below)} -> {quoted(above)} [{unseen}];" for below, above in pairwise(first))


def _edges(look: TraceLook) -> Iterator[str]:
    for edge in look.edges:
        pens, effect = look.pens(edge), edge.effect
        attributes = {
            "id": edge.name,
            "color": f"{pens.colour(effect)}{round(255 * pens.opacity(effect)):02X}",
            "penwidth": f"{pens.width(effect):.3g}",
            **({"style": "dashed"} if effect > 0 else {}),
            "effect": repr(effect),
            "tooltip": f"{edge.name}: {effect:.4g}",
        }
        yield f"  {quoted(edge.source)} -> {quoted(edge.target)} [{listed(attributes)}];"
