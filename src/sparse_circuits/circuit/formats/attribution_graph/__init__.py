"""Attribution graphs: the JSON that Neuronpedia and circuit-tracer's page show.

**Signs and units.** In these files a positive weight supports its target. An edge's score here is the indirect effect of
ablating it, negative where the edge carries the behaviour, so ``weight = -score``; the score as it stands is kept beside it
(``links[].sparse_circuits.score``). A weight is in units of the metric: how much of the metric goes over the edge. (In
circuit-tracer's own graphs it is what the source adds to the target's activation.) Scores of a method without a sign are
written as they are.

**What stands where.** ``ctx_idx`` is the token of a node's position; of a named span its last token in this prompt; where a
circuit sums over positions, the token after which the metric looks. All effects go into one logit, the answer that the metric
asks for; the other likely tokens stand beside it without links. At the levels without edges, and in a feature circuit without
them, each part has one link to that logit: its whole effect.
"""

from sparse_circuits.circuit.formats.attribution_graph.graph import AttributionGraph

__all__ = ["AttributionGraph"]
