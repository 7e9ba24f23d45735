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


def median(values: Tensor) -> float:
    """The middle value, of an even number the mean of the two in the middle; NaN if one is."""
    return float(torch.quantile(values.double(), 0.5))


def ratio(
    circuit: Tensor, clean: Tensor, empty: Tensor, *, draws: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """(m(C) - m(none)) / (m(M) - m(none)) with its 95% interval, examples resampled jointly in all three means.

    Each m is a mean over examples; then the ratio. NaN where the interval of m(M) - m(none) contains 0: the ablation
    does not change the behaviour, and there is nothing to be faithful to.
    """
    values, resampled = ratios(circuit[None], clean, empty, draws=draws, seed=seed)
    return float(values[0]), interval(resampled[0])


def ratios(
    circuits: Tensor, clean: Tensor, empty: Tensor, *, draws: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The same ratio for several circuits on the same examples, and on resamples of these, the same for all circuits.

    Args:
        circuits: the metric, ``[circuits, examples]``; ``clean``, ``empty``: ``[examples]``.

    Returns:
        float64 ``[circuits]`` and ``[circuits, draws]``; NaN everywhere as in :func:`ratio`.
    """
    rows = resamples(len(clean), draws, seed)
    together = torch.cat([circuits, clean[None], empty[None]]).double()
    means = together.mean(1, keepdim=True)
    # counts of each example in each draw: a product instead of [circuits, draws, examples]
    counts = torch.zeros(draws, len(clean), dtype=torch.float64).scatter_add_(1, rows, torch.ones_like(rows).double())
    sampled = together @ counts.T / len(clean)
    low, high = interval(sampled[-2] - sampled[-1])
    if low <= 0 <= high:
        return torch.full_like(means[:-2, 0], torch.nan), torch.full_like(sampled[:-2], torch.nan)
    value, resampled = ((x[:-2] - x[-1]) / (x[-2] - x[-1]) for x in (means, sampled))
    return value[:, 0], resampled
