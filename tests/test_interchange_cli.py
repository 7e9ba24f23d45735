"""The command ``export``: every format, and the one line that it has for each bad request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from typer.testing import CliRunner, Result

import sparse_circuits as sc
from sparse_circuits.cli.app import app


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="sparse-circuits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: ``edges`` of components, and ``rc`` of features, with pages of these."""
    pytest.importorskip("sae_lens")
    place = tmp_path_factory.mktemp("runs")
    for words in (
        ("find", "--task", "ioi", "--method", "eap", "--edges", 40, "--examples", 8, "--out", place / "edges"),
        ("find", "--task", "sva-across-rc", "--method", "eap", "--dictionaries", "toy", "--sites", "resid", "--nodes", 15,
         "--examples", 8, "--out", place / "rc"),
        ("features", place / "rc", "--tokens", 2000),
    ):  # fmt: skip
        done = run(*words)
        assert done.exit_code == 0, done.output
    return place


def exported(runs: Path, name: str, out: Path, *words: object) -> Path:
    done = run("export", runs / name, "--out", out, *words)
    assert done.exit_code == 0, done.output
    written = Path(re.findall(r"\S+ {3}(\S+)", done.stdout)[-1])
    assert written.exists()
    return written


def test_an_attribution_graph_for_circuit_tracers_page(runs: Path, tmp_path: Path) -> None:
    path = exported(runs, "rc", tmp_path / "graphs", "--to", "attribution-graph", "--example", 2)
    assert path == tmp_path / "graphs" / "sva-across-rc-toy-2.json"
    graph = sc.AttributionGraph.load(path, features=tmp_path / "graphs" / "features" / path.stem)
    model = sc.load_model("toy")
    task = sc.load_task("sva-across-rc", model, n=8)
    assert graph.metadata["prompt"] == task.clean[2]
    pages = json.loads((runs / "rc" / "features.json").read_text())["features"]
    assert {page["name"] for page in graph.pages.values()} == set(pages)
    features = [node for node in graph.nodes if node["feature_type"] == "cross layer transcoder"]
    assert all(isinstance(node["activation"], float) for node in features)
    circuit = sc.Circuit.load(runs / "rc" / "circuit.safetensors")
    assert graph.to_circuit().nodes == circuit.nodes
    assert "graph-metadata.json" in {path.name for path in (tmp_path / "graphs").iterdir()}


def test_an_attribution_graph_for_neuronpedia(runs: Path, tmp_path: Path) -> None:
    state = {
        "format": "sparse-circuits explorer state",
        "pins": ["a2.h7"],
        "groups": [],
        "notes": {"a2.h7": "name mover"},
    }
    (tmp_path / "state.json").write_text(json.dumps(state))
    words = ("--to", "attribution-graph", "--scan", "gpt2-small", "--slug", "mine", "--state", tmp_path / "state.json")
    graph = sc.AttributionGraph.load(exported(runs, "edges", tmp_path / "ioi.json", *words))
    assert (graph.metadata["scan"], graph.slug) == ("gpt2-small", "mine")
    (pinned,) = graph.q_params["pinnedIds"]
    assert next(node["clerp"] for node in graph.nodes if node["node_id"] == pinned) == "a2.h7: name mover"
    words = ("--to", "attribution-graph", "--features", tmp_path / "pages")
    rc = sc.AttributionGraph.load(exported(runs, "rc", tmp_path / "rc.json", *words), features=tmp_path / "pages")
    assert rc.pages
    # a circuit file alone: its provenance says which model and task
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((runs / "rc" / "circuit.safetensors").read_bytes())
    done = run("export", alone, "--to", "attribution-graph", "--out", tmp_path / "alone.json")
    assert done.exit_code == 0, done.output
    assert all(node["activation"] is None for node in sc.AttributionGraph.load(tmp_path / "alone.json").nodes)


@pytest.mark.parametrize("name", ["edges", "rc"])
def test_graphs_for_other_tools(runs: Path, tmp_path: Path, name: str) -> None:
    circuit: Any = sc.Circuit.load(runs / name / "circuit.safetensors")
    graphml = exported(runs, name, tmp_path / "c.graphml", "--to", "graphml")
    assert set(sc.Circuit.from_graphml(graphml).edges) == set(circuit.edges)
    content = json.loads(exported(runs, name, tmp_path / "c.json", "--to", "networkx").read_text())
    assert set(sc.Circuit.from_networkx(networkx.node_link_graph(content, edges="edges")).edges) == set(circuit.edges)
    assert exported(runs, name, tmp_path / "c.dot", "--to", "dot").read_text() == circuit.to_dot()


