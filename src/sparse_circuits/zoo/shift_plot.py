"""The SHIFT experiment's table as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_circuits.view.plots.colours import BESIDE, CARRIES, OPPOSES
from sparse_circuits.view.plots.parts import CHARACTER, Axis, Panel, Rule, Series, Shape, shown
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
    names = tuple(row.name for row in result.rows)
    marks = []
    for shift, (field, label, colour, mark) in zip((-0.2, 0.0, 0.2), _MEASURES, strict=True):
        found = [getattr(row, field) for row in result.rows]
        marks.append(
            Series(
                label,
                tuple(one.value for one in found),
                tuple(i + shift for i in range(len(found))),
                tuple(
                    f"{shown(name)}, {label}\n{one.value:.1%} [{one.interval[0]:.1%}, {one.interval[1]:.1%}]"
                    for name, one in zip(names, found, strict=True)
                ),
                colour,
                tuple(one.interval[0] for one in found),
                tuple(one.interval[1] for one in found),
                along="x",
                mark=mark,
                size=5.5,
            )
        )
    wide = CHARACTER * max((len(shown(name)) for name in names), default=0)
    panel = Panel(
        Axis("accuracy", limits=(-0.02, 1.02)),
        Axis(names=names),
        tuple(marks),
        (Rule(0.5, "x", "chance"),),
        size=(max(7.2, wide + 4.5), 1.15 + 0.5 * max(2, len(names))),
    )
    return finished(Plot(title, (panel,), "bars: 95% bootstrap interval over texts"), path)
