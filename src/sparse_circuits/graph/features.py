"""The feature graph: features, error terms and whole sites as nodes, and which of them reach which directly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.graph.places import Place, places_of
from sparse_circuits.model.anatomy import Anatomy

LOGITS = "logits"


def said_of_positions(positions: tuple[str, ...]) -> str:
    """How many, and the first few."""
    more = ", ..." if len(positions) > 3 else ""
    return f"{len(positions)} positions ({', '.join(map(repr, positions[:3]))}{more})"


@dataclass(frozen=True)
class Reach:
    """Which places a place reads directly: on paths that cross no other place.

    Attributes:
        parents: their numbers.
        local: whether no attention lies on any of these paths, so that each position reads only itself.
    """

    parents: tuple[int, ...]
    local: bool


@dataclass(frozen=True)
class FeatureGraph:
    """What a feature circuit is found in: the nodes of some sites, cut at every one of them.

    Nodes are numbered place after place; with positions each stands once per position, one after the other; the last
    number of all is the logits'. An edge goes from one node to another where a path between them crosses no other
    place: it is static, so that nothing is stored per edge.

    Attributes:
        places: sites with dictionaries, and sites and heads as whole nodes, in the order in which the model meets them.
        n_layers, d_model: of the model.
        parallel: whether attention and MLP of a block read the same stream.
        positions: names of positions or spans that are told apart, or none.
    """

    places: tuple[Place, ...]
    n_layers: int
    d_model: int
    parallel: bool = False
    positions: tuple[str, ...] = ()

    thing = "node"
    level = "features"

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))
        object.__setattr__(self, "positions", tuple(self.positions))

    @classmethod
    def of_anatomy(
        cls, anatomy: Anatomy, dictionaries: Mapping[str, Dictionary], whole: str | Sequence[str] = ()
    ) -> FeatureGraph:
        """The graph of a model already taken apart; see :meth:`Graph.of`."""
        places = places_of(anatomy, dictionaries, whole)
        return cls(places, len(anatomy.blocks), anatomy.d_model, anatomy.blocks[0].parallel)

    def at(self, positions: tuple[str, ...]) -> FeatureGraph:
        """The same graph once per position or span; none for all positions together."""
        return replace(self, positions=positions)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_feature_graph

        return of_feature_graph(self)

    def __repr__(self) -> str:
        names = [place.name for place in self.places]
        sites = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]}"
        at = f" at {said_of_positions(self.positions)}" if self.positions else ""
        return f"FeatureGraph({self.size:,} nodes of {sites}{at})"

    def check(self, anatomy: Anatomy) -> None:
        """
        Raises:
            InputError: if this is not a graph of that model.
        """
        own = (len(anatomy.blocks), anatomy.d_model, anatomy.blocks[0].parallel)
        if (self.n_layers, self.d_model, self.parallel) != own:
            raise InputError(
                f"The graph is of another model: it has {self.n_layers} layers of width {self.d_model}, this model {own[0]} of "
                f"width {own[1]}."
            )

    def with_dictionaries(self, dictionaries: Mapping[str, Dictionary]) -> FeatureGraph:
        """The graph with its places' dictionaries, as after loading.

        Raises:
            InputError: if one is missing, or is another one.
        """
        places = []
        for place in self.places:
            if not place.split:
                places.append(place)
                continue
            found = dictionaries.get(place.name)
            if found is not None and not isinstance(found, Dictionary):
                raise InputError(
                    f"dictionaries[{place.name!r}] is {type(found).__name__}; expected what load_dictionaries(..., model) "
                    "returns."
                )
            if found is None or found.n_features != place.n_features or found.id != place.dictionary_id:
                got = "none" if found is None else f"{found.id!r} with {found.n_features} features"
                raise InputError(
                    f"The circuit needs the dictionary {place.dictionary_id!r} with {place.n_features} features at "
                    f"{place.name}; got {got}."
                )
            places.append(replace(place, dictionary=found))
        return replace(self, places=tuple(places))

    def check_dictionaries(self, whose: str, remedy: str) -> None:
        """
        Raises:
            InputError: if a place lacks its dictionary, as after loading.
        """
        missing = next((place for place in self.places if place.split and place.dictionary is None), None)
        if missing is not None:
            raise InputError(f"{whose} lacks its dictionaries ({missing.name}: {missing.dictionary_id}); {remedy}")

    # --- numbers and names ---

    @property
    def n_positions(self) -> int:
        """How often every node stands in the graph: once per position or span, or once."""
        return max(1, len(self.positions))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each place's nodes start, counted at one position; the last is the number of all."""
        return (0, *accumulate(place.size for place in self.places))

    @property
    def size(self) -> int:
        """Number of nodes, the logits not counted."""
        return self.offsets[-1] * self.n_positions

    @property
    def logits(self) -> int:
        """The number of the logits."""
        return self.size

    def place_of(self, node: int) -> int:
        """The number of a node's place."""
        return bisect_right(self.offsets, node // self.n_positions) - 1

    def places_of(self, nodes: Tensor) -> Tensor:
        """The same for many nodes; the logits count as one place more."""
        bounds = torch.tensor(self.offsets[1:], device=nodes.device) * self.n_positions
        return torch.bucketize(nodes, bounds, right=True)

    def nodes_of(self, place: int) -> slice:
        """The numbers of a place's nodes."""
        return slice(self.offsets[place] * self.n_positions, self.offsets[place + 1] * self.n_positions)

    def name_of(self, node: int) -> str:
        """A node's name by its number: ``resid_3.f217``, ``attn_1.error@7``, ``logits``."""
        if node == self.logits:
            return LOGITS
        at, position = divmod(node, self.n_positions)
        place = self.place_of(node)
        name = self.places[place].node(at - self.offsets[place])
        return f"{name}@{self.positions[position]}" if self.positions else name

    def index(self, name: str) -> int:
        """A node's number.

        Raises:
            InputError: for a name that no node has.
        """
        if name == LOGITS:
            return self.logits
        node, _, position = name.partition("@")
        site, _, part = node.partition(".")
        place, local = self._wholes.get(node, (self._splits.get(site), None))
        if place is not None and local is None:
            features = self.places[place].n_features
            if part == "error":
                local = features
            elif part[:1] == "f" and part[1:].isdecimal() and int(part[1:]) < features:
                local = int(part[1:])
        at = self._positions.get(position) if self.positions else (None if position else 0)
        if place is None or local is None or at is None:
            raise InputError(f"The graph has no node {name!r}; nodes are named like {self.name_of(0)!r}.")
        return (self.offsets[place] + local) * self.n_positions + at

    @cached_property
    def _splits(self) -> dict[str, int]:
        return {place.name: i for i, place in enumerate(self.places) if place.split}

    @cached_property
    def _wholes(self) -> dict[str, tuple[int, int]]:
        wholes = [(i, place) for i, place in enumerate(self.places) if not place.split]
        return {name: (i, local) for i, place in wholes for local, name in enumerate(place.names)}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.positions)}

    @property
    def nodes(self) -> Iterator[str]:
        """All nodes' names, the logits last. There may be millions."""
        return map(self.name_of, range(self.size + 1))

    @property
    def errors(self) -> Tensor:
        """The numbers of all error terms: int64."""
        width = self.n_positions
        starts = [self.offsets[i] + place.n_features for i, place in enumerate(self.places) if place.split]
        return (torch.tensor(starts, dtype=torch.int64)[:, None] * width + torch.arange(width)).flatten()

    # --- who reads whom ---

    @cached_property
    def reach(self) -> tuple[Reach, ...]:
        """Per place, and for the logits at the end, what is read directly."""
        found: list[Reach] = []
        at = {(place.site.kind, place.site.layer): i for i, place in enumerate(self.places)}
        stream: dict[
            int, bool
        ] = {}  # what is in the stream, and whether attention mixed positions since it was written

        def cut(kind: str, layer: int, reads: dict[int, bool]) -> dict[int, bool]:
            """What goes on from a site: its own place where there is one, or what it was made from."""
            place = at.get((kind, layer))
            if place is None:
                return reads
            found.append(Reach(tuple(sorted(reads)), not any(reads.values())))
            return {place: False}

        def joined(*parts: dict[int, bool]) -> dict[int, bool]:
            return {u: any(part.get(u, False) for part in parts) for part in parts for u in part}

        stream = cut("resid_pre", 0, cut("embed", 0, stream))
        for layer in range(self.n_layers):
            attended = cut("attn", layer, cut("z", layer, dict.fromkeys(stream, True)))
            after = cut("resid_mid", layer, joined(stream, attended))
            read = stream if self.parallel else after
            written = cut("mlp", layer, read)
            if ("transcoder", layer) in at:
                skips = self.places[at["transcoder", layer]].skips
                written = joined(cut("transcoder", layer, read), read if skips else {})
            stream = cut("resid", layer, joined(after, written))
        found.append(Reach(tuple(sorted(stream)), not any(stream.values())))
        return tuple(found)
