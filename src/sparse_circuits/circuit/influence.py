"""Pruning by influence on the logits, over all paths."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.graph.features import FeatureGraph


def influential(graph: FeatureGraph, edges: EdgeList, nodes: float, share: float) -> tuple[Tensor, Tensor]:
    """The fewest nodes with a share ``nodes`` of all nodes' influence, and of the edges between these the fewest with a
    ``share`` of their influence.

    With a_du = |edge u -> d| / sum_u |edge u -> d|, the influence of the logits is 1 and that of u is sum_d a_du I_d; an
    edge's influence is a_du I_d (Ameisen et al. 2025, "Circuit tracing: revealing computational graphs in language
    models").

    Returns:
        Node numbers, ascending; and which edges.
    """
    ids = torch.cat([edges.sources, edges.targets, torch.tensor([graph.logits])]).unique()
    u, d = torch.searchsorted(ids, edges.sources), torch.searchsorted(ids, edges.targets)
    found, _ = _influence(graph, ids, u, d, edges.values)
    kept = _fewest(found[:-1], nodes)  # the logits are the last
    among = torch.cat([kept, torch.tensor([True])])
    inside = (among[u] & among[d]).nonzero()[:, 0]
    _, of_edges = _influence(graph, ids, u[inside], d[inside], edges.values[inside])
    return ids[:-1][kept], inside[_fewest(of_edges, share)]


def _influence(graph: FeatureGraph, ids: Tensor, u: Tensor, d: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Influence of nodes, and of edges between them."""
    into = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, d, values.abs().double())
    shares = values.abs().double() / into[d].clamp(min=torch.finfo(torch.float64).tiny)
    influence = torch.zeros(len(ids), dtype=torch.float64)
    influence[-1] = 1
    places = graph.places_of(ids)[d]
    for place in reversed(range(len(graph.places) + 1)):  # every edge into a place comes from an earlier one
        here = places == place
        influence.index_add_(0, u[here], shares[here] * influence[d[here]])
    return influence, shares * influence[d]


def _fewest(values: Tensor, share: float) -> Tensor:
    """The largest values that make up a share of the sum: bool."""
    order = values.argsort(descending=True, stable=True)
    before = values[order].cumsum(0) - values[order]
    chosen = torch.zeros(len(values), dtype=torch.bool)
    chosen[order[(before < share * values.sum()) & (values[order] > 0)]] = True
    return chosen
