"""The components of a model, and how they are laid out: what writes into the residual stream and what reads from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Components:
    """Sources and destinations, layer after layer; a graph of any level is made of them."""

    n_layers: int
    n_heads: int
    n_kv: int
    has_mlp: bool = True
    parallel: bool = False

    @property
    def sources_per_layer(self) -> int:
        return self.n_heads + self.has_mlp

    @property
    def destinations_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv + self.has_mlp

    @property
    def n_sources(self) -> int:
        return 1 + self.n_layers * self.sources_per_layer

    @property
    def n_destinations(self) -> int:
        return self.n_layers * self.destinations_per_layer + 1

    def heads_at(self, layer: int) -> slice:
        """Sources that are a layer's heads."""
        start = 1 + layer * self.sources_per_layer
        return slice(start, start + self.n_heads)

    def mlp_at(self, layer: int) -> int:
        """The source that is a layer's MLP."""
        return 1 + layer * self.sources_per_layer + self.n_heads

    def reads_at(self, layer: int, which: str) -> slice:
        """A layer's destinations of one kind: "q", "k", "v" or "mlp"."""
        start = layer * self.destinations_per_layer
        sizes = {"q": self.n_heads, "k": self.n_kv, "v": self.n_kv, "mlp": int(self.has_mlp)}
        for kind, size in sizes.items():
            if kind == which:
                return slice(start, start + size)
            start += size
        raise KeyError(which)

    def written_before(self, layer: int, which: str) -> int:
        """How many sources are written before a destination of that layer reads: its edges come from that many first ones."""
        n = 1 + layer * self.sources_per_layer
        return n + self.n_heads if which == "mlp" and not self.parallel else n

    @cached_property
    def readable(self) -> Tensor:
        """Per destination, the number of sources written before it: ``[n_destinations]``."""
        counts = []
        for layer in range(self.n_layers):
            counts += [self.written_before(layer, "q")] * (self.n_heads + 2 * self.n_kv)
            counts += [self.written_before(layer, "mlp")] * self.has_mlp
        return torch.tensor([*counts, self.n_sources])

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            names += [f"m{layer}"] * self.has_mlp
        return tuple(names)

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names of the destinations."""
        kv = "h" if self.n_kv == self.n_heads else "g"
        names: list[str] = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.n_heads)]
            names += [f"a{layer}.{kv}{i}<{which}>" for which in "kv" for i in range(self.n_kv)]
            names += [f"m{layer}"] * self.has_mlp
        return (*names, "logits")

    @cached_property
    def across(self) -> Tensor:
        """Which destinations read other positions than their own, the keys and values: bool ``[n_destinations]``."""
        out = torch.zeros(self.n_destinations, dtype=torch.bool)
        for layer in range(self.n_layers):
            out[self.reads_at(layer, "k")] = True
            out[self.reads_at(layer, "v")] = True
        return out
