"""Several measures of the same parts, each part a row: what several plots are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparse_circuits.view.plots.parts import CHARACTER, Axis, Panel, Rule, Series, Shape, shown

ZERO = Rule(0.0, "x", dashed=False)


@dataclass(frozen=True)
class Measure:
    """One measure of every part.

    Attributes:
        name: in the legend. values: of the parts.
        intervals: of the values, or none.
    """

    name: str
    values: tuple[float, ...]
    colour: str
    mark: Shape
    intervals: tuple[tuple[float, float], ...] = ()


def dots_panel(
    names: Sequence[str],
    measures: Sequence[Measure],
    axis: Axis,
    *,
    rule: Rule = ZERO,
    form: str = ".4g",
    row: float = 0.23,
    apart: float = 0.0,
    title: str = "",
) -> Panel:
    """A mark for every measure of every part, the first part at the top.

    Args:
        form: of the numbers under the pointer.
        row: height of a part's row, in inches. apart: of the measures in a row, as a share of it.
    """
    middle = (len(measures) - 1) / 2
    marks = []
    for i, one in enumerate(measures):
        ends = [f" [{low:{form}}, {high:{form}}]" for low, high in one.intervals] or [""] * len(names)
        texts = (
            f"{shown(name, 120)}\n{one.name}: {value:{form}}{end}"
            for name, value, end in zip(names, one.values, ends, strict=True)
        )
        marks.append(
            Series(
                one.name,
                one.values,
                tuple(j + apart * (i - middle) for j in range(len(names))),
                tuple(texts),
                one.colour,
                tuple(low for low, _ in one.intervals),
                tuple(high for _, high in one.intervals),
                along="x",
                mark=one.mark,
                size=6,
            )
        )
    return Panel(
        axis, Axis(names=tuple(names)), tuple(marks), (rule,), title, rows_size(names, row, 0.25 * bool(title))
    )


def rows_size(names: Sequence[str], row: float, more: float = 0.0, width: float = 7.2) -> tuple[float, float]:
    """Width and height, in inches, of a panel with a row for each name."""
    longest = CHARACTER * max((len(shown(name)) for name in names), default=0)
    return max(width, longest + 3.5), 0.95 + more + row * max(3, len(names))
