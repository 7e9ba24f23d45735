"""What sources have written so far in a run of a circuit, and what destinations read of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sparse_circuits.model.anatomy import Block


class Written:
    """Contributions d_u = c_u - c_u' of sources, in the order in which they were written."""

    def __init__(self, embedding: Tensor, groups: Tensor | None, n: int | None) -> None:
        """
        Args:
            embedding: for shape and device, ``[examples, pos, d_model]``.
            groups: every token's position in the graph, or None: ``[examples, pos]``.
            n: how many contributions will come that share no post-norm; None under autograd.
        """
        self.shape, self.device, self.groups, self.n = embedding.shape, embedding.device, groups, n
        self.rows: list[int] = []
        self._alone: list[int] = []
        # one buffer, read at once; but under autograd what has been read must not change, so there are many
        self._parts = [] if n is None else [torch.empty(n, *self.shape, device=self.device)]
        self._shared: list[_Shared] = []

    def add(self, rows: list[int], contributions: Tensor) -> None:
        """Contributions of some sources: ``[sources, examples, pos, d_model]``."""
        if self.n is None:
            self._parts.append(contributions.to(self.device, torch.float32))
        else:
            self._parts[0][len(self._alone) : len(self._alone) + len(rows)] = contributions
        self._alone += rows
        self.rows += rows

    def add_shared(self, rows: list[int], contributions: Tensor, block: Block, before: Tensor) -> None:
        """Contributions of a layer's heads, before the post-norm through which these write together.

        Args:
            before: the ablated sum of all heads and ``b_O``.
        """
        self._shared.append(_Shared(rows, contributions.to(self.device), block, before))
        self.rows += rows

    def read(self, stream: Tensor, columns: Tensor) -> Tensor:
        """What destinations read: the ablated stream, and what their sources add to it.

        Args:
            stream: the ablated run's, broadcasting over examples and positions.
            columns: gates, ``[sources, positions, destinations]``; those of sources that have not written are not looked at.

        Returns:
            float32 ``[destinations, examples, pos, d_model]``.
        """
        n = columns.shape[2]
        out = stream.to(self.device, torch.float32).expand(self.shape)[None]
        start = 0
        for part in self._parts:
            stop = len(self._alone) if self.n is not None else start + len(part)
            out = self._mixed(out, columns[self._alone[start:stop]], part[: stop - start])
            start = stop
        out = out.expand(n, *self.shape)
        if self._shared and self.n is not None:
            out = out.clone()
        for shared in self._shared:
            gates = columns[shared.rows]
            if self.n is None:
                out = out + self._through(shared, gates)
            else:
                self._add_distinct(out, shared, gates)
        return out

    def _mixed(self, base: Tensor, gates: Tensor, contributions: Tensor) -> Tensor:
        """``base`` and the sum of contributions times gates: ``[destinations, examples, pos, d_model]``.

        Args:
            base: the same shape, or one for all destinations.
            gates: ``[sources, positions, destinations]``.
        """
        if len(gates) == 0:
            return base
        gates = gates.to(self.device)
        if self.groups is None:
            return torch.addmm(base.flatten(1), gates[:, 0].T, contributions.flatten(1)).view(-1, *self.shape)
        groups = self.groups.flatten()
        by_token = gates.permute(1, 2, 0)[groups.clamp(min=0)] * (groups >= 0)[:, None, None]
        base, contributions = (x.flatten(1, 2).transpose(0, 1) for x in (base, contributions))
        mixed = torch.baddbmm(base, by_token, contributions)
        return mixed.transpose(0, 1).unflatten(1, self.shape[:2])

    def _through(self, shared: _Shared, gates: Tensor) -> Tensor:
        """What a layer's heads add to the ablated stream through their post-norm."""
        dtype = shared.before.dtype
        before = shared.before.to(self.device, torch.float32).expand(self.shape)[None]
        after = self._mixed(before, gates, shared.contributions).to(shared.block.device, dtype)
        return (shared.block.posted(after).float() - shared.without).to(self.device)

    def _add_distinct(self, out: Tensor, shared: _Shared, gates: Tensor) -> None:
        """The same for many destinations, in place: those with the same of these heads share a pass through the norm."""
        distinct, which = torch.unique(gates.flatten(0, 1), dim=1, return_inverse=True)
        for i, pattern in enumerate(distinct.unbind(1)):
            if not bool(pattern.any()):
                continue
            key = pattern.numpy().tobytes()
            change = shared.known.get(key)
            if change is None:
                change = self._through(shared, pattern.view(*gates.shape[:2], 1))[0]
                if len(shared.known) < len(
                    shared.rows
                ):  # layers above often read the same heads; no more than these hold
                    shared.known[key] = change
            for place in (which == i).nonzero().flatten().tolist():
                out[place] += change


@dataclass(frozen=True, eq=False)
class _Shared:
    """Contributions of heads that share a post-norm, before it, and sums of them that have been through it."""

    rows: list[int]
    contributions: Tensor
    block: Block
    before: Tensor
    known: dict[bytes, Tensor] = field(default_factory=dict)

    @cached_property
    def without(self) -> Tensor:
        """What the heads write when all of them are ablated."""
        return self.block.posted(self.before).float()
