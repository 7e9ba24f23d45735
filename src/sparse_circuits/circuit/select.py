"""Choosing edges by their scores. Rankings are by size, or most damaging (most negative) first."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from sparse_circuits.graph import Graph


def strength(values: Tensor, signed: bool) -> Tensor:
    """What rankings go by, larger first: |score|, or minus the score."""
    return -values if signed else values.abs()


def top(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """The ``n`` strongest edges, wherever they are: bool ``[n_sources, n_destinations]``."""
    u, v = graph.mask.nonzero(as_tuple=True)
    order = ranking[u, v].argsort(descending=True, stable=True)[:n]
    edges = torch.zeros_like(graph.mask)
    edges[u[order], v[order]] = True
    return edges


def greedy(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """Grow from the logits: ``n`` times, take the strongest edge into a node that is already in.

    Every edge so taken leads to the logits; the first edge from a node brings that node's own inputs within reach.
    """
    edges = torch.zeros_like(graph.mask)
    frontier: list[tuple[float, int, int]] = []
    opened = [False] * graph.n_destinations
    readable = graph.readable.tolist()
    columns = ranking.T.contiguous().tolist()

    def open_up(destination: int) -> None:
        if not opened[destination]:
            opened[destination] = True
            for u in range(readable[destination]):
                heapq.heappush(frontier, (-columns[destination][u], u, destination))

    open_up(graph.n_destinations - 1)
    for _ in range(n):
        if not frontier:
            break
        _, u, v = heapq.heappop(frontier)
        edges[u, v] = True
        for destination in graph.owned(u):
            open_up(destination)
    return edges
