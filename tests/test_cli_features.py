"""Feature circuits on the command line: what it writes and prints is what the library finds, and each bad input has one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from test_cli import RUN_FILES, names_in, ok, page_data, run

import sparse_circuits as sc
from sparse_circuits.attribution import METHODS, Method
from sparse_circuits.circuit import FeatureCircuit, FeatureScores
from sparse_circuits.cli import options
from sparse_circuits.cli.methods import ENTRIES
from sparse_circuits.cli.models import list_dictionaries
from sparse_circuits.cli.record import Arguments, Record
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.feature_run import ERRORS
from sparse_circuits.view import feature_picture
from sparse_circuits.zoo import toy_path

TASK = ("--task", "sva-across-rc", "--examples", 10)
FIND = ("find", *TASK, "--dictionaries", "dicts", "--steps", 2)
FILES = RUN_FILES | {"neurons.safetensors"}
sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
BUNDLED = toy_path() / "dictionaries"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with untrained dictionaries ``dicts`` for the bundled model: two SAEs and a transcoder."""
    place = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    common = {"d_in": 128, "d_sae": 96, "device": "cpu", "dtype": "float32"}
    saes = {name: sae_lens.StandardSAE(sae_lens.StandardSAEConfig(**common)) for name in ("resid_1", "attn_2")}
    saes["resid_1"].cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    saes["attn_2"].cfg.metadata.hook_name = "blocks.2.hook_attn_out"
    saes["transcoder_3"] = sae_lens.JumpReLUTranscoder(
        sae_lens.JumpReLUTranscoderConfig(**common, d_out=128, apply_b_dec_to_input=False)
    )
    saes["transcoder_3"].cfg.metadata.hook_name = "blocks.3.ln2.hook_normalized"
    saes["transcoder_3"].cfg.metadata.hook_name_out = "blocks.3.hook_mlp_out"
    for name, sae in saes.items():
        sae.save_model(place / "dicts" / name)
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def model() -> object:
    return sc.load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def found(place: Path) -> str:
    """What a run printed that wrote ``first``."""
    before = Path.cwd()
    os.chdir(place)
    try:
        return ok(*FIND, "--whole", "z_3", "--whole", "embed", "--nodes", 40, "--out", "first").stdout
    finally:
        os.chdir(before)


def results(folder: str) -> dict:
    return json.loads(Path(folder, "run.json").read_text())["results"]


def test_names_and_numbers_are_the_librarys() -> None:
    """They are written out on the command line, so that --help imports nothing heavy."""
    assert get_args(options.ErrorsName) == ERRORS
    assert (options.MAX_NODES, options.MAX_EDGES) == (feature_picture.MAX_NODES, feature_picture.MAX_EDGES)
    for name, entry in ENTRIES.items():
        assert entry.features == (METHODS[name].run_features is not Method.run_features)
    assert "eap, eap-ig, clean-corrupted, relp and exact score features too" in ok("methods").stdout


# --- find ---


