"""The bundled dictionaries: their folders, what they do to the model, and the script that trained them."""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
from sae_lens import SAE
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

import sparse_circuits as sc
from sparse_circuits.zoo import (
    dictionary_sites,
    dictionary_trainers,
    language,
    measure_dictionaries,
    toy_path,
    train_dictionaries,
)
from sparse_circuits.zoo.dictionary_trainers import Learner, Settings

FOLDER = toy_path() / "dictionaries"
SITES = dictionary_sites.sites(4)
BY_NAME = {place.name: place for place in SITES}
NAMES = [f"{kind}_{layer}" for layer in range(4) for kind in ("attn", "mlp", "resid", "transcoder")]
TINY = Settings(
    seed=3,
    tokens=60 * 256,
    batch=256,
    rows=2,
    features=64,
    active=8,
    warmup=10,
    window=20,
    threshold_rate=0.1,
    early_batches=2,
)


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training draws on few prompts, which take seconds to generate."""
    monkeypatch.setattr(train_dictionaries, "Text", partial(dictionary_sites.Text, pool=8))


@pytest.fixture(scope="module")
def model() -> Any:
    return sc.load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def dictionaries() -> dict[str, SAE[Any]]:
    return measure_dictionaries.load(FOLDER, SITES)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads((FOLDER / "report.json").read_text())


@pytest.fixture(scope="module")
def again(model: Any, dictionaries: dict[str, SAE[Any]]) -> measure_dictionaries.Report:
    """A smaller sample of held-out text than the report's."""
    return measure_dictionaries.measure(model, dictionaries, SITES, rows=40, batch=40)


# The folders


def test_there_are_sixteen() -> None:
    assert [place.name for place in SITES] == NAMES
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == sorted(NAMES)
    for name in NAMES:
        assert sorted(file.name for file in (FOLDER / name).iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_they_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 16_000_000


@pytest.mark.parametrize("name", NAMES)
def test_sae_lens_loads_each(name: str, dictionaries: dict[str, SAE[Any]], model: Any) -> None:
    dictionary, place = dictionaries[name], BY_NAME[name]
    config, about = dictionary.cfg, dictionary.cfg.metadata
    assert config.architecture() == ("jumprelu_transcoder" if place.is_transcoder else "jumprelu")
    assert (config.d_in, config.dtype, config.device) == (128, "float32", "cpu")
    assert config.normalize_activations == "none"
    assert config.apply_b_dec_to_input is not place.is_transcoder
    assert about.model_name == "toy"
    assert (about.hook_name, about.hook_layer) == (place.reads, place.layer)
    assert (about.hook_name_out, about.hook_layer_out) == (
        (place.writes, place.layer) if place.is_transcoder else (None, None)
    )
    assert {place.reads, place.writes} <= set(model.hook_dict)
    assert about.prepend_bos is True
    assert about.context_size == model.cfg.n_ctx
    assert about.training["tokens"] >= about.training["steps"] * about.training["batch"] > 0
    assert "seed" in about.training
    norms = dictionary.W_dec.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=1e-4)
    assert float(torch.as_tensor(dictionary.threshold).detach().min()) > 0


# What they do


def test_report_is_of_these_dictionaries(report: dict[str, Any], dictionaries: dict[str, SAE[Any]]) -> None:
    assert set(report["dictionaries"]) == set(NAMES)
    assert {name: one["features"] for name, one in report["dictionaries"].items()} == {
        name: one.cfg.d_sae for name, one in dictionaries.items()
    }
    assert set(report["together"]["attn + mlp + resid"]["sites"]) == {name for name in NAMES if "trans" not in name}


@pytest.mark.parametrize("name", NAMES)
def test_reported_figures_come_out_again(name: str, again: measure_dictionaries.Report, report: dict[str, Any]) -> None:
    """On the first 40 of the report's rows: what differs is sampling."""
    found = next(one for one in again.dictionaries if one.name == name)
    said = report["dictionaries"][name]
    assert said["loss_recovered"] >= 0.95
    assert found.loss_recovered >= 0.95
    assert found.loss_recovered == pytest.approx(said["loss_recovered"], abs=0.01)
    assert found.variance_explained == pytest.approx(said["variance_explained"], abs=0.015)
    assert found.l0 == pytest.approx(said["l0"], rel=0.08)
    assert said["dead"] <= found.dead
    # Every row has the same BOS.
    assert found.bos_error == pytest.approx(said["bos_error"], rel=0.01, abs=1e-6)
    assert found.bos_l0 == said["bos_l0"]


