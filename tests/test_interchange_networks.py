"""networkx graphs and GraphML: what is in them, in plain values, and circuits back from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from test_interchange import CIRCUITS, EVERYWHERE, assert_same, components, everything, places

import sparse_circuits as sc
from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit
from sparse_circuits.circuit.formats.networks import write_node_link
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import FeatureGraph, Graph


@pytest.fixture(params=CIRCUITS)
def circuit(request: pytest.FixtureRequest) -> Any:
    return CIRCUITS[request.param]()


def wired() -> FeatureCircuit:
    """Features with edges between them, not in the order of their numbers."""
    circuit = everything(EVERYWHERE)
    u, d = torch.tensor([3, 1, 70, 0]), torch.tensor([40, 80, 90, EVERYWHERE.logits])
    values = torch.tensor([0.1, -0.2, 1e-30, -3.0])
    return FeatureCircuit(circuit.graph, circuit.node_ids, circuit.node_values, EdgeList(u, d, values), {"task": "t"})


def in_order(circuit: Any) -> Any:
    """With its edges in the order in which they are read back."""
    if not isinstance(circuit, FeatureCircuit):
        return circuit
    edges = circuit.edge_list
    order = torch.tensor(sorted(range(len(edges)), key=lambda i: (int(edges.sources[i]), int(edges.targets[i]))))
    return FeatureCircuit(circuit.graph, circuit.node_ids, circuit.node_values, edges[order], circuit.provenance)


def test_circuits_come_back_bit_for_bit(tmp_path: Path, circuit: Any) -> None:
    for back in (
        sc.Circuit.from_networkx(circuit.to_networkx()),
        sc.Circuit.from_graphml(circuit.to_graphml(tmp_path / "c.graphml")),
        sc.Circuit.from_networkx(
            networkx.node_link_graph(
                json.loads(write_node_link(circuit, tmp_path / "c.json").read_text()), edges="edges"
            )
        ),
    ):
        assert_same(back, in_order(circuit))


def test_feature_circuits_with_edges_come_back(tmp_path: Path) -> None:
    circuit = wired()
    assert_same(sc.Circuit.from_graphml(circuit.to_graphml(tmp_path / "c.graphml")), in_order(circuit))


def test_nodes_of_a_model_with_shared_keys_come_back(tmp_path: Path) -> None:
    """The groups that the edges between them lead into are none of the circuit's nodes."""
    circuit = components("nodes", n_kv=2)
    assert any(about["kind"] == "group" for _, about in circuit.to_networkx().nodes(data=True))
    assert_same(sc.Circuit.from_graphml(circuit.to_graphml(tmp_path / "c.graphml")), circuit)


@pytest.mark.parametrize("level", ["edges", "nodes", "neurons"])
def test_circuits_without_scores_come_back_without(tmp_path: Path, level: str) -> None:
    scored = components(level)
    circuit = sc.Circuit(scored.graph, scored.mask, None, {"made": ["by", "hand"]})
    back = sc.Circuit.from_graphml(circuit.to_graphml(tmp_path / "c.graphml"))
    assert back.values is None
    assert torch.equal(back.mask, circuit.mask)
    assert back.provenance == circuit.provenance
    names = FeatureCircuit.of(EVERYWHERE, ["attn_1.f3", "resid_0.error"])
    assert sc.Circuit.from_graphml(names.to_graphml(tmp_path / "f.graphml")).node_values is None  # pyright: ignore


def test_nodes_and_edges_are_the_circuits(circuit: Any) -> None:
    graph = circuit.to_networkx()
    assert isinstance(graph, networkx.MultiDiGraph)
    if isinstance(circuit, FeatureCircuit):
        assert set(graph) == {*circuit.nodes, "logits"}
    elif circuit.graph.level == "edges":
        kinds = networkx.get_node_attributes(graph, "kind")
        assert {name for name in graph if kinds[name] != "group"} == set(circuit.nodes)
    named = {data["name"]: data.get("score") for *_, data in graph.edges(data=True) if "name" in data}
    if isinstance(circuit, FeatureCircuit):
        assert named == circuit.to_dict("edges")
    elif circuit.graph.level == "edges":
        assert named == circuit.to_dict()
    elif circuit.graph.level == "nodes":
        assert set(named) == set(circuit.edges)
        assert set(named.values()) == {None}
    else:
        assert not named
        assert set(graph) == set(circuit.names)
    plain = (str, int, float, bool)
    assert all(type(value) in plain for _, data in graph.nodes(data=True) for value in data.values())
    assert all(type(value) in plain for *_, data in graph.edges(data=True) for value in data.values())
    assert networkx.is_directed_acyclic_graph(graph)


