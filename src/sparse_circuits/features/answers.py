"""What an output does directly to the logits of a task's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.task.batch import Batch
from sparse_circuits.task.metrics import LogitDiff, LogProb, Metric, PositionMetric, ProbDiff


@dataclass(frozen=True, eq=False)
class AnswerEffects:
    """Effects on the answers' logits, collected batch by batch; none for a metric without answers.

    Attributes:
        metric: the task's, its answers as token ids.
        correct, incorrect: of each example, in logits; of several answers their mean: ``[examples]``. None where the metric has
            no such answers.
    """

    metric: Metric
    correct: Tensor | None
    incorrect: Tensor | None

    @classmethod
    def of(cls, metric: Metric, n_examples: int) -> AnswerEffects:
        known = isinstance(metric, LogitDiff | ProbDiff | LogProb)
        return cls(metric, *(torch.empty(n_examples) if known and hasattr(metric, side) else None for side in _SIDES))

    def add(self, at: Tensor, batch: Batch, effects: Tensor, effects_at: Callable[[Tensor], Tensor]) -> None:
        """Those of one batch.

        Args:
            at: the batch's rows in the task.
            effects: on all logits at the last real token, ``[examples, vocab]``.
            effects_at: the same at other tokens, for a metric that reads those.
        """
        if self.correct is None or not isinstance(self.metric, PositionMetric):
            return
        rows = self.metric.rows(batch.lengths)
        if not torch.equal(rows, batch.lengths - 1):
            effects = effects_at(rows.cpu())
        for side, into in zip(_SIDES, (self.correct, self.incorrect), strict=True):
            if into is not None:
                answers: Sequence[Sequence[int]] = getattr(self.metric, side)
                for row, example, own in zip(at.tolist(), batch.index.tolist(), effects, strict=True):
                    into[row] = own[list(answers[example])].mean().cpu()


_SIDES = ("correct", "incorrect")


def means(correct: Tensor | None, incorrect: Tensor | None) -> dict[str, float]:
    """Mean effects by what reports call them, those that there are."""
    both = zip(_SIDES, (correct, incorrect), strict=True)
    return {f"adds_to_{side}": round(float(values.double().mean()), 4) for side, values in both if values is not None}
