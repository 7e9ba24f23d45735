"""``sparse-circuits report``: of runs of every kind; what the run's folder has is used, and bad input is one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_cli import names_in, ok, run
from test_report import Read, read, shown

import sparse_circuits as sc
from sparse_circuits.cli import beside
from sparse_circuits.cli.record import Arguments, Record
from sparse_circuits.errors import InputError
from sparse_circuits.view.explorer import explore
from sparse_circuits.zoo import toy_path

FIND = ("find", "--task", "ioi", "--examples", 8)
FEW = ("--examples", 8)
BARE = (*FEW, "--no-methods", "--no-random", "--no-meanings")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``ioi`` (edges) and ``nodes``."""
    place = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(place)
    try:
        ok(*FIND, "--steps", 2, "--edges", 40, "--out", "ioi")
        ok(*FIND, "--method", "eap", "--level", "nodes", "--size", 8, "--out", "nodes")
    finally:
        os.chdir(before)
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def model() -> Any:
    return sc.load_model("toy", device="cpu")


def page_at(path: str) -> Read:
    class Page:
        html = Path(path).read_text(encoding="utf-8")

    return read(Page)


def test_a_run_of_edges(model: Any) -> None:
    said = ok(
        "report", "ioi", *FEW, "--tokens", 1500, "--show", 3, "--no-random", "--methods", "eap-ig/left/3"
    ).stdout  # fmt: skip
    page = page_at("ioi/report.html")
    assert "ioi/report.html" in said
    circuit = sc.Circuit.load("ioi/circuit.safetensors")
    new = sc.load_task("ioi", model, n=8, seed=1)
    result = sc.evaluate(model, circuit, new, completeness=True)
    faithful = shown(result.faithfulness, result.faithfulness_interval)
    assert faithful in said
    assert faithful in page.text
    assert "8 prompts that were not used to find it" in page.text
    scores = sc.Scores.load("ioi/scores.safetensors")
    curve = sc.faithfulness_curve(model, scores, new)
    rows = page.table("Faithfulness, with its 95% interval")
    assert [row[1] for row in rows.values()] == [
        shown(e.faithfulness, e.faithfulness_interval) for e in curve.evaluations
    ]
    task = sc.load_task("ioi", model, n=8)
    other = sc.attribute(model, scores.graph, task, sc.EAPIG(steps=3, quadrature="left"))
    area = sc.faithfulness_curve(model, other, new)
    assert page.table("Area under")["eap-ig/left/3"][0] == shown(area.area, area.area_interval, 3)
    assert set(page.table("Area under")) == {"eap-ig", "eap-ig/left/3"}
    assert "indirect object" in page.text
    assert len([name for name in page.ids if name.startswith("node-")]) == 3
    assert "tokens of toy" in page.text
    # what it says of itself can be said again
    record = Record.load(Path("ioi/run.json"))
    assert f"{record.arguments.command} --out ioi" in page.text
    again = (
        "sparse-circuits report ioi --examples 8 --seed 1 --methods eap-ig/left/3 --no-random --tokens 1500 --show 3"
    )
    assert again in page.text


def test_what_the_folder_has_is_used(model: Any) -> None:
    shutil.copytree("ioi", "copy", ignore=shutil.ignore_patterns("report.html"))
    circuit = sc.Circuit.load("copy/circuit.safetensors")
    heads = [name for name in circuit.nodes if ".h" in name][:2]
    Path("copy/features.json").write_text(
        json.dumps(
            {
                "features": {heads[0]: {"label": "said by hand", "source": "heads"}, heads[1]: {"source": "heads"}},
                "heads": {heads[0]: {"looks_at": [["Amy", 0.5]]}},
            }
        )
    )
    Path("notes.json").write_text(json.dumps({heads[1]: "from a file"}))
    explore(circuit, "copy/explorer.html")
    ok("report", "copy", *FEW, "--no-methods", "--no-random", "--labels", "notes.json", "--out", "there.html")
    page = page_at("there.html")
    assert "said by hand" in page.text
    assert "from a file" in page.text
    assert "Amy 0.50" in page.text
    assert "explore" in page.ids
    assert "sparse-circuits features copy" in page.text
    assert "report.html" not in names_in("copy")
    # without its scores there is no curve, and without its explorer no explorer
    Path("copy/scores.safetensors").unlink()
    Path("copy/explorer.html").unlink()
    ok("report", "copy", *BARE, "--title", "Mine", "--question", "who?")
    page = page_at("copy/report.html")
    assert "There is no scores.safetensors" in page.text
    assert "sparse-circuits view copy --explore copy/explorer.html" in page.text
    assert "sparse-circuits features copy --text FILE" in page.text
    assert "who?" in page.text
    assert "Mine" in page.text
    assert "--title Mine" in page.text


