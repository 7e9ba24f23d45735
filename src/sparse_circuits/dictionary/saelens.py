"""SAELens objects as dictionaries: what each of its architectures computes, on the object's own weights."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary, Normalized
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Site

# architectures of SAELens that are no feed-forward map of one position, and why they are refused
_NOT_FEED_FORWARD = {
    "temporal": "its encoder attends to earlier positions, so that a feature has no direction of its own",
    "matching_pursuit": "its encoder picks features one after the other, so that none has a direction of its own",
}
_TRAINING = ("batchtopk", "matryoshka_batchtopk")


class _Encoder(NamedTuple):
    """Directions ``[d_in, F]`` and offsets ``[F]`` of features that fire, decoder rows ``[F, d_out]``, and the code."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    code: Callable[[Tensor], Tensor]


def require_saelens() -> Any:
    """The package ``sae_lens``.

    Raises:
        InputError: if it is not installed, or the TransformerLens beside it is not one that it works with.
    """
    try:
        import sae_lens
        from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer  # noqa: F401
    except ImportError as error:
        from importlib.metadata import version

        raise InputError(
            "Dictionaries other than 'neurons', and splicing, use SAELens, which could not be imported. SAELens 6 needs "
            f"TransformerLens 3, and version {version('transformer-lens')} is installed; in an environment for it, run "
            "pip install 'sae-lens>=6.54,<7' 'transformer-lens>=3.9,<4'."
        ) from error
    return sae_lens


def refuse_architecture(architecture: str, name: str) -> None:
    """Raises InputError for an architecture of which features have no direction, or that is unknown."""
    if architecture in _ENCODERS:
        return
    if architecture in _NOT_FEED_FORWARD:
        raise InputError(f"{name} is a {architecture} dictionary: {_NOT_FEED_FORWARD[architecture]}.")
    if architecture in _TRAINING:
        raise InputError(
            f"{name} is saved as {architecture}, the form for training, where features of one position depend on the "
            "others in the batch; save it with sae.save_inference_model(folder) and load that."
        )
    if "cross" in architecture or "clt" in architecture:
        raise InputError(
            f"{name} is a {architecture}, whose features write to several layers; a feature here has one site."
        )
    raise InputError(
        f"{name} has architecture={architecture!r}, which is unknown; expected one of {', '.join(_ENCODERS)}."
    )


def is_transcoder(architecture: str) -> bool:
    return architecture.endswith("transcoder")


def wrap(sae: Any, site: Site, id: str, hook_name: str, hook_name_out: str) -> Dictionary:
    """A SAELens object for inference as a dictionary; its weights are seen, not copied, where it keeps them folded.

    Raises:
        InputError: for an architecture or a normalisation that is not a feed-forward map of one position.
    """
    architecture = sae.cfg.architecture()
    refuse_architecture(architecture, id)
    encoder = _ENCODERS[architecture](sae)
    skip = getattr(sae, "W_skip", None)
    return Dictionary(
        site=site,
        id=id,
        hook_name=hook_name,
        hook_name_out=hook_name_out,
        W_enc=encoder.W_enc,
        b_enc=encoder.b_enc,
        W_dec=encoder.W_dec,
        b_dec=sae.b_dec.detach(),
        code=encoder.code,
        normalize=_normalization(sae.cfg.normalize_activations, id, is_transcoder(architecture)),
        W_skip=None if skip is None else skip.detach(),
        sae=sae,
    )


# --- architectures ---


