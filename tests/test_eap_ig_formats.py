"""EAP-IG's files: what is written is what EAP-IG's readers look for, and all layouts that it ever wrote are read."""

from __future__ import annotations

import itertools
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse_circuits.circuit import Circuit, Scores
from sparse_circuits.circuit.formats.eap_ig import EAPIGFile
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import Graph

GRAPH = Graph(n_layers=2, n_heads=3, n_kv=3)
PARALLEL = Graph(n_layers=2, n_heads=3, n_kv=3, parallel=True)
ENDINGS = ("json", "pt")


def scores_on(graph: Graph) -> Scores:
    values = torch.randn(graph.n_sources, graph.n_destinations, generator=torch.Generator().manual_seed(0))
    return Scores(
        graph=graph, values=values * graph.mask, clean=torch.ones(4), corrupted=None, provenance={"d_model": 48}
    )


def eap_ig_names(n_layers: int, n_heads: int) -> tuple[list[str], list[str]]:
    """Sources and destinations in EAP-IG's order, spelt out independently of ``Graph``."""
    sources, destinations = ["input"], []
    for layer in range(n_layers):
        sources += [f"a{layer}.h{head}" for head in range(n_heads)] + [f"m{layer}"]
        destinations += [f"a{layer}.h{head}<{letter}>" for letter in "qkv" for head in range(n_heads)] + [f"m{layer}"]
    return sources, [*destinations, "logits"]


# --- writing ---


@pytest.mark.parametrize("graph", [GRAPH, PARALLEL])
def test_json_is_what_eap_ig_reads(tmp_path: Path, graph: Graph) -> None:
    circuit = scores_on(graph).greedy(30)
    circuit.to_eap_ig(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["cfg"] == {"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": graph.parallel, "d_model": 48}
    assert list(data["nodes"]) == [*eap_ig_names(2, 3)[0], "logits"]
    assert {name for name, node in data["nodes"].items() if node["in_graph"]} == set(circuit.nodes)
    assert sorted(data["edges"]) == sorted(graph.edges)
    assert {name for name, edge in data["edges"].items() if edge["in_graph"]} == set(circuit.edges)
    kept = circuit.to_dict()
    assert all(edge == {"score": kept.get(name, 0.0), "in_graph": name in kept} for name, edge in data["edges"].items())


@pytest.mark.parametrize("graph", [GRAPH, PARALLEL])
def test_pt_is_what_eap_ig_reads(tmp_path: Path, graph: Graph) -> None:
    scores = scores_on(graph)
    circuit = scores.greedy(30)
    circuit.to_eap_ig(tmp_path / "c.pt")
    data = torch.load(tmp_path / "c.pt", weights_only=True)
    sources, destinations = eap_ig_names(2, 3)
    assert (data["src_nodes"], data["dst_nodes"]) == (sources, destinations)
    assert data["cfg"] == {"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": graph.parallel, "d_model": 48}
    assert torch.equal(data["edges_in_graph"], circuit.mask)
    assert data["edges_in_graph"].dtype == torch.bool
    assert torch.equal(data["edges_scores"], circuit.values)
    assert {n for n, there in zip(sources, data["nodes_in_graph"], strict=True) if there} == set(circuit.nodes) - {
        "logits"
    }
    assert set(data) == {"cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"}


@pytest.mark.parametrize(("ending", "width"), [("json", None), ("json", 64), ("pt", None)])
def test_only_the_json_reader_needs_the_width(tmp_path: Path, ending: str, width: int | None) -> None:
    circuit = Circuit.of(GRAPH, {"input->m0": -1.0, "m0->logits": 2.0})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        circuit.to_eap_ig(tmp_path / f"c.{ending}", d_model=width)
    assert ["d_model" in str(w.message) for w in caught] == ([True] if ending == "json" and width is None else [])
    assert EAPIGFile.read(tmp_path / f"c.{ending}").d_model == width


@pytest.mark.parametrize("ending", ENDINGS)
def test_graphs_that_eap_ig_has_no_names_for_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c.{ending}"
    with pytest.raises(InputError, match='kv="per_query_head"'):
        Circuit.full(Graph(n_layers=2, n_heads=4, n_kv=2)).to_eap_ig(path)
    with pytest.raises(InputError, match="MLP in every layer"):
        Circuit.full(Graph(n_layers=2, n_heads=4, n_kv=4, has_mlp=False)).to_eap_ig(path)
    assert not list(tmp_path.iterdir())


def test_unknown_endings_and_missing_files_are_refused(tmp_path: Path) -> None:
    circuit = Circuit.of(GRAPH, ["input->m0"])
    with pytest.raises(InputError, match=r"\.json or \.pt"):
        circuit.to_eap_ig(tmp_path / "c.pkl")
    with pytest.raises(InputError, match=r"\.json or \.pt"):
        Circuit.from_eap_ig(tmp_path / "c.pkl")
    with pytest.raises(InputError, match="No file"):
        Circuit.from_eap_ig(tmp_path / "c.pt")
    with pytest.raises(InputError, match="no folder"):
        circuit.to_eap_ig(tmp_path / "none" / "c.pt")


# --- round trips ---


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("graph", [GRAPH, PARALLEL])
def test_circuits_come_back(tmp_path: Path, graph: Graph, ending: str) -> None:
    circuit = scores_on(graph).greedy(30)
    path = circuit.to_eap_ig(tmp_path / f"c.{ending}")
    back = Circuit.from_eap_ig(path, graph)
    assert back.graph == graph
    assert back.edges == circuit.edges
    assert back.to_dict() == circuit.to_dict()
    assert back.provenance == {"imported": f"c.{ending}", "d_model": 48}
    again = back.to_eap_ig(tmp_path / f"again.{ending}")
    if ending == "json":
        assert again.read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="another graph"):
        Circuit.from_eap_ig(path, replace(graph, n_layers=3))


