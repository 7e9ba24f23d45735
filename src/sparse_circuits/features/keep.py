"""The best of a stream for many features at once: what stays in memory does not grow with the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Windows = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Kept:
    """Per feature the ``size`` entries of the highest keys so far, each with a window of tokens; updated in place.

    What came first stays where keys are equal, so that the batch size makes no difference. Entries are in no order: a new one
    takes the place of one that is dropped, so that little is moved; :meth:`order` sorts them.

    Attributes:
        key: float64 ``[features, size]``, -inf where there is no entry.
        value: the feature's value there, float32 ``[features, size]``.
        at: text, row, position in the row, and where the window starts: int64 ``[features, size, 4]``.
        tokens, values: the window's tokens (-1 past its end) and the feature's values: ``[features, size, window]``.
    """

    key: Tensor
    value: Tensor
    at: Tensor
    tokens: Tensor
    values: Tensor

    @classmethod
    def empty(cls, features: int, size: int, window: int) -> Kept:
        return cls(
            torch.full((features, size), -torch.inf, dtype=torch.float64),
            torch.zeros(features, size),
            torch.full((features, size, 4), -1, dtype=torch.int64),
            torch.full((features, size, window), -1, dtype=torch.int32),
            torch.zeros(features, size, window),
        )

    @property
    def size(self) -> int:
        return self.key.shape[1]

    @property
    def worst(self) -> Tensor:
        """The key that a new entry has to exceed, ``[features]``."""
        return self.key.amin(1) if self.size else torch.full((len(self.key),), torch.inf, dtype=torch.float64)

    @property
    def arrival(self) -> Tensor:
        """Sorts entries as they came: int64 ``[features, size]``."""
        text, row, position, _ = self.at.unbind(-1)
        return (text << 48) | (row << 17) | position

    def order(self, feature: int) -> list[int]:
        """A feature's entries, the highest key first, and where keys are equal what came first."""
        order = self.arrival[feature].argsort(stable=True)
        order = order[self.key[feature][order].argsort(descending=True, stable=True)]
        return order[self.key[feature][order] > -torch.inf].tolist()

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": getattr(self, name) for name in ("key", "value", "at", "tokens", "values")}

    @classmethod
    def of_state(cls, prefix: str, state: dict[str, Tensor]) -> Kept:
        return cls(*(state[f"{prefix}.{name}"] for name in ("key", "value", "at", "tokens", "values")))

    def add(self, feature: Tensor, key: Tensor, value: Tensor, windows: Windows) -> None:
        """Take in new entries, given in the order of the text.

        Args:
            feature: of each entry, int64 ``[entries]``; ``key``, ``value`` likewise.
            windows: for the numbers of some entries their ``at``, tokens and values.
        """
        if len(feature) == 0 or self.size == 0:
            return
        order = key.argsort(descending=True, stable=True)
        order = order[feature[order].argsort(stable=True)]
        sorted_feature = feature[order]
        affected, counts = sorted_feature.unique_consecutive(return_counts=True)
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        # no more than `size` of a feature's new entries can stay
        stays = rank < self.size
        order, rank = order[stays], rank[stays]
        line = torch.arange(len(affected)).repeat_interleave(counts)[stays]
        width = int(rank.max()) + 1
        new = torch.full((len(affected), width), -torch.inf, dtype=torch.float64)
        new[line, rank] = key[order].double()
        entry = torch.zeros(len(affected), width, dtype=torch.int64)
        entry[line, rank] = order

        # the best of both, with those that are there in the order in which they came, and new ones after them
        there = self.arrival[affected].argsort(dim=1, stable=True)
        both = torch.cat([self.key[affected].gather(1, there), new], dim=1)
        best = both.argsort(dim=1, descending=True, stable=True)[:, : self.size]
        chosen = torch.zeros_like(both, dtype=torch.bool).scatter_(1, best, True) & (both > -torch.inf)
        stay = torch.zeros(len(affected), self.size, dtype=torch.bool).scatter_(1, there, chosen[:, : self.size])
        come = chosen[:, self.size :]
        free = (~stay) & ((~stay).cumsum(1) <= come.sum(1, keepdim=True))
        into_line, slot = free.nonzero(as_tuple=True)
        into, source = affected[into_line], entry[come]
        at, tokens, values = windows(source)
        new_values = (key[source].double(), value[source], at, tokens, values)
        for name, fresh in zip(("key", "value", "at", "tokens", "values"), new_values, strict=True):
            mine = getattr(self, name)
            mine[into, slot] = fresh.to(mine.dtype)
