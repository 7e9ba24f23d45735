"""Where everything is in the picture of a feature circuit: inches, the origin at the lower left, computation upwards.

Every site of the graph is a lane, in the order in which the model meets them, and a layer's lanes are a stripe; a lane
with many nodes has several rows. With positions, each that has a part in the circuit is a column. Within its lane and
column a node stands near the nodes that it is wired to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.graph.features import LOGITS
from sparse_circuits.view.layout import BAR, FLAT, MIN_WIDTH, RIGHT, Band, Box, Layout, merged

Role = Literal["feature", "error", "whole"]

_LEFT = 1.75  # room for the names of layers and lanes
_BETWEEN = 0.2  # two boxes, and an edge that passes
_MARGIN = 0.14  # of a column, on both sides: edges that go straight up pass there
# boxes side by side over all columns, at most: in small and large circuits, and with positions
_PER_ROW, _PER_WIDE_ROW, _PER_ROW_OF_COLUMNS = 14, 20, 20
_PER_CHARACTER = 0.068
_SWEEPS = 8
WITH_SCORES = 60
"""Circuits of at most so many nodes have room for a score in each box."""


@dataclass(frozen=True)
class Lane:
    """A site's stretch of the picture: its name and the height of its middle."""

    name: str
    y: float
    empty: bool


@dataclass(frozen=True)
class Placed:
    """The layout of a feature circuit, and what only feature circuits have.

    Attributes:
        layout: boxes by the nodes' full names, labelled without site and position; edges arrive at ``ports`` of no height.
        roles: whether a node is a feature, an error term or a whole site or head.
        lanes: one per site.
    """

    layout: Layout
    roles: Mapping[str, Role]
    lanes: tuple[Lane, ...]


def place_features(circuit: FeatureCircuit) -> Placed:
    """The layout of a circuit, all of which is drawn."""
    return _Builder(circuit).build()


@dataclass(frozen=True)
class Node:
    """What is placed: its lane is its place, and its column that of its position."""

    name: str
    label: str
    role: Role
    place: int
    column: int


