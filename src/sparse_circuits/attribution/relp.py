"""Relevance patching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_circuits.attribution.gradient import GradientMethod
from sparse_circuits.model.rules import BackwardRule, check_rule


@dataclass(frozen=True)
class RelP(GradientMethod):
    """Relevance patching: EAP with the backward pass of layer-wise relevance propagation instead of the derivative.

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, r_v>, with r_v what arrives at the stream as v reads it in a
    backward pass from the metric at the clean run under the rules: the scale of a norm is a constant; an activation is
    its input times the constant act(x) / x; each factor of a product of two activations gets half; an attention pattern
    is a constant, so that queries and keys get nothing and their edges score 0. In units of the metric, negative for a
    part that carries the behaviour.

    It is ``EAP(rule="relp")``; the same rule combines with any gradient points, ``EAPIG(steps=5, rule="relp")``.

    Cost: as EAP, one forward pass for the ablated values, one forward and one backward pass. Attention patterns are
    computed in full.

    Jafari, Eberle, Khakzar & Nanda 2025, "RelP: Faithful and efficient circuit discovery in language models via relevance
    patching" (arXiv:2508.21258).
    """

    only_clean_gradient: ClassVar[bool] = True

    rule: BackwardRule = "relp"

    def __post_init__(self) -> None:
        check_rule(self.rule)

    def points(self) -> tuple[tuple[float, float], ...]:
        return ((1.0, 1.0),)
