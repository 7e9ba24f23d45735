"""What a feature circuit's picture is drawn of: names of sites, edges, boxes of features, error terms and whole nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Course

from sparse_circuits.graph.features import LOGITS
from sparse_circuits.view.contents import brief
from sparse_circuits.view.feature_layout import WITH_SCORES, Placed, Role
from sparse_circuits.view.feature_look import Look
from sparse_circuits.view.layout import Box
from sparse_circuits.view.marks import DASHES, FAINT, INK
from sparse_circuits.view.routes import route

if TYPE_CHECKING:
    from matplotlib.patches import Patch

_BAR = "#E4E7EB"


def lanes(axes: Axes, placed: Placed) -> None:
    """Names of the sites, at the left of their nodes."""
    for lane in placed.lanes:
        size, colour = (6, "#B6BCC4") if lane.empty else (8, FAINT)
        axes.text(0.98, lane.y, lane.name, size=size, color=colour, va="center", zorder=1)


def edges(axes: Axes, placed: Placed, look: Look) -> None:
    """One artist per edge, named after it, and one per arrowhead; the strongest on top."""
    for i, (name, score) in enumerate(reversed(look.circuit.to_dict("edges").items())):
        width, colour, opacity = look.pens.width(score), look.pens.colour(score), look.pens.opacity(score)
        source, _, target = name.partition("->")
        points = route(placed.layout, source, target).beziers()
        arrow(axes, name, points, width, colour, opacity, 2 + i / (look.circuit.n_edges + 1))


def arrow(
    axes: Axes,
    name: str,
    points: Sequence[tuple[float, float]],
    width: float,
    colour: str,
    opacity: float,
    z: float,
    dashed: bool = False,
) -> None:
    """An edge with its head, along Bezier pieces: a start, then two control points and an end for each."""
    half, height = 0.014 + 0.012 * width, 0.035 + 0.018 * width
    x, y = points[-1]
    line = PathPatch(
        # the line ends inside its arrowhead, not beyond the tip
        Course([*points[:-1], (x, y - 0.8 * height)], [Course.MOVETO, *[Course.CURVE4] * (len(points) - 1)]),
        fill=False,
        ec=colour,
        lw=width,
        ls=DASHES if dashed else "solid",
        alpha=opacity,
        capstyle="butt",
        zorder=z,
    )
    line.set_gid(name)
    axes.add_artist(line)  # not add_patch, which would work out data limits that are fixed already
    corners = [(x - half, y - height), (x + half, y - height), (x, y)]
    axes.add_artist(Polygon(corners, fc=colour, lw=0, alpha=min(1, opacity + 0.2), zorder=z))


def boxes(axes: Axes, placed: Placed, look: Look) -> None:
    """Nodes filled by their scores; each has its name as id."""
    with_scores = bool(look.scores) and look.circuit.size <= WITH_SCORES
    for name, box in placed.layout.nodes.items():
        if name == LOGITS:
            axes.add_patch(rounded(box, _BAR))
            axes.text(box.x, box.y, LOGITS, size=8.5, color=INK, ha="center", va="center", zorder=6)
            continue
        score, role = look.scores.get(name), placed.roles[name]
        patch = shape(box, role, look.shades.colour(score))
        patch.set_gid(name)
        axes.add_patch(patch)
        ink = "white" if look.shades.dark(score) else INK
        lines = [(box.label, 7.5), (brief(score, 2), 6.6)] if with_scores and score is not None else [(box.label, 7.5)]
        for i, (text, size) in enumerate(lines):
            y = box.y + 0.14 * ((len(lines) - 1) / 2 - i)
            style = "italic" if role == "error" else "normal"
            weight = "bold" if role == "whole" and i == 0 else "normal"
            axes.text(
                box.x,
                y,
                text,
                size=size,
                color=ink,
                ha="center",
                va="center",
                zorder=6,
                style=style,
                weight=weight,
                parse_math=False,
            )


def shape(box: Box, role: Role, fill: str) -> Patch:
    """A feature is a plain box, an error term has cut corners and a dashed outline, a whole node is round and bold."""
    if role == "error":
        cut = min(0.09, box.height / 2.5)
        corners = [
            (box.left + cut, box.bottom),
            (box.right - cut, box.bottom),
            (box.right, box.bottom + cut),
            (box.right, box.top - cut),
            (box.right - cut, box.top),
            (box.left + cut, box.top),
            (box.left, box.top - cut),
            (box.left, box.bottom + cut),
        ]
        return Polygon(corners, fc=fill, ec=INK, lw=0.9, ls=(0, (2.2, 1.4)), zorder=5)
    if role == "whole":
        return rounded(box, fill, 0.1, 1.5)
    return rounded(box, fill, 0.025, 0.8)


def rounded(box: Box, fill: str, pad: float = 0.05, line: float = 0.9) -> FancyBboxPatch:
    return FancyBboxPatch(
        (box.left + pad, box.bottom + pad),
        box.width - 2 * pad,
        box.height - 2 * pad,
        boxstyle=f"round,pad={pad},rounding_size={pad}",
        fc=fill,
        ec=INK,
        lw=line,
        zorder=5,
    )
