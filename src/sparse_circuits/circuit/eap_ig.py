"""EAP-IG's own files, ``Graph.to_json`` and ``Graph.to_pt`` there, read and written without EAP-IG.

What they hold: the model's shape, a score and a flag per edge, a flag and perhaps a score per node. Older layouts are
read too: nodes as bare flags in JSON; in ``.pt``, ``src_nodes`` as a mapping to flags and scores under ``edges``, where
without ``edges_in_graph`` a score of minus infinity marks an edge that is out. What is written is the newest layout.

EAP-IG knows one k and v input per query head, and an MLP in every layer. Its JSON reader also wants the model's width,
``d_model``, which a graph does not know; its ``.pt`` reader does not.

**Signs.** Scores are read and written as they stand. EAP-IG's scripts differentiate a *loss*, so that in their files an
edge that carries the behaviour scores positive; here the metric is the behaviour and such an edge scores negative. Pass
``negate=True`` to convert between the two.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import Graph

if TYPE_CHECKING:
    from sparse_circuits.circuit.circuit import Circuit
    from sparse_circuits.circuit.scores import Scores


@dataclass(frozen=True, eq=False)
class EAPIGFile:
    """All that one of EAP-IG's files holds.

    Attributes:
        graph: its model's, with k and v inputs per query head.
        mask: bool ``[n_sources, n_destinations]``, the edges that are in.
        values: float32, every edge's score, also of those that are out; 0 where the graph has no edge.
        nodes: bool ``[n_sources]``, the nodes that are in; the logits always are.
        node_values: float32 ``[n_sources]``, NaN for a node without a score; None where no node has one.
        d_model: the model's width, None where the file does not say.
    """

    graph: Graph
    mask: Tensor
    values: Tensor
    nodes: Tensor
    node_values: Tensor | None = None
    d_model: int | None = None

    @classmethod
    def of(cls, source: Circuit | Scores, *, d_model: int | None = None, negate: bool = False) -> EAPIGFile:
        """What to write for a circuit, or for scores (then no edge is in).

        Raises:
            InputError: for a graph that EAP-IG has no names for.
        """
        graph, mask = source.graph, getattr(source, "mask", None)
        if graph.n_kv != graph.n_heads:
            raise InputError(
                "EAP-IG's files name k and v inputs per query head, but this graph has them per group "
                f'({graph.n_kv} for {graph.n_heads} heads); use Graph.of(model, kv="per_query_head") to export.'
            )
        if not graph.has_mlp:
            raise InputError(
                "EAP-IG's files have an MLP in every layer; an attention-only model cannot be written as one."
            )
        mask = torch.zeros_like(graph.mask) if mask is None else mask
        values = torch.zeros(mask.shape) if source.values is None else source.values.detach().float().cpu()
        nodes = mask.any(1) | graph.by_owner(mask.any(0))
        d_model = source.provenance.get("d_model") if d_model is None else d_model
        values = (-values if negate else values) + 0.0  # no -0.0, which is what masks leave of negative scores
        return cls(graph, mask, values, nodes, None, d_model)

    @classmethod
    def read(cls, path: str | Path) -> EAPIGFile:
        """
        Raises:
            InputError: if there is no such file, or its name ends in neither ``.json`` nor ``.pt``.
            FileFormatError: for a file that is damaged, inconsistent or holds something else.
        """
        path = Path(path)
        load = _by_ending(path, _load_json, _load_pt)
        if not path.is_file():
            raise InputError(f"No file at {path}.")
        try:
            return load(path)
        except _BadFileError as error:
            raise FileFormatError(f"{path} is not a graph that EAP-IG wrote, or is damaged: {error}") from None

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

    def _fill_json(self, path: Path) -> None:
        graph = self.graph
        nodes: dict[str, dict[str, Any]] = {
            name: {"in_graph": there} for name, there in zip(graph.sources, self.nodes.tolist(), strict=True)
        }
        if self.node_values is not None:
            for name, score in zip(graph.sources, self.node_values.tolist(), strict=True):
                if score == score:  # EAP-IG takes a missing score for NaN, which is no JSON
                    nodes[name]["score"] = score
        nodes["logits"] = {"in_graph": True}
        u, v = graph.mask.nonzero(as_tuple=True)
        cells = zip(u.tolist(), v.tolist(), self.values[u, v].tolist(), self.mask[u, v].tolist(), strict=True)
        edges = {graph.edge_name(a, b): {"score": score, "in_graph": there} for a, b, score, there in cells}
        path.write_text(json.dumps({"cfg": self._cfg, "nodes": nodes, "edges": edges}), encoding="utf-8")

    def _fill_pt(self, path: Path) -> None:
        contents = {
            "cfg": self._cfg,
            "src_nodes": list(self.graph.sources),
            "dst_nodes": list(self.graph.destinations),
            "edges_scores": self.values.clone(),
            "edges_in_graph": self.mask.clone(),
            "nodes_in_graph": self.nodes.clone(),
        }
        if self.node_values is not None:
            contents["nodes_scores"] = self.node_values.clone()
        torch.save(contents, path)


def read_eap_ig(path: str | Path, *, negate: bool = False) -> tuple[Graph, Tensor, Tensor]:
    """Graph, edges that are in, and all edges' scores of a file of EAP-IG's; :class:`EAPIGFile` holds the rest.

    Raises:
        InputError, FileFormatError: as :meth:`EAPIGFile.read`.
    """
    file = EAPIGFile.read(path)
    return file.graph, file.mask, -file.values if negate else file.values


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


# --- reading: every helper raises _BadFileError with what it expected ---


class _BadFileError(Exception):
    pass


def _by_ending(path: Path, json: Any, pt: Any) -> Any:
    try:
        return {".json": json, ".pt": pt}[path.suffix.lower()]
    except KeyError:
        raise InputError(f"{path.name!r}: EAP-IG's files end in .json or .pt.") from None


def _load_json(path: Path) -> EAPIGFile:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _BadFileError(f"it is not JSON ({error}).") from None
    cfg, nodes, edges = (_typed(_entry(data, key, "the file"), dict, key) for key in ("cfg", "nodes", "edges"))
    graph, d_model = _graph(cfg, [name for name in nodes if name != "logits"])

    flags, node_values = torch.zeros(graph.n_sources, dtype=torch.bool), torch.full((graph.n_sources,), torch.nan)
    for i, name in enumerate(graph.sources):
        node = nodes[name] if isinstance(nodes[name], dict) else {"in_graph": nodes[name]}  # older: a bare flag
        if "neurons" in node or "neurons_scores" in node:
            raise _BadFileError(_NEURONS)
        flags[i] = _flag(node, f"node {name!r}")
        if node.get("score") is not None:
            node_values[i] = _number(node["score"], f"score of node {name!r}")

    mask, values = torch.zeros_like(graph.mask), torch.zeros(graph.mask.shape)
    for name, edge in edges.items():
        try:
            at = graph.edge_index(name)
        except InputError as error:
            raise _BadFileError(str(error)) from None
        mask[at] = _flag(edge, f"edge {name!r}")
        values[at] = _number(_entry(edge, "score", f"edge {name!r}"), f"score of edge {name!r}")
    return _checked(graph, mask, values, flags, node_values, d_model)


def _load_pt(path: Path) -> EAPIGFile:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, depending on which bytes are wrong
        reason = str(error).partition("\n")[0]
        raise _BadFileError(
            f"torch cannot read it as tensors and plain values ({type(error).__name__}: {reason})."
        ) from None
    if isinstance(data, dict) and any(str(key).startswith("neurons") for key in data):
        raise _BadFileError(_NEURONS)
    cfg = _typed(_entry(data, "cfg", "the file"), dict, "cfg")
    rows, columns = (
        _entry(data, "src_nodes", "the file"),
        _typed(_entry(data, "dst_nodes", "the file"), list, "dst_nodes"),
    )
    names = list(_typed(rows, (list, dict), "src_nodes"))
    graph, d_model = _graph(cfg, names)
    if sorted(map(str, columns)) != sorted(graph.destinations):
        raise _BadFileError(f"dst_nodes do not name the {graph.n_destinations} destinations of {graph}.")
    order = [names.index(name) for name in graph.sources]  # ours and EAP-IG's agree; other writers' need not
    across = [columns.index(name) for name in graph.destinations]

    def matrix(key: str) -> Tensor:
        tensor = _tensor(data[key], key, (graph.n_sources, graph.n_destinations))
        return tensor[order][:, across]

    scores = matrix(
        "edges_scores" if "edges_scores" in data else "edges" if "edges" in data else _missing("edges_scores")
    )
    values = scores.float()
    if "edges_in_graph" in data:
        mask = matrix("edges_in_graph").bool()
    else:
        mask = graph.mask & (values != -torch.inf)
        values = values.masked_fill(values == -torch.inf, 0)
    if isinstance(rows, dict):
        flags = torch.tensor([_flag({"in_graph": rows[name]}, f"node {name!r}") for name in graph.sources])
    else:
        flags = _tensor(_entry(data, "nodes_in_graph", "the file"), "nodes_in_graph", (graph.n_sources,))[order].bool()
    node_values = None
    if data.get("nodes_scores") is not None:
        node_values = _tensor(data["nodes_scores"], "nodes_scores", (graph.n_sources,))[order].float()
    return _checked(graph, mask, values, flags, node_values, d_model)


_NEURONS = "it selects single neurons; only files whose smallest parts are heads and MLPs can be read."


def _checked(
    graph: Graph, mask: Tensor, values: Tensor, nodes: Tensor, node_values: Tensor | None, d_model: int | None
) -> EAPIGFile:
    if bool((mask & ~graph.mask).any()):
        u, v = (mask & ~graph.mask).nonzero()[0].tolist()
        raise _BadFileError(
            f"{graph.edge_name(u, v)} is in, but there is no such edge: {graph.sources[u]} is written later."
        )
    values = torch.where(graph.mask, values, 0.0)  # what stands between the edges means nothing
    if not bool(torch.isfinite(values).all()):
        raise _BadFileError("some edges' scores are not finite.")
    if node_values is not None and bool(node_values.isnan().all()):
        node_values = None
    return EAPIGFile(graph, mask, values, nodes, node_values, d_model)


def _graph(cfg: dict[str, Any], names: list[str]) -> tuple[Graph, int | None]:
    """The graph that ``cfg`` describes, if these are its sources' names; and the model's width."""
    sizes = [_entry(cfg, key, "cfg") for key in ("n_layers", "n_heads")]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise _BadFileError(f"cfg's n_layers and n_heads are {sizes}; expected whole numbers above 0.")
    parallel, d_model = _entry(cfg, "parallel_attn_mlp", "cfg"), cfg.get("d_model")
    _typed(parallel, bool, "cfg's parallel_attn_mlp")
    if d_model is not None and (isinstance(d_model, bool) or not isinstance(d_model, int)):
        raise _BadFileError(f"cfg's d_model is {d_model!r}; expected a whole number.")
    layers, heads = sizes
    # counted before the graph is built, since the numbers may be absurd
    if len(names) != 1 + layers * (heads + 1):
        raise _BadFileError(
            f"cfg says {layers} layers of {heads} heads and an MLP, so {1 + layers * (heads + 1)} nodes beside the "
            f"logits; {len(names)} are named."
        )
    graph = Graph(n_layers=layers, n_heads=heads, n_kv=heads, has_mlp=True, parallel=parallel)
    strange = set(map(str, names)) - set(graph.sources)
    if strange or len(set(names)) != len(names):
        raise _BadFileError(f"nodes {sorted(strange)[:3]} are no nodes of {graph}.")
    return graph, d_model


def _entry(mapping: Any, key: str, where: str) -> Any:
    if not isinstance(mapping, Mapping):
        raise _BadFileError(f"{where} is {type(mapping).__name__}; expected a mapping with {key!r}.")
    return mapping[key] if key in mapping else _missing(key, where)


def _missing(key: str, where: str = "the file") -> Any:
    raise _BadFileError(f"{where} lacks {key!r}.")


def _typed(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise _BadFileError(
            f"{what} is {type(value).__name__}; expected {getattr(kind, '__name__', 'a list or mapping')}."
        )
    return value


def _flag(mapping: Any, what: str) -> bool:
    return cast(bool, _typed(_entry(mapping, "in_graph", what), bool, f"in_graph of {what}"))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadFileError(f"{what} is {value!r}; expected a number.")
    return float(value)


def _tensor(value: Any, what: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise _BadFileError(f"{what} is {found}; expected a tensor of shape {list(shape)}.")
    return value
