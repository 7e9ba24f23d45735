"""The circuit itself in the file of its attribution graph, to come back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit, check_read
from sparse_circuits.circuit.files import pack_graph, unpack_components, unpack_graph
from sparse_circuits.errors import FileFormatError

OWN = "sparse_circuits"
"""The field of a file in which the circuit itself stands, and of a node or link in which its name and score do."""
_VERSION = 1


def packed(circuit: Circuit | FeatureCircuit) -> dict[str, Any]:
    """A circuit as JSON values, as they come back from a file; null for what of its provenance JSON has no number for."""
    return json.loads(json.dumps(_packed(circuit)), parse_constant=lambda _: None)


def _packed(circuit: Circuit | FeatureCircuit) -> dict[str, Any]:
    own: dict[str, Any] = {"version": _VERSION, "provenance": circuit.provenance}
    if isinstance(circuit, FeatureCircuit):
        edges = circuit.edge_list
        own |= {"kind": "features", "graph": pack_graph(circuit.graph), "nodes": circuit.node_ids.tolist()}
        own["scores"] = None if circuit.node_values is None else circuit.node_values.tolist()
        own["edges"] = [edges.sources.tolist(), edges.targets.tolist(), edges.values.tolist()]
        return own
    chosen = circuit.graph.names_of(circuit.mask)
    scores = None if circuit.values is None else circuit.values[circuit.mask].tolist()
    return {**own, "kind": "components", "graph": asdict(circuit.graph), "names": chosen, "scores": scores}


def unpacked(own: Any, dictionaries: Mapping[str, Any] | None = None) -> Circuit | FeatureCircuit:
    """
    Raises:
        FileFormatError: for anything that :func:`packed` does not return. InputError: for other dictionaries.
    """
    where = Path(OWN)
    try:
        if own["version"] != _VERSION:
            raise FileFormatError(
                f"{OWN}: format version {own['version']!r}; this version of sparse-circuits reads {_VERSION}."
            )
        provenance = dict(own["provenance"])
        if own["kind"] == "components":
            graph = unpack_components(where, own["graph"])
            names = own["names"] if own["scores"] is None else dict(zip(own["names"], own["scores"], strict=True))
            return replace(Circuit.of(graph, names), provenance=provenance)
        if own["kind"] != "features":
            raise ValueError(f"its kind is {own['kind']!r:.60}")
        features = unpack_graph(where, own["graph"])
        nodes = torch.tensor(own["nodes"], dtype=torch.int64)
        values = None if own["scores"] is None else torch.tensor(own["scores"], dtype=torch.float32)
        sources, targets, weights = own["edges"]
        ends = [torch.tensor(numbers, dtype=torch.int64) for numbers in (sources, targets)]
        edges = EdgeList(ends[0], ends[1], torch.tensor(weights, dtype=torch.float32))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{OWN}: the circuit in the file is damaged ({type(error).__name__}: {error}).") from None
    check_read(where, features, nodes, values, edges)
    if len(set(zip(sources, targets, strict=True))) < len(edges):
        raise FileFormatError(f"{OWN}: an edge of the circuit in the file comes twice.")
    features = features if dictionaries is None else features.with_dictionaries(dictionaries)
    return FeatureCircuit(features, nodes, values, edges, provenance)
