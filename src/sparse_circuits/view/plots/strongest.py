"""Which parts a plot shows: the strongest, and a word on those that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor


def strongest(values: Tensor, n: int) -> Tensor:
    """The places of the ``n`` largest finite sizes, the largest first: int64."""
    return _sizes(values).argsort(descending=True, stable=True)[:n]


def strongest_rows(values: Tensor, n: int) -> Tensor:
    """The ``n`` rows with the largest finite entries, in their order: int64."""
    sizes = _sizes(values).amax(1) if values.shape[1] else torch.zeros(len(values))
    return sizes.argsort(descending=True, stable=True)[:n].sort().values


def not_finite(values: Tensor, things: str) -> str:
    """The end of a note: ``"; the scores of 3 nodes are not finite"``, or nothing where all are."""
    n = int((~torch.isfinite(values)).sum())
    return f"; the scores of {n:,} {things} are not finite" if n else ""


def _sizes(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, 0.0, 0.0, 0.0).abs()
