"""What a head does on a task's prompts: where it looks, and the tokens that its output promotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.features.logits import Tokens, logit_effects, strongest, token_text, weighted
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.norm import Norm
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.task import Task


@dataclass(frozen=True, eq=False)
class HeadPrompt:
    """A head on one prompt.

    Attributes:
        tokens: as text. pattern: from each query (row) to each key, ``[pos, pos]``, rows summing to 1.
        promoted, suppressed: by its output at the last token, in logits.
    """

    tokens: tuple[str, ...]
    pattern: Tensor
    promoted: Tokens
    suppressed: Tokens

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "pattern": [[round(value, 4) for value in row] for row in self.pattern.tolist()],
            "promoted": [[token, round(value, 4)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 4)] for token, value in self.suppressed],
        }


@dataclass(frozen=True, eq=False)
class HeadReport:
    """What a head does on a task's prompts.

    Attributes:
        name: ``"a1.h3"``.
        prompts: the first few, each with its pattern.
        promoted, suppressed: by its output at the last token, mean over all prompts, in logits.
        looks_at: the tokens that the last token looks at, with their share of its attention, mean over all prompts.
    """

    name: str
    prompts: tuple[HeadPrompt, ...]
    promoted: Tokens
    suppressed: Tokens
    looks_at: Tokens

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "name": self.name,
            "looks_at": [[token, round(value, 4)] for token, value in self.looks_at],
            "promoted": [[token, round(value, 4)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 4)] for token, value in self.suppressed],
            "prompts": [prompt.to_dict() for prompt in self.prompts],
        }

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Attention patterns; see :func:`sparse_circuits.view.plots.features.plot_head`."""
        from sparse_circuits.view.plots.features import plot_head

        return plot_head(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_head

        return of_head(self)


@torch.no_grad()
def head_report(
    model: Any, task: Task, head: str, *, k: int = 10, prompts: int = 8, batch_size: int = 32
) -> HeadReport:
    """A head's attention pattern on a task's clean prompts, and the tokens that its output promotes at the last token.

    The output is z_h W_O[h] there, without b_O. Its effect on the logits is ``W_U^T (r w * C z_h W_O[h])`` with r the final
    norm's own factor in this run, held constant; behind a post-norm, that norm's factor likewise. The mean over the
    vocabulary is taken off. Cost: one forward pass over the prompts, and the patterns of one layer.

    Args:
        head: ``"a1.h3"``.
        k: tokens of each kind.
        prompts: of how many to give the whole pattern; the means are over all.

    Raises:
        InputError: for a head that the model does not have, or prompts that do not tokenise.
    """
    anatomy = anatomy_of(model)
    match = re.fullmatch(r"a(\d+)\.h(\d+)", head.partition("@")[0])
    if match is None or int(match[1]) >= len(anatomy.blocks):
        raise InputError(f"{head!r} is no head of the model; expected a0.h0 to a{len(anatomy.blocks) - 1}.hN.")
    layer, number = int(match[1]), int(match[2])
    if number >= anatomy.blocks[layer].attention.n_heads:
        raise InputError(f"a{layer} has {anatomy.blocks[layer].attention.n_heads} heads; there is no {head}.")
    tokenizer = getattr(model, "tokenizer", None)
    shown: dict[int, HeadPrompt] = {}
    total, looks, n = None, {}, 0
    for at, batch in task.tokenized(model, anatomy, corrupted=False).batches(batch_size):
        pattern, written, last = _run(anatomy, layer, number, batch.tokens, batch.padding, batch.lengths)
        effects = logit_effects(anatomy, written)
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
                shown[row] = HeadPrompt(texts, pattern[i, :length, :length].float().cpu(), *pairs[i])
    if total is None:
        raise InputError("The task has no prompts.")
    ((up, down),) = strongest(total[None] / n, k, tokenizer)
    most = sorted(looks.items(), key=lambda pair: -pair[1])[:k]
    looks_at = tuple((token_text(tokenizer, token), share / n) for token, share in most)
    return HeadReport(f"a{layer}.h{number}", tuple(shown[row] for row in sorted(shown)), up, down, looks_at)


def _run(
    anatomy: Anatomy, layer: int, head: int, tokens: Tensor, padding: Tensor | None, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pattern ``[batch, pos, pos]``, what the head writes at the last token on the scale of logits, and where that looks."""
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
    rows, end = torch.arange(len(tokens)), lengths.cpu() - 1
    z = kept["z"].unflatten(-1, (attention.n_heads, -1))[rows, end]
    out = z[:, head].float() @ attention.W_O[head].float()
    if block.attn_post_norm is not None:
        together = attention.write(z[:, None])[:, 0]
        out = weighted(block.attn_post_norm, out) * block.attn_post_norm.inverse_scale(together)
    stream = final[rows, end]
    return pattern, out.to(final.device) * _scale(anatomy.final_norm, stream), pattern[rows, end]


def _scale(norm: Norm, stream: Tensor) -> Tensor:
    return norm.inverse_scale(stream)