def _projection(sae: Any) -> tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]:
    """W_enc, what is subtracted from the input, and the product of both with an input."""
    weight, subtracted = sae.W_enc.detach(), sae.b_dec.detach() if sae.cfg.apply_b_dec_to_input else None

    def project(x: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        return (x if subtracted is None else x - subtracted) @ weight

    return weight, subtracted, project


def _offset(bias: Tensor, subtracted: Tensor | None, weight: Tensor) -> Tensor:
    """c of ``<u, x> + c``, from the bias of what has b_dec subtracted first."""
    return bias if subtracted is None else bias - subtracted @ weight


def _rectified(sae: Any) -> _Encoder:
    weight, subtracted, project = _projection(sae)
    bias, act = sae.b_enc.detach(), sae.activation_fn
    return _Encoder(weight, _offset(bias, subtracted, weight), sae.W_dec.detach(), lambda x: act(project(x) + bias))


def _jump(sae: Any) -> _Encoder:
    weight, subtracted, project = _projection(sae)
    bias, threshold, act = sae.b_enc.detach(), sae.threshold.detach(), sae.activation_fn

    def code(x: Tensor) -> Tensor:
        hidden = project(x) + bias
        return act(hidden) * (hidden > threshold)

    return _Encoder(weight, _offset(bias, subtracted, weight), sae.W_dec.detach(), code)


def _gated(sae: Any) -> _Encoder:
    weight, subtracted, project = _projection(sae)
    gate, magnitude, act = sae.b_gate.detach(), sae.b_mag.detach(), sae.activation_fn
    growth = sae.r_mag.detach().exp()

    def code(x: Tensor) -> Tensor:
        hidden = project(x)
        return act(hidden * growth + magnitude) * (hidden + gate > 0)

    grown = weight * growth
    return _Encoder(grown, _offset(magnitude, subtracted, grown), sae.W_dec.detach(), code)


def _top(sae: Any) -> _Encoder:
    """The k largest, or the k largest in magnitude; dense whatever the object's own activation function returns."""
    weight, subtracted, project = _projection(sae)
    bias, decoder, k = sae.b_enc.detach(), sae.W_dec.detach(), sae.cfg.k
    signed = sae.cfg.architecture() == "abstopk"
    norm = decoder.norm(dim=-1) if sae.cfg.rescale_acts_by_decoder_norm else None

    def code(x: Tensor) -> Tensor:
        hidden = project(x) + bias
        if norm is not None:
            hidden = hidden * norm
        kept = (hidden.abs() if signed else hidden).topk(k, dim=-1, sorted=False).indices
        values = hidden.gather(-1, kept)
        return torch.zeros_like(hidden).scatter(-1, kept, values if signed else values.relu())

    offset = _offset(bias, subtracted, weight)
    if norm is None:
        return _Encoder(weight, offset, decoder, code)
    return _Encoder(weight * norm, offset * norm, decoder / norm[:, None], code)


_ENCODERS: dict[str, Callable[[Any], _Encoder]] = {
    "standard": _rectified,
    "gated": _gated,
    "jumprelu": _jump,
    "topk": _top,
    "abstopk": _top,
    "transcoder": _rectified,
    "skip_transcoder": _rectified,
    "jumprelu_transcoder": _jump,
    "jumprelu_skip_transcoder": _jump,
}


# --- normalisation at run time ---


def _normalization(kind: str, id: str, transcodes: bool) -> Callable[[Tensor], Normalized] | None:
    """n of a dictionary: SAELens's, with what it keeps for the way out returned instead of stored.

    A transcoder normalises what it reads, and leaves what it writes as it is: scale 1 and no shift.
    """
    if kind in ("none", "expected_average_only_in"):
        return None  # the latter's factor is folded into the weights, or unknown: SAELens does nothing at run time
    if kind not in _NORMALIZATIONS:
        raise InputError(
            f"{id} has normalize_activations={kind!r}, whose statistics are not part of it: fold them into its weights "
            "(sae.fold_activation_whitening(...)), save and load that."
            if kind == "covariance_whitening"
            else f"{id} has normalize_activations={kind!r}, which is unknown; expected none, "
            f"expected_average_only_in, {', '.join(_NORMALIZATIONS)}."
        )
    normalize = _NORMALIZATIONS[kind]
    if not transcodes:
        return normalize

    def read_only(x: Tensor) -> Normalized:
        normed, scale, _ = normalize(x)
        return Normalized(normed, torch.ones_like(scale), None)

    return read_only


def _constant_norm(x: Tensor) -> Normalized:
    # in SAELens's own order of operations, so that no feature falls on the other side of its threshold
    norm, root = x.norm(dim=-1, keepdim=True), x.shape[-1] ** 0.5
    return Normalized(x * (root / norm), norm / root, None)


def _layer_norm(x: Tensor, eps: float = 1e-5) -> Normalized:
    mean = x.mean(dim=-1, keepdim=True)
    centred = x - mean
    std = centred.std(dim=-1, keepdim=True)
    return Normalized(centred / (std + eps), std, mean)


_NORMALIZATIONS: dict[str, Callable[[Tensor], Normalized]] = {
    "constant_norm_rescale": _constant_norm,
    "layer_norm": _layer_norm,
}


# --- objects ---


def for_inference(sae: Any) -> Any:
    """What SAELens would save of an object in training, as an object; one that is for inference already, as it is."""
    from sae_lens.saes.sae import SAE, TrainingSAE

    if not isinstance(sae, TrainingSAE):
        return sae
    config = sae.cfg.get_inference_sae_cfg_dict()
    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    with torch.no_grad():
        sae.process_state_dict_for_saving_inference(state)
    config = {**config, "metadata": dict(_as_dict(config["metadata"]))}
    with quiet():
        made = SAE.from_dict(config)
    made.process_state_dict_for_loading(state)
    made.load_state_dict(state)
    return made.requires_grad_(False)


def placed(sae: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The object where it is on a device in a dtype; otherwise another one with its weights there."""
    if sae.W_dec.device == device and sae.W_dec.dtype == dtype:
        return sae
    return twin(sae, device, dtype)


def twin(sae: Any, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
    """A second object on the same weights, or on copies elsewhere, without the first one's hooks and state.

    Copying the object itself would not do: SAELens's objects hold functions that are bound to the first.
    """
    device, dtype = device or sae.W_dec.device, dtype or sae.W_dec.dtype
    config = copy.deepcopy(sae.cfg)
    config.device, config.dtype = "meta", str(dtype).removeprefix("torch.")
    with quiet():
        second = type(sae)(config)
    second.load_state_dict({k: v.to(device=device, dtype=dtype) for k, v in sae.state_dict().items()}, assign=True)
    second.cfg.device, second.device = str(device), device
    return second.requires_grad_(False).eval()


def fingerprint(sae: Any) -> str:
    """Eight hexadecimal digits from a sample of an object's weights: the same on any device."""
    weights = sae.W_dec.detach().flatten()
    sample = weights[:: max(1, weights.numel() // 1024)].float().cpu().contiguous()
    return hashlib.sha256(sample.numpy().tobytes()).hexdigest()[:8]


def config_of(sae: Any) -> dict[str, Any]:
    """An object's configuration as SAELens would save it."""
    config = sae.cfg.to_dict()
    return {**config, "metadata": dict(_as_dict(config["metadata"]))}


def _as_dict(metadata: Any) -> dict[str, Any]:
    return metadata if isinstance(metadata, dict) else metadata.to_dict()


def quiet() -> warnings.catch_warnings:
    """Without what SAELens warns of when an object is made: how its model was loaded is checked on the model at hand."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
