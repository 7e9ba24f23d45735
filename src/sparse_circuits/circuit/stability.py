"""How far scores hold up when other examples had been drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_circuits.circuit.select import strength
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph

if TYPE_CHECKING:
    from sparse_circuits.circuit.scores import Scores

_CHUNK_ELEMENTS = 1 << 25  # resampled scores at a time, 128 MB


@dataclass(frozen=True, eq=False)
class Stability:
    """Scores over bootstrap resamples of the examples: every tensor has the graph's shape.

    Attributes:
        graph: the graph.
        values: the scores over all examples.
        low, high: the 95% percentile interval of each score.
        negative, positive: the share of resamples in which a score is below, above 0.
        among_top: the share of resamples in which it is among the ``n`` strongest.
        sign_kept: the share in which it has the sign of the score over all examples.
        both: the share in which it is among the ``n`` strongest with that sign.
        candidates: whether it is among the ``n`` strongest over all examples.
        signed: whether the scores' signs mean something.
    """

    graph: Graph
    values: Tensor
    low: Tensor
    high: Tensor
    negative: Tensor
    positive: Tensor
    among_top: Tensor
    sign_kept: Tensor
    both: Tensor
    candidates: Tensor
    signed: bool = True

    @classmethod
    def of(cls, scores: Scores, ranking: Tensor, n: int, signed: bool, draws: int, seed: int) -> Stability:
        """Resample the examples ``draws`` times with replacement, rank anew each time."""
        if scores.per_example is None:
            raise InputError("The scores were not kept per example; pass attribute(..., per_example=True).")
        if not isinstance(draws, int) or draws < 20:
            raise InputError(f"stability(draws={draws!r}): expected a whole number of at least 20.")
        graph, values = scores.graph, scores.per_example
        n_examples, size = values.shape
        drawn = torch.randint(n_examples, (draws, n_examples), generator=torch.Generator().manual_seed(seed))
        weights = torch.zeros(draws, n_examples).scatter_add_(1, drawn, torch.ones(drawn.shape)) / n_examples
        mean = values.mean(0)
        counts = {name: torch.zeros(size) for name in ("negative", "positive", "among_top", "sign_kept", "both")}
        for start in range(0, draws, max(1, _CHUNK_ELEMENTS // max(1, size))):
            part = slice(start, start + max(1, _CHUNK_ELEMENTS // max(1, size)))
            here = weights[part] @ values
            there = torch.zeros_like(here, dtype=torch.bool)
            if n:
                there.scatter_(1, strength(here, signed).topk(n, dim=1).indices, True)
            same = here.sign() == mean.sign()
            counts["negative"] += (here < 0).sum(0)
            counts["positive"] += (here > 0).sum(0)
            counts["among_top"] += there.sum(0)
            counts["sign_kept"] += same.sum(0)
            counts["both"] += (there & same).sum(0)
        ends, ranks = torch.empty(2, size), torch.tensor([0.025, 0.975])
        for columns in torch.arange(size).split(max(1, _CHUNK_ELEMENTS // draws)):
            ends[:, columns] = torch.quantile(weights @ values[:, columns], ranks, dim=0)
        candidates = torch.zeros(size, dtype=torch.bool)
        candidates[ranking[graph.mask].argsort(descending=True, stable=True)[:n]] = True
        shares = {name: cls._spread(graph, count / draws) for name, count in counts.items()}
        return cls(
            graph=graph,
            values=scores.values,
            low=cls._spread(graph, ends[0]),
            high=cls._spread(graph, ends[1]),
            candidates=cls._spread(graph, candidates),
            signed=scores.signed,
            **shares,
        )

    def holds(self, confidence: float) -> Tensor:
        """Which of the ``n`` strongest keep their rank and sign in at least that share of the resamples: bool."""
        return self.candidates & (self.both >= confidence)

    def interval(self, name: str) -> tuple[float, float]:
        """The 95% percentile interval of a score, by the name of its edge, node or unit.

        Raises:
            InputError: for a name that the graph does not have.
        """
        at = self.graph.index(name)
        return float(self.low[at]), float(self.high[at])

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """The strongest parts with their intervals; see :func:`sparse_circuits.view.plots.others.plot_stability`."""
        from sparse_circuits.view.plots.others import plot_stability

        return plot_stability(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_stability

        return of_stability(self)

    def __repr__(self) -> str:
        n, holds = int(self.candidates.sum()), int(self.holds(0.95).sum())
        return f"Stability(of {n:,} {self.graph.thing}s, {holds:,} keep their rank and sign in 95% of the resamples)"

    @staticmethod
    def _spread(graph: Graph, values: Tensor) -> Tensor:
        out = torch.zeros(graph.shape, dtype=values.dtype)
        out[graph.mask] = values
        return out
