"""A feature circuit as a picture that a person can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.view import feature_marks, marks
from sparse_circuits.view.caption import flowed, interval, percent, wrapped
from sparse_circuits.view.feature_layout import place_features
from sparse_circuits.view.feature_legend import legend_of_features
from sparse_circuits.view.feature_look import Look
from sparse_circuits.view.figures import Picture, check_path, own_style, save
from sparse_circuits.view.naming import about, asked_for

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Evaluation

MAX_NODES, MAX_EDGES = 150, 250
"""How much is drawn where nothing is said: more cannot be told apart."""
_LINE = 0.21  # height of a line of small text, in inches


@own_style()
def draw_feature_circuit(
    circuit: FeatureCircuit,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    evaluation: Evaluation | None = None,
    baseline: Baseline | None = None,
    max_nodes: int | None = MAX_NODES,
    max_edges: int | None = MAX_EDGES,
    dpi: float | None = None,
) -> Picture:
    """Draw a feature circuit, the model's input at the bottom and the logits at the top.

    Every site is a lane. Boxes are filled by their nodes' scores, blue where the score is negative (the node carries the
    behaviour) and orange where it is positive (it works against it); error terms have cut corners and a dashed outline,
    whole sites and heads round corners. Edges have the same colours, and are as wide as their scores are large. With
    positions, each that has a part in the circuit is a column.

    Args:
        path: where to save it too: ``.svg`` (text stays text; each box and edge has its name as id), ``.png`` or ``.pdf``.
        title: instead of the task's and the model's name.
        evaluation: of this circuit; its faithfulness then stands under the title.
        baseline: random circuits of the same size to compare it with.
        max_nodes: draw only that many of the strongest nodes, and say so; None for all. Without scores all are drawn.
        max_edges: the same of the edges between them.
        dpi: pixels per inch of a ``.png``, by default 150, fewer where it would be too large to open.

    Returns:
        A matplotlib figure, which notebooks show; no display is needed and pyplot is left alone.

    Raises:
        InputError: for an ending that is not known, a ``dpi`` that gives no picture, a limit that is no count, or an evaluation
            or baseline of another circuit.
    """
    to = check_path(path, dpi)
    _check(circuit, evaluation, baseline)
    shown = strongest(circuit, max_nodes, max_edges)
    placed, look = place_features(shown), Look(shown)
    layout = placed.layout
    head, details = _caption(circuit, shown, title, evaluation, baseline)
    head, details = wrapped(head, layout.width - 0.6, 0.112), flowed(details, layout.width - 0.6, 0.082)
    rows = legend_of_features(circuit, placed, look)
    above = (0.35 if not layout.columns else 0.7) + 0.27 * len(head) + _LINE * len(details)
    below = (0.5 if not layout.columns else 0.65) + _LINE * len(rows)

    figure = Picture(figsize=(layout.width, layout.height + above + below))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(-below, layout.height + above)
    marks.backdrop(axes, layout)
    feature_marks.lanes(axes, placed)
    feature_marks.edges(axes, placed, look)
    feature_marks.boxes(axes, placed, look)
    top = layout.height + above - 0.2
    marks.heading(axes, head, details, top, _LINE)
    start = -0.3 if not layout.columns else -0.45
    for i, row in enumerate(rows):
        marks.legend_row(axes, row.text, start - _LINE * i, row.samples, row.symbol)
    return save(figure, to, dpi)


def strongest(circuit: FeatureCircuit, max_nodes: int | None, max_edges: int | None) -> FeatureCircuit:
    """As much of a circuit as is to be drawn: its strongest nodes, and the strongest edges between these.

    Raises:
        InputError: for a limit that is no count.
    """
    for name, n in (("max_nodes", max_nodes), ("max_edges", max_edges)):
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise InputError(
                f"draw_feature_circuit({name}={n!r}): expected a whole number of at least 1, or None for all."
            )
    values, edges = circuit.node_values, circuit.edge_list
    if values is not None and max_nodes is not None and max_nodes < circuit.size:
        kept = values.abs().argsort(descending=True, stable=True)[:max_nodes].sort().values
        ids = circuit.node_ids[kept]
        ends = torch.cat([ids, torch.tensor([circuit.graph.logits])])
        edges = edges[torch.isin(edges.sources, ids) & torch.isin(edges.targets, ends)]
        circuit = replace(circuit, node_ids=ids, node_values=values[kept])
    if max_edges is not None and max_edges < len(edges):
        edges = edges[edges.values.abs().argsort(descending=True, stable=True)[:max_edges].sort().values]
    return replace(circuit, edge_list=edges)


def _caption(
    circuit: FeatureCircuit,
    shown: FeatureCircuit,
    title: str | None,
    evaluation: Evaluation | None,
    baseline: Baseline | None,
) -> tuple[str, list[str]]:
    """The title, and, in parts, below it the size, how good the circuit is, and how much of it is drawn."""
    known, graph = circuit.provenance, circuit.graph
    if title is None:
        title = ", ".join(about(known, "task", "model")) or "Feature circuit"
    wires = f", {circuit.n_edges:,} edges" if circuit.n_edges else ""
    parts = [
        f"{circuit.size:,} of {graph.size:,} nodes ({percent(circuit.size, graph.size)}){asked_for(circuit)}{wires}"
    ]
    parts += about(known, "method")
    if evaluation is not None:
        value = interval(evaluation.faithfulness, evaluation.faithfulness_interval)
        errors = {"keep": ", all errors kept", "remove": ", all errors removed"}.get(evaluation.errors or "", "")
        start = f" from layer {evaluation.start_layer}" if evaluation.start_layer else ""
        parts.append(f"faithfulness {value} under {evaluation.ablation} ablation{start}{errors}")
    if baseline is not None and baseline.median == baseline.median:
        n = len(baseline.evaluations)
        parts.append(f"random features, as many per site: {baseline.median:z.2f} (median of {n})")
    if shown.size < circuit.size:
        parts.append(f"only the {shown.size:,} strongest nodes are drawn")
    if shown.n_edges < circuit.n_edges:
        between = " between them" if shown.size < circuit.size else ""
        parts.append(f"only the {shown.n_edges:,} strongest edges{between} are drawn")
    return title, parts


def _check(circuit: FeatureCircuit, evaluation: Evaluation | None, baseline: Baseline | None) -> None:
    if not isinstance(circuit, FeatureCircuit):
        raise InputError(
            f"draw_feature_circuit(circuit={type(circuit).__name__}): expected a FeatureCircuit, such as scores.top(100) of a "
            "feature graph; draw_circuit is for circuits of components."
        )
    if not circuit.size:
        raise InputError("draw_feature_circuit: this circuit has no nodes, so there is nothing to draw.")
    if evaluation is not None:
        other = evaluation.circuit
        foreign = not isinstance(other, FeatureCircuit) or other.graph != circuit.graph or other.nodes != circuit.nodes
        if foreign:
            raise InputError(
                f"draw_feature_circuit(evaluation=...) is of another circuit, {other}; pass evaluate(model, circuit, task) of "
                f"this one, {circuit}."
            )
    if baseline is not None and baseline.size != circuit.size:
        raise InputError(
            f"draw_feature_circuit(baseline=...) is of random circuits of {baseline.size} nodes; this circuit has {circuit.size}."
        )