def test_find_writes_what_the_library_finds(found: str, model: object) -> None:
    assert names_in("first") == FILES
    record = Record.load(Path("first/run.json"))
    assert set(record.files) == FILES
    given = record.arguments
    assert (given.level, given.dictionaries, given.sites, given.whole) == ("features", "dicts", None, ("z_3", "embed"))
    assert (given.size, given.path, given.steps, given.quadrature) == (40, "activations", 2, "midpoint")
    assert (given.nodes_above, given.errors, given.start_layer, given.examples) == (0.1, "nodes", 0, 10)

    saes = sc.load_dictionaries("dicts", model)
    graph = sc.Graph.of(model, saes, whole=("z_3", "embed"))
    task = sc.load_task("sva-across-rc", model, n=10)
    method = sc.EAPIG(steps=2, path="activations")
    scores = sc.attribute(model, graph, task, method, nodes_above=0.1)
    expected, circuit = scores.top(40), FeatureCircuit.load("first/circuit.safetensors", saes)
    assert circuit.to_dict() == pytest.approx(expected.to_dict())
    assert circuit.to_dict("edges") == pytest.approx(expected.to_dict("edges"))
    assert FeatureScores.load("first/scores.safetensors").to_dict() == pytest.approx(scores.to_dict())

    fresh = sc.load_task("sva-across-rc", model, n=10, seed=1)
    assert not set(fresh.clean) & set(task.clean)
    evaluation = sc.evaluate(model, circuit, fresh)
    out = record.results
    assert out["faithfulness"] == pytest.approx(evaluation.faithfulness)
    assert out["faithfulness_interval"] == pytest.approx(evaluation.faithfulness_interval)
    assert out["held_out"] is True
    assert out["size"]["circuit"] == 40 == out["size"]["features"] + out["size"]["errors"] + out["size"]["whole"]
    assert out["size"]["errors"] == sum(name.endswith(".error") for name in circuit.nodes)
    assert out["size"]["whole"] == sum("." not in name or name.startswith("a3.h") for name in circuit.nodes)
    baseline = sc.random_baseline(model, circuit, fresh, seed=1)
    assert out["random"]["faithfulness"] == pytest.approx(baseline.faithfulness.tolist())
    assert out["random"]["median"] == pytest.approx(baseline.median)

    neurons = sc.load_dictionaries("neurons", model, sites=["resid_1", "attn_2", "mlp_3"])
    of_neurons = sc.attribute(model, sc.Graph.of(model, neurons, whole=("z_3", "embed")), task, method).top(40)
    beside = sc.evaluate(model, of_neurons, fresh)
    assert out["neurons"]["size"] == 40
    assert out["neurons"]["faithfulness"] == pytest.approx(beside.faithfulness)
    assert FeatureScores.load("first/neurons.safetensors").top(40).nodes == of_neurons.nodes


def test_find_prints_what_a_reader_wants_first(found: str) -> None:
    circuit, out = FeatureCircuit.load("first/circuit.safetensors"), results("first")
    lines = found.splitlines()
    assert lines[0] == "The sva-across-rc feature circuit of toy: eap-ig, patch ablation, 10 examples"
    for kind, of in (("strongest nodes", circuit.to_dict()), ("strongest edges", circuit.to_dict("edges"))):
        start = next(i for i, line in enumerate(lines) if line.startswith(kind))
        rows = [line.split() for line in lines[start + 1 : start + 11]]
        assert [row[0] for row in rows] == list(of)[:10]
        assert [float(row[1]) for row in rows] == pytest.approx(list(of.values())[:10], rel=0.01)
    assert "Evaluated on 10 other examples (seed 1):" in lines
    low, high = out["faithfulness_interval"]
    row = next(line for line in lines if line.startswith("this circuit"))
    assert row.split(maxsplit=4)[2:] == ["40", row.split()[3], f"{out['faithfulness']:.2f} [{low:.2f}, {high:.2f}]"]
    assert any(
        line.startswith("neurons, same sites") and f"{out['neurons']['faithfulness']:.2f} [" in line for line in lines
    )
    assert any(line.startswith("random, median of 20") and f"{out['random']['median']:.2f} [" in line for line in lines)
    assert "dictionaries      dicts: 1 resid, 1 attn, 1 transcoder; whole: 1 embed, 1 z" in lines
    made_of = (
        f"({out['size']['features']} features, {out['size']['errors']} error terms, {out['size']['whole']} whole nodes)"
    )
    assert any(line.startswith("size ") and made_of in line and f"{circuit.n_edges:,} edges" in line for line in lines)
    assert any(line.startswith("convergence gap ") for line in lines)


def test_find_draws_the_circuit(found: str) -> None:
    circuit = FeatureCircuit.load("first/circuit.safetensors")
    text = Path("first/circuit.svg").read_text()
    ids = {element.get("id") for element in ET.fromstring(text).iter()}
    assert {*circuit.nodes, *circuit.edges[:50]} <= ids
    low, high = results("first")["faithfulness_interval"]
    assert f"[{low:z.2f}, {high:z.2f}] under patch ablation" in text