def test_what_is_said_of_nodes_and_edges() -> None:
    graph = Graph(3, 4, 2, positions=("subject", "last"))
    names = {
        "input@subject->a1.h3<q>@subject": -1.0, "input@last->a1.g1<k>@subject": 0.5, "a1.h3@subject->m2@subject": 2.0,
        "m2@last->logits@last": -0.25, "input@last->m2@last": 1.0,
    }  # fmt: skip
    found = sc.Circuit.of(graph, names).to_networkx()
    assert found.nodes["a1.h3@subject"] == {"kind": "head", "layer": 1, "head": 3, "position": "subject"}
    assert found.nodes["a1.g1@subject"] == {"kind": "group", "layer": 1, "position": "subject"}
    assert found.nodes["m2@last"] == {"kind": "mlp", "layer": 2, "position": "last"}
    assert found.nodes["input@last"] == {"kind": "input", "position": "last"}
    assert found.nodes["logits@last"] == {"kind": "logits", "position": "last"}
    assert found.edges["input@subject", "a1.h3@subject", "q"] == {
        "name": "input@subject->a1.h3<q>@subject",
        "read": "q",
        "score": -1.0,
    }
    assert found.edges["input@last", "a1.g1@subject", "k"]["score"] == 0.5
    assert found.edges["a1.g1@subject", "a1.h3@subject", ""] == {"read": ""}
    of_features = everything(EVERYWHERE).to_networkx()
    score = of_features.nodes["attn_1.f3"].pop("score")
    assert score == everything(EVERYWHERE).to_dict()["attn_1.f3"]
    assert of_features.nodes["attn_1.f3"] == {"kind": "feature", "site": "attn_1", "layer": 1, "index": 3}
    for name, about in {
        "transcoder_1.error": {"kind": "error", "site": "transcoder_1", "layer": 1},
        "embed.f2": {"kind": "feature", "site": "embed", "index": 2},
        "a1.h2": {"kind": "head", "layer": 1, "head": 2},
        "mlp_2": {"kind": "site", "site": "mlp_2", "layer": 2},
    }.items():
        assert about.items() <= of_features.nodes[name].items()
        assert set(of_features.nodes[name]) - {"score"} == set(about)
    neurons = components("neurons").to_networkx()
    assert {"kind": "neuron", "layer": 2, "index": 6}.items() <= neurons.nodes["m2.n6"].items()
    assert {"kind": "neuron", "layer": 1, "head": 3, "index": 2}.items() <= neurons.nodes["a1.h3.n2"].items()
    assert {"kind": "dimension", "layer": 0, "index": 4}.items() <= components("outputs").to_networkx().nodes[
        "m0.d4"
    ].items()


def test_features_too_large_for_an_attribution_graph_are_fine_here() -> None:
    graph = FeatureGraph(places(("transcoder_0", 10**9)), 1, 8)
    circuit = FeatureCircuit.of(graph, {f"transcoder_0.f{10**9 - 1}": 1.0})
    assert sc.Circuit.from_networkx(circuit.to_networkx()).nodes == circuit.nodes


def test_three_inputs_of_one_head_are_three_edges() -> None:
    circuit = sc.Circuit.of(Graph(1, 2, 2), {f"input->a0.h1<{which}>": i - 1.0 for i, which in enumerate("qkv")})
    graph = circuit.to_networkx()
    assert graph.number_of_edges("input", "a0.h1") == 3
    assert {key: data["score"] for _, _, key, data in graph.edges(keys=True, data=True)} == {
        "q": -1.0,
        "k": 0.0,
        "v": 1.0,
    }


def test_a_graph_that_was_cut_is_the_smaller_circuit() -> None:
    circuit = components("edges")
    graph = circuit.to_networkx()
    graph.remove_node("m1")
    back = sc.Circuit.from_networkx(graph)
    assert set(back.edges) == {e for e in circuit.edges if "m1" not in e.split("->")}
    features = wired().to_networkx()
    features.remove_nodes_from([name for name in list(features) if name.startswith("attn")])
    left = sc.Circuit.from_networkx(features)
    assert set(left.nodes) == {name for name in wired().nodes if not name.startswith("attn")}
    assert set(left.edges) <= set(wired().edges)


