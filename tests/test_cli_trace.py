"""Tracing on the command line: three runs, each extending the last, validated; and the one line for each bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from test_cli import names_in, ok, run

import sparse_circuits as sc
from sparse_circuits.cli import trace_work
from sparse_circuits.cli.trace_record import NEXT, Slice, TraceRecord
from sparse_circuits.errors import FileFormatError, InputError

pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
OF = ("--task", "sva-across-rc", "--examples", 8, "--sites", "resid")
SMALL = ("--threshold", 3, "--top", 3, "--contexts", 0)
FILES = {"trace.safetensors", "circuit.safetensors", "trace.svg", "trace.png", "trace.dot", "trace.json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def said(place: Path) -> list[str]:
    """What three runs over three layers, a validation, a gradient run and a comparison printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(trace_work, "_REACHED", 0)  # small pictures are drawn in no time
        return [
            ok("trace", *OF, "--at", "resid_1", *SMALL, "--out", "runs/t").stdout,
            ok("trace", "--extend", "runs/t", *SMALL).stdout,
            ok("trace", "--extend", "runs/t", *SMALL).stdout,
            ok("trace", "--validate", "runs/t").stdout,
            ok(
                "trace", "--gradient", *OF, "--top", 3, "--bottom", 3, "--steps", 4, "--contexts", 0, "--out", "runs/g"
            ).stdout,
            ok("trace", "--compare", "runs/t", "runs/g").stdout,
        ]


@pytest.fixture(scope="module")
def model() -> object:
    return sc.load_model("toy", device="cpu")


def test_other_commands_take_a_trace_as_they_take_a_run(said: list[str], model: object, tmp_path: Path) -> None:
    """Its record says where the dictionaries are, on which prompts it was traced, and under which ablation."""
    folder = Path(shutil.copytree("runs/t", "runs/u"))
    text = ok("evaluate", folder, "runs/g", "--examples", 8).stdout
    assert text.startswith("toy on 8 examples of sva-across-rc, seed 1, zero ablation\n")
    rows = {line.split()[0]: line.split()[1:3] for line in text.splitlines() if line.strip()}
    circuit = sc.FeatureCircuit.load(
        folder / "circuit.safetensors",
        sc.load_dictionaries("toy", model, sites=["resid_0", "resid_1", "resid_2", "resid_3"]),
    )
    fresh = sc.load_task("sva-across-rc", model, n=8, seed=1)
    mean = sc.evaluate(model, circuit, fresh, ablation=sc.Ablation.ZERO).mean
    assert rows[str(folder)] == [str(circuit.size), f"{mean:.3g}"]
    assert "those that the circuit was found on" in ok("evaluate", folder, "--seed", 0, "--examples", 8).stdout
    ok("features", folder, "--tokens", 600)
    assert set(json.loads((folder / "features.json").read_text())["features"]) == set(circuit.nodes)
    ok("export", folder, "--to", "attribution-graph", "--out", tmp_path / "graph.json")
    assert sc.AttributionGraph.load(tmp_path / "graph.json").to_circuit().nodes == circuit.nodes
    error = run("export", folder, "--to", "attribution-graph", "--out", tmp_path / "no.json", "--example", 8)
    assert "one of the task's 8 examples" in error.stderr
    assert "needs the scores of a run" in run("evaluate", folder, "--curve").stderr


def test_three_runs_are_the_librarys(said: list[str], model: object) -> None:
    assert names_in("runs/t") == FILES | {"validation.json"}
    saes = sc.load_dictionaries("toy", model, sites="resid")
    graph, task = sc.Graph.of(model, saes), sc.load_task("sva-across-rc", model, n=8)
    expected, method = None, sc.ByAblation(threshold=3, top=3)
    for at in ("resid_1", None, None):
        expected = sc.trace(model, graph, task, method, at=at, extend=expected)
    found = sc.Trace.load("runs/t/trace.safetensors", saes)
    assert expected is not None
    assert found.to_dict() == pytest.approx(expected.to_dict())
    assert found.to_dict("edges") == pytest.approx(expected.to_dict("edges"))
    assert found.runs == expected.runs
    assert [run["at"] for run in found.runs] == [["resid_1"], ["resid_2"], ["resid_3"]]
    circuit = sc.FeatureCircuit.load("runs/t/circuit.safetensors")
    assert set(circuit.nodes) == {node.name for node in found.traced}

    record = TraceRecord.load(Path("runs/t"))
    assert record.slice == Slice(sites=("resid_0", "resid_1", "resid_2", "resid_3"), examples=8)
    assert [command.split()[:3] for command in record.commands][1:] == [["sparse-circuits", "trace", "--extend"]] * 2
    assert record.commands[0].startswith("sparse-circuits trace --task sva-across-rc --sites resid --at resid_1 ")
    assert set(record.files) == FILES
    assert record.results["features"] == 9
    assert record.results["effects"] == pytest.approx(found.to_dict())
    for name in ("trace.svg", "trace.dot"):
        assert all(node.name in Path("runs/t", name).read_text() for node in found.traced)


