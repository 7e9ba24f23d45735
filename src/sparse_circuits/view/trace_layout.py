"""Where everything is in the picture of a trace: inches, the origin at the lower left, computation upwards.

As in the picture of a feature circuit every site is a lane, here with boxes as large as what they say. A lane is one row
where that is not too wide; else rows hold as many boxes as make the picture about half again as wide as it is high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sparse_circuits.graph.features import LOGITS
from sparse_circuits.tracing.trace import TracedEdge
from sparse_circuits.view.feature_layout import Lane, Node, Placed, Role, ordered_nodes
from sparse_circuits.view.layout import BAR, FLAT, MIN_WIDTH, RIGHT, Band, Box, Layout, merged
from sparse_circuits.view.routes import route
from sparse_circuits.view.trace_card import Card
from sparse_circuits.view.trace_look import TraceLook
from sparse_circuits.view.trace_text import Sheet

_LEFT = 1.75  # room for the names of layers and lanes
_WIDE, _ASPECT = 17.0, 1.5
_CLOSEST, _FARTHEST = 0.3, 1.1  # two boxes of a row, and the edges that pass between them
Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class TraceLayout:
    """Places of a trace's parts.

    Attributes:
        placed: what it has in common with a feature circuit; its nodes are as high as their row, so that edges pass beside
            the row's highest box.
        boxes: what is drawn of each node, in the middle of that.
    """

    look: TraceLook
    placed: Placed
    boxes: Mapping[str, Box]

    @property
    def layout(self) -> Layout:
        return self.placed.layout

    @cached_property
    def courses(self) -> list[list[Point]]:
        """Of the edges: a start and, for each Bezier piece, two control points and an end; on the boxes' borders."""
        return [self._course(edge) for edge in self.look.edges]

    def _course(self, edge: TracedEdge) -> list[Point]:
        port = LOGITS if edge.target == LOGITS else edge.name
        points = route(self.layout, edge.source, port).beziers()
        (x, low), (end, high) = points[0], points[-1]
        below = self.boxes[edge.source].top
        above = self.boxes.get(edge.target, self.layout.nodes[edge.target]).bottom
        return [
            *([(x, below), (x, below), (x, low)] if below < low else []),
            *points,
            *([(end, high), (end, above), (end, above)] if above > high else []),
        ]


def place_trace(look: TraceLook, cards: Mapping[str, Card], sheets: Mapping[str, Sheet]) -> TraceLayout:
    """The layout of what is drawn of a trace, by the nodes' names."""
    return _Builder(look, cards, sheets).build()


