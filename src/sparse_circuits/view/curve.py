"""Faithfulness against the size of the circuit."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sparse_circuits.errors import InputError
from sparse_circuits.view.figures import Picture, check_path, save
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Curve


def plot_curve(
    curve: Curve, path: str | Path | None = None, *, baseline: Baseline | None = None, title: str | None = None
) -> Picture:
    """Draw faithfulness, with its 95% interval, against the number of edges (nodes, units) on a logarithmic axis.

    Empty circuits, whose faithfulness is 0 by definition, have no place on that axis and are left out, and so
    are sizes whose faithfulness is undefined.

    Args:
        path: where to save it too: ``.svg`` (text stays text), ``.png`` or ``.pdf``.
        baseline: random circuits of some size: their median, and the central 95% of them.
        title: instead of the task's and the method's name.

    Raises:
        InputError: for an ending that is not known.
    """
    to = check_path(path)
    if not curve.evaluations:
        raise InputError("plot_curve(curve=...): expected a curve with at least one evaluation.")
    figure = Picture(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for level, label in ((1.0, "whole model"), (0.0, "empty circuit")):
        axes.axhline(level, color=NEUTRAL, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.text(1.005, level, label, transform=axes.get_yaxis_transform(), size=8, color=NEUTRAL, va="center")
    _line(axes, curve, "faithfulness", CARRIES, "o")
    if any(e.completeness is not None for e in curve.evaluations):
        _line(axes, curve, "completeness", OPPOSES, "s")
    if baseline is not None:
        low, high = baseline.interval
        label = f"random circuits ({len(baseline.evaluations)} draws)"
        bar = [[max(0.0, baseline.median - low)], [max(0.0, high - baseline.median)]]
        axes.errorbar(
            [max(1, baseline.size)],
            [baseline.median],
            yerr=bar,
            color=NEUTRAL,
            fmt="D",
            ms=5,
            capsize=4,
            label=label,
            zorder=3,
        )

    graph, known = curve.evaluations[0].circuit.graph, curve.evaluations[0].circuit.provenance
    axes.set_xscale("log")
    sizes = [n for n in (*curve.sizes, baseline.size if baseline is not None else 0) if n]
    axes.set_xlim(0.8 * min(sizes, default=1), 1.25 * graph.size)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if graph.size < 20_000 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{graph.thing}s in the circuit (of {graph.size:,})")
    axes.set_ylabel(f"faithfulness under {curve.evaluations[0].ablation} ablation")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8.5, columnspacing=1.2, loc="outside lower center", ncols=3)
    names = ", ".join(str(known[key]) for key in ("task", "model", "method") if known.get(key))
    axes.set_title("\n".join(wrap(names if title is None else title, 72)), loc="left", size=11, weight="bold")
    return save(figure, to)


_LABELS = {"faithfulness": "faithfulness (95% interval)", "completeness": "completeness (everything else)"}


def _line(axes: Axes, curve: Curve, what: str, colour: str, marker: str) -> None:
    """One measure of all evaluations that have it, with the band of its intervals."""
    points = []
    for e in curve.evaluations:
        value, bounds = getattr(e, what), getattr(e, f"{what}_interval")
        if value is not None and value == value and e.circuit.size:
            points.append((e.circuit.size, value, *bounds))
    if not points:
        return
    sizes, values, low, high = zip(*sorted(points), strict=True)
    axes.fill_between(sizes, low, high, color=colour, alpha=0.18, lw=0, zorder=2)
    axes.plot(sizes, values, color=colour, lw=1.8, marker=marker, ms=4, label=_LABELS[what], zorder=4)
