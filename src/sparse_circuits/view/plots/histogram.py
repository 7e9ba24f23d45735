"""Histograms."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sparse_circuits.view.plots.colours import NEUTRAL
from sparse_circuits.view.plots.parts import Axis, Bars, Panel, Rule


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
    return Panel(Axis(x, limits=(low - margin, high + margin)), Axis(y), (bars,), rules, size=(7.2, 3.8))
