"""What every source, or a part of it, changes the residual stream by when it is ablated."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.attribution.restart import Restart
from sparse_circuits.graph import Graph
from sparse_circuits.model.forward import Sources


class Changes:
    """c_u' - c_u at some tokens, as changes of the residual stream: float32 ``[sources or units, tokens, d_model]``.

    Under a post-norm P what a head changes is P(sum of the layer's heads with it replaced + b_O) - P(sum + b_O).

    Args:
        ablated: what every source is replaced by.
        patched: whether that is what it wrote on the corrupted prompts of the batch.
    """

    def __init__(self, restart: Restart, graph: Graph, ablated: Sources, patched: bool) -> None:
        self.restart, self.graph = restart, graph
        self.delta = ablated.minus(restart.clean.sources)
        self._blocks, batch = restart.anatomy.blocks, restart.batch
        differs = batch.tokens != batch.corrupted if patched and batch.corrupted is not None else batch.real
        self._changed = torch.zeros_like(differs).flatten().index_fill_(0, restart.reached(differs), True)

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """The tokens that changes at one position of the graph can reach, and which of them are at it."""
        groups = self.restart.batch.groups
        here = self._changed if groups is None else self._changed & (groups.flatten() == position)
        tokens = self.restart.reached(here.view(self.restart.shape))
        return tokens, here[tokens]

    def of_sources(self, first: int, stop: int, tokens: Tensor, posted: bool = True) -> Tensor:
        """Sources from ``first`` to before ``stop``; heads after their post-norm, or before it."""
        parts = [self._of(self.delta.embedding, tokens)[None]] if first == 0 else []
        for layer, mlp in enumerate(self.delta.mlp):
            start = self.graph.heads_at(layer).start
            heads = range(self.graph.n_heads)[max(0, first - start) : max(0, stop - start)]
            if heads:
                parts.append(self._of_heads(layer, slice(heads.start, heads.stop), tokens, posted))
            if mlp is not None and first <= self.graph.mlp_at(layer) < stop:
                parts.append(self._of(mlp, tokens)[None])
        return torch.cat([part.to(self.restart.anatomy.device) for part in parts])

    def of_units(self, layer: int, which: str, units: slice, tokens: Tensor) -> Tensor:
        """Some units of a layer's heads or MLP (of the input, for layer -1): each alone, everything after it yet to run."""
        if layer < 0 and self.graph.level != "outputs":
            return self._of(self.delta.embedding, tokens)[None]
        if self.graph.level == "nodes":
            return self._of_heads(layer, units, tokens) if which == "heads" else self._of_mlp(layer, tokens)[None]
        values, directions = self._parts(layer, which, tokens)
        change = values.T[units, :, None] * directions[units, None]
        if which == "heads":
            return self.restart.posted(layer, change, tokens)
        neurons = layer >= 0 and self.graph.level == "neurons"
        return self.restart.mlp_posted(layer, change, tokens) if neurons else change

    def _parts(self, layer: int, which: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """How much every unit changes ``[tokens, units]``, and what it writes per unit of change ``[units, d_model]``."""
        graph, block = self.graph, self._blocks[max(layer, 0)]
        if graph.level == "outputs":
            every = torch.eye(graph.d_model, device=block.device)
            if which == "heads":
                z = self._of(self.delta.z[layer], tokens)
                values = torch.einsum("thd,hdm->thm", z, block.attention.W_O.float())
                return values.flatten(1), every.repeat(graph.n_heads, 1)
            return self._of(self.delta.embedding, tokens) if layer < 0 else self._of_mlp(layer, tokens), every
        if which == "heads":
            return self._of(self.delta.z[layer], tokens).flatten(1), block.attention.W_O.float().flatten(0, 1)
        hidden = self.delta.hidden[layer]
        if block.mlp is None or hidden is None:
            raise RuntimeError("hidden units of an MLP that were not kept")
        return self._of(hidden, tokens), block.mlp.W_out.float()

    def _of(self, values: Tensor, tokens: Tensor) -> Tensor:
        return self.restart.at(values, tokens).float()

    def _of_mlp(self, layer: int, tokens: Tensor) -> Tensor:
        change = self.delta.mlp[layer]
        if change is None:
            raise RuntimeError("an MLP source without an MLP")
        return self._of(change, tokens)

    def _of_heads(self, layer: int, heads: slice, tokens: Tensor, posted: bool = True) -> Tensor:
        z, W_O = self._of(self.delta.z[layer][:, :, heads], tokens), self._blocks[layer].attention.W_O[heads]
        change = torch.bmm(z.transpose(0, 1), W_O.float())
        return self.restart.posted(layer, change, tokens) if posted else change
