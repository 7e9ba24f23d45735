"""dictionary_learning's classes, as its documentation writes them down, against what is loaded from its folders."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import sparse_circuits as sc
from sparse_circuits.dictionary import load_dictionaries
from sparse_circuits.dictionary.dictionary_learning import _hook_name

pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")

WIDTH, FEATURES, K = 24, 50, 7


class AutoEncoder(nn.Module):
    """f = relu(E (x - bias) + b), x' = D f + bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.encoder, self.decoder = nn.Linear(WIDTH, FEATURES), nn.Linear(FEATURES, WIDTH, bias=False)

    def encode(self, x):
        return self.encoder(x - self.bias).relu()

    def decode(self, f):
        return self.decoder(f) + self.bias


class AutoEncoderNew(nn.Module):
    """f = relu(E x + b), x' = D f + d."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(WIDTH, FEATURES), nn.Linear(FEATURES, WIDTH)

    def encode(self, x):
        return self.encoder(x).relu()

    def decode(self, f):
        return self.decoder(f)


class GatedAutoEncoder(nn.Module):
    """Gate and magnitude share E (x - b); features are scaled by the norms of the decoder's columns."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder_bias = nn.Parameter(torch.zeros(WIDTH))
        self.encoder, self.decoder = (
            nn.Linear(WIDTH, FEATURES, bias=False),
            nn.Linear(FEATURES, WIDTH, bias=False),
        )
        for name in ("r_mag", "gate_bias", "mag_bias"):
            setattr(self, name, nn.Parameter(torch.zeros(FEATURES)))

    def encode(self, x):
        shared = self.encoder(x - self.decoder_bias)
        magnitude = (self.r_mag.exp() * shared + self.mag_bias).relu()
        return (shared + self.gate_bias > 0) * magnitude * self.decoder.weight.norm(dim=0)

    def decode(self, f):
        return self.decoder(f / self.decoder.weight.norm(dim=0)) + self.decoder_bias


class JumpReluAutoEncoder(nn.Module):
    """f = h where h = x E + b exceeds its threshold; scaled by the norms of the decoder's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.W_enc, self.W_dec = (
            nn.Parameter(torch.zeros(WIDTH, FEATURES)),
            nn.Parameter(torch.zeros(FEATURES, WIDTH)),
        )
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(FEATURES)), nn.Parameter(torch.zeros(WIDTH))
        self.threshold = nn.Parameter(torch.zeros(FEATURES))
        self.apply_b_dec_to_input = False

    def encode(self, x):
        hidden = x @ self.W_enc + self.b_enc
        return (hidden * (hidden > self.threshold)).relu() * self.W_dec.norm(dim=1)

    def decode(self, f):
        return (f / self.W_dec.norm(dim=1)) @ self.W_dec + self.b_dec


class AutoEncoderTopK(nn.Module):
    """The k largest of relu(E (x - b) + c) in every row."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(WIDTH, FEATURES), nn.Linear(FEATURES, WIDTH, bias=False)
        self.b_dec = nn.Parameter(torch.zeros(WIDTH))
        self.register_buffer("k", torch.tensor(K, dtype=torch.int))
        self.register_buffer("threshold", torch.tensor(0.5))

    def encode(self, x):
        hidden = self.encoder(x - self.b_dec).relu()
        return hidden * (hidden >= hidden.topk(K).values[..., -1:])

    def decode(self, f):
        return self.decoder(f) + self.b_dec


class BatchTopKSAE(AutoEncoderTopK):
    """Outside of training, one threshold for all features."""

    def encode(self, x):
        hidden = self.encoder(x - self.b_dec).relu()
        return hidden * (hidden > self.threshold)


