"""Dictionaries against the objects that they come from: values, errors, gradients, places, and what is refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.dictionary import Dictionaries, load_dictionaries

sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")

WIDTH, FEATURES = 24, 50


def randomized(sae, seed: int = 0):
    """Weights of a size at which some features fire and others do not."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        scale = 0.3 if parameter.dim() == 2 else 0.2
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        if name == "threshold":
            parameter.data.abs_()
    return sae


def make(architecture: str, width: int = WIDTH, metadata: dict | None = None, **options):
    """A random SAELens object of an architecture, by SAELens's own registry."""
    config = {"architecture": architecture, "d_in": width, "d_sae": FEATURES, **options}
    if "transcoder" in architecture:
        config |= {"d_out": width, "apply_b_dec_to_input": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomized(sae_lens.SAE.from_dict({**config, "metadata": metadata or {}}))


TOP = {"k": 7}
ARCHITECTURES = {
    "standard": ("standard", {}),
    "standard-no-b_dec": ("standard", {"apply_b_dec_to_input": False}),
    "gated": ("gated", {}),
    "jumprelu": ("jumprelu", {}),
    "topk": ("topk", TOP),
    "topk-rescaled": ("topk", {**TOP, "rescale_acts_by_decoder_norm": True}),
    "abstopk": ("abstopk", TOP),
    "abstopk-rescaled": ("abstopk", {**TOP, "rescale_acts_by_decoder_norm": True}),
    "transcoder": ("transcoder", {}),
    "skip_transcoder": ("skip_transcoder", {}),
    "jumprelu_transcoder": ("jumprelu_transcoder", {}),
    "jumprelu_skip_transcoder": ("jumprelu_skip_transcoder", {}),
}
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")


def load(source, model, **options) -> Dictionaries:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dictionaries(source, model, **options)


def activations(rows: int = 40, width: int = WIDTH) -> torch.Tensor:
    return 2 * torch.randn(rows, width, generator=torch.Generator().manual_seed(3)) + 0.3


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-6))


def reconstruction(d, x: torch.Tensor) -> torch.Tensor:
    skip = d.skip(x)
    return d.features(x) @ d.W_dec + d.base(x) + (0 if skip is None else skip)


# --- every architecture ---


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_what_saelens_computes(zoo, tmp_path: Path, name: str, normalize: str) -> None:
    architecture, options = ARCHITECTURES[name]
    sae = make(architecture, normalize_activations=normalize, **options)
    sae.save_model(tmp_path / "sae")
    place = "transcoder_1" if "transcoder" in name else "resid_1"
    d = load({place: tmp_path / "sae"}, zoo("gpt2"))[place]
    x, y = activations(), activations() * 0.5 + 1
    target = y if "transcoder" in name else x
    with torch.no_grad():
        assert close(reconstruction(d, x), sae(x))
        assert close(d.error(x, target) + reconstruction(d, x), target)
        out_scale = d.base(x) if d.normalize is None else d.normalize(x).scale
        expected = sae.encode(x) * (out_scale if d.normalize is not None else 1)
        assert close(d.features(x), expected)
        assert 0 < (d.features(x) != 0).float().mean() < 1

    x = x.requires_grad_()
    encoded = sae.encode(x) * (1 if d.normalize is None else d.normalize(x).scale)
    rows, which = encoded.detach().nonzero(as_tuple=True)
    single = d.at(x[rows], which)
    assert close(single, encoded[rows, which])
    ours, theirs = (torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in (single, encoded))
    assert close(ours, theirs, 1e-4)
    whole = torch.autograd.grad(d.features(x).sum(), x)[0]
    assert close(whole, theirs, 1e-4)
    assert not any(t.requires_grad for t in (d.W_enc, d.b_enc, d.W_dec, d.b_dec))


def test_base_and_error_carry_the_derivative_of_the_normalisation(zoo) -> None:
    d = load({"resid_1": make("standard", normalize_activations="layer_norm")}, zoo("gpt2"))["resid_1"]
    x = activations(3).requires_grad_()
    total = d.features(x) @ d.W_dec + d.base(x) + d.error(x, x)
    weight = torch.randn(total.shape)
    assert close(torch.autograd.grad((total * weight).sum(), x)[0], weight)


@pytest.mark.parametrize("name", ["standard", "jumprelu", "topk", "transcoder"])
def test_weights_are_seen_and_not_copied(zoo, name: str) -> None:
    sae = make(*ARCHITECTURES[name][:1], **ARCHITECTURES[name][1])
    d = load({"transcoder_1" if name == "transcoder" else "resid_1": sae}, zoo("gpt2")).entries[0]
    assert d.sae is sae
    for ours, theirs in ((d.W_enc, sae.W_enc), (d.W_dec, sae.W_dec), (d.b_dec, sae.b_dec)):
        assert ours.data_ptr() == theirs.data_ptr()


