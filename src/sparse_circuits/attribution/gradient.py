"""The loop that all gradient methods share: a method only says where gradients are taken, with which weights and rule."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.nodes import score_by_gradients
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally
from sparse_circuits.attribution.levels import scorer_for
from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.errors import InputError
from sparse_circuits.model.forward import Run, run, run_sources
from sparse_circuits.model.rules import BackwardRule, with_rule
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, needs_clean_logits, with_clean_logits


class GradientMethod(Method):
    """Scores from a weighted set of gradients along the line between the embeddings.

    score(u -> v) = mean over examples of sum_i w_i sum_pos <c_u' - c_u, g_v(t_i)>, with g_v(t) the gradient of the metric
    with respect to the residual stream as v alone reads it, at the run from the token embedding e' + t (e - e'). At the
    other levels, g is the gradient at the node or unit itself.
    """

    finds_edges: ClassVar[bool] = True

    rule: BackwardRule

    @abstractmethod
    def points(self) -> tuple[tuple[float, float], ...]:
        """Pairs (t, weight), t being 0 at the corrupted embedding and 1 at the clean one."""

    def run_features(self, problem: FeatureProblem) -> FeatureTally:
        problem = replace(problem, anatomy=with_rule(problem.anatomy, self.rule))
        return score_by_gradients(problem, self.points(), "inputs")

    def run(self, problem: Problem) -> Raw:
        metric, points = problem.prompts.metric, self.points()
        problem = replace(problem, anatomy=with_rule(problem.anatomy, self.rule))
        anatomy = problem.anatomy
        at_clean = any(t == 1.0 for t, _ in points)
        share_clean = at_clean and not needs_clean_logits(metric)
        tally, scorer = Tally(problem), scorer_for(problem)
        for rows, batch in problem.track(problem.batches(), problem.n_batches):
            embedding = anatomy.embed(batch.tokens).detach()
            ablated, corrupted_final = problem.ablated(batch)
            clean_run: Run | None = None
            if share_clean:
                clean_run = tracked(problem, embedding, batch)
                sources, final = clean_run.sources, clean_run.final.detach()
            else:
                sources, final = run_sources(anatomy, embedding, batch.padding, problem.ablated.units)
            batch = with_clean_logits(anatomy, metric, final, batch)
            # the ablated run belongs to this batch alone, unless it is a constant that stands for all
            delta = ablated.minus(sources, in_place=tally.patched)
            del ablated, sources
            with torch.no_grad():
                at_corrupted = None if corrupted_final is None else measure(anatomy, metric, corrupted_final, batch)
                tally.measured(rows, measure(anatomy, metric, final, batch), at_corrupted)
            corrupted = embedding
            if any(t != 1.0 for t, _ in points):
                if batch.corrupted is None:
                    raise InputError(f"{self} needs corrupted prompts; pass Task(corrupted=...).")
                corrupted = anatomy.embed(batch.corrupted).detach()
            scorer.start(batch)
            for t, weight in points:
                if t == 1.0 and clean_run is not None:
                    here, clean_run = clean_run, None
                else:
                    here = tracked(problem, torch.lerp(corrupted, embedding, t), batch)
                with torch.enable_grad():
                    value = measure(anatomy, metric, here.final, batch).sum()
                scorer.add(value, delta, here, weight)
                del here, value
            tally.scored(rows, scorer.collect())
        return tally.raw(forwards=1 + tally.patched + len(points) - share_clean, backwards=len(points))


def tracked(problem: Problem, embedding: Tensor, batch: Batch) -> Run:
    """A run under autograd, with all that the graph's level needs."""
    graph = problem.graph
    ungroup = graph.level == "edges" and graph.n_kv == graph.n_heads
    with torch.enable_grad():
        return run(
            problem.anatomy, embedding.detach().requires_grad_(), batch.padding, ungroup, units=keeps_units(problem)
        )


def keeps_units(problem: Problem) -> bool:
    """Whether runs must keep what single units need."""
    return problem.graph.level in ("outputs", "neurons")
