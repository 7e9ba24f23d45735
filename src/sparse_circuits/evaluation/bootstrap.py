"""Percentile bootstrap over examples."""

from __future__ import annotations

import torch
from torch import Tensor


def resamples(n: int, draws: int, seed: int) -> Tensor:
    """Row numbers of ``draws`` samples with replacement: int64 ``[draws, n]``."""
    return torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The central percentile interval of bootstrap values, NaN and infinity left out."""
    finite = values[torch.isfinite(values)].double()
    if len(finite) == 0:
        return (float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return (low, high)


def ratio(
    circuit: Tensor, clean: Tensor, empty: Tensor, *, draws: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """(m(C) - m(none)) / (m(M) - m(none)) with its 95% interval, examples resampled jointly in all three means.

    Each m is a mean over examples; then the ratio. NaN where the interval of m(M) - m(none) contains 0: the ablation
    does not change the behaviour, and there is nothing to be faithful to.
    """
    rows = resamples(len(clean), draws, seed)
    m_c, m_m, m_0 = (x.double()[rows].mean(1) for x in (circuit, clean, empty))
    low, high = interval(m_m - m_0)
    if low <= 0 <= high:
        return float("nan"), (float("nan"), float("nan"))
    value = float((circuit.double().mean() - empty.double().mean()) / (clean.double().mean() - empty.double().mean()))
    return value, interval((m_c - m_0) / (m_m - m_0))
