"""Edges into queries and keys with their head's attention recomputed, and only what follows taken as linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Problem
from sparse_circuits.model.anatomy import Attention
from sparse_circuits.model.forward import LayerTrace, Run, Sources
from sparse_circuits.task.batch import Batch

_CHUNK_ELEMENTS = 1 << 22  # elements of one projection of all sources taken at a time


@torch.no_grad()
def query_key_effects(
    problem: Problem,
    batch: Batch,
    here: Run,
    delta: Sources,
    at_z: Sequence[Sequence[Tensor]],
    scores: Sequence[Tensor],
) -> None:
    """Write sum_pos <z(patched) - z, dm/dz> over the scores of the edges into queries and keys.

    Args:
        at_z: the metric's gradient at every layer's z, once per set of scores.
        scores: ``[examples, *graph.shape]`` each.
    """
    graph = problem.graph
    shape = (len(batch), graph.n_sources, graph.n_positions, graph.n_destinations, graph.n_positions)
    spread = [s.view(shape) for s in scores]
    for layer, trace in enumerate(here.layers):
        dz = torch.stack([gradients[layer] for gradients in at_z]).float()  # [sets, batch, pos, heads, d_head]
        for which in "qk":
            columns = graph.reads_at(layer, which)
            for sources, patched in _patched(problem, layer, here, delta, which):
                for start, effects in _effects(problem, layer, trace, batch, which, patched, dz):
                    for one, found in zip(spread, effects, strict=True):
                        one[:, sources, start, columns] = found


def _patched(problem: Problem, layer: int, here: Run, delta: Sources, which: str) -> Iterator[tuple[slice, Tensor]]:
    """A layer's queries or keys with one source at a time at its ablated value: ``[sources, batch, pos, heads, d_head]``."""
    graph, block, trace = problem.graph, problem.anatomy.blocks[layer], here.layers[layer]
    size = max(1, _CHUNK_ELEMENTS // max(trace.q.numel(), trace.attn_read.numel()))
    changes = _changes(problem, here, delta, graph.written_before(layer, "q"))
    repeats = (graph.n_heads if which == "q" else graph.n_kv) // (
        block.attention.n_heads if which == "q" else block.attention.n_groups
    )
    start, waiting = 0, []
    for n, change in enumerate(changes, 1):
        waiting.append(trace.attn_read + change.to(trace.attn_read))
        if len(waiting) == size or n == graph.written_before(layer, "q"):
            read = torch.stack(waiting)
            projected = block.attention.project(block.attn_norm(read.flatten(0, 1)), which)
            projected = projected.repeat_interleave(repeats, 2) if repeats > 1 else projected
            yield slice(start, n), projected.unflatten(0, (len(waiting), -1))
            start, waiting = n, []


def _changes(problem: Problem, here: Run, delta: Sources, n: int) -> Iterator[Tensor]:
    """What the stream changes by when one source takes its ablated value, for the first ``n`` sources."""
    graph, anatomy = problem.graph, problem.anatomy
    for source in range(n):
        if source == 0:
            yield delta.embedding
            continue
        layer, i = divmod(source - 1, graph.sources_per_layer)
        block, trace, mlp = anatomy.blocks[layer], here.layers[layer], delta.mlp[layer]
        if i == graph.n_heads and mlp is not None:
            yield mlp
            continue
        change = delta.z[layer][:, :, i] @ block.attention.W_O[i]
        if trace.attn_sum is not None:
            change = block.posted(trace.attn_sum + change) - block.posted(trace.attn_sum)
        yield change


def _effects(
    problem: Problem, layer: int, trace: LayerTrace, batch: Batch, which: str, patched: Tensor, dz: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Per position of the source: the effects ``[sets, examples, sources, destinations, position of the destination]``."""
    graph, attention = problem.graph, problem.anatomy.blocks[layer].attention
    n, groups = graph.n_positions, batch.groups
    own = getattr(trace, which)
    for position in range(n):
        here = patched
        if which == "k" and groups is not None:  # only the keys at this position
            here = torch.where((groups == position)[None, :, :, None, None].to(own.device), patched, own)
        effect = _local(attention, trace, which, here, dz, batch.padding)  # [sets, sources, batch, pos, destinations]
        if groups is None:
            found = effect.sum(3)[..., None]
        else:
            inside = torch.stack([groups == to for to in range(n)], -1).to(effect)  # [batch, pos, position]
            if which == "q":  # a query reads its own position only
                inside = inside * (torch.arange(n, device=inside.device) == position)
            found = torch.einsum("subpd,bpt->subdt", effect, inside)
        yield position, found.transpose(1, 2)


def _local(
    attention: Attention, trace: LayerTrace, which: str, patched: Tensor, dz: Tensor, real: Tensor | None
) -> Tensor:
    """<z(patched) - z, dm/dz> at each position, destination by destination: ``[sets, sources, batch, pos, destinations]``."""
    n, n_destinations = len(patched), patched.shape[3]
    parts = {"q": trace.q, "k": trace.k, "v": trace.v}
    tiled = {name: part.repeat(n, 1, 1, 1) for name, part in parts.items()}
    real = None if real is None else real.repeat(n, 1).to(trace.z.device)
    if not attention.joint_norm:
        changed = attention.mix(**(tiled | {which: patched.flatten(0, 1)}), real=real)
        products = torch.einsum("ubphd,sbphd->subph", _less(changed, trace.z, n), dz)
        return products.unflatten(-1, (n_destinations, -1)).sum(-1)
    found = []  # a norm over all heads: patching one moves the others
    for destination in range(n_destinations):
        one = tiled[which].clone()
        one[:, :, destination] = patched.flatten(0, 1)[:, :, destination]
        changed = attention.mix(**(tiled | {which: one}), real=real)
        found.append(torch.einsum("ubphd,sbphd->subp", _less(changed, trace.z, n), dz))
    return torch.stack(found, -1)


def _less(changed: Tensor, z: Tensor, n: int) -> Tensor:
    return changed.unflatten(0, (n, -1)).float() - z.float()
