"""The circuit: a set of a graph's edges, their scores, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.files import pack_circuit, read, unpack_edges, write
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some of a graph's edges; what views, files and evaluation take.

    Attributes:
        graph: the graph.
        mask: bool ``[n_sources, n_destinations]``, the edges that are in.
        values: float32, their scores; 0 elsewhere, or None where the circuit has no scores.
        provenance: model, task, method, selection and so on.
    """

    graph: Graph
    mask: Tensor
    values: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, edges: Iterable[str] | Mapping[str, float], **provenance: Any) -> Circuit:
        """A circuit from edge names, or from names with scores. Dangling parts stay; see :meth:`pruned`.

        Raises:
            InputError: for a name that the graph does not have.
        """
        mask = torch.zeros(graph.n_sources, graph.n_destinations, dtype=torch.bool)
        values = torch.zeros(mask.shape)
        for name in edges:
            at = graph.edge_index(name)
            mask[at] = True
            values[at] = edges[name] if isinstance(edges, Mapping) else 0.0
        return cls(graph, mask, values if isinstance(edges, Mapping) else None, provenance)

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """Every edge: the model itself."""
        return cls(graph, graph.mask.clone())

    @property
    def n_edges(self) -> int:
        return int(self.mask.sum())

    @property
    def n_nodes(self) -> int:
        return len(self.nodes)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges, strongest first where there are scores."""
        u, v = self.mask.nonzero(as_tuple=True)
        if self.values is not None:
            order = self.values[u, v].abs().argsort(descending=True, stable=True)
            u, v = u[order], v[order]
        return tuple(self.graph.edge_name(a, b) for a, b in zip(u.tolist(), v.tolist(), strict=True))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes with an edge, in the model's order.

        An edge into keys or values that several heads share makes a node of none of them, unless none of them is one.
        """
        graph, read = self.graph, self.mask.any(0)
        present = self.mask.any(1) | graph.by_owner(read & graph.unshared)
        shared = graph.by_owner(read & ~graph.unshared)
        for heads in map(graph.heads_at, range(graph.n_layers)):
            group_present = present[heads].view(graph.n_kv, -1).any(1, keepdim=True)
            present[heads] |= (shared[heads].view(graph.n_kv, -1) & ~group_present).flatten()
        names = [name for name, there in zip(self.graph.sources, present.tolist(), strict=True) if there]
        return (*names, "logits") if bool(self.mask[:, -1].any()) else tuple(names)

    def to_dict(self) -> dict[str, float]:
        """The edges' scores by name, strongest first.

        Raises:
            InputError: if the circuit has no scores.
        """
        if self.values is None:
            raise InputError("This circuit has no scores; it was made from edge names.")
        return {name: float(self.values[self.graph.edge_index(name)]) for name in self.edges}

    def pruned(self) -> Circuit:
        """Without what dangles: nodes that nothing reaches, or that reach nothing."""
        return self._with(self.graph.prune(self.mask))

    def complement(self) -> Circuit:
        """All other edges of the graph, not pruned: what completeness runs."""
        return Circuit(self.graph, self.graph.mask & ~self.mask, None, {**self.provenance, "complement": True})

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically."""
        return write(Path(path), "circuit", *pack_circuit(self))

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """
        Raises:
            FileFormatError: for a file that is damaged or holds something else.
        """
        header, tensors = read(Path(path), "circuit")
        graph = Graph(**header["graph"])
        mask, values = unpack_edges(Path(path), graph, tensors)
        return cls(graph, mask, values, header["provenance"])

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw it; see :func:`sparse_circuits.view.picture.draw_circuit`."""
        from sparse_circuits.view.picture import draw_circuit

        return draw_circuit(self, path, **options)

    def to_dot(self) -> str:
        """Graphviz text; see :func:`sparse_circuits.view.dot.to_dot`."""
        from sparse_circuits.view.dot import to_dot

        return to_dot(self)

    def to_eap_ig(self, path: str | Path, *, d_model: int | None = None, negate: bool = False) -> Path:
        """Write EAP-IG's JSON or ``.pt``; see :func:`sparse_circuits.circuit.eap_ig.write_eap_ig`."""
        from sparse_circuits.circuit.eap_ig import write_eap_ig

        return write_eap_ig(path, self, d_model=d_model, negate=negate)

    @classmethod
    def from_eap_ig(cls, path: str | Path, graph: Graph | None = None, *, negate: bool = False) -> Circuit:
        """The circuit in EAP-IG's JSON or ``.pt``, without scores where all of the file's are 0.

        Args:
            graph: the graph that it must be of; by default any.
            negate: turn the signs around; see :mod:`sparse_circuits.circuit.eap_ig`.

        Raises:
            InputError: if there is no such file, or it is of another graph. FileFormatError: if it is not such a file.
        """
        from sparse_circuits.circuit.eap_ig import EAPIGFile

        file = EAPIGFile.read(path)
        if graph is not None and graph != file.graph:
            raise InputError(f"{path} is of another graph: {file.graph}; expected {graph}.")
        values = None
        if bool(file.values.any()):
            values = torch.where(file.mask, -file.values if negate else file.values, 0.0)
        return cls(file.graph, file.mask, values, {"imported": Path(path).name, "d_model": file.d_model})

    def _with(self, mask: Tensor) -> Circuit:
        return Circuit(self.graph, mask, None if self.values is None else self.values * mask, self.provenance)

    def __repr__(self) -> str:
        task, method = self.provenance.get("task"), self.provenance.get("method")
        about = f", task={task!r}, method={method!r}" if task and method else ""
        return f"Circuit({self.n_edges} of {self.graph.n_edges} edges, {self.n_nodes} nodes{about})"
