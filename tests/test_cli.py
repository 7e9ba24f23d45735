"""The command line: what it writes and prints, and the one line that it has for each bad input."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner, Result

import sparse_circuits as sc
from sparse_circuits.attribution import METHODS
from sparse_circuits.attribution.quadrature import QUADRATURES
from sparse_circuits.cli import options
from sparse_circuits.cli.app import app
from sparse_circuits.cli.folder import new_folder
from sparse_circuits.cli.methods import ENTRIES, FIELDS, flag
from sparse_circuits.cli.record import Arguments, Record
from sparse_circuits.graph import LEVELS
from sparse_circuits.model.rules import RULES
from sparse_circuits.zoo.tokenizer import build

COMMANDS = (
    "find",
    "evaluate",
    "view",
    "report",
    "export",
    "methods",
    "models",
    "tasks",
    "demo",
    "shift",
    "features",
    "trace",
)
RUN_FILES = {"circuit.safetensors", "scores.safetensors", "circuit.svg", "circuit.png", "explorer.html", "run.json"}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="sparse-circuits")


def ok(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model ``tiny`` and a task ``pairs.jsonl`` on which ablation matters; all is run there."""
    place = tmp_path_factory.mktemp("place")
    tokenizer = build(32)
    torch.manual_seed(0)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2, **special
    )
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(place / "tiny")
    tokenizer.save_pretrained(place / "tiny")
    rows = []
    for name in ("Alicia", "Amanda", "Amber", "Amy", "Andrea", "Angela", "Emily", "Erica"):
        # The answers are whatever tells the two prompts apart for this model, which was never trained.
        clean, corrupted = f"Then, {name} went to the park", f"Then, {name} walked to the store"
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(p)] for p in (clean, corrupted)])
        with torch.no_grad():
            change = model(ids).logits[0, -1] - model(ids).logits[1, -1]
        answer, other = (tokenizer.convert_ids_to_tokens(int(i)) for i in (change.argmax(), change.argmin()))
        rows.append({"clean_prefix": clean, "patch_prefix": corrupted, "clean_answer": answer, "patch_answer": other})
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


PAIRS = ("--model", "./tiny", "--task", "pairs.jsonl")
FIND = ("find", "--model", "./tiny", "--task", "pairs.jsonl", "--steps", 2, "--edges", 40)


@pytest.fixture(scope="module")
def found(place: Path) -> Result:
    """The output of a run that wrote ``first``."""
    before = Path.cwd()
    os.chdir(place)
    try:
        return ok(*FIND, "--out", "first")
    finally:
        os.chdir(before)


