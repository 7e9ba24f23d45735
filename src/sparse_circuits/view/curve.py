"""Faithfulness against the size of the circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle
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
    curve: Curve,
    path: str | Path | None = None,
    *,
    baseline: Baseline | Sequence[Baseline] | None = None,
    beside: Mapping[str, Curve] | None = None,
    title: str | None = None,
) -> Picture:
    """Draw faithfulness, with its 95% interval, against the number of edges (nodes, units) on a logarithmic axis.

    Empty circuits, whose faithfulness is 0 by definition, have no place on that axis and are left out, and so
    are sizes whose faithfulness is undefined.

    Args:
        path: where to save it too: ``.svg`` (text stays text), ``.png`` or ``.pdf``.
        baseline: random circuits of some size, or of several: their median, and the central 95% of them.
        beside: other curves by name to compare with, such as that of neurons beside features.
        title: instead of the task's and the method's name.

    Raises:
        InputError: for an ending that is not known.
    """
    to = check_path(path)
    if not curve.evaluations:
        raise InputError("plot_curve(curve=...): expected a curve with at least one evaluation.")
    graph, known = curve.evaluations[0].circuit.graph, curve.evaluations[0].circuit.provenance
    figure = Picture(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for level, label in ((1.0, "whole model"), (0.0, "empty circuit")):
        axes.axhline(level, color=NEUTRAL, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.text(1.005, level, label, transform=axes.get_yaxis_transform(), size=8, color=NEUTRAL, va="center")
    _line(axes, curve, "faithfulness", CARRIES, "o", f"{graph.level} (95% interval)" if beside else None)
    for (name, other), colour in zip((beside or {}).items(), cycle(_BESIDE)):
        _line(axes, other, "faithfulness", colour, "s", name)
    if any(e.completeness is not None for e in curve.evaluations):
        _line(axes, curve, "completeness", OPPOSES, "s")
    baselines = [] if baseline is None else list(baseline) if isinstance(baseline, Sequence) else [baseline]
    _random(axes, baselines)

    axes.set_xscale("log")
    others = [other.sizes for other in (beside or {}).values()]
    sizes = [n for n in chain(curve.sizes, *others, (one.size for one in baselines)) if n]
    total = graph.size if curve.total is None else curve.total
    axes.set_xlim(0.8 * min(sizes, default=1), 1.25 * max(total, *sizes, 1))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if total < 20_000 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    of_all = f"of {total:,}" if curve.total is None else f"of {total:,} with a score"
    axes.set_xlabel(f"{graph.thing}s in the circuit ({of_all})")
    axes.set_ylabel(f"faithfulness under {curve.evaluations[0].ablation} ablation")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8.5, columnspacing=1.2, loc="outside lower center", ncols=3)
    names = ", ".join(str(known[key]) for key in ("task", "model", "method") if known.get(key))
    axes.set_title("\n".join(wrap(names if title is None else title, 72)), loc="left", size=11, weight="bold")
    return save(figure, to)


_BESIDE = ("#009E73", "#CC79A7", "#E69F00")  # of the same palette as the colours of signs
_LABELS = {"faithfulness": "faithfulness (95% interval)", "completeness": "completeness (everything else)"}


def _line(axes: Axes, curve: Curve, what: str, colour: str, marker: str, label: str | None = None) -> None:
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
    axes.plot(sizes, values, color=colour, lw=1.8, marker=marker, ms=4, label=label or _LABELS[what], zorder=4)


def _random(axes: Axes, baselines: Sequence[Baseline]) -> None:
    """Random circuits: a mark with its range, or where there are several sizes a line of them."""
    defined = [one for one in baselines if one.median == one.median]
    if not defined:
        return
    bars = [
        [max(0.0, one.median - one.interval[0]) for one in defined],
        [max(0.0, one.interval[1] - one.median) for one in defined],
    ]
    axes.errorbar(
        [max(1, one.size) for one in defined],
        [one.median for one in defined],
        yerr=bars,
        color=NEUTRAL,
        fmt="D" if len(defined) == 1 else "D-",
        lw=1.2,
        ms=5 if len(defined) == 1 else 3.5,
        capsize=4 if len(defined) == 1 else 2.5,
        label=f"random circuits ({len(defined[0].evaluations)} draws)",
        zorder=3,
    )