@pytest.mark.parametrize("ending", ENDINGS)
def test_scores_come_back_whole(tmp_path: Path, ending: str) -> None:
    scores = scores_on(GRAPH)
    path = scores.to_eap_ig(tmp_path / f"s.{ending}")
    back = Scores.from_eap_ig(path, GRAPH)
    assert back.graph == GRAPH
    assert torch.equal(back.values, scores.values)
    assert back.provenance == {"imported": path.name, "d_model": 48}
    assert not EAPIGFile.read(path).mask.any()
    assert torch.equal(Scores.from_eap_ig(path, negate=True).values, -scores.values)
    with pytest.raises(InputError, match="another graph"):
        Scores.from_eap_ig(path, PARALLEL)


@pytest.mark.parametrize("ending", ENDINGS)
def test_circuits_without_scores_come_back_without(tmp_path: Path, ending: str) -> None:
    circuit = Circuit.of(GRAPH, ["input->a0.h1<k>", "a0.h1->logits"])
    back = Circuit.from_eap_ig(circuit.to_eap_ig(tmp_path / f"c.{ending}", d_model=8))
    assert back.values is None
    assert set(back.edges) == set(circuit.edges)


@pytest.mark.parametrize("ending", ENDINGS)
def test_signs_turn_around_on_request(tmp_path: Path, ending: str) -> None:
    circuit = Circuit.of(GRAPH, {"input->m0": -1.0, "m0->logits": 2.0})
    path = circuit.to_eap_ig(tmp_path / f"c.{ending}", d_model=8, negate=True)
    assert Circuit.from_eap_ig(path).to_dict() == {"m0->logits": -2.0, "input->m0": 1.0}
    assert Circuit.from_eap_ig(path, negate=True).to_dict() == circuit.to_dict()


@pytest.mark.parametrize("ending", ENDINGS)
def test_node_scores_and_flags_come_back(tmp_path: Path, ending: str) -> None:
    circuit = scores_on(GRAPH).greedy(30)
    node_values = torch.arange(float(GRAPH.n_sources))
    node_values[2] = torch.nan  # not scored
    file = replace(EAPIGFile.of(circuit), nodes=torch.arange(GRAPH.n_sources) % 2 == 0, node_values=node_values)
    back = EAPIGFile.read(file.write(tmp_path / f"c.{ending}"))
    assert back.node_values is not None
    assert torch.equal(back.node_values.nan_to_num(-1), node_values.nan_to_num(-1))
    assert torch.equal(back.nodes, file.nodes)
    assert back.d_model == 48
    if ending == "json":
        assert "NaN" not in (tmp_path / "c.json").read_text()


# --- nodes, and what EAP-IG calls neurons ---