def names_in(folder: Path | str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


# --- help ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    text = ok(command, "--help").stdout
    assert f"Examples:\n    sparse-circuits {command}" in text


def test_commands_are_these() -> None:
    text = ok().stdout
    assert [line.split()[0] for line in text.split("Commands:\n")[1].splitlines()[: len(COMMANDS)]] == list(COMMANDS)
    assert ok("--version").stdout == f"sparse-circuits {sc.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['sparse-circuits', 'find', '--help']\n"
        "from sparse_circuits.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, {'torch', 'numpy', 'transformers', 'transformer_lens', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparse_circuits", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: sparse-circuits" in done.stdout


def test_choices_are_the_librarys() -> None:
    assert get_args(options.MethodName) == tuple(METHODS)
    assert get_args(options.QuadratureName) == QUADRATURES
    assert get_args(options.RuleName) == RULES
    assert get_args(options.LevelName) == LEVELS
    assert get_args(options.PositionsName) == get_args(get_type_hints(sc.attribute)["positions"])
    assert get_args(options.DirectName) == get_args(get_type_hints(METHODS["eap-ig"])["direct"])
    assert get_args(options.ObjectiveName) == get_args(get_type_hints(METHODS["edge-pruning"])["objective"])
    assert tuple(options.SIZES) == LEVELS
    for name in get_args(options.AblationName):
        assert isinstance(getattr(sc.Ablation, name.replace("-", "_").upper()), sc.Ablation)


# Fields of methods that are no arguments of their own: relp's rule is its name; edge-pruning is told --size, --seed and
# --checkpoint, which are the run's.
ELSEWHERE = {
    "relp": {"rule"},
    "edge-pruning": {"size", "seed", "multiplier_rate", "checkpoint", "checkpoint_every"},
}


@pytest.mark.parametrize("name", get_args(options.MethodName))
def test_every_method_has_its_options(name: str) -> None:
    entry = ENTRIES[name]
    own = {FIELDS.get(option, option) for option in entry.options}
    assert own | ELSEWHERE.get(name, set()) == {field.name for field in fields(METHODS[name])}
    assert set(entry.options) <= {field.name for field in fields(Arguments)}
    text = ok("find", "--help").stdout
    assert all(flag(option) in text for option in entry.options)
    listed = ok("methods").stdout
    assert any(line.split()[:1] == [name] and entry.summary in line for line in listed.splitlines())
    assert max(map(len, listed.splitlines())) <= 100


def test_help_groups_options() -> None:
    text = ok("find", "--help").stdout
    heads = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == [
        "Model and task:",
        "What is scored, and how:",
        "Options of single methods:",
        "Which circuit is chosen:",
        "Circuits of features:",
        "Options:",
    ]
    assert "Arguments:" in ok("view", "--help").stdout


# --- find ---


def test_find_writes_a_run(found: Result) -> None:
    assert names_in("first") == RUN_FILES
    record = json.loads(Path("first/run.json").read_text())
    circuit = sc.Circuit.load("first/circuit.safetensors")
    assert record["results"]["size"] == {"of": "edges", "graph": circuit.graph.size, "circuit": circuit.size}
    assert record["results"]["signs"] == dict(zip(("negative", "positive"), circuit.signs, strict=True))
    assert set(record["files"]) == RUN_FILES
    assert record["arguments"]["steps"] == 2
    assert record["arguments"]["quadrature"] == "midpoint"  # what was left open is filled in
    assert record["arguments"]["examples"] == 8
    low, high = record["results"]["faithfulness_interval"]
    assert low <= record["results"]["faithfulness"] <= high
    assert len(record["results"]["random"]["faithfulness"]) == 20


def test_find_prints_what_a_reader_wants_first(found: Result) -> None:
    circuit = sc.Circuit.load("first/circuit.safetensors")
    lines = found.stdout.splitlines()
    strongest = next(line for line in lines if line.startswith(circuit.edges[0]))
    assert float(strongest.split()[1]) == pytest.approx(circuit.to_dict()[circuit.edges[0]], rel=0.01)
    for start in (
        "whole model",
        "this circuit",
        "random, median of 20",
        "empty circuit",
        "asked for",
        "size",
        "signs",
        "convergence gap",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert any(line.split() == ["circuit", "first/circuit.safetensors"] for line in lines)
    assert max(map(len, lines)) <= 80


def test_find_from_repeats_a_run(found: Result) -> None:
    result = ok("find", "--from", "first/run.json", "--out", "again")
    first, again = (sc.Circuit.load(f"{name}/circuit.safetensors") for name in ("first", "again"))
    assert again.to_dict() == first.to_dict()
    before, after = (Record.load(Path(name) / "run.json") for name in ("first", "again"))
    assert after.arguments == before.arguments
    assert result.stderr.strip() == ""


def test_find_from_with_other_options(found: Result) -> None:
    ok("find", "--from", "first/run.json", "--method", "eap", "--threshold", "0.01", "--out", "other")
    arguments = Record.load(Path("other/run.json")).arguments
    assert (arguments.method, arguments.steps, arguments.size, arguments.select) == ("eap", None, None, None)
    assert arguments.model == "./tiny"
    scores = sc.Scores.load("other/scores.safetensors")
    assert sc.Circuit.load("other/circuit.safetensors").edges == scores.threshold(0.01).edges


def test_find_from_says_when_the_prompts_are_others(found: Result, tmp_path: Path) -> None:
    rows = Path("pairs.jsonl").read_text()
    task = tmp_path / "moving.jsonl"
    task.write_text(rows)
    ok(*FIND[:3], "--task", task, "--out", "before")
    task.write_text("".join(reversed(rows.splitlines(keepends=True))))
    result = ok("find", "--from", "before/run.json", "--out", "after")
    assert "warning: The prompts of " in result.stderr


def test_command_in_the_record_repeats_it(found: Result) -> None:
    command = json.loads(Path("first/run.json").read_text())["command"].split()
    ok(*command[1:], "--out", "by-command")
    assert Record.load(Path("by-command/run.json")).arguments == Record.load(Path("first/run.json")).arguments


def test_force_replaces_a_run_but_nothing_else(found: Result, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ok(*FIND, "--out", out)
    (out / "old-note.txt").write_text("of the earlier run")
    assert "add --force" in run(*FIND, "--out", out).stderr
    ok(*FIND, "--out", out, "--force", "--seed", 3)
    assert names_in(out) == RUN_FILES
    assert Record.load(out / "run.json").arguments.seed == 3
    assert names_in(tmp_path) == {"run"}


def test_a_failing_run_with_force_keeps_the_earlier_one(found: Result, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ok(*FIND, "--out", out)
    before = (out / "run.json").read_bytes()
    assert run(*FIND[:5], "--threshold", 1e9, "--out", out, "--force").exit_code == 2
    assert (out / "run.json").read_bytes() == before
    assert names_in(tmp_path) == {"run"}


# --- methods ---

QUICK = {
    "eap-ig": ("--steps", 2, "--path", "activations", "--rule", "frozen", "--direct", "mean"),
    "eap": ("--rule", "relp"),
    "clean-corrupted": ("--rule", "plain"),
    "atp-star": ("--no-qk-fix", "--no-grad-drop"),
    "acdc": ("--acdc-threshold", 0.001),
    "edge-pruning": (
        "--steps",
        30,
        "--sparsity",
        0.4,
        "--warmup",
        0.5,
        "--learning-rate",
        0.3,
        "--objective",
        "metric",
    ),
}


@pytest.mark.parametrize("name", get_args(options.MethodName))
def test_every_method_finds_a_circuit_and_repeats_it(name: str, tmp_path: Path) -> None:
    size = () if ENTRIES[name].selects else ("--edges", 60)
    words = (*PAIRS, "--examples", 4, "--method", name, *QUICK.get(name, ()), *size)
    text = ok("find", *words, "--out", tmp_path / "one").stdout
    arguments = Record.load(tmp_path / "one/run.json").arguments
    circuit, scores = (
        sc.Circuit.load(tmp_path / "one/circuit.safetensors"),
        sc.Scores.load(tmp_path / "one/scores.safetensors"),
    )
    method = METHODS[name](**{FIELDS.get(o, o): getattr(arguments, o) for o in ENTRIES[name].options})
    assert all(getattr(arguments, option) is not None for option in ENTRIES[name].options)
    if not ENTRIES[name].selects:
        assert circuit.provenance["method"] == str(method)
        assert circuit.edges == scores.greedy(60).edges
    else:
        assert circuit.edges == scores.selected.edges
        assert f"what {name} chooses" in text
    assert ("\nsigns " in text) == method.signed
    assert ("\nconvergence gap " in text) == (method.signed and bool(scores.passes[1]))
    passes = re.fullmatch(r"(\d+) forward(?:, (\d+) backward)?", ENTRIES[name].passes)
    if passes:
        assert scores.passes == tuple(int(n or 0) for n in passes.groups())
    command = json.loads((tmp_path / "one/run.json").read_text())["command"].split()
    ok(*command[1:], "--out", tmp_path / "two")
    assert Record.load(tmp_path / "two/run.json").arguments == arguments
    assert sc.Circuit.load(tmp_path / "two/circuit.safetensors").to_dict() == circuit.to_dict()


def test_a_method_that_selects_takes_a_size_too(found: Result, tmp_path: Path) -> None:
    words = ("find", "--from", "first/run.json", "--examples", 4, "--method", "edge-pruning", "--steps", 20)
    ok(*words, "--out", tmp_path / "own")
    own = Record.load(tmp_path / "own/run.json").arguments
    assert (own.size, own.select, own.sparsity, own.quadrature) == (None, None, 0.95, None)  # eap-ig's are dropped
    checkpoint = tmp_path / "state.safetensors"
    ok(*words, "--edges", 30, "--checkpoint", checkpoint, "--out", tmp_path / "sized")
    sized = Record.load(tmp_path / "sized/run.json").arguments
    assert (sized.size, sized.select, sized.sparsity) == (30, "greedy", None)
    scores = sc.Scores.load(tmp_path / "sized/scores.safetensors")
    assert sc.Circuit.load(tmp_path / "sized/circuit.safetensors").edges == scores.greedy(30).edges
    assert "size=30" in scores.provenance["method"]
    assert checkpoint.is_file()
    ok(*words, "--edges", 30, "--checkpoint", checkpoint, "--out", tmp_path / "again")
    assert sc.Scores.load(tmp_path / "again/scores.safetensors").to_dict() == scores.to_dict()


def test_stable_circuits(tmp_path: Path) -> None:
    text = ok("find", *PAIRS, "--method", "eap", "--edges", 40, "--stable", 0.8, "--out", tmp_path / "run").stdout
    assert "40 edges, less those not stable at 0.8" in text
    scores = sc.Scores.load(tmp_path / "run/scores.safetensors")
    circuit = sc.Circuit.load(tmp_path / "run/circuit.safetensors")
    assert circuit.edges == scores.stable(40, confidence=0.8).edges
    assert Record.load(tmp_path / "run/run.json").arguments.select is None
    ok("evaluate", tmp_path / "run", "--curve")
    ok("find", "--from", tmp_path / "run/run.json", "--select", "greedy", "--out", tmp_path / "greedy")
    arguments = Record.load(tmp_path / "greedy/run.json").arguments
    assert (arguments.size, arguments.stable, arguments.select) == (40, None, "greedy")


# --- levels and positions ---

TOY = ("--model", "toy", "--task", "ioi", "--examples", 4, "--method", "eap")
LEVELLED = {
    "nodes": ((*TOY, "--level", "nodes", "--size", 12), "a0.h", "nodes"),
    "outputs": ((*TOY, "--level", "outputs", "--threshold", 0.05), ".d", "outputs"),
    "neurons": ((*TOY, "--level", "neurons", "--size", 50, "--signed", "--batch-size", "auto"), ".n", "neurons"),
    "edges at spans": (
        ("--model", "./tiny", *TOY[2:], "--positions", "spans", "--size", 60),
        "@last",
        "edges, by named spans",
    ),
    "nodes kept": ((*TOY, "--level", "nodes", "--positions", "keep"), "@1", "nodes, each position apart"),
}


@pytest.mark.parametrize("name", LEVELLED)
def test_find_evaluate_and_view_at_every_level(name: str, tmp_path: Path) -> None:
    words, part, kind = LEVELLED[name]
    run = tmp_path / "run"
    text = ok("find", *words, "--out", run).stdout
    assert names_in(run) == RUN_FILES
    circuit, record = sc.Circuit.load(run / "circuit.safetensors"), Record.load(run / "run.json")
    graph = circuit.graph
    assert part in " ".join(circuit.names[:12])
    assert text.split("\n\n")[1].startswith(f"strongest {graph.thing}s")
    assert circuit.names[0] in text
    assert f"level             {kind}\n" in text
    assert f"{circuit.size:,} of {graph.size:,} {graph.thing}s" in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    assert record.results["size"] == {"of": graph.level, "graph": graph.size, "circuit": circuit.size}
    row = next(line for line in text.splitlines() if line.startswith("this circuit"))
    assert row.split()[2] == f"{circuit.size:,}"
    header = next(line.split() for line in text.splitlines() if "faithfulness" in line)
    assert header[0] == graph.level
    if name == "nodes":
        again = ok("find", "--from", run / "run.json", "--out", tmp_path / "again").stdout
        assert again.split("\n\n")[1:3] == text.split("\n\n")[1:3]
    text = ok(
        "evaluate", run, "--seed", 0, "--examples", 4, "--completeness", *(("--curve",) if "kept" in name else ())
    ).stdout
    assert f"{circuit.size:,}" in text
    if "kept" in name:
        curve = json.loads((run / "curve.json").read_text())
        assert curve["level"] == graph.level
        assert curve["sizes"][-1] == graph.size
        assert f"{graph.thing}s in the circuit" in (run / "curve.svg").read_text()
    ok("view", run, "--max-size", 5, "--out", tmp_path / "pictures")
    assert f"only the 5 strongest {graph.thing}s are drawn" in (tmp_path / "pictures/circuit.svg").read_text()


def test_another_level_drops_the_size(found: Result, tmp_path: Path) -> None:
    ok("find", "--from", "first/run.json", "--level", "nodes", "--out", tmp_path / "nodes")
    arguments = Record.load(tmp_path / "nodes/run.json").arguments
    assert (arguments.level, arguments.size, arguments.select) == (
        "nodes",
        11,
        None,
    )  # all, where there are fewer than 20
    text = ok("evaluate", "first", tmp_path / "nodes").stdout
    header, whole, *_ = (line.split() for line in text.split("\n\n")[1].splitlines())
    assert header[0] == "size"
    assert whole[:2] == ["whole", "model"]
    assert f"{sc.Circuit.load('first/circuit.safetensors').size} edges" in text
    assert "11 nodes" in text


def test_evaluating_a_method_without_ablation(tmp_path: Path) -> None:
    ok(
        "find",
        *PAIRS,
        "--method",
        "information-flow-routes",
        "--ablation",
        "zero",
        "--edges",
        60,
        "--out",
        tmp_path / "run",
    )
    assert "zero ablation" in ok("evaluate", tmp_path / "run").stdout


# --- folders ---


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "run"
    with pytest.raises(FileNotFoundError), new_folder(out, force=False) as folder:
        (folder / "half").rename(folder / "missing" / "half")
    assert names_in(tmp_path) == set()
    with new_folder(out, force=False) as folder:
        (folder / "run.json").touch()
        assert not out.exists()
    assert names_in(out) == {"run.json"}
    with pytest.raises(KeyboardInterrupt), new_folder(out, force=True) as folder:
        raise KeyboardInterrupt
    assert names_in(out.parent) == {"run"}
    assert names_in(out) == {"run.json"}


def test_interrupt_while_writing_leaves_nothing(place: Path, tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "import sparse_circuits.view.picture as picture\n"
        "def slow(*_, **__): pathlib.Path(sys.argv[-1], 'writing').touch(); time.sleep(600)\n"
        "picture.draw_circuit = slow\n"
        "from sparse_circuits.cli.app import app\n"
        "app(sys.argv[1:-1], prog_name='sparse-circuits')\n"
    )
    signals = tmp_path / "signals"
    signals.mkdir()
    out = tmp_path / "runs" / "one"
    words = [*map(str, FIND), "--examples", "2", "--out", str(out), str(signals)]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300  # long enough for a machine that does much else
    while not (signals / "writing").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any(path.name.startswith(".one.") for path in out.parent.iterdir())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.strip() == "interrupted: nothing was written"
    assert names_in(tmp_path) == {"signals"}


# --- evaluate ---


def test_evaluate_a_run(found: Result) -> None:
    text = ok("evaluate", "first", "--completeness", "--ablation", "zero").stdout
    assert "./tiny on 8 examples of pairs.jsonl, zero ablation\n(those that the circuit was found on)\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "completeness" in text
    expected = sc.evaluate(
        model := sc.load_model("./tiny"),
        sc.Circuit.load("first/circuit.safetensors"),
        sc.load_task("pairs.jsonl", model),
        ablation=sc.Ablation.ZERO,
    )
    row = next(line for line in text.splitlines() if line.startswith("this circuit"))
    assert f"{expected.faithfulness:.2f} [" in row


def test_evaluate_says_which_prompts_are_not_new(found: Result) -> None:
    assert (
        "\n(all of them are among those that the circuit was found on)\n"
        in ok("evaluate", "first", "--examples", 5).stdout
    )
    # of another task none are
    assert "among" not in ok("evaluate", "first", "--task", "ioi", "--examples", 5).stdout


def test_evaluate_bundled_prompts_takes_new_ones(found: Result) -> None:
    assert "5 examples of ioi, seed 1," in ok("evaluate", "first", "--task", "ioi", "--examples", 5).stdout
    assert "5 examples of ioi, seed 9," in ok("evaluate", "first", "--task", "ioi", "--examples", 5, "--seed", 9).stdout


def test_evaluate_several_and_a_bare_file(found: Result) -> None:
    circuit = sc.Circuit.load("first/circuit.safetensors")
    circuit.save("bare.safetensors")
    text = ok("evaluate", "first", "bare.safetensors", "--task", "pairs.jsonl").stdout
    rows = [line.split() for line in text.splitlines() if line.startswith(("first ", "bare.safetensors "))]
    assert [row[0] for row in rows] == ["first", "bare.safetensors"]
    assert rows[0][1:] == rows[1][1:]


def test_evaluate_curve(found: Result) -> None:
    text = ok("evaluate", "first", "--curve").stdout
    curve = json.loads(Path("first/curve.json").read_text())
    assert len(curve["sizes"]) == len(curve["faithfulness"]) == len(curve["requested"])
    assert curve["level"] == "edges"
    assert curve["faithfulness"][-1] == pytest.approx(1, abs=1e-4)
    assert {"curve.svg", "curve.png"} <= names_in("first")
    assert f"{curve['area']:.3f}" in text


# --- view ---


def test_view_beside_a_circuit(found: Result) -> None:
    sc.Circuit.load("first/circuit.safetensors").save("seen.safetensors")
    ok("view", "seen.safetensors", "--title", "Seen", "--max-edges", 5)
    assert "Seen" in Path("seen.svg").read_text()
    assert Path("seen.png").read_bytes().startswith(b"\x89PNG")
    assert Path("seen.dot").read_text().startswith("digraph")


def test_view_of_a_run_says_how_good_it_is(found: Result, tmp_path: Path) -> None:
    ok("view", "first", "--out", tmp_path / "pictures")
    assert names_in(tmp_path / "pictures") == {"circuit.svg", "circuit.png", "circuit.dot"}
    assert "faithfulness" in (tmp_path / "pictures" / "circuit.svg").read_text()
    ok("view", "first", "--out", tmp_path / "one.dot")
    assert names_in(tmp_path) == {"pictures", "one.dot"}


def test_view_as_a_page(found: Result, tmp_path: Path) -> None:
    """With what the command ``features`` would have written beside it, where there is such a file."""
    folder = Path(shutil.copytree("first", tmp_path / "run"))
    assert "page" in ok("view", folder, "--explore", tmp_path / "plain.html").output
    name = sc.Circuit.load(folder / "circuit.safetensors").nodes[0]
    pages = {"features": {name: {"label": "so it is called"}}, "heads": {name: {"looks_at": [["girls", 0.9]]}}}
    (folder / "features.json").write_text(json.dumps(pages))
    ok("view", folder, "--explore", tmp_path / "told.html", "--title", "As a page")
    plain, told = ((tmp_path / f"{which}.html").read_text() for which in ("plain", "told"))
    assert "so it is called" in told
    assert '"looks_at":[["girls",0.9]]' in told
    assert "so it is called" not in plain
    assert "<title>As a page</title>" in told
    ok("view", folder, "--explore", tmp_path / "few.html", "--max-edges", 3)
    few, all_of_it = (page_data(tmp_path / f"{which}.html") for which in ("few", "plain"))
    assert len(few["edges"]["u"]) == 3
    assert few["leftOut"][0][-1] == len(all_of_it["edges"]["u"]) - 3
    refused = run("view", folder, "--explore", tmp_path / "x.html", "--max-size", 3)
    assert refused.exit_code == 2
    assert "--explore writes a page with a slider over the circuit's size" in refused.output
    assert not (tmp_path / "x.html").exists()


def copied(name: str, to: Path, *without: str) -> Path:
    """A run's folder, less what other tests may have left in it."""
    return Path(shutil.copytree(name, to, ignore=shutil.ignore_patterns("curve.*", "features*", *without)))


def test_view_makes_the_page_of_a_run_again(found: Result, tmp_path: Path) -> None:
    """The same bytes; where ``evaluate --curve`` measured since, with what that did."""
    run = copied("first", tmp_path / "run")
    ok("view", run, "--explore", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (run / "explorer.html").read_bytes()
    ok("evaluate", run, "--curve", "--completeness", "--seed", 0, "--examples", 3, "--ablation", "zero", "--draws", 21)
    ok("view", run, "--explore", tmp_path / "since.html")
    data, since = page_data(tmp_path / "since.html"), json.loads((run / "curve.json").read_text())
    (curve,), (own,) = data["curves"], data["evaluations"]
    asked = Record.load(run / "run.json").arguments.size
    assert [(point["asked"], point["size"]) for point in curve["points"]] == list(
        zip(since["requested"], since["sizes"], strict=True)
    )
    assert [point["value"] for point in curve["points"]] == pytest.approx(since["faithfulness"], rel=1e-3)
    assert (curve["ablation"], own["ablation"], own["x"], data["steps"][data["start"]]) == (
        "zero",
        "zero",
        asked,
        asked,
    )
    circuit = since["circuit"]
    assert [own[key] for key in ("size", "value", "mean", "completeness")] == pytest.approx(
        [circuit[key] for key in ("size", "faithfulness", "metric", "completeness")], rel=1e-3
    )
    assert [own["low"], own["high"]] == pytest.approx(circuit["faithfulness_interval"], rel=1e-3)
    assert (data["random"]["draws"], data["random"]["size"]) == (21, circuit["size"])
    assert data["random"]["value"] == pytest.approx(circuit["random"]["median"], rel=1e-3)


def test_view_of_a_run_that_is_not_whole(found: Result, tmp_path: Path) -> None:
    """Without its scores, the circuit's own sizes; with another circuit in its place, nothing that the run measured."""
    results = json.loads(Path("first/run.json").read_text())["results"]
    bare = copied("first", tmp_path / "bare", "scores.safetensors")
    ok("view", bare, "--explore", tmp_path / "bare.html")
    data = page_data(tmp_path / "bare.html")
    assert data["steps"][-1] == results["size"]["circuit"] == data["evaluations"][0]["x"]
    assert data["curves"] == [None]  # of circuits that these are not
    assert data["evaluations"][0]["value"] == pytest.approx(results["faithfulness"])
    other = copied("first", tmp_path / "other")
    circuit = sc.Scores.load(other / "scores.safetensors").top(20)
    circuit.save(other / "circuit.safetensors")
    ok("view", other, "--explore", tmp_path / "other.html")
    data = page_data(tmp_path / "other.html")
    assert (data["curves"], data["evaluations"], data["random"]) == ([None], [None], None)
    assert data["steps"][-1] == circuit.size


def test_what_was_measured_of_something_else_is_not_on_the_page(found: Result, tmp_path: Path) -> None:
    """Another task's curve, and a circuit of the same size from another run."""
    run_folder = copied("first", tmp_path / "run")
    ok("evaluate", run_folder, "--curve", "--seed", 0, "--examples", 2)
    curve = json.loads((run_folder / "curve.json").read_text())
    (run_folder / "curve.json").write_text(json.dumps({**curve, "task": "another"}))
    ok("view", run_folder, "--explore", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (run_folder / "explorer.html").read_bytes()
    ok("find", "--from", "first/run.json", "--ablation", "zero", "--out", tmp_path / "zero")
    shutil.copy(tmp_path / "zero" / "circuit.safetensors", run_folder)
    ok("view", run_folder, "--explore", tmp_path / "page.html")
    data, circuit = page_data(tmp_path / "page.html"), sc.Circuit.load(run_folder / "circuit.safetensors")
    assert (data["curves"], data["evaluations"]) == ([None], [None])
    assert data["sizes"][0][-1] == circuit.size
    refused = copied("first", tmp_path / "refused")
    (refused / "scores.safetensors").unlink()
    scores = sc.Scores.load(tmp_path / "zero" / "scores.safetensors")
    replace(scores, values=scores.values.flip(0) * scores.graph.mask).save(refused / "scores.safetensors")
    error = run("view", refused, "--explore", tmp_path / "no.html")
    assert error.exit_code == 2
    assert f"The scores and the records in {refused} are not of the same run." in " ".join(error.stderr.split())


def test_a_circuit_that_no_size_stands_for_is_shown_as_it_was_evaluated_since(tmp_path: Path) -> None:
    ok("find", *PAIRS, "--method", "eap", "--threshold", 0.01, "--out", tmp_path / "run")
    ok("evaluate", tmp_path / "run", "--curve", "--completeness", "--seed", 0, "--examples", 3, "--ablation", "zero")
    ok("view", tmp_path / "run", "--explore", tmp_path / "page.html")
    data, since = (
        page_data(tmp_path / "page.html"),
        json.loads((tmp_path / "run" / "curve.json").read_text())["circuit"],
    )
    (own,) = data["evaluations"]
    assert data["curves"] == [None]
    assert (own["ablation"], own["size"], own["x"]) == ("zero", since["size"], since["size"])
    assert [own["value"], own["completeness"]] == pytest.approx([since["faithfulness"], since["completeness"]])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("curve.json", lambda text: text[:-20]),
        ("curve.json", lambda text: text.replace('"circuit"', '"curcuit"')),
        ("curve.json", lambda text: re.sub(r'("requested": )\[[^]]*\]', r"\1[1, 2]", text)),
        ("curve.json", lambda text: re.sub(r'("requested": \[)\s*(\d+)', r'\1"\2"', text)),
        ("run.json", lambda text: text.replace('"median": ', '"median": "a", "was": ')),
        ("run.json", lambda text: re.sub(r'("requested": \[)\s*(\d+)', r"\1-\2", text)),
    ],
    ids=["cut off", "a name", "lengths", "text", "no number", "negative"],
)
def test_view_of_damaged_records(name: str, change: Callable[[str], str], found: Result, tmp_path: Path) -> None:
    run_folder = copied("first", tmp_path / "run")
    ok("evaluate", run_folder, "--curve", "--seed", 0, "--examples", 2)
    text = (run_folder / name).read_text()
    (run_folder / name).write_text(change(text))
    assert (run_folder / name).read_text() != text
    refused = run("view", run_folder, "--explore", tmp_path / "x.html")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {run_folder / name} is damaged (")
    assert not (tmp_path / "x.html").exists()


def test_view_compares(found: Result, tmp_path: Path) -> None:
    """Two runs on one page, each with its own curve, called by what sets them apart."""
    first, n = copied("first", tmp_path / "first"), Record.load(Path("first/run.json")).arguments.size
    ok("find", "--from", "first/run.json", "--ablation", "zero", "--out", tmp_path / "zero")
    ok("view", first, "--compare", tmp_path / "zero", "--explore", tmp_path / "both.html")
    data = page_data(tmp_path / "both.html")
    assert data["two"]
    assert data["labels"] == ["patch ablation", "zero ablation"]
    for i, folder in enumerate((first, tmp_path / "zero")):
        alone, results = page_data(folder / "explorer.html"), json.loads((folder / "run.json").read_text())["results"]
        assert data["curves"][i] == alone["curves"][0]
        assert data["evaluations"][i] == alone["evaluations"][0]
        assert data["steps"] == alone["steps"]
        assert data["sizes"][i][data["start"]] == results["size"]["circuit"]
    assert data["steps"][data["start"]] == n
    # each chosen in its own way
    ok("find", "--from", "first/run.json", "--select", "top", "--out", tmp_path / "top")
    ok("view", first, "--compare", tmp_path / "top", "--explore", tmp_path / "both.html", "--title", "Two ways")
    data, scores = page_data(tmp_path / "both.html"), sc.Scores.load(first / "scores.safetensors")
    for step, (greedy, top) in zip(data["steps"], zip(*data["sizes"], strict=True), strict=True):
        assert (greedy, top) == (scores.greedy(step).size, scores.top(step).size)
    assert data["curves"][1] == page_data(tmp_path / "top" / "explorer.html")["curves"][0]
    assert data["labels"] == [str(first), str(tmp_path / "top")]
    assert data["title"] == "Two ways"
    # beside a circuit file, of which nothing was measured, and which has a size of its own
    for name, n in (("one", 7), ("two", 20)):
        scores.greedy(n).save(tmp_path / f"{name}.safetensors")
    ok(
        "view",
        tmp_path / "one.safetensors",
        "--compare",
        tmp_path / "two.safetensors",
        "--explore",
        tmp_path / "f.html",
    )
    data = page_data(tmp_path / "f.html")
    assert data["labels"] == [str(tmp_path / "one.safetensors"), str(tmp_path / "two.safetensors")]
    assert [side[-1] for side in data["sizes"]] == [scores.greedy(n).size for n in (7, 20)]
    ok("view", first, "--compare", tmp_path / "two.safetensors", "--explore", tmp_path / "f.html")
    assert page_data(tmp_path / "f.html")["curves"][1] is None


# --- lists, demo ---


def test_tasks_and_models() -> None:
    text = ok("tasks").stdout
    assert "ioi" in text
    assert "clean_prefix" in text
    text = ok("models").stdout
    assert "toy" in text
    assert "gpt2" in text
    assert "layers" in text


def test_demo(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    out, text = demo_run
    pages = [out / "ioi" / "explorer.html"]
    if importlib.util.find_spec("sae_lens"):
        pages.append(out / "agreement" / "explorer.html")
        assert names_in(out / "agreement") == RUN_FILES | {"neurons.safetensors", "features.json"}
    else:
        assert "The second circuit, of features, was left out." in text
        assert "pip install" in text
    assert f"Open in a browser: {', '.join(map(str, pages))}" in text.splitlines()
    assert names_in(out / "ioi") == RUN_FILES | {"features.json"}
    assert names_in(out) == {page.parent.name for page in pages}
    assert text.count("random, median of 20") == len(pages)
    for page in pages:
        results = json.loads((page.parent / "run.json").read_text())["results"]
        assert results["faithfulness_interval"][0] > results["random"]["interval"][1]
        ok("view", page.parent, "--explore", tmp_path / "again.html")
        assert (tmp_path / "again.html").read_bytes() == page.read_bytes()  # with its title and what its nodes mean


def test_demo_replaces_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "agreement").mkdir()
    (tmp_path / "agreement" / "mine.txt").touch()
    refused = run("demo", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "agreement holds no run.json, so no run wrote it" in refused.stderr
    assert names_in(tmp_path) == {"agreement"}


def test_demo_says_what_it_needs_for_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first circuit is found all the same."""
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    text = ok("demo", "--out", tmp_path, "--examples", 4, "--device", "cpu").stdout
    assert names_in(tmp_path) == {"ioi"}
    (line,) = (line for line in text.splitlines() if "left out" in line)
    assert "SAELens" in line
    assert "pip install" in line


def test_a_run_leaves_a_page_to_explore_it_in(found: Result) -> None:
    """The scores at sizes around the circuit's, with what the run knows of it; a repeated run leaves the same bytes."""
    page, results = Path("first/explorer.html"), json.loads(Path("first/run.json").read_text())["results"]
    assert found.stdout.splitlines()[-1] == f"Open in a browser to explore it: {page}"
    data = page_data(page)
    scores, n = sc.Scores.load("first/scores.safetensors"), Record.load(Path("first/run.json")).arguments.size
    assert n is not None
    expected = sorted({n // 8, n // 4, n // 2, n, *(min(size, scores.graph.size) for size in (2 * n, 4 * n))})
    points = data["curves"][0]["points"]
    assert [point["asked"] for point in points] == expected
    assert [point["size"] for point in points] == [scores.greedy(size).size for size in expected]
    assert data["steps"][data["start"]] == n
    assert data["steps"][-1] == expected[-1]
    for known in (data["evaluations"][0], next(point for point in points if point["asked"] == n)):
        assert known["value"] == pytest.approx(results["faithfulness"], rel=1e-3)
        assert [known["low"], known["high"]] == pytest.approx(results["faithfulness_interval"], rel=1e-3)
    assert data["random"]["value"] == pytest.approx(results["random"]["median"], abs=1e-3)
    assert data["random"]["draws"] == 20
    ok("find", "--from", "first/run.json", "--out", "page-again")
    assert Path("page-again/explorer.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("--threshold", 0.01),
        ("--edges", 30, "--stable", 0.9),
        ("--method", "acdc"),
        ("--level", "neurons", "--size", 30),
    ],
    ids=["threshold", "stable", "acdc", "neurons"],
)
def test_the_page_of_a_circuit_chosen_otherwise(options: tuple[object, ...], tmp_path: Path) -> None:
    ok("find", *PAIRS, "--method", "eap", *options, "--out", tmp_path / "run")
    data = page_data(tmp_path / "run" / "explorer.html")
    results = json.loads((tmp_path / "run" / "run.json").read_text())["results"]
    by_size = "neurons" in options
    assert (data["curves"] != [None]) == by_size
    assert data["evaluations"][0]["value"] == pytest.approx(results["faithfulness"], rel=1e-3)
    assert data["evaluations"][0]["size"] == results["size"]["circuit"] == data["sizes"][0][data["start"]]


def page_data(path: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    assert found
    return json.loads(found[1])


# --- bad input ---


def write(name: str, text: str) -> Callable[[], None]:
    return lambda: (Path(name).write_text(text), None)[1]


def nothing() -> None:
    pass


def folder_with(name: str) -> Callable[[], None]:
    def make() -> None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()

    return make


def damage() -> None:
    Path("damaged.safetensors").write_bytes(Path("first/circuit.safetensors").read_bytes()[:100])


def edit_record(name: str, value: object) -> Callable[[], None]:
    def make() -> None:
        record = json.loads(Path("first/run.json").read_text())
        record["arguments"][name] = value
        Path("edited.json").write_text(json.dumps(record))

    return make


def jsonl(*pairs: tuple[str, str, str, str]) -> str:
    fields = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")
    return "".join(json.dumps(dict(zip(fields, pair, strict=True))) + "\n" for pair in pairs)


TINY = ("find", "--model", "./tiny", "--out", "bad")
ON_PAIRS = (*TINY, "--task", "pairs.jsonl")
ON_PRUNING = (*ON_PAIRS, "--method", "edge-pruning")
ON_FLOW = (*ON_PAIRS, "--method", "information-flow-routes")
UNEQUAL = jsonl(("Then, Amy went", "Then, Amy went home", "to", "at"))
TWO_TOKENS = jsonl(("Then, Amy went", "Then, Erica went", "to the", "at"))
LENGTHS = jsonl(("Then, Amy went", "Then, Erica went", "to", "at"), ("Then, Amy", "Then, Erica", "to", "at"))
LONG = jsonl((" ".join(["Amy"] * 40), " ".join(["Erica"] * 40), "to", "at"))

BAD = [
    (("discover",), nothing, "No such command 'discover'"),
    (("find", "--modle", "toy"), nothing, "No such option: --modle"),
    (("find", "--seed", "one"), nothing, "Invalid value for '--seed'"),
    (("find", "--model", "./nowhere"), nothing, "No model folder at ./nowhere"),
    (("find", "--model", "./empty"), folder_with("empty/note"), "empty is a folder without a config.json"),
    ((*TINY, "--task", "iio"), nothing, "Unknown task 'iio'; expected one of ioi, "),
    ((*TINY, "--task", "none.csv"), nothing, "No task file at none.csv"),
    ((*TINY, "--task", "empty.jsonl"), write("empty.jsonl", ""), "empty.jsonl holds no rows"),
    ((*TINY, "--task", "odd.jsonl"), write("odd.jsonl", '{"clean": "a"}\n'), "odd.jsonl, row 0: no 'correct'"),
    ((*TINY, "--task", "text.jsonl"), write("text.jsonl", "Amy\n"), "text.jsonl, row 0: not a line of JSON"),
    ((*TINY, "--task", "unequal.jsonl"), write("unequal.jsonl", UNEQUAL), "row 0: the clean prompt is 5 tokens"),
    ((*TINY, "--task", "two.jsonl"), write("two.jsonl", TWO_TOKENS), "row 0: correct answer 'to the' is 2 tokens"),
    ((*TINY, "--task", "long.jsonl"), write("long.jsonl", LONG), "the model takes at most 32"),
    (
        (*TINY, "--task", "lengths.jsonl", "--ablation", "mean-positional"),
        write("lengths.jsonl", LENGTHS),
        "MEAN_POSITIONAL needs prompts of one length",
    ),
    ((*ON_PAIRS, "--examples", 9), nothing, "pairs.jsonl holds 8 examples; 9 were asked for"),
    ((*ON_PAIRS, "--method", "magic"), nothing, "Invalid value for '--method'"),
    ((*ON_PAIRS, "--level", "layers"), nothing, "Invalid value for '--level'"),
    ((*ON_PAIRS, "--positions", "all"), nothing, "Invalid value for '--positions'"),
    ((*ON_PAIRS, "--batch-size", 0), nothing, "'0' is neither a whole number of at least 1 nor 'auto'"),
    ((*ON_PAIRS, "--batch-size", "many"), nothing, "'many' is neither a whole number of at least 1 nor 'auto'"),
    (
        (*ON_PAIRS, "--method", "exact", "--rule", "frozen"),
        nothing,
        "--rule goes with --method eap, eap-ig or clean-corrupted, not with exact",
    ),
    (
        (*ON_PAIRS, "--method", "relp", "--steps", 5),
        nothing,
        "--steps goes with --method eap-ig or edge-pruning, not with",
    ),
    ((*ON_PAIRS, "--no-qk-fix"), nothing, "--no-qk-fix goes with --method atp-star only, not with eap-ig"),
    ((*ON_PAIRS, "--grad-drop"), nothing, "--grad-drop goes with --method atp-star only"),
    ((*ON_PAIRS, "--acdc-threshold", 0.1), nothing, "--acdc-threshold goes with --method acdc only"),
    ((*ON_PAIRS, "--sparsity", 0.1), nothing, "--sparsity goes with --method edge-pruning only"),
    (
        (*ON_PAIRS, "--checkpoint", "state"),
        nothing,
        "--checkpoint goes with --method edge-pruning only, not with eap-ig",
    ),
    ((*ON_PRUNING, "--checkpoint", "no/state"), nothing, "--checkpoint no/state: there is no folder no"),
    ((*ON_PRUNING, "--sparsity", 2), nothing, "sparsity=2.0): expected a number between 0 and 1"),
    ((*ON_PRUNING, "--sparsity", 0.9, "--edges", 9), nothing, "--sparsity and --edges both say how much to keep"),
    ((*ON_PRUNING, "--batch-size", "auto"), nothing, "--batch-size auto: what edge-pruning learns depends on it"),
    (
        (*ON_PRUNING, "--stable", 0.9),
        nothing,
        "--stable is for methods that only score; edge-pruning chooses by itself",
    ),
    (
        (*ON_PRUNING, "--select", "top"),
        nothing,
        "--select goes with --edges: without it edge-pruning chooses by itself",
    ),
    (
        (*ON_PRUNING, "--signed", "--level", "nodes"),
        nothing,
        "--signed goes with --size: without it edge-pruning chooses",
    ),
    ((*ON_PRUNING, "--signed", "--edges", 9), nothing, "--signed: the scores of edge-pruning carry no sign"),
    ((*ON_PAIRS, "--method", "atp-star", "--signed"), nothing, "--signed: the scores of atp-star carry no sign"),
    ((*ON_FLOW, "--level", "nodes"), nothing, "--level nodes: information-flow-routes scores edges only"),
    ((*ON_FLOW, "--positions", "keep"), nothing, "information-flow-routes does not tell positions apart"),
    ((*ON_PAIRS, "--positions", "spans"), nothing, "spans"),
    ((*ON_PAIRS, "--level", "nodes", "--edges", 5), nothing, "--edges counts edges; with --level nodes give --size"),
    ((*ON_PAIRS, "--edges", 5, "--size", 5), nothing, "Expected --edges or --size, got both"),
    ((*ON_PAIRS, "--level", "nodes", "--size", 12), nothing, "--size 12: the graph of ./tiny has 11"),
    ((*ON_PAIRS, "--level", "nodes", "--select", "top"), nothing, "--select is for edges; with --level nodes"),
    ((*ON_PAIRS, "--positions", "keep", "--edges", 10**6), nothing, "--edges 1000000: the graph of ./tiny has "),
    ((*ON_PAIRS, "--level", "nodes", "--threshold", 1e9), nothing, "No node is left; try a lower --threshold"),
    ((*ON_PAIRS, "--stable", 1.5), nothing, "--stable 1.5: expected a share above 0 and at most 1"),
    ((*ON_PAIRS, "--stable", 0.9, "--threshold", 0.1), nothing, "leave it out with --threshold"),
    ((*ON_PAIRS, "--stable", 0.9, "--select", "top"), nothing, "--stable chooses among the strongest of all"),
    ((*ON_PAIRS, "--method", "eap", "--quadrature", "left"), nothing, "--quadrature goes with --method eap-ig only"),
    ((*ON_PAIRS, "--quadrature", "trapezoid", "--steps", 1), nothing, "'trapezoid' takes 2 to 1000 points"),
    ((*ON_PAIRS, "--edges", 10, "--threshold", 0.1), nothing, "Expected --edges or --threshold, got both"),
    ((*ON_PAIRS, "--edges", 0), nothing, "Invalid value for '--edges'"),
    ((*ON_PAIRS, "--edges", 100_000), nothing, "--edges 100000: the graph of ./tiny has 110"),
    ((*ON_PAIRS, "--edges", 1, "--select", "top"), nothing, "do not connect the input to the logits"),
    ((*ON_PAIRS, "--threshold", -1), nothing, "--threshold -1.0: expected a number of at least 0"),
    ((*ON_PAIRS, "--threshold", "nan"), nothing, "--threshold nan: expected a number of at least 0"),
    ((*ON_PAIRS, "--threshold", 0.1, "--select", "top"), nothing, "leave it out with --threshold"),
    ((*ON_PAIRS, "--draws", 5), nothing, "Invalid value for '--draws'"),
    ((*ON_PAIRS, "--device", "abacus"), nothing, "--device abacus cannot be used here"),
    ((*ON_PAIRS[:-4], "--out", "full"), folder_with("full/note"), "--out full exists and is not empty"),
    ((*ON_PAIRS[:-4], "--out", "full", "--force"), folder_with("full/note"), "--out full holds no run.json"),
    ((*ON_PAIRS[:-4], "--out", "pairs.jsonl"), nothing, "--out pairs.jsonl is a file"),
    ((*ON_PAIRS[:-4], "--out", "pairs.jsonl/run"), nothing, "pairs.jsonl is not a folder that can be written to"),
    (("find", "--from", "none.json"), nothing, "No file at none.json"),
    (("find", "--from", "pairs.jsonl"), nothing, "pairs.jsonl is not JSON"),
    (("find", "--from", "tiny/config.json"), nothing, "tiny/config.json is not a run.json of sparse-circuits"),
    (("find", "--from", "edited.json"), edit_record("stpes", 3), "unknown argument 'stpes'"),
    (("find", "--from", "edited.json"), edit_record("method", "magic"), "method cannot be 'magic'"),
    (("find", "--from", "edited.json"), edit_record("batch_size", "some"), "batch_size cannot be 'some'"),
    (("find", "--from", "edited.json"), edit_record("qk_fix", False), "--no-qk-fix goes with --method atp-star only"),
    (
        ("find", "--from", "first/run.json", "--level", "nodes", "--edges", 5),
        nothing,
        "--edges counts edges; with --level",
    ),
    (("find", "--from", "edited.json"), edit_record("draws", 3), "--draws 3: expected at least 20"),
    (("evaluate", "none"), nothing, "No file at none"),
    (("evaluate", "tiny"), nothing, "tiny holds no circuit.safetensors"),
    (("evaluate", "damaged.safetensors"), damage, "damaged.safetensors is damaged"),
    (("evaluate", "first/scores.safetensors"), nothing, "holds 'scores'; expected 'circuit'"),
    (("evaluate", "tiny/model.safetensors"), nothing, "is a safetensors file, but not one of sparse-circuits"),
    (("evaluate", "bare.safetensors", "--curve"), nothing, "--curve needs the scores of a run"),
    (("evaluate", "mixed.safetensors", "first"), nothing, "The circuits differ in --model (./other, ./tiny)"),
    (("evaluate", "alien.safetensors", "--model", "./tiny"), nothing, "The graph is of another model"),
    (("view", "none.safetensors"), nothing, "No file at none.safetensors"),
    (("view", "first", "--out", "circuit.bmp"), nothing, "expected a folder, or a file that ends in .svg"),
    (("view", "first", "--explore", "circuit.svg"), nothing, "expected a name that ends in .html"),
    (("view", "first", "--compare", "first"), nothing, "--compare goes with --explore"),
    (
        ("view", "units.safetensors", "--explore", "x.html", "--max-edges", 3),
        nothing,
        "nodes has no edges; leave it out",
    ),
    (("view", "first", "--explore", "x.html", "--compare", "none"), nothing, "No file at none"),
    (
        ("view", "first", "--explore", "x.html", "--compare", "units.safetensors"),
        nothing,
        "--compare units.safetensors: that circuit is of another graph",
    ),
    (
        ("view", "units.safetensors", "--max-edges", 3),
        nothing,
        "--max-edges counts edges, and this circuit is one of nodes",
    ),
    (("view", "units.safetensors", "--max-edges", 3, "--max-size", 3), nothing, "Expected --max-edges or --max-size"),
    (
        ("view", "units.safetensors", "--max-size", 1),
        nothing,
        "--max-size 1: this circuit has no scores, so none of its nodes",
    ),
    (("view", "first", "--out", "nowhere/circuit.svg"), nothing, "there is no folder nowhere"),
]


@pytest.fixture(scope="module")
def _circuits(place: Path, found: Result) -> None:
    """Circuit files that bad inputs name."""
    circuit = sc.Circuit.load(place / "first/circuit.safetensors")
    circuit.save(place / "bare.safetensors")
    sc.Circuit(circuit.graph, circuit.mask, circuit.values, {**circuit.provenance, "model": "./other"}).save(
        place / "mixed.safetensors"
    )
    sc.Circuit.of(sc.Graph(n_layers=1, n_heads=2, n_kv=2, level="nodes"), ["input", "m0"]).save(
        place / "units.safetensors"
    )
    sc.Circuit.of(sc.Graph(n_layers=1, n_heads=2, n_kv=2), {"input->logits": 1.0}, task="pairs.jsonl").save(
        place / "alien.safetensors"
    )


@pytest.mark.usefixtures("_circuits")
@pytest.mark.parametrize(("words", "prepare", "phrase"), BAD, ids=[" ".join(map(str, words)) for words, _, _ in BAD])
def test_bad_input_has_one_clear_line(words: tuple[object, ...], prepare: Callable[[], None], phrase: str) -> None:
    prepare()
    before = set(Path().rglob("*"))
    result = run(*words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert phrase in line
    assert result.stdout == ""
    assert set(Path().rglob("*")) == before


def test_arguments_fill_the_record() -> None:
    """Every option of a run is in its record, and comes back from it."""
    arguments = Arguments(method="eap", threshold=0.5, signed=True, seed=4)
    command = arguments.command
    assert "--signed" in command
    assert "--threshold 0.5" in command
    assert "--seed 4" in command
    assert "--size 7" in Arguments(level="nodes", size=7).command
    assert "--edges 7" in Arguments(size=7).command
    star = Arguments(method="atp-star", qk_fix=False, grad_drop=True, batch_size="auto").command
    assert "--no-qk-fix --grad-drop" in star
    assert "--batch-size auto" in star
