"""Plots of single results: random circuits, stability, contributions, similar features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.evaluation import Evaluation
from sparse_circuits.view.plots.bars import SIGNS, Part, bar_panel, check_n
from sparse_circuits.view.plots.colours import CARRIES, MUTED, NEUTRAL, sign_colour
from sparse_circuits.view.plots.dots import ZERO, Measure, dots_panel, rows_size
from sparse_circuits.view.plots.feature_scores import is_error
from sparse_circuits.view.plots.histogram import histogram
from sparse_circuits.view.plots.intervals import of_mean
from sparse_circuits.view.plots.parts import Axis, Panel, Rule, Series, shown
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

if TYPE_CHECKING:
    from sparse_circuits.attribution import Contributions
    from sparse_circuits.circuit import Stability
    from sparse_circuits.evaluation import Baseline
    from sparse_circuits.features import Similar


def plot_baseline(
    baseline: Baseline,
    path: str | Path | None = None,
    *,
    circuit: Evaluation | float | None = None,
    title: str | None = None,
) -> Plot:
    """A histogram of the random circuits' faithfulness; of their metric where that is undefined.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        circuit: what to compare with: the evaluation of the circuit itself, or its faithfulness.
        title: instead of the number of circuits and their size.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    values, what = baseline.faithfulness, "faithfulness"
    defined = bool(torch.isfinite(values).any())
    rules = [Rule(1.0, "x", "whole model"), Rule(0.0, "x", "empty circuit")]
    if not defined:
        values, what = torch.tensor([e.mean for e in baseline.evaluations]), "metric (faithfulness is undefined)"
        rules = []
    if isinstance(circuit, Evaluation):
        circuit = circuit.faithfulness if defined else circuit.mean
    if circuit is not None and circuit == circuit:
        rules.append(Rule(circuit, "x", f"this circuit: {circuit:z.3f}", CARRIES, False))
    thing = baseline.evaluations[0].circuit.graph.thing if baseline.evaluations else "edge"
    known = f"{len(baseline.evaluations)} random circuits of {baseline.size:,} {thing}s"
    panel = histogram(values[torch.isfinite(values)], what, "random circuits", tuple(rules))
    low, high = baseline.interval
    note = f"median {baseline.median:z.3f}, central 95% [{low:z.3f}, {high:z.3f}]" if defined else ""
    return finished(Plot(known if title is None else title, (panel,), note), path)


def plot_stability(
    stability: Stability,
    path: str | Path | None = None,
    *,
    n: int = 30,
    confidence: float = 0.95,
    title: str | None = None,
) -> Plot:
    """The strongest parts with the 95% interval of their scores over resampled examples.

    Parts that keep their rank and sign in at least ``confidence`` of the resamples are coloured by sign, the others pale.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        n: how many are shown at most, of those that were to be chosen.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_n("Stability", n)
    graph, there = stability.graph, stability.candidates
    values = stability.values[there]
    order = values.abs().argsort(descending=True, stable=True)[:n]
    names = tuple(graph.names_of(there, order)) if len(order) else ()
    holds = stability.holds(confidence)[there][order].tolist()
    columns = (stability.low, stability.high, stability.among_top, stability.sign_kept, stability.both)
    low, high, top, sign, both = (column[there][order].tolist() for column in columns)
    marks = []
    for i, value in enumerate(values[order].tolist()):
        text = (
            f"{shown(names[i], 120)}\n{value:.4g} [{low[i]:.4g}, {high[i]:.4g}]\namong the strongest in {top[i]:.0%} of the "
            f"resamples\nsame sign in {sign[i]:.0%}, both in {both[i]:.0%}"
        )
        colour = sign_colour(value, stability.signed) if holds[i] else MUTED
        marks.append(Series("", (value,), (float(i),), (text,), colour, (low[i],), (high[i],), along="x", size=6))
    axis = Axis("score and its 95% interval over resampled examples")
    panel = Panel(axis, Axis(names=names), tuple(marks), (ZERO,), size=rows_size(names, 0.23))
    of = int(there.sum())
    some = f"the {len(names)} strongest of {of:,} {graph.thing}s" if len(names) < of else f"{of:,} {graph.thing}s"
    signs = SIGNS if stability.signed else "scores without sign"
    note = f"{some}; pale: rank or sign holds in less than {confidence:.0%} of the resamples; {signs}"
    return finished(Plot("Stability over examples" if title is None else title, (panel,), note), path)


def plot_contributions(
    made: Contributions, path: str | Path | None = None, *, n: int = 30, title: str | None = None
) -> Plot:
    """What a feature's pre-activation is made of: the largest contributions, the biases and the sum of all others.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        n: how many are shown by name at most.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_n("Contributions", n)
    names = [*map(made.graph.name_of, made.sources.tolist()), "bias"]
    table = torch.cat([made.values.double(), made.bias.double()[:, None]], 1)
    order = table.mean(0).abs().argsort(descending=True, stable=True).tolist()
    chosen, rest = order[:n], order[n:]
    columns = [table[:, i] for i in chosen]
    labels = [names[i] for i in chosen]
    if rest:
        columns.append(table[:, rest].sum(1))
        labels.append(f"{len(rest):,} others together")
    values = torch.stack(columns, 1)
    intervals = of_mean(values)
    parts = [
        Part(name, float(values[:, i].mean()), None if intervals is None else intervals[i], is_error(name))
        for i, name in enumerate(labels)
    ]
    panel = bar_panel(parts, "contribution to the pre-activation", signed=False)
    note = f"pre-activation {float(made.preactivation.mean()):.3g}, averaged over {len(made.preactivation)} examples"
    if intervals is not None:
        note += "; bars: 95% bootstrap interval over examples"
    if any(part.hatched for part in parts):
        note += "; hatched: error terms"
    return finished(Plot(f"What {made.node} is made of" if title is None else title, (panel,), note), path)


def plot_similar(found: Sequence[Similar], path: str | Path | None = None, *, title: str = "Similar features") -> Plot:
    """Cosines of decoder and of encoder directions, as :func:`sparse_circuits.similar` returns them.

    Args:
        path: where to save it too; see :meth:`Plot.save`.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    measures = (
        Measure("decoder directions", tuple(one.decoder for one in found), CARRIES, "circle"),
        Measure("encoder directions", tuple(one.encoder for one in found), NEUTRAL, "square"),
    )
    panel = dots_panel([one.name for one in found], measures, Axis("cosine", limits=(-1.03, 1.03)))
    return finished(Plot(title, (panel,)), path)
