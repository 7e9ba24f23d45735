"""AtP*: attribution patching with attention recomputed and with layers dropped from the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.gradient import tracked
from sparse_circuits.attribution.levels import scorer_for
from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.attribution.queries_keys import query_key_effects
from sparse_circuits.graph import Graph
from sparse_circuits.model.forward import Run
from sparse_circuits.task.measure import measure, with_clean_logits


@dataclass(frozen=True)
class AtPStar(Method):
    """EAP with its two best-known failures mended: saturated attention, and effects that cancel along the way.

    - ``qk_fix``: an edge into a query or key is not scored by a derivative through the softmax. The attention of its head
      is recomputed with the patched query or key, and only what follows is linear:
      sum_pos <z(patched) - z, dm/dz>.
    - ``grad_drop``: a backward pass is made for every layer l, in which no gradient flows back through what l writes,
      so that a direct and an indirect effect that cancel in the full gradient show up one without the other.

    score(u -> v) = mean over examples of (1 / (L - 1)) sum_l |s_l(u -> v)|, s_l being the example's score with layer l
    dropped: 0 for v's own layer, hence L - 1 (L for edges into the logits). Without ``grad_drop`` it is |s| with the full
    gradient. In units of the metric, never negative: compare it with |exact|.

    At the levels of nodes and units no query or key is patched, and only ``grad_drop`` applies.

    Cost: as EAP, with L backward passes instead of one (2 L with the fix, which needs the gradients at every z besides); the
    fix recomputes queries, keys and attention patterns for every source, about ``sources / 12`` forward passes on top.

    Kramar, Lieberum, Shah & Nanda 2024, "AtP*: An efficient and scalable method for localizing LLM behaviour to components"
    (arXiv:2403.00745).
    """

    signed: ClassVar[bool] = False
    only_clean_gradient: ClassVar[bool] = True

    qk_fix: bool = True
    grad_drop: bool = True

    def run(self, problem: Problem) -> Raw:
        anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
        tally, scorer = Tally(problem), scorer_for(replace(problem, per_example=True))
        n_layers = len(anatomy.blocks)
        drops = range(n_layers) if self.grad_drop and n_layers > 1 else range(-1, 0)
        share = _shares(graph, len(drops))
        fixed = self.qk_fix and graph.level == "edges"
        for rows, batch in problem.track(problem.batches(), problem.n_batches):
            here = tracked(problem, anatomy.embed(batch.tokens).detach(), batch)
            batch = with_clean_logits(anatomy, metric, here.final.detach(), batch)
            ablated, corrupted_final = problem.ablated(batch)
            with torch.enable_grad():
                value = measure(anatomy, metric, here.final, batch)
                total = value.sum()
            with torch.no_grad():
                at_corrupted = None if corrupted_final is None else measure(anatomy, metric, corrupted_final, batch)
            tally.measured(rows, value, at_corrupted)
            delta = ablated.minus(here.sources)
            dropped = _with_drops(here)
            found, at_z = [], []
            for layer in drops:
                dropped[0] = layer
                scorer.start(batch)
                scorer.add(total, delta, here, retain=True)
                scores = scorer.collect()
                if graph.level != "edges" and layer >= 0:
                    scores[:, _units_of(graph, layer)] = 0
                found.append(scores)
                if fixed:
                    dz = torch.autograd.grad(total, [trace.z for trace in here.layers], retain_graph=True)
                    at_z.append([torch.zeros_like(g) if at == layer else g for at, g in enumerate(dz)])
            if fixed:
                query_key_effects(problem, batch, here, delta, at_z, found)
            effects = torch.stack([scores.abs() for scores in found]).sum(0) / share.to(anatomy.device)
            tally.scored(rows, effects if problem.per_example else effects.sum(0, keepdim=True))
        recomputed = sum(graph.written_before(layer, "q") for layer in range(n_layers)) / (6 * n_layers) if fixed else 0
        return tally.raw(forwards=1 + tally.patched + recomputed, backwards=len(drops) * (1 + fixed))


def _with_drops(here: Run) -> list[int]:
    """Let no gradient flow back through what one layer writes: the layer in the list that is returned, -1 for none.

    The hooks sit on this run's tensors and are gone with them. The gradient *at* these tensors is not to be relied upon: PyTorch
    gives it from before the hook or from after, depending on what else is asked for.
    """
    dropped = [-1]
    for layer, trace in enumerate(here.layers):
        for written in (trace.z if trace.attn_sum is None else trace.attn_sum, trace.mlp_out):
            if written is not None:
                written.register_hook(lambda g, layer=layer: torch.zeros_like(g) if dropped[0] == layer else g)
    return dropped


def _units_of(graph: Graph, layer: int) -> slice:
    """What a layer writes, at a level without edges, at all positions."""
    last = graph.units_at(layer, "mlp" if graph.has_mlp else "heads")
    return slice(graph.units_at(layer, "heads").start * graph.n_positions, last.stop * graph.n_positions)


def _shares(graph: Graph, n_drops: int) -> Tensor:
    """In how many of the dropped runs a score can be other than 0, broadcastable to the graph's shape."""
    if n_drops == 1:
        return torch.ones(1)
    width = graph.n_positions
    if graph.level == "edges":
        counts = torch.full((graph.n_destinations,), n_drops - 1)
        counts[-1] = n_drops
        return counts.repeat_interleave(width)
    counts = torch.full((graph.n_units,), n_drops - 1)
    counts[: graph.units_of_input] = n_drops
    return counts.repeat_interleave(width)
