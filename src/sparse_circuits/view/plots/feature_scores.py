"""Plots of feature scores: the strongest features, features by prompts, features by positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.errors import InputError
from sparse_circuits.view.plots.bars import SIGNS, Part, bar_panel, check_kind, check_n, heading
from sparse_circuits.view.plots.heatmap import heatmap
from sparse_circuits.view.plots.intervals import of_mean
from sparse_circuits.view.plots.parts import shown
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished
from sparse_circuits.view.plots.strongest import not_finite, strongest, strongest_rows

if TYPE_CHECKING:
    from sparse_circuits.circuit import FeatureScores

_KINDS = ("strongest", "prompts", "positions")


def plot_feature_scores(
    scores: FeatureScores,
    path: str | Path | None = None,
    *,
    kind: str | None = None,
    n: int = 30,
    prompts: Sequence[str] | None = None,
    title: str | None = None,
) -> Plot:
    """The strongest features and error terms, alone, by prompts or by positions.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        kind: "strongest", bars, those of error terms hatched, with 95% bootstrap intervals of their means where scores
            were kept per example; "prompts", features by examples; "positions", features by positions. By default
            "strongest".
        n: how many are shown at most.
        prompts: texts of the examples, to name them by.
        title: instead of the task's, the model's and the method's name.

    Raises:
        InputError: for another kind; "prompts" for scores that were not kept per example, or with another number of texts;
            "positions" for scores without; or an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_kind("FeatureScores", kind, _KINDS)
    check_n("FeatureScores", n)
    if prompts is not None and len(prompts) != len(scores.clean):
        raise InputError(
            f"FeatureScores.plot(prompts=...): expected {len(scores.clean)} texts, one per example; got {len(prompts)}."
        )
    make = {"prompts": _by_prompt, "positions": _by_position}.get(kind or "")
    plot = _strongest(scores, n, title) if make is None else make(scores, n, prompts, title)
    return finished(plot, path)


def is_error(name: str) -> bool:
    """Whether a node is an error term."""
    return name.partition("@")[0].endswith(".error")


def _strongest(scores: FeatureScores, n: int, title: str | None) -> Plot:
    order = strongest(scores.node_values, n)
    names = [scores.graph.name_of(i) for i in scores.node_ids[order].tolist()]
    sample = scores.of_examples(scores.node_ids[order])
    intervals = None if sample is None else of_mean(sample)
    parts = [
        Part(name, value, None if intervals is None else intervals[i], is_error(name))
        for i, (name, value) in enumerate(zip(names, scores.node_values[order].tolist(), strict=True))
    ]
    panel = bar_panel(parts, "effect, in units of the metric", signed=scores.signed)
    notes = [f"the {len(parts):,} strongest of {len(scores.node_ids):,} nodes with an effect"]
    if scores.signed:
        notes.append(SIGNS)
    if any(part.hatched for part in parts):
        notes.append("hatched: error terms")
    if intervals is not None:
        notes.append("bars: 95% bootstrap interval over examples")
    note = "; ".join(notes) + not_finite(scores.node_values, "nodes")
    return Plot(_title(scores, "Strongest nodes", title), (panel,), note)


def _by_prompt(scores: FeatureScores, n: int, prompts: Sequence[str] | None, title: str | None) -> Plot:
    order = strongest(scores.node_values, n)
    sample = scores.of_examples(scores.node_ids[order])
    if sample is None:
        raise InputError(
            "FeatureScores.plot(kind='prompts'): the scores were not kept per example; pass attribute(..., per_example=True)."
        )
    names = [scores.graph.name_of(i) for i in scores.node_ids[order].tolist()]
    values = sample.T
    labels = (
        [str(i) for i in range(values.shape[1])] if prompts is None else [f"{i}: {p}" for i, p in enumerate(prompts)]
    )
    panel = heatmap(
        values,
        names,
        labels,
        lambda i, j: f"{names[i]}\nexample {shown(labels[j], 160)}",
        label="effect, in units of the metric",
        signed=scores.signed,
        x="example",
    )
    note = f"the {len(names)} strongest of {len(scores.node_ids):,} nodes, strongest first"
    note += (f"; {SIGNS}" if scores.signed else "") + not_finite(scores.node_values, "nodes")
    return Plot(_title(scores, "Effects by example", title), (panel,), note)


def _by_position(scores: FeatureScores, n: int, _: Sequence[str] | None, title: str | None) -> Plot:
    graph = scores.graph
    if not graph.positions:
        raise InputError(
            "FeatureScores.plot(kind='positions'): these scores are summed over positions; keep them apart with "
            "attribute(..., positions='keep') or positions='spans'."
        )
    width = graph.n_positions
    nodes, row = torch.div(scores.node_ids, width, rounding_mode="floor").unique(return_inverse=True)
    values = torch.zeros(len(nodes), width, dtype=torch.float64)
    values[row, scores.node_ids % width] = scores.node_values.double()
    rows = strongest_rows(values, n)
    names = [graph.name_of(i * width).partition("@")[0] for i in nodes[rows].tolist()]
    panel = heatmap(
        values[rows],
        names,
        graph.positions,
        lambda i, j: f"{names[i]}@{graph.positions[j]}",
        label="effect, in units of the metric",
        signed=scores.signed,
        x="position",
    )
    note = f"the {len(names)} strongest of {len(nodes):,} nodes, in the model's order"
    note += (f"; {SIGNS}" if scores.signed else "") + not_finite(values.sum(1), "nodes")
    return Plot(_title(scores, "Effects by position", title), (panel,), note)


def _title(scores: FeatureScores, what: str, title: str | None) -> str:
    return heading(scores.provenance, what) if title is None else title
