"""Patching every edge on its own: what the other methods estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Method, Problem, Raw
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy, Block
from sparse_circuits.model.forward import LayerTrace, Run, Sources, run, run_layer
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits


@dataclass(frozen=True)
class Exact(Method):
    """The indirect effect of each edge: m(clean, v reads c_u' instead of c_u) - m(clean), averaged over examples.

    Written to be read: for each destination v, the clean run is restarted at v's layer, once per source u, with the
    stream that v reads changed by c_u' - c_u and everything after it recomputed. ``edges_per_pass`` sources of one
    destination share a pass along the batch.

    Cost: one (partial) forward pass per edge. Conmy et al. 2023 (arXiv:2304.14997) for path patching of single edges.
    """

    edges_per_pass: int = 32

    @torch.no_grad()
    def run(self, problem: Problem) -> Raw:
        anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
        total = torch.zeros(graph.n_sources, graph.n_destinations)
        clean_values = torch.empty(len(problem.prompts))
        corrupted_values = torch.full((len(problem.prompts),), torch.nan)

        def work() -> Iterator[tuple[_Clean, int]]:
            for rows, batch in problem.prompts.batches(problem.batch_size):
                clean = _Clean.of(problem, batch)
                clean_values[rows] = clean.value.cpu()
                if clean.corrupted_value is not None:
                    corrupted_values[rows] = clean.corrupted_value.cpu()
                yield from ((clean, destination) for destination in range(graph.n_destinations))

        n_batches = -(-len(problem.prompts) // problem.batch_size)
        for clean, destination in problem.track(work(), n_batches * graph.n_destinations):
            n = int(graph.readable[destination])
            for start in range(0, n, self.edges_per_pass):
                sources = range(start, min(start + self.edges_per_pass, n))
                changes = torch.stack([_difference(problem, clean.delta, u) for u in sources])
                final = _patched(problem, clean, destination, changes)
                many = _repeat(clean.batch, len(sources))
                effect = measure(anatomy, metric, final, many).view(len(sources), -1) - clean.value
                total[sources.start : sources.stop, destination] += effect.sum(1).cpu()
        patched = problem.ablated.constant is None
        forwards = 1 + patched + graph.n_edges
        return Raw(total, clean_values, corrupted_values if patched else None, forwards=forwards, backwards=0)


@dataclass(frozen=True, eq=False)
class _Clean:
    """The clean run of a batch, and how every source would change."""

    batch: Batch
    run: Run
    delta: Sources
    value: Tensor
    corrupted_value: Tensor | None

    @classmethod
    def of(cls, problem: Problem, batch: Batch) -> _Clean:
        anatomy, metric = problem.anatomy, problem.prompts.metric
        ungroup = problem.graph.n_kv == problem.graph.n_heads
        clean = run(anatomy, anatomy.embed(batch.tokens), batch.padding, ungroup)
        batch = with_clean_logits(anatomy, metric, clean.final, batch)
        ablated, corrupted_final = problem.ablated(batch)
        return cls(
            batch,
            clean,
            ablated.minus(clean.sources),
            measure(anatomy, metric, clean.final, batch),
            None if corrupted_final is None else measure(anatomy, metric, corrupted_final, batch),
        )


def _difference(problem: Problem, delta: Sources, source: int) -> Tensor:
    """c_u' - c_u of one source, in the residual stream: ``[examples, pos, d_model]``."""
    if source == 0:
        return delta.embedding
    layer, i = divmod(source - 1, problem.graph.sources_per_layer)
    mlp = delta.mlp[layer]
    if i == problem.graph.n_heads and mlp is not None:
        return mlp
    return delta.z[layer][:, :, i] @ problem.anatomy.blocks[layer].attention.W_O[i]


def _patched(problem: Problem, clean: _Clean, destination: int, changes: Tensor) -> Tensor:
    """The last residual stream of runs in which one destination reads a changed stream.

    Args:
        changes: ``[edges, examples, pos, d_model]``.

    Returns:
        ``[edges * examples, pos, d_model]``, edge by edge.
    """
    graph, anatomy, n = problem.graph, problem.anatomy, len(changes)
    real = None if clean.batch.padding is None else _tile(clean.batch.padding, n)
    change = changes.flatten(0, 1)
    if destination == graph.n_destinations - 1:
        return _tile(clean.run.final, n) + change
    layer, at = divmod(destination, graph.destinations_per_layer)
    block, trace = anatomy.blocks[layer], _tile_trace(clean.run.layers[layer], n)
    if graph.has_mlp and at == graph.destinations_per_layer - 1:
        stream = _after_attention(block, trace)
        if block.mlp is None or block.mlp_norm is None or trace.mlp_read is None:
            raise RuntimeError("an MLP destination without an MLP")
        stream = stream + block.mlp(block.mlp_norm(trace.mlp_read + change))
    else:
        which, head = _projection(graph, layer, destination)
        stream = _with_projection(block, trace, which, head, change, real)
    return _rest(anatomy, stream, real, layer + 1)


def _projection(graph: Graph, layer: int, destination: int) -> tuple[str, int]:
    """Which of "q", "k" and "v" a destination of a layer is, and of which head or group."""
    for which in "qk":
        columns = graph.reads_at(layer, which)
        if destination < columns.stop:
            return which, destination - columns.start
    return "v", destination - graph.reads_at(layer, "v").start


def _with_projection(
    block: Block, trace: LayerTrace, which: str, head: int, change: Tensor, real: Tensor | None
) -> Tensor:
    """A layer's output when one head's (or group's) q, k or v input is changed, everything else as it was."""
    projected = getattr(trace, which).clone()
    weights = block.attention.n_heads if which == "q" else block.attention.n_groups
    own = head * weights // projected.shape[2]  # ungrouped keys and values share their group's weights
    projected[:, :, head] = block.attention.project(block.attn_norm(trace.attn_read + change), which)[:, :, own]
    new = replace(trace, **{which: projected})
    new = replace(new, z=block.attention.mix(new.q, new.k, new.v, real))
    stream = _after_attention(block, new)
    if block.mlp is None or block.mlp_norm is None:
        return stream
    if block.parallel and trace.mlp_out is not None:
        return stream + trace.mlp_out
    return stream + block.mlp(block.mlp_norm(stream))


def _after_attention(block: Block, trace: LayerTrace) -> Tensor:
    return trace.attn_read + block.attention.write(trace.z)


def _rest(anatomy: Anatomy, stream: Tensor, real: Tensor | None, start: int) -> Tensor:
    for block in anatomy.blocks[start:]:
        _, stream = run_layer(block, stream, real)
    return stream


def _tile(x: Tensor, n: int) -> Tensor:
    return x.repeat(n, *(1,) * (x.dim() - 1))


def _tile_trace(trace: LayerTrace, n: int) -> LayerTrace:
    return replace(trace, **{name: _tile(x, n) for name, x in vars(trace).items() if x is not None})


def _repeat(batch: Batch, n: int) -> Batch:
    """The batch ``n`` times over, edge by edge, for a metric that looks at it."""
    return replace(batch, **{name: _tile(x, n) for name, x in vars(batch).items() if x is not None})