def test_graphml_is_what_other_readers_take(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    path = components("edges", n_kv=2).to_graphml(tmp_path / "c.graphml")
    tree = ElementTree.parse(path)
    space = "{http://graphml.graphdrawing.org/xmlns}"
    ids = [edge.get("id") for edge in tree.iter(f"{space}edge")]
    assert len(set(ids)) == len(ids)
    assert set(components("edges", n_kv=2).edges) <= set(ids)
    types = {key.get("attr.name"): key.get("attr.type") for key in tree.iter(f"{space}key")}
    assert types["score"] == "double"
    assert types["kind"] == types["read"] == types["name"] == "string"
    assert types["layer"] in ("int", "long")


def test_other_graphs_and_files_are_refused(tmp_path: Path) -> None:
    for graph in (networkx.DiGraph(), networkx.MultiDiGraph(sparse_circuits="{"), "graph", None):
        with pytest.raises(InputError, match="no graph of a circuit"):
            sc.Circuit.from_networkx(graph)
    with pytest.raises(
        InputError, match="expected a MultiDiGraph"
    ):  # which would have lost two of a head's three edges
        sc.Circuit.from_networkx(networkx.DiGraph(components("edges").to_networkx()))
    graph = components("edges").to_networkx()
    graph.add_edge("m2", "m0", name="m2->m0", score=1.0)
    with pytest.raises(InputError, match="written after"):
        sc.Circuit.from_networkx(graph)
    graph = components("nodes").to_networkx()
    del graph.nodes["m1"]["score"]
    with pytest.raises(InputError, match="'m1' has no score"):
        sc.Circuit.from_networkx(graph)
    graph.nodes["m1"]["score"] = "x"
    with pytest.raises(InputError, match="'m1' has the score 'x'"):
        sc.Circuit.from_networkx(graph)
    graph.remove_node("m1")
    graph.add_node(7, score=1.0)
    with pytest.raises(InputError, match="7 is no name"):
        sc.Circuit.from_networkx(graph)
    for made in (components("edges"), wired()):
        graph = made.to_networkx()
        source, target, about = next(edge for edge in graph.edges(data=True) if "name" in edge[2])
        graph.add_edge(source, target, key="again", **about)
        with pytest.raises(InputError, match="comes twice"):
            sc.Circuit.from_networkx(graph)
    graph.graph["sparse_circuits"] = json.dumps({**json.loads(graph.graph["sparse_circuits"]), "version": 7})
    with pytest.raises(InputError, match="version 7"):
        sc.Circuit.from_networkx(graph)
    path = tmp_path / "c.graphml"
    with pytest.raises(InputError, match="No file"):
        sc.Circuit.from_graphml(path)
    whole = components("edges").to_graphml(path).read_bytes()
    networkx.write_graphml(networkx.DiGraph([(1, 2)]), tmp_path / "other.graphml")
    for contents in (b"", b"<graphml>", b"{}", whole[:-200], (tmp_path / "other.graphml").read_bytes()):
        path.write_bytes(contents)
        with pytest.raises(FileFormatError, match=r"c\.graphml"):
            sc.Circuit.from_graphml(path)
    with pytest.raises(InputError, match="no folder"):
        components("nodes").to_graphml(tmp_path / "none" / "c.graphml")
    with pytest.raises(InputError, match="character that XML does not have"):
        components("nodes", ("a\x01b", "c")).to_graphml(tmp_path / "none.graphml")
    assert not (tmp_path / "none.graphml").exists()


@pytest.mark.parametrize("made", [components("edges"), wired()], ids=["components", "features"])
def test_a_damaged_attribute_is_refused(made: Any) -> None:
    graph = made.to_networkx()
    own = json.loads(graph.graph["sparse_circuits"])
    changes = [{key: value} for key in own for value in (None, 5, "x")]
    changes += [{"graph": {**own["graph"], key: value}} for key in own["graph"] for value in (None, "x", 1.5, [[]])]
    for change in changes:
        graph.graph["sparse_circuits"] = json.dumps({**own, **change})
        with pytest.raises(InputError):
            sc.Circuit.from_networkx(graph)


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    own = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    for declared, used in ((f'<!ENTITY e0 "lol">{own}', "e9"), ('<!ENTITY e SYSTEM "file:///etc/hostname">', "e")):
        path = tmp_path / "c.graphml"
        path.write_text(f"<?xml version='1.0'?><!DOCTYPE g [{declared}]><graphml>&{used};</graphml>")
        with pytest.raises(FileFormatError, match=r"c\.graphml is not GraphML"):
            sc.Circuit.from_graphml(path)


def test_unscored_parts_of_imported_circuits(tmp_path: Path) -> None:
    """EAP-IG's files may lack the score of a node, which is NaN here, and null in JSON."""
    graph = Graph(2, 2, 2, level="nodes")
    circuit = sc.Circuit.of(graph, {"a0.h0": float("nan"), "m1": -1.0})
    text = write_node_link(circuit, tmp_path / "c.json").read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    for back in (
        sc.Circuit.from_networkx(networkx.node_link_graph(content, edges="edges")),
        sc.Circuit.from_graphml(circuit.to_graphml(tmp_path / "c.graphml")),
    ):
        assert torch.equal(back.mask, circuit.mask)  # pyright: ignore[reportAttributeAccessIssue]
        assert str(back.to_dict()) == str(circuit.to_dict())