def test_what_it_prints(said: list[str]) -> None:
    first, second, third, validated, gradient, compared = said
    trace = sc.Trace.load("runs/t/trace.safetensors")
    assert "Run 1 of the trace of sva-across-rc in toy: 3 features of resid_1 ablated" in first
    assert "Run 2" in second
    assert "3 features of resid_2" in second
    assert "Next: sparse-circuits trace --extend runs/t    (at resid_3)" in second
    assert "Next: sparse-circuits trace --validate runs/t" in third
    for node in trace.traced:
        text = said[node.run]
        line = next(line for line in text.splitlines() if line.startswith(f"{node.name} "))
        assert float(line.split()[1]) == pytest.approx(node.effect, rel=6e-3, abs=6e-4)
    assert re.search(rf"trace +9 features, {len(trace.edges):,} edges, 3 runs", third)
    assert (
        "All 9 traced features ablated at once (zero), on 8 examples of sva-across-rc (that it was traced on)"
        in validated
    )
    assert "features of resid_0, resid_1, resid_2, resid_3 chosen by gradient" in gradient
    assert "edges between them" in compared


def test_validation_is_the_librarys(said: list[str], model: object) -> None:
    saes = sc.load_dictionaries("toy", model, sites="resid")
    task = sc.load_task("sva-across-rc", model, n=8)
    expected = sc.validate_trace(model, sc.Trace.load("runs/t/trace.safetensors", saes), task)
    written = json.loads(Path("runs/t/validation.json").read_text())
    assert (written["format"], written["version"], written["seed"]) == ("sparse-circuits validation", 1, 0)
    assert written["change"] == pytest.approx(expected.change)
    assert written["effects"] == pytest.approx(expected.effects)
    assert f"{expected.change:.2f} [" in said[3]
    text = ok("trace", "--validate", "runs/t", "--seed", 1, "--examples", 6).stdout
    assert "on 6 examples of sva-across-rc (other than those it was traced on)" in text
    assert json.loads(Path("runs/t/validation.json").read_text())["n_examples"] == 6


def test_contexts_go_into_the_picture_and_stay(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_work, "_REACHED", 2)
    shutil.copytree("runs/t", "runs/c")
    trace = sc.Trace.load("runs/c/trace.safetensors")
    pinned = trace.frontier[:2]
    text = ok("trace", "--extend", "runs/c", "--features", ",".join(pinned), "--threshold", 3, "--contexts", 600).stdout
    assert "2 features of" in text
    pages = json.loads(Path("runs/c/features.json").read_text())["features"]
    grown = sc.Trace.load("runs/c/trace.safetensors")
    traced = {node.name for node in grown.traced}
    assert traced < set(pages)
    assert len(pages) == len(traced) + 2  # and of those that were reached the ones that are drawn
    assert all(name in Path("runs/c/trace.svg").read_text() for name in pages)
    assert {node.name for node in grown.traced} == {node.name for node in trace.traced} | set(pinned)
    assert any(page["top"] for page in pages.values())
    # what was validated is no longer this trace
    assert names_in("runs/c") == FILES | {"features.json", "features"}
    # the same once more: nothing new, and a note that somebody wrote stays
    monkeypatch.setattr(trace_work, "_MAX_NODES", 2)
    page = next(iter(pages))
    content = json.loads(Path("runs/c/features.json").read_text())
    content["features"][page]["label"] = "a note"
    Path("runs/c/features.json").write_text(json.dumps(content))
    text = ok("trace", "--extend", "runs/c", "--features", ",".join(pinned), "--threshold", 3, "--contexts", 600).stdout
    assert "nothing new" in text
    assert json.loads(Path("runs/c/features.json").read_text())["features"][page]["label"] == "a note"
    assert sc.Trace.load("runs/c/trace.safetensors").edges == grown.edges


def test_extending_into_another_folder_leaves_the_first(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in Path("runs/t").iterdir()}
    name = sc.Trace.load("runs/t/trace.safetensors").frontier[-1]
    monkeypatch.setattr(trace_work, "_MAX_NODES", 2)
    ok("trace", "--extend", "runs/t", "--features", name, "--contexts", 0, "--out", "runs/other")
    assert before == {path: path.read_bytes() for path in Path("runs/t").iterdir()}
    assert len(sc.Trace.load("runs/other/trace.safetensors").runs) == 4
    assert len(TraceRecord.load(Path("runs/other")).commands) == 4
    error = run("trace", "--extend", "runs/t", "--features", name, "--contexts", 0, "--out", "runs/other")
    assert error.exit_code == 2
    assert "add --force" in error.stderr


