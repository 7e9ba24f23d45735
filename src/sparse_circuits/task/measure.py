"""Applying a metric to a run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.metrics import Metric, PositionMetric


def measure(anatomy: Anatomy, metric: Metric, final: Tensor, batch: Batch) -> Tensor:
    """The metric per example, in float32, from the last residual stream ``[examples, pos, d_model]``.

    Logits are computed only where the metric reads them: a metric that reads one position costs one row of the
    unembedding per example.

    Raises:
        InputError: if the metric returns anything but one number per example.
    """
    if isinstance(metric, PositionMetric):
        value = metric.at(logits_read(anatomy, metric, final, batch), batch)
    else:
        value = metric(anatomy.logits(final).float(), batch)
    if not isinstance(value, Tensor) or value.shape != (len(batch),):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"The metric must return one number per example, shape ({len(batch)},), for these {len(batch)} examples; got {got}. "
            "Do not average over the batch."
        )
    return value


def logits_read(anatomy: Anatomy, metric: PositionMetric, final: Tensor, batch: Batch) -> Tensor:
    """Logits at the metric's position: ``[examples, vocab]``, float32."""
    rows = metric.rows(batch.lengths)
    return anatomy.logits(final[torch.arange(len(rows), device=final.device), rows][:, None])[:, 0].float()


def needs_clean_logits(metric: Metric) -> bool:
    return bool(getattr(metric, "needs_clean_logits", False))


@torch.no_grad()
def with_clean_logits(anatomy: Anatomy, metric: Metric, clean_final: Tensor, batch: Batch) -> Batch:
    """The batch with the clean run's logits, where the metric declares that it needs them."""
    if not needs_clean_logits(metric):
        return batch
    if isinstance(metric, PositionMetric):
        return replace(batch, clean_logits=logits_read(anatomy, metric, clean_final, batch))
    return replace(batch, clean_logits=anatomy.logits(clean_final).float())
