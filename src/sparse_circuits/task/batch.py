"""Prompts as tensors: what runs, and what a metric sees."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of a task's examples, right-padded.

    Attributes:
        index: the examples' rows in the original task: int64 ``[examples]``.
        tokens: clean prompts: int64 ``[examples, pos]``.
        lengths: real tokens of each: int64 ``[examples]``.
        corrupted: corrupted prompts, like ``tokens``, or None.
        clean_logits: the unablated model's logits on the clean prompts, where the metric declares that it needs them:
            at all positions, or at the one position read if the metric reads only one.
        groups: the number of the position group that every token is in, where positions are kept apart or grouped: int64
            ``[examples, pos]``, -1 at padding.
    """

    index: Tensor
    tokens: Tensor
    lengths: Tensor
    corrupted: Tensor | None = None
    clean_logits: Tensor | None = None
    groups: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """False at padding: bool ``[examples, pos]``."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None] < self.lengths[:, None]

    @property
    def padding(self) -> Tensor | None:
        """``real``, or None where nothing is padded."""
        return None if bool((self.lengths == self.tokens.shape[1]).all()) else self.real

    def some(self, rows: slice) -> Batch:
        """Some of the examples."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v[rows] for k, v in values.items() if v is not None})

    def repeat(self, n: int) -> Batch:
        """The batch ``n`` times over, one after the other."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.repeat(n, *(1,) * (v.dim() - 1)) for k, v in values.items() if v is not None})

    def __len__(self) -> int:
        return len(self.index)
