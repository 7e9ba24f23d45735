"""Where everything in a circuit's picture is: inches, with the origin at the lower left, computation running upwards.

Heads have a fixed column each, MLPs the column to their right; the input is a bar below all columns and the logits one
above, because both are wired to everything. Columns and layers without a part in the circuit keep their place, but
narrow to a row of dots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import Graph

BOX_WIDTH, BOX_HEIGHT = 0.66, 0.27
PORT_WIDTH, PORT_HEIGHT = 0.19, 0.15
MIN_WIDTH = 8.0
_LEFT, _RIGHT = 1.1, 0.4
_OVERHANG = 0.16  # of the bars, beyond the outermost columns
_BAR = 0.3  # height of the input and logits bars
_NARROW, _FLAT = 0.24, 0.16  # an unused column's width, an unused row's height
_PORT_STEP = 0.21


@dataclass(frozen=True)
class Box:
    """A rectangle given by its centre; of nodes, ports and bars."""

    label: str
    x: float
    y: float
    width: float = BOX_WIDTH
    height: float = BOX_HEIGHT

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2

    @property
    def top(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Rail:
    """What ties the heads of a group to the k and v ports that they share."""

    label: str
    left: float
    right: float
    y: float
    port_x: float


@dataclass(frozen=True)
class Band:
    """A row of boxes, between which passing edges find their way: blocked stretches, left to right, none touching."""

    bottom: float
    top: float
    blocked: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layout:
    """Positions for one circuit.

    Attributes:
        nodes: boxes of the nodes in the circuit, by name; "input" and "logits" are bars and always there.
        ports: boxes of the destinations that belong to those nodes, by name; edges arrive at their bottom.
        dots: where the parts outside the circuit would be.
        bands: rows of boxes, upwards.
        columns, layers: labels with their place; a layer's is its lower and upper bound.
    """

    width: float
    height: float
    nodes: dict[str, Box]
    ports: dict[str, Box]
    dots: tuple[tuple[float, float], ...]
    rails: tuple[Rail, ...]
    bands: tuple[Band, ...]
    columns: tuple[tuple[str, float], ...]
    layers: tuple[tuple[str, float, float], ...]

    @classmethod
    def of(cls, circuit: Circuit) -> Layout:
        return _Builder(circuit).build()


class _Builder:
    def __init__(self, circuit: Circuit) -> None:
        self.graph: Graph = circuit.graph
        self.present = set(circuit.nodes)
        self.grouped = self.graph.n_kv != self.graph.n_heads
        self.gap = 0.6 + 0.3 * min(1.0, circuit.n_edges / 600)  # room for edges to change columns between two rows
        self.nodes: dict[str, Box] = {}
        self.ports: dict[str, Box] = {}
        self.dots: list[tuple[float, float]] = []
        self.rails: list[Rail] = []
        self.bands: list[Band] = []

    def build(self) -> Layout:
        graph, layers = self.graph, []
        y = _BAR + self.gap
        for layer in range(graph.n_layers):
            bottom = y - self.gap / 2
            y = self._row(layer, y)
            layers.append((f"layer {layer}", bottom, y - self.gap / 2))
        height = y + _BAR
        left, right = self.edges_of_columns
        self.nodes["input"] = Box("input", (left + right) / 2, _BAR / 2, right - left, _BAR)
        self.nodes["logits"] = Box("logits", (left + right) / 2, height - _BAR / 2, right - left, _BAR)
        columns = [
            (f"head {i}" if self.pitch(i) > _NARROW else str(i), x) for i, x in enumerate(self.xs[: graph.n_heads])
        ]
        if graph.has_mlp:
            columns.append(("MLP", self.xs[-1]))
        return Layout(
            width=max(MIN_WIDTH, right + _RIGHT),
            height=height,
            nodes=self.nodes,
            ports=self.ports,
            dots=tuple(self.dots),
            rails=tuple(self.rails),
            bands=tuple(self.bands),
            columns=tuple(columns),
            layers=tuple(layers),
        )

    # --- columns ---

    @cached_property
    def used(self) -> list[bool]:
        """Per column (heads, then the MLPs), whether any layer has a part of the circuit there."""
        graph = self.graph
        heads = [any(f"a{n}.h{i}" in self.present for n in range(graph.n_layers)) for i in range(graph.n_heads)]
        return heads + [any(f"m{n}" in self.present for n in range(graph.n_layers))] * graph.has_mlp

    @cached_property
    def wide(self) -> float:
        """A used column's width: more in small graphs, so that title and legend fit the picture."""
        least = 1.3 if self.grouped else 1.04
        n_used = sum(self.used)
        spare = MIN_WIDTH - _LEFT - _RIGHT - _NARROW * (len(self.used) - n_used)
        return min(max(least, spare / max(1, n_used)), 1.7)

    def pitch(self, column: int) -> float:
        return self.wide if self.used[column] else _NARROW

    @cached_property
    def xs(self) -> list[float]:
        """Centres of the columns."""
        widths = [self.pitch(i) for i in range(len(self.used))]
        start = max(_LEFT, (MIN_WIDTH - sum(widths)) / 2)
        return [start + sum(widths[:i]) + w / 2 for i, w in enumerate(widths)]

    @property
    def edges_of_columns(self) -> tuple[float, float]:
        last = len(self.used) - 1
        left, right = self.xs[0] - self.pitch(0) / 2, self.xs[-1] + self.pitch(last) / 2
        short = max(_OVERHANG, (3.0 - (right - left)) / 2)  # the bars keep room for their names
        return left - short, right + short

    # --- rows ---

    def _row(self, layer: int, y: float) -> float:
        """Place a layer whose ports start at ``y``, MLPs above heads unless parallel; return the next layer's."""
        heads = [(f"a{layer}.h{i}", x) for i, x in enumerate(self.xs[: self.graph.n_heads])]
        mlp = [(f"m{layer}", self.xs[-1])] if self.graph.has_mlp else []
        rows = [heads + mlp] if self.graph.parallel else [heads, mlp]
        for row in filter(None, rows):
            if not any(name in self.present for name, _ in row):
                self.dots += [(x, y - self.gap / 2 + _FLAT / 2) for _, x in row]
                y += _FLAT
                continue
            centre = y + PORT_HEIGHT + BOX_HEIGHT / 2
            boxes = {name: Box(name, x, centre) for name, x in row if name in self.present}
            self.dots += [(x, centre) for name, x in row if name not in self.present]
            self.nodes.update(boxes)
            taken = [(box.left, box.right) for box in boxes.values()]
            for name, box in boxes.items():
                self._ports(name, box)
            if self.grouped and row is not mlp:
                taken += self._rails(layer, centre)
            self.bands.append(Band(y, centre + BOX_HEIGHT / 2, _merged(taken)))
            y = centre + BOX_HEIGHT / 2 + self.gap
        return y

    def _ports(self, name: str, box: Box) -> None:
        if name.startswith("m"):
            kinds = {"": "in"}
        else:
            kinds = {"<q>": "q"} if self.grouped else {f"<{which}>": which for which in "qkv"}
        left = box.x - _PORT_STEP * (len(kinds) - 1) / 2
        for i, (suffix, label) in enumerate(kinds.items()):
            self.ports[name + suffix] = self._port(label, left + i * _PORT_STEP, box.y)

    def _port(self, label: str, x: float, box_y: float) -> Box:
        return Box(label, x, box_y - BOX_HEIGHT / 2 - PORT_HEIGHT / 2, PORT_WIDTH, PORT_HEIGHT)

    def _rails(self, layer: int, y: float) -> list[tuple[float, float]]:
        """Shared k and v ports, hung between the two middle heads of each group; returns what they block."""
        graph, taken = self.graph, []
        size = graph.n_heads // graph.n_kv
        for group in range(graph.n_kv):
            members = [i for i in range(group * size, (group + 1) * size) if f"a{layer}.h{i}" in self.present]
            if not members:
                continue
            middle = group * size + (size - 1) // 2
            x = self.xs[middle] + self.pitch(middle) / 2
            ends = [x, *(self.xs[i] for i in members)]
            self.rails.append(Rail(f"g{group}", min(ends), max(ends), y, x))
            for which, side in (("k", -0.5), ("v", 0.5)):
                self.ports[f"a{layer}.g{group}<{which}>"] = self._port(which, x + side * _PORT_STEP, y)
            taken.append((x - 0.24, x + 0.24))
        return taken


def _merged(stretches: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Sorted, with those that leave no room for an edge between them joined."""
    out: list[tuple[float, float]] = []
    for left, right in sorted(stretches):
        if out and left - out[-1][1] < 0.15:
            out[-1] = (out[-1][0], max(right, out[-1][1]))
        else:
            out.append((left, right))
    return tuple(out)
