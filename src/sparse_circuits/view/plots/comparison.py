"""Scores against other scores, such as attribution against exact effects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.view.plots.colours import CARRIES
from sparse_circuits.view.plots.parts import Axis, Panel, Rule, Series, shown
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

if TYPE_CHECKING:
    from sparse_circuits.circuit import Comparison

_DRAWN = 5000


def plot_comparison(comparison: Comparison, path: str | Path | None = None, *, title: str | None = None) -> Plot:
    """Each part's two scores as a point, with the line on which they are equal and the correlations.

    Of more than 5,000 parts the largest are drawn; the correlations are over all.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        title: instead of what is compared.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    known = f"{comparison.label} against {comparison.other_label}"
    panel = comparison_panel(comparison)
    return finished(Plot(known if title is None else title, (panel,), correlations(comparison)), path)


def comparison_panel(comparison: Comparison, title: str = "", size: tuple[float, float] = (6.4, 5.6)) -> Panel:
    """The points and the line on which both are equal."""
    x, y = comparison.x.double(), comparison.y.double()
    order = torch.maximum(x.abs(), y.abs()).argsort(descending=True, stable=True)[:_DRAWN]
    names = [comparison.names[i] for i in order.tolist()]
    xs, ys = tuple(x[order].tolist()), tuple(y[order].tolist())
    one, other = (_size(label, comparison.absolute) for label in (comparison.label, comparison.other_label))
    texts, opacity = tuple(shown(name, 120) for name in names), 0.75 if len(names) < 300 else 0.45
    points = Series("", xs, ys, texts, CARRIES, size=3.5, opacity=opacity, values=(other, one))
    ends = [*xs, *ys, 0.0]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    limits = (min(ends) - margin, max(ends) + margin)
    axes = Axis(other, limits=limits), Axis(one, limits=limits)
    return Panel(*axes, (points,), (Rule(across="diagonal"),), title, size)


def correlations(comparison: Comparison) -> str:
    """Both, with their intervals, and over how many parts."""
    found = (
        ("Pearson", comparison.pearson, comparison.pearson_interval),
        ("Spearman", comparison.spearman, comparison.spearman_interval),
    )
    said = ", ".join(f"{name} {_with_interval(value, bounds)}" for name, value, bounds in found)
    n = len(comparison.names)
    some = f", the {_DRAWN:,} largest drawn" if n > _DRAWN else ""
    return f"{said} over {n:,} {comparison.thing}s{some}"


def _size(label: str, absolute: bool) -> str:
    label = shown(label, 64)
    return f"|{label}|" if absolute else label


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    if value != value:
        return "undefined"
    return f"{value:.3f}" if bounds is None else f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