def test_a_run_is_repeated_by_its_command(found: str) -> None:
    command = json.loads(Path("first/run.json").read_text())["command"].split()
    assert command[2:4] == ["--model", "toy"]
    assert "--level" not in command
    ok(*command[1:], "--out", "by-command")
    first = FeatureCircuit.load("first/circuit.safetensors")
    assert Record.load(Path("by-command/run.json")).arguments == Record.load(Path("first/run.json")).arguments
    assert FeatureCircuit.load("by-command/circuit.safetensors").to_dict() == first.to_dict()
    assert results("by-command")["random"] == results("first")["random"]


def choice(scores: FeatureScores, name: str) -> FeatureCircuit:
    return {
        "edges": lambda: scores.top(30, edges=25),
        "thresholds": lambda: scores.threshold(nodes=0.2, edges=0.05),
        "cumulative": lambda: scores.cumulative(nodes=0.6),
        "both": lambda: scores.top(scores.threshold(nodes=0.2).size, edges=20, signed=False),
        "signed": lambda: scores.top(20, signed=True),
    }[name]()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edges", ("--nodes", 30, "--edges", 25, "--positions", "spans")),
        ("thresholds", ("--node-threshold", 0.2, "--edge-threshold", 0.05, "--sites", "resid", "--sites", "attn_2")),
        ("cumulative", ("--cumulative", 0.6, "--ablation", "mean", "--method", "eap")),
        ("both", ("--node-threshold", 0.2, "--edges", 20, "--nodes-above", 0.3)),
        ("signed", ("--nodes", 20, "--signed", "--nodes-only", "--method", "clean-corrupted", "--positions", "keep")),
    ],
)
def test_every_choice_is_the_librarys_and_comes_back(name: str, words: tuple[object, ...], tmp_path: Path) -> None:
    words = (*FIND[:-2], *words) if "--method" in words else (*FIND, *words)
    text = ok(*words, "--out", tmp_path / "one").stdout
    scores = FeatureScores.load(tmp_path / "one/scores.safetensors")
    circuit = FeatureCircuit.load(tmp_path / "one/circuit.safetensors")
    expected = choice(scores, name)
    assert circuit.size > 0
    assert circuit.to_dict() == expected.to_dict()
    assert circuit.edges == expected.edges
    assert ("strongest edges" in text) == (name != "signed")
    assert (scores.edge_list is None) == (name == "signed")
    if name not in ("edges", "signed"):  # repeating all of them takes long
        return
    arguments = Record.load(tmp_path / "one/run.json").arguments
    ok("find", "--from", tmp_path / "one/run.json", "--out", tmp_path / "two")
    assert Record.load(tmp_path / "two/run.json").arguments == arguments
    assert FeatureCircuit.load(tmp_path / "two/circuit.safetensors").to_dict() == circuit.to_dict()


def test_neurons_are_compared_with_nothing_of_their_own(tmp_path: Path) -> None:
    words = ("find", *TASK, "--dictionaries", "neurons", "--sites", "resid_3", "--method", "exact", "--nodes", 5)
    text = ok(*words, "--out", tmp_path / "run").stdout
    assert "neurons, same sites" not in text
    assert names_in(tmp_path / "run") == FILES - {"neurons.safetensors"}
    arguments = Record.load(tmp_path / "run/run.json").arguments
    assert (arguments.sites, arguments.nodes_only, arguments.nodes_above) == (("resid_3",), True, None)
    assert results(str(tmp_path / "run"))["neurons"] is None


