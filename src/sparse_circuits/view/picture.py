"""A circuit as a picture that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Course

from sparse_circuits.circuit import Circuit
from sparse_circuits.errors import InputError
from sparse_circuits.view.caption import flowed, headline, legend_rows, wrapped
from sparse_circuits.view.figures import Picture, check_path, save
from sparse_circuits.view.layout import Box, Layout, Rail
from sparse_circuits.view.routes import route
from sparse_circuits.view.strokes import Strokes

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Evaluation

INK, FAINT, PALE = "#22262B", "#8A9099", "#F5F6F8"
_LINE = 0.21  # height of a line of small text, in inches


def draw_circuit(
    circuit: Circuit,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    evaluation: Evaluation | None = None,
    baseline: Baseline | None = None,
    max_edges: int | None = None,
) -> Picture:
    """Draw a circuit, the input at the bottom and the logits at the top.

    Edges are as wide as their scores are large, blue where the score is negative (the edge carries the behaviour) and
    orange where it is positive (it works against it). They arrive at a head's q, k or v port; under grouped-query
    attention the k and v ports hang between the heads that share them.

    Args:
        path: where to save it too: ``.svg`` (text stays text, each edge has its name as id), ``.png`` or ``.pdf``.
        title: instead of the task's and the method's name.
        evaluation: of this circuit; its faithfulness then stands under the title.
        baseline: random circuits of the same size to compare it with.
        max_edges: draw only that many of the strongest edges, and say so.

    Returns:
        A matplotlib figure, which notebooks show; no display is needed and pyplot is left alone.

    Raises:
        InputError: for an ending that is not known, an evaluation or baseline of another circuit, or ``max_edges`` on a
            circuit without scores.
    """
    to = check_path(path)
    _check(circuit, evaluation, baseline)
    shown = circuit if max_edges is None else _strongest(circuit, max_edges)
    layout, strokes = Layout.of(shown), Strokes(shown)
    head, details = headline(circuit, title, evaluation, baseline, shown)
    head, details = wrapped(head, layout.width - 0.6, 0.112), flowed(details, layout.width - 0.6, 0.082)
    rows = legend_rows(strokes, layout)
    above = 0.55 + 0.27 * len(head) + _LINE * len(details)
    below = 0.7 + _LINE * len(rows)

    figure = Picture(figsize=(layout.width, layout.height + above + below))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(-below, layout.height + above)

    _backdrop(axes, layout)
    _edges(axes, shown, layout, strokes)
    _nodes(axes, layout, circuit.graph.has_mlp)
    if not shown.n_edges:
        _say(axes, layout, "This circuit has no edges.")
    top = layout.height + above - 0.25
    for i, line in enumerate(head):
        axes.text(0.3, top - 0.27 * i, line, size=13, weight="bold", color=INK, va="top")
    top -= 0.27 * len(head) + 0.03
    for i, line in enumerate(details):
        axes.text(0.3, top - _LINE * i, line, size=9.5, color=INK, va="top")
    for i, row in enumerate(rows):
        _legend_row(axes, row.text, -0.6 - _LINE * i, row.samples, row.symbol)
    return save(figure, to)


def _check(circuit: Circuit, evaluation: Evaluation | None, baseline: Baseline | None) -> None:
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"draw_circuit(circuit={type(circuit).__name__}): expected a Circuit, such as scores.top(200)."
        )
    if evaluation is not None:
        other = evaluation.circuit
        if other.graph != circuit.graph or not torch.equal(other.mask, circuit.mask):
            raise InputError(
                f"draw_circuit(evaluation=...) is of another circuit, {other}; pass evaluate(model, circuit, task) "
                f"of this one, {circuit}."
            )
    if baseline is not None and baseline.n_edges != circuit.n_edges:
        raise InputError(
            f"draw_circuit(baseline=...) is of random circuits of {baseline.n_edges} edges; "
            f"this circuit has {circuit.n_edges}."
        )


def _strongest(circuit: Circuit, n: int) -> Circuit:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"draw_circuit(max_edges={n!r}): expected a whole number of at least 1.")
    if n >= circuit.n_edges:
        return circuit
    if circuit.values is None:
        raise InputError(
            f"draw_circuit(max_edges={n}): this circuit has no scores, so none of its edges are the strongest; "
            "leave max_edges out."
        )
    scores = circuit.to_dict()
    return Circuit.of(circuit.graph, {name: scores[name] for name in circuit.edges[:n]}, **circuit.provenance)


def _backdrop(axes: Axes, layout: Layout) -> None:
    """Stripes and names of layers, names of columns, and dots for what is not in the circuit."""
    for i, (name, bottom, top) in enumerate(layout.layers):
        if i % 2 == 0:
            axes.add_patch(Rectangle((0, bottom), layout.width, top - bottom, color=PALE, lw=0, zorder=0))
        # a flat row has room for the number only
        size = 9 if top - bottom > 0.3 else 6.5
        axes.text(0.15, (bottom + top) / 2, name, size=size, color=FAINT, va="center", zorder=1)
    for name, x in layout.columns:
        axes.text(x, -0.14, name, size=8 if len(name) > 2 else 6, color=FAINT, ha="center", va="center")
    if layout.dots:
        xs, ys = zip(*layout.dots, strict=True)
        axes.scatter(xs, ys, s=5, color="#C9CDD3", linewidths=0, zorder=1)


_WHITE = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def _edges(axes: Axes, circuit: Circuit, layout: Layout, strokes: Strokes) -> None:
    """One artist per edge, named after it, and one per arrowhead; the strongest on top."""
    graph = circuit.graph
    for i, name in enumerate(reversed(circuit.edges)):
        u, v = graph.edge_index(name)
        score = strokes.score((u, v))
        width, colour, opacity = strokes.width(score), strokes.colour(score), strokes.opacity(score)
        half, height = 0.018 + 0.014 * width, 0.04 + 0.022 * width
        points = route(layout, graph.sources[u], graph.destinations[v]).beziers()
        x, y = points[-1]
        points[-1] = (x, y - 0.8 * height)  # the line ends inside its arrowhead, not beyond the tip
        codes = [Course.MOVETO, *[Course.CURVE4] * (len(points) - 1)]
        z = 2 + i / (circuit.n_edges + 1)
        line = PathPatch(
            Course(points, codes), fill=False, ec=colour, lw=width, alpha=opacity, capstyle="butt", zorder=z
        )
        line.set_gid(name)
        axes.add_artist(line)  # not add_patch, which would work out data limits that are fixed already
        tip = Polygon(
            [(x - half, y - height), (x + half, y - height), (x, y)],
            fc=colour,
            lw=0,
            alpha=min(1, opacity + 0.2),
            zorder=z,
        )
        axes.add_artist(tip)


def _nodes(axes: Axes, layout: Layout, has_mlp: bool) -> None:
    for rail in layout.rails:
        _rail(axes, rail)
    for name, port in layout.ports.items():
        axes.add_patch(
            Rectangle((port.left, port.bottom), port.width, port.height, fc="white", ec=FAINT, lw=0.7, zorder=4)
        )
        axes.text(
            port.x, port.y - 0.005, port.label, size=7, color=INK, ha="center", va="center_baseline", zorder=5
        ).set_gid(f"port {name}")
    for name, box in layout.nodes.items():
        fill = "#E4E7EB" if name in ("input", "logits") else "#FFF6DD" if has_mlp and name.startswith("m") else "white"
        axes.add_patch(_rounded(box, fill))
        size = 8.5 if len(box.label) < 7 else 7.5
        axes.text(box.x, box.y, box.label, size=size, color=INK, ha="center", va="center", zorder=6)


def _rounded(box: Box, fill: str) -> FancyBboxPatch:
    pad = 0.05
    return FancyBboxPatch(
        (box.left + pad, box.bottom + pad),
        box.width - 2 * pad,
        box.height - 2 * pad,
        boxstyle=f"round,pad={pad},rounding_size={pad}",
        fc=fill,
        ec=INK,
        lw=0.9,
        zorder=5,
    )


def _rail(axes: Axes, rail: Rail) -> None:
    axes.plot([rail.left, rail.right], [rail.y, rail.y], color=FAINT, lw=1.6, zorder=3.5, solid_capstyle="round")
    axes.plot([rail.port_x, rail.port_x], [rail.y, rail.y - 0.14], color=FAINT, lw=1.6, zorder=3.5)
    axes.text(
        rail.port_x, rail.y + 0.09, rail.label, size=7, color=INK, ha="center", va="center", zorder=6, bbox=_WHITE
    )


def _say(axes: Axes, layout: Layout, message: str) -> None:
    y = (layout.nodes["input"].top + layout.nodes["logits"].bottom) / 2
    axes.text(
        layout.nodes["input"].x,
        y,
        message,
        size=13,
        color=INK,
        ha="center",
        va="center",
        zorder=7,
        bbox={**_WHITE, "alpha": 1},
    )


def _legend_row(axes: Axes, text: str, y: float, samples: Sequence[tuple[float, str, str]], symbol: str) -> None:
    """A line of the legend: one or more sample strokes (width, colour, label), or a symbol, and what it means."""
    x = 0.3
    for width, colour, label in samples:
        axes.plot([x, x + 0.34], [y, y], color=colour, lw=width, solid_capstyle="butt", zorder=3)
        x += 0.42
        if label:
            axes.text(x, y, label, size=8.5, color=INK, va="center")
            x += 0.09 * len(label) + 0.1
    if symbol:
        axes.text(x + 0.17, y, symbol, size=8.5, color=INK, ha="center", va="center")
        x += 0.42
    axes.text(x, y, text, size=8.5, color=INK, va="center")
