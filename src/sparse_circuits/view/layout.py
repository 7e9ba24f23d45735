"""Where everything in a circuit's picture is: inches, with the origin at the lower left, computation running upwards.

What is common to both ways of laying one out: by heads (:mod:`sparse_circuits.view.grid`), and by positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparse_circuits.circuit import Circuit

BOX_WIDTH, BOX_HEIGHT = 0.66, 0.27
PORT_WIDTH, PORT_HEIGHT = 0.19, 0.15
SHARED_WIDTH = 0.48  # what the k and v ports of a group take up in a row
MIN_WIDTH = 8.0
LEFT, RIGHT = 1.1, 0.4
BAR = 0.3  # height of the input and logits bars
FLAT = 0.16  # an unused row's height
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
    """Places for one circuit.

    Attributes:
        nodes: boxes of the nodes in the circuit, by name; "input" and "logits" are bars and always there. With positions
            they are "input@3", one for every position that has one.
        ports: boxes of the destinations that belong to those nodes, by name; edges arrive at their bottom.
        dots: where the parts outside the circuit would be.
        bands: rows of boxes, upwards.
        columns, layers: labels with their place; a layer's is its lower and upper bound.
        borders: between the columns of positions.
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
    borders: tuple[float, ...] = ()

    @classmethod
    def of(cls, circuit: Circuit) -> Layout:
        from sparse_circuits.view import grid, positions

        # without anything in it there are no columns of positions to draw
        return positions.place(circuit) if circuit.graph.positions and circuit.size else grid.place(circuit)


@dataclass(frozen=True)
class Sizes:
    """Measures that depend on what a circuit is made of: edges, nodes, or units of nodes."""

    box_width: float
    box_height: float
    port_height: float
    gap: float

    @classmethod
    def of(cls, circuit: Circuit) -> Sizes:
        level = circuit.graph.level
        if level == "edges":
            # room for edges to change columns between two rows
            return cls(BOX_WIDTH, BOX_HEIGHT, PORT_HEIGHT, 0.6 + 0.3 * min(1.0, circuit.size / 600))
        return cls(0.8, 0.42, 0, 0.22) if level == "nodes" else cls(1.0, 0.7, 0, 0.22)


def ports_of(name: str, at: str, box: Box, grouped: bool) -> dict[str, Box]:
    """A node's own ports; ``at`` is its position's part of the name, "@3" or nothing."""
    if name.startswith("m"):
        kinds = {"": "in"}
    else:
        kinds = {"<q>": "q"} if grouped else {f"<{which}>": which for which in "qkv"}
    left = box.x - _PORT_STEP * (len(kinds) - 1) / 2
    return {
        f"{name}{suffix}{at}": _port(label, left + i * _PORT_STEP, box.y)
        for i, (suffix, label) in enumerate(kinds.items())
    }


def shared_ports(layer: int, group: int, at: str, x: float, box_y: float) -> dict[str, Box]:
    """The k and v ports of a group of heads."""
    sides = (("k", -0.5), ("v", 0.5))
    return {f"a{layer}.g{group}<{which}>{at}": _port(which, x + side * _PORT_STEP, box_y) for which, side in sides}


def _port(label: str, x: float, box_y: float) -> Box:
    return Box(label, x, box_y - BOX_HEIGHT / 2 - PORT_HEIGHT / 2, PORT_WIDTH, PORT_HEIGHT)


def merged(stretches: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Sorted, with those that leave no room for an edge between them joined."""
    out: list[tuple[float, float]] = []
    for left, right in sorted(stretches):
        if out and left - out[-1][1] < 0.15:
            out[-1] = (out[-1][0], max(right, out[-1][1]))
        else:
            out.append((left, right))
    return tuple(out)
