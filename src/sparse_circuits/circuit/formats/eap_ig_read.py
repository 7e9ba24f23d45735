"""Reading EAP-IG's files: every layout that it ever wrote; a helper raises what it expected and what it found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph

_NUMBERS = (
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


class BadFileError(Exception):
    """What is wrong with a file, without its name."""


Contents = tuple[Graph, dict[str, Any], int | None]
"""Graph, tensors and what is known of signs by the names of :class:`EAPIGFile`'s fields, and the model's width."""


def load_json(path: Path) -> Contents:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"it is not JSON ({error}).") from None
    cfg, nodes, edges = (_typed(_entry(data, key, "the file"), dict, key) for key in ("cfg", "nodes", "edges"))
    graph, d_model = _graph(cfg, [name for name in nodes if name != "logits"])

    flags, node_values = torch.zeros(graph.n_sources, dtype=torch.bool), torch.full((graph.n_sources,), torch.nan)
    for i, name in enumerate(graph.sources):
        node = nodes[name] if isinstance(nodes[name], dict) else {"in_graph": nodes[name]}  # older: a bare flag
        flags[i] = _flag(node, f"node {name!r}")
        if node.get("score") is not None:
            node_values[i] = _number(node["score"], f"score of node {name!r}")

    neurons, neuron_values = (_rows_of(nodes, graph, key, d_model) for key in ("neurons", "neurons_scores"))
    there: list[bool] = []
    scores: list[float] = []
    for name, edge in edges.items():
        there.append(_flag(edge, f"edge {name!r}"))
        score = edge.get("score")  # MIB's circuits have flags alone; early graphs without scores had null
        scores.append(0.0 if score is None else _number(score, f"score of edge {name!r}"))
    at = _places(graph, list(edges))
    mask, values = torch.zeros_like(graph.mask), torch.zeros(graph.mask.shape)
    mask[at], values[at] = torch.tensor(there, dtype=torch.bool), torch.tensor(scores, dtype=torch.float32)
    found = _checked(graph, mask, values, flags, node_values, neurons, neuron_values)
    return graph, {**found, **_signs(data)}, d_model


def _places(graph: Graph, names: list[str]) -> tuple[Tensor, Tensor]:
    """Rows and columns of edges, of which there may be millions."""
    rows, columns = ({name: i for i, name in enumerate(ends)} for ends in (graph.rows, graph.columns))
    split = (name.partition("->") for name in names)
    ends = [(rows.get(source, -1), columns.get(destination, -1)) for source, _, destination in split]
    u, v = torch.tensor(ends, dtype=torch.int64).view(-1, 2).T
    known = (u >= 0) & (v >= 0) & graph.mask[u, v]
    for i in (~known).nonzero()[:1].flatten().tolist():
        try:
            graph.edge_index(names[i])
        except InputError as error:
            raise BadFileError(str(error)) from None
    return u, v


def _rows_of(nodes: Mapping[str, Any], graph: Graph, key: str, d_model: int | None) -> Tensor | None:
    """What nodes say of their output dimensions: those that are in, or their scores, NaN where a node says nothing.

    A head has a list of its own, or one of each head in its layer: EAP-IG itself reads the latter right, and of the former
    gives the last head's to all of them.
    """
    given = {
        name: node[key] for name, node in nodes.items() if isinstance(node, dict) and key in node and name != "logits"
    }
    if not given:
        return None
    chosen = key == "neurons"
    rows: dict[int, list[Any]] = {}
    for i, name in enumerate(graph.sources):
        if name not in given:
            continue
        row = _typed(given[name], list, f"{key} of node {name!r}")
        if not (name.startswith("a") and row and all(isinstance(one, list) for one in row)):
            rows[i] = row
            continue
        if len(row) != graph.n_heads:
            raise BadFileError(
                f"{key} of node {name!r} has {len(row)} lists; expected {graph.n_heads}, one for each head."
            )
        layer = graph.heads_at(int(name[1:].partition(".")[0]))
        rows.update(zip(range(layer.start, layer.stop), row, strict=True))
    width = d_model if d_model is not None else len(next(iter(rows.values())))
    for i, row in rows.items():
        if len(_typed(row, list, f"{key} of node {graph.sources[i]!r}")) != width or width == 0:
            raise BadFileError(
                f"{key} of node {graph.sources[i]!r} has {len(row)} entries; expected {width or 'some'}, the model's width."
            )
    out = torch.full((graph.n_sources, width), 0.0 if chosen else torch.nan)
    for i, row in rows.items():
        name = graph.sources[i]
        for dimension, value in enumerate(row):
            what = f"{key}[{dimension}] of node {name!r}"
            # EAP-IG itself writes flags that it has read as 0.0 and 1.0
            out[i, dimension] = float(value) if chosen and isinstance(value, bool) else _number(value, what)
    return out


def load_pt(path: Path) -> Contents:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, depending on which bytes are wrong
        reason = str(error).partition("\n")[0]
        raise BadFileError(
            f"torch cannot read it as tensors and plain values ({type(error).__name__}: {reason})."
        ) from None
    cfg = _typed(_entry(data, "cfg", "the file"), dict, "cfg")
    rows, columns = (
        _entry(data, "src_nodes", "the file"),
        _typed(_entry(data, "dst_nodes", "the file"), list, "dst_nodes"),
    )
    names = list(_typed(rows, (list, dict), "src_nodes"))
    graph, d_model = _graph(cfg, names)
    if sorted(map(str, columns)) != sorted(graph.destinations):
        raise BadFileError(f"dst_nodes do not name the {graph.n_destinations} destinations of {graph}.")
    order = [names.index(name) for name in graph.sources]  # ours and EAP-IG's agree; other writers' need not
    across = [columns.index(name) for name in graph.destinations]

    def matrix(key: str) -> Tensor:
        tensor = _tensor(data[key], key, (graph.n_sources, graph.n_destinations))
        return tensor[order][:, across]

    finer = [key for key in ("nodes_scores", "neurons_in_graph", "neurons_scores") if data.get(key) is not None]
    key = next((key for key in ("edges_scores", "edges") if key in data), None)
    if key is None and not finer and "edges_in_graph" not in data:
        _missing("edges_scores")
    values = torch.zeros(graph.mask.shape) if key is None else matrix(key).float()
    if "edges_in_graph" in data:
        mask = _flags(matrix("edges_in_graph"), "edges")
    else:
        mask = graph.mask & (values != -torch.inf)
        values = values.masked_fill(values == -torch.inf, 0)
    if isinstance(rows, dict):
        flags = torch.tensor([_flag({"in_graph": rows[name]}, f"node {name!r}") for name in graph.sources])
    else:
        given = _tensor(_entry(data, "nodes_in_graph", "the file"), "nodes_in_graph", (graph.n_sources,))
        flags = _flags(given[order], "nodes")
    node_values = None
    if data.get("nodes_scores") is not None:
        node_values = _tensor(data["nodes_scores"], "nodes_scores", (graph.n_sources,))[order].float()
    neurons, neuron_values = None, None
    for name in finer:
        if name != "nodes_scores":
            width = d_model if d_model is not None else int(getattr(data[name], "shape", (0,))[-1])
            found = _tensor(data[name], name, (graph.n_sources, width))[order].float()
            neurons, neuron_values = (found, neuron_values) if name == "neurons_in_graph" else (neurons, found)
    checked = _checked(graph, mask, values, flags, node_values, neurons, neuron_values)
    return graph, {**checked, **_signs(data)}, d_model


def _checked(
    graph: Graph,
    mask: Tensor,
    values: Tensor,
    nodes: Tensor,
    node_values: Tensor | None,
    neurons: Tensor | None,
    neuron_values: Tensor | None,
) -> dict[str, Tensor | None]:
    impossible = mask & ~graph.mask
    if bool(impossible.any()) and node_values is None and neurons is None and neuron_values is None:
        u, v = impossible.nonzero()[0].tolist()
        raise BadFileError(
            f"{graph.edge_name(u, v)} is in, but there is no such edge: {graph.sources[u]} is written later."
        )
    mask = mask & graph.mask  # choosing nodes or neurons, EAP-IG marks all that could leave a node, possible or not
    values = torch.where(graph.mask, values, 0.0)  # what stands between the edges means nothing
    if not bool(torch.isfinite(values).all()):
        raise BadFileError("some edges' scores are not finite.")
    for what, finer in (("nodes", node_values), ("neurons", neuron_values)):
        if finer is not None and bool(finer.isinf().any()):
            raise BadFileError(f"some {what}' scores are infinite.")
    return {
        "mask": mask,
        "values": values,
        "nodes": nodes,
        "node_values": _or_none(node_values),
        "neurons": None if neurons is None else _flags(neurons, "neurons"),
        "neuron_values": _or_none(neuron_values),
    }


def _signs(data: dict[str, Any]) -> dict[str, bool]:
    """What this library's own files say of signs; nothing of others'."""
    own = _typed(data.get("sparse_circuits", {}), dict, "sparse_circuits")
    return {key: _typed(own[key], bool, f"sparse_circuits.{key}") for key in ("signed", "negated") if key in own}


def _flags(given: Tensor, what: str) -> Tensor:
    if not bool(((given == 0) | (given == 1)).all()):
        raise BadFileError(f"{what} are in by something other than true and false.")
    return given.bool()


def _or_none(values: Tensor | None) -> Tensor | None:
    return None if values is None or bool(values.isnan().all()) else values


def _graph(cfg: dict[str, Any], names: list[str]) -> tuple[Graph, int | None]:
    """The graph that ``cfg`` describes, if these are its sources' names; and the model's width."""
    sizes = [_entry(cfg, key, "cfg") for key in ("n_layers", "n_heads")]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise BadFileError(f"cfg's n_layers and n_heads are {sizes}; expected whole numbers above 0.")
    parallel, d_model = _entry(cfg, "parallel_attn_mlp", "cfg"), cfg.get("d_model")
    _typed(parallel, bool, "cfg's parallel_attn_mlp")
    if d_model is not None and (isinstance(d_model, bool) or not isinstance(d_model, int) or d_model < 1):
        raise BadFileError(f"cfg's d_model is {d_model!r}; expected a whole number above 0.")
    layers, heads = sizes
    # counted before the graph is built, since the numbers may be absurd
    if len(names) != 1 + layers * (heads + 1):
        raise BadFileError(
            f"cfg says {layers} layers of {heads} heads and an MLP, so {1 + layers * (heads + 1)} nodes beside the "
            f"logits; {len(names)} are named."
        )
    graph = Graph(n_layers=layers, n_heads=heads, n_kv=heads, has_mlp=True, parallel=parallel)
    strange = set(map(str, names)) - set(graph.sources)
    if strange or len(set(names)) != len(names):
        raise BadFileError(f"nodes {sorted(strange)[:3]} are no nodes of {graph}.")
    return graph, d_model


def _entry(mapping: Any, key: str, where: str) -> Any:
    if not isinstance(mapping, Mapping):
        raise BadFileError(f"{where} is {type(mapping).__name__}; expected a mapping with {key!r}.")
    return mapping[key] if key in mapping else _missing(key, where)


def _missing(key: str, where: str = "the file") -> Any:
    raise BadFileError(f"{where} lacks {key!r}.")


def _typed(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise BadFileError(
            f"{what} is {type(value).__name__}; expected {getattr(kind, '__name__', 'a list or mapping')}."
        )
    return value


def _flag(mapping: Any, what: str) -> bool:
    return cast(bool, _typed(_entry(mapping, "in_graph", what), bool, f"in_graph of {what}"))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadFileError(f"{what} is {value!r}; expected a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _tensor(value: Any, what: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadFileError(f"{what} is {found}; expected a tensor of shape {list(shape)}.")
    # neither sparse, complex or quantized, nor without data, nor a view that is larger than its data
    plain = value.layout == torch.strided and value.device.type == "cpu" and value.dtype in _NUMBERS
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise BadFileError(f"{what} is no plain tensor of numbers.")
    return value.detach()
