"""Notes on features: kept, imported from feature-circuits and Neuronpedia, linked; and the command that puts pages together."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.cli import contexts
from sparse_circuits.cli.page import PAGE
from sparse_circuits.cli.record import CIRCUIT, RECORD, Arguments, Record
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.features import FeatureStore, Labels, collect, neuronpedia_url
from sparse_circuits.model.sites import Site

THEIRS = [
    {
        "Component": "resid",
        "Layer": "5",
        "Feature": "3036",
        "Name": "resid_5/3036",
        "Annotation": "a",
        "Notes": "on that",
    },
    {
        "Component": "embed",
        "Layer": "",
        "Feature": "293",
        "Name": "embed/293",
        "Annotation": "plural nouns",
        "Notes": "",
    },
    {
        "Component": "Component",
        "Layer": "",
        "Feature": "",
        "Name": "Name",
        "Annotation": "Annotation",
        "Notes": "Notes",
    },
    {"Component": "embed", "Feature": "1425", "Name": "embed/1425"},
    {"Component": "attn", "Layer": "3", "Feature": "12117", "Name": "attn_3/12117", "Annotation": "b", "notes": "any"},
    {
        "Component": "resid",
        "Layer": "5",
        "Feature": "3036",
        "Name": "resid_5/3036",
        "Annotation": "promotes singular verbs",
    },
]
EXPLAINED = [
    {
        "modelId": "gpt2-small",
        "layer": "8-res-jb",
        "index": "650",
        "description": "months",
        "explanationModelName": "x",
    },
    {
        "modelId": "gpt2-small",
        "layer": "8-res-jb",
        "index": "650",
        "description": "another",
        "explanationModelName": "y",
    },
    {"modelId": "gpt2-small", "layer": "8-res-jb", "index": 4, "description": " years "},
    {"modelId": "gpt2-small", "layer": "8-res-jb", "index": 5, "description": ""},
    {"modelId": "gpt2-small", "layer": "9-res-jb", "index": 4, "description": "elsewhere"},
]


def dictionary(neuronpedia_id: str | None, site: str = "resid_7") -> Dictionary:
    at, zero = Site.named(site), torch.zeros(4)
    sae = SimpleNamespace(cfg=SimpleNamespace(metadata=SimpleNamespace(neuronpedia_id=neuronpedia_id)))
    eye = torch.eye(4)
    return Dictionary(at, "x", at.hook_name, at.hook_name, eye, zero, eye, zero, code=lambda x: x, sae=sae)


def lines(path: Path, rows: list) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_notes_are_kept(tmp_path: Path) -> None:
    labels = Labels({"resid_3.f4": "plural subjects"})
    more = labels.with_note("mlp_1.f2", "verbs, “are”").with_note("resid_3.f4", "plural nouns")
    assert dict(labels) == {"resid_3.f4": "plural subjects"}
    assert more["resid_3.f4@7"] == "plural nouns"
    assert "resid_3.f4@7" in more
    assert more.get("resid_3.f5@7") is None
    assert dict(more.with_note("resid_3.f4", None)) == {"mlp_1.f2": "verbs, “are”"}
    assert (labels | more)["resid_3.f4"] == "plural nouns"
    more.save(tmp_path / "labels.json")
    assert Labels.load(tmp_path / "labels.json") == more
    (tmp_path / "plain.json").write_text('{"a1.h3": "moves names"}')
    assert Labels.load(tmp_path / "plain.json")["a1.h3"] == "moves names"
    with pytest.raises(InputError, match="expected notes as text"):
        Labels({"resid_3.f4": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"Labels\(\['a'\]\): expected notes by name, such as"):
        Labels(["a"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"read with Labels\.load\(path\)"):
        Labels("labels.json")  # pyright: ignore[reportArgumentType]


def test_feature_circuits_annotations_are_read(tmp_path: Path) -> None:
    labels = Labels.from_feature_circuits(lines(tmp_path / "pythia.jsonl", THEIRS))
    assert dict(labels) == {
        "resid_5.f3036": "promotes singular verbs",
        "embed.f293": "plural nouns",
        "attn_3.f12117": "b (any)",
    }
    with pytest.raises(FileFormatError, match="line 1: 'unembed/3' is no feature"):
        Labels.from_feature_circuits(lines(tmp_path / "a.jsonl", [{"Name": "unembed/3", "Annotation": "x"}]))
    with pytest.raises(FileFormatError, match="line 1: expected an object with 'Name'"):
        Labels.from_feature_circuits(lines(tmp_path / "b.jsonl", [{"name": "resid_1/3"}]))
    with pytest.raises(InputError, match="No file at"):
        Labels.from_feature_circuits(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["export.json", "batch-0.jsonl", "batch-0.jsonl.gz"])
def test_neuronpedia_exports_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "export.json":
        path.write_text(json.dumps(EXPLAINED))
    else:
        lines(path, EXPLAINED)
    expected = {"resid_7.f650": "months", "resid_7.f4": "years"}
    saes = {"resid_7": dictionary("gpt2-small/8-res-jb"), "mlp_0": dictionary(None, "mlp_0")}
    assert dict(Labels.from_neuronpedia(path, saes)) == expected
    assert dict(Labels.from_neuronpedia(path, site="resid_2")) == {"resid_2.f650": "months", "resid_2.f4": "years"}
    with pytest.raises(
        InputError, match="is about gpt2-small/8-res-jb, gpt2-small/9-res-jb, and the dictionaries have gemma/3"
    ):
        Labels.from_neuronpedia(path, {"resid_7": dictionary("gemma/3")})
    with pytest.raises(InputError, match="no Neuronpedia id at all"):
        Labels.from_neuronpedia(path, {"resid_7": dictionary(None)})
    with pytest.raises(InputError, match="expected dictionaries, whose"):
        Labels.from_neuronpedia(path)
    for wrong in ("foo", "blocks.3.hook_resid_post", 3):
        with pytest.raises(InputError, match=f"No site is called '{wrong}'; expected embed"):
            Labels.from_neuronpedia(path, site=wrong)  # pyright: ignore[reportArgumentType]


def test_a_neuronpedia_feature_with_its_explanations_is_read(tmp_path: Path) -> None:
    feature = {
        "modelId": "gpt2-small",
        "layer": "8-res-jb",
        "index": "650",
        "explanations": [{"description": "months", "modelId": "gpt2-small"}, {"description": "another"}],
        "neg_str": [],
    }
    (tmp_path / "feature.json").write_text(json.dumps(feature))
    found = Labels.from_neuronpedia(tmp_path / "feature.json", {"resid_7": dictionary("gpt2-small/8-res-jb")})
    assert dict(found) == {"resid_7.f650": "months"}


@pytest.mark.parametrize(
    "text", ["[", "3", "null", '["a"]', '{"a": 3}', '{"format": "sparse-circuits labels", "version": 9}']
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileFormatError):
        Labels.load(tmp_path / "x.json")
    with pytest.raises(FileFormatError):
        Labels.from_neuronpedia(tmp_path / "x.json", site="resid_0")


def test_links_go_to_neuronpedia_where_it_has_a_page() -> None:
    assert (
        neuronpedia_url(dictionary("gpt2-small/8-res-jb"), 650) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/650"
    )
    assert neuronpedia_url(dictionary(None), 650) is None


# --- the command ---


@pytest.fixture(scope="module")
def loaded():
    return sc.load_model("toy", device="cpu")


@pytest.fixture
def toy(loaded, monkeypatch: pytest.MonkeyPatch):
    """The model, which the command need not load again."""
    monkeypatch.setattr(contexts, "load_model_on", lambda name, device: loaded)
    return loaded


def test_the_command_writes_pages(toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neurons = sc.load_dictionaries("neurons", toy, sites=["resid_3"])
    graph = sc.Graph.of(toy, neurons, whole="z")
    circuit = sc.FeatureCircuit.of(graph, {"resid_3.f17": -0.4, "resid_3.f9": 0.2, "a1.h2": 0.1}, model="toy")
    circuit.save(tmp_path / "mine.safetensors")
    (tmp_path / "notes.json").write_text('{"resid_3.f17": "plural subjects"}')

    def command(**options: object) -> str:
        contexts.features(
            tmp_path / "mine.safetensors",
            dictionaries="neurons",
            labels=[tmp_path / "notes.json"],
            device="cpu",
            **options,
        )
        return capsys.readouterr().out

    printed = command(tokens=2000)
    assert "resid_3.f17" in printed
    assert "-0.400" in printed
    assert "plural subjects" in printed
    pages = json.loads((tmp_path / "features.json").read_text())
    assert set(pages["features"]) == {"resid_3.f17", "resid_3.f9", "a1.h2"}
    assert pages["features"]["resid_3.f17"]["label"] == "plural subjects"
    store = FeatureStore.load(tmp_path / "features")
    assert 2000 <= store["a1.h2"].tokens < 2000 + 95
    command(tokens=3000)
    assert FeatureStore.load(tmp_path / "features")["a1.h2"].tokens >= 3000
    (tmp_path / "a.txt").write_text("The cats like the dog.")
    assert "a.txt" in command(text=str(tmp_path / "a.txt"))
    (tmp_path / "other").mkdir()
    replace(circuit, provenance={"model": "gpt2"}).save(tmp_path / "other" / "mine.safetensors")
    with pytest.raises(InputError, match="what gpt2 does is missing; give --text"):
        contexts.features(tmp_path / "other" / "mine.safetensors", dictionaries="neurons")
    with pytest.raises(InputError, match="give --dictionaries"):
        contexts.features(tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=r"--labels .*no such file"):
        contexts.features(
            tmp_path / "mine.safetensors", dictionaries="neurons", labels=[tmp_path / "no.json"], device="cpu"
        )


@pytest.mark.parametrize(
    ("batches", "message"),
    [(3, "nothing is saved yet"), (9, "has 760 tokens, and the same command goes on from there")],
)
def test_the_command_says_how_to_go_on(
    toy, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], batches: int, message: str
) -> None:
    circuit = sc.FeatureCircuit.of(sc.Graph.of(toy, whole="z"), ["a1.h2"], model="toy")
    circuit.save(tmp_path / "mine.safetensors")
    take, calls = collect._Run.take, []

    def interrupted(self, *batch: object) -> None:
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(batch)
        take(self, *batch)

    monkeypatch.setattr(collect._Run, "take", interrupted)
    with pytest.raises(SystemExit) as exit:
        contexts.features(tmp_path / "mine.safetensors", dictionaries="neurons", batch_size=1, device="cpu")
    assert exit.value.code == 130
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with what the command reads of it."""
    folder = tmp_path_factory.mktemp("run")
    scores = {"a2.h7": -0.5, "m3": -0.2, "a1.h2": 0.1}
    circuit = sc.Circuit.of(sc.Graph.of(loaded, level="nodes"), scores, model="toy", task="ioi")
    circuit.save(folder / CIRCUIT)
    (folder / RECORD).write_text(Record(Arguments(level="nodes", examples=4), {}, {}, ()).text)
    sc.explore(circuit, folder / PAGE, meanings={"a1.h2": {"old": 3}, "m3": {"old": 4}, "input": {"label": "kept"}})
    return folder


