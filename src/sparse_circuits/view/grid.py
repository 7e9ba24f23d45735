"""Where everything is in the picture of a circuit without positions.

Heads have a fixed column each, MLPs the column to their right; the input is a bar below all columns and the logits one
above, because both are wired to everything. Columns and layers without a part in the circuit keep their place, but
narrow to a row of dots.
"""

from __future__ import annotations

from functools import cached_property

from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import Graph
from sparse_circuits.view.layout import (
    BAR,
    FLAT,
    LEFT,
    MIN_WIDTH,
    RIGHT,
    SHARED_WIDTH,
    Band,
    Box,
    Layout,
    Rail,
    Sizes,
    merged,
    ports_of,
    shared_ports,
)

_OVERHANG = 0.16  # of the bars, beyond the outermost columns
_NARROW = 0.24  # an unused column's width


def place(circuit: Circuit) -> Layout:
    """The layout of a circuit whose nodes stand once."""
    return _Builder(circuit).build()


class _Builder:
    def __init__(self, circuit: Circuit) -> None:
        self.graph: Graph = circuit.graph
        self.present = set(circuit.nodes)
        self.wired = self.graph.level == "edges"
        self.grouped = self.wired and self.graph.n_kv != self.graph.n_heads
        self.sizes = Sizes.of(circuit)
        self.gap = self.sizes.gap
        self.nodes: dict[str, Box] = {}
        self.ports: dict[str, Box] = {}
        self.dots: list[tuple[float, float]] = []
        self.rails: list[Rail] = []
        self.bands: list[Band] = []

    def build(self) -> Layout:
        graph, layers = self.graph, []
        y = BAR + self.gap
        for layer in range(graph.n_layers):
            bottom = y - self.gap / 2
            y = self._row(layer, y)
            layers.append((f"layer {layer}", bottom, y - self.gap / 2))
        height = y + BAR
        left, right = self.edges_of_columns
        self.nodes["input"] = Box("input", (left + right) / 2, BAR / 2, right - left, BAR)
        self.nodes["logits"] = Box("logits", (left + right) / 2, height - BAR / 2, right - left, BAR)
        columns = [
            (f"head {i}" if self.pitch(i) > _NARROW else str(i), x) for i, x in enumerate(self.xs[: graph.n_heads])
        ]
        if graph.has_mlp:
            columns.append(("MLP", self.xs[-1]))
        return Layout(
            width=max(MIN_WIDTH, right + RIGHT),
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
        least = 1.3 if self.grouped else max(1.04, self.sizes.box_width + 0.14)
        n_used = sum(self.used)
        spare = MIN_WIDTH - LEFT - RIGHT - _NARROW * (len(self.used) - n_used)
        return min(max(least, spare / max(1, n_used)), 1.7)

    def pitch(self, column: int) -> float:
        return self.wide if self.used[column] else _NARROW

    @cached_property
    def xs(self) -> list[float]:
        """Centres of the columns."""
        widths = [self.pitch(i) for i in range(len(self.used))]
        start = max(LEFT, (MIN_WIDTH - sum(widths)) / 2)
        return [start + sum(widths[:i]) + w / 2 for i, w in enumerate(widths)]

    @property
    def edges_of_columns(self) -> tuple[float, float]:
        last = len(self.used) - 1
        left, right = self.xs[0] - self.pitch(0) / 2, self.xs[-1] + self.pitch(last) / 2
        short = max(_OVERHANG, (3.0 - (right - left)) / 2)  # the bars keep room for their names
        return left - short, right + short

    # --- rows ---

    def _row(self, layer: int, y: float) -> float:
        """Place a layer whose ports start at ``y``, return the next layer's.

        MLPs stand above the heads that they read, but not where both run in parallel, or where there are no edges.
        """
        heads = [(f"a{layer}.h{i}", x) for i, x in enumerate(self.xs[: self.graph.n_heads])]
        mlp = [(f"m{layer}", self.xs[-1])] if self.graph.has_mlp else []
        rows = [heads + mlp] if self.graph.parallel or not self.wired else [heads, mlp]
        for row in filter(None, rows):
            if not any(name in self.present for name, _ in row):
                self.dots += [(x, y - self.gap / 2 + FLAT / 2) for _, x in row]
                y += FLAT
                continue
            sizes = self.sizes
            centre = y + sizes.port_height + sizes.box_height / 2
            boxes = {
                name: Box(name, x, centre, sizes.box_width, sizes.box_height) for name, x in row if name in self.present
            }
            self.dots += [(x, centre) for name, x in row if name not in self.present]
            self.nodes.update(boxes)
            taken = [(box.left, box.right) for box in boxes.values()]
            for name, box in boxes.items() if self.wired else ():
                self.ports |= ports_of(name, "", box, self.grouped)
            if self.grouped and row is not mlp:
                taken += self._rails(layer, centre)
            self.bands.append(Band(y, centre + sizes.box_height / 2, merged(taken)))
            y = centre + sizes.box_height / 2 + self.gap
        return y

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
            self.ports |= shared_ports(layer, group, "", x, y)
            taken.append((x - SHARED_WIDTH / 2, x + SHARED_WIDTH / 2))
        return taken
