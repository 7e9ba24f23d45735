"""The explorer's page as Python makes it: what it says of a circuit, at which size, where, and that nothing can break it."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.features import Feature
from sparse_circuits.view.explorer import Page, explore
from sparse_circuits.view.explorer.known import add_meanings
from sparse_circuits.view.explorer.page import SCRIPTS
from sparse_circuits.view.explorer.steps import sizes_up_to

EXPLORER = Path(sc.__file__).parent / "view" / "explorer"
EVIL = "</script><img src=x onerror=alert(1)>\u2028<!--"


def data_of(page: Page) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)
    assert found
    return json.loads(found[1])


def component_scores(seed: int = 0, *, n_kv: int = 4, **options: Any) -> sc.Scores:
    graph = sc.Graph(n_layers=3, n_heads=4, n_kv=n_kv, **options)
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(seed)) * graph.mask
    known = {"task": "t", "model": "m", "method": f"random {seed}"}
    return sc.Scores(graph, values, torch.ones(4), torch.zeros(4), provenance=known)


@pytest.fixture(scope="module")
def feature_scores() -> sc.FeatureScores:
    """Random scores of the bundled model's feature graph: what is tested needs no attribution."""
    model = sc.load_model("toy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = sc.Graph.of(model, sc.load_dictionaries("neurons", model, sites=["resid"]))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randperm(graph.size, generator=generator)[:80].sort().values
    ends = [(u, d) for u in ids.tolist() for d in ids.tolist() if graph.place_of(u) + 1 == graph.place_of(d)]
    ends += [(u, graph.logits) for u in ids.tolist() if graph.place_of(u) == len(graph.places) - 1]
    sources, targets = torch.tensor(ends).T
    edges = EdgeList(sources, targets, torch.randn(len(ends), generator=generator))
    values = torch.randn(len(ids), generator=generator)
    known = {"task": "t", "model": "toy", "method": "random"}
    return sc.FeatureScores(graph, ids, values, edges, torch.ones(4), torch.zeros(4), provenance=known)


def edges_at(data: dict[str, Any], step: int, key: str = "at") -> set[str]:
    edges = data["edges"]
    columns = zip(edges["u"], edges["p"], edges[key], strict=True)
    return {f"{data['nodes'][u]['name']}->{data['ports'][p]['name']}" for u, p, at in columns if 0 <= at <= step}


def nodes_at(data: dict[str, Any], step: int) -> set[str]:
    ends = ("input", "logits")
    return {n["name"] for n in data["nodes"] if 0 <= n["at"] <= step and n["role"] not in ends}


# --- what is there at each size ---


@pytest.mark.parametrize("select", ["greedy", "top"])
@pytest.mark.parametrize(
    "options",
    [{}, {"n_kv": 2}, {"parallel": True}, {"has_mlp": False}, {"positions": ("0", "1", "2"), "causal": True}],
    ids=["plain", "grouped", "parallel", "attention only", "positions"],
)
def test_every_step_is_the_circuit_of_that_size(select: str, options: dict[str, Any]) -> None:
    scores = component_scores(**options)
    data = data_of(explore(scores, select=select, max_size=120))
    for step, size in enumerate(data["steps"]):
        circuit = getattr(scores, select)(size)
        assert edges_at(data, step) == set(circuit.edges)
        assert data["sizes"][0][step] == circuit.size
        bars = {name for name in circuit.nodes if name.partition("@")[0] in ("input", "logits")}
        assert nodes_at(data, step) == set(circuit.nodes) - bars


def test_a_circuit_is_shown_whole_at_the_end_and_grown_as_it_was_chosen() -> None:
    scores = component_scores()
    circuit = scores.greedy(60)
    data = data_of(explore(circuit))
    assert data["start"] == len(data["steps"]) - 1
    assert edges_at(data, data["start"]) == set(circuit.edges)
    half = data["steps"].index(30)
    assert edges_at(data, half) <= set(circuit.edges)
    assert len(edges_at(data, half)) > 20  # grown from the logits, little of it dangles


def test_what_dangles_in_a_circuit_made_of_names_is_shown() -> None:
    graph = component_scores().graph
    circuit = sc.Circuit.of(graph, {"a0.h1->a1.h2<k>": -1.0, "m0->logits": 0.5})
    data = data_of(explore(circuit))
    assert edges_at(data, len(data["steps"]) - 1) == set(circuit.edges)
    unscored = data_of(explore(sc.Circuit.of(graph, ["a0.h1->a1.h2<k>"])))
    assert unscored["scored"] == [False, False]
    without_order = data_of(explore(sc.Circuit.of(graph, list(circuit.edges))))
    assert (without_order["steps"], without_order["sizes"]) == ([2], [[2]])
    assert edges_at(unscored, 0) == {"a0.h1->a1.h2<k>"}


@pytest.mark.parametrize("level", ["nodes", "outputs", "neurons"])
def test_other_levels_show_nodes_and_their_units(level: str) -> None:
    sizes = {"outputs": {"d_model": 8}, "neurons": {"d_head": 4, "d_mlp": 16}}.get(level, {})
    scores = component_scores(level=level, **sizes)
    data = data_of(explore(scores, max_size=30 if level != "nodes" else 10))
    for step, size in enumerate(data["steps"]):
        circuit = scores.top(size)
        present = {
            n["name"] for n in data["nodes"] if 0 <= n["at"] <= step and (n["role"] != "input" or n["s"] is not None)
        }
        there = {name for name in circuit.nodes if name != "logits" and name != "input"}
        assert present - {"input", "logits"} == there
        units = {unit["name"] for n in data["nodes"] for unit in n.get("units", []) if 0 <= unit["at"] <= step}
        assert level == "nodes" or units == set(circuit.names)


def test_units_of_two_circuits_are_told_apart() -> None:
    scores = component_scores(level="neurons", d_head=4, d_mlp=16)
    one, other = scores.top(30), scores.top(12)
    data = data_of(explore(one, compare=other))
    units = {unit["name"]: unit for node in data["nodes"] for unit in node.get("units", [])}
    assert set(units) == set(one.names)
    assert {name for name, unit in units.items() if unit["at2"] >= 0} == set(other.names)
    for name, value in other.to_dict().items():
        assert units[name]["s2"] == pytest.approx(value, rel=1e-3)


def test_features_enter_by_their_strength(feature_scores: sc.FeatureScores) -> None:
    data = data_of(explore(feature_scores, max_size=60))
    for step, size in enumerate(data["steps"]):
        circuit = feature_scores.top(size)
        assert nodes_at(data, step) == set(circuit.nodes)
        assert edges_at(data, step) == set(circuit.edges)
    by_name = feature_scores.to_dict("nodes")
    for node in data["nodes"]:
        if node["role"] != "logits":
            assert node["s"] == pytest.approx(by_name[node["name"]], rel=1e-3)


def test_scores_of_edges_and_sums_of_nodes() -> None:
    scores = component_scores()
    data, known = data_of(explore(scores, max_size=80)), scores.to_dict()
    edges = data["edges"]
    for u, p, s in zip(edges["u"], edges["p"], edges["s"], strict=True):
        assert s == pytest.approx(known[f"{data['nodes'][u]['name']}->{data['ports'][p]['name']}"], rel=1e-3)
    assert edges["s"] == sorted(edges["s"], key=abs, reverse=True)
    sums = dict(zip(scores.graph.rows, scores.values.sum(1).tolist(), strict=True))
    heads = [node for node in data["nodes"] if node["role"] == "head"]
    assert heads
    assert all(node["s"] == pytest.approx(sums[node["name"]], rel=1e-3) for node in heads)


@pytest.mark.parametrize("n", [0, 1, 7, 60, 4321])
def test_sizes_grow_to_the_end(n: int) -> None:
    sizes = sizes_up_to(n, [17, 99_999, 0])
    assert sizes[-1] == n
    assert list(sizes) == sorted(set(sizes))
    assert len(sizes) < 160
    assert n < 60 or {10, 17, 50, 60} <= set(sizes)


def test_an_empty_circuit_has_a_page() -> None:
    graph = component_scores().graph
    data = data_of(explore(sc.Circuit.of(graph, [])))
    assert data["steps"] == [0]
    assert data["edges"]["u"] == []


# --- where ---


def test_computation_runs_upwards_and_nothing_overlaps() -> None:
    data = data_of(explore(component_scores(), max_size=150))
    nodes = {node["name"]: node for node in data["nodes"]}
    assert nodes["logits"]["y"] < nodes["a2.h0"]["y"] < nodes["m0"]["y"] < nodes["a0.h0"]["y"] < nodes["input"]["y"]
    boxes = list(nodes.values())
    for i, a in enumerate(boxes):
        assert 0 <= a["x"] <= data["frame"]["width"]
        assert 0 <= a["y"] <= data["frame"]["height"]
        for b in boxes[i + 1 :]:
            apart = abs(a["x"] - b["x"]) >= (a["w"] + b["w"]) / 2, abs(a["y"] - b["y"]) >= (a["h"] + b["h"]) / 2
            assert any(apart)


def test_edges_run_from_their_source_to_their_port() -> None:
    data = data_of(explore(component_scores(n_kv=2), max_size=150))
    edges = data["edges"]
    for u, p, course in zip(edges["u"], edges["p"], edges["course"], strict=True):
        source, port = data["nodes"][u], data["ports"][p]
        assert len(course) % 6 == 2
        assert abs(course[0] - source["x"]) <= source["w"] / 2
        assert course[1] == pytest.approx(source["y"] - source["h"] / 2, abs=1.5)
        assert course[-1] == pytest.approx(port["y"] + port["h"] / 2, abs=1.5)
        assert course[1::2] == sorted(course[1::2], reverse=True)


def test_queries_keys_and_values_are_told_apart_and_shared_ones_have_all_their_heads() -> None:
    data = data_of(explore(component_scores(n_kv=2), max_size=200))
    for port in data["ports"]:
        kind = re.search(r"<([qkv])>", port["name"])
        assert data["kinds"][port["kind"]] == (kind[1] if kind else "plain")
        owners = [data["nodes"][i]["name"] for i in port["owners"]]
        if ".g" in port["name"]:
            layer, group = re.match(r"a(\d+)\.g(\d+)", port["name"]).groups()  # pyright: ignore[reportOptionalMemberAccess]
            assert set(owners) <= {f"a{layer}.h{2 * int(group) + i}" for i in (0, 1)}
            assert owners
        else:
            assert owners == [port["name"].partition("<")[0]]


# --- two circuits ---


def test_two_circuits_share_places_and_keep_their_scores() -> None:
    a, b = component_scores(0), component_scores(1)
    data = data_of(explore(a.greedy(40), compare=b.top(70)))
    last = len(data["steps"]) - 1
    assert edges_at(data, last, "at") == set(a.greedy(40).edges)
    assert edges_at(data, last, "at2") == set(b.top(70).edges)
    assert data["labels"] == ["random 0", "random 1"]
    assert data["two"]
    for i, (u, p) in enumerate(zip(data["edges"]["u"], data["edges"]["p"], strict=True)):
        name = f"{data['nodes'][u]['name']}->{data['ports'][p]['name']}"
        for key, scores, at in (("s", a, "at"), ("s2", b, "at2")):
            if data["edges"][at][i] >= 0:
                assert data["edges"][key][i] == pytest.approx(scores.to_dict()[name], rel=1e-3)


def test_features_are_compared_too(feature_scores: sc.FeatureScores) -> None:
    a, b = feature_scores.top(20), feature_scores.threshold(nodes=0.2, edges=0.1)
    data = data_of(explore(a, compare=b, labels=("few", "many")))
    last = len(data["steps"]) - 1
    assert edges_at(data, last, "at") == set(a.edges)
    assert edges_at(data, last, "at2") == set(b.edges)
    assert data["labels"] == ["few", "many"]


# --- the curve, meanings, state ---


def evaluation(circuit: Any, value: float) -> sc.Evaluation:
    ones = torch.ones(6) + 0.01 * torch.arange(6)
    return sc.Evaluation(circuit, value * ones, ones, 0 * ones, None, "patch")


def test_the_curve_is_on_the_slider() -> None:
    scores = component_scores()
    asked = (10, 37, 150)
    curve = sc.Curve(asked, tuple(evaluation(scores.greedy(n), n / 200) for n in asked))
    data = data_of(explore(scores, curve=curve))
    assert set(asked) <= set(data["steps"])
    assert [point["x"] for point in data["curves"][0]["points"]] == list(asked)
    assert [point["value"] for point in data["curves"][0]["points"]] == pytest.approx([n / 200 for n in asked])
    assert [point["size"] for point in data["curves"][0]["points"]] == [scores.greedy(n).size for n in asked]
    with pytest.raises(sc.InputError, match=r"explore\(curve=...\) is of other circuits"):
        explore(scores, curve=curve, select="top")


def test_of_two_circuits_both_curves_are_there() -> None:
    a, b = component_scores(0), component_scores(1)
    one = sc.Curve((10, 40), tuple(evaluation(a.greedy(n), 0.5) for n in (10, 40)))
    other = sc.Curve((25, 60), tuple(evaluation(b.greedy(n), 0.25) for n in (25, 60)))
    data = data_of(explore(a, compare=b, curve=(one, other)))
    assert [[p["x"] for p in curve["points"]] for curve in data["curves"]] == [[10, 40], [25, 60]]
    assert [[p["value"] for p in curve["points"]] for curve in data["curves"]] == [[0.5, 0.5], [0.25, 0.25]]
    assert {10, 25, 40, 60} <= set(data["steps"])
    assert data_of(explore(a, compare=b, curve=(None, other)))["curves"][0] is None
    assert data_of(explore(a, compare=b, curve=one))["curves"][1] is None
    few, many = a.greedy(20), b.top(50)
    data = data_of(explore(few, compare=many, evaluation=(evaluation(few, 0.5), evaluation(many, 0.75))))
    assert [(e["x"], e["value"]) for e in data["evaluations"]] == [(few.size, 0.5), (many.size, 0.75)]
    with pytest.raises(sc.InputError, match=r"explore\(curve=...\) is of other circuits"):
        explore(a, compare=b, curve=(None, one))
    for wrong in ((one, other), (one,), (one, one, one)):
        with pytest.raises(sc.InputError, match=r"explore\(curve=...\): expected one, or with compare= a pair"):
            explore(a, curve=wrong)  # pyright: ignore[reportArgumentType]


def test_the_evaluated_circuit_of_scores_is_where_the_slider_starts() -> None:
    scores = component_scores()
    circuit = scores.greedy(37)
    draws = tuple(evaluation(circuit, 0.01 * i) for i in range(20))
    data = data_of(explore(scores, evaluation=evaluation(circuit, 0.5), baseline=sc.Baseline(circuit.size, draws)))
    assert data["steps"][data["start"]] == 37
    assert edges_at(data, data["start"]) == set(circuit.edges)
    assert (data["evaluations"][0]["x"], data["evaluations"][0]["size"]) == (37, circuit.size)
    assert data["random"]["value"] == pytest.approx(0.095, abs=1e-6)
    assert data["random"]["size"] == circuit.size
    assert data["random"]["draws"] == 20
    with pytest.raises(sc.InputError, match=r"explore\(evaluation=...\) is of other circuits"):
        explore(scores, evaluation=evaluation(circuit, 0.5), select="top")
    with pytest.raises(sc.InputError, match=r"explore\(evaluation=...\) is of a circuit of \d+, and this one has"):
        explore(scores.greedy(20), evaluation=evaluation(circuit, 0.5))


def test_only_the_strongest_edges_are_drawn_where_there_are_more(feature_scores: sc.FeatureScores) -> None:
    for scores in (component_scores(), feature_scores):
        whole, part = (data_of(explore(scores, max_size=60, max_edges=n)) for n in (5000, 15))
        n = len(whole["edges"]["u"])
        assert n > 15
        assert whole["leftOut"] == [[0] * len(whole["steps"])]
        assert part["leftOut"][0][-1] == n - 15
        assert part["edges"]["s"] == whole["edges"]["s"][:15]
        assert part["sizes"] == whole["sizes"]
        assert {node["name"]: node["at"] for node in part["nodes"]} == {n["name"]: n["at"] for n in whole["nodes"]}


def test_the_evaluated_circuits_edges_are_drawn_before_stronger_ones_of_larger_circuits(
    feature_scores: sc.FeatureScores,
) -> None:
    """And what is left out is counted at each size."""
    components = component_scores()
    for scores, circuit in ((components, components.greedy(20)), (feature_scores, feature_scores.top(20))):
        asked = 20
        known = evaluation(replace(circuit, provenance={"selection": {"n": asked}}), 0.5)
        whole, part = (
            data_of(explore(scores, evaluation=known, max_size=60, max_edges=n)) for n in (5000, len(circuit.edges) + 5)
        )
        start = part["steps"].index(asked)
        assert edges_at(part, start) == edges_at(whole, start) == set(circuit.edges)
        assert len(part["edges"]["u"]) == len(circuit.edges) + 5
        for step in range(len(part["steps"])):
            assert part["leftOut"][0][step] == len(edges_at(whole, step)) - len(edges_at(part, step))


def test_pages_of_one_circuit_are_known_as_one(feature_scores: sc.FeatureScores) -> None:
    """Notes are found again, whatever the page shows of it; those on another circuit are not."""
    for scores in (component_scores(), feature_scores):
        ways = [{}, {"max_size": 30}, {"max_edges": 10}, {"select": "top"}, {"title": "Another"}]
        assert len({data_of(explore(scores, **way))["id"] for way in ways}) == 1
        circuits = [scores.top(20), scores.top(60)]
        assert len({data_of(explore(shown))["id"] for shown in (scores, *circuits)}) == 3
        ways = [{}, {"max_size": 5}, {"max_edges": 3}]
        assert len({data_of(explore(circuits[0], **way))["id"] for way in ways}) == 1
        assert data_of(explore(scores, compare=circuits[0]))["id"] != data_of(explore(scores))["id"]
    other = replace(feature_scores, provenance={**feature_scores.provenance, "task_hash": "other"})
    assert data_of(explore(other))["id"] != data_of(explore(feature_scores))["id"]


def test_features_of_different_dictionaries_are_not_taken_for_the_same(feature_scores: sc.FeatureScores) -> None:
    graph = feature_scores.graph
    places = tuple(replace(place, dictionary_id=f"other/{place.name}") for place in graph.places)
    other = replace(feature_scores, graph=replace(graph, places=places))
    with pytest.raises(sc.InputError, match=r"explore\(compare=...\) has another dictionary at resid_0, other/resid_0"):
        explore(feature_scores, compare=other)


def test_a_number_is_rounded_once() -> None:
    """0.63499 is 0.63 in two digits; in four it would be 0.635, and that 0.64."""
    scores = component_scores()
    data = data_of(explore(scores, evaluation=evaluation(scores.greedy(37), 0.63499)))
    assert data["evaluations"][0]["value"] == pytest.approx(0.63499, rel=1e-6)


@pytest.mark.parametrize("level", ["neurons", "outputs"])
def test_meanings_of_units_are_in_the_page(level: str, tmp_path: Path) -> None:
    graph = sc.Graph(n_layers=2, n_heads=2, n_kv=2, d_head=4, d_mlp=6, d_model=8, level=level)
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.mask
    scores = sc.Scores(graph, values, torch.ones(4), torch.zeros(4), provenance={"task": "t", "model": "m"})
    name = scores.top(1).names[0]
    page = explore(scores, tmp_path / "page.html", meanings={name: {"label": "known"}, "elsewhere": {"label": "no"}})
    assert data_of(page)["meanings"] == {name: {"label": "known"}}
    add_meanings(tmp_path / "page.html", {name: {"label": "better known"}})
    assert '{"label":"better known"}' in (tmp_path / "page.html").read_text()


def test_a_model_and_the_same_one_edited_are_compared() -> None:
    """Scores before and after an edit are of the same graph, and both sides keep their own."""
    pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    model = sc.load_model("toy")
    method, sizes = sc.EAPIG(steps=2, path="activations"), (10, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task, saes = (
            sc.load_task("sva-across-rc", model, n=8),
            sc.load_dictionaries("toy", model, sites=["mlp_2", "resid_3"]),
        )
        scores, curves = [], []
        for one in (model, sc.ablate_features(model, saes, ["mlp_2.f215"])):
            found = sc.attribute(one, sc.Graph.of(one, saes), task, method, nodes_above=0.2)
            curves.append(sc.faithfulness_curve(one, found, task, sizes, dictionaries=saes))
            scores.append(found)
    data = data_of(explore(scores[0], compare=scores[1], curve=(curves[0], curves[1]), labels=("before", "after")))
    step = data["steps"].index(40)
    ends = {
        key: {n["name"] for n in data["nodes"] if 0 <= n[key] <= step and n["role"] != "logits"}
        for key in ("at", "at2")
    }
    assert ends["at"] == set(scores[0].top(40).nodes)
    assert ends["at2"] == set(scores[1].top(40).nodes)
    assert ends["at"] != ends["at2"]
    assert edges_at(data, step, "at2") == set(scores[1].top(40).edges)


def test_meanings_belong_to_nodes_also_at_positions_and_hold_only_json() -> None:
    scores = component_scores(positions=("0", "1"), causal=True)
    meanings = {
        "m0": {"label": "all of it", "density": float("nan")},
        "a0.h0@1": {"label": "here"},
        "no such": {"label": "x"},
    }
    data = data_of(explore(scores, meanings=meanings, max_size=200))
    assert data["meanings"]["m0@0"] == data["meanings"]["m0@1"] == {"label": "all of it", "density": None}
    assert "no such" not in data["meanings"]
    known = Feature("m0", tokens=10, fired=5, promoted=((EVIL, 1.0),))  # what feature_pages returns
    assert data_of(explore(scores, meanings={"m0": known}))["meanings"]["m0@0"]["promoted"] == [[EVIL, 1.0]]
    with pytest.raises(sc.InputError, match=r"of 'm0' does not fit into JSON"):
        explore(scores, meanings={"m0": {"label": object()}})
    with pytest.raises(sc.InputError, match=r"of 'm0' there is a str; expected a mapping"):
        explore(scores, meanings={"m0": "text"})  # pyright: ignore[reportArgumentType]
    with pytest.raises(sc.InputError, match="expected a mapping from names of nodes"):
        explore(scores, meanings=["m0"])  # pyright: ignore[reportArgumentType]


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    state = {"format": "sparse-circuits explorer state", "version": 1, "pins": ["m0"], "notes": {"m0": EVIL}}
    file = tmp_path / "notes.json"
    file.write_text(json.dumps(state))
    assert data_of(explore(component_scores(), state=file))["state"] == state
    assert data_of(explore(component_scores(), state=state))["state"] == state
    file.write_text("[]")
    with pytest.raises(sc.FileFormatError, match="no saved state of the explorer"):
        explore(component_scores(), state=file)
    file.write_text("{")
    with pytest.raises(sc.FileFormatError, match="no saved state of the explorer"):
        explore(component_scores(), state=file)
    for damaged in ({"pins": {"m0"}}, {"size": float("nan")}):
        with pytest.raises(sc.FileFormatError, match="does not fit into JSON"):
            explore(component_scores(), state={**state, **damaged})
    with pytest.raises(sc.InputError, match="there is no file"):
        explore(component_scores(), state=tmp_path / "none.json")


# --- the file ---


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags_of(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def test_no_text_can_break_out_of_the_page() -> None:
    scores = component_scores(positions=(EVIL, "b"))
    meanings = {
        "m0": {"label": EVIL, "promoted": [[EVIL, 1.0]], "contexts": [{"tokens": [EVIL], "activations": [1.0]}]}
    }
    page = explore(
        scores,
        title=EVIL + "{{data}}",
        meanings=meanings,
        labels=(EVIL, EVIL),
        compare=component_scores(1, positions=(EVIL, "b")),
    )
    plain = explore(component_scores())
    assert [tag for tag, _ in tags_of(page.html)] == [tag for tag, _ in tags_of(plain.html)]
    data = data_of(page)
    assert data["title"] == EVIL + "{{data}}"
    assert data["labels"] == [EVIL, EVIL]
    assert data["meanings"][f"m0@{EVIL}"]["promoted"] == [[EVIL, 1.0]]
    assert any(EVIL in node["name"] for node in data["nodes"])


def test_the_page_loads_nothing_and_is_small() -> None:
    page = explore(component_scores())
    for tag, attributes in tags_of(page.html):
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,", tag
    policy = next(a["content"] for t, a in tags_of(page.html) if t == "meta" and a.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    data = re.search(r'id="data">(.*?)</script>', page.html, re.S)
    assert data
    assert len(page.html.encode()) - len(data[1].encode()) < 200_000


def test_the_library_in_it_keeps_its_licence() -> None:
    text = (EXPLORER / "d3.min.js").read_text(encoding="utf-8")
    assert "Permission to use, copy, modify, and/or distribute this software" in text
    assert "Neither the name of the author nor the names of contributors" in text
    assert len(re.findall(r"^// https://d3js.org/d3-\w+/ v\d", text, re.M)) == 9


def test_every_script_is_in_the_page_and_none_writes_markup() -> None:
    assert {path.stem for path in EXPLORER.glob("*.js")} == {*SCRIPTS, "d3.min"}
    for name in SCRIPTS:
        text = (EXPLORER / f"{name}.js").read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|fetch\(|XMLHttp|import\(", text
        )
        assert text.count("\n") < 400


def test_saving_and_showing_in_a_notebook(tmp_path: Path) -> None:
    page = explore(component_scores(), tmp_path / "page.html", title="A & B")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    assert repr(page).startswith("Page('A & B', ")
    ((tag, attributes),) = tags_of(page._repr_html_())
    assert tag == "iframe"
    assert attributes["srcdoc"] == page.html
    assert attributes["title"] == "A & B"


def test_the_same_circuit_gives_the_same_page() -> None:
    assert explore(component_scores()).html == explore(component_scores()).html
    one, other = (data_of(explore(component_scores(seed)))["id"] for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "page.svg"}, r"expected a name that ends in \.html"),
        ({"select": "best"}, r"select='best'\): expected 'greedy' or 'top'"),
        ({"max_size": 0}, r"max_size=0\): expected a whole number of at least 1"),
        ({"max_edges": True}, r"max_edges=True\): expected a whole number of at least 1"),
        ({"compare": 3}, r"explore\(compare=int\): expected a circuit or scores"),
        ({"labels": ("one",)}, r"labels=\('one',\)\): expected two names"),
        ({"labels": ("one", 2)}, "expected two names, of the first circuit and of the second"),
        ({"labels": "ab"}, "expected two names"),
        (
            {"curve": evaluation(component_scores().greedy(5), 0.5)},
            r"explore\(curve=Evaluation\): expected one of type Curve",
        ),
        ({"evaluation": 0.5}, r"explore\(evaluation=float\): expected one of type Evaluation"),
        ({"baseline": 0.5}, r"explore\(baseline=float\): expected what random_baseline returns"),
        ({"compare": component_scores(n_kv=2)}, "is of another graph"),
    ],
)
def test_what_cannot_be_explored_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.InputError, match=message):
        explore(component_scores(), **options)


def test_what_cannot_be_ranked_is_refused_as_by_a_selection(feature_scores: sc.FeatureScores) -> None:
    for scores in (component_scores(), feature_scores):
        unsigned = replace(scores, signed=False)
        field = "values" if isinstance(scores, sc.Scores) else "node_values"
        broken = replace(scores, **{field: torch.full_like(getattr(scores, field), torch.nan)})
        with pytest.raises(sc.InputError, match="carry no sign, so signed=True cannot rank them"):
            explore(unsigned, signed=True)
        with pytest.raises(sc.InputError, match="The scores are not finite"):
            explore(broken)


def test_components_and_features_are_not_compared(feature_scores: sc.FeatureScores) -> None:
    with pytest.raises(sc.InputError, match="have no parts in common"):
        explore(component_scores(), compare=feature_scores)
    with pytest.raises(sc.InputError, match=r"explore\(str\): expected a circuit or scores"):
        explore("circuit.safetensors")  # pyright: ignore[reportArgumentType]
