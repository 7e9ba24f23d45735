"""Edge scores from one gradient: the product of every source's difference with every destination's gradient.

The score of u -> v is the sum over examples and positions of <c_u' - c_u, g_v> (docs/methods.md). Nothing of shape
examples x positions x sources x d_model exists at once: rows (an example's position) are taken in chunks of a fixed
budget, and per chunk and layer the scores are one batched matrix product. The rank-one part of a norm's derivative
is one more column of that product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Problem
from sparse_circuits.attribution.scorer import Group, Scorer, rows_of
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Block
from sparse_circuits.model.forward import LayerTrace, MLPTrace, Rerun, Run, Sources
from sparse_circuits.task.batch import Batch

_CHUNK_ELEMENTS = 1 << 24  # 64 MB of float32 differences at a time


@dataclass(frozen=True, eq=False)
class _Gradients:
    """The metric's gradient at each destination; None where nothing was run.

    Per layer ``q, k, v`` (at the projections' outputs), ``z`` (where positions are told apart) and ``mlp`` (at its read);
    ``final`` at the last stream.
    """

    q: tuple[Tensor | None, ...]
    k: tuple[Tensor | None, ...]
    v: tuple[Tensor | None, ...]
    z: tuple[Tensor | None, ...]
    mlp: tuple[Tensor | None, ...]
    final: Tensor


def _gradients(metric_sum: Tensor, run: Run | Rerun, with_z: bool, retain: bool) -> _Gradients:
    """One backward pass: the gradient of a scalar at every destination of a run. Leaves no ``.grad`` behind."""
    targets = {("final", 0): run.final}
    for layer, trace in enumerate(run.layers):
        for which in ("q", "k", "v", "mlp_read", *(["z"] if with_z else [])):
            value = getattr(trace, which, None)
            if value is not None:
                targets[which, layer] = value
    values = torch.autograd.grad(metric_sum, list(targets.values()), materialize_grads=True, retain_graph=retain)
    found = dict(zip(targets, values, strict=True))

    def of(which: str) -> tuple[Tensor | None, ...]:
        return tuple(found.get((which, layer)) for layer in range(len(run.layers)))

    return _Gradients(of("q"), of("k"), of("v"), of("z"), of("mlp_read"), found["final", 0])


class EdgeScorer(Scorer):
    """Scores of edges, added up in float32 over the gradients of one batch."""

    def __init__(self, problem: Problem) -> None:
        self.anatomy, self.graph = problem.anatomy, problem.graph
        self._per_example = problem.per_example

    def start(self, batch: Batch) -> None:
        graph = self.graph
        self._batch = batch
        self._segments = self.segments(batch, graph.n_positions, self._per_example)
        examples = len(batch) if self._per_example else 1
        # [examples, from position, sources, destinations, to position]
        self._total = torch.zeros(
            examples,
            graph.n_positions,
            graph.n_sources,
            graph.n_destinations,
            graph.n_positions,
            device=self.anatomy.device,
        )

    def collect(self) -> Tensor:
        return self._total.permute(0, 2, 1, 3, 4).reshape(-1, *self.graph.shape)

    def add(
        self,
        metric_sum: Tensor,
        delta: Sources,
        run: Run | Rerun,
        weight: float = 1.0,
        group: Group | None = None,
        retain: bool = False,
    ) -> None:
        grads = _gradients(metric_sum, run, bool(self.graph.positions), retain)
        with torch.no_grad():
            self._score(delta, run, grads, weight, group or (0, self.graph.n_sources))

    def _score(self, delta: Sources, run: Run | Rerun, grads: _Gradients, weight: float, group: Group) -> None:
        first, stop = group
        rows = run.final.shape[0] * run.final.shape[1]
        size = max(1, _CHUNK_ELEMENTS // ((stop - first) * self.anatomy.d_model))
        flat_delta = [rows_of(x, rows) for x in (delta.embedding, *delta.z, *delta.mlp)]
        attn_sums = [rows_of(x, rows) for x in run.attn_sums]
        scales = [
            block.attn_norm.inverse_scale(trace.attn_read).flatten(0, 1) if isinstance(trace, LayerTrace) else None
            for block, trace in zip(self.anatomy.blocks, run.layers, strict=True)
        ]
        reads = [self._reads(layer, trace, grads) for layer, trace in enumerate(run.layers)]
        for start in range(0, rows, size):
            chunk = slice(start, min(start + size, rows))
            differences = self._differences(flat_delta, attn_sums, chunk, first, stop)
            for layer, trace in enumerate(run.layers):
                if trace is not None:
                    device = self.anatomy.blocks[layer].device
                    here = differences.to(device)
                    scores = self._layer(
                        layer, trace, reads[layer], grads.mlp[layer], scales[layer], chunk, here, first
                    )
                    self._place(layer, first, weight * scores, isinstance(trace, LayerTrace))
            last = grads.final.flatten(0, 1)[chunk].to(differences)
            products = torch.einsum("src,rc->rs", differences, last)[:, :, None]
            summed = self._by_segment(products, chunk)[:, :, :, 0]
            self._diagonal(slice(first, stop), slice(-1, None), weight * summed[..., None])

    def _differences(
        self, flat_delta: list[Tensor | None], attn_sums: list[Tensor | None], chunk: slice, first: int, stop: int
    ) -> Tensor:
        """Sources' differences on some rows, in the residual stream: ``[sources, rows, d_model]``."""
        graph, n = self.graph, self.graph.n_layers
        out = torch.empty(stop - first, chunk.stop - chunk.start, self.anatomy.d_model, device=self.anatomy.device)
        if first == 0 and flat_delta[0] is not None:
            out[0] = flat_delta[0][chunk]
        for layer, block in enumerate(self.anatomy.blocks):
            z, mlp = flat_delta[1 + layer], flat_delta[1 + n + layer]
            heads = graph.heads_at(layer)
            if z is not None and first <= heads.start < stop:
                place = out[heads.start - first : heads.stop - first]
                written = torch.bmm(z[chunk].float().transpose(0, 1), block.attention.W_O.detach().float())
                attn_sum = attn_sums[layer]
                if block.attn_post_norm is not None and attn_sum is not None:
                    written = block.attn_post_norm.derivative(attn_sum[chunk], written)
                place.copy_(written)
            if mlp is not None and first <= graph.mlp_at(layer) < stop:
                out[graph.mlp_at(layer) - first] = mlp[chunk]
        return out

    def _reads(self, layer: int, trace: LayerTrace | MLPTrace | None, grads: _Gradients) -> list[_Read]:
        """A layer's q, k and v: what they hold, their gradient, and the weights that made them, with the norm folded in.

        Where positions are told apart, keys and values stand once per position of the query that reads them.
        """
        if not isinstance(trace, LayerTrace):
            return []
        block, dz = self.anatomy.blocks[layer], grads.z[layer]
        found = {"q": grads.q[layer], "k": grads.k[layer], "v": grads.v[layer]}
        values = {"q": trace.q, "k": trace.k, "v": trace.v}
        groups = self._batch.groups
        if dz is not None and groups is not None:
            found |= _by_query(block, trace, dz, groups, self.graph.n_positions, self._batch.padding)
        out = []
        for which, gradient in found.items():
            if gradient is None:
                raise RuntimeError("a layer run without gradients")
            fold, shift = _folded(block, self.graph, which)
            copies = gradient.shape[2] // fold.shape[0]
            value = values[which].repeat(1, 1, copies, 1)
            out.append(
                _Read(value.flatten(0, 1), gradient.flatten(0, 1), fold.repeat(copies, 1, 1), shift.repeat(copies, 1))
            )
        return out

    def _layer(
        self,
        layer: int,
        trace: LayerTrace | MLPTrace,
        reads: list[_Read],
        mlp: Tensor | None,
        inverse_scale: Tensor | None,
        chunk: slice,
        differences: Tensor,
        first: int,
    ) -> Tensor:
        """Scores of all edges into one layer on some rows: ``[examples, from position, sources, its columns]``.

        The columns are the layer's queries, keys, values (the last two once per position of a query) and MLP.
        """
        graph, norm = self.graph, self.anatomy.blocks[layer].attn_norm
        mlp_column = None if mlp is None else mlp.flatten(0, 1)[chunk].float()
        if inverse_scale is None or isinstance(trace, MLPTrace):
            if mlp_column is None:
                raise RuntimeError("a layer of which nothing was run")
            return self._by_segment(torch.einsum("src,rc->rs", differences, mlp_column)[:, :, None], chunk)
        scale = inverse_scale[chunk]
        n_attention = sum(read.gradient.shape[1] for read in reads)
        n_columns = n_attention + graph.has_mlp
        rank_one = norm.kind != "none" and not norm.frozen
        columns = torch.empty(
            n_columns + rank_one, differences.shape[1], self.anatomy.d_model, device=differences.device
        )
        coefficients, filled = [], 0
        for read in reads:
            g = read.gradient[chunk].float() * scale[:, None]
            torch.bmm(g.transpose(0, 1), read.fold.transpose(1, 2), out=columns[filled : filled + g.shape[1]])
            if rank_one:
                # <x̂, fold(W) g>: x̂ fold(W) is the projection's output less what does not depend on x
                coefficients.append(((read.value[chunk].float() - read.shift) * g).sum(-1))
            filled += g.shape[1]
        if mlp_column is not None:
            columns[filled] = mlp_column
        if rank_one:
            columns[-1] = norm.normalize(trace.attn_read.flatten(0, 1)[chunk], scale)
        # [rows, sources, columns]: one product for all destinations and the rank-one part
        visible = differences[: graph.written_before(layer, "mlp") - first]
        products = torch.bmm(visible.transpose(0, 1), columns.permute(1, 2, 0))
        early = max(0, graph.written_before(layer, "q") - first)
        scores = self._by_segment(products[:, :, :n_columns], chunk)
        if rank_one:
            along = products[:, :, -1:]
            coefficient = torch.cat(coefficients, dim=1) / self.anatomy.d_model
            scores[..., :n_attention] -= self._by_segment_outer(along[:, :, 0], coefficient, chunk)
        scores[:, :, early:, :n_attention] = 0
        return scores

    def _by_segment(self, products: Tensor, chunk: slice) -> Tensor:
        """Rows added up, ``[rows, sources, columns]`` to ``[examples, positions, sources, columns]``."""
        if self._segments is None:
            return products.sum(0)[None, None]
        shape = (*self._total.shape[:2], *products.shape[1:])
        out = torch.zeros(shape, device=products.device).flatten(0, 1)
        segments = self._segments[chunk].to(products.device)
        real = segments >= 0
        return out.index_add_(0, segments[real], products[real]).view(shape)

    def _by_segment_outer(self, along: Tensor, coefficient: Tensor, chunk: slice) -> Tensor:
        """The same of the product of ``[rows, sources]`` with ``[rows, columns]``."""
        if self._segments is None:
            return (along.T @ coefficient)[None, None]
        return self._by_segment(along[:, :, None] * coefficient[:, None], chunk)

    def _place(self, layer: int, first: int, scores: Tensor, whole: bool) -> None:
        """Add a layer's scores where they belong."""
        graph, n = self.graph, self.graph.n_positions
        scores = scores.to(self._total.device)
        sources = slice(first, first + scores.shape[2])
        if graph.has_mlp:
            self._diagonal(sources, graph.reads_at(layer, "mlp"), scores[..., -1:])
        if not whole:
            return
        self._diagonal(sources, graph.reads_at(layer, "q"), scores[..., : graph.n_heads])
        start = graph.n_heads
        for which in "kv":
            part = scores[..., start : start + n * graph.n_kv].unflatten(-1, (n, graph.n_kv))
            self._total[:, :, sources, graph.reads_at(layer, which)] += part.transpose(-1, -2)
            start += n * graph.n_kv

    def _diagonal(self, sources: slice, destinations: slice, scores: Tensor) -> None:
        """Add scores of destinations that read their own position only."""
        for position in range(self.graph.n_positions):
            self._total[:, position, sources, destinations, position] += scores[:, position]


@dataclass(frozen=True, eq=False)
class _Read:
    """Queries, keys or values on all rows: ``[rows, entries, d_head]``, and the weights that made them from the stream.

    ``fold``: ``[entries, d_model, d_head]`` with the norm folded in; ``shift``: ``[entries, d_head]``, what does not depend
    on the stream.
    """

    value: Tensor
    gradient: Tensor
    fold: Tensor
    shift: Tensor


def _folded(block: Block, graph: Graph, which: str) -> tuple[Tensor, Tensor]:
    """Weights with the norm folded in, and what does not depend on the stream, in float32, one entry per destination."""
    attention, norm = block.attention, block.attn_norm
    weight: Tensor = {"q": attention.W_Q, "k": attention.W_K, "v": attention.W_V}[which]
    bias: Tensor | None = {"q": attention.b_Q, "k": attention.b_K, "v": attention.b_V}[which]
    fold = norm.fold(weight)
    shift = torch.zeros(weight.shape[0], weight.shape[2], device=fold.device) + norm.shift(weight)
    if bias is not None:
        shift = shift + bias.detach().float()
    repeats = (graph.n_heads if which == "q" else graph.n_kv) // fold.shape[0]
    return (fold, shift) if repeats == 1 else (fold.repeat_interleave(repeats, 0), shift.repeat_interleave(repeats, 0))


def _by_query(
    block: Block, trace: LayerTrace, dz: Tensor, groups: Tensor, n_groups: int, real: Tensor | None
) -> dict[str, Tensor]:
    """The gradients of keys and values through each group of queries alone: ``[batch, pos, groups * entries, d_head]``."""
    with torch.enable_grad():
        k, v = (x.detach().requires_grad_() for x in (trace.k, trace.v))
        z = block.attention.mix(trace.q.detach(), k, v, real)
    found: dict[str, list[Tensor]] = {"k": [], "v": []}
    for group in range(n_groups):
        of_group = dz * (groups == group)[..., None, None].to(dz)
        gradients = torch.autograd.grad(
            z, (k, v), of_group, retain_graph=group + 1 < n_groups, materialize_grads=True, allow_unused=True
        )
        for which, gradient in zip("kv", gradients, strict=True):
            found[which].append(gradient)
    return {which: torch.cat(parts, 2) for which, parts in found.items()}
