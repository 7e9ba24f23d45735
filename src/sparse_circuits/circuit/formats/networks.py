"""Circuits as networkx graphs and GraphML, and back.

Nodes are the circuit's, by name, with plain values: ``kind`` (input, head, mlp, neuron, dimension, feature, error, site,
logits, or group), ``layer``, ``site``, ``head``, ``index`` (of a feature, neuron or dimension), ``position`` and ``score``, as
far as each has them. Edges have ``name``, ``score`` and ``read`` ("q", "k", "v", or "" where there is only one input), which is
their key too: a head may read the same source three times, so that the graph is a ``MultiDiGraph``.

Keys and values that several query heads share are a node of their own, ``a0.g1`` of kind "group"; an edge without name or score
leads from it to each of its heads in the circuit. At the level of nodes, edges are all those between the nodes, without score;
at the levels of outputs and neurons there are none.

What is read back is what the graph says: a graph from which nodes or edges were removed is the smaller circuit.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit
from sparse_circuits.circuit.files import pack_graph, unpack_components, unpack_graph, write_atomically, write_json
from sparse_circuits.circuit.formats.attribution_graph.ids import part
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import FeatureGraph

if TYPE_CHECKING:
    from networkx import MultiDiGraph

OWN = "sparse_circuits"
"""The attribute of a graph that holds what of the circuit is in no node or edge, as JSON."""
_VERSION = 1
# control characters and halves of characters beyond 16 bits
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_KINDS = {"attention head": "head", "cross layer transcoder": "feature", "output dimension": "dimension"}


def to_networkx(circuit: Circuit | FeatureCircuit) -> MultiDiGraph:
    """The circuit as a graph of networkx (3.2 or newer); see the module's notes."""
    import networkx

    feature = isinstance(circuit, FeatureCircuit)
    scored = (circuit.node_values if feature else circuit.values) is not None
    shape = pack_graph(circuit.graph) if feature else asdict(circuit.graph)
    own = {"version": _VERSION, "graph": shape, "scored": scored, "provenance": circuit.provenance}
    graph = networkx.MultiDiGraph()
    graph.graph[OWN] = json.dumps(own)
    wired = not feature and circuit.graph.level == "edges"
    units = not feature and circuit.graph.level in ("outputs", "neurons")
    scores = circuit.to_dict() if scored and not wired else {}
    for name in circuit.names if units else circuit.nodes:
        graph.add_node(name, **_about(circuit, name), **({"score": scores[name]} if name in scores else {}))
    if isinstance(circuit, FeatureCircuit):
        for name, score in circuit.to_dict("edges").items():
            source, _, target = name.partition("->")
            if target not in graph:
                graph.add_node(target, kind="logits")
            graph.add_edge(source, target, key="", name=name, read="", score=score)
    elif not units:
        _add_edges(graph, circuit, circuit.to_dict() if wired and scored else dict.fromkeys(circuit.edges))
    return graph


def _add_edges(graph: MultiDiGraph, circuit: Circuit, edges: dict[str, float] | dict[str, None]) -> None:
    for name, score in edges.items():
        source, _, destination = name.partition("->")
        match = re.fullmatch(r"(.*)<([qkv])>(@.*)?", destination)
        target = destination if match is None else match[1] + (match[3] or "")
        read = "" if match is None else match[2]
        if target not in graph:  # what several heads share
            about = re.match(r"a(\d+)\.g(\d+)", target)
            graph.add_node(target, kind="group", layer=int(about[1]) if about else 0, **_position(target))
            for head in _sharing(circuit, target, graph):
                graph.add_edge(target, head, key="", read="")
        graph.add_edge(source, target, key=read, name=name, read=read, **({} if score is None else {"score": score}))


def _sharing(circuit: Circuit, group: str, graph: MultiDiGraph) -> list[str]:
    """The heads in the circuit that read a group's keys and values."""
    node, _, position = group.partition("@")
    layer, _, number = node.partition(".g")
    each = circuit.graph.n_heads // circuit.graph.n_kv
    at = f"@{position}" if position else ""
    heads = [f"{layer}.h{int(number) * each + i}{at}" for i in range(each)]
    return [head for head in heads if head in graph]


def _about(circuit: Circuit | FeatureCircuit, name: str) -> dict[str, Any]:
    plain = name.partition("@")[0]
    if plain == "logits":
        return {"kind": "logits", **_position(name)}
    one = part(circuit, name)
    kind = "error" if one.index < 0 else _KINDS.get(one.feature_type, one.feature_type)
    whole = one.kind.endswith("-whole") and isinstance(circuit, FeatureCircuit)
    about: dict[str, Any] = {"kind": "site" if whole else kind}
    if isinstance(circuit, FeatureCircuit) and kind != "head":
        about["site"] = plain.partition(".")[0]
    if one.layer != "E":
        about["layer"] = int(one.layer)
    if match := re.match(r"a\d+\.h(\d+)", plain):
        about["head"] = int(match[1])
    if match := re.search(r"\.[fnd](\d+)$", plain):
        about["index"] = int(match[1])
    return about | _position(name)


def _position(name: str) -> dict[str, str]:
    position = name.partition("@")[2]
    return {"position": position} if position else {}


