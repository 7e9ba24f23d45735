"""Patching every edge on its own: what the other methods estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Method, Problem, Raw
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Block
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
    if destination == graph.n_destinations - 1:
        return (clean.run.final + changes).flatten(0, 1)
    layer, at = divmod(destination, graph.destinations_per_layer)
    block, trace = anatomy.blocks[layer], clean.run.layers[layer]
    real = None if clean.batch.padding is None else _tile(clean.batch.padding, n)
    if graph.has_mlp and at == graph.destinations_per_layer - 1:
        if block.mlp is None or block.mlp_norm is None or trace.mlp_read is None or trace.mlp_out is None:
            raise RuntimeError("an MLP destination without an MLP")
        written = block.mlp(block.mlp_norm((trace.mlp_read + changes).flatten(0, 1)))
        stream = _tile(_stream_after(clean, layer) - trace.mlp_out, n) + written
    else:
        which, place = _projection(graph, layer, destination)
        written = _with_projection(block, trace, which, place, changes, real)
        if block.mlp is None or block.mlp_norm is None or trace.mlp_read is None or block.parallel:
            stream = _tile(_stream_after(clean, layer), n) + written
        else:
            stream = _tile(trace.mlp_read, n) + written
            stream = stream + block.mlp(block.mlp_norm(stream))
    for block in anatomy.blocks[layer + 1 :]:
        _, stream = run_layer(block, stream, real)
    return stream


def _stream_after(clean: _Clean, layer: int) -> Tensor:
    """The clean run's residual stream after a layer."""
    layers = clean.run.layers
    return layers[layer + 1].attn_read if layer + 1 < len(layers) else clean.run.final


def _projection(graph: Graph, layer: int, destination: int) -> tuple[str, int]:
    """Which of "q", "k" and "v" a destination of a layer is, and of which head or group."""
    for which in "qk":
        columns = graph.reads_at(layer, which)
        if destination < columns.stop:
            return which, destination - columns.start
    return "v", destination - graph.reads_at(layer, "v").start


def _with_projection(
    block: Block, trace: LayerTrace, which: str, place: int, changes: Tensor, real: Tensor | None
) -> Tensor:
    """What attention writes more when one q, k or v reads a changed stream, everything else as it was.

    Only the heads that use this q, k or v are computed again: one, or all of a group.
    """
    attention, n = block.attention, len(changes)
    destinations = getattr(trace, which).shape[2]
    share = attention.n_heads // destinations
    heads = slice(place * share, (place + 1) * share)
    group = heads.start * trace.k.shape[2] // attention.n_heads
    parts = {"q": trace.q[:, :, heads], "k": trace.k[:, :, group : group + 1], "v": trace.v[:, :, group : group + 1]}
    parts = {name: _tile(part, n) for name, part in parts.items() if name != which}
    weights = attention.n_heads if which == "q" else attention.n_groups
    own = place * weights // destinations  # ungrouped keys and values share their group's weights
    normed = block.attn_norm((trace.attn_read + changes).flatten(0, 1))
    parts[which] = attention.project(normed, which, slice(own, own + 1))
    z = attention.mix(parts["q"], parts["k"], parts["v"], real)
    return (z - _tile(trace.z[:, :, heads], n)).flatten(-2) @ attention.W_O[heads].flatten(0, 1)


def _tile(x: Tensor, n: int) -> Tensor:
    return x.repeat(n, *(1,) * (x.dim() - 1))


def _repeat(batch: Batch, n: int) -> Batch:
    """The batch ``n`` times over, edge by edge, for a metric that looks at it."""
    return replace(batch, **{name: _tile(x, n) for name, x in vars(batch).items() if x is not None})
