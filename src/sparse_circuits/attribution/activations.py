"""Integrated gradients over activations: one group of sources at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sparse_circuits.attribution.gradient import keeps_units
from sparse_circuits.attribution.levels import scorer_for
from sparse_circuits.attribution.method import Problem, Raw, Tally
from sparse_circuits.attribution.scorer import Group
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Rerun, Run, Sources, rerun_from_heads, rerun_from_mlp, run
from sparse_circuits.model.rules import with_rule
from sparse_circuits.task.measure import measure, with_clean_logits


def integrate_activations(problem: Problem, points: tuple[tuple[float, float], ...], rule: str) -> Raw:
    """Scores with each group of sources interpolated on its own, from its ablated to its clean value.

    A group is the input, the heads of a layer, or its MLP, also where both run in parallel. Everything before the group
    is as in the clean run, everything after it is recomputed, and only what leaves the group is scored.
    """
    problem = replace(problem, anatomy=with_rule(problem.anatomy, rule))
    anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
    ungroup = graph.level == "edges" and graph.n_kv == graph.n_heads
    tally, scorer = Tally(problem), scorer_for(problem)
    for rows, batch in problem.track(problem.batches(), problem.n_batches):
        with torch.no_grad():
            clean = run(anatomy, anatomy.embed(batch.tokens), batch.padding, ungroup, keeps_units(problem))
            ablated, corrupted_final = problem.ablated(batch)
            batch = with_clean_logits(anatomy, metric, clean.final, batch)
            at_corrupted = None if corrupted_final is None else measure(anatomy, metric, corrupted_final, batch)
            tally.measured(rows, measure(anatomy, metric, clean.final, batch), at_corrupted)
        delta = ablated.minus(clean.sources)
        scorer.start(batch)
        for group, at_clean, change, restart in _groups(problem, clean, delta, batch.padding, ungroup):
            for t, weight in points:
                value = torch.add(at_clean, change, alpha=1 - t).detach().requires_grad_()
                with torch.enable_grad():
                    here = restart(value)
                    total = measure(anatomy, metric, here.final, batch).sum()
                scorer.add(total, delta, here, weight, group)
        tally.scored(rows, scorer.collect())
    passes = len(points) * passes_per_point(anatomy)
    return tally.raw(1 + tally.patched + passes, passes)


def passes_per_point(anatomy: Anatomy) -> float:
    """What one point of every group costs, in whole passes: attention and MLP of a layer count half a layer each."""
    n = len(anatomy.blocks)
    after_heads = sum(n - layer - 0.5 for layer in range(n))
    after_mlp = sum(n - layer - 1 for layer in range(n) if anatomy.blocks[layer].mlp is not None)
    return 1 + (after_heads + after_mlp) / n


def _groups(
    problem: Problem, clean: Run, delta: Sources, real: Tensor | None, ungroup: bool
) -> Iterator[tuple[Group, Tensor, Tensor, Callable[[Tensor], Run | Rerun]]]:
    """Per group: its sources, its clean value, its change, and what restarts the model from another value."""
    anatomy, graph = problem.anatomy, problem.graph
    units = keeps_units(problem)
    yield (0, 1), clean.embedding, delta.embedding, lambda value: run(anatomy, value, real, ungroup, units)
    for layer, trace in enumerate(clean.layers):
        heads = graph.heads_at(layer)
        yield (
            (heads.start, heads.stop),
            trace.z,
            delta.z[layer],
            lambda z, layer=layer: rerun_from_heads(anatomy, clean, layer, z, real, ungroup),
        )
        row, mlp = graph.mlp_at(layer), anatomy.blocks[layer].mlp
        change, hidden_change = delta.mlp[layer], delta.hidden[layer]
        if mlp is None or trace.mlp_out is None or change is None:
            continue
        if graph.level == "neurons" and trace.hidden is not None and hidden_change is not None:

            def restart(hidden: Tensor, layer: int = layer, write: Callable[[Tensor], Tensor] = mlp.write) -> Rerun:
                again = rerun_from_mlp(anatomy, clean, layer, write(hidden), real, ungroup)
                return replace(again, start=hidden)

            yield (row, row + 1), trace.hidden, hidden_change, restart
        else:
            yield (
                (row, row + 1),
                trace.mlp_out,
                change,
                lambda out, layer=layer: rerun_from_mlp(anatomy, clean, layer, out, real, ungroup),
            )
