"""The loop that all gradient methods share: a method only says where gradients are taken, and with which weights."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sparse_circuits.attribution.edges import EdgeScorer, gradients
from sparse_circuits.attribution.method import Method, Problem, Raw
from sparse_circuits.errors import InputError
from sparse_circuits.model.forward import Run, run, run_sources
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, needs_clean_logits, with_clean_logits


class GradientMethod(Method):
    """Edge scores from a weighted set of gradients along the line between the embeddings.

    score(u -> v) = mean over examples of sum_i w_i sum_pos <c_u' - c_u, g_v(t_i)>, with g_v(t) the gradient of the metric
    with respect to the residual stream as v alone reads it, at the run from the token embedding e' + t (e - e').
    """

    @abstractmethod
    def points(self) -> tuple[tuple[float, float], ...]:
        """Pairs (t, weight), t being 0 at the corrupted embedding and 1 at the clean one."""

    def run(self, problem: Problem) -> Raw:
        anatomy, metric = problem.anatomy, problem.prompts.metric
        points = self.points()
        at_clean = any(t == 1.0 for t, _ in points)
        scorer = EdgeScorer(anatomy, problem.graph)
        clean_values = torch.empty(len(problem.prompts))
        corrupted_values = torch.full((len(problem.prompts),), torch.nan)
        n_batches = -(-len(problem.prompts) // problem.batch_size)
        for rows, batch in problem.track(problem.prompts.batches(problem.batch_size), n_batches):
            embedding = anatomy.embed(batch.tokens).detach()
            ablated, corrupted_final = problem.ablated(batch)
            clean_run: Run | None = None
            if at_clean and not needs_clean_logits(metric):
                clean_run = self._tracked(problem, embedding, batch)
                sources, final = clean_run.sources, clean_run.final.detach()
            else:
                sources, final = run_sources(anatomy, embedding, batch.padding)
            batch = with_clean_logits(anatomy, metric, final, batch)
            delta = ablated.minus(sources)
            with torch.no_grad():
                clean_values[rows] = measure(anatomy, metric, final, batch).cpu()
                if corrupted_final is not None:
                    corrupted_values[rows] = measure(anatomy, metric, corrupted_final, batch).cpu()
            corrupted = embedding
            if any(t != 1.0 for t, _ in points):
                if batch.corrupted is None:
                    raise InputError(f"{self} needs corrupted prompts; pass Task(corrupted=...).")
                corrupted = anatomy.embed(batch.corrupted).detach()
            for t, weight in points:
                if t == 1.0 and clean_run is not None:
                    here, clean_run = clean_run, None
                else:
                    here = self._tracked(problem, torch.lerp(corrupted, embedding, t), batch)
                value = measure(anatomy, metric, here.final, batch).sum()
                scorer.add(delta, here, gradients(value, here), weight)
        tracked = len(points) - (1 if at_clean and not needs_clean_logits(metric) else 0)
        patched = problem.ablated.constant is None
        return Raw(
            scorer.total.cpu(),
            clean_values,
            corrupted_values if patched else None,
            forwards=1 + patched + tracked,
            backwards=len(points),
        )

    @staticmethod
    def _tracked(problem: Problem, embedding: Tensor, batch: Batch) -> Run:
        ungroup = problem.graph.n_kv == problem.graph.n_heads
        with torch.enable_grad():
            return run(problem.anatomy, embedding.detach().requires_grad_(), batch.padding, ungroup)
