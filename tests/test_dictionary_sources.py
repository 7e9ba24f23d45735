"""Where dictionaries come from and where they are put: folders, releases, keys, and what is refused or warned about."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import VOCAB
from test_dictionaries import FEATURES, TOP, WIDTH, activations, close, load, make, reconstruction

import sparse_circuits as sc
from sparse_circuits.dictionary import load_dictionaries
from sparse_circuits.dictionary.releases import _could_be

sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")


# --- folders and mappings ---


def test_a_folder_of_folders_and_a_choice_of_sites(zoo, tmp_path: Path) -> None:
    model = zoo("gpt2")
    for layer in range(3):
        for part in ("hook_resid_post", "hook_mlp_out"):
            hook = f"blocks.{layer}.{part}"
            make("standard", metadata={"hook_name": hook}).save_model(tmp_path / f"layer{layer}" / part)
    hooks = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    make("transcoder", metadata=hooks).save_model(tmp_path / "layer1" / "tc")
    with pytest.raises(sc.InputError, match=r"transcoder_1 and mlp_1 .* both split what one MLP writes"):
        load(tmp_path, model)
    saes = load(tmp_path, model, sites=["resid", "mlp_2", "transcoder"])
    assert list(saes) == ["resid_0", "transcoder_1", "resid_1", "mlp_2", "resid_2"]
    assert saes.ids["resid_1"] == f"{tmp_path}/layer1/hook_resid_post"
    assert saes["transcoder_1"] is saes["blocks.1.mlp.hook_in"]
    assert list(saes.only("resid")) == ["resid_0", "resid_1", "resid_2"]
    assert list(saes.only(["mlp_2", "blocks.0.hook_resid_post"])) == ["resid_0", "mlp_2"]
    assert saes.describe()[1] == {
        "site": "transcoder_1",
        "hook": "blocks.1.mlp.hook_in -> blocks.1.hook_mlp_out",
        "architecture": "transcoder",
        "features": FEATURES,
        "normalisation": "none",
        "id": f"{tmp_path}/layer1/tc",
    }
    assert "mlp_2: standard, 50 features" in repr(saes)
    both = saes.only("resid") | load("neurons", model, sites=["resid_2", "attn_0"])
    assert list(both) == ["attn_0", "resid_0", "resid_1", "resid_2"]
    assert both.ids["resid_2"] == "neurons"
    for again in (dict(both), list(both.values()), both):
        assert list(load(again, model)) == list(both)
    with pytest.raises(sc.InputError, match="No dictionary is at z"):
        saes.only("z")
    with pytest.raises(KeyError, match="there are resid_0"):
        saes["attn_0"]
    with pytest.raises(sc.InputError, match=r"sites=\['attn'\].*resid_0"):
        load(tmp_path, model, sites="attn")
    make("topk", metadata={"hook_name": "blocks.0.hook_resid_post"}, **TOP).save_model(tmp_path / "wide")
    with pytest.raises(
        sc.InputError, match=r"2 dictionaries are at resid_0: .*hook_resid_post, .*wide. Say which: sites="
    ):
        load(tmp_path, model, sites="resid")
    assert load(tmp_path, model, sites=["wide"])["resid_0"].sae.cfg.architecture() == "topk"


def test_keys_of_a_transcoder(zoo) -> None:
    sae = make(
        "transcoder", metadata={"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    )
    model = zoo("gpt2")
    reads = {
        "transcoder_1": "normalized",
        "blocks.1.mlp.hook_in": "normed",
        "blocks.1.hook_resid_mid": "resid_mid",
        ("blocks.1.ln2.hook_out", "blocks.1.mlp.hook_out"): "normed",
        "blocks.1.hook_mlp_out": "normalized",
    }
    for key, expected in reads.items():
        d = load({key: sae}, model)["transcoder_1"]
        assert (d.site.reads, d.hook_name_out) == (expected, "blocks.1.hook_mlp_out")
    with pytest.warns(UserWarning, match="trained at transcoder_1"):
        load_dictionaries({"transcoder_0": sae}, model)
    nowhere = make(
        "transcoder", metadata={"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    )
    with pytest.warns(
        UserWarning, match=r"trained at blocks.1.hook_mlp_in, put at transcoder_1 \(blocks.1.mlp.hook_in\)"
    ):
        load_dictionaries({"blocks.1.mlp.hook_in": nowhere}, model)
    by_module = {"hf_hook_name": "model.layers.1.pre_feedforward_layernorm.output"}  # says what hook_mlp_in leaves open
    told = make("transcoder", metadata={"hook_name": "blocks.1.hook_mlp_in", **by_module})
    d = load([told], zoo("gemma3"))["transcoder_1"]
    assert (d.site.reads, d.hook_name, d.hook_name_out) == ("normed", "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    for key in ("resid_1", "attn_1"):
        with pytest.raises(sc.InputError, match="cannot be put at"):
            load({key: sae}, model)
    with pytest.raises(sc.InputError, match="standard dictionary, which cannot be put at transcoder_1"):
        load({"transcoder_1": make("standard")}, model)
    with pytest.raises(sc.InputError, match=r"on a TransformerBridge; say what it reads .*'blocks.1.mlp.hook_in'"):
        load({"blocks.1.hook_mlp_in": sae}, model)


def test_loading_leaves_the_model_as_it_was(zoo) -> None:
    model, tokens = zoo("gpt2"), torch.tensor([[1, 2, 3]])
    before, modes = model(tokens), {name: module.training for name, module in model.named_modules()}
    for source in ({"resid_1": make("standard")}, {"resid_1": make("standard", width=32)}):
        with suppress(sc.InputError):
            load(source, model)
        assert not any(point.fwd_hooks or point.bwd_hooks for point in model.hook_dict.values())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(model(tokens), before)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_neurons_are_the_identity(zoo) -> None:
    model = zoo("gpt2")
    assert list(load("neurons", model)) == [
        f"{kind}_{layer}" for layer in range(3) for kind in ("attn", "mlp", "resid")
    ]
    d = load("neurons", model, sites=["z", "embed"])["z_2"]
    x = activations()
    assert torch.equal(d.features(x), x)
    assert not d.error(x, x).any()
    assert torch.equal(d.at(x, torch.arange(40) % WIDTH), x[torch.arange(40), torch.arange(40) % WIDTH])
    with pytest.raises(sc.InputError, match="no identity goes between them"):
        load("neurons", model, sites="transcoder")
    assert "mlp_0" not in load("neurons", zoo("hooked-attn-only"))


# --- what is refused or warned about ---


def test_what_is_refused_says_why(zoo, tmp_path: Path) -> None:
    model = zoo("gpt2")

    def refused(source, message: str, **options) -> None:
        with pytest.raises(sc.InputError, match=message):
            load(source, model, **options)

    refused({"resid_1": make("standard", width=32)}, r"reads 32 numbers, but the model has 24 at resid_1")
    refused({"resid_5": make("standard")}, r"is at resid_5, but the model has 3 layers \(0 to 2\)")
    refused({"blocks.1.hook_nowhere": make("standard")}, "No dictionary can be put at 'blocks.1.hook_nowhere'")
    refused([make("standard")], "does not say where it was trained")
    refused([make("standard", metadata={"hook_name": "blocks.1.attn.hook_z", "hook_head_index": 2})], "on head 2 alone")
    refused(
        {"resid_1": object()}, "SAELens or dictionary_learning object, a Dictionary or a folder at resid_1, got object"
    )
    refused(
        {"resid_1": make("standard", normalize_activations="covariance_whitening")}, "statistics are not part of it"
    )
    for architecture, why in (
        ("matching_pursuit", "one after the other"),
        ("temporal", "attends to earlier positions"),
    ):
        config = {"architecture": architecture, "d_in": WIDTH, "d_sae": 512, "metadata": {}}
        refused({"resid_1": sae_lens.SAE.from_dict(config)}, why)
    refused("gpt2-small-res-jbb", "No dictionaries called .* such as gpt2-small-res-jb")
    refused("./nothing-here", "No folder of dictionaries at ./nothing-here")
    refused("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "cross-layer transcoder")
    refused(tmp_path, "holds no dictionary: expected SAELens's cfg.json")
    d = load({"resid_1": make("standard")}, model)["resid_1"]
    refused({"mlp_1": d}, "is a dictionary at resid_1; it cannot be put at 'mlp_1'")
    with pytest.raises(sc.InputError, match="the model has attention only"):
        load({"mlp_1": make("standard")}, zoo("hooked-attn-only"))
    with pytest.raises(sc.InputError, match="the two run in parallel"):
        load({"resid_mid_1": make("standard")}, zoo("neox"))
    with pytest.raises(sc.InputError, match="before the norm of what joins the stream; expected"):
        load({"blocks.1.mlp.hook_out": make("standard")}, zoo("gemma2"))
    with pytest.raises(sc.InputError, match=r"what the model has at blocks.1.ln2.hook_out is not what"):
        load({"blocks.1.ln2.hook_out": make("transcoder")}, zoo("olmo2"))  # its ln2 is the norm behind attention


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "batchtopk"}, r"form for training.*save_inference_model"),
        ({"architecture": "crosscoder"}, "write to several layers"),
        ({"architecture": "hexagonal"}, "architecture='hexagonal', which is unknown"),
        ({"activation_fn": "gelu"}, "activation_fn='gelu'; expected relu or topk"),
        ({"d_sae": 51}, "Could not read the dictionary"),
    ],
)
def test_a_configuration_is_refused_before_weights_are_read(zoo, tmp_path: Path, change: dict, message: str) -> None:
    make("standard").save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(sc.InputError, match=message):
        load({"resid_1": tmp_path}, zoo("gpt2"))


def test_an_object_that_computes_something_else_is_refused(zoo) -> None:
    sae = make("standard")
    sae.activation_fn = torch.nn.Tanh()
    with pytest.raises(sc.InputError, match="differs from the StandardSAE's own"):
        load({"resid_1": sae}, zoo("gpt2"))


def test_what_only_metadata_say_is_warned_about_with_the_numbers(zoo) -> None:
    model = zoo("gpt2")
    metadata = {"hook_name": "blocks.1.hook_resid_post", "model_name": "pythia-70m"}
    with pytest.warns(UserWarning, match="trained on") as caught:
        load_dictionaries({f"resid_{layer}": make("standard", metadata=metadata) for layer in range(3)}, model)
    texts = [str(w.message) for w in caught]
    assert sum("trained on pythia-70m, but the model is" in text for text in texts) == 1
    assert any("trained at resid_1 (hook_name blocks.1.hook_resid_post), put at resid_0" in text for text in texts)
    for name in ("gpt2", "gpt2-small", "openai-community/gpt2"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_dictionaries({"resid_1": make("standard", metadata={"model_name": name})}, model)
    with pytest.warns(UserWarning, match=r"mean norm 4\.9; at resid_1 they have .* on random tokens"):
        load_dictionaries({"resid_1": make("standard", normalize_activations="expected_average_only_in")}, model)
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    with pytest.warns(UserWarning, match=r"with center_writing_weights.*here the mean is 0\.\d+ of their size"):
        load_dictionaries({"resid_1": make("standard", metadata=centred)}, model)
    large = make("standard")
    large.b_dec.data.fill_(1e5)
    with pytest.warns(UserWarning, match=r"reconstructs vectors of norm .*e\+06 where the model has"):
        load_dictionaries({"resid_1": large}, model)


# --- a SAELens release, from a hub cache on disk ---


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with a few dictionaries of one repository, and no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--jbloom--GPT2-Small-SAEs-Reformatted"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return folder / "snapshots" / ("0" * 40)


@pytest.fixture(scope="module")
def gpt2_wide(tmp_path_factory: pytest.TempPathFactory):
    """A model of GPT-2 small's width, with two layers."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=768, n_layer=2, n_head=12, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    folder = tmp_path_factory.mktemp("wide") / "gpt2-small"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return sc.load_model(folder, device="cpu")


