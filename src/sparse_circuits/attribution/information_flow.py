"""Information flow routes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.attribution.scorer import rows_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Run, run
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits

_CHUNK_ELEMENTS = 1 << 24  # 64 MB of float32 contributions at a time


@dataclass(frozen=True)
class InformationFlowRoutes(Method):
    """How much of what a destination reads comes from each source, by how close their vectors are; no gradient, no metric.

    At a position where v reads the stream x = sum_u c_u (and what belongs to no source),

        proximity(u, v) = max(0, ||x||_1 - ||x - c_u||_1),
        score(u -> v) = mean over examples and their tokens of proximity(u, v) / sum_w proximity(w, v),

    a share between 0 and 1: the shares into a destination sum to 1 where any source is close, and all are 0 where none is.
    The shares are not estimates of an indirect effect: they say what flows, not what matters to the metric, are never
    negative, and are the same for a layer's queries, keys and values. Under a post-norm a head's contribution is its part
    of the norm's output at the norm's own scale.

    Cost: one forward pass, and ||x - c_u||_1 for every source at every place that reads the stream: about
    layers * sources * tokens * d_model elementwise operations. No corrupted prompts; the ablation plays no part.

    Ferrando & Voita 2024, "Information flow routes: automatically interpreting language models at scale"
    (arXiv:2403.00824).
    """

    signed: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False
    needs_ablation: ClassVar[bool] = False
    levels: ClassVar[tuple[str, ...]] = ("edges",)
    tells_positions: ClassVar[bool] = False

    @torch.no_grad()
    def run(self, problem: Problem) -> Raw:
        anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
        tally = Tally(problem)
        for rows, batch in problem.track(problem.batches(), problem.n_batches):
            here = run(anatomy, anatomy.embed(batch.tokens), batch.padding)
            batch = with_clean_logits(anatomy, metric, here.final, batch)
            tally.measured(rows, measure(anatomy, metric, here.final, batch), None)
            # each token counts as a share of its example
            weights = (batch.real / batch.lengths[:, None]).flatten()
            examples = torch.arange(len(batch), device=anatomy.device).repeat_interleave(batch.tokens.shape[1])
            scores = torch.zeros(len(batch), *graph.shape, device=anatomy.device)
            for chunk, contributions in _contributions(anatomy, here, batch):
                for read, columns, n in _reads(problem, here):
                    flow = _shares(contributions[:n], read.flatten(0, 1)[chunk].to(contributions)) * weights[chunk]
                    part = scores.new_zeros(len(batch), n).index_add_(0, examples[chunk], flow.T)
                    scores[:, :n, columns] += part[:, :, None]
            tally.scored(rows, scores if problem.per_example else scores.sum(0, keepdim=True))
        return tally.raw(forwards=1, backwards=0)


def _shares(contributions: Tensor, read: Tensor) -> Tensor:
    """Each source's share of what is read: ``[sources, rows]``, from ``[sources, rows, d_model]`` and ``[rows, d_model]``."""
    length = read.abs().sum(-1)
    proximity = torch.stack([length - (read - c).abs().sum(-1) for c in contributions]).clamp_min(0)
    total = proximity.sum(0)
    return torch.where(total > 0, proximity / total.where(total > 0, 1), 0)


def _contributions(anatomy: Anatomy, here: Run, batch: Batch) -> Iterator[tuple[slice, Tensor]]:
    """What every source wrote, some rows at a time: ``[sources, rows, d_model]`` in float32."""
    n_rows = batch.tokens.numel()
    heads = [rows_of(trace.z, n_rows) for trace in here.layers]
    n_sources = 1 + sum(block.attention.n_heads + (block.mlp is not None) for block in anatomy.blocks)
    size = max(1, _CHUNK_ELEMENTS // (n_sources * anatomy.d_model))
    for start in range(0, n_rows, size):
        chunk = slice(start, min(start + size, n_rows))
        parts = [here.embedding.flatten(0, 1)[chunk].float()[None]]
        for block, trace, z in zip(anatomy.blocks, here.layers, heads, strict=True):
            if z is None:
                raise RuntimeError("a layer without heads")
            written = torch.einsum("rhd,hdm->hrm", z[chunk].float(), block.attention.W_O.float())
            post = block.attn_post_norm
            if post is not None and trace.attn_sum is not None:
                scale = post.inverse_scale(trace.attn_sum.flatten(0, 1)[chunk])
                written = written * scale * (1.0 if post.weight is None else post.weight.float())
            parts.append(written.to(anatomy.device))
            if trace.mlp_out is not None:
                parts.append(trace.mlp_out.flatten(0, 1)[chunk].float()[None].to(anatomy.device))
        yield chunk, torch.cat(parts)


def _reads(problem: Problem, here: Run) -> Iterator[tuple[Tensor, slice, int]]:
    """Every place that reads the stream: what it reads, its destinations, and how many sources were written before."""
    graph = problem.graph
    for layer, trace in enumerate(here.layers):
        attention = slice(graph.reads_at(layer, "q").start, graph.reads_at(layer, "v").stop)
        yield trace.attn_read, attention, graph.written_before(layer, "q")
        if trace.mlp_read is not None:
            yield trace.mlp_read, graph.reads_at(layer, "mlp"), graph.written_before(layer, "mlp")
    last = graph.n_destinations - 1
    yield here.final, slice(last, last + 1), graph.n_sources
