"""Edges of a feature graph: every place cut, and the backward passes of many downstream nodes batched.

The edge u -> d is (u' - u) dm/dd dd/du, where dd/du counts only the paths that cross no other place, at the clean run, and
dm/dd is the gradient that the method averaged (Marks et al. 2024, arXiv:2403.19647). One row of a batched backward pass
holds one downstream node of every example, or, where no attention lies in between, of every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparse_circuits.attribution.feature.gradients import Cut
from sparse_circuits.attribution.feature.problem import Situation, Sparse
from sparse_circuits.attribution.feature.splits import Change
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.graph.features import FeatureGraph

# what the rows of one backward pass hold at a place: more falls out of a processor's cache, less leaves a GPU idle
_ROW_ELEMENTS, _ROW_ELEMENTS_GPU = 1 << 22, 1 << 26
# sums of edges into and out of two places that are held dense at a time
_SUM_ELEMENTS = 1 << 25


@dataclass(frozen=True, eq=False)
class Targets:
    """Downstream nodes of one place, each at one token, as directions in what is read and written there.

    The derivative of a node is the derivative of <read, what is read> + <written, what is written>, at its token.

    Attributes:
        tokens, nodes: where and which, the node counted within its place: int64 ``[n]``.
        read, written: ``[n, d_in]`` and ``[n, d_out]``; None for no such part.
    """

    tokens: Tensor
    nodes: Tensor
    read: Tensor | None
    written: Tensor | None

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def joined(cls, parts: list[Targets]) -> Targets:
        """Several lists as one."""

        def cat(name: str) -> Tensor | None:
            given = [getattr(part, name) for part in parts]
            like = next((g for g in given if g is not None), None)
            if like is None:
                return None
            return torch.cat(
                [like.new_zeros(len(p), like.shape[1]) if g is None else g for p, g in zip(parts, given, strict=True)]
            )

        tokens, nodes = torch.cat([p.tokens for p in parts]), torch.cat([p.nodes for p in parts])
        return cls(tokens, nodes, cat("read"), cat("written"))


class Edges:
    """Edges between the places of one batch.

    Args:
        amounts: what each upstream node's derivative is multiplied by: how far ablation changes it.
    """

    def __init__(self, situation: Situation, amounts: list[Change]) -> None:
        self.situation, self.graph, self.amounts = situation, situation.graph, amounts
        self._cut = Cut(situation)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels' backward passes cannot be batched
            self._cut.run(situation.embedding)

    # --- downstream nodes ---

    def targets(self, place: int, gradient: Tensor, effects: tuple[Tensor, Tensor], above: float) -> Targets:
        """The nodes of a place whose effect at a token is larger than ``above``, weighted by their gradient.

        Features that do not fire in the clean run have no derivative there, and no edges into them.

        Args:
            gradient: dm/d(what is written), ``[batch, pos, d]``.
            effects: of the listed features ``[tokens, listed]`` and of the other nodes ``[tokens, blocks]``.
        """
        amounts, gradient = self.amounts[place], gradient.flatten(0, 1)
        features, rest = effects
        where, blocks = (rest.abs() > above).nonzero(as_tuple=True)
        parts = [self.whole(place, where, blocks, gradient)]
        if self.graph.places[place].split:
            tokens, i = ((features.abs() > above) & (amounts.clean != 0)).nonzero(as_tuple=True)
            which = amounts.listed(self.graph.places[place].n_features)[tokens, i]
            parts.append(self.features(place, tokens, which, gradient))
        return Targets.joined(parts)

    def features(self, place: int, tokens: Tensor, which: Tensor, gradient: Tensor | None) -> Targets:
        """Features that fire, weighted by dm/dz = <gradient, d_f>, or by 1."""
        dictionary = self._dictionary(place)
        x = self.situation.run.held[place].read.flatten(0, 1)[tokens].detach().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(dictionary.at(x, which).sum(), x)
        if gradient is not None:
            found = found * (gradient[tokens] * dictionary.W_dec[which]).sum(-1, keepdim=True)
        return Targets(tokens, which, found, None)

    def whole(self, place: int, tokens: Tensor, blocks: Tensor, gradient: Tensor) -> Targets:
        """Error terms <gradient, e>, e differentiated through both what is read and what is written; or whole nodes."""
        spot, situation = self.graph.places[place], self.situation
        nodes = spot.n_features + blocks
        if not spot.split:
            apart = situation.blocks(place, gradient[tokens])
            mask = torch.nn.functional.one_hot(blocks, spot.n_blocks).to(apart)[..., None]
            return Targets(tokens, nodes, None, (apart * mask).flatten(1))
        dictionary, held = self._dictionary(place), situation.run.held[place]
        reads, writes, size = [], [], max(1, (1 << 22) // dictionary.n_features)
        for part in tokens.split(size):
            x = held.read.flatten(0, 1)[part].detach().requires_grad_()
            skip = dictionary.skip(x)
            y = held.written.flatten(0, 1)[part].detach()
            y = (y if skip is None else y + skip.detach()).requires_grad_()
            with torch.enable_grad():
                error = dictionary.error(x, y)
                found = torch.autograd.grad((error * gradient[part]).sum(), (x, y))
            reads.append(found[0])
            writes.append(found[1])
        if not reads:
            return Targets(tokens, nodes, None, None)
        return Targets(tokens, nodes, torch.cat(reads), torch.cat(writes))

    # --- edges ---

    def into_logits(self, gradients: list[Tensor | None], out: Sparse) -> None:
        """Edges of all nodes into the logits: u' - u times the direct gradient, ``[batch, pos, d]`` at each place."""
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                ids, values = self.upstream[place], self.upstream_of(place, gradient.flatten(0, 1)[:, None])[:, 0]
                out.add(torch.where(ids >= 0, ids * (self.graph.size + 1) + self.graph.logits, 0), values * (ids >= 0))

    def into(self, place: int, targets: Targets, out: Sparse) -> None:
        """Edges from every node that a place reads directly into some of its nodes, added up under their numbers."""
        parents = self.graph.reach[place].parents
        if not len(targets) or not parents:
            return
        for part in self._together(place, targets, parents):
            into = _Sums(self, place, part, parents)
            for rows, gradients in self.backward(place, part):
                # where positions do not see each other, most tokens hold no target
                tokens = (rows >= 0).any(1).nonzero()[:, 0]
                for parent, gradient in zip(parents, gradients, strict=True):
                    if gradient is not None:
                        at = tokens.to(gradient.device)
                        into.add(rows[tokens], parent, self.upstream_of(parent, gradient[at], at), at)
            into.collect(out)

    def backward(self, place: int, targets: Targets) -> Iterator[tuple[Tensor, list[Tensor | None]]]:
        """Batched backward passes from nodes of a place to all places that it reads directly.

        Yields:
            Which target each row holds at each token, int64 ``[tokens, rows]``, -1 for none; and per parent the gradient
            there, ``[tokens, rows, d]``, or None where there is none.
        """
        local, parents = self.graph.reach[place].local, self.graph.reach[place].parents
        n_tokens, n_pos = self.situation.batch.tokens.numel(), self.situation.n_pos
        owners = targets.tokens if local else targets.tokens // n_pos
        order, slot = _slots(owners)
        outputs = [
            (tensor, vectors)
            for tensor, vectors in ((self._cut.read[place], targets.read), (self._cut.written[place], targets.written))
            if vectors is not None and tensor.requires_grad
        ]
        if not outputs:
            return
        shape = self.situation.batch.tokens.shape
        n_rows, width = int(slot.max()) + 1, 4 * self.graph.d_model
        elements = _ROW_ELEMENTS if owners.device.type == "cpu" else _ROW_ELEMENTS_GPU
        size = max(1, elements // (n_tokens * width))
        leaves = [self._cut.leaves[parent] for parent in parents]
        for start in range(0, n_rows, size):
            here = order[(slot >= start) & (slot < start + size)]
            at = slot[(slot >= start) & (slot < start + size)] - start
            n = min(size, n_rows - start)
            starts = []
            for tensor, vectors in outputs:
                rows = tensor.new_zeros(n, n_tokens, tensor.shape[-1])
                rows[at, targets.tokens[here]] = vectors[here].to(tensor)
                starts.append(rows.unflatten(1, shape))
            found = torch.autograd.grad(
                [tensor for tensor, _ in outputs],
                leaves,
                starts,
                retain_graph=True,
                is_grads_batched=True,
                allow_unused=True,
            )
            holds = owners.new_full((n, n_tokens if local else shape[0]), -1)
            holds[at, owners[here]] = here
            if not local:
                holds = holds.repeat_interleave(n_pos, dim=1)
            yield holds.T, [None if g is None else g.flatten(1, 2).transpose(0, 1) for g in found]

    @cached_property
    def upstream(self) -> list[Tensor]:
        """Per place, the number in the graph of every node whose amount is listed, token by token; -1 at padding."""
        found = []
        for place, (offset, spot, amounts) in enumerate(
            zip(self.graph.offsets, self.graph.places, self.amounts, strict=False)
        ):
            rest = torch.arange(spot.n_blocks, device=amounts.rest.device) + spot.n_features
            nodes = torch.cat([amounts.listed(spot.n_features), rest.expand(len(amounts.rest), -1)], 1)
            found.append(self.numbers(place, nodes, offset))
        return found

    def numbers(self, place: int, nodes: Tensor, offset: int | None = None) -> Tensor:
        """Numbers in the graph of a place's nodes at each token, ``[tokens, n]``; -1 at padding."""
        groups = self.situation.groups.to(nodes.device)[:, None]
        offset = self.graph.offsets[place] if offset is None else offset
        return torch.where(groups >= 0, (offset + nodes) * self.graph.n_positions + groups, -1)

    def upstream_of(self, parent: int, gradient: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Edges from all listed nodes of a place: ``[tokens, rows, d]`` to ``[tokens, rows, listed + blocks]``.

        Args:
            tokens: which these are, where they are not all.
        """
        spot, amounts = self.graph.places[parent], self.amounts[parent]
        if tokens is not None and len(tokens) < len(amounts.rest):
            amounts = amounts.at(tokens)
        gradient = gradient.to(amounts.rest)
        apart = self.situation.blocks(parent, gradient)
        rest = (apart * self.situation.blocks(parent, amounts.rest)[:, None]).sum(-1)
        if not spot.split:
            return rest
        return torch.cat(
            [amounts.project(gradient, self._dictionary(parent).W_dec) * amounts.change[:, None], rest], -1
        )

    def _together(self, place: int, targets: Targets, parents: tuple[int, ...]) -> Iterator[Targets]:
        """Targets whose sums are held at once: all, or node after node as many as fit."""
        sources = sum(len(self.upstream[parent].unique()) for parent in parents)
        most = max(1, _SUM_ELEMENTS // max(1, sources))
        nodes, where = targets.nodes.unique(return_inverse=True)
        if len(nodes) * self.graph.n_positions <= most:
            yield targets
            return
        step = max(1, most // self.graph.n_positions)
        for start in range(0, len(nodes), step):
            i = ((where >= start) & (where < start + step)).nonzero()[:, 0]
            yield Targets(
                targets.tokens[i],
                targets.nodes[i],
                None if targets.read is None else targets.read[i],
                None if targets.written is None else targets.written[i],
            )

    def _dictionary(self, place: int) -> Dictionary:
        dictionary = self.graph.places[place].dictionary
        if dictionary is None:
            raise RuntimeError("a place without a dictionary has no features")
        return dictionary


class _Sums:
    """Edges from some places into some nodes of another, added up over tokens and examples in dense tables."""

    def __init__(self, edges: Edges, place: int, targets: Targets, parents: tuple[int, ...]) -> None:
        graph, groups = edges.graph, edges.situation.groups.to(targets.tokens.device)
        self._graph: FeatureGraph = graph
        numbers = (graph.offsets[place] + targets.nodes) * graph.n_positions + groups[targets.tokens]
        self._down, self._row = numbers.unique(return_inverse=True)
        self._up: dict[int, Tensor] = {}
        self._column: dict[int, Tensor] = {}
        self._table: dict[int, Tensor] = {}
        for parent in parents:
            up, column = edges.upstream[parent].unique(return_inverse=True)
            self._up[parent], self._column[parent] = up, column
            # one row more, for rows that hold no node at a token
            self._table[parent] = torch.zeros((len(self._down) + 1) * len(up), device=up.device)

    def add(self, holds: Tensor, parent: int, values: Tensor, tokens: Tensor) -> None:
        """Add edges ``[tokens, rows, nodes]``; ``holds`` says which target each row holds at each of these tokens."""
        column, width = self._column[parent][tokens], len(self._up[parent])
        row = torch.where(holds >= 0, self._row[holds], len(self._down)).to(column.device)
        at = row[:, :, None] * width + column[:, None, :]
        self._table[parent].index_add_(0, at.flatten(), values.flatten().float())

    def collect(self, out: Sparse) -> None:
        for parent, table in self._table.items():
            table, up = table.view(len(self._down) + 1, -1)[:-1], self._up[parent]
            row, column = (table != 0).nonzero(as_tuple=True)
            real = up[column] >= 0
            keys = up[column] * (self._graph.size + 1) + self._down.to(up.device)[row]
            out.add(keys[real], table[row, column][real])


def _slots(owners: Tensor) -> tuple[Tensor, Tensor]:
    """An order of things, and in that order which one of its owner's each is: first, second..."""
    ordered, order = owners.sort(stable=True)
    _, counts = ordered.unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order, torch.arange(len(owners), device=owners.device) - starts
