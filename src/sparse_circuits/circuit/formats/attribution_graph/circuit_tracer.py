"""Circuits out of circuit-tracer's own graphs, as far as they are the same thing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph

if TYPE_CHECKING:
    from sparse_circuits.circuit.formats.attribution_graph.graph import AttributionGraph

_ID = re.compile(r"(\d+)_(\d+)_(\d+)")


def circuit_of(shown: AttributionGraph, graph: FeatureGraph | None) -> FeatureCircuit:
    """The feature circuit of a graph of per-layer transcoders, ``3_217_7`` becoming ``transcoder_3.f217@7``.

    Error nodes become error terms. Tokens are no nodes here, so that links out of them are left out; the logits are one
    node, so that only links into the target logits are kept, and added up. Nodes have no scores: circuit-tracer computes
    none. An edge's score is minus its weight, so that what supports its target is negative, as here; it stays in units of
    the target's activation, and is no indirect effect on a metric.

    Args:
        graph: :meth:`Graph.of` the model with the same transcoders, without positions.

    Raises:
        InputError: without a graph, for one with positions or without a transcoder that the file needs, or where the file
            has a feature that its transcoder does not have.
    """
    slug = shown.slug
    if graph is None:
        raise InputError(
            f"{slug!r} holds no circuit of this library's. Pass the graph of its transcoders, to_circuit(graph=sc.Graph.of("
            "model, transcoders)), to read it as one of circuit-tracer's."
        )
    if not isinstance(graph, FeatureGraph) or graph.positions:
        raise InputError("to_circuit(graph=...): expected the graph of a model with transcoders, without positions.")
    positions = tuple(str(i) for i in range(len(shown.metadata["prompt_tokens"])))
    whole = graph.at(positions)
    at: dict[str, int] = {}
    for node in shown.nodes:
        name = _name(node, slug)
        if name is not None:
            at[node["node_id"]] = _index(whole, name, slug)
    logits = [node for node in shown.nodes if node["feature_type"] == "logit"]
    marked = [node for node in logits if node.get("is_target_logit")]
    targets = {node["node_id"] for node in marked or logits}  # where none is marked, all of them are
    found: dict[tuple[int, int], float] = {}
    for link in shown.links:
        source, target = at.get(link["source"]), at.get(link["target"])
        target = whole.logits if link["target"] in targets else target
        if source is not None and target is not None:
            found[source, target] = found.get((source, target), 0.0) - link["weight"]
    ids = torch.tensor(sorted(set(at.values())), dtype=torch.int64)
    ends = torch.tensor(list(found), dtype=torch.int64).view(-1, 2)
    edges = EdgeList(ends[:, 0], ends[:, 1], torch.tensor(list(found.values())).float())
    about = {"imported": slug, "scan": shown.metadata["scan"], "prompt": shown.metadata["prompt"]}
    return FeatureCircuit(whole, ids, None, edges, about)


def _name(node: Any, slug: str) -> str | None:
    """A node's name here; None of tokens and logits."""
    kind, id, ctx = node["feature_type"], node["node_id"], node["ctx_idx"]
    if kind in ("embedding", "logit"):
        return None
    layer = str(node["layer"])
    if kind == "mlp reconstruction error" and layer.isdecimal():
        return f"transcoder_{int(layer)}.error@{ctx}"
    match = _ID.fullmatch(id)
    if kind != "cross layer transcoder" or match is None or match[1] != layer or int(match[3]) != ctx:
        raise InputError(
            f"{slug!r} has a node {id!r} of type {kind!r}, which is no feature of a per-layer transcoder; such graphs cannot "
            "become a circuit here."
        )
    return f"transcoder_{match[1]}.f{int(match[2])}@{ctx}"


def _index(graph: FeatureGraph, name: str, slug: str) -> int:
    try:
        return graph.index(name)
    except InputError:
        has = ", ".join(f"{place.name} with {place.n_features} features" for place in graph.places) or "none"
        raise InputError(f"{slug!r} has {name}, which the graph given lacks; it has {has}.") from None
