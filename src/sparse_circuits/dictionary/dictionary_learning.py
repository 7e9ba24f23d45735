"""Dictionaries of the package dictionary_learning, as SAELens objects that compute the same."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.dictionary.saelens import quiet, require_saelens
from sparse_circuits.errors import InputError

State = dict[str, Tensor]
Settings = Mapping[str, Any]

_REFUSED = ("CrossCoder", "BatchTopKCrossCoder")
# where in a block a submodule's name says that a dictionary was trained: on a module's output, before any post-norm
_PARTS = {"attn": "attn.hook_out", "attention": "attn.hook_out", "mlp": "mlp.hook_out", "feed_forward": "mlp.hook_out"}


def is_one(obj: Any) -> bool:
    """Whether an object is of a class of dictionary_learning."""
    name = type(obj).__name__
    ours = name in _CLASSES or name in _REFUSED or name == "IdentityDict"
    return ours and not type(obj).__module__.startswith("sae_lens")


def parts(obj: Any) -> tuple[State, dict[str, Any]]:
    """An object's weights, and what a folder would say of it."""
    state = {name: tensor.detach().clone() for name, tensor in obj.state_dict().items()}
    settings: dict[str, Any] = {"dict_class": type(obj).__name__}
    for name in ("k", "apply_b_dec_to_input", "activation_dim"):
        if hasattr(obj, name):
            value = getattr(obj, name)
            settings[name] = value.item() if isinstance(value, Tensor) else value
    return state, {"trainer": settings}


def read_folder(folder: Path) -> tuple[State, dict[str, Any]]:
    """Weights and configuration of a folder with ae.pt and config.json; nothing but tensors is unpickled.

    Raises:
        InputError: if either is missing or damaged, or the weights are anything but tensors by name.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config["trainer"]["dict_class"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has an ae.pt, but no config.json beside it that names its class under trainer.dict_class."
        ) from error
    if name == "IdentityDict":
        return {}, config
    try:
        mapped = zipfile.is_zipfile(folder / "ae.pt")  # what is not needed in the end is then not read either
        state = torch.load(folder / "ae.pt", map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # PyTorch has many, by what is wrong with the file
        raise InputError(
            f"{folder / 'ae.pt'} is not a file of plain tensors, and nothing else is read; save the dictionary's state_dict()."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{folder / 'ae.pt'} holds no tensors by name; expected the state_dict() of a {name}.")
    return state, config


def outlined(state: State) -> State:
    """Weights as shapes only; single numbers as they are."""
    return {name: tensor if tensor.dim() == 0 else tensor.to("meta") for name, tensor in state.items()}


def converted(state: State, config: Mapping[str, Any]) -> tuple[dict[str, Any], State]:
    """Configuration and weights of the SAELens object that computes what a dictionary computes.

    Raises:
        InputError: for a class that is refused or unknown, or weights that are not of the class.
    """
    trainer: Settings = config["trainer"]
    name = str(trainer["dict_class"])
    if name in _REFUSED:
        raise InputError(f"A {name} reads and writes several layers or models at once; a feature here has one site.")
    if name == "IdentityDict":
        raise InputError(
            "An IdentityDict has no weights: load_dictionaries('neurons', model, sites=[...]) is the same."
        )
    if name not in _CLASSES:
        raise InputError(
            f"dictionary_learning's dict_class={name!r} is unknown; expected one of {', '.join(_CLASSES)} or IdentityDict."
        )
    try:
        architecture, options, weights = _CLASSES[name](state, trainer)
    except KeyError as error:
        raise InputError(f"The weights of a {name} lack {error}; there are {', '.join(state)}.") from error
    weights = {key: value.detach().float().contiguous() for key, value in weights.items()}
    if weights["W_enc"].dim() != 2:
        raise InputError(f"The weights of a {name} have W_enc of {weights['W_enc'].dim()} dimensions; expected 2.")
    d_in, d_sae = weights["W_enc"].shape
    saelens = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"model_name": trainer.get("lm_name"), "hook_name": _hook_name(config), "dict_class": name},
        **options,
    }
    return saelens, weights


def build(config: Mapping[str, Any], state: State) -> Any:
    """The SAELens object of :func:`converted`.

    Raises:
        InputError: if the weights do not fit together.
    """
    sae_lens = require_saelens()
    try:
        with quiet():
            sae = sae_lens.SAE.from_dict(dict(config))
        sae.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
        raise InputError(
            f"The weights of a {config['metadata']['dict_class']} do not fit together: {shapes}."
        ) from error
    return sae.requires_grad_(False).eval()


# --- classes: each gives SAELens's architecture, its options and its weights ---

_Converted = tuple[str, dict[str, Any], State]


def _linear(state: State, b_dec: str, bias: bool = True) -> State:
    weights = {"W_enc": state["encoder.weight"].T, "W_dec": state["decoder.weight"].T, "b_dec": state[b_dec]}
    return {**weights, "b_enc": state["encoder.bias"]} if bias else weights


def _plain(state: State) -> State:
    return {name: state[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def _scaled(weights: State) -> State:
    """With each decoder row's norm moved from the decoder to the feature, as these classes return their features."""
    norm = weights["W_dec"].norm(dim=1)
    moved = {name: weights[name] * norm for name in weights if name in ("b_enc", "threshold", "b_gate", "b_mag")}
    return {**weights, **moved, "W_enc": weights["W_enc"] * norm, "W_dec": weights["W_dec"] / norm[:, None]}