class _Builder:
    def __init__(self, circuit: FeatureCircuit) -> None:
        self.circuit, self.graph = circuit, circuit.graph
        self.scored = circuit.node_values is not None and circuit.size <= WITH_SCORES
        self.box_height = 0.38 if self.scored else 0.24
        self.wired = circuit.n_edges > 0
        self.boxes: dict[str, Box] = {}
        self.bands: list[Band] = []
        self.lanes: list[Lane] = []

    def build(self) -> Placed:
        y, layers = 0.12, []
        y_from, layer = y, self._layer(0)
        for i, place in enumerate(self.graph.places):
            if self._layer(i) != layer:
                layers.append((layer, y_from, y))
                y_from, layer = y, self._layer(i)
            y = self._lane(i, place.name, y)
        layers.append((layer, y_from, y))
        height = y + self.gap / 2 + BAR
        left, right = self.lefts[0] + _MARGIN / 2, self.lefts[-1] + self.widths[-1] - _MARGIN / 2
        self.boxes[LOGITS] = Box(LOGITS, (left + right) / 2, height - BAR / 2, right - left, BAR)
        ports = {name: Box("", box.x, box.bottom, 0, 0) for name, box in self.boxes.items() if name != LOGITS}
        layout = Layout(
            width=max(MIN_WIDTH, right + RIGHT),
            height=height,
            nodes=self.boxes,
            ports=ports,
            dots=(),
            rails=(),
            bands=tuple(self.bands),
            columns=tuple((name, self.lefts[i] + self.widths[i] / 2) for i, name in enumerate(self.headers)),
            layers=tuple(layers),
            borders=tuple(self.lefts[1:]),
        )
        return Placed(layout, {node.name: node.role for node in self.nodes}, tuple(self.lanes))

    def _layer(self, place: int) -> str:
        layer = self.graph.places[place].site.order[0]
        return "input" if layer < 0 else f"layer {layer}"

    # --- nodes and columns ---

    @cached_property
    def nodes(self) -> list[Node]:
        """In the model's order; columns count only the positions that have a node."""
        graph, width = self.graph, self.graph.n_positions
        columns = {position: i for i, position in enumerate(self.positions)}
        nodes = []
        for number, name in zip(self.circuit.node_ids.tolist(), self.circuit.nodes, strict=True):
            i = graph.place_of(number)
            place, local = graph.places[i], number // width - graph.offsets[i]
            role: Role = "whole" if not place.split else "feature" if local < place.n_features else "error"
            label = place.node(local).removeprefix(f"{place.name}.")
            nodes.append(Node(name, label, role, i, columns[number % width]))
        return nodes

    @cached_property
    def positions(self) -> list[int]:
        """Positions of the graph that have a part in the circuit."""
        return sorted({number % self.graph.n_positions for number in self.circuit.node_ids.tolist()}) or [0]

    @cached_property
    def headers(self) -> list[str]:
        names = self.graph.positions
        single = names == tuple(str(i) for i in range(len(names)))
        return [f"position {names[i]}" if single else names[i] for i in self.positions] if names else []

    @cached_property
    def rows(self) -> dict[tuple[int, int], list[list[Node]]]:
        """Per lane and column: its nodes in rows, ordered so that edges cross little."""
        ordered, rows = ordered_nodes(self.nodes, self.circuit.to_dict("edges")), {}
        room = self._room({key: len(nodes) for key, nodes in ordered.items()})
        for key, nodes in ordered.items():
            n = -(-len(nodes) // room[key[1]])
            rows[key] = [nodes[i::n] for i in range(n)]  # neighbours share a place rather than a row
        return rows

    def _room(self, sizes: Mapping[tuple[int, int], int]) -> list[int]:
        """How many boxes stand side by side in each column: the more, the more nodes its fullest lane has."""
        fullest = [max((n for (_, c), n in sizes.items() if c == i), default=1) for i in range(len(self.positions))]
        total = _PER_ROW if self.circuit.size <= 200 else _PER_WIDE_ROW
        room = [1] * len(fullest)
        for _ in range((total if len(room) == 1 else _PER_ROW_OF_COLUMNS) - len(room)):
            tallest = max(range(len(room)), key=lambda i: -(-fullest[i] // room[i]))
            room[tallest] += fullest[tallest] > room[tallest]
        return room

    @cached_property
    def box_width(self) -> float:
        return max(0.46, 0.16 + _PER_CHARACTER * max((len(node.label) for node in self.nodes), default=0))

    @cached_property
    def widths(self) -> list[float]:
        """Of the columns: as their fullest row needs, and wider where there are few."""
        n = len(self.positions)
        fullest = [
            max((len(row) for (_, c), rows in self.rows.items() if c == i for row in rows), default=1) for i in range(n)
        ]
        widths = [count * (self.box_width + _BETWEEN) - _BETWEEN + 2 * _MARGIN for count in fullest]
        if self.headers:
            widths = [max(w, 0.085 * len(name) + 0.1) for w, name in zip(widths, self.headers, strict=True)]
        spare = max(0.0, MIN_WIDTH - _LEFT - RIGHT - sum(widths))
        return [width + spare / n for width in widths]

    @cached_property
    def lefts(self) -> list[float]:
        """Left borders of the columns."""
        return [_LEFT + sum(self.widths[:i]) for i in range(len(self.widths))] or [_LEFT]

    # --- rows ---

    @cached_property
    def gap(self) -> float:
        """Between two lanes: room for edges to change places."""
        return 0.36 + 0.2 * min(1.0, self.circuit.n_edges / 300) if self.wired else 0.14

    def _lane(self, place: int, name: str, y: float) -> float:
        """Set a site's rows above ``y``; return where the next lane starts."""
        rows = [self.rows.get((place, c), []) for c in range(len(self.positions))]
        n = max(map(len, rows))
        if not n:
            self.lanes.append(Lane(name, y + FLAT / 2, True))
            return y + FLAT
        step = self.box_height + (0.17 if self.wired else 0.07)
        bottom = y + self.gap / 2
        for line in range(n):
            centre, taken = bottom + self.box_height / 2 + line * step, []
            for c, column in enumerate(rows):
                for node, x in self._spread(column[line], c) if line < len(column) else ():
                    box = self.boxes[node.name] = Box(node.label, x, centre, self.box_width, self.box_height)
                    taken.append((box.left, box.right))
            self.bands.append(Band(centre - self.box_height / 2, centre + self.box_height / 2, merged(taken)))
        top = bottom + (n - 1) * step + self.box_height
        self.lanes.append(Lane(name, (bottom + top) / 2, False))
        return top + self.gap / 2

    def _spread(self, row: Sequence[Node], column: int) -> list[tuple[Node, float]]:
        """A row's nodes with their x, over the column's width where that does not tear them apart."""
        room = self.widths[column] - 2 * _MARGIN
        pitch = min((room + _BETWEEN) / len(row), 2.2 * (self.box_width + _BETWEEN))
        start = self.lefts[column] + self.widths[column] / 2 - pitch * (len(row) - 1) / 2
        return [(node, start + i * pitch) for i, node in enumerate(row)]


def ordered_nodes(nodes: Sequence[Node], edges: Mapping[str, float]) -> dict[tuple[int, int], list[Node]]:
    """Nodes by lane and column, each near the middle of its neighbours (the barycentre heuristic, up and down in turn)."""
    groups: dict[tuple[int, int], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.place, node.column), []).append(node)
    wires: dict[str, list[tuple[str, float]]] = {node.name: [] for node in nodes}
    for name, value in edges.items():
        u, _, d = name.partition("->")
        if d != LOGITS:
            weight = abs(value) or 1e-9
            wires[u].append((d, weight))
            wires[d].append((u, weight))
    place_of = {node.name: node.place for node in nodes}
    x: dict[str, float] = {}

    def settle(key: tuple[int, int]) -> None:
        group = groups[key]
        for i, node in enumerate(group):
            x[node.name] = key[1] + (i + 0.5) / len(group)

    for key in groups:
        settle(key)
    for sweep in range(_SWEEPS):
        upwards = sweep % 2 == 0
        for key in sorted(groups, reverse=not upwards):

            def middle(node: Node, upwards: bool = upwards) -> float:
                near = [(x[v], w) for v, w in wires[node.name] if (place_of[v] < node.place) == upwards]
                total = sum(w for _, w in near)
                return sum(at * w for at, w in near) / total if near else x[node.name]

            groups[key].sort(key=middle)
            settle(key)
    return groups