def test_reported_figures_of_sets_come_out_again(again: measure_dictionaries.Report, report: dict[str, Any]) -> None:
    for found in again.together:
        assert found.loss_recovered == pytest.approx(report["together"][found.name]["loss_recovered"], abs=0.03)


@pytest.mark.parametrize("name", [name for name in NAMES if "transcoder" not in name])
def test_what_was_saved_is_as_sparse_as_in_training(name: str, report: dict[str, Any]) -> None:
    about = json.loads((FOLDER / name / "cfg.json").read_text())["metadata"]
    assert about["l0"] == pytest.approx(
        about["training"]["active_in_stream" if name.startswith("resid") else "active"], rel=0.01
    )
    # Prompts and the BOS, which training counts, have more or fewer than the rest of the text.
    assert report["dictionaries"][name]["l0"] == pytest.approx(about["l0"], rel=0.3)


@pytest.mark.parametrize("name", ["resid_1", "mlp_2", "transcoder_2"])
def test_splicing_is_sae_lenss(name: str, model: Any, dictionaries: dict[str, SAE[Any]]) -> None:
    tokens = dictionary_sites.Text(model.tokenizer, 96, "splice").rows(0, 2)
    theirs = SAETransformerBridge.boot_transformers(str(toy_path()), device="cpu")
    with torch.no_grad():
        wanted = theirs.run_with_saes(tokens, saes=[dictionaries[name]])
        found = model.run_with_hooks(tokens, fwd_hooks=measure_dictionaries.splice(BY_NAME[name], dictionaries[name]))
        plain = model(tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert (found - plain).abs().max() > 0.01


def test_the_measure_can_fail(model: Any, dictionaries: dict[str, SAE[Any]]) -> None:
    """Encoders of noise fall short; the model's own activation, all of it."""
    noise = SAE.from_dict(dictionaries["mlp_1"].cfg.to_dict())
    places = [BY_NAME["mlp_1"]]
    bad = measure_dictionaries.measure(model, {"mlp_1": noise}, places, rows=8).dictionaries[0]
    assert bad.loss_recovered < measure_dictionaries.WANTED
    assert bad.variance_explained < 0
    parts = [dictionary_sites.Text(model.tokenizer, 96, "identity").rows(0, 4)]
    own: Any = torch.nn.Identity()
    same = measure_dictionaries.loss(model, parts, measure_dictionaries.splice(places[0], own))
    assert same == pytest.approx(measure_dictionaries.loss(model, parts, []), abs=1e-6)


def test_sites_add_up(model: Any) -> None:
    """A block's output is its input, its attention's output and its MLP's: the hooks are where they should be."""
    tokens = dictionary_sites.Text(model.tokenizer, 96, "sum").rows(0, 2)
    for layer in range(4):
        block = f"blocks.{layer}."
        hooks = [block + hook for hook in ("hook_resid_pre", *dictionary_sites.KINDS.values(), "ln2.hook_normalized")]
        found = dictionary_sites.activations(model, tokens, hooks, layer + 1)
        pre, attention, mlp, post, normed = (found[hook] for hook in hooks)
        torch.testing.assert_close(pre + attention + mlp, post)
        middle = pre + attention
        middle = middle - middle.mean(-1, keepdim=True)
        torch.testing.assert_close(normed, middle / (middle.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt())


def test_card_states_what_was_measured(report: dict[str, Any]) -> None:
    text = (toy_path() / "README.md").read_text()
    assert text.count("## Dictionaries\n") == 1
    for name, one in report["dictionaries"].items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        said = [cell.strip() for cell in line.split("|")[2:-1]]
        assert said[1] == f"{one['variance_explained']:.4f}"
        assert said[2] == f"{one['l0']:.1f}"
        assert said[3] == str(one["dead"])
        assert said[4] == f"{one['loss_recovered']:.4f}"


def test_a_card_has_one_section() -> None:
    once = measure_dictionaries.insert("# card\n\ntext\n", "## Dictionaries\n\nold\n")
    assert once == "# card\n\ntext\n\n## Dictionaries\n\nold\n"
    assert measure_dictionaries.insert(once, "## Dictionaries\n\nnew\n") == once.replace("old", "new")


# The text


def test_text_follows_from_the_stream_and_the_step(model: Any) -> None:
    text = dictionary_sites.Text(model.tokenizer, 96, "one", pool=4)
    same = dictionary_sites.Text(model.tokenizer, 96, "one", pool=4)
    other = dictionary_sites.Text(model.tokenizer, 96, "other", pool=4)
    assert torch.equal(text.rows(5, 2), same.rows(5, 2))
    assert not torch.equal(text.rows(5, 2), text.rows(6, 2))
    assert not torch.equal(text.rows(5, 2), other.rows(5, 2))
    assert text.prompts == same.prompts != other.prompts
    chosen = text.some_prompts(7, 100)
    assert sum(map(len, chosen)) == 100 + len(chosen)
    assert chosen == same.some_prompts(7, 100)


def test_prompts_are_as_tasks_run_them(model: Any) -> None:
    text = dictionary_sites.Text(model.tokenizer, 96, "one", pool=4)
    bos = text.ids[language.BOS]
    assert len(text.prompts) == 8 * 2 * 4
    for prompt in random.Random(0).sample(text.prompts, 10):
        assert prompt[0] == bos
        assert bos not in prompt[1:]
        assert model.to_tokens(model.tokenizer.decode(prompt[1:])).tolist() == [prompt]


def test_batches_hold_real_tokens_only(model: Any) -> None:
    """Each is some BOS, and what the model has on its rows and then on each of its prompts run alone, after their BOS."""
    text = dictionary_sites.Text(model.tokenizer, 96, "one", pool=4)
    hook, shape = "blocks.1.hook_mlp_out", dictionary_sites.Shape(tokens=200, rows=2, bos=1)
    (batch,) = dictionary_sites.batches(model, text, [hook], stop=2, shape=shape, first=3, last=4)
    prompts = text.some_prompts(3, 9)
    assert sum(map(len, prompts)) == 9 + len(prompts)
    single = [*text.rows(3, 2)[:, None], *(torch.tensor([prompt]) for prompt in prompts)]
    found = [dictionary_sites.activations(model, row, [hook], 2)[hook][0] for row in single]
    wanted = torch.cat([found[0][:1], *(row[1:] for row in found)])
    assert wanted.shape == batch[hook].shape == (200, 128)
    torch.testing.assert_close(batch[hook], wanted, rtol=1e-4, atol=1e-4)


# The units that dictionaries are trained in


def test_information_is_the_second_order_cost_of_an_error(model: Any) -> None:
    """In the last block's output, where nothing mixes positions: KL(model, model + e) is e^T F e / 2 on the average."""
    tokens = dictionary_sites.Text(model.tokenizer, 96, "information").rows(0, 40)
    hook = "blocks.3.hook_resid_post"
    found = dictionary_sites.information(model, tokens, [hook], seed=0)[hook].double()
    torch.testing.assert_close(found, found.T)
    error = torch.randn(128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(tokens)[:, 1:].double().log_softmax(-1)
        wrong = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda value, hook: value + error)])[:, 1:]
        cost = (plain.exp() * (plain - wrong.double().log_softmax(-1))).sum(-1).mean()
    assert float(cost) > 1e-4
    assert float(cost) == pytest.approx(float(error.double() @ found @ error.double() / 2), rel=0.2)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_units_weigh_two_shares(weight: float) -> None:
    generator = torch.Generator().manual_seed(1)
    values = 3 + torch.randn(500, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    root = torch.randn(6, 6, generator=generator)
    found = dictionary_trainers.units([{"hook": values[:200]}, {"hook": values[200:]}], "hook", root @ root.T, weight)
    centred, fisher = (values - values.mean(0)).double(), (root @ root.T).double()
    error = torch.randn(6, generator=generator).double()
    spread = centred.pow(2).sum(-1).mean(), ((centred @ fisher) * centred).sum(-1).mean()
    shares = (1 - weight) * error @ error / spread[0] + weight * (error @ fisher @ error) / spread[1]
    torch.testing.assert_close((error @ found.matrix).pow(2).sum() / 6, shares, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.matrix @ found.inverse_matrix, torch.eye(6).double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean, values.double().mean(0), rtol=1e-4, atol=1e-4)


# The trainer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*_*/*"))}


class Interrupted:
    """A learner that is stopped before one of its steps."""

    def __init__(self, one: Learner, at: int) -> None:
        self.one, self.site, self.left = one, one.site, at

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.one.step(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.one, name)


def test_an_interrupted_run_resumes_to_the_same_dictionaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so runs are deterministic, and a dictionary does not depend on what is trained beside it."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    train_dictionaries.train(TINY, whole, ["attn_0", "transcoder_0"])
    assert set(contents(whole)) == {
        f"{name}/{file}" for name in ("attn_0", "transcoder_0") for file in ("cfg.json", "sae_weights.safetensors")
    }
    train_dictionaries.train(TINY, part, ["attn_0"])
    made = (part / "attn_0" / "cfg.json").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        real = train_dictionaries.learner
        patch.setattr(train_dictionaries, "learner", lambda *given: Interrupted(real(*given), 25))
        with pytest.raises(KeyboardInterrupt):
            train_dictionaries.train(TINY, part, ["attn_0", "transcoder_0"], resume=True)
    assert sorted(path.name for path in part.iterdir()) == ["attn_0", "training.json"]
    # A run that is killed outright may leave a scratch folder, and one whose configuration was not yet written.
    (part / "transcoder_0").mkdir()
    (part / "transcoder_0" / "sae_weights.safetensors").write_bytes(b"half")
    train_dictionaries.train(TINY, part, ["attn_0", "transcoder_0"], resume=True)
    assert contents(part) == contents(whole)
    assert (part / "attn_0" / "cfg.json").stat().st_mtime_ns == made

    # What was learned: not much in so few steps, but something, and sparse.
    places = [BY_NAME["attn_0"], BY_NAME["transcoder_0"]]
    model = sc.load_model("toy", device="cpu")
    loaded = measure_dictionaries.load(whole, places)
    for one in measure_dictionaries.measure(model, loaded, places, rows=8).dictionaries:
        assert one.variance_explained > 0.3
        assert one.l0 == pytest.approx(TINY.active, rel=0.5)


def test_finished_dictionaries_are_not_overwritten(tmp_path: Path) -> None:
    settings = replace(TINY, tokens=2 * 256)
    train_dictionaries.train(settings, tmp_path, ["mlp_0"])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="has mlp_0 already: keep them with --resume"):
        train_dictionaries.train(settings, tmp_path, ["mlp_0"])
    with pytest.raises(ValueError, match="was trained with other settings"):
        train_dictionaries.train(replace(settings, seed=4), tmp_path, ["mlp_0"], resume=True)
    with pytest.raises(ValueError, match="no dictionary is called mlp_9; there are attn_0"):
        train_dictionaries.train(settings, tmp_path, ["mlp_9"])
    assert contents(tmp_path) == before


def test_a_seed_gives_its_own_dictionaries(tmp_path: Path) -> None:
    for seed in (1, 2):
        settings = replace(TINY, seed=seed, tokens=2 * 256)
        train_dictionaries.train(settings, tmp_path / str(seed), ["resid_0", "transcoder_0"])
    for name in ("resid_0", "transcoder_0"):
        one, other = (SAE.load_from_disk(tmp_path / str(seed) / name).W_dec for seed in (1, 2))
        assert not torch.allclose(one, other, atol=0.01)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (train_dictionaries.main, ["--out", "nowhere", "--tokens", "5"], "--tokens must be at least a batch"),
        (train_dictionaries.main, ["--out", "nowhere", "--only", "mlp_9"], "no dictionary is called mlp_9"),
        (measure_dictionaries.main, ["--dictionaries", "nowhere"], "nowhere lacks attn_0, mlp_0"),
        (measure_dictionaries.main, ["--rows", "0"], "--rows must be at least 1, but is 0"),
    ],
)
def test_command_lines_refuse_bad_input(
    command: Callable[[], object],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