def test_a_release_by_its_id(zoo, hub: Path, gpt2_wide) -> None:
    made = {}
    for layer in (0, 1, 2, 8):
        hook = f"blocks.{layer}.hook_resid_pre"
        made[layer] = make("standard", width=768)
        made[layer].save_model(hub / hook)
        old = {
            "model_name": "gpt2-small", "hook_point": hook, "hook_point_layer": layer, "hook_point_head_index": None,
            "d_in": 768, "d_sae": FEATURES, "dtype": "torch.float32", "device": "cpu", "l1_coefficient": 8e-5,
        }  # fmt: skip
        (hub / hook / "cfg.json").write_text(json.dumps(old))
    with pytest.warns(UserWarning, match="center_writing_weights") as caught:
        saes = load_dictionaries(
            "gpt2-small-res-jb", gpt2_wide, sites=["blocks.1.hook_resid_pre", "resid_1", "resid_pre"]
        )
    assert any("trained on a model with center_writing_weights" in str(w.message) for w in caught)
    assert list(saes) == ["resid_pre_0", "resid_0", "resid_1"]
    assert saes.ids["resid_0"] == "gpt2-small-res-jb/blocks.1.hook_resid_pre"
    assert saes["resid_0"].hook_name == "blocks.1.hook_resid_pre"
    x = activations(width=768)
    for layer, name in enumerate(saes):
        assert close(reconstruction(saes[name], x), made[layer](x).detach())
    one = load("gpt2-small-res-jb/blocks.2.hook_resid_pre", gpt2_wide)
    assert list(one) == ["resid_1"]
    with pytest.raises(sc.InputError, match="at resid_7, but the model has 2 layers"):
        load("gpt2-small-res-jb", gpt2_wide, sites="blocks.8.hook_resid_pre")
    with pytest.raises(sc.InputError, match=r"reads 768 numbers, but the model has 24 at resid_0: .*model gpt2-small"):
        load("gpt2-small-res-jb", zoo("gpt2"), sites=["resid_0"])
    with pytest.raises(sc.InputError, match=r"no dictionary 'mlp_1'; its ids are blocks.0.hook_resid_pre, .* more"):
        load("gpt2-small-res-jb", gpt2_wide, sites="mlp_1")
    with pytest.raises(sc.InputError, match=r"Could not fetch the configuration of .*blocks.5.hook_resid_pre"):
        load("gpt2-small-res-jb", gpt2_wide, sites="resid_4")


