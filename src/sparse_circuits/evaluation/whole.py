"""The metric of the whole model, nothing ablated."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.batch_size import check_batch_size, with_batch_size
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.walk import Walk, unchanged
from sparse_circuits.task.measure import measure, needs_clean_logits, with_clean_logits
from sparse_circuits.task.task import Task, check_task


def evaluate_baseline(
    model: Any, task: Task, *, corrupted: bool = False, batch_size: int | Literal["auto"] = 32
) -> Tensor:
    """The task's metric of the whole model: m(M) per example, or m on the corrupted prompts, with the clean prompts' answers.

    >>> sc.evaluate_baseline(model, task).mean(), sc.evaluate_baseline(model, task, corrupted=True).mean()

    What :func:`evaluate` returns as ``clean``, without a circuit; a model that shows the behaviour is far above its corrupted
    mean. "Baseline" is EAP-IG's word for it; random circuits to compare a circuit with are :func:`random_baseline`.

    Args:
        corrupted: run the corrupted prompts instead of the clean ones.
        batch_size: examples at a time; "auto" for as many as fit.

    Returns:
        float32 ``[examples]``, on the CPU, in the task's order.

    Cost: one forward pass; on corrupted prompts two where the metric needs the clean logits.

    Raises:
        InputError: before any pass is made: missing corrupted prompts, bad rows, a wrong batch size.
    """
    check_task("evaluate_baseline", task)
    check_batch_size(batch_size)
    anatomy = anatomy_of(model)
    prompts = task.tokenized(model, anatomy, corrupted=corrupted)

    @torch.no_grad()
    def attempt(size: int) -> Tensor:
        values = torch.empty(len(prompts))
        for rows, batch in prompts.batches(size):
            walk = Walk(anatomy, (), batch.padding)
            if needs_clean_logits(prompts.metric):
                clean = walk.run(anatomy.embed(batch.tokens), unchanged)
                batch = with_clean_logits(anatomy, prompts.metric, clean, batch)
            tokens = batch.corrupted if corrupted and batch.corrupted is not None else batch.tokens
            final = walk.run(anatomy.embed(tokens), unchanged)
            values[rows] = measure(anatomy, prompts.metric, final, batch).float().cpu()
        return values

    return with_batch_size(attempt, batch_size, anatomy, prompts)
