"""Names and numbers of an attribution graph's nodes, such that no two nodes share either.

circuit-tracer knows one dictionary per layer: a node is ``layer_feature_position``, and its page the file with the number
``cantor(layer, feature)``. Here a layer may have several sites, heads, neurons and error terms, so that

- a node's id is ``layer_index_position``, followed by ``_kind`` for whatever is no transcoder feature, and by ``_s2`` for the
  third of a circuit's named spans;
- its number is ``cantor(row, index)``, with a row for each kind in each layer; transcoders' rows are the layers, as there.
  Pages take ``index`` out of the number, and show it after the layer. What has no page has a number below 0.

An error term's index is -1, which no feature has. Its type is "mlp reconstruction error" wherever it is: pages know no other.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph, Graph

LARGEST = 2**53 - 1
"""The largest number of which JavaScript knows every digit."""
KINDS = (
    "transcoder",  # its rows are the layers, as circuit-tracer's
    "mlp",
    "attn",
    "resid",
    "resid_mid",
    "z",
    "embed",
    "resid_pre",
    "head",
    "mlp-whole",
    "attn-whole",
    "resid-whole",
    "resid_mid-whole",
    "embed-whole",
    "mlp-neuron",
    "head-neuron",
    "mlp-dimension",
    "head-dimension",
)
"""What nodes may be; a kind's place here is part of the numbers in files, so that new ones go to the end."""
# Before the first layer: drawn among the tokens, whose numbers are their positions. These rows' begin at 2^31.
_EMBEDDED, _EMBEDDED_ROW = ("embed", "resid_pre", "embed-whole"), 2**16
_COMPONENT = re.compile(r"a(\d+)\.h(\d+)(?:\.([nd])(\d+))?|m(\d+)(?:\.([nd])(\d+))?|input(?:\.d(\d+))?")


@dataclass(frozen=True)
class Part:
    """A node of a circuit, as an attribution graph names it.

    Attributes:
        name: in the circuit, with its position.
        layer: "E" for the model's input and dictionaries of the embedding.
        index: in its kind and layer: a feature's, a head's, a neuron's; -1 of an error term.
        kind: one of :data:`KINDS`, or "input" or "input-dimension".
        row: where its kind and layer stand among the numbers; below 0 of what has no page.
        feature_type: what the page draws it as; it shows pages only of "cross layer transcoder".
    """

    name: str
    layer: str
    index: int
    kind: str
    row: int
    feature_type: str

    @property
    def plain(self) -> str:
        """The name without its position."""
        return self.name.partition("@")[0]

    @property
    def number(self) -> int:
        """What pages look its file up by; below 0 of what has none.

        Raises:
            InputError: for a feature whose number would be too large.
        """
        if self.row < 0:
            return self.row
        number = cantor(self.row, self.index)
        if number > LARGEST or uncantor(number) != (self.row, self.index):
            raise InputError(
                f"{self.name} cannot be in an attribution graph: its number would be {number}, and pages compute exactly only "
                "with those of features below some 67 million."
            )
        return number

    def id(self, ctx: int, span: int | None) -> str:
        """
        Args:
            ctx: the token that it stands at. span: the number of its span, where positions are named spans.
        """
        kind = "" if self.kind == "transcoder" else f"_{self.kind}"
        return f"{self.layer}_{self.index}_{ctx}{kind}" + ("" if span is None else f"_s{span}")


def part(circuit: Circuit | FeatureCircuit, name: str) -> Part:
    """One of a circuit's nodes or units; not the logits."""
    graph = circuit.graph
    plain = name.partition("@")[0]
    if isinstance(graph, FeatureGraph):
        place = graph.places[graph.place_of(graph.index(name))]
        site, _, which = plain.partition(".")
        kind, layer = place.site.kind, place.site.layer
        if place.split and which == "error":
            return Part(name, _layer(kind, layer), -1, kind, -1 - KINDS.index(kind), "mlp reconstruction error")
        if place.split:
            return _numbered(name, kind, layer, int(which[1:]), "cross layer transcoder", graph)
        if plain == site and kind != "z":
            return _numbered(name, f"{kind}-whole", layer, 0, kind, graph)
    match = _COMPONENT.fullmatch(plain)
    if match is None:
        raise InputError(f"{name!r} is no node that an attribution graph has a place for.")
    layer, head, unit, number, mlp, mlp_unit, mlp_number, dimension = match.groups()
    if layer is not None:
        if unit is None:
            return _numbered(name, "head", int(layer), int(head), "attention head", graph)
        kind = "head-neuron" if unit == "n" else "head-dimension"
        index = int(head) * graph.units_per_head + int(number)  # pyright: ignore[reportAttributeAccessIssue]
        return _numbered(name, kind, int(layer), index, _UNIT[unit], graph)
    if mlp is not None:
        if mlp_unit is None:
            return _numbered(name, "mlp-whole", int(mlp), 0, "mlp", graph)
        kind = "mlp-neuron" if mlp_unit == "n" else "mlp-dimension"
        return _numbered(name, kind, int(mlp), int(mlp_number), _UNIT[mlp_unit], graph)
    if dimension is not None:
        return Part(name, "E", int(dimension), "input-dimension", -2 - int(dimension), _UNIT["d"])
    return Part(name, "E", 0, "input", -1, "input")


_UNIT = {"n": "neuron", "d": "output dimension"}


def _layer(kind: str, layer: int) -> str:
    return "E" if kind in _EMBEDDED else str(layer)


def _numbered(name: str, kind: str, layer: int, index: int, feature_type: str, graph: Graph | FeatureGraph) -> Part:
    rank = KINDS.index(kind)
    row = _EMBEDDED_ROW + rank if kind in _EMBEDDED else rank * graph.n_layers + layer
    return Part(name, _layer(kind, layer), index, kind, row, feature_type)


def cantor(x: int, y: int) -> int:
    """Cantor's pairing of two whole numbers of at least 0: (x + y)(x + y + 1) / 2 + y, one number for each pair."""
    return (x + y) * (x + y + 1) // 2 + y


def uncantor(number: int) -> tuple[int, int]:
    """The pair, in floating point, as circuit-tracer's page computes it: towards 2^53 it need not be the right one."""
    z = float(number)
    diagonal = float(math.floor((math.sqrt(8 * z + 1) - 1) / 2))
    y = z - (diagonal * diagonal + diagonal) / 2
    return int(diagonal - y), int(y)
