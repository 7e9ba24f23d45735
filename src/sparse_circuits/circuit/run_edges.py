"""One run of a circuit of edges: every destination reads a stream of its own.

Destinations with the same incoming edges share a stream, so a circuit costs about as much as the model. Where the graph
has positions, coefficients go token by token: a query, an MLP or the logits at position p read every source through its
gate at p; keys and values are made once per position of the query that they serve, each token's through its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.circuit.written import Written
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy, Block
from sparse_circuits.model.forward import Sources


class EdgeRun:
    """A run in which destination v reads A + sum_u gate_uv (c_u - c_u')."""

    def __init__(
        self,
        anatomy: Anatomy,
        graph: Graph,
        weights: Tensor,
        embedding: Tensor,
        real: Tensor | None,
        ablated: Sources,
        groups: Tensor | None,
        learned: bool,
    ) -> None:
        """
        Args:
            weights: gates, float32 of the graph's shape; on the CPU unless learned.
            learned: compute everything under autograd, whatever the gates are.
        """
        self.anatomy, self.graph, self.embedding, self.real = anatomy, graph, embedding, real
        self.ablated, self.groups, self.learned = ablated, groups, learned
        n = graph.n_positions
        # [sources, position of the token that is read, destinations, position of the token that it is read for]
        self.weights = weights.view(graph.n_sources, n, graph.n_destinations, n)
        # for the destinations where these are the same token: [sources, position, destinations]
        self.own = self.weights.diagonal(dim1=1, dim2=3).transpose(1, 2)
        reached = weights.view(graph.n_sources, -1).any(1).nonzero().flatten().tolist() if not learned else ()
        self.used = set(range(graph.n_sources)) if learned else set(reached)
        shared = [graph.heads_at(layer) for layer, b in enumerate(anatomy.blocks) if b.attn_post_norm is not None]
        alone = sum(not any(heads.start <= u < heads.stop for heads in shared) for u in self.used)
        self.written = Written(embedding, groups, None if learned else alone)
        self.present = [0] if groups is None else [p for p in groups.unique().tolist() if p >= 0]

    def final(self, attention: tuple[Tensor, ...], mlp: tuple[Tensor, ...], final: Tensor) -> Tensor:
        """The last residual stream, from the ablated run's as attention, MLPs and logits read it."""
        graph, written, dtype = self.graph, self.written, self.embedding.dtype
        if 0 in self.used:
            written.add([0], (self.embedding - self.ablated.embedding)[None])
        for layer, block in enumerate(self.anatomy.blocks):
            first = graph.heads_at(layer).start
            heads = [h for h in range(graph.n_heads) if first + h in self.used]
            # a parallel MLP has no edge from its layer's heads, so it may read after them
            if heads:
                z, ablated = self._heads(layer, block, heads, attention[layer]), self.ablated.z[layer]
                change = (z - ablated[:, :, heads]).flatten(0, 1).float()
                contributions = torch.bmm(change.transpose(0, 1), block.attention.W_O[heads].float())
                contributions = contributions.view(len(heads), *self.embedding.shape)
                if block.attn_post_norm is None:
                    written.add([first + h for h in heads], contributions)
                else:
                    written.add_shared([first + h for h in heads], contributions, block, block.attention.write(ablated))
            ablated = self.ablated.mlp[layer]
            if block.mlp is None or block.mlp_norm is None or ablated is None or graph.mlp_at(layer) not in self.used:
                continue
            read = written.read(mlp[layer], self.own[:, :, graph.reads_at(layer, "mlp")])[0]
            contribution = block.mlp(block.mlp_norm(read.to(block.device, dtype))) - ablated
            written.add([graph.mlp_at(layer)], contribution[None])
        return written.read(final, self.own[:, :, -1:])[0].to(dtype)

    def _heads(self, layer: int, block: Block, heads: list[int], stream: Tensor) -> Tensor:
        """z of some heads of a layer, each of q, k and v from its own stream: ``[examples, pos, heads, d_head]``."""
        graph, attention = self.graph, block.attention
        # where all heads are normed together, those outside the circuit take part with the q and k that they read
        needed = list(range(graph.n_heads)) if attention.joint_norm else heads
        groups = [h * graph.n_kv // graph.n_heads for h in needed]
        n_q, n_kv, n = graph.n_heads, graph.n_kv, len(self.present)
        start = graph.reads_at(layer, "q").start
        shared = sorted({n_q + g for g in groups}) + sorted({n_q + n_kv + g for g in groups})
        across = self.weights[:, :, [start + w for w in shared]][..., self.present].flatten(2)
        columns = torch.cat([self.own[:, :, [start + w for w in needed]], across], 2)
        wanted = needed + [w for w in shared for _ in range(n)]
        outputs = self._projections(block, stream, columns, wanted)
        k_at, v_at = ([len(needed) + shared.index(n_q + i + g) * n for g in groups] for i in (0, n_kv))
        q = torch.stack([outputs[i] for i in range(len(needed))], 2)
        z, seen = torch.empty(0), {}
        for p in range(n):  # positions whose keys and values are all the same share a run of the attention
            seen.setdefault(tuple(id(outputs[i + p]) for i in (*k_at, *v_at)), []).append(p)
        real = None if self.real is None else self.real.to(block.device)
        for members in seen.values():
            k, v = (torch.stack([outputs[i + members[0]] for i in at], 2) for at in (k_at, v_at))
            here = attention.mix(q, k, v, real)
            if self.groups is None or len(seen) == 1:
                z = here
            else:
                of = torch.tensor([self.present[p] for p in members], device=block.device)
                at = torch.isin(self.groups.to(block.device), of)[..., None, None]
                z = torch.where(at, here, z if z.numel() else torch.zeros_like(here))
        return z[:, :, heads] if len(heads) < len(needed) else z

    def _projections(self, block: Block, stream: Tensor, columns: Tensor, wanted: list[int]) -> list[Tensor]:
        """What projections of a layer yield, each of its own stream: one ``[examples, pos, d_head]`` for each column.

        Equal columns of one projection yield the same tensor.

        Args:
            columns: gates, ``[sources, positions, columns]``.
            wanted: each column's number among the layer's destinations: query heads, then keys, then values.
        """
        distinct, which = columns, list(range(len(wanted)))
        if not self.learned:
            rows = self.written.rows or [0]  # before anything is written all columns are equal
            unique, found = torch.unique(columns[rows].flatten(0, 1), dim=1, return_inverse=True)
            if unique.shape[1] < len(wanted):
                first = torch.zeros(unique.shape[1], dtype=torch.long)
                first[found] = torch.arange(len(wanted))
                distinct, which = columns[:, :, first], found.tolist()
        read = self.written.read(stream, distinct).to(block.device, block.attention.W_Q.dtype)
        normed = block.attn_norm(read)
        if len(normed) == len(wanted):
            return _project_each(block, self.graph, normed, wanted)
        outputs: dict[tuple[int, int], Tensor] = {}
        for i in range(len(normed)):
            members = sorted({w for w, at in zip(wanted, which, strict=True) if at == i})
            projected = _project(block, self.graph, normed[i], members)
            outputs.update({(w, i): projected[:, :, j] for j, w in enumerate(members)})
        return [outputs[w, i] for w, i in zip(wanted, which, strict=True)]


def _split(block: Block, graph: Graph, members: list[int]) -> list[tuple[str, list[int], bool]]:
    """Numbers of a layer's destinations, ascending, as heads of its projections; and whether these are all heads."""
    repeats = graph.n_kv // block.attention.n_groups
    parts, start = [], 0
    for which, count, shared in (("q", graph.n_heads, 1), ("k", graph.n_kv, repeats), ("v", graph.n_kv, repeats)):
        heads = [(m - start) // shared for m in members if start <= m < start + count]
        start += count
        if heads:
            parts.append((which, heads, heads == list(range(count // shared))))
    return parts


def _project(block: Block, graph: Graph, x: Tensor, members: list[int]) -> Tensor:
    """Some of a layer's projections of one normed stream: ``[examples, pos, members, d_head]``."""
    parts = _split(block, graph, members)
    return torch.cat([block.attention.project(x, which, slice(None) if all_ else h) for which, h, all_ in parts], 2)


def _project_each(block: Block, graph: Graph, x: Tensor, members: list[int]) -> list[Tensor]:
    """Each projection of its own normed stream, ``x`` being ``[members, examples, pos, d_model]``."""
    attention, outputs, start = block.attention, [], 0
    weights = {
        "q": (attention.W_Q, attention.b_Q),
        "k": (attention.W_K, attention.b_K),
        "v": (attention.W_V, attention.b_V),
    }
    for which, heads, whole in _split(block, graph, members):
        weight, bias = weights[which]
        if not whole:
            weight, bias = weight[heads], None if bias is None else bias[heads]
        stop = start + len(heads)
        product = torch.bmm(x[start:stop].flatten(1, 2), weight)
        if bias is not None:
            product = product + bias[:, None]
        outputs += product.view(len(heads), *x.shape[1:3], -1).unbind()
        start = stop
    return outputs
