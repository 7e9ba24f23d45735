"""Where everything is in the picture of a circuit with positions.

Every position that has a part in the circuit is a column, from left to right, with an input bar at its foot and a logits
bar at its head; in it a layer's heads stand side by side, and its MLP above them (without edges, after them). An edge into
a key or a value comes from the column that is attended to; all others stay in theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.layout import (
    BAR,
    BOX_WIDTH,
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

_BETWEEN = 0.16  # two boxes
_MARGIN = 0.2  # of a column, on both sides: edges that go straight up pass there
_BOXES = 20  # side by side at most, in all columns together, where no edges need them in one row
_PER_CHARACTER = 0.075  # of a column's header


@dataclass
class _Column:
    """A position: its nodes by the row that they stand in, a layer and a line of it, upwards."""

    name: str
    header: str
    rows: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    ends: set[str] = field(default_factory=set)


def place(circuit: Circuit) -> Layout:
    """The layout of a circuit that has a part at one position or more."""
    return _Builder(circuit).build()


class _Builder:
    def __init__(self, circuit: Circuit) -> None:
        self.graph, self.sizes = circuit.graph, Sizes.of(circuit)
        self.wired = self.graph.level == "edges"
        self.grouped = self.wired and self.graph.n_kv != self.graph.n_heads
        # edges cross whole columns in here
        self.gap = self.sizes.gap + (0.25 if self.wired else 0.0)
        self.columns = self._filled(circuit)
        # of the input, which may have as much to say as a node
        read = self.wired or any(column.ends for column in self.columns)
        self.foot = BAR if self.wired else self.sizes.box_height if read else 0.0
        self.nodes: dict[str, Box] = {}
        self.ports: dict[str, Box] = {}
        self.rails: list[Rail] = []
        self.bands: list[Band] = []

    def build(self) -> Layout:
        layers, y = [], self.foot + self.gap
        for layer in range(self.graph.n_layers):
            bottom = y - self.gap / 2
            for line in range(self._lines(layer)):
                y = self._row((layer, line), y)
            layers.append((f"layer {layer}", bottom, y - self.gap / 2))
        height = y + BAR
        for column, left, width in zip(self.columns, self.lefts, self.widths, strict=True):
            for end in column.ends:
                high, middle = (self.foot, self.foot / 2) if end == "input" else (BAR, height - BAR / 2)
                self.nodes[f"{end}@{column.name}"] = Box(end, left + width / 2, middle, width - _MARGIN, high)
        if not self.wired:  # all nodes write to all logits: one bar says so
            left, right = self.lefts[0] + _MARGIN / 2, self.lefts[-1] + self.widths[-1] - _MARGIN / 2
            self.nodes["logits"] = Box("logits", (left + right) / 2, height - BAR / 2, right - left, BAR)
        return Layout(
            width=max(MIN_WIDTH, self.lefts[-1] + self.widths[-1] + RIGHT),
            height=height,
            nodes=self.nodes,
            ports=self.ports,
            dots=(),
            rails=tuple(self.rails),
            bands=tuple(self.bands),
            columns=tuple((c.header, x + w / 2) for c, x, w in zip(self.columns, self.lefts, self.widths, strict=True)),
            layers=tuple(layers),
            borders=tuple(self.lefts[1:]),
        )

    def _filled(self, circuit: Circuit) -> list[_Column]:
        """The positions that have a part in the circuit, in the graph's order."""
        graph = self.graph
        single = graph.positions == tuple(str(i) for i in range(len(graph.positions)))
        columns = {name: _Column(name, f"position {name}" if single else name) for name in graph.positions}
        for node in circuit.nodes:
            base, _, position = node.partition("@")
            column = columns[position]
            if base in ("input", "logits"):
                if base == "input" or self.wired:
                    column.ends.add(base)
                continue
            layer = int(base[1:].partition(".")[0])
            line = int(base[0] == "m" and self.wired and not graph.parallel)  # an MLP reads the heads below it
            column.rows.setdefault((layer, line), []).append(base)
        filled = [column for column in columns.values() if column.rows or column.ends]
        if not self.wired:
            n = max(2, _BOXES // len(filled))
            for column in filled:
                rows = {
                    (layer, i // n): names[i : i + n]
                    for (layer, _), names in column.rows.items()
                    for i in range(0, len(names), n)
                }
                column.rows = rows
        return filled

    def _lines(self, layer: int) -> int:
        """How many rows of boxes a layer has: heads and MLP; without edges, as many as its fullest column needs."""
        if self.wired:
            return 1 if self.graph.parallel or not self.graph.has_mlp else 2
        return max((line + 1 for column in self.columns for n, line in column.rows if n == layer), default=1)

    # --- columns ---

    def _items(self, column: _Column, row: tuple[int, int]) -> list[tuple[str, float]]:
        """What stands in a column's row, with its width: nodes, and after a group's heads its k and v ports, "g1"."""
        items, box = [], BOX_WIDTH if self.wired else self.sizes.box_width
        names = column.rows.get(row, [])
        size = self.graph.n_heads // self.graph.n_kv
        for i, name in enumerate(names):
            items.append((name, box))
            if self.grouped and name[0] == "a":
                group = int(name.partition(".h")[2]) // size
                after = names[i + 1] if i + 1 < len(names) else ""
                if after[:1] != "a" or int(after.partition(".h")[2]) // size != group:
                    items.append((f"g{group}", SHARED_WIDTH))
        return items

    @cached_property
    def widths(self) -> list[float]:
        """Of the columns: as their fullest row needs, and wider where there are few."""
        widths = []
        for column in self.columns:
            rows = [self._width(self._items(column, row)) for row in column.rows]
            widths.append(max(0.7, _PER_CHARACTER * len(column.header), *rows, 0.0) + 2 * _MARGIN)
        spare = MIN_WIDTH - LEFT - RIGHT - sum(widths)
        return [width + max(0.0, min(spare / len(widths), 0.8)) for width in widths]

    @staticmethod
    def _width(items: list[tuple[str, float]]) -> float:
        return sum(width for _, width in items) + _BETWEEN * (len(items) - 1)

    @cached_property
    def lefts(self) -> list[float]:
        """Left borders of the columns."""
        start = max(LEFT, (MIN_WIDTH - sum(self.widths)) / 2)
        return [start + sum(self.widths[:i]) for i in range(len(self.widths))]

    # --- rows ---

    def _row(self, row: tuple[int, int], y: float) -> float:
        """Place a row whose ports start at ``y``; return where the next one's start."""
        if not any(row in column.rows for column in self.columns):
            return y + FLAT
        sizes, taken = self.sizes, []
        centre = y + sizes.port_height + sizes.box_height / 2
        for column, left, width in zip(self.columns, self.lefts, self.widths, strict=True):
            items = self._items(column, row)
            x = left + (width - self._width(items)) / 2
            at = f"@{column.name}"
            heads: list[float] = []
            for name, wide in items:
                middle = x + wide / 2
                if name[0] == "g":
                    self.rails.append(Rail(name, min(heads), middle, centre, middle))
                    self.ports |= shared_ports(row[0], int(name[1:]), at, middle, centre)
                    heads = []
                else:
                    box = self.nodes[name + at] = Box(name, middle, centre, wide, sizes.box_height)
                    heads.append(middle)
                    if self.wired:
                        self.ports |= ports_of(name, at, box, self.grouped)
                taken.append((x, x + wide))
                x += wide + _BETWEEN
        self.bands.append(Band(y, centre + sizes.box_height / 2, merged(taken)))
        return centre + sizes.box_height / 2 + self.gap
