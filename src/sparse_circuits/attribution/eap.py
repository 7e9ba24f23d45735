"""Edge attribution patching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_circuits.attribution.gradient import GradientMethod


@dataclass(frozen=True)
class EAP(GradientMethod):
    """Edge attribution patching: the first-order estimate of patching each edge, from one gradient at the clean run.

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, dm/d(stream as v reads it)>, in units of the metric; a part
    that carries the behaviour scores negative.

    Cost: one forward pass for the ablated values (none under ZERO and MEAN), one forward and one backward pass.

    Syed, Rager & Conmy 2023, "Attribution patching outperforms automated circuit discovery" (arXiv:2310.10348).
    """

    only_clean_gradient: ClassVar[bool] = True

    def points(self) -> tuple[tuple[float, float], ...]:
        return ((1.0, 1.0),)
