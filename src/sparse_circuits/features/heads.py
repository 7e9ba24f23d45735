"""What a head does on a task's prompts: where it looks, and the tokens that its output promotes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.features.answers import AnswerEffects, means
from sparse_circuits.features.logits import Tokens, logit_effects, strongest, weighted
from sparse_circuits.features.store import check_whole
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.task import Task, check_task
from sparse_circuits.task.tokens import token_text


@dataclass(frozen=True, eq=False)
class HeadPrompt:
    """A head on one prompt.

    Attributes:
        tokens: as text. pattern: from each query (row) to each key, ``[pos, pos]``, rows summing to 1.
        promoted, suppressed: by its output at the last token, in logits.
        adds_to_correct, adds_to_incorrect: what that output adds to the logit of the prompt's answer; None for a metric
            without one.
    """

    tokens: tuple[str, ...]
    pattern: Tensor
    promoted: Tokens
    suppressed: Tokens
    adds_to_correct: float | None = None
    adds_to_incorrect: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        answers = {"adds_to_correct": self.adds_to_correct, "adds_to_incorrect": self.adds_to_incorrect}
        return {
            "tokens": list(self.tokens),
            "pattern": [[round(value, 4) for value in row] for row in self.pattern.tolist()],
            "promoted": [[token, round(value, 4)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 4)] for token, value in self.suppressed],
            **{name: round(value, 4) for name, value in answers.items() if value is not None},
        }


@dataclass(frozen=True, eq=False, repr=False)
class HeadReport:
    """What a head does on a task's prompts.

    Attributes:
        name: ``"a1.h3"``.
        prompts: the first few, each with its pattern.
        promoted, suppressed: by its output at the last token, mean over all prompts, in logits.
        looks_at: the tokens that the last token looks at, with their share of its attention, mean over all prompts.
        adds_to_correct, adds_to_incorrect: what its output adds to the logit of each prompt's correct and incorrect answer
            (of several answers, to their mean logit), where the metric reads it: ``[examples]``, in logits. None for a metric
            without such answers. Their difference speaks for or against the behaviour also where ``promoted``, a mean over
            prompts with different answers, says nothing.
    """

    name: str
    prompts: tuple[HeadPrompt, ...]
    promoted: Tokens
    suppressed: Tokens
    looks_at: Tokens
    adds_to_correct: Tensor | None = None
    adds_to_incorrect: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "name": self.name,
            "looks_at": [[token, round(value, 4)] for token, value in self.looks_at],
            "promoted": [[token, round(value, 4)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 4)] for token, value in self.suppressed],
            **means(self.adds_to_correct, self.adds_to_incorrect),
            "prompts": [prompt.to_dict() for prompt in self.prompts],
        }

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Attention patterns; see :func:`sparse_circuits.view.plots.features.plot_head`."""
        from sparse_circuits.view.plots.features import plot_head

        return plot_head(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_head

        return of_head(self)

    def __repr__(self) -> str:
        kinds = {"looks at": self.looks_at, "promotes": self.promoted, "suppresses": self.suppressed}
        said = [
            f"{kind} {', '.join(f'{token!r} {value:.2g}' for token, value in of[:3])}" for kind, of in kinds.items()
        ]
        answers = means(self.adds_to_correct, self.adds_to_incorrect)
        said += [f"{name.replace('_', ' ')} answer {value:+.2g}" for name, value in answers.items()]
        return f"HeadReport({self.name}: {'; '.join(said)})"


@torch.no_grad()
def head_report(
    model: Any, task: Task, head: str, *, k: int = 10, prompts: int = 8, batch_size: int = 32
) -> HeadReport:
    """A head's attention pattern on a task's clean prompts, and the tokens that its output promotes at the last token.

    The output is z_h W_O[h] there, without b_O. Its effect on the logits is ``W_U^T (r w * C z_h W_O[h])`` with r the final
    norm's own factor in this run, held constant; behind a post-norm, that norm's factor likewise. The mean over the
    vocabulary is taken off. The effect on the logits of the task's answers is the same at the token that the metric reads, the
    last one by default. What later layers make of the output is not in it. Cost: one forward pass over the prompts, and the
    patterns of one layer.

    Args:
        head: ``"a1.h3"``.
        k: tokens of each kind.
        prompts: of how many to give the whole pattern; the means are over all.

    Raises:
        InputError: for a head that the model does not have, something that is no task, or prompts that do not tokenise.
    """
    check_task("head_report", task)
    for name, value, least in (("k", k, 0), ("prompts", prompts, 0), ("batch_size", batch_size, 1)):
        check_whole(name, value, least)
    anatomy = anatomy_of(model)
    match = re.fullmatch(r"a(\d+)\.h(\d+)", str(head).partition("@")[0])
    if match is None or int(match[1]) >= len(anatomy.blocks):
        raise InputError(f"{head!r} is no head of the model; expected a0.h0 to a{len(anatomy.blocks) - 1}.hN.")
    layer, number = int(match[1]), int(match[2])
    if number >= anatomy.blocks[layer].attention.n_heads:
        raise InputError(f"a{layer} has {anatomy.blocks[layer].attention.n_heads} heads; there is no {head}.")
    tokenizer = getattr(model, "tokenizer", None)
    shown: dict[int, HeadPrompt] = {}
    total, looks, n = None, {}, 0
    tokenized = task.tokenized(model, anatomy, corrupted=False)
    answers = AnswerEffects.of(tokenized.metric, len(tokenized))
    for at, batch in tokenized.batches(batch_size):
        pattern, effects_at = _run(anatomy, model.unembed.W_U, layer, number, batch.tokens, batch.padding)
        end = batch.lengths.cpu() - 1
        last, effects = pattern[torch.arange(len(end)), end], effects_at(end)
        answers.add(at, batch, effects, effects_at)
        total = effects.sum(0) + (0 if total is None else total)
        n += len(effects)
        pairs = None
        for i, (row, length) in enumerate(zip(at.tolist(), batch.lengths.tolist(), strict=True)):
            ids = batch.tokens[i, :length].tolist()
            for token, share in zip(ids, last[i, :length].tolist(), strict=True):
                looks[token] = looks.get(token, 0.0) + share
            if row < prompts:
                pairs = pairs or strongest(effects, k, tokenizer)
                texts = tuple(token_text(tokenizer, token) for token in ids)
                on = [None if of is None else float(of[row]) for of in (answers.correct, answers.incorrect)]
                shown[row] = HeadPrompt(texts, pattern[i, :length, :length].float().cpu(), *pairs[i], *on)
    if total is None:
        raise InputError("The task has no prompts.")
    ((up, down),) = strongest(total[None] / n, k, tokenizer)
    most = sorted(looks.items(), key=lambda pair: -pair[1])[:k]
    looks_at = tuple((token_text(tokenizer, token), share / n) for token, share in most)
    kept = tuple(shown[row] for row in sorted(shown))
    return HeadReport(f"a{layer}.h{number}", kept, up, down, looks_at, answers.correct, answers.incorrect)


def _run(
    anatomy: Anatomy, W_U: Tensor, layer: int, head: int, tokens: Tensor, padding: Tensor | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Pattern ``[batch, pos, pos]``, and what the head adds to the logits at one token of each prompt, ``[batch, vocab]``."""
    block = anatomy.blocks[layer]
    attention = block.attention
    kept: dict[str, Tensor] = {}
    before = Site("resid", layer - 1) if layer else Site("resid_pre")

    def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
        kept[site.kind] = read
        return written

    final = Walk(anatomy, {before, Site("z", layer)}, padding).run(anatomy.embed(tokens), visit)
    normed = block.attn_norm(kept[before.kind].to(block.device))
    real = None if padding is None else padding.to(block.device)
    pattern = attention.pattern(attention.project(normed, "q"), attention.project(normed, "k"), real)[:, head]
    rows = torch.arange(len(tokens))

    def effects_at(at: Tensor) -> Tensor:
        z = kept["z"].unflatten(-1, (attention.n_heads, -1))[rows, at]
        out = z[:, head].float() @ attention.W_O[head].float()
        if block.attn_post_norm is not None:
            together = attention.write(z[:, None])[:, 0]
            out = weighted(block.attn_post_norm, out) * block.attn_post_norm.inverse_scale(together)
        return logit_effects(anatomy, W_U, out.to(final.device) * anatomy.final_norm.inverse_scale(final[rows, at]))

    return pattern, effects_at
