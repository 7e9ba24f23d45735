"""Edge attribution patching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_circuits.attribution.gradient import GradientMethod
from sparse_circuits.model.rules import BackwardRule, check_rule


@dataclass(frozen=True)
class EAP(GradientMethod):
    """Edge attribution patching: the first-order estimate of patching each edge, from one gradient at the clean run.

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, dm/d(stream as v reads it)>, in units of the metric; a part
    that carries the behaviour scores negative.

    At the level of nodes the score is the sum of a node's outgoing edges' scores; output dimensions sum to their node, and
    neurons too, but for an MLP's output bias under ZERO. Under a post-norm (Gemma 2 and 3, OLMo 2) a head's change is taken
    through the norm's derivative, so that under ZERO a layer's heads sum to about 0: an RMSNorm does not see the length of
    its input.

    Of a feature graph, a node's score is <change of what it writes, dm/d(what is written at its site)>: all sites share the
    one backward pass.

    Args:
        rule: how the backward pass treats nonlinearities: "plain", "frozen" or "relp"; see
            :func:`sparse_circuits.model.rules.with_rule`.

    Cost: one forward pass for the ablated values (none under ZERO and MEAN), one forward and one backward pass.

    Syed, Rager & Conmy 2023, "Attribution patching outperforms automated circuit discovery" (arXiv:2310.10348).
    """

    only_clean_gradient: ClassVar[bool] = True

    rule: BackwardRule = "plain"

    def __post_init__(self) -> None:
        check_rule(self.rule)

    def points(self) -> tuple[tuple[float, float], ...]:
        return ((1.0, 1.0),)
