"""Hugging Face modules as parts: norms, MLPs, rotary embeddings. What is not known is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import MLP
from sparse_circuits.model.norm import Norm

# Elementwise functions that are 0 at 0, by the names that a configuration gives them.
ACTIVATIONS = (
    "gelu",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "leaky_relu",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "silu",
    "swish",
    "tanh",
)


@dataclass(frozen=True)
class _NormClass:
    """``offset``: the factor is 1 + weight; ``wide``: it is applied in float32; ``eps``, where the module has none."""

    kind: Literal["layer", "rms"]
    offset: bool = False
    wide: bool = False
    eps: float | None = None


_NORMS = {
    "LayerNorm": _NormClass("layer"),
    "OlmoLayerNorm": _NormClass("layer", eps=1e-5),
    "LlamaRMSNorm": _NormClass("rms"),
    "MistralRMSNorm": _NormClass("rms"),
    "Phi3RMSNorm": _NormClass("rms"),
    "Qwen2RMSNorm": _NormClass("rms"),
    "Qwen3RMSNorm": _NormClass("rms"),
    "Olmo2RMSNorm": _NormClass("rms", wide=True),
    "GemmaRMSNorm": _NormClass("rms", offset=True, wide=True),
    "Gemma2RMSNorm": _NormClass("rms", offset=True, wide=True),
    "Gemma3RMSNorm": _NormClass("rms", offset=True, wide=True),
}


def unwrapped(module: Any) -> Any:
    """The Hugging Face module inside a bridge's component, or the module itself."""
    return getattr(module, "original_component", module)


def norm_of(module: Any) -> Norm:
    """A norm module as a :class:`Norm`.

    Raises:
        UnsupportedModelError: for a class of norm that is not known.
    """
    module = unwrapped(module)
    if isinstance(module, torch.nn.Identity):
        return Norm("none")
    name = type(module).__name__
    known = _NORMS.get(name)
    if known is None:
        raise UnsupportedModelError(f"Norm {name} is not supported; expected one of {', '.join(_NORMS)}.")
    eps = next(
        e for e in (known.eps, getattr(module, "eps", None), getattr(module, "variance_epsilon", None)) if e is not None
    )
    weight = getattr(module, "weight", None)
    if weight is not None and known.wide:
        weight = weight.detach().float()
    if weight is not None and known.offset:
        weight = 1.0 + weight
    return Norm(known.kind, weight, getattr(module, "bias", None), float(eps))


def plain_mlp(up: str, act: str, down: str) -> Callable[[Any], MLP]:
    """An MLP without a gate, by the names of its modules."""

    def parts(mlp: Any) -> MLP:
        mlp = unwrapped(mlp)
        return MLP(getattr(mlp, up), _activation(getattr(mlp, act)), *_linear(getattr(mlp, down)))

    return parts


def gated_mlp(mlp: Any) -> MLP:
    """The gated MLP of Llama and those that followed it: ``down(act(gate(x)) * up(x))``."""
    mlp = unwrapped(mlp)
    return MLP(mlp.up_proj, _activation(mlp.act_fn), *_linear(mlp.down_proj), gate=mlp.gate_proj)


def split_mlp(mlp: Any) -> MLP:
    """A gated MLP whose gate and up projection share one matrix, which the bridge keeps apart."""
    return MLP(getattr(mlp, "in"), _activation(unwrapped(mlp).activation_fn), *_linear(mlp.out), gate=mlp.gate)


def halves(rotary: Any, *which: str) -> Callable[[Tensor], Tensor]:
    """Rotate the first dimensions of each head by a rotary module's cosines and sines, dimension i with i + half.

    Args:
        rotary: module of (a tensor for device and dtype, positions, ``*which``) to cosines and sines
            ``[1, pos, rotated]``.
    """

    def rotate(x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)[None]
        cos, sin = (table[:, :, None].to(x.device) for table in rotary(x, positions, *which))
        turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        first, second = turned.chunk(2, dim=-1)
        turned = (turned * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned

    return rotate


def interleaved(table: Tensor) -> Callable[[Tensor], Tensor]:
    """Rotate the first dimensions of each head, neighbours paired.

    Args:
        table: ``[pos, rotated]``, a sine for each pair of dimensions, then a cosine for each.
    """

    def rotate(x: Tensor) -> Tensor:
        sin, cos = table[: x.shape[1], None].to(x.device, x.dtype).chunk(2, dim=-1)
        turned, rest = x[..., : table.shape[-1]], x[..., table.shape[-1] :]
        even, odd = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned

    return rotate


def capped(unembed: Callable[[Tensor], Tensor], cap: float | None) -> Callable[[Tensor], Tensor]:
    """The unembedding with its logits softly capped: ``cap * tanh(logits / cap)``; as it is where ``cap`` is None."""
    return unembed if cap is None else lambda x: cap * torch.tanh(unembed(x) / cap)


def _linear(module: Any) -> tuple[Tensor, Tensor | None]:
    """Weight ``[in, out]`` and bias of a linear module, or of GPT-2's transposed kind."""
    transposed = type(unwrapped(module)).__name__ == "Conv1D"
    return (module.weight if transposed else module.weight.T), module.bias


def _activation(function: Any) -> Callable[[Tensor], Tensor]:
    if not isinstance(function, _activation_classes()):
        raise UnsupportedModelError(
            f"Activation {type(function).__name__} is not supported; expected one of {', '.join(ACTIVATIONS)}."
        )
    return function


@lru_cache
def _activation_classes() -> tuple[type, ...]:
    from transformers.activations import ACT2FN

    return tuple({type(ACT2FN[name]) for name in ACTIVATIONS})
