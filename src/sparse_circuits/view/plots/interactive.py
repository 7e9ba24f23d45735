"""Plots drawn by plotly: as a figure, as a piece of a page, as a page."""

from __future__ import annotations

import html
import json
import math
from typing import TYPE_CHECKING, Any

from sparse_circuits.view.plots import colours
from sparse_circuits.view.plots.frame import LONGEST_BAR, RULE_LINE, Align, Frame, labels_above
from sparse_circuits.view.plots.parts import Axis, Bars, Cells, Panel, Rule, Series, Ticks

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from sparse_circuits.view.plots.plot import Plot

_PIXELS = 96  # in an inch
_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_CONFIG = {"displaylogo": False, "responsive": False, "toImageButtonOptions": {"format": "svg"}}
_START = """
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll(".sparse-circuits-plot")) {
    const { data, layout, config } = JSON.parse(place.querySelector("script").textContent);
    Plotly.newPlot(place.querySelector("div"), data, layout, config);
  }
});
"""


def figure_of(plot: Plot) -> go.Figure:
    """The plot as a plotly figure."""
    import plotly.graph_objects as go

    return go.Figure(spec_of(plot))


def fragment_of(plot: Plot) -> str:
    """A piece of a page; the data in it are drawn once the page has loaded."""
    made, frame = short_spec_of(plot), Frame.of(plot)
    data = json.dumps({**made, "config": _CONFIG}, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    data = data.replace("<", r"\u003c")  # a name may hold the end of a script
    size = f"width:{frame.width * _PIXELS:.0f}px;height:{frame.height * _PIXELS:.0f}px"
    return (
        f'<div class="sparse-circuits-plot" role="img" aria-label="{html.escape(plot.title)}" style="overflow-x:auto">'
        f'<div style="{size}"></div><script type="application/json">{data}</script></div>'
    )


def plot_script() -> str:
    """The script that draws all of a page's pieces from :meth:`Plot.to_html`: plotly's, about 5 MB, and a few lines."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script><script>{_START}</script>"


def page_of(plot: Plot) -> str:
    """A page of its own."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(plot.title)}</title></head>"
        f'<body style="margin:12px;background:#fff">{fragment_of(plot)}{plot_script()}</body></html>\n'
    )


def spec_of(plot: Plot) -> dict[str, Any]:
    """``{"data": ..., "layout": ...}`` as plotly has it, JSON-ready."""
    return _Spec(plot).made()


def short_spec_of(plot: Plot) -> dict[str, Any]:
    """The same for a page or a notebook's file, which need not hold every digit."""
    return _rounded(spec_of(plot))


