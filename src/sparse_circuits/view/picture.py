"""A circuit as a picture that a person can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.circuit import Circuit
from sparse_circuits.errors import InputError
from sparse_circuits.view import marks
from sparse_circuits.view.caption import flowed, headline, wrapped
from sparse_circuits.view.contents import Contents
from sparse_circuits.view.figures import Picture, check_path, own_style, save
from sparse_circuits.view.layout import Layout
from sparse_circuits.view.legend import legend_of_boxes, legend_rows
from sparse_circuits.view.strokes import Strokes

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Evaluation

_LINE = 0.21  # height of a line of small text, in inches


@own_style()
def draw_circuit(
    circuit: Circuit,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    evaluation: Evaluation | None = None,
    baseline: Baseline | None = None,
    max_edges: int | None = None,
    max_size: int | None = None,
    dpi: float | None = None,
) -> Picture:
    """Draw a circuit, the input at the bottom and the logits at the top.

    Edges are as wide as their scores are large, blue where the score is negative (the edge carries the behaviour) and
    orange where it is positive (it works against it). They arrive at a head's q, k or v port; under grouped-query
    attention the k and v ports hang between the heads that share them.

    At the other levels there are no edges to draw: boxes are filled by their nodes' scores in the same colours, and say
    how many of a node's units are in, what these sum to, and which are the strongest. With positions, each that has a
    part in the circuit is a column; an edge into a key or value comes from the column that is attended to.

    Args:
        path: where to save it too: ``.svg`` (text stays text; each edge, and each filled box, has its name as id),
            ``.png`` or ``.pdf``.
        title: instead of the task's and the method's name.
        evaluation: of this circuit; its faithfulness then stands under the title.
        baseline: random circuits of the same size to compare it with.
        max_edges: draw only that many of the strongest edges, and say so.
        max_size: the same at any level: of the edges, nodes or units.
        dpi: pixels per inch of a ``.png``, by default 150, fewer where it would be too large to open.

    Returns:
        A matplotlib figure, which notebooks show; no display is needed and pyplot is left alone.

    Raises:
        InputError: for an ending that is not known, a ``dpi`` that gives no picture, an evaluation or baseline of another
            circuit, ``max_edges`` on a circuit of nodes or units, or either limit on a circuit without scores.
    """
    to = check_path(path, dpi)
    _check(circuit, evaluation, baseline)
    shown = _strongest(circuit, max_edges, max_size)
    wired, layout = circuit.graph.level == "edges", Layout.of(shown)
    strokes, contents = Strokes(shown), Contents(shown)
    head, details = headline(circuit, title, evaluation, baseline, shown)
    head, details = wrapped(head, layout.width - 0.6, 0.112), flowed(details, layout.width - 0.6, 0.082)
    rows = legend_rows(strokes, layout) if wired else legend_of_boxes(contents, layout)
    above = (0.55 if not layout.borders else 0.75) + 0.27 * len(head) + _LINE * len(details)
    below = 0.7 + _LINE * len(rows)

    figure = Picture(figsize=(layout.width, layout.height + above + below))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(-below, layout.height + above)

    marks.backdrop(axes, layout)
    if wired:
        marks.edges(axes, shown, layout, strokes)
        marks.boxes(axes, layout, circuit.graph.has_mlp)
    else:
        marks.filled_boxes(axes, layout, contents)
    if not shown.size:
        marks.say(axes, layout, f"This circuit has no {circuit.graph.thing}s.")
    top = layout.height + above - 0.25
    marks.heading(axes, head, details, top, _LINE)
    for i, row in enumerate(rows):
        marks.legend_row(axes, row.text, -0.6 - _LINE * i, row.samples, row.symbol)
    return save(figure, to, dpi)


def _check(circuit: Circuit, evaluation: Evaluation | None, baseline: Baseline | None) -> None:
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"draw_circuit(circuit={type(circuit).__name__}): expected a Circuit, such as scores.top(200)."
        )
    if evaluation is not None:
        other = evaluation.circuit
        same = isinstance(other, Circuit) and other.graph == circuit.graph and torch.equal(other.mask, circuit.mask)
        if not same:
            raise InputError(
                f"draw_circuit(evaluation=...) is of another circuit, {other}; pass evaluate(model, circuit, task) "
                f"of this one, {circuit}."
            )
    if baseline is not None and baseline.size != circuit.size:
        raise InputError(
            f"draw_circuit(baseline=...) is of random circuits of {baseline.size} {circuit.graph.thing}s; "
            f"this circuit has {circuit.size}."
        )


def _strongest(circuit: Circuit, max_edges: int | None, max_size: int | None) -> Circuit:
    """As much of a circuit as is to be drawn."""
    thing = circuit.graph.thing
    if max_edges is not None and max_size is not None:
        raise InputError("draw_circuit: expected max_edges or max_size, got both.")
    if max_edges is not None and circuit.graph.level != "edges":
        raise InputError(f"draw_circuit(max_edges={max_edges!r}): this is a circuit of {thing}s; pass max_size.")
    given = f"draw_circuit(max_edges={max_edges!r})" if max_size is None else f"draw_circuit(max_size={max_size!r})"
    n = max_edges if max_size is None else max_size
    if n is None:
        return circuit
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"{given}: expected a whole number of at least 1.")
    if n >= circuit.size:
        return circuit
    if circuit.values is None:
        raise InputError(
            f"{given}: this circuit has no scores, so none of its {thing}s are the strongest; leave it out."
        )
    at = circuit.mask.nonzero()
    order = circuit.values[circuit.mask].abs().argsort(descending=True, stable=True)[:n]
    mask = torch.zeros_like(circuit.mask)
    mask[tuple(at[order].T)] = True
    return Circuit(circuit.graph, mask, circuit.values * mask, circuit.provenance)
