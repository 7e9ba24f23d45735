"""SHIFT on the planted correlation: the texts, the classifier, the rule, the table, and that it works."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.cli import shift as command
from sparse_circuits.dictionary.edit import ablate_features
from sparse_circuits.zoo.sentences import VERB_PHRASES
from sparse_circuits.zoo.shift_data import Texts, ambiguous, balanced, single
from sparse_circuits.zoo.shift_model import Probe, ProbeLogit, batches, classifier, pooled, word_embeddings
from sparse_circuits.zoo.shift_result import Accuracy, Outcome, ShiftResult

pytest.importorskip("sae_lens", reason="SAELens is not installed beside this TransformerLens")
from sparse_circuits.zoo.shift import Shift, _Experiment


@pytest.fixture(scope="module")
def toy() -> Any:
    return sc.load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def small() -> Shift:
    return Shift(seeds=(1,), texts=200, attributed=8, judged=200, draws=2)


@pytest.fixture(scope="module")
def result(small: Shift) -> ShiftResult:
    return small.run()


def test_attributes_go_together_in_training_and_apart_in_the_test(toy: Any) -> None:
    train, test = ambiguous(200, 0), balanced(200, 0, "test")
    assert torch.equal(train.intended, train.unintended)
    assert train.intended.mean() == 0.5
    assert Counter(test.groups.tolist()) == {0: 50, 1: 50, 2: 50, 3: 50}
    assert not set(test.texts) & {*train.texts, *balanced(200, 0, "train").texts}
    assert ambiguous(8, 0).texts == ambiguous(8, 0).texts != ambiguous(8, 1).texts
    for text, woman in zip(test.texts, test.unintended, strict=True):
        words = set(re.findall(r"\w+", text))
        assert bool(words & {"she", "her"}) == bool(woman), text
        assert bool(words & {"he", "his"}) != bool(woman), text
    for tokens, words in batches(toy, test):
        assert toy.tokenizer.unk_token_id not in tokens
        assert not words[:, 0].any()
    numbers, people = single(20, 0)
    assert numbers.unintended.isnan().all()
    assert people.intended.isnan().all()
    for text, plural in zip(numbers.texts, numbers.intended, strict=True):
        assert any(forms[int(plural)] in text.split() for forms, _ in VERB_PHRASES), text
    assert not any(re.search(r"\b(he|she|his|her)\b", text) for text in numbers.texts)


def test_the_classifier_is_the_probe_on_the_bundled_models_stream(toy: Any) -> None:
    texts, layers = ambiguous(40, 0), 2
    plain = classifier(layers)
    seen = pooled(plain, texts)
    probe = Probe.fitted(seen, texts.intended, 0.1)
    assert (probe(seen) == texts.intended).float().mean() > 0.9
    model, [(tokens, words)] = classifier(layers, probe), batches(toy, texts)
    _, cache = toy.run_with_cache(tokens)
    stream = torch.nn.functional.layer_norm(cache["blocks.1.hook_resid_post"], (128,))
    by_hand = torch.stack([row[which].mean(0) for row, which in zip(stream, words, strict=True)])
    torch.testing.assert_close(seen, by_hand, rtol=1e-4, atol=1e-5)
    logits = model(tokens)
    assert not logits[..., 1:].any()
    task = sc.Task(list(texts.texts), metric=ProbeLogit(texts.intended, probe.bias))
    clean = sc.attribute(model, sc.Graph.of(model), task, ablation=sc.Ablation.ZERO, batch_size=16).clean
    expected = (by_hand @ probe.weight + probe.bias) * (2 * texts.intended - 1)
    torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-4)


def test_words_are_features_of_the_embedding() -> None:
    model, texts = classifier(1), ambiguous(8, 0)
    words, [(tokens, _)] = word_embeddings(model), batches(model, texts)
    embedding = model.embed(tokens)
    features = words.features(embedding)
    assert torch.equal(features.argmax(-1), tokens)
    assert torch.equal(features.sum(-1), torch.ones(tokens.shape))
    torch.testing.assert_close(features @ words.W_dec, embedding)
    she = model.tokenizer.get_vocab()["she"]
    edited = ablate_features(model, {"embed": words}, [f"embed.f{she}"])
    _, cache = edited.run_with_cache(tokens)
    assert not cache["hook_embed"][tokens == she].any()
    assert torch.equal(cache["hook_embed"][tokens != she], embedding[tokens != she])


def test_candidates_are_judged_by_what_they_tell() -> None:
    small = Shift(seeds=(1,), texts=80, attributed=8, judged=200, candidates=60)
    experiment = _Experiment(small, 1, bundled(small.layers))
    vocabulary = {i: word for word, i in experiment.model.tokenizer.get_vocab().items()}
    names = experiment.judged(experiment.words, experiment.model, experiment.probe, experiment.train)
    chosen = {vocabulary[int(name.rpartition(".f")[2])] for name in names}
    assert {"he", "she"} <= chosen
    assert not chosen & {"is", "are", "has", "have", "does", "do", "doctors", "farmers", "poets"}
    assert len(names) <= small.candidates
    assert experiment.random(7, 0) == experiment.random(7, 0) != experiment.random(7, 1)


def bundled(layers: int) -> Any:
    from sparse_circuits.dictionary import load_dictionaries

    return load_dictionaries("toy", classifier(4)).only(
        [f"{k}_{i}" for k in ("attn", "mlp", "resid") for i in range(layers)]
    )


def test_accuracies_are_of_groups_and_of_the_worst() -> None:
    right = torch.zeros(2, 1, 4, 10, dtype=torch.bool)
    right[0], right[0, 0, 3, :4] = True, False  # 1, 1, 1, 0.6
    right[1, 0, :, :5] = True  # 0.5 everywhere
    found, worst = Accuracy.of(right), Accuracy.of(right, worst=True)
    assert found.by_seed == pytest.approx((0.9, 0.5))
    assert found.value == pytest.approx(0.7)
    assert worst.by_seed == pytest.approx((0.6, 0.5))
    assert found.interval[0] < 0.7 < found.interval[1]
    certain = Accuracy.of(torch.ones(1, 2, 4, 5, dtype=torch.bool))
    assert certain.interval == (1.0, 1.0)


def test_the_table_says_which_attribute_a_prediction_follows() -> None:
    test = balanced(16, 0, "test")
    result = ShiftResult.of(
        (Outcome(0, test, {"right": [test.intended], "wrong": [test.unintended]}, {"shift": [["mlp_0.f1"]]}),), {"a": 1}
    )
    assert (result["right"].intended.value, result["right"].unintended.value) == (1.0, 0.5)
    assert (result["wrong"].intended.value, result["wrong"].unintended.value) == (0.5, 1.0)
    assert (result["right"].worst_group.value, result["wrong"].worst_group.value) == (1.0, 0.0)
    assert "100.0 [100, 100]" in result.table()
    assert json.loads(json.dumps(result.to_dict()))["removed"] == {"0": ["mlp_0.f1"]}
    assert [len(line) for line in result.records()] == [11, 11, 11]


def test_shift_mends_the_classifier(result: ShiftResult) -> None:
    def intended(name: str) -> float:
        return result[name].intended.value

    assert intended("original") < 0.6
    assert result["original"].unintended.value > 0.9
    assert intended("shift") > intended("original") + 0.08
    assert intended("shift") > intended("random features") + 0.08
    assert result["shift"].unintended.value < result["original"].unintended.value - 0.2
    assert intended("shift + retrain") > intended("original") + 0.15
    assert intended("shift + retrain") > intended("random features") + 0.15
    assert intended("shift + retrain") > intended("neurons + retrain")
    assert result["shift + retrain"].worst_group.value > result["original"].worst_group.value + 0.2
    assert intended("oracle") > intended("shift")
    assert result["shift"].ablated == result["random features"].ablated == len(result.removed[1])


@pytest.mark.parametrize("options", [{"seeds": ()}, {"texts": 10}, {"candidates": 0}, {"draws": 0}])
def test_settings_that_cannot_be_run_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(sc.InputError, match="expected at least one seed"):
        Shift(**options)


def test_the_command_prints_and_writes_the_table(
    tmp_path: Path, result: ShiftResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(self: Shift) -> ShiftResult:
        asked.append(self)
        return result

    monkeypatch.setattr(Shift, "run", run)
    monkeypatch.setenv("COLUMNS", "120")
    command.shift(seeds=2, candidates=50, out=tmp_path / "a.json")
    command.shift(out=tmp_path / "a.csv")
    assert (asked[0].seeds, asked[0].candidates) == ((1, 2), 50)
    assert (asked[1].seeds, asked[1].candidates) == (Shift.seeds, Shift.candidates)
    shown = capsys.readouterr().out
    assert all(row.name in shown for row in result.rows)
    assert json.loads((tmp_path / "a.json").read_text())["rows"].keys() == {row.name for row in result.rows}
    assert (tmp_path / "a.csv").read_text().startswith("row,ablated,intended,intended_low")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json"]
    for out in (tmp_path / "a.txt", tmp_path / "none" / "a.json"):
        with pytest.raises(sc.InputError, match="--out"):
            command.shift(out=out)
    assert len(asked) == 2


def test_texts_can_be_cut() -> None:
    texts = ambiguous(12, 0)
    assert texts.first(4).texts == texts.texts[:4]
    assert isinstance(texts.first(4), Texts)
    assert texts.first(4).intended.tolist() == [0, 1, 0, 1]
