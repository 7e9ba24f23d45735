"""What turns gradients into scores, whatever the level: the interface between methods and levels."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sparse_circuits.model.forward import Rerun, Run, Sources
from sparse_circuits.task.batch import Batch

Group = tuple[int, int]


class Scorer(ABC):
    """Scores of everything in a graph, added up over the gradients that a method takes on one batch.

    ``start`` a batch, ``add`` gradients, ``collect`` the scores.
    """

    @abstractmethod
    def start(self, batch: Batch) -> None:
        """Forget what was added, and take on a batch."""

    @abstractmethod
    def add(
        self,
        metric_sum: Tensor,
        delta: Sources,
        run: Run | Rerun,
        weight: float = 1.0,
        group: Group | None = None,
        retain: bool = False,
    ) -> None:
        """Take one gradient, and add ``weight *`` the scores that it gives.

        Args:
            metric_sum: the metric, summed over the batch.
            delta: ablated minus clean value of every source.
            run: the run whose gradient is taken; its norms' derivatives apply. Layers that it did not run hold None.
            group: the first source and the one after the last, where only what leaves these is scored.
            retain: whether another gradient of the same run will be taken.
        """

    @abstractmethod
    def collect(self) -> Tensor:
        """What was added up, float32: ``[examples, *graph.shape]`` where examples are told apart, else ``[1, *graph.shape]``."""

    @staticmethod
    def segments(batch: Batch, n_positions: int, per_example: bool) -> Tensor | None:
        """Which sum each row (an example's position) belongs to, -1 for none; None where all belong to one."""
        if n_positions == 1 and not per_example:
            return None
        groups = torch.zeros_like(batch.tokens) if batch.groups is None else batch.groups
        if not per_example:
            return groups.flatten()
        examples = torch.arange(len(batch), device=groups.device)[:, None]
        return torch.where(groups < 0, -1, examples * n_positions + groups).flatten()


def rows_of(values: Tensor | None, rows: int) -> Tensor | None:
    """``[batch, pos, ...]``, or a constant that stands for it, as ``[rows, ...]``."""
    return None if values is None else values.reshape(rows, *values.shape[2:])