class Killed(BaseException):
    """What no handler stops."""


def test_killed_at_any_time_a_folder_is_of_one_trace(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was until everything is written, and from then on as it has become, whatever is not yet in its place."""
    folder = Path("runs/k")
    shutil.copytree("runs/t", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    name = sc.Trace.load(folder / "trace.safetensors").frontier[-1]
    words = ("trace", "--extend", folder, "--features", name, "--contexts", 0)
    monkeypatch.setattr(trace_work, "_MAX_NODES", 2)

    def killed(*_: object) -> None:
        raise Killed

    def half_way(folder: Path) -> None:
        for file in sorted((folder / NEXT).iterdir())[:3]:
            file.replace(folder / file.name)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trace_work, "_draw", killed)
        with pytest.raises(Killed):
            run(*words)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(trace_work, "settle", half_way)
        with pytest.raises(Killed):
            run(*words)
    record, trace = TraceRecord.load(folder), sc.Trace.load(folder / "trace.safetensors")
    assert names_in(folder) == FILES
    assert len(trace.runs) == len(record.commands) == 4
    assert record.results["runs"] == list(trace.runs)
    assert set(sc.FeatureCircuit.load(folder / "circuit.safetensors").nodes) == {node.name for node in trace.traced}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--extend", "nowhere"), "nowhere holds no trace"),
        (("--validate", "nowhere"), "nowhere holds no trace"),
        (("--extend", "runs/t", "--validate", "runs/t"), "give one of them"),
        (("--extend", "runs/t", "--model", "gpt2"), "--model does not go with --extend"),
        (("--extend", "runs/t", "--seed", 0), "--seed does not go with --extend"),
        (("--extend", "runs/t", "--bottom", 3), "--bottom is for tracing by gradient"),
        (("--extend", "runs/t", "--at", "resid_9"), "expected one of the graph's sites"),
        (("--extend", "runs/t", "--contexts", 0), "no feature after resid_3"),
        (("--validate", "runs/t", "--top", 3), "--top does not go with --validate"),
        (("--compare", "runs/t", "runs/g", "--at", "resid_1"), "--at does not go with --compare"),
        (("--gradient", "--threshold", 1), "--threshold is for tracing by ablation"),
        (("--gradient", "--top", 0, "--bottom", 0), "chooses nothing"),
        (("--top", 0), "starts from nothing"),
        (("--threshold", "inf"), "finite power of two"),
        (("--features", ","), "names none"),
        (("--features", "resid_1.f1", "--top", 3), "leave --top out"),
        (("--features", "resid_1.f99999", "--examples", 4), "no node 'resid_1.f99999'"),
        (("--model", "gpt2"), "give --dictionaries"),
        (("--text", "missing.txt"), "there is no such file"),
        (("--text", "toy", "--contexts", 0), "leave --text out"),
        (("--task", "nonsense", "--out", "runs/x"), "nonsense"),
        (("--out", "runs/t"), "add --force"),
    ],
)
def test_bad_input_has_one_line(said: list[str], words: tuple[object, ...], message: str) -> None:
    before = {path: path.read_bytes() for path in Path("runs/t").iterdir()}
    error = run("trace", *words)
    assert error.exit_code == 2, error.output
    assert message in error.stderr
    assert len(error.stderr.strip().splitlines()) == 1
    assert before == {path: path.read_bytes() for path in Path("runs/t").iterdir()}
    assert not Path("runs/x").exists()


def test_a_damaged_record(said: list[str]) -> None:
    shutil.copytree("runs/t", "runs/d")
    path = Path("runs/d/trace.json")
    good = json.loads(path.read_text())
    for wrong, message in (
        ("{", "is not JSON"),
        (json.dumps({**good, "format": "other"}), "not the record of a trace"),
        (json.dumps({**good, "version": 99}), "format version 99"),
        (json.dumps({**good, "slice": {**good["slice"], "seed": "x"}}), "seed cannot be 'x'"),
        (json.dumps({**good, "slice": {}}), "lacks something"),
        (json.dumps({name: value for name, value in good.items() if name != "commands"}), "has no 'commands'"),
    ):
        path.write_text(wrong)
        with pytest.raises(FileFormatError, match=message):
            TraceRecord.load(Path("runs/d"))
        assert run("trace", "--extend", "runs/d").exit_code == 2
    with pytest.raises(InputError, match="holds no trace"):
        TraceRecord.load(Path("runs"))
