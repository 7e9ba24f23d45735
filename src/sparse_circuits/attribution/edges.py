"""Edge scores from one gradient: the product of every source's difference with every destination's gradient.

The score of u -> v is the sum over examples and positions of <c_u' - c_u, g_v> (design, section 5.1). Nothing of shape
examples x positions x sources x d_model exists at once: rows (an example's position) are taken in chunks of a fixed
budget, and per chunk and layer the scores are one batched matrix product. The rank-one part of a norm's derivative
is one more column of that product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import LayerTrace, MLPTrace, Rerun, Run, Sources

_CHUNK_ELEMENTS = 1 << 24  # 64 MB of float32 differences at a time


@dataclass(frozen=True, eq=False)
class Gradients:
    """The metric's gradient at each destination; None where nothing was run.

    Per layer ``q, k, v`` (at the projections' outputs) and ``mlp`` (at its read); ``final`` at the last stream.
    """

    q: tuple[Tensor | None, ...]
    k: tuple[Tensor | None, ...]
    v: tuple[Tensor | None, ...]
    mlp: tuple[Tensor | None, ...]
    final: Tensor


def gradients(metric_sum: Tensor, run: Run | Rerun) -> Gradients:
    """One backward pass: the gradient of a scalar at every destination of a run. Leaves no ``.grad`` behind."""
    targets = {("final", 0): run.final}
    for layer, trace in enumerate(run.layers):
        for which in ("q", "k", "v", "mlp_read"):
            value = getattr(trace, which, None)
            if value is not None:
                targets[which, layer] = value
    found = dict(
        zip(targets, torch.autograd.grad(metric_sum, list(targets.values()), materialize_grads=True), strict=True)
    )

    def of(which: str) -> tuple[Tensor | None, ...]:
        return tuple(found.get((which, layer)) for layer in range(len(run.layers)))

    return Gradients(of("q"), of("k"), of("v"), of("mlp_read"), found["final", 0])


class EdgeScorer:
    """Accumulates edge scores, in float32, over batches and gradient points."""

    def __init__(self, anatomy: Anatomy, graph: Graph) -> None:
        self.anatomy, self.graph = anatomy, graph
        self.total = torch.zeros(graph.n_sources, graph.n_destinations, device=anatomy.device)
        self._reads = [_folded_reads(anatomy, graph, layer) for layer in range(graph.n_layers)]
        self._W_O = [block.attention.W_O.detach().float() for block in anatomy.blocks]

    @torch.no_grad()
    def add(
        self,
        delta: Sources,
        run: Run | Rerun,
        grads: Gradients,
        weight: float = 1.0,
        group: tuple[int, int] | None = None,
    ) -> None:
        """Add ``weight *`` the scores of one gradient.

        Args:
            delta: ablated minus clean value of every source.
            run: the run whose gradient was taken; its norms' derivatives apply. Layers that it did not run hold None.
            group: the first source and the one after the last, where only the edges that leave these are scored.
        """
        first, stop = group or (0, self.graph.n_sources)
        rows = run.final.shape[0] * run.final.shape[1]
        size = max(1, _CHUNK_ELEMENTS // ((stop - first) * self.anatomy.d_model))
        flat_delta = [_rows(x, rows) for x in (delta.embedding, *delta.z, *delta.mlp)]
        scales = [
            block.attn_norm.inverse_scale(trace.attn_read).flatten(0, 1) if isinstance(trace, LayerTrace) else None
            for block, trace in zip(self.anatomy.blocks, run.layers, strict=True)
        ]
        for start in range(0, rows, size):
            chunk = slice(start, min(start + size, rows))
            differences = self._differences(flat_delta, chunk, first, stop)
            for layer, trace in enumerate(run.layers):
                if trace is not None:
                    scores, columns = self._layer(layer, trace, grads, scales[layer], chunk, differences, first)
                    self.total[first : first + len(scores), columns] += weight * scores
            last = grads.final.flatten(0, 1)[chunk].float()
            self.total[first:stop, -1] += weight * (differences.flatten(1) @ last.flatten())

    def _differences(self, flat_delta: list[Tensor | None], chunk: slice, first: int, stop: int) -> Tensor:
        """Sources' differences on some rows, in the residual stream: ``[sources, rows, d_model]``."""
        graph, n = self.graph, self.graph.n_layers
        out = torch.empty(stop - first, chunk.stop - chunk.start, self.anatomy.d_model, device=self.anatomy.device)
        if first == 0 and flat_delta[0] is not None:
            out[0] = flat_delta[0][chunk]
        for layer in range(n):
            z, mlp = flat_delta[1 + layer], flat_delta[1 + n + layer]
            heads = graph.heads_at(layer)
            if z is not None and first <= heads.start < stop:
                place = out[heads.start - first : heads.stop - first]
                torch.bmm(z[chunk].float().transpose(0, 1), self._W_O[layer], out=place)
            if mlp is not None and first <= graph.mlp_at(layer) < stop:
                out[graph.mlp_at(layer) - first] = mlp[chunk]
        return out

    def _layer(
        self,
        layer: int,
        trace: LayerTrace | MLPTrace,
        grads: Gradients,
        inverse_scale: Tensor | None,
        chunk: slice,
        differences: Tensor,
        first: int,
    ) -> tuple[Tensor, slice]:
        """Scores of all edges into one layer on some rows: ``[sources, its destinations]``, and the columns they belong to."""
        graph = self.graph
        norm = self.anatomy.blocks[layer].attn_norm
        n_attention = graph.n_heads + 2 * graph.n_kv
        n_destinations = graph.destinations_per_layer
        end = (layer + 1) * n_destinations
        mlp = grads.mlp[layer]
        if inverse_scale is None or isinstance(trace, MLPTrace):
            if mlp is None:
                raise RuntimeError("a layer of which nothing was run")
            column = mlp.flatten(0, 1)[chunk].float()
            return (differences.flatten(1) @ column.flatten())[:, None], slice(end - 1, end)
        scale = inverse_scale[chunk]
        columns = torch.empty(n_destinations + 1, differences.shape[1], self.anatomy.d_model, device=differences.device)
        coefficients, filled = [], 0
        found = (grads.q[layer], grads.k[layer], grads.v[layer])
        for (fold, shift), output, gradient in zip(self._reads[layer], (trace.q, trace.k, trace.v), found, strict=True):
            if gradient is None:
                raise RuntimeError("a layer run without gradients")
            g = gradient.flatten(0, 1)[chunk].float() * scale[:, None]
            torch.bmm(g.transpose(0, 1), fold.transpose(1, 2), out=columns[filled : filled + g.shape[1]])
            # <x̂, fold(W) g>: x̂ fold(W) is the projection's output less what does not depend on x
            coefficients.append(((output.flatten(0, 1)[chunk].float() - shift) * g).sum(-1))
            filled += g.shape[1]
        if mlp is not None:
            columns[filled] = mlp.flatten(0, 1)[chunk]
        columns[-1] = 0 if norm.kind == "none" else norm.normalize(trace.attn_read.flatten(0, 1)[chunk], scale)
        # [rows, sources, columns]: one product for all destinations and the rank-one part
        visible = differences[: graph.written_before(layer, "mlp") - first]
        products = torch.bmm(visible.transpose(0, 1), columns.permute(1, 2, 0))
        scores = products[:, :, :-1].sum(0)
        scores[:, :n_attention] -= products[:, :, -1].T @ (torch.cat(coefficients, dim=1) / self.anatomy.d_model)
        scores[max(0, graph.written_before(layer, "q") - first) :, :n_attention] = 0
        return scores, slice(end - n_destinations, end)


def _folded_reads(anatomy: Anatomy, graph: Graph, layer: int) -> list[tuple[Tensor, Tensor]]:
    """For q, k and v: weights with the norm folded in ``[heads, d_model, d_head]`` and what does not depend on the stream
    ``[heads, d_head]``, in float32, one entry per destination.
    """
    attention, norm = anatomy.blocks[layer].attention, anatomy.blocks[layer].attn_norm
    out = []
    for weight, bias, count in (
        (attention.W_Q, attention.b_Q, graph.n_heads),
        (attention.W_K, attention.b_K, graph.n_kv),
        (attention.W_V, attention.b_V, graph.n_kv),
    ):
        fold = norm.fold(weight)
        shift = torch.zeros(weight.shape[0], weight.shape[2], device=fold.device) + norm.shift(weight)
        if bias is not None:
            shift = shift + bias.detach().float()
        repeats = count // fold.shape[0]
        if repeats > 1:
            fold, shift = fold.repeat_interleave(repeats, 0), shift.repeat_interleave(repeats, 0)
        out.append((fold, shift))
    return out


def _rows(values: Tensor | None, rows: int) -> Tensor | None:
    """``[batch, pos, ...]`` as ``[rows, ...]``."""
    return None if values is None else values.reshape(rows, *values.shape[2:])