def test_other_levels_and_prompts(model: Any) -> None:
    ok("report", "nodes", *FEW, "--no-methods", "--no-meanings", "--seed", 5)  # with random circuits of all sizes
    page = page_at("nodes/report.html")
    new = sc.load_task("ioi", model, n=8, seed=5)
    result = sc.evaluate(model, sc.Circuit.load("nodes/circuit.safetensors"), new)
    assert shown(result.faithfulness, result.faithfulness_interval) in page.text
    assert "random, median of draws" in page.text
    ok("report", "nodes", *BARE, "--seed", 0)
    page, written = page_at("nodes/report.html"), Path("nodes/report.html").read_bytes()
    assert "All of these prompts are those that the circuit was found on" in page.text
    again = "sparse-circuits report nodes --examples 8 --seed 0 --no-methods --no-random --no-meanings"
    assert again in page.text
    ok(*again.split()[1:])
    assert Path("nodes/report.html").read_bytes() == written
    # of a model without a text of its own only what weights and prompts say is known
    ok("report", "nodes", *FEW, "--no-methods", "--no-random", "--model", toy_path(), "--interactive")
    page = page_at("nodes/report.html")
    assert "Where they fire was not looked at. Run 'sparse-circuits features nodes --text FILE'" in page.text
    assert "Where its last token (bold) looks" in page.text
    assert "Plotly.newPlot" in Path("nodes/report.html").read_text(encoding="utf-8")
    ok(*FIND[:3], "--examples", 3, "--method", "eap", "--positions", "spans", "--edges", 60, "--out", "spans")
    ok("report", "spans", "--examples", 3, "--no-methods", "--no-meanings")
    page = page_at("spans/report.html")
    scores = sc.Scores.load("spans/scores.safetensors")
    curve = sc.faithfulness_curve(model, scores, sc.load_task("ioi", model, n=3, seed=1))
    numbers = page.table("Faithfulness, with its 95% interval")
    assert [int(size.replace(",", "")) for size in numbers] == list(curve.requested)
    assert [row[1] for row in numbers.values()] == [
        shown(e.faithfulness, e.faithfulness_interval) for e in curve.evaluations
    ]
    assert set(page.table("Area under")) == {"eap"}  # random circuits of many sizes would cost too much here


def test_prompts_that_a_circuit_has_no_positions_for_are_left_out() -> None:
    eap = ("--level", "nodes", "--method", "eap", "--positions", "keep")
    ok("find", "--task", "greater-than", "--examples", 3, *eap, "--size", 20, "--out", "keep")
    ok("report", "keep", "--examples", 20, "--no-methods", "--no-random", "--no-meanings")
    page = page_at("keep/report.html")
    left = int(re.search(r"longer prompts left out(\d+)", page.text)[1])  # pyright: ignore[reportOptionalSubscript]
    assert 0 < left < 20
    assert f"{20 - left} prompts" in page.text
    evaluated = page.text.split("Evaluate it as here:")[1].split("Make this page:")[0]
    assert "evaluate keep --examples 20 --seed 1" in evaluated
    said = ok("evaluate", "keep", "--examples", 20).stdout
    assert f"toy on {20 - left} examples of greater-than, seed 1" in said
    assert f"({left} longer than those that the circuit was found on are left out)" in said


def test_a_page_that_is_missing_is_asked_for_by_a_line_that_works() -> None:
    place = Path("it's here")
    shutil.copytree("nodes", place, ignore=shutil.ignore_patterns("report.html", "explorer.html"))
    ok("report", place, *BARE)
    line = re.search(r"Run '(sparse-circuits view .*?)', and then", page_at(str(place / "report.html")).text)
    ok(*shlex.split(line[1])[1:])  # pyright: ignore[reportOptionalSubscript]
    assert (place / "explorer.html").is_file()