def test_the_command_tells_the_run_s_page(toy, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, before = run / PAGE, (run / PAGE).read_text()
    contexts.features(run, tokens=300, out=run / "elsewhere", device="cpu")
    assert page.read_text() == before
    (run / "notes.json").write_text('{"a1.h2": "</script> & \u2028"}')
    contexts.features(run, tokens=300, labels=[run / "notes.json"], device="cpu")
    printed = capsys.readouterr().out
    assert str(page) in printed
    assert printed.index("a2.h7 ") < printed.index("a1.h2 ")  # the strongest first
    (around_was, was), (around, now) = data_in(before), data_in(page.read_text())
    assert around == around_was
    known, pages = now.pop("meanings"), json.loads((run / "features.json").read_text())
    assert set(known) == {*was.pop("meanings")} | {"a2.h7"}
    assert now == was
    assert known["a1.h2"] == {**pages["features"]["a1.h2"], **pages["heads"]["a1.h2"]}
    assert known["a1.h2"]["label"] == "</script> & \u2028"
    assert known["a2.h7"]["top"]
    assert len(known["a2.h7"]["prompts"]) == 4
    assert known["m3"] == pages["mlps"]["m3"]
    assert known["m3"]["promoted"]
    assert known["input"] == {"label": "kept"}
    # what is not such a page is left alone, and where there is none none is made
    page.write_text("mine")
    with pytest.warns(UserWarning, match="is no explorer page. What nodes mean was not put into it"):
        contexts.features(run, tokens=300, device="cpu")
    assert page.read_text() == "mine"
    page.unlink()
    contexts.features(run, tokens=300, device="cpu")
    assert not page.exists()


def data_in(html: str) -> tuple[str, dict[str, Any]]:
    """A page without its data, and the data."""
    before, data, after = re.split(r'(?s)(?<=id="data">)(.*?)(?=</script>)', html, maxsplit=1)
    return before + after, json.loads(data)


def test_what_cannot_be_used_is_named_before_the_model_is_loaded(run: Path, monkeypatch) -> None:
    monkeypatch.setattr(contexts, "load_model_on", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match="there is no such file; expected 'toy'"):
        contexts.features(run, text="no.txt")
    with pytest.raises(InputError, match=r"--labels .*no.json: there is no such file"):
        contexts.features(run, labels=[run / "no.json"])


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"modelId": "a"}')[:-4])
    for name, message in (("picture.json", "is not text in UTF-8"), ("cut.jsonl.gz", "is no whole gzip file")):
        with pytest.raises(FileFormatError, match=message):
            contexts.labels_in([tmp_path / name], None)
    (tmp_path / "bom.json").write_text('\ufeff{"resid_3.f17": "plural subjects"}')
    assert dict(contexts.labels_in([tmp_path / "bom.json"], None)) == {"resid_3.f17": "plural subjects"}