def test_error_terms_and_start_layer_enter_the_evaluation(found: str, model: object, tmp_path: Path) -> None:
    words = ("find", "--from", "first/run.json", "--errors", "keep", "--start-layer", 2, "--nodes-only")
    text = ok(*words, "--out", tmp_path / "run").stdout
    saes = sc.load_dictionaries("dicts", model)
    circuit = FeatureCircuit.load(tmp_path / "run/circuit.safetensors", saes)
    assert circuit.nodes == FeatureCircuit.load("first/circuit.safetensors").nodes
    fresh = sc.load_task("sva-across-rc", model, n=10, seed=1)
    expected = sc.evaluate(model, circuit, fresh, errors="keep", start_layer=2)
    assert results(str(tmp_path / "run"))["faithfulness"] == pytest.approx(expected.faithfulness)
    assert "error terms       all kept, in the circuit or not" in text
    assert "ablated           from layer 2 on" in text


def test_components_and_features_by_the_same_record(found: str) -> None:
    features = Record.load(Path("first/run.json")).arguments
    components = features.overridden({"level": "nodes"})
    assert (components.dictionaries, components.size, components.whole, components.errors) == (None, None, None, None)
    back = Arguments(size=7, select="top", direct="mean", steps=3, path="inputs").overridden(
        {"dictionaries": "toy", "level": "features"}
    )
    assert (back.size, back.select, back.direct, back.path, back.steps) == (None, None, None, None, None)
    thresholds = features.overridden({"node_threshold": 0.5, "edges": 9})
    assert (thresholds.size, thresholds.node_threshold, thresholds.edges) == (None, 0.5, 9)
    assert thresholds.overridden({"cumulative": 0.5}).command.endswith(
        "--cumulative 0.5 --errors nodes --start-layer 0"
    )
    assert features.overridden({"dictionaries": "toy"}).sites is None
    with pytest.raises(InputError, match="--nodes-only finds no edges"):
        replace(features, nodes_only=True)


# --- evaluate ---


def row(text: str, start: str) -> list[str]:
    return re.split(r"  +", next(line for line in text.splitlines() if line.startswith(start)).strip())


def shown(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:z.2f} [{bounds[0]:z.2f}, {bounds[1]:z.2f}]"


def test_evaluate_a_run(found: str, model: object) -> None:
    words = ("--examples", 8, "--seed", 5, "--errors", "remove", "--start-layer", 1, "--completeness")
    text = ok("evaluate", "first", *words, "--ablation", "mean").stdout
    head = "toy on 8 examples of sva-across-rc, seed 5, mean ablation, all error terms ablated, from layer 1 on"
    assert text.splitlines()[0] == head
    task = sc.load_task("sva-across-rc", model, n=8, seed=5)
    circuit = FeatureCircuit.load("first/circuit.safetensors", sc.load_dictionaries("dicts", model))
    how = {"ablation": sc.Ablation.MEAN, "errors": "remove", "start_layer": 1}
    expected = sc.evaluate(model, circuit, task, completeness=True, **how)
    cells = row(text, "this circuit")
    assert cells[1] == "40"
    assert cells[3] == shown(expected.faithfulness, expected.faithfulness_interval)
    assert cells[4] == shown(expected.completeness or 0, expected.completeness_interval or (0, 0))
    neurons = FeatureScores.load(
        "first/neurons.safetensors", sc.load_dictionaries("neurons", model, sites=["resid_1", "attn_2", "mlp_3"])
    )
    beside = sc.evaluate(model, neurons.top(40), task, **how)
    assert row(text, "neurons, same sites")[3] == shown(beside.faithfulness, beside.faithfulness_interval)
    assert row(text, "random, median of 20")[1] == "40"


def test_evaluate_a_bare_file_and_runs_together(found: str) -> None:
    FeatureCircuit.load("first/circuit.safetensors").save("bare.safetensors")
    seeds = ("--examples", 10, "--seed", 1)
    alone = ok("evaluate", "bare.safetensors", "--dictionaries", "dicts", *seeds).stdout
    assert "neurons" not in alone
    both = ok("evaluate", "first", "bare.safetensors", "--dictionaries", "dicts", *seeds).stdout
    cells = row(ok("evaluate", "first", *seeds).stdout, "this circuit")
    assert row(alone, "this circuit") == cells
    assert row(both, "first ")[1:] == cells[1:]
    assert row(both, "bare.safetensors ")[1:] == cells[1:]
    assert cells[3] == shown(results("first")["faithfulness"], results("first")["faithfulness_interval"])


