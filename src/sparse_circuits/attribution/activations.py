"""Integrated gradients over activations: one group of sources at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sparse_circuits.attribution.edges import EdgeScorer, gradients
from sparse_circuits.attribution.method import Problem, Raw
from sparse_circuits.model.forward import Rerun, Run, Sources, rerun_from_heads, rerun_from_mlp, run
from sparse_circuits.task.measure import measure, with_clean_logits

Group = tuple[int, int]


def integrate_activations(problem: Problem, points: tuple[tuple[float, float], ...]) -> Raw:
    """Scores with each group of sources interpolated on its own, from its ablated to its clean value.

    A group is the input, the heads of a layer, or its MLP, also where both run in parallel. Everything before the group
    is as in the clean run, everything after it is recomputed, and only the edges that leave the group are scored.
    """
    anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
    ungroup = graph.n_kv == graph.n_heads
    scorer = EdgeScorer(anatomy, graph)
    clean_values = torch.empty(len(problem.prompts))
    corrupted_values = torch.full((len(problem.prompts),), torch.nan)
    n_batches = -(-len(problem.prompts) // problem.batch_size)
    for rows, batch in problem.track(problem.prompts.batches(problem.batch_size), n_batches):
        with torch.no_grad():
            clean = run(anatomy, anatomy.embed(batch.tokens), batch.padding, ungroup)
            ablated, corrupted_final = problem.ablated(batch)
            batch = with_clean_logits(anatomy, metric, clean.final, batch)
            clean_values[rows] = measure(anatomy, metric, clean.final, batch).cpu()
            if corrupted_final is not None:
                corrupted_values[rows] = measure(anatomy, metric, corrupted_final, batch).cpu()
        delta = ablated.minus(clean.sources)
        for group, at_clean, change, restart in _groups(problem, clean, delta, batch.padding, ungroup):
            for t, weight in points:
                value = torch.add(at_clean, change, alpha=1 - t).detach().requires_grad_()
                with torch.enable_grad():
                    here = restart(value)
                    total = measure(anatomy, metric, here.final, batch).sum()
                scorer.add(delta, here, gradients(total, here), weight, group)
    patched = problem.ablated.constant is None
    share = sum((len(anatomy.blocks) - layer) * (2 if graph.has_mlp else 1) for layer in range(len(anatomy.blocks)))
    passes = len(points) * (1 + share / len(anatomy.blocks))
    return Raw(scorer.total.cpu(), clean_values, corrupted_values if patched else None, 1 + patched + passes, passes)


def _groups(
    problem: Problem, clean: Run, delta: Sources, real: Tensor | None, ungroup: bool
) -> Iterator[tuple[Group, Tensor, Tensor, Callable[[Tensor], Run | Rerun]]]:
    """Per group: its rows, its clean value, its change, and what restarts the model from another value."""
    anatomy, graph = problem.anatomy, problem.graph
    yield (0, 1), clean.embedding, delta.embedding, lambda value: run(anatomy, value, real, ungroup)
    for layer, trace in enumerate(clean.layers):
        heads = graph.heads_at(layer)
        yield (
            (heads.start, heads.stop),
            trace.z,
            delta.z[layer],
            lambda z, layer=layer: rerun_from_heads(anatomy, clean, layer, z, real, ungroup),
        )
        change = delta.mlp[layer]
        if trace.mlp_out is not None and change is not None:
            row = graph.mlp_at(layer)
            yield (
                (row, row + 1),
                trace.mlp_out,
                change,
                lambda out, layer=layer: rerun_from_mlp(anatomy, clean, layer, out, real, ungroup),
            )
