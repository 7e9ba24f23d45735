"""The circuit: a set of a graph's edges (or nodes or units), their scores, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.circuit.files import kind_of, pack_circuit, read, unpack_chosen, unpack_components, write
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some of a graph's edges, or of its nodes or units at those levels; what views, files and evaluation take.

    Attributes:
        graph: the graph.
        mask: bool, of the graph's shape: what is in.
        values: float32, their scores; 0 elsewhere, or None where the circuit has no scores.
        provenance: model, task, method, selection and so on.
    """

    graph: Graph
    mask: Tensor
    values: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, names: Iterable[str] | Mapping[str, float], **provenance: Any) -> Circuit:
        """A circuit from names of edges (at other levels of nodes or units), or from names with scores.

        Dangling parts stay; see :meth:`pruned`.

        Raises:
            InputError: for a name that the graph does not have.
        """
        mask = torch.zeros(graph.shape, dtype=torch.bool)
        values = torch.zeros(graph.shape)
        for name in names:
            at = graph.index(name)
            mask[at] = True
            values[at] = names[name] if isinstance(names, Mapping) else 0.0
        return cls(graph, mask, values if isinstance(names, Mapping) else None, provenance)

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """Everything: the model itself."""
        return cls(graph, graph.mask.clone())

    @property
    def size(self) -> int:
        """How many edges were chosen; at other levels how many nodes or units."""
        return int(self.mask.sum())

    @property
    def n_edges(self) -> int:
        """Number of edges; at other levels, of those between its nodes."""
        return int((self.mask if self.graph.level == "edges" else self._between).sum())

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of what was chosen, strongest first where there are scores."""
        order = None if self.values is None else self.values[self.mask].abs().argsort(descending=True, stable=True)
        return tuple(self.graph.names_of(self.mask, order))

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges, strongest first where there are scores; at other levels all edges between its nodes."""
        if self.graph.level == "edges":
            return self.names
        return tuple(replace(self.graph, level="edges").names_of(self._between))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes with an edge (at other levels, with a unit), in the model's order.

        An edge into keys or values that several heads share makes a node of none of them, unless none of them is one.
        """
        graph = self.graph
        if graph.level != "edges":
            names = [name for name, there in zip(graph.nodes, self._present.tolist(), strict=False) if there]
            return (*names, *graph.nodes[len(self._present) :]) if names else ()
        read = self.mask.any(0)
        present = self.mask.any(1) | graph.by_owner(read & graph.unshared)
        shared = graph.by_owner(read & ~graph.unshared)
        width = graph.n_positions
        for heads in map(graph.heads_at, range(graph.n_layers)):
            here = slice(heads.start * width, heads.stop * width)
            of_groups = present[here].view(graph.n_kv, -1, width)
            lone = shared[here].view(of_groups.shape) & ~of_groups.any(1, keepdim=True)
            present[here] |= lone.flatten()
        logits = self.mask[:, -width:].any(0)
        there = torch.cat([present, logits]).tolist()
        return tuple(name for name, present in zip(graph.nodes, there, strict=True) if present)

    @property
    def _present(self) -> Tensor:
        """At a level without edges: which nodes have a unit in the circuit, at each position."""
        graph, width = self.graph, self.graph.n_positions
        owners = (graph.owner[:, None] * width + torch.arange(width)).flatten()
        return torch.zeros(graph.n_sources * width, dtype=torch.bool).index_put(
            (owners[self.mask],), torch.tensor(True)
        )

    @property
    def _between(self) -> Tensor:
        """At a level without edges: the edges between its nodes."""
        edges = replace(self.graph, level="edges")
        return edges.mask & self._present[:, None] & edges.to_owned(self._present)[None]

    def to_dict(self) -> dict[str, float]:
        """The scores of what was chosen by name, strongest first.

        Raises:
            InputError: if the circuit has no scores.
        """
        if self.values is None:
            raise InputError("This circuit has no scores; it was made from names.")
        values = self.values[self.mask]
        values = values[values.abs().argsort(descending=True, stable=True)]
        return dict(zip(self.names, values.tolist(), strict=True))

    @property
    def signs(self) -> tuple[float, float]:
        """Share of what was chosen that scores negative (carries the behaviour), and positive (works against it).

        Raises:
            InputError: if the circuit has no scores.
        """
        values = torch.tensor(list(self.to_dict().values()))
        return tuple(float(share.float().mean()) if len(values) else 0.0 for share in (values < 0, values > 0))  # pyright: ignore[reportReturnType]

    def pruned(self) -> Circuit:
        """Without what dangles: nodes that nothing reaches, or that reach nothing."""
        return self._with(self.graph.prune(self.mask))

    def complement(self) -> Circuit:
        """All that is not in it, not pruned: what completeness runs."""
        return Circuit(self.graph, self.graph.mask & ~self.mask, None, {**self.provenance, "complement": True})

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically."""
        return write(Path(path), "circuit", *pack_circuit(self))

    @classmethod
    def load(cls, path: str | Path, dictionaries: Mapping[str, Any] | None = None) -> Circuit | FeatureCircuit:
        """A circuit from a file; a :class:`FeatureCircuit` where it holds one.

        Args:
            dictionaries: what a feature circuit's graph refers to; a file holds only what they were loaded as.

        Raises:
            FileFormatError: for a file that is damaged or holds something else. InputError: for other dictionaries.
        """
        if kind_of(Path(path)) == "feature_circuit":
            return FeatureCircuit.load(path, dictionaries)
        header, tensors = read(Path(path), "circuit")
        graph = unpack_components(Path(path), header["graph"])
        mask, values = unpack_chosen(Path(path), graph, tensors)
        return cls(graph, mask, values, header["provenance"])

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw it; see :func:`sparse_circuits.view.picture.draw_circuit`."""
        from sparse_circuits.view.picture import draw_circuit

        return draw_circuit(self, path, **options)

    def explore(self, path: str | Path | None = None, **options: Any) -> Any:
        """A page to explore it in; see :func:`sparse_circuits.view.explorer.explore`."""
        from sparse_circuits.view.explorer import explore

        return explore(self, path, **options)

    def to_dot(self) -> str:
        """Graphviz text; see :func:`sparse_circuits.view.dot.to_dot`."""
        from sparse_circuits.view.dot import to_dot

        return to_dot(self)

    def to_networkx(self) -> Any:
        """A ``networkx.MultiDiGraph``; see :mod:`sparse_circuits.circuit.formats.networks`."""
        from sparse_circuits.circuit.formats.networks import to_networkx

        return to_networkx(self)

    @staticmethod
    def from_networkx(graph: Any) -> Circuit | FeatureCircuit:
        """The circuit of a graph that :meth:`to_networkx` made, less the nodes and edges that were removed from it.

        Raises:
            InputError: for any other graph.
        """
        from sparse_circuits.circuit.formats.networks import from_networkx

        return from_networkx(graph)

    def to_graphml(self, path: str | Path) -> Path:
        """Write GraphML; see :mod:`sparse_circuits.circuit.formats.networks`."""
        from sparse_circuits.circuit.formats.networks import write_graphml

        return write_graphml(self, path)

    @staticmethod
    def from_graphml(path: str | Path) -> Circuit | FeatureCircuit:
        """The circuit in a file that :meth:`to_graphml` wrote.

        Raises:
            InputError: if there is no such file. FileFormatError: if it is not such a file.
        """
        from sparse_circuits.circuit.formats.networks import read_graphml

        return read_graphml(path)

    def to_attribution_graph(self, path: str | Path, model: Any = None, task: Any = None, **options: Any) -> Path:
        """Write it as Neuronpedia and circuit-tracer's page show it; see :meth:`AttributionGraph.of` for the arguments."""
        from sparse_circuits.circuit.formats.attribution_graph.graph import AttributionGraph

        return AttributionGraph.of(self, model, task, **options).save(path)

    def to_eap_ig(self, path: str | Path, *, d_model: int | None = None, negate: bool = False) -> Path:
        """Write EAP-IG's JSON or ``.pt``; see :func:`sparse_circuits.circuit.formats.eap_ig.write_eap_ig`."""
        from sparse_circuits.circuit.formats.eap_ig import write_eap_ig

        return write_eap_ig(path, self, d_model=d_model, negate=negate)

    @classmethod
    def from_eap_ig(cls, path: str | Path, graph: Graph | None = None, *, negate: bool = False) -> Circuit:
        """The circuit in EAP-IG's JSON or ``.pt``, without scores where all of the file's are 0.

        Args:
            graph: the graph that it must be of; by default any, at the level that the file is of.
            negate: turn the signs around; see :mod:`sparse_circuits.circuit.formats.eap_ig`.

        Raises:
            InputError: if there is no such file, or it is of another graph. FileFormatError: if it is not such a file.
        """
        from sparse_circuits.circuit.formats.eap_ig import read_eap_ig

        found, mask, values, about = read_eap_ig(path, graph, negate=negate)
        return cls(found, mask, None if values is None else torch.where(mask, values, 0.0), about)

    def _with(self, mask: Tensor) -> Circuit:
        return Circuit(self.graph, mask, None if self.values is None else self.values * mask, self.provenance)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_circuit

        return of_circuit(self)

    def __repr__(self) -> str:
        from sparse_circuits.view.naming import asked_for, made_of

        of = f"{self.size:,} of {self.graph.size:,} {self.graph.thing}s"
        of += "" if self.graph.level == "nodes" else f", {self.n_nodes:,} nodes"
        return f"Circuit({of}{asked_for(self)}{made_of(self.provenance)})"