class _Builder:
    def __init__(self, look: TraceLook, cards: Mapping[str, Card], sheets: Mapping[str, Sheet]) -> None:
        self.look, self.cards, self.sheets = look, cards, sheets
        self.places = look.trace.graph.places
        self.gap = 0.45 + 0.45 * min(1.0, len(look.edges) / 300) if look.edges else 0.2  # between two rows
        self.logits = any(edge.target == LOGITS for edge in look.edges)

    def build(self) -> TraceLayout:
        y, start = 0.12, 0.12
        cells: dict[str, Box] = {}
        bands, lanes, layers = [], [], []
        for i, place in enumerate(self.places):
            if i and self._layer(i) != self._layer(i - 1):
                layers.append((self._layer(i - 1), start, y))
                start = y
            rows = self.rows.get(i, [])
            if not rows:
                lanes.append(Lane(place.name, y + FLAT / 2, True))
                y += FLAT
                continue
            low = y
            for row in rows:
                height = self._height(row)
                middle = y + self.gap / 2 + height / 2
                for node, x in self._spread(row):
                    cells[node.name] = Box(node.label, x, middle, self.sheets[node.name].width, height)
                taken = [(cells[node.name].left, cells[node.name].right) for node in row]
                bands.append(Band(middle - height / 2, middle + height / 2, merged(taken)))
                y += height + self.gap
            lanes.append(Lane(place.name, (low + y) / 2, False))
        layers.append((self._layer(len(self.places) - 1), start, y))
        boxes = {
            name: Box(cell.label, cell.x, cell.y, cell.width, self.sheets[name].height) for name, cell in cells.items()
        }
        if self.logits:
            y += self.gap / 2
            cells[LOGITS] = Box(LOGITS, _LEFT + self.room / 2, y + BAR / 2, self.room, BAR)
            y += BAR
        layout = Layout(
            width=_LEFT + self.room + RIGHT,
            height=y,
            nodes=cells,
            ports=self._ports(cells),
            dots=(),
            rails=(),
            bands=tuple(bands),
            columns=(),
            layers=tuple(layers),
        )
        roles: dict[str, Role] = {node.name: node.role for node in self.nodes}
        return TraceLayout(self.look, Placed(layout, roles, tuple(lanes)), boxes)

    def _layer(self, place: int) -> str:
        layer = self.places[place].site.order[0]
        return "input" if layer < 0 else f"layer {layer}"

    @cached_property
    def nodes(self) -> list[Node]:
        cards, place_of = self.cards, self.look.place_of
        return [Node(n.name, cards[n.name].name, cards[n.name].role, place_of[n.name], 0) for n in self.look.nodes]

    @cached_property
    def rows(self) -> dict[int, list[list[Node]]]:
        """By lane: its nodes in rows, ordered so that edges cross little."""
        edges = {edge.name: self.look.share(edge) for edge in self.look.edges}
        lanes = {place: nodes for (place, _), nodes in ordered_nodes(self.nodes, edges).items()}
        fullest = max(map(len, lanes.values()))
        ways = [{place: _cut(nodes, k) for place, nodes in lanes.items()} for k in range(1, fullest + 1)]
        single = max(self._narrowest(nodes) for nodes in lanes.values())
        return ways[-1] if _LEFT + single + RIGHT <= _WIDE else min(ways, key=self._ugliness)

    def _ugliness(self, rows: Mapping[int, Sequence[Sequence[Node]]]) -> float:
        """How far the picture is from the shape that it should have."""
        every = [row for lane in rows.values() for row in lane]
        width = max(MIN_WIDTH, _LEFT + RIGHT + max(map(self._narrowest, every)))
        height = sum(self._height(row) + self.gap for row in every) + 2
        return abs(math.log(width / height / _ASPECT))

    def _height(self, row: Sequence[Node]) -> float:
        return max(self.sheets[node.name].height for node in row)

    def _narrowest(self, row: Sequence[Node]) -> float:
        return sum(self.sheets[node.name].width for node in row) + _CLOSEST * (len(row) + 1)

    @cached_property
    def room(self) -> float:
        """For boxes, from left to right."""
        widest = max(self._narrowest(row) for rows in self.rows.values() for row in rows)
        return max(widest, MIN_WIDTH - _LEFT - RIGHT)

    def _spread(self, row: Sequence[Node]) -> list[tuple[Node, float]]:
        """A row's nodes with their x, over the width where that does not tear them apart."""
        widths = [self.sheets[node.name].width for node in row]
        gap = min(_FARTHEST, (self.room - sum(widths)) / (len(row) + 1))
        x = _LEFT + (self.room - sum(widths) - gap * (len(row) - 1)) / 2
        placed = []
        for node, width in zip(row, widths, strict=True):
            placed.append((node, x + width / 2))
            x += width + gap
        return placed

    def _ports(self, cells: Mapping[str, Box]) -> dict[str, Box]:
        """Where edges arrive: side by side along the lower border, in the order in which they come from."""
        into: dict[str, list[TracedEdge]] = {}
        for edge in self.look.edges:
            if edge.target != LOGITS:
                into.setdefault(edge.target, []).append(edge)
        ports = {}
        for target, edges in into.items():
            cell = cells[target]
            step = min(0.3, 0.86 * cell.width / len(edges))
            for i, edge in enumerate(sorted(edges, key=lambda edge: cells[edge.source].x)):
                x = cell.x + step * (i - (len(edges) - 1) / 2)
                ports[edge.name] = Box("", x, cell.bottom, 0, 0)
        return ports


def _cut(nodes: Sequence[Node], k: int) -> list[list[Node]]:
    """Rows of at most k; neighbours share a place rather than a row."""
    n = -(-len(nodes) // k)
    return [list(nodes[i::n]) for i in range(n)]
