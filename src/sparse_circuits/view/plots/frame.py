"""How large a plot is and where its panels stand, in inches; the same for both drawings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from sparse_circuits.view.plots.parts import CHARACTER, Cells, Panel, Rule, Series, Ticks, shown, ticks_of

if TYPE_CHECKING:
    from sparse_circuits.view.plots.plot import Plot

LONGEST_BAR = 5.0  # of colours
_COLOUR_BAR = 0.95
_LEGEND_LINE = 0.26
_ENTRY, _SAMPLE = 0.069, 0.48  # of a legend: a character, and what stands beside a name
RULE_LINE = 0.17

Align = Literal["left", "center", "right"]


@dataclass(frozen=True)
class Pads:
    """Room around a panel's axes for labels, in inches."""

    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Frame:
    """A plot's measures in inches.

    Attributes:
        titles, notes: lines of text above the panels. head: height of these.
        foot: height of the legend. entries: how many of its entries stand side by side.
        widths, heights: of columns and rows of panels.
    """

    titles: tuple[str, ...]
    notes: tuple[str, ...]
    head: float
    foot: float
    entries: int
    widths: tuple[float, ...]
    heights: tuple[float, ...]

    @classmethod
    def of(cls, plot: Plot) -> Frame:
        n = max(1, min(plot.columns, len(plot.panels)))
        sizes = [panel.size for panel in plot.panels]
        widths = tuple(max(width for width, _ in sizes[i::n]) for i in range(n))
        heights = tuple(max(height for _, height in sizes[i : i + n]) for i in range(0, len(sizes), n))
        title = shown(plot.title, 400)
        titles = tuple(wrap(title, max(20, int(sum(widths) * 10))))
        notes = tuple(wrap(shown(plot.note, 1000), max(24, int(sum(widths) * 13))))
        named = {mark.legend: None for panel in plot.panels for mark in panel.marks if isinstance(mark, Series)}
        names = list(filter(None, named))
        entries = _side_by_side(names, sum(widths))
        foot = _LEGEND_LINE * -(-len(names) // entries)
        return cls(titles, notes, 0.16 + 0.2 * len(titles) + 0.16 * len(notes), foot, entries, widths, heights)

    @property
    def width(self) -> float:
        return sum(self.widths)

    @property
    def height(self) -> float:
        return self.head + sum(self.heights) + self.foot

    def pads(self, panel: Panel) -> Pads:
        """Room for a panel's labels."""
        return self._measured(panel)[2]

    def ticks(self, panel: Panel) -> tuple[Ticks | None, Ticks | None]:
        """Ticks of both axes of a panel."""
        return self._measured(panel)[:2]

    def _measured(self, panel: Panel) -> tuple[Ticks | None, Ticks | None, Pads]:
        width, height = panel.size
        lines = max((line + 1 for line, _ in labels_above(panel).values()), default=0)
        top = 0.1 + 0.25 * bool(panel.title) + RULE_LINE * lines
        y = ticks_of(panel.y, height - top - 0.8, "y")
        left = 0.15 + 0.25 * bool(panel.y.label) + CHARACTER * (6 if y is None else y.longest)
        ends = [len(rule.label) for rule in panel.rules if rule.across == "y"]
        bar = any(isinstance(mark, Cells) for mark in panel.marks)
        right = 0.15 + _COLOUR_BAR * bar + CHARACTER * max(ends, default=0)
        x = ticks_of(panel.x, width - left - right, "x")
        low = 0.22 if x is None or not x.aslant else 0.15 + 0.68 * CHARACTER * x.longest
        return x, y, Pads(left, right, top, low + 0.3 * bool(panel.x.label) + 0.05)


def _side_by_side(names: list[str], width: float) -> int:
    """How many entries of a legend stand side by side in a width, three at most; the legend is filled column by column."""
    for n in (3, 2):
        if n <= len(names):
            rows, more = divmod(len(names), n)
            ends = [i * rows + min(i, more) for i in range(n + 1)]
            longest = sum(max(map(len, names[a:b])) for a, b in pairwise(ends))
            if _ENTRY * longest + _SAMPLE * n <= width:
                return n
    return 1


def labels_above(panel: Panel) -> dict[Rule, tuple[int, Align]]:
    """Of each rule that has one, where its label stands above the axes: on which line from below, so that none overlap,
    and which of its ends is at the rule, so that it does not leave the panel.
    """
    limits = panel.limits[0]
    if limits is None:
        return {}
    width = panel.size[0] - 1.2  # of the axes, about
    taken: list[list[tuple[float, float]]] = []
    found: dict[Rule, tuple[int, Align]] = {}
    for rule in panel.rules:
        if rule.across != "x" or not rule.label:
            continue
        length = CHARACTER * len(rule.label)
        at = (rule.at - limits[0]) / (limits[1] - limits[0]) * width
        align: Align = "left" if at < length / 2 else "right" if at > width - length / 2 else "center"
        start = at - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * length
        here = (start - 0.06, start + length + 0.06)
        free = (i for i, spans in enumerate(taken) if all(here[0] > b or here[1] < a for a, b in spans))
        line = next(free, len(taken))
        if line == len(taken):
            taken.append([])
        taken[line].append(here)
        found[rule] = line, align
    return found