class _Spec:
    """Collects a plot's traces and its layout."""

    def __init__(self, plot: Plot) -> None:
        self.plot, self.frame = plot, Frame.of(plot)
        self.data: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.axes: dict[str, Any] = {}
        self.named: set[str] = set()

    def made(self) -> dict[str, Any]:
        frame, n = self.frame, len(self.frame.widths)
        for i, panel in enumerate(self.plot.panels):
            row, column = divmod(i, n)
            self._panel(i, panel, sum(frame.widths[:column]), frame.head + sum(frame.heights[:row]))
        self._heading()
        return {
            "data": self.data,
            "layout": {
                **self.axes,
                "width": round(frame.width * _PIXELS),
                "height": round(frame.height * _PIXELS),
                "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "pad": 0},
                "font": {"family": _FONT, "size": 11.5, "color": colours.INK},
                "paper_bgcolor": "#FFFFFF",
                "plot_bgcolor": "#FFFFFF",
                "annotations": self.notes,
                "shapes": self.shapes,
                "barmode": "overlay",
                "hovermode": "closest",
                "hoverlabel": {"align": "left", "font": {"size": 12}},
                "showlegend": bool(self.named),
                "legend": {
                    "orientation": "h",
                    "x": 0.5,
                    "xanchor": "center",
                    "y": 0,
                    "yanchor": "bottom",
                    "bgcolor": "rgba(0,0,0,0)",
                },
                "template": {"layout": {}},
            },
        }

    def _heading(self) -> None:
        frame, y = self.frame, 0.08
        for lines, size, colour, step in ((frame.titles, 15, colours.INK, 0.2), (frame.notes, 11, colours.FAINT, 0.16)):
            for line in lines:
                text = f"<b>{_plain(line)}</b>" if size > 12 else _plain(line)
                self.notes.append(
                    {
                        "text": text,
                        "x": 0.1 / frame.width,
                        "y": 1 - y / frame.height,
                        "xref": "paper",
                        "yref": "paper",
                        "xanchor": "left",
                        "yanchor": "top",
                        "showarrow": False,
                        "font": {"size": size, "color": colour},
                    }
                )
                y += step

    def _panel(self, i: int, panel: Panel, left: float, top: float) -> None:
        """Place a panel whose corner stands ``left`` and ``top`` inches from the plot's."""
        frame, pads, end = self.frame, self.frame.pads(panel), "" if i == 0 else str(i + 1)
        width, height = panel.size
        x = ((left + pads.left) / frame.width, (left + width - pads.right) / frame.width)
        y = (1 - (top + height - pads.bottom) / frame.height, 1 - (top + pads.top) / frame.height)
        ticks = frame.ticks(panel)
        cells = any(isinstance(mark, Cells) for mark in panel.marks)
        for which, axis, here, domain, limits in zip(
            "xy", (panel.x, panel.y), ticks, (x, y), panel.limits, strict=True
        ):
            made = _axis(axis, here, domain, limits, which)
            other = panel.y if which == "x" else panel.x
            made |= {"showgrid": not cells and axis.names is None and (which == "y" or other.names is not None)}
            made |= {"anchor": ("y" if which == "x" else "x") + end, "showline": not cells}
            self.axes[f"{which}axis{end}"] = made
        place = {"xaxis": f"x{end}", "yaxis": f"y{end}"}
        for mark in panel.marks:
            if isinstance(mark, Cells):
                self._cells(mark, place, x, y)
            elif isinstance(mark, Bars):
                self._bars(mark, place)
            else:
                self._series(mark, place)
        labels = labels_above(panel)
        for rule in panel.rules:
            self._rule(rule, end, panel, *labels.get(rule, (0, "center")))
        if panel.title:
            at = {"x": x[0], "y": 1 - (top + 0.04) / frame.height, "xref": "paper", "yref": "paper"}
            text = {"text": _plain(panel.title), "xanchor": "left", "yanchor": "top", "showarrow": False}
            self.notes.append({**at, **text, "font": {"size": 12.5}})

    def _cells(self, mark: Cells, place: dict[str, str], x: tuple[float, float], y: tuple[float, float]) -> None:
        rows, columns = len(mark.values), len(mark.values[0]) if mark.values else 0
        gap = 1 if rows * columns <= 2500 else 0
        values = [[_finite(value) for value in row] for row in mark.values]
        cells = {
            "type": "heatmap",
            "x": list(range(columns)),
            "y": list(range(rows)),
            "xgap": gap,
            "ygap": gap,
            **place,
        }
        missing = [[1 if value is None else None for value in row] for row in values]
        if any(1 in row for row in missing):  # plotly leaves such cells empty, as if they were 0
            grey = [[0, colours.MUTED], [1, colours.MUTED]]
            self.data.append({**cells, "z": missing, "colorscale": grey, "showscale": False, "hoverinfo": "skip"})
        self.data.append(
            {
                **cells,
                "z": values,
                "hovertext": [[_lines(text) for text in row] for row in mark.texts],
                "hoverinfo": "text",
                "colorscale": [list(stop) for stop in colours.scale(mark.signed)],
                "zmin": -mark.largest if mark.signed else 0,
                "zmax": mark.largest,
                "colorbar": {
                    "title": {"text": _plain(mark.label), "side": "right", "font": {"size": 11}},
                    "x": x[1] + 0.08 / self.frame.width,
                    "xanchor": "left",
                    "y": (y[0] + y[1]) / 2,
                    "len": min(y[1] - y[0], LONGEST_BAR / self.frame.height),
                    "thickness": 12,
                    "xpad": 0,
                    "ypad": 0,
                    "outlinewidth": 0,
                    "tickfont": {"size": 10.5},
                },
            }
        )

    def _series(self, mark: Series, place: dict[str, str]) -> None:
        label = {"legendgroup": mark.name or None, "showlegend": False}
        if mark.low and mark.band:
            there = [i for i, (a, b) in enumerate(zip(mark.low, mark.high, strict=True)) if a == a and b == b]
            around = [*there, *reversed(there)]
            ends = [mark.high[i] for i in there] + [mark.low[i] for i in reversed(there)]
            self.data.append(
                {
                    "type": "scatter",
                    "x": [mark.x[i] for i in around],
                    "y": ends,
                    "fill": "toself",
                    "fillcolor": _clear(mark.colour, 0.18),
                    "line": {"width": 0},
                    "mode": "lines",
                    "hoverinfo": "skip",
                    **label,
                    **place,
                }
            )
        new = bool(mark.name) and mark.name not in self.named
        self.named |= {mark.name} - {""}
        marker = {"color": mark.colour, "symbol": mark.mark, "size": 1.5 * mark.size}
        marker["opacity"] = mark.opacity if mark.size else 0
        trace: dict[str, Any] = {
            "type": "scatter",
            "name": _plain(mark.legend),
            "x": [_finite(value) for value in mark.x],
            "y": [_finite(value) for value in mark.y],
            "mode": "lines+markers" if mark.line else "markers",
            "line": {"color": mark.colour, "width": 1.3 * mark.line},
            "marker": marker,
            "hovertext": [_lines(text) for text in mark.texts],
            "hoverinfo": "text",
            **label,
            "showlegend": new,
            **place,
        }
        if mark.values:
            x, y = (_plain(name).replace("%", "&#37;") for name in mark.values)
            said = f"%{{hovertext}}<br>{x}: %{{x:.4~g}}<br>{y}: %{{y:.4~g}}<extra></extra>"
            trace["hovertemplate"] = said
        if mark.low and not mark.band:
            trace[f"error_{mark.along}"] = _errors(mark)
        self.data.append(trace)

    def _bars(self, mark: Bars, place: dict[str, str]) -> None:
        x, y = (mark.values, mark.at) if mark.flat else (mark.at, mark.values)
        trace: dict[str, Any] = {
            "type": "bar",
            "x": [_finite(value) for value in x],
            "y": [_finite(value) for value in y],
            "orientation": "h" if mark.flat else "v",
            "width": mark.width,
            "marker": {"color": list(mark.colours), "line": {"width": 0}},
            "hovertext": [_lines(text) for text in mark.texts],
            "hoverinfo": "text",
            "showlegend": False,
            **place,
        }
        if any(mark.hatched):
            shapes = ["/" if hatched else "" for hatched in mark.hatched]
            trace["marker"]["pattern"] = {"shape": shapes, "fgcolor": "#FFFFFF", "fillmode": "overlay", "size": 6}
        self.data.append(trace)

    def _rule(self, rule: Rule, end: str, panel: Panel, line: int, align: Align) -> None:
        stroke = {"color": rule.colour, "width": 1, "dash": "dash" if rule.dashed else "solid"}
        shape: dict[str, Any] = {"type": "line", "layer": "below", "line": stroke}
        x, y = f"x{end}", f"y{end}"
        text = {"text": _plain(rule.label), "showarrow": False, "font": {"size": 10.5, "color": rule.colour}}
        if rule.across == "diagonal":
            low, high = panel.x.limits or (0.0, 1.0)
            self.shapes.append({**shape, "xref": x, "yref": y, "x0": low, "x1": high, "y0": low, "y1": high})
        elif rule.across == "y":
            ends = {"xref": f"{x} domain", "yref": y, "x0": 0, "x1": 1, "y0": rule.at, "y1": rule.at}
            self.shapes.append(shape | ends)
            at = {"x": 1, "y": rule.at, "xref": f"{x} domain", "yref": y, "xanchor": "left", "yanchor": "middle"}
            self.notes.append(text | at)
        else:
            ends = {"xref": x, "yref": f"{y} domain", "x0": rule.at, "x1": rule.at, "y0": 0, "y1": 1}
            self.shapes.append(shape | ends)
            at = {"x": rule.at, "y": 1, "xref": x, "yref": f"{y} domain", "xanchor": align, "yanchor": "bottom"}
            self.notes.append(text | at | {"yshift": 1 + RULE_LINE * _PIXELS * line})


