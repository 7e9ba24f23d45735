"""Histograms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise

import torch
from torch import Tensor

from sparse_circuits.view.plots.colours import NEUTRAL
from sparse_circuits.view.plots.parts import Axis, Bars, Panel, Rule

_TICKS = 8  # of a counted axis, at most, above 0


def histogram(values: Tensor, x: str, y: str, rules: tuple[Rule, ...] = (), bins: int = 40) -> Panel:
    """How many values lie in each of ``bins`` equal parts of the range of these and of the rules."""
    values = values.double()
    inside = [*values.tolist(), *(rule.at for rule in rules if rule.across == "x")] or [0.0, 1.0]
    low, high = min(inside), max(inside)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.01, high + 0.01
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    at = torch.bucketize(values, edges[1:-1], right=True)
    counts = torch.bincount(at, minlength=bins).tolist()
    ends = list(pairwise(edges.tolist()))
    bars = Bars(
        tuple((a + b) / 2 for a, b in ends),
        tuple(map(float, counts)),
        tuple(f"{a:.4g} to {b:.4g}\n{n:,}" for (a, b), n in zip(ends, counts, strict=True)),
        (NEUTRAL,) * bins,
        flat=False,
        width=0.94 * (high - low) / bins,
    )
    margin = 0.03 * (high - low)
    return Panel(Axis(x, limits=(low - margin, high + margin)), counted(y, counts), (bars,), rules, size=(7.2, 3.8))


def counted(label: str, counts: Sequence[int]) -> Axis:
    """An axis of whole numbers from 0, with ticks at some of these and at nothing in between."""
    most = max(counts, default=0)
    steps = (factor * 10**power for power in count() for factor in (1, 2, 5))
    step = next(step for step in steps if most <= _TICKS * step)
    ticks = tuple((float(n), f"{n:,}") for n in range(0, most + 1, step))
    return Axis(label, ticks=ticks, limits=(0.0, 1.05 * max(1, most)))
