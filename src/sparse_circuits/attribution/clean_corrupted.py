"""The average of the gradients at the two ends."""

from __future__ import annotations

from dataclasses import dataclass

from sparse_circuits.attribution.gradient import GradientMethod
from sparse_circuits.model.rules import BackwardRule, check_rule


@dataclass(frozen=True)
class CleanCorrupted(GradientMethod):
    """EAP with the mean of two gradients: at the clean run and at the corrupted run (a trapezoid with its two ends only).

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, (g_v(clean) + g_v(corrupted)) / 2>.

    Args:
        rule: the backward rule; see :class:`EAP`.

    Cost: 3 forward and 2 backward passes (the corrupted run is made once without and once with gradients).

    Hanna, Pezzelle & Belinkov 2024, "Have faith in faithfulness" (arXiv:2403.17806), section on clean-corrupted.
    """

    rule: BackwardRule = "plain"

    def __post_init__(self) -> None:
        check_rule(self.rule)

    @property
    def needs_corrupted(self) -> bool:
        return True

    def points(self) -> tuple[tuple[float, float], ...]:
        return ((1.0, 0.5), (0.0, 0.5))
