"""Faithfulness against circuit size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.circuit import Scores
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.evaluate import evaluate_many
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.task.task import Task

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Default sizes as shares of the graph's edges."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Circuits of growing size from the same scores, evaluated.

    Attributes:
        requested: edges asked for; the circuits' own sizes, after what dangles is removed, are ``sizes``.
        evaluations: one per size.
    """

    requested: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(e.circuit.n_edges for e in self.evaluations)

    @property
    def faithfulness(self) -> tuple[float, ...]:
        return tuple(e.faithfulness for e in self.evaluations)

    @property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        return tuple(e.faithfulness_interval for e in self.evaluations)

    @property
    def area(self) -> float:
        """Area under faithfulness against the share of edges asked for, by trapezoids, the share running from 0 to 1.

        1 for a method whose every circuit is as good as the model. Mueller et al. 2025, MIB (arXiv:2504.13151).
        """
        n = self.evaluations[0].circuit.graph.n_edges
        x = torch.tensor([0.0, *(r / n for r in self.requested), 1.0], dtype=torch.float64)
        y = torch.tensor([0.0, *self.faithfulness, 1.0], dtype=torch.float64)
        return float(torch.trapezoid(y, x))

    def plot(self, path: Any = None, **options: Any) -> Any:
        """The curve with its band; see :func:`sparse_circuits.view.curve.plot_curve`."""
        from sparse_circuits.view.curve import plot_curve

        return plot_curve(self, path, **options)


def faithfulness_curve(
    model: Any,
    scores: Scores,
    task: Task,
    sizes: Sequence[int] | None = None,
    *,
    select: Literal["greedy", "top"] = "greedy",
    signed: bool = False,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    batch_size: int = 32,
    progress: bool = False,
) -> Curve:
    """Evaluate circuits of several sizes chosen from the same scores; they share the clean and the ablated runs.

    Args:
        sizes: numbers of edges to ask for; by default 0.1% to 100% of the graph's, in ten steps.
    """
    if select not in ("greedy", "top"):
        raise InputError(f"faithfulness_curve(select={select!r}): expected 'greedy' or 'top'.")
    n = scores.graph.n_edges
    wanted = sorted({max(1, round(f * n)) for f in FRACTIONS} if sizes is None else set(sizes))
    if not wanted:
        raise InputError("faithfulness_curve(sizes=[]): expected at least one size.")
    circuits = [getattr(scores, select)(size, signed=signed) for size in wanted]
    results = evaluate_many(
        model, circuits, task, ablation=ablation, completeness=completeness, batch_size=batch_size, progress=progress
    )
    return Curve(tuple(wanted), tuple(results))
