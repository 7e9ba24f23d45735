"""The course of an edge: upwards from its source to its destination's port, past the boxes in between.

A course is x as a function of y, so it cannot turn back: vertical at both ends, piecewise cubic in between. Where it
would cross a box it is held in the free stretch beside that box for the height of the row, so it crosses none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparse_circuits.view.layout import Band, Box, Layout

_WIDEST = 0.6  # how far from a box an edge that passes it may be sent, in inches
Point = tuple[float, float]


@dataclass(frozen=True)
class Route:
    """Knots of a course, upwards: ``(x, y)`` and the slope dx/dy at each."""

    knots: tuple[Point, ...]
    slopes: tuple[float, ...]

    def beziers(self) -> list[Point]:
        """Start, then two control points and an end per piece."""
        points = [self.knots[0]]
        for i in range(len(self.knots) - 1):
            (x0, y0), (x1, y1) = self.knots[i], self.knots[i + 1]
            third = (y1 - y0) / 3
            points += [
                (x0 + self.slopes[i] * third, y0 + third),
                (x1 - self.slopes[i + 1] * third, y1 - third),
                (x1, y1),
            ]
        return points

    def x_at(self, y: float) -> float:
        for i in range(len(self.knots) - 1):
            (x0, y0), (x1, y1) = self.knots[i], self.knots[i + 1]
            if y <= y1:
                h = y1 - y0
                t = (y - y0) / h
                s0, s1 = self.slopes[i] * h, self.slopes[i + 1] * h
                return x0 + t * (s0 + t * (3 * (x1 - x0) - 2 * s0 - s1 + t * (s0 + s1 - 2 * (x1 - x0))))
        return self.knots[-1][0]


def route(layout: Layout, source: str, destination: str) -> Route:
    """The course of one edge."""
    start, end = _ends(layout, source, destination)
    between = [b for b in layout.bands if b.bottom > start[1] - 1e-6 and b.top < end[1] + 1e-6]
    lane = _lane(start, end, layout.height)
    pinned: dict[Band, float] = {}
    while True:
        knots = [(x, y) for band, x in sorted(pinned.items(), key=_bottom) for y in (band.bottom, band.top)]
        if knots and _is(source, "input"):  # a bar is left, and reached, wherever that is straight
            start = (_leave(layout.nodes[source], knots[0][0]), start[1])
        if knots and _is(destination, "logits"):
            end = (_within(layout.nodes[destination], knots[-1][0]), end[1])
        knots = [start, *knots, end]
        course = Route(tuple(knots), _slopes(knots))
        hit = [band for band in between if band not in pinned and _crosses(course, band)]
        if not hit:
            return course
        for band in hit:
            pinned[band] = _beside(band, course.x_at((band.bottom + band.top) / 2), lane)


def _ends(layout: Layout, source: str, destination: str) -> tuple[Point, Point]:
    """Where an edge leaves and arrives: on the bars, straight below or above its other end."""
    port, box = layout.ports.get(destination), layout.nodes[source]
    if port is None:
        bar = layout.nodes[destination]
        end = (_within(bar, box.x), bar.bottom)
    else:
        end = (port.x, port.bottom)
    if _is(source, "input"):
        return (_leave(box, end[0]), box.top), end
    away = end[0] - box.x
    aim = 0.46 * away / (abs(away) + 2.5)  # leave on the destination's side, so that bundles fan out
    return (box.x + aim * box.width, box.top), end


def _is(name: str, node: str) -> bool:
    """Whether a name is that of a bar, at any position."""
    return name.partition("@")[0] == node


def _within(bar: Box, x: float) -> float:
    return max(bar.left + 0.08, min(bar.right - 0.08, x))


def _leave(bar: Box, x: float) -> float:
    """Straight below where an edge is bound, or towards it: the farther off, the nearer to the bar's end."""
    beyond = abs(x - bar.x) - bar.width / 2
    if beyond <= 0:
        return _within(bar, x)
    aim = (0.4 + 0.5 * beyond / (beyond + 2.5)) * bar.width / 2
    return bar.x + (aim if x > bar.x else -aim)


def _lane(start: Point, end: Point, height: float) -> float:
    """How far an edge keeps from the boxes it passes, 0 to 1: long edges outside short ones, no two quite alike."""
    span = (end[1] - start[1]) / height
    return 0.5 * min(1.0, span) + 0.5 * ((7.31 * start[0] + 3.17 * end[0] + 1.93 * start[1]) % 1)


def _bottom(item: tuple[Band, float]) -> float:
    return item[0].bottom


def _crosses(course: Route, band: Band) -> bool:
    middle = (band.bottom + band.top) / 2
    xs = [course.x_at(y) for y in (band.bottom, middle, band.top)]
    return any(left - 0.03 < max(xs) and min(xs) < right + 0.03 for left, right in band.blocked)


def _beside(band: Band, x: float, lane: float) -> float:
    """A place in the free stretch nearest to ``x``."""
    blocked = band.blocked
    gaps = [(a[1], b[0]) for a, b in pairwise(blocked)]
    gaps = [(blocked[0][0] - _WIDEST, blocked[0][0]), *gaps, (blocked[-1][1], blocked[-1][1] + _WIDEST)]
    left, right = min(gaps, key=lambda gap: max(gap[0] - x, x - gap[1], 0.0))
    room = min(right - left, 2 * _WIDEST)
    if left < x < right:  # free here, but another part of the row is in the way: keep clear of the sides
        return max(left + 0.12 * room, min(right - 0.12 * room, x))
    away = room * (0.12 + 0.36 * lane)
    return left + away if x <= left else right - away


def _slopes(knots: Sequence[Point]) -> tuple[float, ...]:
    """Slopes that make the course monotone between knots (Fritsch and Carlson 1980), 0 at both ends."""
    steps = [(x1 - x0) / (y1 - y0) for (x0, y0), (x1, y1) in pairwise(knots)]
    inner = [2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in pairwise(steps)]
    return (0.0, *inner, 0.0)