NODES = Graph(n_layers=2, n_heads=3, n_kv=3, level="nodes")
OUTPUTS = Graph(n_layers=2, n_heads=3, n_kv=3, level="outputs", d_model=8)


def unit_scores(graph: Graph) -> Scores:
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(3))
    return Scores(graph=graph, values=values, clean=torch.ones(4), corrupted=None)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("graph", [NODES, OUTPUTS], ids=["nodes", "outputs"])
def test_scores_of_units_come_back(tmp_path: Path, graph: Graph, ending: str) -> None:
    scores = unit_scores(graph)
    path = scores.to_eap_ig(tmp_path / f"s.{ending}", d_model=8, negate=True)
    for like in (None, graph):
        back = Scores.from_eap_ig(path, like, negate=True)
        assert back.graph == graph
        assert torch.equal(back.values, scores.values)
    # groups are of no consequence where nothing is read, and no file says how many there are
    assert Scores.from_eap_ig(path, replace(graph, n_kv=1)).graph == replace(graph, n_kv=1)
    again = Scores.from_eap_ig(path).to_eap_ig(tmp_path / f"again.{ending}", d_model=8)
    if ending == "json":
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("graph", [NODES, OUTPUTS], ids=["nodes", "outputs"])
def test_circuits_of_units_come_back(tmp_path: Path, graph: Graph, ending: str) -> None:
    circuit = unit_scores(graph).top(5)
    path = circuit.to_eap_ig(tmp_path / f"c.{ending}", d_model=8)
    back = Circuit.from_eap_ig(path)
    assert back.graph == graph
    assert back.to_dict() == circuit.to_dict()
    assert torch.equal(back.mask, circuit.mask)
    # read as a circuit of edges, it is what EAP-IG runs: all edges between the nodes
    edges = Circuit.from_eap_ig(path, GRAPH)
    assert set(edges.edges) == set(circuit.edges)
    plain = Circuit(graph, circuit.mask).to_eap_ig(tmp_path / f"p.{ending}", d_model=8)
    back = Circuit.from_eap_ig(plain, graph)
    assert back.values is None
    assert torch.equal(back.mask, circuit.mask)


def as_eap_ig_reads(data: dict[str, Any], key: str) -> Tensor:
    """Its JSON reader gives what a head has to all heads of its layer: one row to each, or the same row to all."""
    sources, _ = eap_ig_names(2, 3)
    found = torch.full((len(sources), 8), torch.nan)
    for name, node in data["nodes"].items():
        if key in node:
            first = sources.index(f"{name.partition('.')[0]}.h0") if name.startswith("a") else sources.index(name)
            found[first : first + 3 if name.startswith("a") else first + 1] = torch.tensor(node[key]).float()
    return found


@pytest.mark.parametrize("rows", ["each its own", "all of the layer", "the first all of the layer"])
def test_neurons_of_heads_are_read_however_they_are_written(tmp_path: Path, rows: str) -> None:
    circuit = unit_scores(OUTPUTS).top(20)
    data = json.loads(circuit.to_eap_ig(tmp_path / "c.json").read_text())
    for layer, key in itertools.product((0, 1), ("neurons", "neurons_scores")):
        block = data["nodes"][f"a{layer}.h0"][key]
        assert [len(row) for row in block] == [8, 8, 8]
        for head in range(3):
            assert key not in data["nodes"][f"a{layer}.h{head}"] or head == 0
            if rows != "the first all of the layer":
                data["nodes"][f"a{layer}.h{head}"][key] = block[head] if rows == "each its own" else block
    back = Circuit.from_eap_ig(write_file(tmp_path / "c.json", data))
    assert back.graph == OUTPUTS
    assert back.to_dict() == circuit.to_dict()


