"""Edge attribution patching with integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sparse_circuits.attribution.gradient import GradientMethod
from sparse_circuits.attribution.quadrature import Quadrature, points
from sparse_circuits.errors import InputError


@dataclass(frozen=True)
class EAPIG(GradientMethod):
    """EAP with gradients integrated along the line between corrupted and clean token embeddings.

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, sum_i w_i g_v(e' + t_i (e - e'))>. The nodes t_i and weights
    w_i are a quadrature of ``steps`` points on [0, 1], t = 0 at the corrupted embedding e', 1 at the clean one e. The
    scores of the edges that leave the input sum to m(corrupted) - m(clean) in the limit of many steps; what is missing
    is the result's convergence gap.

    Args:
        steps: number of gradients.
        path: "inputs", the only path.
        quadrature: "left" is the sum of the original implementation, and the least accurate.

    Cost: 2 + ``steps`` forward and ``steps`` backward passes (one forward fewer where a node is t = 1).

    Hanna, Pezzelle & Belinkov 2024, "Have faith in faithfulness" (arXiv:2403.17806).
    """

    steps: int = 5
    path: Literal["inputs"] = "inputs"
    quadrature: Quadrature = "midpoint"

    needs_corrupted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.path != "inputs":
            raise InputError(f"EAPIG(path={self.path!r}): expected 'inputs'.")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool):
            raise InputError(f"EAPIG(steps={self.steps!r}): expected a whole number of gradients.")
        self.points()

    def points(self) -> tuple[tuple[float, float], ...]:
        return points(self.quadrature, self.steps)
