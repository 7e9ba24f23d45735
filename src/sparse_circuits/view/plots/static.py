"""Plots drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from sparse_circuits.view.figures import Picture, own_style
from sparse_circuits.view.plots import colours
from sparse_circuits.view.plots.frame import LONGEST_BAR, RULE_LINE, Align, Frame, labels_above
from sparse_circuits.view.plots.parts import Axis, Bars, Cells, Panel, Rule, Series, Ticks

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from sparse_circuits.view.plots.plot import Plot

_MARKS = {"circle": "o", "square": "s", "diamond": "D"}
_BAR_WIDTH = 0.13  # inches, of colours
_SCATTER = 2000  # more points than these are drawn as an image inside the picture


@own_style()
def draw(plot: Plot) -> Picture:
    """The whole plot as one figure."""
    frame = Frame.of(plot)
    figure = Picture(figsize=(frame.width, frame.height), layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, 1 - frame.head / frame.height), h_pad=0.08, w_pad=0.1)  # pyright: ignore[reportCallIssue]
    y = frame.height - 0.1
    for lines, size, weight, colour, step in (
        (frame.titles, 11, "bold", colours.INK, 0.2),
        (frame.notes, 8.5, "normal", colours.FAINT, 0.16),
    ):
        for line in lines:
            at = (0.1 / frame.width, y / frame.height)
            figure.text(*at, _plain(line), ha="left", va="top", size=size, weight=weight, color=colour)
            y -= step
    grid = figure.add_gridspec(
        len(frame.heights), len(frame.widths), height_ratios=frame.heights, width_ratios=frame.widths
    )
    named: dict[str, Artist] = {}
    for i, panel in enumerate(plot.panels):
        axes = figure.add_subplot(grid[divmod(i, len(frame.widths))])
        _panel(figure, axes, panel, *frame.ticks(panel))
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    if named:
        figure.legend(
            list(named.values()),
            list(named),
            frameon=False,
            fontsize=8.5,
            columnspacing=1.2,
            loc="outside lower center",
            ncols=frame.entries,
        )
    return figure


def _panel(figure: Picture, axes: Axes, panel: Panel, x_ticks: Ticks | None, y_ticks: Ticks | None) -> None:
    if panel.title:
        axes.set_title(_plain(panel.title), loc="left", size=9.5, color=colours.INK)
    labels = labels_above(panel)
    for rule in panel.rules:
        _rule(axes, rule, *labels.get(rule, (0, "center")))
    for mark in panel.marks:
        if isinstance(mark, Cells):
            _cells(figure, axes, mark, panel)
        elif isinstance(mark, Bars):
            _bars(axes, mark)
        else:
            _series(axes, mark)
    cells = any(isinstance(mark, Cells) for mark in panel.marks)
    for which, axis, ticks, limits in zip("xy", (panel.x, panel.y), (x_ticks, y_ticks), panel.limits, strict=True):
        _axis(axes, which, axis, ticks, limits)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color("#B6BCC4")
    if cells:
        axes.spines[:].set_visible(False)
    elif panel.y.names is None:
        axes.grid(axis="y", color=colours.GRID, lw=0.6, zorder=0)
    elif panel.x.names is None:
        axes.grid(axis="x", color=colours.GRID, lw=0.6, zorder=0)
    axes.set_axisbelow(True)


def _axis(axes: Axes, which: str, axis: Axis, ticks: Ticks | None, limits: tuple[float, float] | None) -> None:
    of = axes.xaxis if which == "x" else axes.yaxis
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if limits is not None:
        low, high = limits
        if which == "x":
            axes.set_xlim(low, high)
        else:
            axes.set_ylim(*((low, high) if axis.names is None else (high, low)))
    if ticks is not None:
        of.set_major_locator(FixedLocator(ticks.at))
        of.set_major_formatter(FixedFormatter([_plain(text) for text in ticks.texts]))
        of.set_minor_locator(NullLocator())
    else:
        of.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    of.set_tick_params(labelsize=8, colors=colours.FAINT, labelcolor=colours.INK, length=3 if axis.names is None else 0)
    if which == "x" and ticks is not None and ticks.aslant:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    if axis.label:
        of.set_label_text(_plain(axis.label), size=9)


def _cells(figure: Picture, axes: Axes, mark: Cells, panel: Panel) -> None:
    values = np.ma.masked_invalid(np.array(mark.values, dtype=float))
    colour_map = LinearSegmentedColormap.from_list("scale", colours.scale(mark.signed), N=512)
    colour_map = colour_map.with_extremes(bad=colours.MUTED)
    drawn = axes.pcolormesh(
        np.arange(values.shape[1] + 1) - 0.5,
        np.arange(values.shape[0] + 1) - 0.5,
        values,
        cmap=colour_map,
        vmin=-mark.largest if mark.signed else 0,
        vmax=mark.largest,
        edgecolors="white",
        linewidth=0.6 if values.size <= 2500 else 0,
        rasterized=values.size > 2500,
    )
    height = panel.size[1] - 1.0  # of the axes, about
    length = min(height, LONGEST_BAR)
    form = FuncFormatter(_number_at)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, shrink=length / height, aspect=length / _BAR_WIDTH, format=form)
    bar.set_label(_plain(mark.label), size=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _series(axes: Axes, mark: Series) -> None:
    label = _plain(mark.legend) or None
    if mark.low and mark.band:
        there = [
            i for i, (low, high) in enumerate(zip(mark.low, mark.high, strict=True)) if low == low and high == high
        ]
        x, low, high = ([values[i] for i in there] for values in (mark.x, mark.low, mark.high))
        axes.fill_between(x, low, high, color=mark.colour, alpha=0.18, lw=0, zorder=2)
    style = {"color": mark.colour, "marker": _MARKS[mark.mark], "ms": mark.size, "alpha": mark.opacity, "zorder": 4}
    style |= {"lw": mark.line, "ls": "-" if mark.line else "none", "mec": "none"}
    if mark.low and not mark.band:
        axes.errorbar(
            mark.x,
            mark.y,
            **{f"{mark.along}err": mark.away},
            capsize=3,
            capthick=1,
            elinewidth=1.2,
            label=label,
            **style,
        )
        return
    axes.plot(mark.x, mark.y, label=label, rasterized=len(mark.x) > _SCATTER, **style)


def _bars(axes: Axes, mark: Bars) -> None:
    draw_bars = axes.barh if mark.flat else axes.bar
    options: dict[str, Any] = {"height" if mark.flat else "width": mark.width}
    drawn = draw_bars(mark.at, mark.values, color=mark.colours, lw=0, zorder=3, **options)
    for bar, hatched in zip(drawn, mark.hatched or (False,) * len(mark.at), strict=True):
        if hatched:
            bar.set(hatch="////", edgecolor="white")


def _rule(axes: Axes, rule: Rule, line: int, align: Align) -> None:
    style = {"color": rule.colour, "lw": 0.9, "ls": (0, (4, 3)) if rule.dashed else "-", "zorder": 1}
    text = {"size": 8, "color": rule.colour}
    if rule.across == "diagonal":
        axes.axline((0, 0), slope=1, **style)
    elif rule.across == "y":
        axes.axhline(rule.at, **style)
        axes.text(1.005, rule.at, _plain(rule.label), transform=axes.get_yaxis_transform(), va="center", **text)
    else:
        axes.axvline(rule.at, **style)
        if rule.label:
            axes.annotate(
                _plain(rule.label),
                (rule.at, 1),
                (0, 2 + 72 * RULE_LINE * line),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha=align,
                va="bottom",
                **text,
            )


def number(value: float) -> str:
    """A tick's value, short."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _number_at(value: float, _: int) -> str:
    return number(value)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
