"""Notes on features: kept, imported from feature-circuits and Neuronpedia, linked; and the command that puts pages together."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.cli import contexts
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.features import FeatureStore, Labels, neuronpedia_url
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


@pytest.mark.parametrize("text", ["[", "3", '["a"]', '{"a": 3}', '{"format": "sparse-circuits labels", "version": 9}'])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileFormatError):
        Labels.load(tmp_path / "x.json")
    if text != "3":
        with pytest.raises(FileFormatError):
            Labels.from_neuronpedia(tmp_path / "x.json", site="resid_0")


def test_links_go_to_neuronpedia_where_it_has_a_page() -> None:
    assert (
        neuronpedia_url(dictionary("gpt2-small/8-res-jb"), 650) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/650"
    )
    assert neuronpedia_url(dictionary(None), 650) is None


# --- the command ---


@pytest.fixture(scope="module")
def toy():
    return sc.load_model("toy", device="cpu")


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


def test_the_command_says_how_to_go_on(toy, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    circuit = sc.FeatureCircuit.of(sc.Graph.of(toy, whole="z"), ["a1.h2"], model="toy")
    circuit.save(tmp_path / "mine.safetensors")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_circuits.features.collect_contexts", interrupted)
    with pytest.raises(SystemExit) as exit:
        contexts.features(tmp_path / "mine.safetensors", dictionaries="neurons", device="cpu")
    assert exit.value.code == 130
    assert "goes on from there" in capsys.readouterr().err
