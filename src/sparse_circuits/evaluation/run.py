"""Running a model with only a circuit (design, section 5.3).

Destination v reads the sum of what its sources in the circuit wrote in this run and of the ablated values of all other
sources. With A the stream of the fully ablated run and d_u = c_u - c_u', that is A + sum_{u in circuit} d_u: only
sources inside the circuit are ever computed, and destinations with the same incoming edges share one stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy, Block
from sparse_circuits.model.forward import Sources

Run = TypeVar("Run", Sources, "AblatedStreams")
_BUFFER_ELEMENTS = 1 << 26  # 256 MB of float32 contributions at a time


@dataclass(frozen=True, eq=False)
class AblatedStreams:
    """The residual stream of the fully ablated run, as attention, MLP and logits read it; broadcasts over batch and position."""

    attention: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    final: Tensor

    @classmethod
    def of(cls, anatomy: Anatomy, sources: Sources, n_pos: int) -> AblatedStreams:
        """Add up ablated contributions with what belongs to no source: attention output biases and learned positions."""
        stream = anatomy.stream(sources.embedding, n_pos)
        attention, mlp = [], []
        for block, z, mlp_out in zip(anatomy.blocks, sources.z, sources.mlp, strict=True):
            attention.append(stream)
            after = stream + block.write_heads(z)
            mlp.append(stream if block.parallel else after)
            stream = after if mlp_out is None else after + mlp_out
        return cls(tuple(attention), tuple(mlp), stream)


class CircuitRunner:
    """Runs many circuits of one graph on the same model."""

    def __init__(self, anatomy: Anatomy, graph: Graph) -> None:
        self.anatomy, self.graph = anatomy, graph

    @torch.no_grad()
    def final(
        self, circuit: Circuit, embedding: Tensor, real: Tensor | None, ablated: Sources, streams: AblatedStreams
    ) -> Tensor:
        """The last residual stream of a circuit: ``[examples, pos, d_model]``.

        Args:
            embedding: the clean token embedding, ``[examples, pos, d_model]``.
            real: False at padding, or None.
            ablated, streams: what every source is replaced by, and their sum as each layer reads it.
        """
        used = _used(circuit)
        n_examples, n_pos, d_model = embedding.shape
        size = max(1, _BUFFER_ELEMENTS // ((len(used) + self.graph.destinations_per_layer) * n_pos * d_model))
        finals = []
        for start in range(0, n_examples, size):
            part = slice(start, start + size)
            finals.append(
                self._final(
                    circuit.mask.to(embedding.device),
                    used,
                    embedding[part],
                    None if real is None else real[part],
                    _examples(ablated, part, n_examples),
                    _examples(streams, part, n_examples),
                )
            )
        return torch.cat(finals)

    def _final(
        self,
        mask: Tensor,
        used: dict[int, int],
        embedding: Tensor,
        real: Tensor | None,
        ablated: Sources,
        streams: AblatedStreams,
    ) -> Tensor:
        graph, shape = self.graph, embedding.shape
        rows = list(used)
        edges = mask[torch.tensor(rows, dtype=torch.long, device=mask.device)].float()
        # what each used source adds to the ablated stream, in the order of `used`
        added = torch.empty(len(rows), *shape, device=embedding.device)
        if 0 in used:
            added[used[0]] = embedding - ablated.embedding
        for layer, block in enumerate(self.anatomy.blocks):
            below = sum(1 for u in rows if u < graph.heads_at(layer).start)
            heads = [h for h in range(graph.n_heads) if graph.heads_at(layer).start + h in used]
            if heads:
                z = self._heads(
                    layer, block, heads, edges[:below], added[:below], streams.attention[layer], real, shape
                )
                ablated_z = ablated.z[layer].expand(*shape[:2], -1, -1)[:, :, heads]
                change = (z - ablated_z).flatten(0, 1).float()
                contribution = torch.bmm(change.transpose(0, 1), block.attention.W_O[heads].float())
                added[below : below + len(heads)] = contribution.view(len(heads), *shape)
            ablated_mlp = ablated.mlp[layer]
            mlp, mlp_norm = block.mlp, block.mlp_norm
            if mlp is not None and mlp_norm is not None and ablated_mlp is not None and graph.mlp_at(layer) in used:
                visible = below if graph.parallel else below + len(heads)
                column = edges[:visible, graph.reads_at(layer, "mlp").start]
                stream = _read(streams.mlp[layer], column[:, None], added[:visible], shape)[0]
                added[used[graph.mlp_at(layer)]] = mlp(mlp_norm(stream.to(embedding.dtype))) - ablated_mlp
        return _read(streams.final, edges[:, -1:], added, shape)[0].to(embedding.dtype)

    def _heads(
        self,
        layer: int,
        block: Block,
        heads: list[int],
        edges: Tensor,
        added: Tensor,
        stream: Tensor,
        real: Tensor | None,
        shape: torch.Size,
    ) -> Tensor:
        """z of some heads of a layer, each of q, k and v from its own stream: ``[examples, pos, heads, d_head]``."""
        graph = self.graph
        groups = [h * graph.n_kv // graph.n_heads for h in heads]
        n_q, n_kv = graph.n_heads, graph.n_kv
        wanted = sorted({*heads, *(n_q + g for g in groups), *(n_q + n_kv + g for g in groups)})
        start = graph.reads_at(layer, "q").start
        incoming = edges[:, [start + w for w in wanted]]
        distinct, which = torch.unique(incoming, dim=1, return_inverse=True)
        read = _read(stream, distinct, added, shape).to(block.attention.W_Q.dtype)
        normed = block.attn_norm(read)
        outputs: dict[int, Tensor] = {}
        for i in range(distinct.shape[1]):
            members = [w for w, at in zip(wanted, which.tolist(), strict=True) if at == i]
            projected = _project(block, graph, normed[i], members)
            outputs.update({w: projected[:, :, j] for j, w in enumerate(members)})
        q = torch.stack([outputs[h] for h in heads], 2)
        k = torch.stack([outputs[n_q + g] for g in groups], 2)
        v = torch.stack([outputs[n_q + n_kv + g] for g in groups], 2)
        return block.attention.mix(q, k, v, real)


def _project(block: Block, graph: Graph, x: Tensor, members: list[int]) -> Tensor:
    """Some of a layer's projections of one normed stream: ``[examples, pos, members, d_head]``.

    Args:
        members: ascending numbers of destinations of the layer: query heads, then keys, then values.
    """
    repeats = graph.n_kv // block.attention.n_groups
    parts, start = [], 0
    for which, count, shared in (("q", graph.n_heads, 1), ("k", graph.n_kv, repeats), ("v", graph.n_kv, repeats)):
        heads = [(m - start) // shared for m in members if start <= m < start + count]
        start += count
        if heads:
            whole = heads == list(range(count // shared))
            parts.append(block.attention.project(x, which, slice(None) if whole else heads))
    return torch.cat(parts, 2)


def _used(circuit: Circuit) -> dict[int, int]:
    """Sources with an outgoing edge, in order, and their place in the buffer."""
    return {u: i for i, u in enumerate(circuit.mask.any(1).nonzero().flatten().tolist())}


def _read(stream: Tensor, columns: Tensor, added: Tensor, shape: torch.Size) -> Tensor:
    """What destinations read: the ablated stream and what their sources add, ``[destinations, examples, pos, d_model]``."""
    base = stream.float().expand(shape)
    if len(added) == 0:
        return base.expand(columns.shape[1], *shape)
    return torch.addmm(base.reshape(1, -1), columns.T, added.flatten(1)).view(columns.shape[1], *shape)


def _examples(run: Run, part: slice, n: int) -> Run:
    """Some examples of a run; constants, which stand for all examples, stay as they are."""

    def cut(x: Tensor | None) -> Tensor | None:
        return x[part] if x is not None and x.shape[0] == n else x

    return replace(run, **{k: tuple(map(cut, v)) if isinstance(v, tuple) else cut(v) for k, v in vars(run).items()})
