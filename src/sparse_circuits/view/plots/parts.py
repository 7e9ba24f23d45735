"""What plots are made of: axes, and marks with their data. Plain values, drawn by matplotlib and by plotly alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

CHARACTER = 0.075  # inches, of a tick's text
LONGEST, LONGEST_BELOW = 40, 24  # characters of it, beside and below a panel
_LONGEST_ENTRY = 56  # characters of a name in the legend
Direction = Literal["x", "y", "diagonal"]
Shape = Literal["circle", "square", "diamond"]


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: what stands along it.
        names: of categories at 0, 1, 2 and so on, or None; on a y axis the first is at the top.
        ticks: values with the text that stands there, for axes that are neither named nor counted.
        log: whether it is logarithmic, its ticks whole numbers.
        limits: ends, or None for what the data need.
    """

    label: str = ""
    names: tuple[str, ...] | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Cells:
    """A heatmap.

    Attributes:
        values: one row for each name of the y axis, one column for each of the x axis; NaN where there is nothing.
        texts: what stands over each cell under the pointer.
        label: of the colour bar.
        signed: blue below 0, orange above; else from white at 0.
        largest: the size of value at which the colour is full.
    """

    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    label: str
    signed: bool
    largest: float


@dataclass(frozen=True)
class Series:
    """Points, each with an interval or without, joined or not.

    Attributes:
        name: in the legend; empty for none there.
        x, y: of the points.
        texts: what stands at each under the pointer.
        colour: of all.
        low, high: ends of intervals along ``along``, or none.
        band: whether the intervals are a band, or bars.
        line: width of the line that joins the points, 0 for none.
        mark: shape of the points. size: in points.
        opacity: of marks.
        values: what x and y are called under the pointer, below the text; None where the texts say it all.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    texts: tuple[str, ...]
    colour: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    along: Literal["x", "y"] = "y"
    band: bool = False
    line: float = 0.0
    mark: Shape = "circle"
    size: float = 4.0
    opacity: float = 1.0
    values: tuple[str, str] | None = None

    @property
    def legend(self) -> str:
        """The name as it stands in the legend."""
        return shown(self.name, _LONGEST_ENTRY)

    @property
    def away(self) -> tuple[list[float], list[float]]:
        """How far an interval reaches below and above its point: 0 where it does not hold it, as percentiles need not."""
        centre = self.y if self.along == "y" else self.x
        # in this order NaN stays NaN
        return (
            [max(at - end, 0.0) for at, end in zip(centre, self.low, strict=True)],
            [max(end - at, 0.0) for at, end in zip(centre, self.high, strict=True)],
        )


@dataclass(frozen=True)
class Bars:
    """Bars from 0.

    Attributes:
        at: their places along the other axis. values: their lengths.
        texts: what stands at each under the pointer.
        colours: of each.
        hatched: which are hatched; none for no one.
        flat: whether they lie, their lengths along x.
        width: share of the place that they fill.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]
    texts: tuple[str, ...]
    colours: tuple[str, ...]
    hatched: tuple[bool, ...] = ()
    flat: bool = True
    width: float = 0.72


@dataclass(frozen=True)
class Rule:
    """A line across the panel: at a value of an axis, or where x = y.

    Attributes:
        at: the value; of the diagonal nothing.
        across: the axis whose value it is.
        label: what stands at its end.
    """

    at: float = 0.0
    across: Direction = "y"
    label: str = ""
    colour: str = "#5A6068"
    dashed: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is drawn on it.

    Attributes:
        size: width and height in inches, labels included.
        title: above it.
    """

    x: Axis
    y: Axis
    marks: tuple[Cells | Series | Bars, ...]
    rules: tuple[Rule, ...] = ()
    title: str = ""
    size: tuple[float, float] = field(default=(7.2, 4.6))

    @property
    def limits(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """Ends of both axes: those of named ones are given by their names."""
        return _limits(self.x), _limits(self.y)


def _limits(axis: Axis) -> tuple[float, float] | None:
    return axis.limits if axis.names is None else (-0.5, max(len(axis.names), 1) - 0.5)


@dataclass(frozen=True)
class Ticks:
    """Where ticks stand, what they say, and whether that is written aslant."""

    at: tuple[float, ...]
    texts: tuple[str, ...]
    aslant: bool = False

    @property
    def longest(self) -> int:
        return max(map(len, self.texts), default=0)


def ticks_of(axis: Axis, inches: float, across: Literal["x", "y"]) -> Ticks | None:
    """An axis's ticks, as many as do not overlap on a length; None where the drawing library may choose them."""
    if axis.log and axis.limits is not None:
        low, high = axis.limits
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1, 2, 5) if high / low < 20_000 else (1,)
        at = [f * 10**d for d in decades if d >= 0 for f in factors if low <= f * 10**d <= high]
        return Ticks(tuple(map(float, at)), tuple(f"{n:,}" for n in at))
    longest = LONGEST if across == "y" else LONGEST_BELOW
    pairs = (
        list(axis.ticks)
        if axis.ticks
        else [(float(i), shown(name, longest)) for i, name in enumerate(axis.names or ())]
    )
    if not pairs:
        return None if axis.names is None else Ticks((), ())
    at, texts = zip(*pairs, strict=True)
    places = len(axis.names or ()) or 1 + max(at) - min(at)
    slot, widest = inches / max(1, places), max(map(len, texts)) * CHARACTER
    # h0, h1 and so on: what is left out is known
    numbered = max(map(len, texts)) <= 4 and sum(not text[-1:].isdigit() for text in texts) <= 1
    aslant = (
        across == "x"
        and not numbered
        and widest + 0.05 > slot * (min(b - a for a, b in pairwise(at)) if len(at) > 1 else 1)
    )
    needs = 0.17 if aslant or across == "y" else widest + 0.08
    step = max(1, math.ceil(needs * len(pairs) / max(inches, 0.1)))
    return Ticks(at[::step], texts[::step], aslant)


def shown(text: str, longest: int = LONGEST) -> str:
    """A name as a label: line breaks and tabs made visible, what cannot be shown replaced, cut where it is long."""
    text = text.replace("\n", "\u21b5").replace("\t", "\u21e5")
    text = "".join(c if c.isprintable() else "\u00b7" for c in text)
    if len(text) > longest:
        keep = longest - 1
        text = f"{text[: keep // 2 + keep % 2]}\u2026{text[len(text) - keep // 2 :]}"
    return text
