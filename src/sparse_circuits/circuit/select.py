"""Choosing from scores. Rankings are by size, or most damaging (most negative) first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from sparse_circuits.graph import Graph


def strength(values: Tensor, signed: bool) -> Tensor:
    """What rankings go by, larger first: |score|, or minus the score."""
    return -values if signed else values.abs()


def top(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """The ``n`` strongest edges (nodes, units), wherever they are: bool, of the graph's shape."""
    strengths = ranking.masked_fill(~graph.mask, -torch.inf).flatten()
    chosen = torch.zeros(strengths.shape, dtype=torch.bool)
    if n:
        weakest = strengths.topk(n, sorted=False).values.min()
        chosen = strengths > weakest
        ties = (
            (strengths == weakest).nonzero().flatten()
        )  # taken in the graph's order, so that a choice can be repeated
        chosen[ties[: n - int(chosen.sum())]] = True
    return chosen.view(graph.shape)


def greedy(graph: Graph, ranking: Tensor, n: int) -> Tensor:
    """Grow from the logits: ``n`` times, take the strongest edge into a node that is already in.

    Every edge so taken leads to the logits; the first edge from a node brings that node's own inputs within reach. At a
    level without edges every node is within reach at once, so this is :func:`top`.
    """
    if graph.level != "edges":
        return top(graph, ranking, n)
    return marked(graph, list(islice(growth(graph, ranking), n)))


def marked(graph: Graph, edges: list[tuple[int, int]]) -> Tensor:
    """Edges as a mask: bool, of the graph's shape."""
    mask = torch.zeros(graph.shape, dtype=torch.bool)
    if edges:
        mask[tuple(torch.tensor(edges).T)] = True
    return mask


def growth(graph: Graph, ranking: Tensor) -> Iterator[tuple[int, int]]:
    """The edges in the order in which :func:`greedy` takes them, as far as they are asked for."""
    by_column = ranking.T.contiguous()
    # per column that has been reached, its edges from strong to weak; only the strongest left of each stands in line
    line: list[tuple[float, int, int]] = []
    waiting: dict[int, Iterator[tuple[float, int]]] = {}

    def open_up(column: int) -> None:
        if column not in waiting:
            rows = graph.mask[:, column].nonzero().flatten()
            waiting[column] = _from_strong_to_weak(by_column[column, rows], rows)
            step(column)

    def step(column: int) -> None:
        following = next(waiting[column], None)
        if following is not None:
            heapq.heappush(line, (*following, column))

    for column in range(graph.shape[1] - graph.n_positions, graph.shape[1]):
        open_up(column)
    while line:
        _, row, column = heapq.heappop(line)
        yield row, column
        step(column)
        for owned in graph.owned(row):
            open_up(owned)


def _from_strong_to_weak(values: Tensor, rows: Tensor, at_once: int = 64) -> Iterator[tuple[float, int]]:
    """Minus the strength, and the row; few of them are ever asked for."""
    order = values.argsort(descending=True, stable=True)
    for start in range(0, len(order), at_once):
        part = order[start : start + at_once]
        yield from zip((-values[part]).tolist(), rows[part].tolist(), strict=True)
