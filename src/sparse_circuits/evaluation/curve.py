"""Faithfulness against circuit size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.circuit import FeatureScores, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.bootstrap import interval, ratios
from sparse_circuits.evaluation.evaluate import evaluate_many
from sparse_circuits.evaluation.feature_run import Errors
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.task.task import Task

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Default sizes as shares of the graph."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Circuits of growing size from the same scores, evaluated.

    Attributes:
        requested: edges (nodes, units) asked for; the circuits' own sizes, after what dangles is removed, are ``sizes``.
        evaluations: one per size.
        total: how many there are to ask for: by default all of the graph's; of a feature graph those with a score.
    """

    requested: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]
    total: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The circuits' own sizes, after what dangles is removed."""
        return tuple(e.circuit.size for e in self.evaluations)

    @property
    def faithfulness(self) -> tuple[float, ...]:
        """Of each circuit."""
        return tuple(e.faithfulness for e in self.evaluations)

    @property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        """The 95% bootstrap interval of each circuit's faithfulness."""
        return tuple(e.faithfulness_interval for e in self.evaluations)

    @property
    def area(self) -> float:
        """Area under faithfulness against the share of the graph asked for, by trapezoids, the share running from 0 to 1.

        The curve starts at the empty circuit, faithfulness 0, and ends at the whole model, 1. Higher is better: 1 for a
        method whose every circuit is as good as the model. The "integrated circuit performance ratio" (CPR) of Mueller et
        al. 2025, MIB (arXiv:2504.13151). NaN where faithfulness is undefined.
        """
        return float(self._under(self._ratios[0][:, None])[0])

    @property
    def area_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of :attr:`area`, examples resampled jointly in all circuits and both ends."""
        return interval(self._under(self._ratios[1]))

    @property
    def distance(self) -> float:
        """Area between the curve and 1, |1 - faithfulness|, over the same shares: lower is better.

        Unlike :attr:`area` it counts against a circuit that it does better than the model. The "integrated circuit-model
        distance" (CMD) of the same paper.
        """
        return float(self._between(self._ratios[0][:, None])[0])

    @property
    def distance_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of :attr:`distance`."""
        return interval(self._between(self._ratios[1]))

    @cached_property
    def _ratios(self) -> tuple[Tensor, Tensor]:
        first = self.evaluations[0]
        return ratios(torch.stack([e.per_example for e in self.evaluations]), first.clean, first.empty)

    def _under(self, faithfulness: Tensor) -> Tensor:
        """Area under curves ``[sizes, curves]``, from the empty circuit to the whole model."""
        return self._area(faithfulness, 0.0, 1.0)

    def _between(self, faithfulness: Tensor) -> Tensor:
        return self._area((1 - faithfulness).abs(), 1.0, 0.0)

    def _area(self, heights: Tensor, first: float, last: float) -> Tensor:
        size = self.evaluations[0].circuit.graph.size if self.total is None else self.total
        shares = torch.tensor([0.0, *(n / size for n in self.requested), 1.0], dtype=heights.dtype)
        one = torch.ones_like(heights[:1])
        return torch.trapezoid(torch.cat([first * one, heights, last * one]), shares[:, None], dim=0)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """The curve with its band; see :func:`sparse_circuits.view.curve.plot_curve`."""
        from sparse_circuits.view.curve import plot_curve

        return plot_curve(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_curve

        return of_curve(self)


def faithfulness_curve(
    model: Any,
    scores: Scores | FeatureScores,
    task: Task,
    sizes: Sequence[int] | None = None,
    *,
    select: Literal["greedy", "top"] = "greedy",
    signed: bool = False,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    dictionaries: Mapping[str, Any] | None = None,
    errors: Errors = "nodes",
    start_layer: int = 0,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Curve:
    """Evaluate circuits of several sizes chosen from the same scores; they share the clean and the ablated runs.

    Args:
        sizes: numbers of edges (at other levels nodes or units) to ask for; by default 0.1% to 100% of the graph's, in ten
            steps, or of the nodes of a feature graph that have a score.
        select: how edges are chosen; nodes, units and features are always the strongest.
        dictionaries, errors, start_layer: for feature circuits, as in :func:`evaluate`.
    """
    if select not in ("greedy", "top"):
        raise InputError(f"faithfulness_curve(select={select!r}): expected 'greedy' or 'top'.")
    n = len(scores.node_ids) if isinstance(scores, FeatureScores) else scores.graph.size
    wanted = sorted({max(1, round(f * n)) for f in FRACTIONS} if sizes is None else set(sizes))
    if not wanted:
        raise InputError("faithfulness_curve(sizes=[]): expected at least one size.")
    choose = scores.top if isinstance(scores, FeatureScores) else getattr(scores, select)
    results = evaluate_many(
        model,
        [choose(size, signed=signed) for size in wanted],
        task,
        ablation=ablation,
        completeness=completeness,
        dictionaries=dictionaries,
        errors=errors,
        start_layer=start_layer,
        batch_size=batch_size,
        progress=progress,
    )
    return Curve(tuple(wanted), tuple(results), n)
