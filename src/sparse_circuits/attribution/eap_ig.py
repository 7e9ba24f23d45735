"""Edge attribution patching with integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sparse_circuits.attribution.activations import integrate_activations
from sparse_circuits.attribution.direct import with_direct_effects
from sparse_circuits.attribution.feature.nodes import score_by_gradients
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally
from sparse_circuits.attribution.gradient import GradientMethod
from sparse_circuits.attribution.method import Problem, Raw
from sparse_circuits.attribution.quadrature import Quadrature, points
from sparse_circuits.errors import InputError
from sparse_circuits.model.rules import BackwardRule, check_rule, with_rule


@dataclass(frozen=True)
class EAPIG(GradientMethod):
    """EAP with integrated gradients: the average gradient along a path from ablated to clean, instead of one gradient.

    score(u -> v) = mean over examples of sum_pos <c_u' - c_u, sum_i w_i g_v(t_i)>, with nodes t_i and weights w_i of a
    quadrature of ``steps`` points on [0, 1], t = 0 at the ablated end and 1 at the clean one; in units of the metric,
    negative for an edge that carries the behaviour. The path is

    - ``path="inputs"``: the line between corrupted and clean token embeddings, e' + t (e - e'). The scores of the edges
      that leave the input sum to m(corrupted) - m(clean) in the limit of many steps; what is missing is the result's
      convergence gap. Cost: 2 + ``steps`` forward and ``steps`` backward passes (one forward fewer where a node is t = 1
      and the metric does not need the clean logits).
    - ``path="activations"``: one group of sources at a time (the input; the heads of a layer; its MLP), from its ablated
      to its clean value, everything before it clean and everything after it recomputed; only the edges that leave the
      group are scored. Cost: 2 forward passes, and ``steps`` forward and backward passes from each group to the logits,
      in all about ``steps * (layers + 0.5)`` whole ones. Needs corrupted prompts only under PATCH.

    Of a feature graph ``path="activations"`` interpolates all that is written at one site at a time, features and error
    term together; the scores of a site's nodes sum to m(all of the site ablated) - m(clean) in the limit of many steps, and
    what is missing is the site's convergence gap. ``"inputs"`` averages the gradients at all sites along the embeddings.

    Args:
        steps: number of gradients.
        path: "inputs" or "activations".
        quadrature: "left" is the sum of the original implementation, and the least accurate.
        rule: the backward rule; see :class:`EAP`.
        direct: how edges into the logits are scored: along the "path" as all others; "exact", by patching each, which costs
            little since only the final norm and the unembedding follow; or the "mean" of the two. The path's average
            gradient takes all edges for somewhat too small or too large together; with exact values in one column the
            scale of that column departs from the others', and the mean agrees best with exact patching over all edges.
            Edges only.

    Hanna, Pezzelle & Belinkov 2024, "Have faith in faithfulness" (arXiv:2403.17806); activations: Marks et al. 2024
    (arXiv:2403.19647), one group at a time.
    """

    steps: int = 5
    path: Literal["inputs", "activations"] = "inputs"
    quadrature: Quadrature = "midpoint"
    rule: BackwardRule = "plain"
    direct: Literal["path", "exact", "mean"] = "path"

    def __post_init__(self) -> None:
        if self.path not in ("inputs", "activations"):
            raise InputError(f"EAPIG(path={self.path!r}): expected 'inputs' or 'activations'.")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool):
            raise InputError(f"EAPIG(steps={self.steps!r}): expected a whole number of gradients.")
        if self.direct not in ("path", "exact", "mean"):
            raise InputError(f"EAPIG(direct={self.direct!r}): expected 'path', 'exact' or 'mean'.")
        self.points()
        check_rule(self.rule)

    @property
    def needs_corrupted(self) -> bool:
        return self.path == "inputs"

    def points(self) -> tuple[tuple[float, float], ...]:
        return points(self.quadrature, self.steps)

    def run_features(self, problem: FeatureProblem) -> FeatureTally:
        if self.direct != "path":
            raise InputError(f"EAPIG(direct={self.direct!r}) is for edges between components; leave direct out.")
        problem = replace(problem, anatomy=with_rule(problem.anatomy, self.rule))
        return score_by_gradients(problem, self.points(), self.path)

    def run(self, problem: Problem) -> Raw:
        if self.path == "activations":
            raw = integrate_activations(problem, self.points(), self.rule)
        else:
            raw = super().run(problem)
        if self.direct == "path" or problem.graph.level != "edges":
            return raw
        return with_direct_effects(problem, raw, {"exact": 1.0, "mean": 0.5}[self.direct])
