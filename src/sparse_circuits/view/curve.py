"""Faithfulness against the size of the circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, product
from pathlib import Path

from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Baseline, Curve
from sparse_circuits.view.naming import about
from sparse_circuits.view.plots.colours import BESIDE
from sparse_circuits.view.plots.parts import Axis, Panel, Rule, Series, Shape
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

_LABELS = {"faithfulness": "faithfulness (95% interval)", "completeness": "completeness (everything else)"}


def plot_curve(
    curve: Curve,
    path: str | Path | None = None,
    *,
    baseline: Baseline | Sequence[Baseline] | None = None,
    beside: Mapping[str, Curve] | None = None,
    title: str | None = None,
    name: str | None = None,
) -> Plot:
    """Faithfulness, with its 95% interval, against the number of edges (nodes, units) on a logarithmic axis.

    Empty circuits, whose faithfulness is 0 by definition, have no place on that axis and are left out, and so
    are sizes whose faithfulness is undefined.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        baseline: random circuits of some size, or of several: their median, and the central 95% of them.
        beside: other curves by name to compare with, such as that of neurons beside features.
        title: instead of the task's and the method's name.
        name: of the curve itself, where others are beside it; by default its level.

    Raises:
        InputError: for an ending that is not known, a curve without evaluations, or anything but curves and baselines beside.
    """
    if path is not None:
        check_plot_path(path)
    if not curve.evaluations:
        raise InputError("plot_curve(curve=...): expected a curve with at least one evaluation.")
    first = curve.evaluations[0]
    graph, known = first.circuit.graph, first.circuit.provenance
    baselines = [] if baseline is None else list(baseline) if isinstance(baseline, Sequence) else [baseline]
    if not all(isinstance(one, Baseline) for one in baselines):
        raise InputError("plot_curve(baseline=...): expected what random_baseline returns, or a list of that.")
    by_name = isinstance(beside, Mapping) and all(isinstance(other, Curve) for other in beside.values())
    if beside is not None and not by_name:
        raise InputError("plot_curve(beside=...): expected other curves by name, such as {'EAP': curve}.")
    others = {str(label): other for label, other in (beside or {}).items()}
    looks = product(("square", "diamond", "circle"), BESIDE)
    marks = [
        _line(other, "faithfulness", colour, mark, label)
        for (label, other), (mark, colour) in zip(others.items(), cycle(looks))
    ]
    # above the others, which may be much the same
    marks.append(
        _line(curve, "faithfulness", CARRIES, "circle", f"{name or graph.level} (95% interval)" if others else "")
    )
    if any(e.completeness is not None for e in curve.evaluations):
        marks.append(_line(curve, "completeness", OPPOSES, "square"))
    marks.append(_random(baselines))

    sizes = [
        n for n in chain(curve.sizes, *(other.sizes for other in others.values()), (b.size for b in baselines)) if n
    ]
    total = graph.size if curve.total is None else curve.total
    of_all = f" (of {total:,}{' with a score' if graph.level == 'features' and curve.total is not None else ''})"
    kinds = dict.fromkeys(e.circuit.graph.thing for other in (curve, *others.values()) for e in other.evaluations[:1])
    things = " or ".join(f"{kind}s" for kind in kinds)
    limits = (0.8 * min(sizes, default=1), 1.25 * max(total, *sizes, 1))
    panel = Panel(
        Axis(f"{things} in the circuit{of_all if len(kinds) == 1 else ''}", log=True, limits=limits),
        Axis(f"faithfulness under {first.ablation} ablation"),
        tuple(mark for mark in marks if mark is not None),
        (Rule(1.0, label="whole model"), Rule(0.0, label="empty circuit")),
    )
    n = sum(e.faithfulness != e.faithfulness for e in curve.evaluations)
    where = "everywhere" if n == len(curve.evaluations) else f"at {n} of {len(curve.evaluations)} sizes"
    note = f"undefined {where}: the ablation does not change the behaviour" if n else ""
    names = ", ".join(about(known))
    return finished(Plot(names or "Faithfulness" if title is None else title, (panel,), note), path)


def _line(curve: Curve, what: str, colour: str, mark: Shape, name: str = "") -> Series | None:
    """One measure of all evaluations that have it, with the band of its intervals."""
    points = []
    for e in curve.evaluations:
        value, bounds = getattr(e, what), getattr(e, f"{what}_interval")
        if value is not None and value == value and e.circuit.size:
            points.append((float(e.circuit.size), value, *bounds, e.circuit.graph.thing))
    if not points:
        return None
    x, y, low, high, _ = zip(*sorted(points), strict=True)
    name = name or _LABELS[what]
    texts = (
        f"{name}\n{n:,.0f} {thing}s: {value:z.3f} [{a:z.3f}, {b:z.3f}]" for n, value, a, b, thing in sorted(points)
    )
    return Series(name, x, y, tuple(texts), colour, low, high, band=len(x) > 1, line=1.8, mark=mark)


def _random(baselines: Sequence[Baseline]) -> Series | None:
    """Random circuits: a mark with its range, or where there are several sizes a line of them."""
    defined = [one for one in baselines if one.median == one.median]
    if not defined:
        return None
    low, high = zip(*(one.interval for one in defined), strict=True)
    alone = len(defined) == 1
    return Series(
        f"random circuits ({len(defined[0].evaluations)} draws)",
        tuple(float(max(1, one.size)) for one in defined),
        tuple(one.median for one in defined),
        tuple(
            f"random circuits, {one.size:,} {one.evaluations[0].circuit.graph.thing}s\nmedian {one.median:z.3f}, central 95% "
            f"[{one.interval[0]:z.3f}, {one.interval[1]:z.3f}]"
            for one in defined
        ),
        NEUTRAL,
        low,
        high,
        line=0.0 if alone else 1.2,
        mark="diamond",
        size=5 if alone else 3.5,
    )
