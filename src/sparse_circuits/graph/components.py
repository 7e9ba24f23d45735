"""The component graph: input, attention heads (with their q, k and v inputs), MLPs, logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy

KV = Literal["per_group", "per_query_head"]


@dataclass(frozen=True)
class Graph:
    """All nodes and edges of a model, under EAP-IG's names.

    A *source* writes into the residual stream: ``input``, heads ``a{layer}.h{head}``, MLPs ``m{layer}``. A *destination*
    reads from it: a head's ``a0.h1<q>``, ``<k>``, ``<v>``, an MLP ``m0``, ``logits``. There is an edge
    ``source->destination`` wherever the source is written before the destination reads. Matrices over the graph are
    ``[n_sources, n_destinations]``.

    Under grouped-query attention, keys and values are destinations of a group, ``a0.g1<k>``; with
    ``kv="per_query_head"`` each query head has its own, ``a0.h2<k>``, as in EAP-IG. In a gradient method's scores
    those sum to the group's.
    """

    n_layers: int
    n_heads: int
    n_kv: int
    has_mlp: bool = True
    parallel: bool = False

    @classmethod
    def of(cls, model: Any, *, kv: KV = "per_group") -> Graph:
        """The graph of a TransformerLens model.

        Raises:
            InputError: for an unknown ``kv``. UnsupportedModelError: for a model that the library cannot be right about.
        """
        from sparse_circuits.model import anatomy_of

        return cls.of_anatomy(anatomy_of(model), kv=kv)

    @classmethod
    def of_anatomy(cls, anatomy: Anatomy, *, kv: KV = "per_group") -> Graph:
        """The graph of a model already taken apart."""
        if kv not in ("per_group", "per_query_head"):
            raise InputError(f"Graph.of(kv={kv!r}): expected 'per_group' or 'per_query_head'.")
        first = anatomy.blocks[0]
        heads, groups = first.attention.n_heads, first.attention.n_groups
        return cls(
            n_layers=len(anatomy.blocks),
            n_heads=heads,
            n_kv=heads if kv == "per_query_head" else groups,
            has_mlp=first.mlp is not None,
            parallel=first.parallel,
        )

    def check(self, anatomy: Anatomy) -> None:
        """
        Raises:
            InputError: if this is not a graph of that model.
        """
        own = Graph.of_anatomy(anatomy)
        if self not in (own, Graph.of_anatomy(anatomy, kv="per_query_head")):
            raise InputError(f"The graph is of another model: it is {self}, but this model's is {own}.")

    # --- layout of the matrices: sources and destinations, layer after layer ---

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
        """Rows of a layer's heads."""
        start = 1 + layer * self.sources_per_layer
        return slice(start, start + self.n_heads)

    def mlp_at(self, layer: int) -> int:
        """Row of a layer's MLP."""
        return 1 + layer * self.sources_per_layer + self.n_heads

    def reads_at(self, layer: int, which: str) -> slice:
        """Columns of a layer's destinations of one kind: "q", "k", "v" or "mlp"."""
        start = layer * self.destinations_per_layer
        sizes = {"q": self.n_heads, "k": self.n_kv, "v": self.n_kv, "mlp": int(self.has_mlp)}
        for kind, size in sizes.items():
            if kind == which:
                return slice(start, start + size)
            start += size
        raise KeyError(which)

    def written_before(self, layer: int, which: str) -> int:
        """How many sources are written before a destination of that layer reads: its edges come from that many first rows."""
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
    def mask(self) -> Tensor:
        """Which pairs are edges: bool ``[n_sources, n_destinations]``."""
        return torch.arange(self.n_sources)[:, None] < self.readable[None]

    @property
    def n_edges(self) -> int:
        return int(self.readable.sum())

    # --- names ---

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the rows."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            names += [f"m{layer}"] * self.has_mlp
        return tuple(names)

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names of the columns."""
        kv = "h" if self.n_kv == self.n_heads else "g"
        names: list[str] = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.n_heads)]
            names += [f"a{layer}.{kv}{i}<{which}>" for which in "kv" for i in range(self.n_kv)]
            names += [f"m{layer}"] * self.has_mlp
        return (*names, "logits")

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes: the sources, and the logits."""
        return (*self.sources, "logits")

    @property
    def edges(self) -> Iterator[str]:
        """All edges' names, by source and then destination."""
        return (self.edge_name(u, v) for u, v in self.mask.nonzero().tolist())

    def edge_name(self, source: int, destination: int) -> str:
        return f"{self.sources[source]}->{self.destinations[destination]}"

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.destinations)}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.sources)}

    def edge_index(self, name: str) -> tuple[int, int]:
        """Row and column of an edge.

        Raises:
            InputError: if the graph has no such edge.
        """
        source, _, destination = name.partition("->")
        if source not in self._rows or destination not in self._columns:
            example = self.edge_name(0, 0)
            raise InputError(f"The graph has no edge {name!r}; edges are named like {example!r}.")
        u, v = self._rows[source], self._columns[destination]
        if u >= self.readable[v]:
            raise InputError(f"The graph has no edge {name!r}: {source} is written after {destination} has read.")
        return u, v

    # --- a node's own destinations ---

    def owned(self, source: int) -> list[int]:
        """Columns through which a source reads: a head's q, k and v (its group's), an MLP's input; none for the input."""
        if source == 0:
            return []
        layer, i = divmod(source - 1, self.sources_per_layer)
        if i == self.n_heads:
            return [self.reads_at(layer, "mlp").start]
        group = i * self.n_kv // self.n_heads
        return [
            self.reads_at(layer, "q").start + i,
            self.reads_at(layer, "k").start + group,
            self.reads_at(layer, "v").start + group,
        ]

    @cached_property
    def unshared(self) -> Tensor:
        """Which destinations belong to a single node: bool ``[n_destinations]``; not the k and v of a group of several heads."""
        single = torch.ones(self.n_destinations, dtype=torch.bool)
        if self.n_kv != self.n_heads:
            for layer in range(self.n_layers):
                single[self.reads_at(layer, "k")] = False
                single[self.reads_at(layer, "v")] = False
        return single

    def by_owner(self, columns: Tensor) -> Tensor:
        """Per source, whether any of the destinations that it owns is marked: bool ``[n_destinations]`` to ``[n_sources]``."""
        marked = columns.new_zeros(self.n_sources)
        group = torch.arange(self.n_heads) * self.n_kv // self.n_heads
        for layer in range(self.n_layers):
            q, k, v = (columns[self.reads_at(layer, which)] for which in "qkv")
            marked[self.heads_at(layer)] = q | k[group] | v[group]
            if self.has_mlp:
                marked[self.mlp_at(layer)] = columns[self.reads_at(layer, "mlp")][0]
        return marked

    def to_owned(self, rows: Tensor) -> Tensor:
        """The destinations that marked sources own, and the logits: bool ``[n_sources]`` to ``[n_destinations]``."""
        columns = rows.new_zeros(self.n_destinations)
        for layer in range(self.n_layers):
            heads = rows[self.heads_at(layer)]
            columns[self.reads_at(layer, "q")] = heads
            groups = heads.view(self.n_kv, -1).any(1)
            columns[self.reads_at(layer, "k")] = groups
            columns[self.reads_at(layer, "v")] = groups
            if self.has_mlp:
                columns[self.reads_at(layer, "mlp")] = rows[self.mlp_at(layer)]
        columns[-1] = True
        return columns

    def prune(self, edges: Tensor) -> Tensor:
        """Remove what dangles: nodes without an incoming or an outgoing edge, and their edges, until nothing changes.

        A head keeps what it has of q, k and v inputs; the input node needs no incoming edge and the logits no outgoing one.
        """
        edges = edges.clone()
        while True:
            alive = edges.any(1) & self.by_owner(edges.any(0))
            alive[0] = True
            pruned = edges & alive[:, None] & self.to_owned(alive)[None]
            if torch.equal(pruned, edges):
                return edges
            edges = pruned
