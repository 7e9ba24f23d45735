"""The component graph: what is scored, chosen and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor

from sparse_circuits.dictionary import Dictionaries, load_dictionaries
from sparse_circuits.errors import InputError
from sparse_circuits.graph.components import Components
from sparse_circuits.graph.features import FeatureGraph, said_of_positions
from sparse_circuits.model.anatomy import Anatomy

KV = Literal["per_group", "per_query_head"]
Level = Literal["edges", "nodes", "outputs", "neurons"]
LEVELS: tuple[str, ...] = get_args(Level)


@dataclass(frozen=True)
class Graph(Components):
    """All nodes and edges of a model, under EAP-IG's names.

    A *source* writes into the residual stream: ``input``, heads ``a{layer}.h{head}``, MLPs ``m{layer}``. A *destination*
    reads from it: a head's ``a0.h1<q>``, ``<k>``, ``<v>``, an MLP ``m0``, ``logits``. There is an edge
    ``source->destination`` wherever the source is written before the destination reads.

    Under grouped-query attention, keys and values are destinations of a group, ``a0.g1<k>``; with
    ``kv="per_query_head"`` each query head has its own, ``a0.h2<k>``, as in EAP-IG. In a gradient method's scores
    those sum to the group's.

    ``level`` says what is scored and chosen, and so the shape of every matrix over the graph (``shape``):

    - ``"edges"``: edges, ``[n_sources, n_destinations]``.
    - ``"nodes"``: sources, ``[n_sources]``.
    - ``"outputs"``: each dimension of what a source writes, ``a0.h1.d5``: ``[n_sources * d_model]``.
    - ``"neurons"``: MLPs' hidden units ``m0.n17`` (after the activation and gate) and heads' dimensions ``a0.h1.n5`` (of z);
      the input is one unit.

    With ``positions``, everything stands once per position or named span, ``m0@3``, ``a1.h2<k>@subject``, one after the
    other. The position of a destination is that of the node that it belongs to. A query, an MLP and the logits read only
    their own position; a head at position j reads keys and values of every position that it sees, so
    ``m0@3->a1.h2<k>@7`` is how m0 at position 3 reaches, through the keys, what head a1.h2 writes at position 7
    (Haklay et al. 2025, arXiv:2502.04577).
    """

    level: Level = "edges"
    d_model: int = 0
    d_head: int = 0
    d_mlp: int = 0
    positions: tuple[str, ...] = ()
    causal: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(self.positions))

    @overload
    @classmethod
    def of(cls, model: Any, dictionaries: None = None, *, kv: KV = "per_group", level: Level = "edges") -> Graph: ...

    @overload
    @classmethod
    def of(cls, model: Any, dictionaries: Mapping[Any, Any], *, whole: str | Sequence[str] = ()) -> FeatureGraph: ...

    @classmethod
    def of(
        cls,
        model: Any,
        dictionaries: Mapping[Any, Any] | None = None,
        *,
        kv: KV = "per_group",
        level: Level = "edges",
        whole: str | Sequence[str] = (),
    ) -> Graph | FeatureGraph:
        """The graph of a TransformerLens model; with dictionaries, of its features.

        Args:
            dictionaries: what :func:`sparse_circuits.load_dictionaries` returns, or takes as a mapping: nodes are then features
                and error terms, see :class:`FeatureGraph`.
            kv: whether keys and values are destinations of a group or of each query head.
            level: what is scored and chosen, without dictionaries.
            whole: sites that become whole nodes beside the features: names or kinds, ``("attn", "mlp_0")``; ``"z"`` for single
                heads.

        Raises:
            InputError: for an unknown ``kv``, ``level`` or site. UnsupportedModelError: for a model that the library cannot be
                right about.
        """
        from sparse_circuits.model import anatomy_of

        anatomy = anatomy_of(model)
        if dictionaries is None and not whole:
            return cls.of_anatomy(anatomy, kv=kv, level=level)
        if level != "edges" or kv != "per_group":
            raise InputError("Graph.of(kv=..., level=...): these are for graphs without dictionaries; leave them out.")
        loaded = dictionaries or {}
        if not isinstance(loaded, Dictionaries):
            loaded = load_dictionaries(loaded, model) if loaded else {}
        return FeatureGraph.of_anatomy(anatomy, loaded, whole)

    @classmethod
    def of_anatomy(cls, anatomy: Anatomy, *, kv: KV = "per_group", level: Level = "edges") -> Graph:
        """The graph of a model already taken apart."""
        if kv not in ("per_group", "per_query_head"):
            raise InputError(f"Graph.of(kv={kv!r}): expected 'per_group' or 'per_query_head'.")
        if level not in LEVELS:
            raise InputError(f"Graph.of(level={level!r}): expected one of {', '.join(map(repr, LEVELS))}.")
        first = anatomy.blocks[0]
        heads, groups = first.attention.n_heads, first.attention.n_groups
        units = level == "neurons"
        return cls(
            n_layers=len(anatomy.blocks),
            n_heads=heads,
            n_kv=heads if kv == "per_query_head" else groups,
            has_mlp=first.mlp is not None,
            parallel=first.parallel,
            level=level,
            d_model=anatomy.d_model if level == "outputs" else 0,
            d_head=first.attention.W_O.shape[1] if units else 0,
            d_mlp=first.mlp.d_mlp if units and first.mlp is not None else 0,
        )

    def at(self, positions: tuple[str, ...], causal: bool = False) -> Graph:
        """The same graph once per position or span.

        Args:
            positions: their names; none for the graph over all positions together.
            causal: whether these are single positions in order, and attention looks only back.
        """
        return replace(self, positions=positions, causal=causal and bool(positions))

    def check(self, anatomy: Anatomy) -> None:
        """
        Raises:
            InputError: if this is not a graph of that model.
        """
        own = Graph.of_anatomy(anatomy, level=self.level)
        if self.at(()) not in (own, Graph.of_anatomy(anatomy, kv="per_query_head", level=self.level)):
            raise InputError(f"The graph is of another model: it is {self}, but this model's is {own}.")

    @property
    def n_positions(self) -> int:
        """How often everything stands in the graph: once per position or span, or once."""
        return max(1, len(self.positions))

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes: the sources, and the logits, at each position."""
        return self._placed((*self.sources, "logits"))

    # --- what is scored and chosen at this level ---

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every matrix over the graph."""
        n = self.n_positions
        return (self.n_sources * n, self.n_destinations * n) if self.level == "edges" else (self.n_units * n,)

    @cached_property
    def mask(self) -> Tensor:
        """Which entries of such a matrix stand for something: bool ``shape``."""
        if self.level != "edges":
            return torch.ones(self.shape, dtype=torch.bool)
        pairs = torch.arange(self.n_sources)[:, None] < self.readable[None]
        if not self.positions:
            return pairs
        n = self.n_positions
        own = torch.eye(n, dtype=torch.bool)
        seen = torch.ones(n, n, dtype=torch.bool).triu() if self.causal else torch.ones(n, n, dtype=torch.bool)
        across = torch.where(self.across[:, None, None], seen, own)  # [destinations, from, to]
        return (pairs[:, None, :, None] & across.permute(1, 0, 2)).reshape(self.shape)

    @property
    def size(self) -> int:
        """How many there are to choose from: edges at the level of edges, nodes or units at the others."""
        return int(self.mask.sum()) if self.positions else int(self.readable.sum()) if self._wired else self.n_units

    @property
    def n_edges(self) -> int:
        """Number of edges, also at a level that does not choose among them."""
        return self.size if self._wired else int(self.readable.sum())

    @property
    def _wired(self) -> bool:
        return self.level == "edges"

    @property
    def units_per_head(self) -> int:
        """Parts that a head has at this level: d_model outputs, d_head neurons, or itself alone."""
        return {"edges": 1, "nodes": 1, "outputs": self.d_model, "neurons": self.d_head}[self.level]

    @property
    def units_per_mlp(self) -> int:
        """Parts that an MLP has at this level: d_model outputs, d_mlp neurons, or itself alone."""
        return {"edges": 1, "nodes": 1, "outputs": self.d_model, "neurons": self.d_mlp}[self.level]

    @property
    def units_of_input(self) -> int:
        """Parts that the input has at this level: d_model outputs, or itself alone."""
        return self.d_model if self.level == "outputs" else 1

    @property
    def n_units(self) -> int:
        """Number of nodes, or of their parts at this level, at one position."""
        per_layer = self.n_heads * self.units_per_head + self.has_mlp * self.units_per_mlp
        return self.units_of_input + self.n_layers * per_layer

    def units_at(self, layer: int, which: str) -> slice:
        """Units of a layer's heads ("heads"), one head after the other, or of its MLP ("mlp")."""
        heads = self.n_heads * self.units_per_head
        start = self.units_of_input + layer * (heads + self.has_mlp * self.units_per_mlp)
        return (
            slice(start, start + heads)
            if which == "heads"
            else slice(start + heads, start + heads + self.units_per_mlp)
        )

    @cached_property
    def owner(self) -> Tensor:
        """Per unit, the source that it is part of: ``[n_units]``."""
        counts = [self.units_of_input]
        for _ in range(self.n_layers):
            counts += [self.units_per_head] * self.n_heads + [self.units_per_mlp] * self.has_mlp
        return torch.arange(self.n_sources).repeat_interleave(torch.tensor(counts))

    # --- names ---

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Names along the first dimension: the sources or units, at each position."""
        if self.level in ("edges", "nodes"):
            return self._placed(self.sources)
        letter = "d" if self.level == "outputs" else "n"
        names: list[str] = [f"input.d{i}" for i in range(self.d_model)] if self.level == "outputs" else ["input"]
        for source in self.sources[1:]:
            count = self.units_per_mlp if source[0] == "m" else self.units_per_head
            names += [f"{source}.{letter}{i}" for i in range(count)]
        return self._placed(tuple(names))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names along the second dimension, at the level of edges: the destinations, at each position."""
        return self._placed(self.destinations)

    def _placed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{name}@{p}" for name in names for p in self.positions) if self.positions else names

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all that can be chosen, in order; made when first asked for and kept."""
        return tuple(self.names_of(self.mask))

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """All edges' names, by source and then destination; made when first asked for and kept."""
        return self.names if self._wired else replace(self, level="edges").names

    def names_of(self, mask: Tensor, order: Tensor | None = None) -> list[str]:
        """Names of the entries that are True, in order, or in that of a permutation of them."""
        at = mask.nonzero() if order is None else mask.nonzero()[order]
        if self._wired:
            rows, columns = self.rows, self.columns
            return [f"{rows[u]}->{columns[v]}" for u, v in at.tolist()]
        return [self.rows[i] for (i,) in at.tolist()]

    def edge_name(self, source: int, destination: int) -> str:
        """The name of an edge by its row and column."""
        return f"{self.rows[source]}->{self.columns[destination]}"

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.columns)}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.rows)}

    def index(self, name: str) -> tuple[int, ...]:
        """Where an edge, or a node or unit, stands.

        Raises:
            InputError: if the graph has no such edge or unit.
        """
        if self._wired:
            return self.edge_index(name)
        if name not in self._rows:
            raise InputError(f"The graph has no {self.thing} {name!r}; they are named like {self.rows[-1]!r}.")
        return (self._rows[name],)

    @property
    def thing(self) -> str:
        """What one entry is called."""
        return {"edges": "edge", "nodes": "node", "outputs": "output dimension", "neurons": "neuron"}[self.level]

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
        n = self.n_positions
        if u // n >= self.readable[v // n]:
            raise InputError(f"The graph has no edge {name!r}: {source} is written after {destination} has read.")
        if not self.mask[u, v]:
            raise InputError(f"The graph has no edge {name!r}: {destination} does not read that position.")
        return u, v

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_graph

        return of_graph(self)

    def __repr__(self) -> str:
        kv = "" if self.n_kv == self.n_heads else f" ({self.n_kv} of k and v)"
        mlp = "" if not self.has_mlp else " beside an MLP" if self.parallel else " and an MLP"
        at = f" at {said_of_positions(self.positions)}" if self.positions else ""
        return f"Graph({self.n_layers} layers of {self.n_heads} heads{kv}{mlp}: {self.size:,} {self.thing}s{at})"

    # --- a node's own destinations ---

    def owned(self, row: int) -> list[int]:
        """Columns through which a node reads: a head's q, k and v (its group's), an MLP's input; none for the input."""
        source, position = divmod(row, self.n_positions)
        if source == 0:
            return []
        layer, i = divmod(source - 1, self.sources_per_layer)
        if i == self.n_heads:
            found = [self.reads_at(layer, "mlp").start]
        else:
            group = i * self.n_kv // self.n_heads
            found = [
                self.reads_at(layer, "q").start + i,
                self.reads_at(layer, "k").start + group,
                self.reads_at(layer, "v").start + group,
            ]
        return [destination * self.n_positions + position for destination in found]

    @cached_property
    def unshared(self) -> Tensor:
        """Which columns belong to a single node: bool; not the k and v of a group of several heads."""
        shared = self.across if self.n_kv != self.n_heads else torch.zeros_like(self.across)
        return ~shared.repeat_interleave(self.n_positions)

    def by_owner(self, columns: Tensor) -> Tensor:
        """Per row, whether any of the columns that it owns is marked: bool."""
        columns = columns.view(self.n_destinations, -1)
        marked = columns.new_zeros(self.n_sources, columns.shape[1])
        group = torch.arange(self.n_heads) * self.n_kv // self.n_heads
        for layer in range(self.n_layers):
            q, k, v = (columns[self.reads_at(layer, which)] for which in "qkv")
            marked[self.heads_at(layer)] = q | k[group] | v[group]
            if self.has_mlp:
                marked[self.mlp_at(layer)] = columns[self.reads_at(layer, "mlp")][0]
        return marked.flatten()

    def to_owned(self, rows: Tensor) -> Tensor:
        """The columns that marked rows own, and the logits: bool."""
        rows = rows.view(self.n_sources, -1)
        columns = rows.new_zeros(self.n_destinations, rows.shape[1])
        for layer in range(self.n_layers):
            heads = rows[self.heads_at(layer)]
            columns[self.reads_at(layer, "q")] = heads
            groups = heads.unflatten(0, (self.n_kv, -1)).any(1)
            columns[self.reads_at(layer, "k")] = groups
            columns[self.reads_at(layer, "v")] = groups
            if self.has_mlp:
                columns[self.reads_at(layer, "mlp")] = rows[self.mlp_at(layer)]
        columns[-1] = True
        return columns.flatten()

    def prune(self, chosen: Tensor) -> Tensor:
        """Remove what dangles: nodes without an incoming or an outgoing edge, and their edges, until nothing changes.

        A head keeps what it has of q, k and v inputs; the input node needs no incoming edge and the logits no outgoing one.
        At the other levels nothing dangles: every node of a circuit reads from and writes to all others.
        """
        chosen = chosen.clone()
        if not self._wired:
            return chosen
        while True:
            alive = chosen.any(1) & self.by_owner(chosen.any(0))
            alive[: self.n_positions] = True
            pruned = chosen & alive[:, None] & self.to_owned(alive)[None]
            if torch.equal(pruned, chosen):
                return chosen
            chosen = pruned