def _axis(
    axis: Axis, ticks: Ticks | None, domain: tuple[float, float], limits: tuple[float, float] | None, which: str
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "domain": list(domain),
        "title": {"text": _plain(axis.label), "font": {"size": 12.5}, "standoff": 6},
        "type": "log" if axis.log else "linear",
        "gridcolor": colours.GRID,
        "linecolor": "#B6BCC4",
        "zeroline": False,
        "ticks": "outside" if axis.names is None else "",
        "ticklen": 4,
        "tickcolor": "#B6BCC4",
        "tickfont": {"size": 11},
    }
    if ticks is not None:
        made |= {"tickmode": "array", "tickvals": list(ticks.at), "ticktext": [_plain(text) for text in ticks.texts]}
        made["tickangle"] = -40 if ticks.aslant else 0
    if limits is not None:
        low, high = (math.log10(end) for end in limits) if axis.log else limits
        made["range"] = [low, high] if which == "x" or axis.names is None else [high, low]
    return made


def _errors(mark: Series) -> dict[str, Any]:
    below, above = mark.away
    return {
        "type": "data",
        "symmetric": False,
        "array": list(map(_finite, above)),
        "arrayminus": list(map(_finite, below)),
        "color": mark.colour,
        "thickness": 1.3,
        "width": 3,
    }


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None


def _rounded(value: Any) -> Any:
    """All numbers to six digits: more than a screen tells apart, and half as long in a page."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _plain(text: str) -> str:
    """Text that plotly takes neither for markup nor for mathematics."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def _lines(text: str) -> str:
    return _plain(text).replace("\n", "<br>")


def _clear(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
