"""Bars of the strongest parts, each with its name: what several plots are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparse_circuits.errors import InputError
from sparse_circuits.view.naming import about
from sparse_circuits.view.plots.colours import sign_colour
from sparse_circuits.view.plots.dots import ZERO, rows_size
from sparse_circuits.view.plots.parts import Axis, Bars, Panel, Series, shown

SIGNS = "blue: below 0, carries the behaviour; orange: above 0, works against it"
_BAR = 0.23  # inches


@dataclass(frozen=True)
class Part:
    """A bar.

    Attributes:
        name: in full. value: its length.
        interval: the ends of its interval, if it has one. hatched: whether it is marked as an error term.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    hatched: bool = False

    @property
    def text(self) -> str:
        """What stands over it under the pointer."""
        between = "" if self.interval is None else f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        return f"{shown(self.name, 120)}\n{self.value:.4g}{between}"


def bar_panel(parts: Sequence[Part], label: str, *, signed: bool = True, title: str = "", width: float = 7.2) -> Panel:
    """Bars that lie, the first at the top, with all intervals that there are."""
    names, values = tuple(part.name for part in parts), tuple(part.value for part in parts)
    at = tuple(map(float, range(len(parts))))
    with_interval = [(i, part) for i, part in enumerate(parts) if part.interval is not None]
    marks: list[Bars | Series] = [
        Bars(
            at,
            values,
            tuple(part.text for part in parts),
            tuple(sign_colour(value, signed) for value in values),
            hatched=tuple(part.hatched for part in parts),
        )
    ]
    if with_interval:
        marks.append(
            Series(
                "",
                tuple(part.value for _, part in with_interval),
                tuple(float(i) for i, _ in with_interval),
                tuple(part.text for _, part in with_interval),
                "#1B1F24",
                tuple(part.interval[0] for _, part in with_interval if part.interval),
                tuple(part.interval[1] for _, part in with_interval if part.interval),
                along="x",
                size=0.0,
            )
        )
    size = rows_size(names, _BAR, 0.25 * bool(title), width)
    return Panel(Axis(label), Axis(names=names), tuple(marks), (ZERO,), title, size)


def heading(known: dict[str, Any], what: str) -> str:
    """``"Effects: ioi, toy, EAP()"``."""
    names = ", ".join(about(known))
    return f"{what}: {names}" if names else what


def check_kind(what: str, kind: str | None, kinds: Sequence[str]) -> None:
    """
    Raises:
        InputError: for a kind of plot that there is not.
    """
    if kind is not None and kind not in kinds:
        raise InputError(f"{what}.plot(kind={kind!r}): expected one of {', '.join(map(repr, kinds))}.")


def check_n(what: str, n: Any) -> None:
    """
    Raises:
        InputError: for anything but a whole number of at least 1.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise InputError(f"{what}.plot(n={n!r}): expected a whole number of at least 1.")