def test_features_are_dense_where_the_object_returns_sparse_ones(zoo) -> None:
    sae = make("topk", **TOP)
    sae.activation_fn.use_sparse_activations = True
    d = load({"resid_1": sae}, zoo("gpt2"))["resid_1"]
    x = activations()
    assert close(d.features(x), sae.encode(x).to_dense().detach())
    assert sae.activation_fn.use_sparse_activations


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision(zoo, name: str) -> None:
    for normalize in NORMALIZATIONS:
        sae = make(ARCHITECTURES[name][0], normalize_activations=normalize, **ARCHITECTURES[name][1])
        place = "transcoder_1" if "transcoder" in name else "resid_1"
        d = load({place: sae}, zoo("gpt2", torch.bfloat16))[place]
        assert d.features(activations().bfloat16()).dtype == torch.bfloat16


TRAINING = {
    "standard": {},
    "gated": {},
    "jumprelu": {},
    "topk": TOP,
    "abstopk": TOP,
    "batchtopk": TOP,
    "matryoshka_batchtopk": {**TOP, "matryoshka_widths": [10, FEATURES]},
}


@pytest.mark.parametrize("architecture", TRAINING)
def test_an_object_in_training_is_what_it_would_be_saved_as(zoo, tmp_path: Path, architecture: str) -> None:
    config = {"architecture": architecture, "d_in": WIDTH, "d_sae": FEATURES, **TRAINING[architecture]}
    sae = randomized(sae_lens.TrainingSAE.from_dict(config))
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.4)
    before = copy.deepcopy(sae.state_dict())
    sae.save_inference_model(tmp_path / "sae")
    saved = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    x = activations()
    model = zoo("gpt2")
    for source in (sae, tmp_path / "sae"):
        assert close(reconstruction(load({"mlp_0": source}, model)["mlp_0"], x), saved(x).detach())
    assert all(torch.equal(sae.state_dict()[key], value) for key, value in before.items())


# --- heads ---


def test_a_dictionary_of_heads_reads_them_one_after_the_other(zoo, tmp_path: Path) -> None:
    hook = "blocks.2.attn.hook_z"
    sae = make("standard", reshape_activations="hook_z", metadata={"hook_name": hook})
    sae.save_model(tmp_path / "z")
    d = load(tmp_path / "z", zoo("gpt2"))[hook]
    assert d.site.name == "z_2"
    x = activations()
    with torch.no_grad():
        assert close(reconstruction(d, x), sae(x.unflatten(-1, (3, 8))).flatten(-2))
    untouched = make("standard", reshape_activations="hook_z", metadata={"hook_name": hook})
    load([untouched], zoo("gpt2"))
    assert not hasattr(untouched, "d_head")  # SAELens keeps the shape that it has seen first


# --- what is passed in stays as it is ---


def test_an_object_elsewhere_is_copied_and_never_changed(zoo) -> None:
    for dtype, model in ((torch.float32, zoo("gpt2")), (torch.bfloat16, zoo("gpt2", torch.bfloat16))):
        sae = make("jumprelu", normalize_activations="layer_norm").double()
        sae.dtype = torch.float64
        state, config = copy.deepcopy(sae.state_dict()), copy.deepcopy(sae.cfg.to_dict())
        keys = set(vars(sae))
        d = load({"resid_1": sae}, model)["resid_1"]
        assert {t.dtype for t in (d.W_enc, d.b_enc, d.W_dec, d.b_dec, d.sae.W_dec)} == {dtype}
        assert d.sae is not sae
        assert sae.cfg.to_dict() == config
        assert set(vars(sae)) == keys
        assert all(p.requires_grad for p in sae.parameters())
        assert all(torch.equal(sae.state_dict()[key], value) for key, value in state.items())


def test_another_dtype_on_request(zoo) -> None:
    d = load({"resid_1": make("standard", normalize_activations="layer_norm")}, zoo("gpt2"), dtype="bfloat16")[
        "resid_1"
    ]
    x = activations()
    assert d.features(x).dtype == torch.bfloat16
    assert close(d.error(x, x) + reconstruction(d, x).float(), x, 0.05)
    with pytest.raises(sc.InputError, match="expected float32"):
        load("neurons", zoo("gpt2"), dtype="float23")
    with pytest.raises(sc.InputError, match="there is no such device"):
        load("neurons", zoo("gpt2"), device="nowhere")