def test_each_circuit_has_its_own_nothing_where_sites_differ(found: str, model: object, tmp_path: Path) -> None:
    ok(*FIND, "--sites", "attn_2", "--nodes", 5, "--nodes-only", "--out", tmp_path / "attn")
    text = ok("evaluate", "first", tmp_path / "attn", "--examples", 6).stdout
    assert "\nempty circuit" not in text
    task, saes = sc.load_task("sva-across-rc", model, n=6, seed=1), sc.load_dictionaries("dicts", model)
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines() if line.startswith("its empty circuit")]
    for line, folder in zip(lines, ("first", tmp_path / "attn"), strict=True):
        circuit = FeatureCircuit.load(Path(folder, "circuit.safetensors"), saes)
        assert float(line[2]) == pytest.approx(float(sc.evaluate(model, circuit, task).empty.mean()), abs=0.01)


def test_evaluate_curve(found: str, model: object) -> None:
    text = ok("evaluate", "first", "--examples", 6, "--curve").stdout
    curve = json.loads(Path("first/curve.json").read_text())
    saes = sc.load_dictionaries("dicts", model)
    scores = FeatureScores.load("first/scores.safetensors", saes)
    assert curve["level"] == "features"
    assert curve["sizes"] == [n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n < len(scores.node_ids)] + [
        len(scores.node_ids)
    ]
    assert curve["faithfulness"][-1] == pytest.approx(1, abs=1e-3)  # the dictionaries' errors are among the nodes
    task = sc.load_task("sva-across-rc", model, n=6, seed=1)
    expected = sc.evaluate(model, scores.top(20), task)
    assert curve["faithfulness"][curve["sizes"].index(20)] == pytest.approx(expected.faithfulness)
    assert curve["neurons"]["sizes"][-1] == len(FeatureScores.load("first/neurons.safetensors").node_ids)
    assert curve["random"]["sizes"] == curve["sizes"][:-1]
    picture = Path("first/curve.svg").read_text()
    for label in ("features (95% interval)", "neurons, same sites", "random circuits (20 draws)"):
        assert label in picture
    cells = row(text, f"{20:>5}") if f"\n{20:>5}" in text else row(text, "   20")
    assert cells[2] == shown(expected.faithfulness, expected.faithfulness_interval)


# --- view, models ---


def test_view(found: str, tmp_path: Path) -> None:
    circuit = FeatureCircuit.load("first/circuit.safetensors")
    ok("view", "first", "--out", tmp_path / "pictures", "--max-nodes", 12, "--max-edges", 4)
    assert names_in(tmp_path / "pictures") == {"circuit.svg", "circuit.png", "circuit.dot"}
    text = (tmp_path / "pictures/circuit.svg").read_text()
    ids = {element.get("id") for element in ET.fromstring(text).iter()} & {*circuit.nodes, *circuit.edges}
    assert {name for name in ids if "->" not in name} == set(circuit.names[:12])
    assert len([name for name in ids if "->" in name]) <= 4
    assert f" features {results('first')['random']['median']:.2f}<" in text.replace(">features", "> features")
    assert (tmp_path / "pictures/circuit.dot").read_text() == circuit.to_dot()
    ok("view", "first", "--out", tmp_path / "one.svg", "--title", "Verbs")
    assert "Verbs" in (tmp_path / "one.svg").read_text()


def test_models_lists_dictionaries(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"l0": 12.34, "variance_explained": 0.98765, "loss_recovered": 0.9914}
    report = place / "dicts/report.json"
    report.write_text(json.dumps({"dictionaries": {"attn_2": figures}}))
    try:
        list_dictionaries(place / "dicts")
    finally:
        report.unlink()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["attn_2", "standard", "96", "12.3", "0.988", "0.991"] in lines
    assert ["resid_1", "standard", "96"] in lines
    assert [line[0] for line in lines[2:5]] == ["resid_1", "attn_2", "transcoder_3"]
    assert ["attn_L", "blocks.L.hook_attn_out"] in lines
    assert ["transcoder_L", "blocks.L.ln2.hook_normalized", "->", "blocks.L.hook_mlp_out"] in lines