def test_a_file_of_units_is_what_eap_ig_reads(tmp_path: Path) -> None:
    scores, circuit = unit_scores(OUTPUTS), unit_scores(OUTPUTS).top(5)
    sources, _ = eap_ig_names(2, 3)
    data = torch.load(circuit.to_eap_ig(tmp_path / "c.pt"), weights_only=True)
    assert data["neurons_in_graph"].shape == data["neurons_scores"].shape == (len(sources), 8)
    assert data["neurons_in_graph"].dtype == torch.bool
    by_name = circuit.to_dict()
    for row, source in enumerate(sources):
        for dimension in range(8):
            name = f"{source}.d{dimension}"
            assert bool(data["neurons_in_graph"][row, dimension]) == (name in by_name)
            assert float(data["neurons_scores"][row, dimension]) == by_name.get(name, 0.0)
    assert torch.equal(data["nodes_in_graph"], data["neurons_in_graph"].any(1))
    assert data["cfg"]["d_model"] == 8
    written = json.loads(scores.to_eap_ig(tmp_path / "s.json").read_text())
    by_name = scores.to_dict()
    for key, wanted in (
        ("neurons", [[0.0] * 8] * len(sources)),  # without these, EAP-IG has nothing to choose in
        ("neurons_scores", [[by_name[f"{source}.d{i}"] for i in range(8)] for source in sources]),
    ):
        assert torch.equal(as_eap_ig_reads(written, key), torch.tensor(wanted))
    nodes = json.loads(unit_scores(NODES).to_eap_ig(tmp_path / "n.json", d_model=8).read_text())["nodes"]
    assert {name: node["score"] for name, node in nodes.items() if name != "logits"} == unit_scores(NODES).to_dict()


@pytest.mark.parametrize("ending", ENDINGS)
def test_parts_without_a_score_stay_without(tmp_path: Path, ending: str) -> None:
    """EAP-IG always keeps what it has no score of, so that 0 would be something else."""
    file = EAPIGFile.of(unit_scores(OUTPUTS), d_model=8)
    assert file.neuron_values is not None
    values = file.neuron_values.clone()
    values[0], values[3, 2] = torch.nan, torch.nan
    nodes = torch.arange(9.0)
    nodes[4] = torch.nan
    back = EAPIGFile.read(replace(file, neuron_values=values, node_values=nodes).write(tmp_path / f"c.{ending}"))
    for found, written in ((back.neuron_values, values), (back.node_values, nodes)):
        assert found is not None
        assert torch.equal(found.isnan(), written.isnan())
        assert torch.equal(found.nan_to_num(), written.nan_to_num())
    scores = Scores.from_eap_ig(tmp_path / f"c.{ending}")
    assert scores.values[:8].isnan().all()
    with pytest.raises(InputError, match="not finite"):
        scores.top(3)


def test_what_eap_ig_leaves_after_choosing_nodes_is_read(tmp_path: Path) -> None:
    """It marks whole rows, also where there is no edge; pruning leaves the columns of the nodes that are in."""
    chosen, data = unit_scores(NODES).top(4), pt_file()
    edges = replace(GRAPH)
    data["nodes_in_graph"], data["nodes_scores"] = chosen.mask, chosen.values
    data["edges_in_graph"] = chosen.mask[:, None] & edges.to_owned(chosen.mask)[None]
    data["edges_scores"] = torch.zeros_like(data["edges_scores"])
    assert bool((data["edges_in_graph"] & ~GRAPH.mask).any())
    back = Circuit.from_eap_ig(write_file(tmp_path / "c.pt", data))
    assert back.graph == NODES
    assert back.to_dict() == chosen.to_dict()
    del data["edges_scores"]  # MIB's own reader does without
    assert Circuit.from_eap_ig(write_file(tmp_path / "c.pt", data)).to_dict() == chosen.to_dict()


def test_nodes_and_edges_chosen_apart_are_refused(tmp_path: Path) -> None:
    file = EAPIGFile.of(unit_scores(NODES).top(4))
    path = replace(file, mask=torch.zeros_like(file.mask)).write(tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"c\.pt: the file has chosen nodes and edges"):
        Circuit.from_eap_ig(path)
    assert Circuit.from_eap_ig(path, GRAPH).size == 0


def test_levels_and_positions_that_eap_ig_does_not_have_are_refused(tmp_path: Path) -> None:
    neurons = Graph(2, 3, 3, level="neurons", d_head=4, d_mlp=16)
    with pytest.raises(InputError, match='level="outputs"'):
        Circuit.full(neurons).to_eap_ig(tmp_path / "c.pt")
    with pytest.raises(InputError, match="no positions"):
        Circuit.full(GRAPH.at(("0", "1"))).to_eap_ig(tmp_path / "c.pt")
    path = Circuit.full(GRAPH).to_eap_ig(tmp_path / "c.pt")
    with pytest.raises(InputError, match='level="outputs"'):
        Circuit.from_eap_ig(path, neurons)
    with pytest.raises(InputError, match="width 8"):
        Circuit.full(OUTPUTS).to_eap_ig(tmp_path / "o.pt", d_model=9)


