"""A feature circuit: some nodes of a feature graph and the edges between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.files import pack_graph, read, unpack_graph, write
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph.features import FeatureGraph


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Edges by the numbers of their ends, without repetitions: int64 ``[edges]`` each, and float32 values."""

    sources: Tensor
    targets: Tensor
    values: Tensor

    @classmethod
    def empty(cls) -> EdgeList:
        return cls(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: Tensor) -> EdgeList:
        return EdgeList(self.sources[which], self.targets[which], self.values[which])

    def names(self, graph: FeatureGraph) -> list[str]:
        """``"attn_2.f5->resid_2.f9"``, in order."""
        ends = zip(self.sources.tolist(), self.targets.tolist(), strict=True)
        return [f"{graph.name_of(u)}->{graph.name_of(d)}" for u, d in ends]


@dataclass(frozen=True, eq=False)
class FeatureCircuit:
    """Some of a feature graph's nodes, and edges between them; what views, files and evaluation take.

    It is evaluated by its nodes; edges do not enter.

    Attributes:
        graph: the graph; it refers to the dictionaries, which a loaded circuit gets back with ``load(path, dictionaries=...)``.
        node_ids: numbers of the nodes in the graph, ascending; the logits are not among them.
        node_values: their scores, or None.
        edge_list: edges between them, and into the logits.
        provenance: model, task, method, selection and so on.
    """

    graph: FeatureGraph
    node_ids: Tensor
    node_values: Tensor | None = None
    edge_list: EdgeList = field(default_factory=EdgeList.empty)
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: FeatureGraph, names: Iterable[str] | Mapping[str, float], **provenance: Any) -> FeatureCircuit:
        """A circuit without edges from names of nodes, or from names with scores.

        Raises:
            InputError: for a name that the graph does not have.
        """
        listed = list(names)
        ids = torch.tensor([graph.index(name) for name in listed], dtype=torch.int64)
        if bool((ids == graph.logits).any()):
            raise InputError("The logits are in every circuit; leave 'logits' out of the names.")
        ids, where = ids.unique(return_inverse=True)
        values = None
        if isinstance(names, Mapping):
            values = torch.zeros(len(ids)).index_copy_(0, where, torch.tensor([float(names[name]) for name in listed]))
        return cls(graph, ids, values, provenance=provenance)

    @property
    def size(self) -> int:
        """Number of nodes, the logits not counted."""
        return len(self.node_ids)

    @property
    def n_nodes(self) -> int:
        """The same as :attr:`size`."""
        return self.size

    @property
    def n_edges(self) -> int:
        """Number of edges between its nodes, and from them into the logits."""
        return len(self.edge_list)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes in the model's order, the logits left out."""
        return tuple(map(self.graph.name_of, self.node_ids.tolist()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, strongest first where there are scores."""
        return tuple(self.nodes[i] for i in self._order)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges, strongest first."""
        order = self.edge_list.values.abs().argsort(descending=True, stable=True)
        return tuple(self.edge_list[order].names(self.graph))

    @property
    def _order(self) -> list[int]:
        if self.node_values is None:
            return list(range(self.size))
        return self.node_values.abs().argsort(descending=True, stable=True).tolist()

    def to_dict(self, kind: str = "nodes") -> dict[str, float]:
        """The scores by name, strongest first.

        Args:
            kind: "nodes" or "edges".

        Raises:
            InputError: if the circuit's nodes have no scores.
        """
        if kind == "edges":
            values = self.edge_list.values
            return dict(
                zip(self.edges, values[values.abs().argsort(descending=True, stable=True)].tolist(), strict=True)
            )
        if kind != "nodes":
            raise InputError(f"to_dict({kind!r}): expected 'nodes' or 'edges'.")
        if self.node_values is None:
            raise InputError("This circuit has no scores; it was made from names.")
        return dict(zip(self.names, self.node_values[self._order].tolist(), strict=True))

    @property
    def signs(self) -> tuple[float, float]:
        """Share of the nodes that score negative (carry the behaviour), and positive (work against it).

        Raises:
            InputError: if the circuit has no scores.
        """
        values = torch.tensor(list(self.to_dict().values()))
        below, above = ((values < 0).float(), (values > 0).float())
        return (float(below.mean()), float(above.mean())) if len(values) else (0.0, 0.0)

    def pruned(self) -> FeatureCircuit:
        """Without what dangles: nodes from which no path of its edges leads to the logits.

        A node that no edge leads into stays: edges are only known into nodes above attribution's threshold, and where the
        first sites lie is a matter of the graph.
        """
        graph, edges = self.graph, self.edge_list
        ids = torch.cat([self.node_ids, torch.tensor([graph.logits])])
        known = torch.isin(edges.sources, self.node_ids) & torch.isin(edges.targets, ids)
        u, d = torch.searchsorted(ids, edges.sources[known]), torch.searchsorted(ids, edges.targets[known])
        alive = torch.zeros(len(ids), dtype=torch.bool)
        alive[-1] = True
        while True:
            reaching = alive.clone()
            reaching[u[alive[d]]] = True
            if bool((reaching == alive).all()):
                break
            alive = reaching
        kept = known.clone()
        kept[known] = alive[d]
        node_values = None if self.node_values is None else self.node_values[alive[:-1]]
        return FeatureCircuit(graph, self.node_ids[alive[:-1]], node_values, edges[kept], self.provenance)

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically. Dictionaries are not saved, only
        what they were loaded as.
        """
        edges = self.edge_list
        tensors = {
            "nodes": self.node_ids,
            "sources": edges.sources,
            "targets": edges.targets,
            "edge_scores": edges.values,
        }
        if self.node_values is not None:
            tensors["scores"] = self.node_values
        header = {"graph": pack_graph(self.graph), "provenance": self.provenance}
        return write(Path(path), "feature_circuit", header, tensors)

    @classmethod
    def load(cls, path: str | Path, dictionaries: Mapping[str, Any] | None = None) -> FeatureCircuit:
        """
        Args:
            dictionaries: what its graph refers to; without them it can be looked at but not evaluated.

        Raises:
            FileFormatError: for a file that is damaged or holds something else. InputError: for other dictionaries.
        """
        header, tensors = read(Path(path), "feature_circuit")
        graph = unpack_graph(Path(path), header["graph"])
        ids, values = tensors["nodes"], tensors.get("scores")
        edges = EdgeList(tensors["sources"], tensors["targets"], tensors["edge_scores"])
        check_read(Path(path), graph, ids, values, edges)
        if dictionaries is not None:
            graph = graph.with_dictionaries(dictionaries)
        return cls(graph, ids, values, edges, header["provenance"])

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw it; see :func:`sparse_circuits.view.feature_picture.draw_feature_circuit`."""
        from sparse_circuits.view.feature_picture import draw_feature_circuit

        return draw_feature_circuit(self, path, **options)

    def explore(self, path: str | Path | None = None, **options: Any) -> Any:
        """A page to explore it in; see :func:`sparse_circuits.view.explorer.explore`."""
        from sparse_circuits.view.explorer import explore

        return explore(self, path, **options)

    def to_dot(self) -> str:
        """Graphviz text; see :func:`sparse_circuits.view.feature_dot.to_feature_dot`."""
        from sparse_circuits.view.feature_dot import to_feature_dot

        return to_feature_dot(self)

    def to_networkx(self) -> Any:
        """A ``networkx.MultiDiGraph``, which :meth:`Circuit.from_networkx` reads back; see
        :mod:`sparse_circuits.circuit.formats.networks`.
        """
        from sparse_circuits.circuit.formats.networks import to_networkx

        return to_networkx(self)

    def to_graphml(self, path: str | Path) -> Path:
        """Write GraphML, which :meth:`Circuit.from_graphml` reads back; see
        :mod:`sparse_circuits.circuit.formats.networks`.
        """
        from sparse_circuits.circuit.formats.networks import write_graphml

        return write_graphml(self, path)

    def to_attribution_graph(self, path: str | Path, model: Any = None, task: Any = None, **options: Any) -> Path:
        """Write it as Neuronpedia and circuit-tracer's page show it; see :meth:`AttributionGraph.of` for the arguments."""
        from sparse_circuits.circuit.formats.attribution_graph.graph import AttributionGraph

        return AttributionGraph.of(self, model, task, **options).save(path)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_feature_circuit

        return of_feature_circuit(self)

    def __repr__(self) -> str:
        from sparse_circuits.view.naming import asked_for, made_of

        of = f"{self.size:,} of {self.graph.size:,} nodes, {self.n_edges:,} edges"
        return f"FeatureCircuit({of}{asked_for(self)}{made_of(self.provenance)})"


def check_read(path: Path, graph: FeatureGraph, nodes: Tensor, values: Tensor | None, edges: EdgeList | None) -> None:
    """
    Raises:
        FileFormatError: for numbers that a file's graph does not have, nodes that come twice or not in order, or not as many
            of something as there should be.
    """
    ends = [] if edges is None else [(edges.sources, graph.size), (edges.targets, graph.size + 1)]
    lists = [nodes, *([] if values is None else [values]), *([] if edges is None else [edges.values])]
    if any(numbers.ndim != 1 for numbers in [*lists, *(numbers for numbers, _ in ends)]):
        raise FileFormatError(f"{path}: its nodes or edges are no lists; the file is damaged.")
    for numbers, bound in [(nodes, graph.size), *ends]:
        if numbers.dtype != torch.int64 or bool(((numbers < 0) | (numbers >= bound)).any()):
            raise FileFormatError(f"{path}: holds nodes that its graph does not have; the file is damaged.")
    if bool((nodes[1:] <= nodes[:-1]).any()):
        raise FileFormatError(f"{path}: its nodes come twice or not in order; the file is damaged.")
    if edges is not None and not len(edges.sources) == len(edges.targets) == len(edges.values):
        raise FileFormatError(f"{path}: its edges lack ends or scores; the file is damaged.")
    if values is not None and len(values) != len(nodes):
        raise FileFormatError(f"{path}: has {len(values)} scores for {len(nodes)} nodes; the file is damaged.")