class MatryoshkaBatchTopKSAE(nn.Module):
    """The same with the weights as plain matrices, and groups that only training tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.W_enc, self.W_dec = (
            nn.Parameter(torch.zeros(WIDTH, FEATURES)),
            nn.Parameter(torch.zeros(FEATURES, WIDTH)),
        )
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(FEATURES)), nn.Parameter(torch.zeros(WIDTH))
        self.register_buffer("k", torch.tensor(K, dtype=torch.int))
        self.register_buffer("threshold", torch.tensor(0.5))
        self.register_buffer("group_sizes", torch.tensor([10, FEATURES - 10]))

    def encode(self, x):
        hidden = ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()
        return hidden * (hidden > self.threshold)

    def decode(self, f):
        return f @ self.W_dec + self.b_dec


CLASSES = (
    AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK, BatchTopKSAE,
    MatryoshkaBatchTopKSAE,
)  # fmt: skip


def randomized(cls: type):
    torch.manual_seed(0)
    made = cls()
    for name, parameter in made.named_parameters():
        nn.init.normal_(parameter, std=0.3)
        if name == "threshold":
            parameter.data.abs_()
    return made


def save(made, folder: Path, submodule: str = "resid_post_layer_1", **trainer) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(made.state_dict(), folder / "ae.pt")
    settings = {
        "dict_class": type(made).__name__, "activation_dim": WIDTH, "dict_size": FEATURES, "layer": 1, "lm_name": "gpt2",
        "submodule_name": submodule, "k": K, **trainer,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": settings, "buffer": {"io": "out", "ctx_len": 128}}))
    return folder


def load(source, model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dictionaries(source, model, **options)


@pytest.mark.parametrize("as_object", [False, True], ids=["folder", "object"])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_is_what_it_says(zoo, tmp_path: Path, cls: type, as_object: bool) -> None:
    made = randomized(cls)
    source = {"resid_1": made} if as_object else save(made, tmp_path)
    d = load(source, zoo("gpt2"))["resid_1"]
    x = 2 * torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoded = made.encode(x)
        assert 0 < (encoded != 0).float().mean() < 1
        assert torch.allclose(d.features(x), encoded, rtol=1e-4, atol=1e-5)
        assert torch.allclose(d.features(x) @ d.W_dec + d.base(x), made.decode(encoded), rtol=1e-4, atol=1e-4)
    assert (d.hook_name, d.n_features) == ("blocks.1.hook_resid_post", FEATURES)


def test_a_folder_of_folders_by_submodule(zoo, tmp_path: Path) -> None:
    for name in ("attn_out_layer0", "mlp_out_layer0", "resid_out_layer0"):
        save(randomized(AutoEncoder), tmp_path / name / "10_50", submodule=name)
    saes = load(tmp_path, zoo("gpt2"))
    assert list(saes) == ["attn_0", "mlp_0", "resid_0"]
    assert saes.ids["mlp_0"] == f"{tmp_path}/mlp_out_layer0/10_50"
    assert saes["mlp_0"].hook_name == "blocks.0.hook_mlp_out"
    with pytest.raises(sc.InputError, match="before the norm of what joins the stream"):
        load(tmp_path / "mlp_out_layer0", zoo("gemma2"))


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("resid_post_layer_8", "blocks.8.hook_resid_post"),
        ("resid_pre_layer_8", "blocks.8.hook_resid_pre"),
        ("attn_out_layer12", "blocks.12.attn.hook_out"),
        ("mlp_out_layer3", "blocks.3.mlp.hook_out"),
        ("gpt_neox.layers.3", "blocks.3.hook_resid_post"),
        ("model.layers.10.mlp", "blocks.10.mlp.hook_out"),
        ("transformer.h.0.attn", "blocks.0.attn.hook_out"),
        ("gpt_neox.layers.3.attention", "blocks.3.attn.hook_out"),
        ("gpt_neox.embed_in", "hook_embed"),
        ("embed", "hook_embed"),
        ("unknown submodule", None),
        (None, None),
    ],
)
def test_where_a_submodule_is(name: str | None, hook: str | None) -> None:
    assert _hook_name({"trainer": {"submodule_name": name}}) == hook


def test_an_input_is_not_taken_for_an_output() -> None:
    assert _hook_name({"trainer": {"submodule_name": "model.layers.1.mlp"}, "buffer": {"io": "in"}}) is None


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("never-touched"),))


def test_nothing_but_tensors_is_unpickled(zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save(randomized(AutoEncoder), tmp_path / "sae")
    for damage in (lambda p: torch.save({"bias": Malicious()}, p), lambda p: p.write_bytes(pickle.dumps(Malicious()))):
        damage(folder / "ae.pt")
        with pytest.raises(sc.InputError, match="not a file of plain tensors, and nothing else is read"):
            load(folder, zoo("gpt2"))
    assert not Path("never-touched").exists()
    torch.save([1, 2], folder / "ae.pt")
    with pytest.raises(sc.InputError, match=r"holds no tensors by name; expected the state_dict\(\) of a AutoEncoder"):
        load(folder, zoo("gpt2"))


def test_what_is_refused_says_why(zoo, tmp_path: Path) -> None:
    made, model = randomized(AutoEncoder), zoo("gpt2")
    for name, message in (
        ("CrossCoder", "reads and writes several layers"),
        ("HexagonalEncoder", "dict_class='HexagonalEncoder' is unknown; expected one of AutoEncoder"),
        ("IdentityDict", "load_dictionaries\\('neurons'"),
        ("AutoEncoderTopK", "weights of a AutoEncoderTopK lack 'b_dec'; there are bias, encoder.weight"),
    ):
        with pytest.raises(sc.InputError, match=message):
            load(save(made, tmp_path / name, dict_class=name), model)
    with pytest.raises(sc.InputError, match="does not say where it was trained"):
        load(save(made, tmp_path / "nowhere", submodule="unknown submodule"), model)
    assert list(load({"mlp_2": tmp_path / "nowhere"}, model)) == ["mlp_2"]
    (tmp_path / "nowhere" / "config.json").unlink()
    with pytest.raises(sc.InputError, match=r"no config\.json beside it that names its class"):
        load(tmp_path / "nowhere", model)