def test_a_model_that_ablation_leaves_as_it_is(model: Any) -> None:
    """Of prompts that are their own corruption nothing can be said, and nothing more is run."""
    task = sc.load_task("ioi", model, n=4)
    rows = [{"clean": p, "corrupted": p, "correct": " Amy", "incorrect": " Erica"} for p in task.clean]
    Path("same.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ok("find", "--task", "same.jsonl", "--level", "nodes", "--method", "eap", "--size", 5, "--out", "same")
    ok("report", "same", "--no-meanings", "--no-methods")
    page = page_at("same/report.html")
    assert "How faithful it is cannot be said" in page.text
    assert "Faithfulness is undefined at every size" in page.text
    assert "nan" not in Path("same/circuit.svg").read_text(encoding="utf-8")


def test_a_run_of_features(model: Any) -> None:
    pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    task = ("--task", "sva-across-rc", "--examples", 8)
    ok(
        "find",
        *task,
        "--dictionaries",
        "toy",
        "--sites",
        "resid_2",
        "--steps",
        2,
        "--nodes",
        20,
        "--nodes-only",
        "--out",
        "rc",
    )
    ok("report", "rc", *FEW, "--tokens", 1500, "--show", 4)
    page = page_at("rc/report.html")
    saes = sc.load_dictionaries("toy", model, sites=["resid_2"])
    circuit = sc.Circuit.load("rc/circuit.safetensors", saes)
    new = sc.load_task("sva-across-rc", model, n=8, seed=1)
    result = sc.evaluate(model, circuit, new)
    removed = sc.evaluate(model, circuit, new, errors="remove")
    assert shown(result.faithfulness, result.faithfulness_interval) in page.text
    others = page.table("What no feature explains")
    assert others["the circuit, all error terms ablated"][1] == shown(
        removed.faithfulness, removed.faithfulness_interval
    )
    assert set(page.table("Area under")) == {"eap-ig", "eap", "neurons, same sites", "random, median of draws"}
    assert re.search(r"They were looked at on 1,\d\d\d tokens of toy", page.text)
    assert "Fires most on" in page.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere"),
        (("ioi/circuit.safetensors", "--out", "x.txt"), "x.txt: expected a file that ends in .html"),
        (("ioi", "--out", "no/such/x.html"), "no/such is not a folder"),
        (("ioi", "--methods", "magic"), "unknown method 'magic'"),
        (("ioi", "--methods", "eap/left"), "--quadrature goes with --method eap-ig only"),
        (("ioi", "--methods", "eap-ig/sideways"), "'sideways' is no option"),
        (("nodes", "--methods", "acdc"), "acdc scores edges, not nodes"),
        (("ioi", "--methods", "eap", "--no-methods"), "--methods or --no-methods"),
        (("ioi", "--no-meanings", "--tokens", 5), "--no-meanings leaves out"),
        (("ioi", "--labels", "none.json"), "none.json: there is no such file"),
        (("ioi", "--device", "warp"), "warp"),
        (("ioi", "--task", "magic", *BARE), "Unknown task 'magic'"),
        (("ioi", "--draws", 3), "--draws"),
    ],
)
def test_bad_input_is_one_line(words: tuple[Any, ...], said: str) -> None:
    result = run("report", *words)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
    assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1


def test_files_that_are_something_else_are_refused() -> None:
    shutil.copytree("nodes", "odd", ignore=shutil.ignore_patterns("report.html"))
    Path("odd/features.json").write_text('{"features": [1]}')
    result = run("report", "odd", *FEW)
    assert (result.exit_code, "is not what 'features' writes" in result.stderr) == (2, True)
    Path("odd/features.json").unlink()
    Path("odd/scores.safetensors").write_bytes(b"of something else")
    result = run("report", "odd", *FEW)
    assert (result.exit_code, "scores.safetensors" in result.stderr) == (2, True)
    Path("odd/run.json").unlink()
    result = run("report", "odd", *FEW)
    assert (result.exit_code, "holds no run.json" in result.stderr) == (2, True)
    assert not Path("odd/report.html").exists()


def test_methods_by_name() -> None:
    of_edges = Arguments(method="eap-ig", path="inputs", steps=5, quadrature="midpoint")
    assert beside.usual(of_edges) == ("eap", "eap-ig/left/5")
    assert beside.usual(Arguments(method="eap-ig", path="inputs", steps=5, quadrature="left"))[1] == "eap-ig/right/5"
    assert beside.usual(Arguments(method="eap")) == ("eap-ig",)
    assert beside.usual(Arguments(method="acdc")) == ("eap", "eap-ig")
    assert beside.usual(Arguments(level="features", dictionaries="toy")) == ("eap",)
    assert beside.usual(Arguments(level="features", dictionaries="toy", method="eap")) == ("clean-corrupted",)
    made = beside.named(["eap-ig/activations/3", "eap/frozen"], of_edges)
    assert made["eap-ig/activations/3"] == sc.EAPIG(steps=3, path="activations")
    assert made["eap/frozen"] == sc.EAP(rule="frozen")
    with pytest.raises(InputError, match="does not score features"):
        beside.named(["acdc"], Arguments(level="features", dictionaries="toy"))
