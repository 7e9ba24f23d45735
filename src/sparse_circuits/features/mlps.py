"""What an MLP does on a task's prompts: the tokens that its output promotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.features.answers import AnswerEffects, means
from sparse_circuits.features.logits import Tokens, logit_effects, strongest
from sparse_circuits.features.store import check_whole
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.task import Task, check_task


@dataclass(frozen=True, eq=False)
class MLPReport:
    """What an MLP does on a task's prompts.

    Attributes:
        name: ``"m1"``.
        promoted, suppressed: by its output at the last token, mean over all prompts, in logits.
        adds_to_correct, adds_to_incorrect: what its output adds to the logits of each prompt's answers, as of a head
            (:class:`HeadReport`): ``[examples]``, or None.
    """

    name: str
    promoted: Tokens
    suppressed: Tokens
    adds_to_correct: Tensor | None = None
    adds_to_incorrect: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "name": self.name,
            "promoted": [[token, round(value, 4)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 4)] for token, value in self.suppressed],
            **means(self.adds_to_correct, self.adds_to_incorrect),
        }


@torch.no_grad()
def mlp_report(model: Any, task: Task, mlp: str, *, k: int = 10, batch_size: int = 32) -> MLPReport:
    """The tokens that an MLP's output at the last token promotes and suppresses, mean over a task's clean prompts.

    With y what the MLP adds to the stream there, biases included and after a post-norm, its effect on the logits is
    ``W_U^T (r w * C y)`` as of a head (:func:`head_report`): r is the final norm's own factor in this run, held constant, and
    the mean over the vocabulary is taken off. What later layers make of it is not in it. Cost: one forward pass over the
    prompts.

    Args:
        mlp: ``"m1"``.
        k: tokens of each kind.

    Raises:
        InputError: for an MLP that the model does not have, something that is no task, or prompts that do not tokenise.
    """
    check_task("mlp_report", task)
    check_whole("k", k, 0)
    check_whole("batch_size", batch_size, 1)
    anatomy = anatomy_of(model)
    match = re.fullmatch(r"m(\d+)", str(mlp).partition("@")[0])
    if match is None or int(match[1]) >= len(anatomy.blocks) or anatomy.blocks[int(match[1])].mlp is None:
        raise InputError(f"{mlp!r} is no MLP of the model; expected m0 to m{len(anatomy.blocks) - 1}.")
    site = Site("mlp", int(match[1]))
    effects = []
    tokenized = task.tokenized(model, anatomy, corrupted=False)
    answers = AnswerEffects.of(tokenized.metric, len(tokenized))
    for at, batch in tokenized.batches(batch_size):
        kept: list[Tensor] = []

        def visit(site: Site, read: Tensor, written: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(written)
            return written

        final = Walk(anatomy, {site}, batch.padding).run(anatomy.embed(batch.tokens), visit)

        def effects_at(position: Tensor, final: Tensor = final, kept: list[Tensor] = kept) -> Tensor:
            rows = torch.arange(len(position))
            stream = final[rows, position]
            out = kept[0][rows, position].float().to(stream.device) * anatomy.final_norm.inverse_scale(stream)
            return logit_effects(anatomy, model.unembed.W_U, out)

        last = effects_at(batch.lengths.cpu() - 1)
        answers.add(at, batch, last, effects_at)
        effects.append(last.cpu())
    mean = torch.cat(effects).mean(0, keepdim=True)
    ((up, down),) = strongest(mean, k, getattr(model, "tokenizer", None))
    return MLPReport(match[0], up, down, answers.correct, answers.incorrect)
