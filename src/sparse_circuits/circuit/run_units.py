"""One run of a circuit of nodes, or of their parts: all destinations read the same stream."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import MLP, Anatomy, Block
from sparse_circuits.model.forward import Sources


class UnitRun:
    """A run in which source u writes c_u' + gate_u (c_u - c_u'), unit by unit.

    Units are the node itself; the dimensions of what it writes (of a head's under a post-norm: of what enters it); or a
    head's dimensions of z and an MLP's hidden units.
    """

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
            weights: gates, float32 of the graph's shape.
            learned: compute everything, whatever the gates are.
        """
        self.anatomy, self.graph = anatomy, graph
        self.weights = weights.view(graph.n_units, -1)
        self.embedding, self.real, self.ablated, self.groups, self.learned = embedding, real, ablated, groups, learned

    def final(self, attention: tuple[Tensor, ...], mlp: tuple[Tensor, ...], final: Tensor) -> Tensor:
        """The last residual stream, from the ablated run's as attention, MLPs and logits read it."""
        graph, shape = self.graph, self.embedding.shape
        gate = self._gate(slice(0, graph.units_of_input), self.embedding.device)
        # what the circuit adds to the ablated stream
        added = torch.zeros(shape, device=self.embedding.device)
        if gate is not None:
            added = added + gate * (self.embedding - self.ablated.embedding).float()
        for layer, block in enumerate(self.anatomy.blocks):
            added = added.to(block.device)
            of_heads = self._heads(layer, block, attention[layer] + added)
            below = added
            added = added if of_heads is None else added + of_heads
            if block.mlp is not None and block.mlp_norm is not None:
                gate = self._gate(graph.units_at(layer, "mlp"), block.device)
                if gate is not None:
                    read = (mlp[layer] + (below if block.parallel else added)).to(self.embedding.dtype)
                    added = added + self._mlp(layer, block.mlp, block.mlp_norm(read), gate)
        return (final + added.to(final.device)).to(self.embedding.dtype).expand(shape)

    def _gate(self, units: slice, device: torch.device) -> Tensor | None:
        """Gates of some units, ``[examples or 1, pos or 1, units]``; None where all are shut."""
        weights = self.weights[units]
        if not self.learned and not bool(weights.any()):
            return None
        weights = weights.T.to(device)
        if self.groups is None:
            return weights[None]
        groups = self.groups.to(device)
        return weights[groups.clamp(min=0)] * (groups >= 0)[..., None]

    def _heads(self, layer: int, block: Block, stream: Tensor) -> Tensor | None:
        """What a layer's heads add to the ablated stream together, or None."""
        graph, attention = self.graph, block.attention
        gates = self._gate(graph.units_at(layer, "heads"), block.device)
        if gates is None:
            return None
        gates = gates.unflatten(-1, (graph.n_heads, -1))  # [examples or 1, pos or 1, heads, units]
        heads = (
            list(range(graph.n_heads)) if self.learned else gates.detach().amax((0, 1, 3)).nonzero().flatten().tolist()
        )
        if not heads:  # chosen only at positions that no prompt of the batch has
            return None
        normed = block.attn_norm(stream.to(self.embedding.dtype).expand(self.embedding.shape))
        needed = list(range(graph.n_heads)) if attention.joint_norm else heads
        groups = [h * attention.n_groups // graph.n_heads for h in needed]
        distinct = sorted(set(groups))
        whole = len(needed) == graph.n_heads
        q = attention.project(normed, "q", slice(None) if whole else needed)
        k, v = (attention.project(normed, which, slice(None) if whole else distinct) for which in "kv")
        if not whole:
            copies = torch.tensor([distinct.index(g) for g in groups], device=normed.device)
            k, v = k[:, :, copies], v[:, :, copies]
        z = attention.mix(q, k, v, None if self.real is None else self.real.to(block.device))
        if len(heads) < len(needed):
            z = z[:, :, heads]
        if len(heads) < graph.n_heads:
            gates = gates[:, :, heads]
        ablated = self.ablated.z[layer]
        change = (z - ablated[:, :, heads]).float()
        W_O = attention.W_O[heads].float()
        if graph.level == "outputs":
            written = (torch.einsum("bphd,hdm->bphm", change, W_O) * gates).sum(2)
        else:
            written = (change * gates).flatten(2) @ W_O.flatten(0, 1)
        if block.attn_post_norm is None:
            return written
        before = attention.write(ablated)
        return block.posted((before + written).to(self.embedding.dtype)).float() - block.posted(before).float()

    def _mlp(self, layer: int, mlp: MLP, normed: Tensor, gate: Tensor) -> Tensor:
        if self.graph.level != "neurons":
            return gate * (mlp(normed) - _known(self.ablated.mlp[layer])).float()
        ablated = _known(self.ablated.hidden[layer])
        hidden = ablated + gate * (mlp.hidden(normed) - ablated).float()
        return mlp.write(hidden.to(self.embedding.dtype)).float() - mlp.write(ablated).float()


def _known(value: Tensor | None) -> Tensor:
    if value is None:
        raise RuntimeError("an ablated run without the values that this level of the graph needs")
    return value
