"""MIB's submissions: what its evaluator looks for is what is written, and everything comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import token_task

import sparse_circuits as sc
from sparse_circuits.circuit.formats.mib import ENTRIES, SIZES, budgets
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import Graph

GPT2 = Graph(12, 12, 12)
SMALL = Graph(3, 4, 4)
LEVELS = {
    "edges": SMALL,
    "nodes": replace(SMALL, level="nodes"),
    "outputs": replace(SMALL, level="outputs", d_model=24),
}


def scores_on(graph: Graph, **more: Any) -> sc.Scores:
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.mask
    about = {"model": "openai-community/gpt2", "task": "ioi", "d_model": 24, **more}
    return sc.Scores(graph, values, torch.ones(3), None, about.get("signed", True), provenance=about)


@pytest.fixture(params=LEVELS)
def scores(request: pytest.FixtureRequest) -> sc.Scores:
    return scores_on(LEVELS[request.param])


def test_sizes_are_those_of_mibs_evaluator() -> None:
    assert budgets(GPT2.size) == tuple(int(share * 32491) for share in SIZES)
    assert len(SIZES) == 9
    assert len(set(ENTRIES)) == 12


def chosen_by_mib(scores: torch.Tensor, n: int, real: torch.Tensor) -> set[int]:
    """Its choice at level "edge", "node" and "neuron": the n highest of what is real, before it prunes."""
    flat = scores.masked_fill(~real, -torch.inf).flatten()
    return set(flat.argsort(descending=True)[:n].tolist())


@pytest.mark.parametrize("ending", [".pt", ".json"])
def test_mib_keeps_what_carries_the_behaviour(tmp_path: Path, scores: sc.Scores, ending: Any) -> None:
    entry = sc.write_mib(tmp_path / "submission", scores, ending=ending)
    assert entry == tmp_path / "submission" / "ioi_gpt2"
    assert [path.name for path in entry.iterdir()] == [f"importances{ending}"]
    key = {"edges": "edges_scores", "nodes": "nodes_scores", "outputs": "neurons_scores"}[scores.graph.level]
    if ending == ".json":
        data = json.loads((entry / "importances.json").read_text())
        assert data["cfg"]["d_model"] == 24
        return
    data = torch.load(entry / "importances.pt", weights_only=True)
    found = data[key]
    assert torch.equal(found.flatten(), (0.0 - scores.values).flatten())
    assert not any(bool(data[name].any()) for name in data if name.endswith("in_graph"))
    strongest = scores.values.masked_fill(~scores.graph.mask, torch.inf).flatten().argsort()
    for n in budgets(scores.graph.size):
        assert chosen_by_mib(found, n, scores.graph.mask.view(found.shape)) == set(strongest[:n].tolist())


@pytest.mark.parametrize("ending", [".pt", ".json"])
def test_scores_come_back_bit_for_bit(tmp_path: Path, scores: sc.Scores, ending: Any) -> None:
    sc.write_mib(tmp_path, scores, ending=ending)
    for folder in (tmp_path, tmp_path / "ioi_gpt2"):
        (entry,) = sc.read_mib(folder)
        assert (entry.task, entry.model, entry.circuits) == ("ioi", "gpt2", ())
        assert entry.scores is not None
        assert entry.scores.graph == scores.graph
        assert torch.equal(entry.scores.values, scores.values)
        assert entry.scores.provenance["d_model"] == 24


@pytest.mark.parametrize("ending", [".pt", ".json"])
@pytest.mark.parametrize("select", ["greedy", "top"])
def test_nine_circuits_come_back_bit_for_bit(tmp_path: Path, scores: sc.Scores, select: Any, ending: Any) -> None:
    circuits = [getattr(scores, select)(n) for n in budgets(scores.graph.size)]
    chosen = sc.write_mib(tmp_path / "a", scores, select=select, ending=ending)
    given = sc.write_mib(tmp_path / "b", circuits, ending=ending)
    assert sorted(path.name for path in chosen.iterdir()) == sorted(f"{share}{ending}" for share in SIZES)
    for folder in (chosen, given):
        (entry,) = sc.read_mib(folder)
        assert entry.scores is None
        for back, circuit, n in zip(entry.circuits, circuits, budgets(scores.graph.size), strict=True):
            assert back.size <= n
            assert torch.equal(back.mask, circuit.mask)
            assert back.values is None if circuit.size == 0 else torch.equal(back.values, circuit.values)


def test_a_file_is_no_submission(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="mine is a file"):
        sc.write_mib(tmp_path / "mine", scores_on(SMALL))


def test_scores_without_a_sign_are_not_turned_around(tmp_path: Path) -> None:
    scores = scores_on(SMALL, signed=False)
    scores = replace(scores, values=scores.values.abs())
    entry = sc.write_mib(tmp_path, scores)
    assert torch.equal(torch.load(entry / "importances.pt", weights_only=True)["edges_scores"], scores.values)
    assert torch.equal(read_scores(tmp_path).values, scores.values)
    assert torch.equal(read_scores(tmp_path, negate=True).values, 0.0 - scores.values)
    circuits = sc.write_mib(tmp_path / "circuits", scores, select="top")
    data = torch.load(circuits / "0.5.pt", weights_only=True)
    assert float(data["edges_scores"].min()) >= 0
    turned = sc.write_mib(tmp_path / "turned", scores, negate=True)
    assert torch.equal(torch.load(turned / "importances.pt", weights_only=True)["edges_scores"], 0.0 - scores.values)


def read_scores(folder: Path, **options: Any) -> sc.Scores:
    (entry,) = sc.read_mib(folder, **options)
    assert entry.scores is not None
    return entry.scores


@pytest.mark.parametrize("ending", [".pt", ".json"])
@pytest.mark.parametrize("negate", [None, True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_signs_come_back_whatever_was_done_to_them(tmp_path: Path, signed: bool, negate: Any, ending: Any) -> None:
    scores = scores_on(SMALL, signed=signed)
    del scores.provenance["signed"]  # they say so themselves
    sc.write_mib(tmp_path / "scores", scores, negate=negate, ending=ending)
    back = read_scores(tmp_path / "scores")
    assert back.signed == back.provenance["signed"] == signed
    assert torch.equal(back.values, scores.values)
    sc.write_mib(tmp_path / "circuits", scores, select="top", negate=negate, ending=ending)
    circuit = sc.read_mib(tmp_path / "circuits")[0].circuits[-1]
    assert circuit.provenance["signed"] == signed
    assert circuit.to_dict() == scores.top(SMALL.size // 2).to_dict()


def test_files_of_others_say_nothing_of_signs(tmp_path: Path) -> None:
    """They are turned around, as what MIB ranks has to be; what is no flag is refused."""
    scores = scores_on(SMALL)
    file = sc.write_mib(tmp_path, scores, ending=".json") / "importances.json"
    data = json.loads(file.read_text())
    assert data.pop("sparse_circuits") == {"signed": True, "negated": True}
    file.write_text(json.dumps(data))
    assert read_scores(tmp_path).signed
    assert torch.equal(read_scores(tmp_path).values, scores.values)
    assert torch.equal(read_scores(tmp_path, negate=False).values, 0.0 - scores.values)
    for wrong, said in (({"signed": "no"}, "signed is str; expected bool"), ([], "sparse_circuits is list")):
        file.write_text(json.dumps({**data, "sparse_circuits": wrong}))
        with pytest.raises(FileFormatError, match=said):
            sc.read_mib(tmp_path)


@pytest.mark.parametrize(
    ("about", "given", "name"),
    [
        ({"model": "gpt2"}, {}, "ioi_gpt2"),
        ({"model": "Qwen/Qwen2.5-0.5B"}, {"task": "mcqa"}, "mcqa_qwen2.5"),
        ({"model": "meta-llama/Llama-3.1-8B"}, {"task": "arithmetic_addition"}, "arithmetic-addition_llama3"),
        ({"model": "somewhere/gemma"}, {"model": "gemma2", "task": "arc_easy"}, "arc-easy_gemma2"),
    ],
)
def test_entries_have_mibs_names(tmp_path: Path, about: dict[str, str], given: dict[str, str], name: str) -> None:
    assert sc.write_mib(tmp_path, scores_on(SMALL, **about), **given).name == name
    assert name in ENTRIES
    assert sc.read_mib(tmp_path)[0].task == name.split("_")[0]


def test_names_that_mib_does_not_evaluate_get_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="MIB evaluates no 'greater-than_gpt2'"):
        sc.write_mib(tmp_path, scores_on(SMALL), task="greater-than")


def test_many_entries_make_one_submission(tmp_path: Path) -> None:
    sc.write_mib(tmp_path, scores_on(SMALL))
    sc.write_mib(tmp_path, scores_on(replace(SMALL, n_layers=2)), task="mcqa", model="llama3")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "empty").mkdir()
    entries = sc.read_mib(tmp_path)
    assert [(entry.task, entry.model) for entry in entries] == [("ioi", "gpt2"), ("mcqa", "llama3")]
    assert [entry.scores.graph.n_layers for entry in entries if entry.scores] == [3, 2]


def test_other_peoples_names_of_folders_are_read(tmp_path: Path) -> None:
    sc.write_mib(tmp_path, scores_on(SMALL)).rename(tmp_path / "arithmetic_addition_llama3")
    (entry,) = sc.read_mib(tmp_path)
    assert (entry.task, entry.model) == ("arithmetic_addition", "llama3")


def test_what_cannot_be_a_submission_is_refused(tmp_path: Path) -> None:
    scores = scores_on(SMALL)
    for about, given, message in (
        ({"model": "toy"}, {}, r"give model= \(--mib-model\), one of gemma2, gpt2, llama3, qwen2.5"),
        ({"task": "greater-than"}, {}, r"give task= \(--mib-task\), one of arc-challenge"),
        ({}, {"task": "../ioi"}, "names a folder"),
        ({}, {"model": "a_b"}, "names a folder"),
        ({}, {"ending": ".txt"}, "'.pt' or '.json'"),
        ({}, {"select": "best"}, "'greedy' or 'top'"),
    ):
        with pytest.raises(InputError, match=message):
            sc.write_mib(tmp_path / "s", scores_on(SMALL, **about), **given)
    circuits = [scores.top(n) for n in budgets(SMALL.size)]
    with pytest.raises(InputError, match="got 8"):
        sc.write_mib(tmp_path / "s", circuits[:8])
    for wrong, got in ((circuits[8], "got 1"), ([*circuits[:8], "x"], "got str"), (None, "got NoneType")):
        with pytest.raises(InputError, match=got):
            sc.write_mib(tmp_path / "s", wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="leave it out"):
        sc.write_mib(tmp_path / "s", circuits, select="top")
    with pytest.raises(InputError, match=r"circuit for 0\.1% has"):
        sc.write_mib(tmp_path / "s", circuits[::-1])
    with pytest.raises(InputError, match="different graphs"):
        sc.write_mib(tmp_path / "s", [*circuits[:8], sc.Circuit.full(replace(SMALL, n_layers=2))])
    with pytest.raises(InputError, match="per_query_head"):
        sc.write_mib(tmp_path / "s", scores_on(Graph(3, 4, 2)))
    with pytest.raises(InputError, match="hidden units"):
        sc.write_mib(tmp_path / "s", scores_on(Graph(3, 4, 4, level="neurons", d_head=6, d_mlp=9)))
    assert not (tmp_path / "s").exists()
    sc.write_mib(tmp_path / "s", scores)
    before = (tmp_path / "s" / "ioi_gpt2" / "importances.pt").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        sc.write_mib(tmp_path / "s", scores)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["ioi_gpt2"]
    assert (tmp_path / "s" / "ioi_gpt2" / "importances.pt").read_bytes() == before


def test_what_is_no_submission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No folder"):
        sc.read_mib(tmp_path / "none")
    with pytest.raises(InputError, match="holds no submission"):
        sc.read_mib(tmp_path)
    entry = sc.write_mib(tmp_path, scores_on(SMALL), select="top")
    (entry / "0.5.pt").unlink()
    with pytest.raises(FileFormatError, match="8 circuits; expected 9"):
        sc.read_mib(tmp_path)
    (entry / "0.5.pt").write_bytes(b"not one")
    with pytest.raises(FileFormatError, match=r"0\.5\.pt"):
        sc.read_mib(tmp_path)
    entry.rename(tmp_path / "ioi")
    with pytest.raises(FileFormatError, match="such as ioi_gpt2"):
        sc.read_mib(tmp_path)


def test_of_a_model_with_shared_keys(tmp_path: Path, zoo: Any) -> None:
    """From attribution to files and back, evaluated alike."""
    model, task = zoo("llama"), token_task(4)
    for level, kv in (("edges", "per_query_head"), ("nodes", "per_group"), ("outputs", "per_group")):
        graph = sc.Graph.of(model, kv=kv, level=level) if level == "edges" else sc.Graph.of(model, level=level)
        scores = sc.attribute(model, graph, task, sc.EAP())
        entry = sc.write_mib(tmp_path / level, scores, task="ioi", model="llama3")
        (back,) = sc.read_mib(entry)
        assert back.scores is not None
        assert torch.equal(back.scores.values, scores.values)
        n = graph.size // 3
        ours, theirs = (sc.evaluate(model, one.top(n), task).mean for one in (scores, back.scores))
        assert ours == theirs