# --- files of EAP-IG's, built by hand in each of its layouts ---


def json_file(old: bool = False) -> dict[str, Any]:
    sources, _ = eap_ig_names(2, 3)
    here = {"input", "a0.h1", "logits"}
    edges = {name: {"score": 0.0, "in_graph": False} for name in GRAPH.edges}
    edges["input->a0.h1<v>"] = {"score": 0.5, "in_graph": True}
    edges["a0.h1->logits"] = {"score": -0.25, "in_graph": True}
    edges["m0->m1"] = {"score": 0.125, "in_graph": False}
    cfg = {"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": False}
    names = [*sources, "logits"]
    if old:
        return {"cfg": cfg, "nodes": {name: name in here for name in names}, "edges": edges}
    return {"cfg": {**cfg, "d_model": 8}, "nodes": {n: {"in_graph": n in here} for n in names}, "edges": edges}


def pt_file(layout: str = "new") -> dict[str, Any]:
    sources, destinations = eap_ig_names(2, 3)
    scores, mask = torch.zeros(len(sources), len(destinations)), torch.zeros(len(sources), len(destinations)).bool()
    for name, edge in json_file()["edges"].items():
        u, v = name.split("->")
        scores[sources.index(u), destinations.index(v)] = edge["score"]
        mask[sources.index(u), destinations.index(v)] = edge["in_graph"]
    data: dict[str, Any] = {"cfg": json_file()["cfg"], "src_nodes": sources, "dst_nodes": destinations}
    flags = {name: name in ("input", "a0.h1") for name in sources}
    if layout == "new":
        return {
            **data,
            "edges_scores": scores,
            "edges_in_graph": mask,
            "nodes_in_graph": torch.tensor([*flags.values()]),
        }
    data["src_nodes"] = flags
    if layout == "middle":
        return {**data, "edges": scores, "edges_in_graph": mask}
    return {**data, "edges": scores.masked_fill(~mask, -torch.inf)}


def write_file(path: Path, data: Any) -> Path:
    if path.suffix == ".pt":
        torch.save(data, path)
    else:
        path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.json", json_file()),
        ("c.json", json_file(old=True)),
        ("c.pt", pt_file()),
        ("c.pt", pt_file("middle")),
        ("c.pt", pt_file("oldest")),
    ],
)
def test_every_layout_is_read(tmp_path: Path, name: str, data: dict[str, Any]) -> None:
    circuit = Circuit.from_eap_ig(write_file(tmp_path / name, data))
    assert circuit.graph == GRAPH
    assert circuit.to_dict() == {"input->a0.h1<v>": 0.5, "a0.h1->logits": -0.25}
    file = EAPIGFile.read(tmp_path / name)
    assert file.nodes.nonzero().flatten().tolist() == [0, 2]
    outside = file.values[GRAPH.edge_index("m0->m1")]
    assert float(outside) == (0.0 if "edges" in data and "edges_in_graph" not in data and name == "c.pt" else 0.125)


@pytest.mark.parametrize("ending", ENDINGS)
def test_flags_alone_make_a_circuit(tmp_path: Path, ending: str) -> None:
    """As in the circuits that MIB shows as examples."""
    data = json_file() if ending == "json" else without(pt_file(), "edges_scores")
    for edge in data.get("edges", {}).values():
        del edge["score"]
    circuit = Circuit.from_eap_ig(write_file(tmp_path / f"c.{ending}", data))
    assert set(circuit.edges) == {"input->a0.h1<v>", "a0.h1->logits"}
    assert circuit.values is None


def test_edges_without_a_score_may_say_null(tmp_path: Path) -> None:
    """EAP-IG's first graphs, before anything was attributed."""
    data = json_file(old=True)
    for edge in data["edges"].values():
        edge["score"] = None
    circuit = Circuit.from_eap_ig(write_file(tmp_path / "c.json", data))
    assert set(circuit.edges) == {"input->a0.h1<v>", "a0.h1->logits"}
    assert circuit.values is None


