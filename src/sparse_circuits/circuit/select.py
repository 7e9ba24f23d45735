"""Choosing from scores. Rankings are by size, or most damaging (most negative) first."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from sparse_circuits.graph import Graph


def strength(values: Tensor, signed: bool) -> Tensor:
    """What rankings go by, larger first: |score|, or minus the score."""
    return -values if signed else values.abs()


def top(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """The ``n`` strongest edges (nodes, units), wherever they are: bool, of the graph's shape."""
    places = graph.mask.flatten().nonzero().flatten()
    order = ranking.flatten()[places].argsort(descending=True, stable=True)[:n]
    chosen = torch.zeros(graph.mask.numel(), dtype=torch.bool)
    chosen[places[order]] = True
    return chosen.view(graph.shape)


def greedy(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """Grow from the logits: ``n`` times, take the strongest edge into a node that is already in.

    Every edge so taken leads to the logits; the first edge from a node brings that node's own inputs within reach. At a
    level without edges every node is within reach at once, so this is :func:`top`.
    """
    if graph.level != "edges":
        return top(graph, ranking, n)
    edges = torch.zeros_like(graph.mask)
    # per column that has been reached, its edges from strong to weak; only the strongest left of each stands in line
    line: list[tuple[float, int, int]] = []
    waiting: dict[int, list[tuple[float, int, int]]] = {}

    def open_up(column: int) -> None:
        if column not in waiting:
            rows = graph.mask[:, column].nonzero().flatten()
            values = ranking[rows, column]
            order = values.argsort(stable=True, descending=True).flip(0)
            found = zip((-values[order]).tolist(), rows[order].tolist(), strict=True)
            waiting[column] = [(strength, row, column) for strength, row in found]
            step(column)

    def step(column: int) -> None:
        if waiting[column]:
            heapq.heappush(line, waiting[column].pop())

    for column in range(graph.shape[1] - graph.n_positions, graph.shape[1]):
        open_up(column)
    for _ in range(n):
        if not line:
            break
        _, row, column = heapq.heappop(line)
        edges[row, column] = True
        step(column)
        for owned in graph.owned(row):
            open_up(owned)
    return edges