def from_networkx(graph: Any) -> Circuit | FeatureCircuit:
    """The circuit of a graph that :func:`to_networkx` made, less what was removed from it.

    Raises:
        InputError: for any other graph, or one with nodes or edges that its circuit's graph does not have.
    """
    try:
        own = json.loads(graph.graph[OWN])
        version, shape, scored, provenance = (own[key] for key in ("version", "graph", "scored", "provenance"))
        provenance, of_features, several = dict(provenance), "places" in shape, graph.is_multigraph()
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(
            f"This is no graph of a circuit: its attribute {OWN!r} is missing or damaged; expected what to_networkx returns."
        ) from None
    if version != _VERSION:
        raise InputError(
            f"The graph is of format version {version!r}; this version of sparse-circuits reads {_VERSION}."
        )
    if not several or not isinstance(scored, bool):
        raise InputError(
            "This is no longer the graph of its circuit: expected a MultiDiGraph with all that to_networkx gave it, since a "
            "head may read one source three times."
        )
    try:
        whole = (unpack_graph if of_features else unpack_components)(Path(OWN), shape)
    except FileFormatError as error:
        raise InputError(str(error)) from None
    edges = [(data["name"], data) for _, _, data in graph.edges(data=True) if "name" in data]
    if isinstance(whole, FeatureGraph):
        return _feature_circuit(graph, whole, edges, scored, provenance)
    nodes = [(name, data) for name, data in graph.nodes(data=True) if data.get("kind") not in ("logits", "group")]
    found = _scores(edges if whole.level == "edges" else nodes, scored)
    return replace(Circuit.of(whole, found if scored else list(found)), provenance=provenance)


def _feature_circuit(
    graph: Any, features: FeatureGraph, edges: list[tuple[Any, Any]], scored: bool, provenance: dict[str, Any]
) -> FeatureCircuit:
    nodes = _scores([(name, data) for name, data in graph.nodes(data=True) if name != "logits"], scored)
    made = FeatureCircuit.of(features, nodes if scored else list(nodes))
    listed = []
    for name, score in _scores(edges, True).items():
        source, _, target = name.partition("->")
        listed.append((features.index(source), features.index(target), score))
    listed.sort(key=lambda edge: edge[:2])
    ends = torch.tensor([edge[:2] for edge in listed], dtype=torch.int64).view(-1, 2)
    values = torch.tensor([edge[2] for edge in listed], dtype=torch.float32)
    return replace(made, edge_list=EdgeList(ends[:, 0], ends[:, 1], values), provenance=provenance)


def _scores(parts: list[tuple[Any, Any]], scored: bool) -> dict[str, float]:
    """
    Args:
        parts: name and attributes each; a score of None, in JSON null, is NaN.
        scored: whether they have scores; otherwise these are 0.

    Raises:
        InputError: for a name that is none or comes twice, or a score that is missing or no number.
    """
    found: dict[str, float] = {}
    for name, data in parts:
        if not isinstance(name, str) or name in found:
            raise InputError(
                f"{name!r} {'comes twice' if isinstance(name, str) else 'is no name'}, in a graph of a circuit."
            )
        if scored and "score" not in data:
            raise InputError(f"{name!r} has no score, and the others of its circuit have one.")
        score = data["score"] if scored else 0.0
        if isinstance(score, bool) or not isinstance(score, int | float | None):
            raise InputError(f"{name!r} has the score {score!r:.60}; expected a number.")
        found[name] = math.nan if score is None else float(score)
    return found


def write_graphml(circuit: Circuit | FeatureCircuit, path: str | Path) -> Path:
    """Write :func:`to_networkx` as GraphML; edges' ids are their names. Written atomically.

    Raises:
        InputError: if the folder does not exist, or for a name that XML has no characters for.
    """
    import networkx

    graph = to_networkx(circuit)
    for name in graph:
        if _NOT_XML.search(name):
            raise InputError(f"{name!r} has a character that XML does not have; write another format.")
    for source, target, data in graph.edges(data=True):
        data["id"] = data.get("name", f"{source}->{target}")

    def fill(temporary: Path) -> None:
        networkx.write_graphml_xml(graph, temporary, edge_id_from_attribute="id", named_key_ids=True)

    return write_atomically(Path(path), fill)


def read_graphml(path: str | Path) -> Circuit | FeatureCircuit:
    """
    Raises:
        InputError: if there is no such file. FileFormatError: for one that :func:`write_graphml` did not write, or that is
            damaged.
    """
    import networkx

    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        graph = networkx.read_graphml(path, force_multigraph=True)
    except Exception as error:  # the parser raises many kinds, depending on what is wrong
        raise FileFormatError(f"{path} is not GraphML ({type(error).__name__}: {error}).") from None
    try:
        return from_networkx(graph)
    except InputError as error:
        raise FileFormatError(f"{path}: {error}") from None


def write_node_link(circuit: Circuit | FeatureCircuit, path: str | Path) -> Path:
    """Write :func:`to_networkx` as networkx's node-link JSON, which ``networkx.node_link_graph(content, edges="edges")`` takes.

    A score of NaN, which JSON does not have, is null.

    Raises:
        InputError: if the folder does not exist.
    """
    import networkx

    content = networkx.node_link_data(to_networkx(circuit), edges="edges")
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return write_json(Path(path), plain)