def test_rows_and_columns_are_found_by_name(tmp_path: Path) -> None:
    data, generator = pt_file(), torch.Generator().manual_seed(0)
    rows, columns = (torch.randperm(n, generator=generator) for n in data["edges_scores"].shape)
    for key in ("edges_scores", "edges_in_graph"):
        data[key] = data[key][rows][:, columns]
    data["nodes_in_graph"] = data["nodes_in_graph"][rows]
    data["src_nodes"] = [data["src_nodes"][i] for i in rows]
    data["dst_nodes"] = [data["dst_nodes"][i] for i in columns]
    circuit = Circuit.from_eap_ig(write_file(tmp_path / "c.pt", data))
    assert circuit.to_dict() == {"input->a0.h1<v>": 0.5, "a0.h1->logits": -0.25}
    assert EAPIGFile.read(tmp_path / "c.pt").nodes.nonzero().flatten().tolist() == [0, 2]


def test_other_number_types_are_read(tmp_path: Path) -> None:
    data = pt_file()
    data["edges_scores"] = data["edges_scores"].bfloat16()
    assert EAPIGFile.read(write_file(tmp_path / "c.pt", data)).values.dtype == torch.float32


def change(data: dict[str, Any], *keys: str, to: Any) -> dict[str, Any]:
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return data


