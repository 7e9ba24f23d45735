"""Plots of scores: heads by layers, nodes by positions, the strongest parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.view.plots.bars import SIGNS, Part, bar_panel, check_kind, check_n, heading
from sparse_circuits.view.plots.heatmap import heatmap
from sparse_circuits.view.plots.intervals import of_mean
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished
from sparse_circuits.view.plots.strongest import not_finite, strongest, strongest_rows

if TYPE_CHECKING:
    from sparse_circuits.circuit import Scores

_KINDS = ("heads", "positions", "strongest")


def plot_scores(
    scores: Scores,
    path: str | Path | None = None,
    *,
    kind: str | None = None,
    n: int = 40,
    title: str | None = None,
) -> Plot:
    """Scores summed into the nodes that they belong to, or the strongest one by one.

    A node's sum is over the edges that leave it; at the level of outputs or neurons over its units. Effects of
    opposite sign cancel in it. Blue is below 0: what carries the behaviour.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        kind: "heads", heads by layers, with the MLPs as a column of their own, over all positions together;
            "positions", nodes by positions; "strongest", bars of the strongest edges (nodes, units), with 95% bootstrap
            intervals of their means where scores were kept per example. By default "positions" for scores with
            positions, else "heads".
        n: how many nodes (of "positions") or parts (of "strongest") are shown at most, the strongest.
        title: instead of the task's, the model's and the method's name.

    Raises:
        InputError: for another kind, "positions" without positions, or an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_kind("Scores", kind, _KINDS)
    check_n("Scores", n)
    graph = scores.graph
    if kind == "positions" and not graph.positions:
        raise InputError(
            "Scores.plot(kind='positions'): these scores are summed over positions; keep them apart with "
            "attribute(..., positions='keep') or positions='spans'."
        )
    kind = kind or ("positions" if graph.positions else "heads")
    make = {"heads": _heads, "positions": _positions, "strongest": _strongest}[kind]
    return finished(make(scores, n, title), path)


def node_sums(scores: Scores) -> Tensor:
    """Scores summed over the edges that leave each source, or over its units: ``[n_sources, n_positions]``, float64."""
    graph, width = scores.graph, scores.graph.n_positions
    values = scores.values.double()
    if graph.level == "edges":
        return values.sum(1).view(graph.n_sources, width)
    return torch.zeros(graph.n_sources, width, dtype=torch.float64).index_add_(0, graph.owner, values.view(-1, width))


def _summed(scores: Scores) -> str:
    thing = scores.graph.thing
    return {"edges": "sum over the edges that leave it", "nodes": "score"}.get(
        scores.graph.level, f"sum over its {thing}s"
    )


def _signs(scores: Scores) -> str:
    return SIGNS if scores.signed else "scores without sign"


def _heads(scores: Scores, n: int, title: str | None) -> Plot:
    graph, sums = scores.graph, node_sums(scores).sum(1)
    cells = torch.full((graph.n_layers, graph.n_heads + graph.has_mlp), torch.nan, dtype=torch.float64)
    for layer in range(graph.n_layers):
        cells[layer, : graph.n_heads] = sums[graph.heads_at(layer)]
        if graph.has_mlp:
            cells[layer, graph.n_heads] = sums[graph.mlp_at(layer)]
    columns = [*(f"h{head}" for head in range(graph.n_heads)), *["MLP"] * graph.has_mlp]
    up = cells.flip(0)  # the last layer at the top, as circuits are drawn

    def name(row: int, column: int) -> str:
        layer = graph.n_layers - 1 - row
        return f"a{layer}.h{column}" if column < graph.n_heads else f"m{layer}"

    layers = [str(layer) for layer in reversed(range(graph.n_layers))]
    panel = heatmap(up, layers, columns, name, label=_summed(scores), signed=scores.signed, x="head", y="layer")
    note = f"input: {float(sums[0]):.3g} in all; {_signs(scores)}{not_finite(sums, 'nodes')}"
    return Plot(heading(scores.provenance, "Scores by node") if title is None else title, (panel,), note)


def _positions(scores: Scores, n: int, title: str | None) -> Plot:
    graph, sums = scores.graph, node_sums(scores)
    rows = strongest_rows(sums, n)
    names = [graph.sources[i] for i in rows.tolist()]
    panel = heatmap(
        sums[rows],
        names,
        graph.positions,
        lambda i, j: f"{names[i]}@{graph.positions[j]}",
        label=_summed(scores),
        signed=scores.signed,
        x="position",
    )
    some = f"the {len(names)} strongest of {graph.n_sources} nodes; " if len(names) < graph.n_sources else ""
    note = some + _signs(scores) + not_finite(sums.sum(1), "nodes")
    return Plot(heading(scores.provenance, "Scores by position") if title is None else title, (panel,), note)


def _strongest(scores: Scores, n: int, title: str | None) -> Plot:
    graph = scores.graph
    values = scores.values[graph.mask]
    order = strongest(values, n)
    names = graph.names_of(graph.mask, order)
    intervals = None if scores.per_example is None else of_mean(scores.per_example[:, order])
    parts = [
        Part(name, value, None if intervals is None else intervals[i])
        for i, (name, value) in enumerate(zip(names, values[order].tolist(), strict=True))
    ]
    panel = bar_panel(parts, "score, in units of the metric", signed=scores.signed)
    some = f"the {len(parts)} strongest of {graph.size:,}" if len(parts) < graph.size else f"all {graph.size:,}"
    bars = "" if intervals is None else "; bars: 95% bootstrap interval over examples"
    note = f"{some} {graph.thing}s; {_signs(scores)}{bars}{not_finite(values, f'{graph.thing}s')}"
    what = f"Strongest {graph.thing}s"
    return Plot(heading(scores.provenance, what) if title is None else title, (panel,), note)
