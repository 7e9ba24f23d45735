"""The SHIFT experiment's table as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_circuits.view.plots.colours import BESIDE, CARRIES, OPPOSES
from sparse_circuits.view.plots.dots import Measure, dots_panel
from sparse_circuits.view.plots.parts import Axis, Rule, Shape
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

if TYPE_CHECKING:
    from sparse_circuits.zoo.shift_result import ShiftResult

_MEASURES: tuple[tuple[str, str, str, Shape], ...] = (
    ("intended", "intended attribute", CARRIES, "circle"),
    ("unintended", "unintended attribute (0.5 is best)", OPPOSES, "square"),
    ("worst_group", "worst group, intended", BESIDE[0], "diamond"),
)


def plot_shift(
    result: ShiftResult, path: str | Path | None = None, *, title: str = "SHIFT: accuracy of each classifier"
) -> Plot:
    """Accuracies with their 95% intervals, a row for each way of making the classifier.

    Args:
        path: where to save it too; see :meth:`Plot.save`.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    measures = []
    for field, label, colour, mark in _MEASURES:
        found = [getattr(row, field) for row in result.rows]
        values, intervals = tuple(one.value for one in found), tuple(one.interval for one in found)
        measures.append(Measure(label, values, colour, mark, intervals))
    names, axis = [row.name for row in result.rows], Axis("accuracy", limits=(-0.02, 1.02))
    panel = dots_panel(names, measures, axis, rule=Rule(0.5, "x", "chance"), form=".1%", row=0.5, apart=0.2)
    return finished(Plot(title, (panel,), "bars: 95% bootstrap interval over texts"), path)
