"""EAP-IG's own files, ``Graph.to_json`` and ``Graph.to_pt`` there, read and written without EAP-IG.

What they hold: the model's shape; a score and a flag per edge; a flag and perhaps a score per node; and perhaps flags and
scores per dimension of what a node writes, which EAP-IG calls neurons and this library ``level="outputs"``. Older layouts are
read too: in JSON, nodes as bare flags, and null for a score; in ``.pt``, ``src_nodes`` as a mapping to flags and scores under
``edges``, where without ``edges_in_graph`` a score of minus infinity marks an edge that is out. Edges may have flags alone, as
in MIB's circuits. What is written is the newest layout.

EAP-IG knows one k and v input per query head, an MLP in every layer, no positions, and no hidden units of MLPs or dimensions
of a head's z (``level="neurons"``). Its JSON reader also wants the model's width, ``d_model``, which a graph of edges or nodes
does not know; its ``.pt`` reader does not.

**Signs.** Scores are read and written as they stand. EAP-IG's scripts differentiate a *loss*, so that in their files an
edge that carries the behaviour scores positive; here the metric is the behaviour and such an edge scores negative. Pass
``negate=True`` to convert between the two. No file of EAP-IG's says which it has; those that ``write_mib`` makes do, where
EAP-IG does not look: ``{"sparse_circuits": {"signed": true, "negated": true}}``.

**Levels.** A circuit of nodes or outputs is written as EAP-IG has it once it has chosen: its nodes, and all edges between
them. Read back, a file with scores or flags of neurons is one of outputs; a file with scores of nodes and none of edges is one
of nodes; any other one of edges. A node or neuron without a score, which EAP-IG always keeps, has the score NaN.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.circuit.formats.eap_ig_read import BadFileError, load_json, load_pt
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import Graph

if TYPE_CHECKING:
    from sparse_circuits.circuit.circuit import Circuit
    from sparse_circuits.circuit.scores import Scores

_LEVELS = ("edges", "nodes", "outputs")


@dataclass(frozen=True, eq=False)
class EAPIGFile:
    """All that one of EAP-IG's files holds.

    Attributes:
        graph: its model's edges, with k and v inputs per query head.
        mask: bool ``[n_sources, n_destinations]``, the edges that are in.
        values: float32, every edge's score, also of those that are out; 0 where the graph has no edge.
        nodes: bool ``[n_sources]``, the nodes that are in; the logits always are.
        node_values: float32 ``[n_sources]``, NaN for a node without a score; None where no node has one.
        neurons, neuron_values: bool and float32 ``[n_sources, d_model]``, the same of the dimensions of what a node writes;
            None where the file has none.
        d_model: the model's width, None where the file does not say.
        signed: whether scores have a sign. negated: whether it was turned around. None where the file does not say.
    """

    graph: Graph
    mask: Tensor
    values: Tensor
    nodes: Tensor
    node_values: Tensor | None = None
    neurons: Tensor | None = None
    neuron_values: Tensor | None = None
    d_model: int | None = None
    signed: bool | None = None
    negated: bool | None = None

    @classmethod
    def of(cls, source: Circuit | Scores, *, d_model: int | None = None, negate: bool = False) -> EAPIGFile:
        """What to write for a circuit, or for scores (then nothing is in).

        Raises:
            InputError: for a graph that EAP-IG has no names for.
        """
        graph, chosen = source.graph, getattr(source, "mask", None)
        edges = replace(graph, level="edges", n_kv=graph.n_heads, d_model=0)
        _refuse(graph)
        d_model = source.provenance.get("d_model") if d_model is None else d_model
        values = None if source.values is None else source.values.detach().float().cpu()
        if values is not None:
            values = (-values if negate else values) + 0.0  # no -0.0, which is what masks leave of negative scores
        if graph.level == "edges":
            mask = torch.zeros_like(graph.mask) if chosen is None else chosen
            nodes = mask.any(1) | graph.by_owner(mask.any(0))
            return cls(edges, mask, torch.zeros(mask.shape) if values is None else values, nodes, d_model=d_model)
        chosen = torch.zeros(graph.shape, dtype=torch.bool) if chosen is None else chosen
        nodes = chosen
        more: dict[str, Any] = {"node_values": values}
        if graph.level == "outputs":
            if d_model not in (None, graph.d_model):
                raise InputError(f"d_model={d_model!r}: the graph is of width {graph.d_model}.")
            by_node = (graph.n_sources, graph.d_model)
            nodes, d_model = chosen.view(by_node).any(1), graph.d_model
            more = {"neurons": chosen.view(by_node), "neuron_values": None if values is None else values.view(by_node)}
        return cls(edges, between(edges, nodes), torch.zeros(edges.shape), nodes, **more, d_model=d_model)

    def to(self, graph: Graph | None = None, *, negate: bool = False) -> tuple[Graph, Tensor, Tensor | None]:
        """Graph, what is in, and scores, at the level of a graph, or at the file's own.

        Returns:
            The scores are None where all are 0 or there are none.

        Raises:
            InputError: for a graph of another model, or a level at which the file does not have all that it has chosen.
        """
        level = self.level if graph is None else graph.level
        if graph is not None:
            _refuse(graph, like=True)
        own = replace(self.graph, level=level, d_model=(self.d_model or 0) if level == "outputs" else 0)
        if graph is not None and level != "edges":
            own = replace(own, n_kv=graph.n_kv)  # of no consequence there, and no file says
        if graph is not None and graph != own:
            raise InputError(f"the file is of another graph: {own}; expected {graph}.")
        if level == "edges":
            mask, values = self.mask, self.values
        elif level == "nodes":
            mask, values = self.nodes, self.node_values
        else:
            mask = torch.zeros(own.shape, dtype=torch.bool) if self.neurons is None else self.neurons.flatten()
            values = None if self.neuron_values is None else self.neuron_values.flatten()
        if level != "edges" and not torch.equal(self.mask, between(self.graph, self.nodes)):
            raise InputError(
                f"the file has chosen {level} and edges, which no circuit holds both; read its edges with the graph of these, "
                "or all of it with EAPIGFile.read."
            )
        if values is None or not bool(values.any()):
            return own, mask, None
        return own, mask, -values + 0.0 if negate else values

    @property
    def level(self) -> str:
        """What its smallest parts with scores or flags are: "edges", "nodes" or "outputs"."""
        if self.neurons is not None or self.neuron_values is not None:
            return "outputs"
        return "nodes" if self.node_values is not None and not bool(self.values.any()) else "edges"

    @classmethod
    def read(cls, path: str | Path) -> EAPIGFile:
        """
        Raises:
            InputError: if there is no such file, or its name ends in neither ``.json`` nor ``.pt``.
            FileFormatError: for a file that is damaged, inconsistent or holds something else.
        """
        path = Path(path)
        load = _by_ending(path, load_json, load_pt)
        if not path.is_file():
            raise InputError(f"No file at {path}.")
        try:
            graph, found, d_model = load(path)
        except BadFileError as error:
            raise FileFormatError(f"{path} is not a graph that EAP-IG wrote, or is damaged: {error}") from None
        return cls(graph, **found, d_model=d_model)

    def write(self, path: str | Path) -> Path:
        """Write the layout that the path's ending, ``.json`` or ``.pt``, asks for; in one step.

        Warns:
            UserWarning: for JSON without ``d_model``, which EAP-IG's current ``Graph.from_json`` cannot read.
        """
        path = Path(path)
        fill = _by_ending(path, self._fill_json, self._fill_pt)
        if fill == self._fill_json and self.d_model is None:
            warnings.warn(
                "EAP-IG's Graph.from_json needs the model's width: pass d_model=..., or write a .pt file.", stacklevel=2
            )
        return write_atomically(path, fill)

    @property
    def _cfg(self) -> dict[str, Any]:
        graph = self.graph
        return {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": self.d_model,
        }

    @property
    def _rows(self) -> dict[str, int | slice]:
        """By the nodes that JSON has neurons of, whose these are.

        EAP-IG reads what a head has as that of all heads of its layer, so that the first one has a list of each.
        """
        graph = self.graph
        heads = {graph.sources[here.start]: here for here in map(graph.heads_at, range(graph.n_layers))}
        others = {name: i for i, name in enumerate(graph.sources) if not name.startswith("a")}
        return {**others, **heads}

    @property
    def _own(self) -> dict[str, Any]:
        """What EAP-IG does not know; its readers pass over it."""
        known = {"signed": self.signed, "negated": self.negated}
        said = {key: value for key, value in known.items() if value is not None}
        return {"sparse_circuits": said} if said else {}

    def _fill_json(self, path: Path) -> None:
        graph = self.graph
        nodes: dict[str, dict[str, Any]] = {
            name: {"in_graph": there} for name, there in zip(graph.sources, self.nodes.tolist(), strict=True)
        }
        if self.node_values is not None:
            for name, score in zip(graph.sources, self.node_values.tolist(), strict=True):
                if score == score:  # EAP-IG takes a missing score for NaN, which is no JSON
                    nodes[name]["score"] = score
        for name, rows in self._rows.items():
            if self.neurons is not None:
                nodes[name]["neurons"] = self.neurons[rows].tolist()
            # a node without any is left out; where only some are NaN, they have to be written as EAP-IG does
            if self.neuron_values is not None and not bool(self.neuron_values[rows].isnan().all()):
                nodes[name]["neurons_scores"] = self.neuron_values[rows].tolist()
        nodes["logits"] = {"in_graph": True}
        u, v = graph.mask.nonzero(as_tuple=True)
        cells = zip(u.tolist(), v.tolist(), self.values[u, v].tolist(), self.mask[u, v].tolist(), strict=True)
        edges = {graph.edge_name(a, b): {"score": score, "in_graph": there} for a, b, score, there in cells}
        contents = {"cfg": self._cfg, "nodes": nodes, "edges": edges, **self._own}
        path.write_text(json.dumps(contents), encoding="utf-8")

    def _fill_pt(self, path: Path) -> None:
        contents = {
            "cfg": self._cfg,
            "src_nodes": list(self.graph.sources),
            "dst_nodes": list(self.graph.destinations),
            "edges_scores": self.values.clone(),
            "edges_in_graph": self.mask.clone(),
            "nodes_in_graph": self.nodes.clone(),
            **self._own,
        }
        if self.node_values is not None:
            contents["nodes_scores"] = self.node_values.clone()
        if self.neurons is not None:
            contents["neurons_in_graph"] = self.neurons.clone()
        if self.neuron_values is not None:
            contents["neurons_scores"] = self.neuron_values.clone()
        torch.save(contents, path)


def write_eap_ig(
    path: str | Path, source: Circuit | Scores, *, d_model: int | None = None, negate: bool = False
) -> Path:
    """Write a circuit, or scores without a selection, as EAP-IG would.

    Args:
        d_model: the model's width; by default what the provenance says.
        negate: turn the signs around; see the module's notes.

    Raises:
        InputError: for a grouped or attention-only graph, or an ending other than ``.json`` and ``.pt``.
    """
    return EAPIGFile.of(source, d_model=d_model, negate=negate).write(path)


def read_eap_ig(
    path: str | Path, graph: Graph | None = None, *, negate: bool | None = False
) -> tuple[Graph, Tensor, Tensor | None, dict[str, Any]]:
    """Graph, what is in, all scores (None where there are none or all are 0), and provenance.

    Args:
        graph: the graph that the file must be of; by default any, at the level that it is of.
        negate: turn the signs around; None: unless the file says that they were not when it was written.

    Raises:
        InputError: if there is no such file, or it is of another graph. FileFormatError: if it is not such a file.
    """
    file = EAPIGFile.read(path)
    try:
        found, mask, values = file.to(graph, negate=file.negated is not False if negate is None else negate)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    about = {"imported": Path(path).name, "d_model": file.d_model}
    return found, mask, values, about if file.signed is None else {**about, "signed": file.signed}


def between(edges: Graph, nodes: Tensor) -> Tensor:
    """The edges between some nodes, and from them into the logits."""
    return edges.mask & nodes[:, None] & edges.to_owned(nodes)[None]


def _by_ending(path: Path, json: Callable[..., Any], pt: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return {".json": json, ".pt": pt}[path.suffix.lower()]
    except KeyError:
        raise InputError(f"{path.name!r}: EAP-IG's files end in .json or .pt.") from None


def _refuse(graph: Graph, like: bool = False) -> None:
    """
    Args:
        like: as the graph to read a file as, rather than to write.
    """
    if graph.level not in _LEVELS:
        raise InputError(
            "EAP-IG's files have no hidden units, and what it calls neurons are the dimensions of what a node writes; use "
            'Graph.of(model, level="outputs").'
        )
    if graph.positions:
        raise InputError('EAP-IG\'s files know no positions; use attribute(..., positions="sum") to export.')
    if graph.level == "edges" and graph.n_kv != graph.n_heads and not like:
        raise InputError(
            "EAP-IG's files name k and v inputs per query head, but this graph has them per group "
            f'({graph.n_kv} for {graph.n_heads} heads); use Graph.of(model, kv="per_query_head") to export.'
        )
    if not graph.has_mlp and not like:
        raise InputError("EAP-IG's files have an MLP in every layer; an attention-only model cannot be written as one.")
