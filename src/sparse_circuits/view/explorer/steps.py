"""The sizes at which the page shows a circuit, and from which of them on each part is there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.circuit.select import growth, strength, top
from sparse_circuits.graph import Graph

_GROWTH = 1.08  # from one size to the next, once sizes no longer grow one by one


def sizes_up_to(n: int, also: Iterable[int] = ()) -> tuple[int, ...]:
    """Every small size, then ever larger steps, up to ``n``; round numbers, and ``also`` as far as they do not exceed it."""
    found, size = {digit * 10**zeros for digit in (1, 2, 3, 4, 5, 6, 8) for zeros in range(len(str(n)))}, 1
    while size < n:
        found.add(size)
        size = max(size + 1, round(size * _GROWTH))
    return tuple(sorted({n, *(size for size in (*found, *also) if 0 < size <= n)})) if n > 0 else (0,)


def step_of(rank: int, steps: Sequence[int]) -> int:
    """The first step whose size takes in the part that stands at ``rank``, 0 being the strongest; ``len(steps)`` for none."""
    return bisect_left(steps, rank + 1)


@dataclass(frozen=True)
class Wiring:
    """Edges of a component graph as pairs of row and column, and what is left of the first n of them without what dangles.

    The same as ``graph.prune`` on a matrix, but in the number of edges given, as it is asked for many sizes.
    """

    graph: Graph
    rows: Tensor
    columns: Tensor
    owned: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, graph: Graph, edges: Sequence[tuple[int, int]]) -> Wiring:
        rows, columns = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
        pairs = [(row, column) for row in rows.unique().tolist() for column in graph.owned(row)]
        owners, ports = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
        return cls(graph, rows, columns, (owners, ports))

    def kept(self, n: int) -> Tensor:
        """Which of the first ``n`` edges do not dangle: bool ``[n]``."""
        rows, columns = self.rows[:n], self.columns[:n]
        owners, ports = self.owned
        width = self.graph.n_positions
        kept = torch.ones(len(rows), dtype=torch.bool)
        while True:
            writes = torch.zeros(self.graph.shape[0], dtype=torch.bool)
            reads, read = writes.clone(), torch.zeros(self.graph.shape[1], dtype=torch.bool)
            writes[rows[kept]] = True
            read[columns[kept]] = True
            reads[owners[read[ports]]] = True
            reads[:width] = True
            alive = writes & reads
            open_to = torch.zeros_like(read)
            open_to[ports[alive[owners]]] = True
            open_to[-width:] = True
            still = kept & alive[rows] & open_to[columns]
            if torch.equal(still, kept):
                return kept
            kept = still


def entries(graph: Graph, edges: Sequence[tuple[int, int]], steps: Sequence[int]) -> list[int]:
    """Per edge, taken in this order, the first step at which it is part of the circuit; ``len(steps)`` for never."""
    wiring = Wiring.of(graph, edges)
    first = torch.full((len(edges),), len(steps))
    for i in reversed(range(len(steps))):
        n = min(steps[i], len(edges))
        first[:n][wiring.kept(n)] = i
    return first.tolist()


def order_of(graph: Graph, values: Tensor, n: int, select: str, signed: bool) -> list[tuple[int, ...]]:
    """The first ``n`` parts in the order in which a selection takes them."""
    ranking = strength(values, signed)
    if graph.level == "edges" and select == "greedy":
        found: list[tuple[int, ...]] = []
        for edge in growth(graph, ranking):
            if len(found) == n:
                break
            found.append(edge)
        return found
    chosen = top(graph, ranking, n)
    return _sorted(chosen, ranking)


def order_within(graph: Graph, mask: Tensor, values: Tensor | None, select: str) -> list[tuple[int, ...]]:
    """A circuit's own parts: as it was grown, if it was, or the strongest first."""
    if values is None:
        return [tuple(at) for at in mask.nonzero().tolist()]
    ranking = values.abs()
    strongest = _sorted(mask, ranking)
    if graph.level != "edges" or select != "greedy":
        return strongest
    inside = ranking.masked_fill(~mask, -1.0)
    grown: list[tuple[int, ...]] = []
    for edge in growth(graph, inside):
        if not bool(mask[edge]):  # all that can be reached inside the circuit has been
            break
        grown.append(edge)
    there = set(grown)
    return grown + [edge for edge in strongest if edge not in there]


def _sorted(mask: Tensor, ranking: Tensor) -> list[tuple[int, ...]]:
    order = ranking[mask].argsort(descending=True, stable=True)
    return [tuple(at) for at in mask.nonzero()[order].tolist()]