def without(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return data


def changed(data: dict[str, Any], key: str, how: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {**data, key: how(data[key])}


def wide(data: dict[str, Any]) -> dict[str, Any]:
    data["nodes"]["m0"]["neurons"] = [True] * 8
    return change(data, "cfg", "d_model", to=10**12)


def narrow(data: dict[str, Any], neurons: Tensor | None = None) -> dict[str, Any]:
    """Without the model's width."""
    if neurons is None:
        data["nodes"]["m0"]["neurons"] = []
    else:
        data["neurons_scores"] = neurons
    return without(data, "cfg", "d_model")


def impossible() -> dict[str, Any]:
    data = pt_file()
    data["edges_in_graph"][-1, 0] = True
    return data


def nan_score() -> Tensor:
    scores = pt_file()["edges_scores"]
    scores[0, 0] = torch.nan
    return scores


DAMAGED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "list": ("json", lambda: [1, 2], "expected a mapping"),
    "no edges": ("json", lambda: without(json_file(), "edges"), "lacks 'edges'"),
    "no cfg": ("json", lambda: without(json_file(), "cfg"), "lacks 'cfg'"),
    "no n_heads": ("json", lambda: without(json_file(), "cfg", "n_heads"), "lacks 'n_heads'"),
    "wordy n_layers": ("json", lambda: change(json_file(), "cfg", "n_layers", to="two"), "whole numbers"),
    "absurd n_layers": ("json", lambda: change(json_file(), "cfg", "n_layers", to=10**12), "nodes beside the logits"),
    "numeric parallel": ("json", lambda: change(json_file(), "cfg", "parallel_attn_mlp", to=0), "parallel_attn_mlp"),
    "float width": ("json", lambda: change(json_file(), "cfg", "d_model", to=8.5), "d_model"),
    "negative width": ("json", lambda: change(json_file(), "cfg", "d_model", to=-8), "d_model"),
    "absurd width": ("json", lambda: wide(json_file()), "8 entries; expected 1000000000000"),
    "missing node": ("json", lambda: without(json_file(), "nodes", "m1"), "8 are named"),
    "strange node": ("json", lambda: change(without(json_file(), "nodes", "m1"), "nodes", "x", to=True), "no nodes of"),
    "strange edge": (
        "json",
        lambda: change(json_file(), "edges", "a->b", to={"score": 0, "in_graph": True}),
        "no edge",
    ),
    "backward edge": (
        "json",
        lambda: change(json_file(), "edges", "m1->a0.h0<q>", to={"score": 0, "in_graph": True}),
        "written after",
    ),
    "numeric flag": ("json", lambda: change(json_file(), "edges", "input->m0", "in_graph", to=1), "expected bool"),
    "no flag": ("json", lambda: without(json_file(), "edges", "input->m0", "in_graph"), "lacks 'in_graph'"),
    "wordy score": ("json", lambda: change(json_file(), "edges", "input->m0", "score", to="1"), "expected a number"),
    "no edge": ("json", lambda: change(json_file(), "edges", "input->m0", to=True), "expected a mapping"),
    "few heads": ("json", lambda: change(json_file(), "nodes", "a0.h0", "neurons", to=[[True] * 8] * 2), "expected 3"),
    "endless score": ("json", lambda: change(json_file(), "edges", "input->m0", "score", to=10**400), "not finite"),
    "endless node": ("json", lambda: change(json_file(), "nodes", "m0", "score", to=-(10**400)), "infinite"),
    "no width": ("json", lambda: narrow(json_file()), "0 entries; expected some"),
    "infinite score": ("json", lambda: change(json_file(), "edges", "input->m0", "score", to=1e999), "not finite"),
    "few neurons": ("json", lambda: change(json_file(), "nodes", "m0", "neurons", to=[True]), "expected 8"),
    "wordy neurons": ("json", lambda: change(json_file(), "nodes", "m0", "neurons", to=["x"] * 8), "expected a number"),
    "half a neuron": ("json", lambda: change(json_file(), "nodes", "m0", "neurons", to=[0.5] * 8), "true and false"),
    "pt list": ("pt", lambda: [1], "expected a mapping"),
    "pt nothing": ("pt", lambda: without(without(pt_file(), "edges_scores"), "edges_in_graph"), "lacks 'edges_scores'"),
    "pt no nodes": ("pt", lambda: without(pt_file(), "nodes_in_graph"), "lacks 'nodes_in_graph'"),
    "pt shape": ("pt", lambda: change(pt_file(), "edges_scores", to=torch.zeros(3, 3)), "expected a tensor of shape"),
    "pt no tensor": ("pt", lambda: change(pt_file(), "edges_in_graph", to=[[True]]), "expected a tensor"),
    "pt other names": ("pt", lambda: change(pt_file(), "dst_nodes", to=["m0"]), "dst_nodes"),
    "pt other sources": ("pt", lambda: change(pt_file(), "src_nodes", to=["m0"] * 9), "no nodes of"),
    "pt impossible edge": ("pt", impossible, "no such edge"),
    "pt nan": ("pt", lambda: change(pt_file(), "edges_scores", to=nan_score()), "not finite"),
    "pt half an edge": (
        "pt",
        lambda: change(pt_file(), "edges_in_graph", to=torch.full((9, 21), 0.5)),
        "true and false",
    ),
    "pt unclear node": (
        "pt",
        lambda: change(pt_file(), "nodes_in_graph", to=torch.full((9,), torch.nan)),
        "true and false",
    ),
    "pt sparse": ("pt", lambda: changed(pt_file(), "edges_scores", Tensor.to_sparse), "no plain tensor"),
    "pt complex": ("pt", lambda: changed(pt_file(), "edges_scores", lambda t: t + 0j), "no plain tensor"),
    "pt no data": ("pt", lambda: changed(pt_file(), "edges_scores", lambda t: t.to("meta")), "no plain tensor"),
    # a few bytes on disk, terabytes when copied
    "pt more than there is": ("pt", lambda: narrow(pt_file(), torch.zeros(1, 1).expand(9, 10**12)), "no plain tensor"),
    "pt few neurons": ("pt", lambda: change(pt_file(), "neurons_in_graph", to=torch.ones(9, 7)), "of shape [[]9, 8]"),
    "pt infinite node": ("pt", lambda: change(pt_file(), "nodes_scores", to=torch.full((9,), torch.inf)), "infinite"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, case: str) -> None:
    ending, data, message = DAMAGED[case]
    path = write_file(tmp_path / f"c.{ending}", data())
    with pytest.raises(FileFormatError, match=message) as caught:
        Circuit.from_eap_ig(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("contents", [b"", b"\xff\xfe\x00", b'{"cfg": {', b"[" * 100_000])
def test_foreign_bytes_are_refused(tmp_path: Path, ending: str, contents: bytes) -> None:
    path = tmp_path / f"c.{ending}"
    path.write_bytes(contents)
    with pytest.raises(FileFormatError):
        Circuit.from_eap_ig(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_off_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = Circuit.of(GRAPH, {"input->m0": 1.0}).to_eap_ig(tmp_path / f"c.{ending}", d_model=8)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileFormatError):
        Circuit.from_eap_ig(path)


class Planted:
    """Would create a file if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data, protocol=2))])
def test_pickled_code_never_runs(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    path = tmp_path / "c.pt"
    save({**pt_file(), "extra": Planted(tmp_path / "ran")}, path)
    with pytest.raises(FileFormatError):
        Circuit.from_eap_ig(path)
    assert not (tmp_path / "ran").exists()