def test_models_lists_the_bundled_ones() -> None:
    lines = [line.split() for line in ok("models").stdout.splitlines()]
    for path in BUNDLED.glob("*/cfg.json"):
        width = json.loads(path.read_text())["d_sae"]
        assert any(line[:3] == [path.parent.name, "jumprelu", f"{width:,}"] for line in lines), path


def test_bundled_features_do_better_than_neurons_and_chance(tmp_path: Path) -> None:
    words = ("--task", "sva-across-rc", "--examples", 20, "--steps", 3, "--nodes-only")
    ok("find", *words, "--dictionaries", "toy", "--out", tmp_path / "run")
    out = results(str(tmp_path / "run"))
    assert out["size"]["circuit"] == 100
    low, _ = out["faithfulness_interval"]
    assert low > out["neurons"]["interval"][1]
    assert low > out["random"]["interval"][1]


# --- bad input ---

OF = ("find", *TASK, "--dictionaries", "dicts", "--out", "bad")
BAD = [
    (
        ("view", "first", "--explore", "x.html", "--compare", "other.safetensors"),
        "--compare other.safetensors has another dictionary at",
    ),
    (("find", "--nodes", 5), "--nodes counts nodes of a feature circuit, and needs --dictionaries"),
    (("find", "--errors", "keep"), "--errors is for circuits of features; give --dictionaries too"),
    (("find", "--nodes-only"), "--nodes-only is for circuits of features"),
    (("find", "--sites", "resid"), "--sites is for circuits of features"),
    ((*OF, "--level", "nodes"), "--level nodes is for circuits of components; leave it out, or --dictionaries"),
    ((*OF, "--threshold", 1), "--threshold is for circuits of components; with --dictionaries give --node-threshold"),
    ((*OF, "--stable", 0.9), "--stable is for circuits of components; with --dictionaries leave it out"),
    ((*OF, "--select", "top"), "--select is for circuits of components"),
    ((*OF, "--kv", "per-query-head"), "--kv is for circuits of components"),
    ((*OF, "--direct", "mean"), "--direct is for edges between components"),
    ((*OF, "--nodes", 3, "--size", 3), "Expected --nodes or --size, got both"),
    ((*OF, "--nodes", 3, "--node-threshold", 1), "Expected --nodes or --node-threshold, got both"),
    ((*OF, "--edges", 3, "--edge-threshold", 1), "Expected --edges or --edge-threshold, got both"),
    ((*OF, "--cumulative", 0.5, "--nodes", 3), "--cumulative chooses nodes and edges; leave --nodes out"),
    ((*OF, "--cumulative", 0.5, "--edge-threshold", 3), "leave --edge-threshold out"),
    ((*OF, "--cumulative", 0.5, "--signed"), "has no sign; leave --signed out"),
    ((*OF, "--cumulative", 1.5), "--cumulative 1.5: expected a share above 0 and at most 1"),
    ((*OF, "--node-threshold", -1), "--node-threshold -1.0: expected a number of at least 0"),
    ((*OF, "--nodes-above", "nan"), "--nodes-above nan: expected a number of at least 0"),
    ((*OF, "--nodes-only", "--edges", 3), "--nodes-only finds no edges, which --edges needs"),
    ((*OF, "--method", "acdc"), "--method acdc does not score features; with --dictionaries take one of eap, eap-ig,"),
    ((*OF, "--method", "exact", "--edges", 5), "--edges: exact finds no edges between features"),
    ((*OF, "--nodes", 10**6), "--nodes 1000000: the graph of toy has 291"),
    ((*OF, "--start-layer", 4), "--start-layer 4: the model has 4 layers, from 0"),
    ((*OF, "--node-threshold", 1e9), "No node is left; try a lower --node-threshold"),
    ((*OF, "--steps", 1, "--edge-threshold", 1e9), "The chosen edges do not connect the nodes to the logits"),
    ((*OF, "--sites", "resid_9"), "resid_9"),
    ((*OF, "--whole", "resid_1"), "would split the same activation"),
    ((*OF[:5], "--dictionaries", "./nowhere"), "No folder of dictionaries at ./nowhere"),
    (("evaluate", "bare.safetensors"), "does not say where its dictionaries are; give --dictionaries"),
    (("evaluate", "first", "parts.safetensors"), "Circuits of features and of components have no runs in common"),
    (("evaluate", "parts.safetensors", "--errors", "keep"), "--errors is for circuits of features"),
    (("evaluate", "parts.safetensors", "--dictionaries", "toy"), "--dictionaries is for circuits of features"),
    (
        ("evaluate", "first", "other.safetensors", "--dictionaries", "dicts", "--curve"),
        "--curve needs the scores of a run",
    ),
    (("evaluate", "other.safetensors", "--dictionaries", "dicts"), "needs the dictionary 'other/resid_1'"),
    (("view", "first", "--max-size", 3), "--max-size is for circuits of components"),
    (("view", "parts.safetensors", "--max-nodes", 3), "--max-nodes is for feature circuits"),
    (("view", "unscored.safetensors", "--max-nodes", 1), "--max-nodes 1: this circuit has no scores"),
]


