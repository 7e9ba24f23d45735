"""A trace as a picture that a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_circuits.tracing.trace import Trace
from sparse_circuits.view import feature_marks, marks, trace_marks
from sparse_circuits.view.caption import flowed, wrapped
from sparse_circuits.view.figures import Picture, check_path, own_style, save
from sparse_circuits.view.trace_card import Cards
from sparse_circuits.view.trace_layout import place_trace
from sparse_circuits.view.trace_legend import caption_of, legend_of_trace
from sparse_circuits.view.trace_look import TraceLook
from sparse_circuits.view.trace_text import set_card

MAX_NODES, MAX_EDGES = 60, 300
"""How much is drawn where nothing is said: more cannot be read."""
_LINE = 0.21  # height of a line of small text, in inches


@own_style()
def draw_trace(
    trace: Trace,
    path: str | Path | None = None,
    *,
    meanings: Mapping[str, Any] | None = None,
    contexts: int = 3,
    max_nodes: int | None = MAX_NODES,
    max_edges: int | None = MAX_EDGES,
    title: str | None = None,
    dpi: float | None = None,
) -> Picture:
    """Draw a trace, the model's input at the bottom and the logits at the top, every site a lane.

    A box says what a feature is: its name and its effect on the metric, on a ground of that effect's colour; its label; the
    contexts where it is strongest, with tokens coloured by its value; the tokens whose logits its ablation raises and lowers
    most. Error terms have cut corners and a dashed outline, whole sites and heads round corners.

    An edge is blue where ablating its source lowers the target and red and dashed where that raises it; it is as wide and as
    opaque as the effect is large. Effects on features and on the metric have different units, so that each are relative to
    the strongest of their kind.

    Args:
        path: where to save it too: ``.svg`` (text stays text; each box and edge has its name as id), ``.png`` or ``.pdf``.
        meanings: what is known of nodes, by name: what :func:`sparse_circuits.feature_pages` returns, or mappings like it
            with ``label``, ``contexts`` or ``top``, ``promoted``, ``suppressed``. A node at a position has its feature's.
        contexts: how many a box shows at most; 0 for none.
        max_nodes: draw only that many of the strongest nodes, and say so; None for all.
        max_edges: the same of the edges between them.
        title: instead of the task's and the model's name.
        dpi: pixels per inch of a ``.png``, by default 150, fewer where it would be too large to open.

    Returns:
        A matplotlib figure, which notebooks show; no display is needed and pyplot is left alone.

    Raises:
        InputError: for an ending that is not known, a ``dpi`` that gives no picture, a limit that is no count, a trace
            without nodes or with an edge that does not lead to a later site, or meanings that cannot be read.
    """
    to = check_path(path, dpi)
    look = TraceLook.of(trace, max_nodes, max_edges, "draw_trace")
    known = Cards(meanings, contexts, "draw_trace")
    cards = {node.name: known.of(node, look.role_of(node.name)) for node in look.nodes}
    sheets = {name: set_card(card, look.shades) for name, card in cards.items()}
    placed = place_trace(look, cards, sheets)
    layout = placed.layout
    head, details = caption_of(look, title)
    head, details = wrapped(head, layout.width - 0.6, 0.112), flowed(details, layout.width - 0.6, 0.082)
    rows = legend_of_trace(look, cards.values())
    above, below = 0.35 + 0.27 * len(head) + _LINE * len(details), 0.5 + _LINE * len(rows)

    figure = Picture(figsize=(layout.width, layout.height + above + below))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(-below, layout.height + above)
    marks.backdrop(axes, layout)
    feature_marks.lanes(axes, placed.placed)
    trace_marks.edges(axes, placed, look)
    trace_marks.boxes(axes, placed, sheets, look)
    top = layout.height + above - 0.2
    marks.heading(axes, head, details, top, _LINE)
    for i, row in enumerate(rows):
        marks.legend_row(axes, row.text, -0.3 - _LINE * i, row.samples, row.symbol, row.dashed)
    return save(figure, to, dpi)
