"""The metric under interventions: whole model, circuits, complements, the empty circuit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Evaluation
from sparse_circuits.view.plots.bars import heading
from sparse_circuits.view.plots.colours import CARRIES, FAINT, INK, OPPOSES
from sparse_circuits.view.plots.intervals import of_mean
from sparse_circuits.view.plots.parts import CHARACTER, Axis, Panel, Rule, Series, shown
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

_DOTS = 400  # examples drawn of each intervention
_ROW = 0.42
_GOLDEN = 0.6180339887


def plot_interventions(
    results: Mapping[str, Evaluation | Tensor | Sequence[float]],
    path: str | Path | None = None,
    *,
    label: str = "metric",
    title: str | None = None,
) -> Plot:
    """The metric under several interventions side by side: each example a dot, and the mean with its 95% bootstrap interval.

    >>> plot_interventions({"EAP": sc.evaluate(model, one, task), "Exact": sc.evaluate(model, other, task)})

    Args:
        results: by name, evaluations, of each of which the circuit is drawn, its complement where it was run, and the
            whole model and the empty circuit, once where several share them; or the metric per example, ``[examples]``.
        path: where to save it too; see :meth:`Plot.save`.
        label: of the metric.
        title: instead of the task's and the model's name.

    Raises:
        InputError: for no results, for values that are not one per example, or an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    if not isinstance(results, Mapping) or not results:
        given = "{}" if isinstance(results, Mapping) else type(results).__name__
        raise InputError(
            f"plot_interventions(results={given}): expected at least one evaluation, or a tensor of the metric, by name, such as "
            '{"EAP": sc.evaluate(model, circuit, task)}.'
        )
    rows = list(_rows({str(name): result for name, result in results.items()}))
    names = tuple(name for name, _, _ in rows)
    marks = []
    for i, (name, values, colour) in enumerate(rows):
        every = max(1, -(-len(values) // _DOTS))
        marks.append(_dots(name, values, i, colour, every))
    means = tuple(float(values.double().mean()) for _, values, _ in rows)
    low, high = zip(*(_interval(values) for _, values, _ in rows), strict=True)
    texts = (
        f"{shown(name, 120)}\nmean {mean:.4g}" + (f" [{a:.4g}, {b:.4g}]" if a == a else "")
        for name, mean, a, b in zip(names, means, low, high, strict=True)
    )
    at = tuple(map(float, range(len(rows))))
    marks.append(Series("", means, at, tuple(texts), INK, low, high, along="x", mark="diamond", size=6))
    wide = CHARACTER * max(len(shown(name)) for name in names)
    size = (max(7.2, wide + 4.5), 0.95 + _ROW * max(3, len(rows)))
    panel = Panel(Axis(label), Axis(names=names), tuple(marks), (Rule(0.0, "x", dashed=False),), size=size)
    evaluations = [result for result in results.values() if isinstance(result, Evaluation)]
    known = evaluations[0].circuit.provenance if evaluations else {}
    made = heading({key: known.get(key) for key in ("task", "model")}, "Metric per intervention")
    ablations = ", ".join(dict.fromkeys(e.ablation for e in evaluations))
    several = any(len(values) > 1 for _, values, _ in rows)
    note = "dots: examples; diamonds: means" + (" with their 95% bootstrap interval" if several else "")
    note += f"; {ablations} ablation" if ablations else ""
    if not all(map(math.isfinite, means)):
        note += "; without a mean where the metric of an example is not finite"
    return finished(Plot(made if title is None else title, (panel,), note), path)


def plot_evaluation(
    evaluation: Evaluation, path: str | Path | None = None, *, label: str = "metric", title: str | None = None
) -> Plot:
    """The metric of the whole model, with only the circuit, without it, and with nothing; see :func:`plot_interventions`."""
    plot = plot_interventions({"circuit": evaluation}, label=label, title=title)
    value, bounds = evaluation.faithfulness, evaluation.faithfulness_interval
    between = f" [{bounds[0]:z.3f}, {bounds[1]:z.3f}]" if len(evaluation.clean) > 1 else ""
    says = f"{value:z.3f}{between}" if math.isfinite(value) else "undefined"
    return finished(Plot(plot.title, plot.panels, f"faithfulness {says}; {plot.note}"), path)


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, str]]:
    """What is drawn, from the top: name, metric per example, colour."""
    evaluations = {name: result for name, result in results.items() if isinstance(result, Evaluation)}
    yield from _shared(evaluations, "clean", "whole model", FAINT)
    for name, result in results.items():
        if isinstance(result, Evaluation):
            yield name, result.per_example, CARRIES
            if result.complement is not None:
                yield f"{name}: everything else" if len(results) > 1 else "everything else", result.complement, OPPOSES
            continue
        try:
            values = torch.as_tensor(result, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            values = torch.empty(0, 0)
        if values.ndim != 1 or not len(values):
            raise InputError(
                f"plot_interventions: {name!r} is {type(result).__name__}; expected an Evaluation or the metric per example."
            )
        yield name, values, CARRIES
    yield from _shared(evaluations, "empty", "empty circuit", FAINT)


def _shared(
    evaluations: Mapping[str, Evaluation], what: str, label: str, colour: str
) -> Iterator[tuple[str, Tensor, str]]:
    """What several evaluations have alike once, what they do not once each."""
    found: list[tuple[list[str], Tensor]] = []
    for name, evaluation in evaluations.items():
        values = getattr(evaluation, what)
        same = next((names for names, other in found if torch.equal(values, other)), None)
        if same is None:
            found.append(([name], values))
        else:
            same.append(name)
    for names, values in found:
        yield label if len(found) == 1 else f"{label} ({', '.join(names)})", values, colour


def _interval(values: Tensor) -> tuple[float, float]:
    """Of the mean; NaN where there is none."""
    found = of_mean(values[:, None])
    return (math.nan, math.nan) if found is None else found[0]


def _dots(name: str, values: Tensor, row: int, colour: str, every: int) -> Series:
    """Examples, spread over the height of their row so that they can be told apart."""
    which = range(0, len(values), every)
    shifts = tuple(row + 0.5 * ((i * _GOLDEN) % 1 - 0.5) for i in range(len(which)))
    xs = tuple(float(values[i]) for i in which)
    texts = tuple(f"{shown(name, 120)}\nexample {i}: {x:.4g}" for i, x in zip(which, xs, strict=True))
    return Series("", xs, shifts, texts, colour, size=3.2, opacity=0.45)