def test_eap_ig_and_mib(runs: Path, tmp_path: Path) -> None:
    circuit: Any = sc.Circuit.load(runs / "edges" / "circuit.safetensors")
    scores: Any = sc.Scores.load(runs / "edges" / "scores.safetensors")
    path = exported(runs, "edges", tmp_path / "c.json", "--to", "eap-ig", "--negate")
    assert sc.Circuit.from_eap_ig(path, negate=True).to_dict() == circuit.to_dict()
    path = exported(runs, "edges", tmp_path / "c.pt", "--to", "eap-ig", "--scores")
    assert torch.equal(sc.Scores.from_eap_ig(path).values, scores.values)
    exported(runs, "edges", tmp_path / "mib", "--to", "mib", "--mib-model", "gpt2")
    exported(runs, "edges", tmp_path / "mib", "--to", "mib", "--mib-model", "llama3", "--select", "top")
    first, second = sc.read_mib(tmp_path / "mib")
    assert first.scores is not None
    assert torch.equal(first.scores.values, scores.values)
    assert [one.size for one in second.circuits] == [
        scores.top(int(share * scores.graph.size)).size
        for share in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    ]


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("edges", ("--to", "graphml", "--out", "c.json"), "expected a file that ends in .graphml"),
        ("edges", ("--to", "eap-ig", "--out", "c.txt"), ".pt or .json"),
        ("edges", ("--to", "dot", "--out", "none/c.dot"), "there is no folder none"),
        ("edges", ("--to", "graphml", "--out", "c.graphml", "--negate"), "--negate is for --to eap-ig, and this is graphml"),
        ("edges", ("--to", "eap-ig", "--out", "c.pt", "--example", "1"), "--example is for --to attribution-graph"),
        ("edges", ("--to", "dot", "--out", "c.dot", "--select", "top"), "--select is for --to mib"),
        ("rc", ("--to", "eap-ig", "--out", "c.pt"), "is one of features"),
        ("rc", ("--to", "mib", "--out", "mib"), "is one of features"),
        ("edges", ("--to", "mib", "--out", "mib"), "give model="),
        ("edges", ("--to", "attribution-graph", "--out", "g", "--example", "8"), "one of the task's 8 examples"),
        ("edges", ("--to", "attribution-graph", "--out", "g.json", "--features", "p"), "no pages"),
        ("edges", ("--to", "attribution-graph", "--out", "g", "--state", "none.json"), "no file none.json"),
        ("edges", ("--to", "attribution-graph", "--out", "g", "--dictionaries", "toy"), "leave it out"),
        ("edges", ("--to", "attribution-graph", "--out", "g", "--features", "p"), "Leave it out"),
        ("edges", ("--to", "attribution-graph", "--out", "g", "--slug", "a/b"), "expected letters, digits"),
        ("edges", ("--to", "attribution-graph", "--out", "file"), "--out file is a file; expected a folder"),
        ("edges", ("--to", "attribution-graph", "--out", "folder.json"), "is a folder; expected a file"),
        ("edges", ("--to", "networkx", "--out", "folder.json"), "is a folder; expected a file"),
        ("edges", ("--to", "mib", "--out", "file", "--mib-model", "gpt2"), "--out file is a file; expected a folder"),
        ("edges", ("--to", "gml", "--out", "c.gml"), "'gml' is not one of"),
        ("edges", ("--out", "c.gml"), "--to"),
        ("none", ("--to", "dot", "--out", "c.dot"), "No file"),
    ],
)  # fmt: skip
def test_bad_requests_end_in_one_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr("sparse_circuits.cli.export.load_model_on")  # before anything is loaded
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    done = run("export", runs / name, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"folder.json", "file"}


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", b"[]"])
def test_a_damaged_record_ends_in_one_line(runs: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "circuit.safetensors").write_bytes((runs / "edges" / "circuit.safetensors").read_bytes())
    (tmp_path / "run.json").write_bytes(content)
    done = run("export", tmp_path, "--to", "dot", "--out", tmp_path / "c.dot")
    assert done.exit_code == 2
    assert "run.json is not" in done.output.replace("\n", "")
    assert not (tmp_path / "c.dot").exists()
