"""What a circuit's picture is drawn of: stripes, edges, boxes, samples in the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Course

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.contents import Content, Contents, brief
from sparse_circuits.view.layout import BAR, Box, Layout, Rail
from sparse_circuits.view.routes import route
from sparse_circuits.view.strokes import Strokes

INK, FAINT, PALE = "#22262B", "#8A9099", "#F5F6F8"
DASHES = (0, (3.2, 1.6))


def backdrop(axes: Axes, layout: Layout) -> None:
    """Stripes and names of layers, names and borders of columns, and dots for what is not in the circuit."""
    for i, (name, bottom, top) in enumerate(layout.layers):
        if i % 2 == 0:
            axes.add_patch(Rectangle((0, bottom), layout.width, top - bottom, color=PALE, lw=0, zorder=0))
        # a flat row has room for the number only
        size = 9 if top - bottom > 0.3 else 6.5
        axes.text(0.15, (bottom + top) / 2, name, size=size, color=FAINT, va="center", zorder=1)
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    for name, x in layout.columns:
        axes.text(x, -0.14, name, size=8 if len(name) > 2 else 6, color=FAINT, parse_math=False, **middle)
    if layout.borders:
        for x in layout.borders:
            axes.plot([x, x], [0, layout.height], color="#D5D9DE", lw=0.8, ls=(0, (5, 3)), zorder=0.5)
        for name, x in layout.columns:  # once more above: such pictures are tall
            axes.text(x, layout.height + 0.16, name, size=8, color=FAINT, parse_math=False, **middle)
    if layout.dots:
        xs, ys = zip(*layout.dots, strict=True)
        axes.scatter(xs, ys, s=5, color="#C9CDD3", linewidths=0, zorder=1)


_WHITE = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def edges(axes: Axes, circuit: Circuit, layout: Layout, strokes: Strokes) -> None:
    """One artist per edge, named after it, and one per arrowhead; the strongest on top."""
    graph = circuit.graph
    for i, name in enumerate(reversed(circuit.edges)):
        u, v = graph.edge_index(name)
        score = strokes.score((u, v))
        width, colour, opacity = strokes.width(score), strokes.colour(score), strokes.opacity(score)
        half, height = 0.018 + 0.014 * width, 0.04 + 0.022 * width
        points = route(layout, graph.rows[u], graph.columns[v]).beziers()
        x, y = points[-1]
        points[-1] = (x, y - 0.8 * height)  # the line ends inside its arrowhead, not beyond the tip
        codes = [Course.MOVETO, *[Course.CURVE4] * (len(points) - 1)]
        z = 2 + i / (circuit.n_edges + 1)
        line = PathPatch(
            Course(points, codes), fill=False, ec=colour, lw=width, alpha=opacity, capstyle="butt", zorder=z
        )
        line.set_gid(name)
        axes.add_artist(line)  # not add_patch, which would work out data limits that are fixed already
        tip = Polygon(
            [(x - half, y - height), (x + half, y - height), (x, y)],
            fc=colour,
            lw=0,
            alpha=min(1, opacity + 0.2),
            zorder=z,
        )
        axes.add_artist(tip)


def boxes(axes: Axes, layout: Layout, has_mlp: bool) -> None:
    """Nodes with their ports, as edges are wired to them."""
    for rail in layout.rails:
        _rail(axes, rail)
    for name, port in layout.ports.items():
        axes.add_patch(
            Rectangle((port.left, port.bottom), port.width, port.height, fc="white", ec=FAINT, lw=0.7, zorder=4)
        )
        axes.text(
            port.x, port.y - 0.005, port.label, size=7, color=INK, ha="center", va="center_baseline", zorder=5
        ).set_gid(f"port {name}")
    for box in layout.nodes.values():
        bar = box.label in ("input", "logits")
        fill = "#E4E7EB" if bar else "#FFF6DD" if has_mlp and box.label.startswith("m") else "white"
        axes.add_patch(_rounded(box, fill))
        size = 8.5 if len(box.label) < 7 else 7.5
        axes.text(box.x, box.y, box.label, size=size, color=INK, ha="center", va="center", zorder=6)


def filled_boxes(axes: Axes, layout: Layout, contents: Contents) -> None:
    """Nodes coloured by their scores, with what of them is in the circuit; each has its name as id."""
    for name, box in layout.nodes.items():
        content = contents.of.get(name)
        if content is None:
            axes.add_patch(_rounded(box, "#E4E7EB" if box.label == "logits" else "white"))
            axes.text(box.x, box.y, box.label, size=8.5, color=FAINT, ha="center", va="center", zorder=6)
            continue
        patch = _rounded(box, contents.colour(content.score))
        patch.set_gid(name)
        axes.add_patch(patch)
        ink = "white" if contents.dark(content.score) else INK
        lines = _lines(box, content, contents.in_parts)
        step = min(0.17, (box.height - 0.06) / len(lines))
        for i, (text, size) in enumerate(lines):
            y = box.y + step * ((len(lines) - 1) / 2 - i)
            axes.text(box.x, y, text, size=size, color=ink, ha="center", va="center", zorder=6)


def _lines(box: Box, content: Content, in_parts: bool) -> list[tuple[str, float]]:
    """What a box says, with the size of each line: all in one line on a bar, which is low and wide."""
    score = "" if content.score is None else brief(content.score, 3)
    some = f"{content.n:,} of {content.total:,}" if in_parts and content.total > 1 else ""
    if box.height <= BAR:
        return [("   ".join(filter(None, (box.label, score, some))), 8.5)]
    lines = ((box.label, 8.5), (score, 7.5), (some, 6.8), (" ".join(content.strongest), 6.2))
    return [(line, size) for line, size in lines if line]


def _rounded(box: Box, fill: str) -> FancyBboxPatch:
    pad = 0.05
    return FancyBboxPatch(
        (box.left + pad, box.bottom + pad),
        box.width - 2 * pad,
        box.height - 2 * pad,
        boxstyle=f"round,pad={pad},rounding_size={pad}",
        fc=fill,
        ec=INK,
        lw=0.9,
        zorder=5,
    )


def _rail(axes: Axes, rail: Rail) -> None:
    axes.plot([rail.left, rail.right], [rail.y, rail.y], color=FAINT, lw=1.6, zorder=3.5, solid_capstyle="round")
    axes.plot([rail.port_x, rail.port_x], [rail.y, rail.y - 0.14], color=FAINT, lw=1.6, zorder=3.5)
    axes.text(
        rail.port_x, rail.y + 0.09, rail.label, size=7, color=INK, ha="center", va="center", zorder=6, bbox=_WHITE
    )


def say(axes: Axes, layout: Layout, message: str) -> None:
    y = (layout.nodes["input"].top + layout.nodes["logits"].bottom) / 2
    axes.text(
        layout.nodes["input"].x,
        y,
        message,
        size=13,
        color=INK,
        ha="center",
        va="center",
        zorder=7,
        bbox={**_WHITE, "alpha": 1},
    )


def heading(axes: Axes, head: Sequence[str], details: Sequence[str], top: float, line: float) -> None:
    """Title and details above a picture, from ``top`` downwards; a line of details is ``line`` inches high."""
    for i, text in enumerate(head):
        axes.text(0.3, top - 0.27 * i, text, size=13, weight="bold", color=INK, va="top", parse_math=False)
    top -= 0.27 * len(head) + 0.03
    for i, text in enumerate(details):
        axes.text(0.3, top - line * i, text, size=9.5, color=INK, va="top", parse_math=False)


def legend_row(
    axes: Axes, text: str, y: float, samples: Sequence[tuple[float, str, str]], symbol: str, dashed: bool = False
) -> None:
    """A line of the legend: one or more sample strokes (width, colour, label), or a symbol, and what it means."""
    x = 0.3
    for width, colour, label in samples:
        style = DASHES if dashed else "solid"
        axes.plot([x, x + 0.34], [y, y], color=colour, lw=width, ls=style, solid_capstyle="butt", zorder=3)
        x += 0.42
        if label:
            axes.text(x, y, label, size=8.5, color=INK, va="center")
            x += 0.09 * len(label) + 0.1
    if symbol:
        axes.text(x + 0.17, y, symbol, size=8.5, color=INK, ha="center", va="center")
        x += 0.42
    axes.text(x, y, text, size=8.5, color=INK, va="center")