@pytest.fixture(scope="module")
def _circuits(place: Path, found: str) -> None:
    """Circuit files that bad inputs name."""
    circuit = FeatureCircuit.load(place / "first/circuit.safetensors")
    circuit.save(place / "bare.safetensors")
    FeatureCircuit.of(circuit.graph, circuit.nodes).save(place / "unscored.safetensors")
    places = [replace(p, dictionary_id=p.dictionary_id and f"other/{p.name}") for p in circuit.graph.places]
    replace(circuit, graph=replace(circuit.graph, places=tuple(places))).save(place / "other.safetensors")
    parts = {"task": "sva-across-rc", "model": "toy"}
    sc.Circuit.of(sc.Graph(4, 8, 8), {"input->logits": 1.0}, **parts).save(place / "parts.safetensors")


@pytest.mark.usefixtures("_circuits")
@pytest.mark.parametrize(("words", "phrase"), BAD, ids=[" ".join(map(str, words)) for words, _ in BAD])
def test_bad_input_has_one_clear_line(words: tuple[object, ...], phrase: str) -> None:
    before = set(Path().rglob("*"))
    result = run(*words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert phrase in line
    assert result.stdout == ""
    assert set(Path().rglob("*")) == before


def test_a_run_leaves_a_page_to_explore_it_in(found: str) -> None:
    data, record = page_data(Path("first/explorer.html")), Record.load(Path("first/run.json"))
    assert found.splitlines()[-1] == f"Open in a browser to explore it: {Path('first/explorer.html')}"
    total = len(FeatureScores.load("first/scores.safetensors").node_ids)
    assert [point["asked"] for point in data["curves"][0]["points"]] == [5, 10, 20, 40, min(80, total)]
    assert data["steps"][data["start"]] == 40
    known = data["evaluations"][0]
    assert known["value"] == pytest.approx(record.results["faithfulness"], rel=1e-3)
    assert data["random"]["value"] == pytest.approx(record.results["random"]["median"], abs=1e-3)
    ok("find", "--from", "first/run.json", "--out", "page-again")
    assert Path("page-again/explorer.html").read_bytes() == Path("first/explorer.html").read_bytes()
    shutil.copytree("first", "viewed", ignore=shutil.ignore_patterns("curve.*", "features*"))  # what other tests left
    ok("view", "viewed", "--explore", "viewed.html")
    assert Path("viewed.html").read_bytes() == Path("first/explorer.html").read_bytes()