def _auto_encoder(state: State, trainer: Settings) -> _Converted:
    return "standard", {}, _linear(state, "bias")


def _auto_encoder_new(state: State, trainer: Settings) -> _Converted:
    return "standard", {"apply_b_dec_to_input": False}, _linear(state, "decoder.bias")


def _gated(state: State, trainer: Settings) -> _Converted:
    biases = {"r_mag": state["r_mag"], "b_gate": state["gate_bias"], "b_mag": state["mag_bias"]}
    return "gated", {}, _scaled({**_linear(state, "decoder_bias", bias=False), **biases})


def _jump(state: State, trainer: Settings) -> _Converted:
    options = {"apply_b_dec_to_input": bool(trainer.get("apply_b_dec_to_input", False))}
    return "jumprelu", options, _scaled({**_plain(state), "threshold": state["threshold"]})


def _top_k(state: State, trainer: Settings) -> _Converted:
    k = state["k"].item() if "k" in state else trainer["k"]  # older files keep it only in their configuration
    return "topk", {"k": int(k)}, _linear(state, "b_dec")


def _batch_top_k(state: State, trainer: Settings) -> _Converted:
    return "jumprelu", {}, _thresholded(_linear(state, "b_dec"), state)


def _matryoshka(state: State, trainer: Settings) -> _Converted:
    return "jumprelu", {}, _thresholded(_plain(state), state)


def _thresholded(weights: State, state: State) -> State:
    """With the one threshold that stands for the batch's top k outside of training; one below 0 was never set."""
    return {**weights, "threshold": state["threshold"].float().expand(weights["b_enc"].shape[0])}


_CLASSES: dict[str, Callable[[State, Settings], _Converted]] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _auto_encoder_new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jump,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


# --- where it was trained ---


def _hook_name(config: Mapping[str, Any]) -> str | None:
    """The hook name of what a dictionary was trained on, from its submodule's name; None where that does not say.

    Names in use: ``resid_post_layer_8``, ``attn_out_layer3``, ``mlp_out_layer3``, ``embed``, and the path of a module,
    ``gpt_neox.layers.3`` or ``model.layers.3.mlp``.
    """
    name = str(config["trainer"].get("submodule_name") or "")
    buffer = config.get("buffer")
    io = buffer.get("io", "out") if isinstance(buffer, Mapping) else "out"
    if io != "out" and "_out" not in name:
        return None  # a module's input, or both ends: not told by a name
    if re.search(r"(^|[._])(wte|embed\w*)$", name):
        return "hook_embed"
    numbered = re.search(r"(?:layers?_?|layers\.|\bh\.|blocks\.)(\d+)", name)
    if numbered is None:
        return None
    rest = name.replace(numbered[0], " ")
    part = next((hook for word, hook in _PARTS.items() if word in rest), None)
    if part is None:
        if "pre" in rest:
            part = "hook_resid_pre"
        elif "mid" in rest:
            part = "hook_resid_mid"
        else:
            part = "hook_resid_post"
    return f"blocks.{numbered[1]}.{part}"
