"""Bootstrap intervals of means over examples."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.evaluation.bootstrap import interval, resamples

_DRAWS = 1000


def of_mean(values: Tensor) -> list[tuple[float, float]] | None:
    """95% percentile bootstrap intervals of the means over examples; None where there are not two to resample.

    Args:
        values: ``[examples, n]``.
    """
    n = len(values)
    if n < 2:
        return None
    rows = resamples(n, _DRAWS, 0)
    counts = torch.zeros(_DRAWS, n, dtype=torch.float64).scatter_add_(1, rows, torch.ones_like(rows).double())
    means = counts @ values.double() / n
    return [interval(column) for column in means.T]