def test_a_repository_that_is_no_release_by_its_folders(hub: Path, gpt2_wide) -> None:
    hook = "blocks.1.hook_resid_pre"
    make("topk", width=768, metadata={"hook_name": hook}, **TOP).save_model(hub / hook)
    repository = "jbloom/GPT2-Small-SAEs-Reformatted"
    with pytest.raises(sc.InputError, match=r"not one of SAELens's releases; name its folders: sites="):
        load(repository, gpt2_wide)
    assert load(repository, gpt2_wide, sites=hook).ids == {"resid_0": f"{repository}/{hook}"}
    for value in (f"gpt2-small-res-jb/{hook}", "gpt2-small-res-jb"):
        assert load({"resid_0": value}, gpt2_wide)["resid_0"].sae.cfg.architecture() == "topk"


def test_several_of_one_site_must_be_told_apart(hub: Path, gpt2_wide, monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    entry = get_pretrained_saes_directory()["gpt2-small-res-jb"]
    widths = {f"layer_1/width_{width}k": f"layer_1/width_{width}k" for width in (16, 65)}
    monkeypatch.setattr(entry, "saes_map", {**widths, "layer_0/width_16k": "layer_0/width_16k"})
    for id in entry.saes_map:
        make("standard", width=768, metadata={"hook_name": f"blocks.{id[6]}.hook_resid_post"}).save_model(hub / id)
    with pytest.raises(
        sc.InputError, match=r"2 dictionaries are at resid_1: .*width_16k, .*width_65k\. Say which: sites="
    ):
        load("gpt2-small-res-jb", gpt2_wide)
    with pytest.raises(
        sc.InputError, match=r"2 dictionaries could be meant for resid_1: .*width_16k, .*Name one: {'resid_1'"
    ):
        load({"resid_1": "gpt2-small-res-jb"}, gpt2_wide)
    saes = load("gpt2-small-res-jb", gpt2_wide, sites=["layer_1/width_65k", "resid_0"])
    assert saes.ids == {
        "resid_0": "gpt2-small-res-jb/layer_0/width_16k",
        "resid_1": "gpt2-small-res-jb/layer_1/width_65k",
    }


@pytest.mark.parametrize(
    ("id", "wanted", "could"),
    [
        ("blocks.8.hook_resid_pre", "resid_7", True),
        ("blocks.8.hook_resid_pre", "resid_8", False),
        ("blocks.8.hook_resid_pre_24576", "blocks.8.hook_resid_pre", True),
        ("blocks.12.hook_resid_post__trainer_0", "resid_12", True),
        ("blocks.8.hook_z", "z", True),
        ("blocks.8.hook_z", "attn_8", False),
        ("layer_10/width_16k/average_l0_72", "resid_10", True),
        ("layer_10/width_16k/average_l0_72", "resid_1", False),
        ("l5r_8x", "resid_5", True),
        ("l15r_8x", "resid_5", False),
        ("layer_10/width_16k/average_l0_72", "transcoder", True),
        ("layer_10/width_16k/average_l0_72", "no-such-id", False),
        ("layer_10", "blocks.10.mlp.hook_in", True),
        ("layer_11", "blocks.10.mlp.hook_in", False),
    ],
)
def test_an_id_tells_what_it_could_be(id: str, wanted: str, could: bool) -> None:
    assert _could_be(id, wanted) is could


def test_pickled_releases_are_never_run(gpt2_wide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(sc.InputError, match="would run what is in them"):
        load("gpt2-small-hook-z-kk", gpt2_wide)


# --- the bundled ones ---


def test_toy_leaves_out_the_transcoders_unless_asked(zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_circuits.zoo.toy_path", lambda: tmp_path)
    with pytest.raises(sc.InputError, match="bundled dictionaries are missing"):
        load("toy", zoo("gpt2"))
    for part in ("hook_attn_out", "hook_mlp_out", "hook_resid_post"):
        hook = f"blocks.1.{part}"
        make("standard", metadata={"hook_name": hook}).save_model(tmp_path / "dictionaries" / f"{part}_1")
    hooks = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    make("transcoder", metadata=hooks).save_model(tmp_path / "dictionaries" / "transcoder_1")
    assert list(load("toy", zoo("gpt2"))) == ["attn_1", "mlp_1", "resid_1"]
    saes = load("toy", zoo("gpt2"), sites=["transcoder", "resid"])
    assert list(saes) == ["transcoder_1", "resid_1"]
    assert saes.ids["transcoder_1"] == "toy/transcoder_1"


def test_the_bundled_dictionaries_fit_the_bundled_model() -> None:
    model = sc.load_model("toy")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        saes = load_dictionaries("toy", model)
        transcoders = load_dictionaries("toy", model, sites="transcoder")
    layers = range(model.cfg.n_layers)
    assert list(saes) == [f"{kind}_{layer}" for layer in layers for kind in ("attn", "mlp", "resid")]
    assert list(transcoders) == [f"transcoder_{layer}" for layer in layers]
