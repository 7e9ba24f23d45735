"""How a feature circuit's scores look: colours of boxes, strokes of edges. Shared by all views of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.view.contents import Shades
from sparse_circuits.view.strokes import Pens, largest


@dataclass(frozen=True, eq=False)
class Look:
    """Colours of nodes and strokes of edges of a feature circuit; neutral where it has no scores or these carry no sign."""

    circuit: FeatureCircuit

    @property
    def signed(self) -> bool:
        return self.circuit.provenance.get("signed", True) is not False

    @cached_property
    def scores(self) -> dict[str, float]:
        """Of nodes, by name; empty where there are none."""
        return {} if self.circuit.node_values is None else self.circuit.to_dict()

    @cached_property
    def shades(self) -> Shades:
        values = self.circuit.node_values
        return Shades(0.0 if values is None else largest(values), self.signed and values is not None)

    @cached_property
    def pens(self) -> Pens:
        edges = self.circuit.edge_list
        return Pens(largest(edges.values), True, self.signed, len(edges))
