"""What a model family declares under TransformerBridge.

A family is one small file in :mod:`sparse_circuits.model.families`: the ``model_type`` it handles, the configuration fields
it explains, and the few things that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sparse_circuits.model.anatomy import MLP


@dataclass(frozen=True)
class Family:
    """One model family under TransformerBridge.

    Attributes:
        model_types: values of the Hugging Face configuration's ``model_type``.
        explained: configuration fields that the family's parts account for, whatever their value.
        required: configuration fields that must have one of these values.
        norm: "layer" or "rms".
        mlp: the Hugging Face MLP module to its parts; see :func:`plain_mlp` and :func:`gated_mlp`.
        positions: the bridge to the learned positional embedding's table ``[pos, d_model]``, or None.
        rotary: the Hugging Face model to its rotary module, or None; ``head_norms`` if queries and keys are normed.
        parallel: the configuration to whether attention and MLP read the same stream.
        scale: (configuration, layer) to the factor on attention scores; None for ``d_head ** -0.5``.
        window: (configuration, layer) to the sliding window, None for full attention.
        max_positions: the configuration to the longest prompt, None where there is no hard limit.
    """

    model_types: tuple[str, ...]
    explained: frozenset[str]
    norm: str
    mlp: Callable[[Any], MLP]
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    positions: Callable[[Any], Tensor] | None = None
    rotary: Callable[[Any], Any] | None = None
    head_norms: bool = False
    parallel: Callable[[Any], bool] = lambda config: False
    scale: Callable[[Any, int], float] | None = None
    window: Callable[[Any, int], int | None] = lambda config, layer: None
    max_positions: Callable[[Any], int | None] = lambda config: None


def plain_mlp(up: str, act: str, down: str) -> Callable[[Any], MLP]:
    """An MLP without a gate, by the names of its modules."""

    def parts(mlp: Any) -> MLP:
        return MLP(getattr(mlp, up), getattr(mlp, act), *_linear(getattr(mlp, down)))

    return parts


def gated_mlp(mlp: Any) -> MLP:
    """The gated MLP of Llama and those that followed it: ``down(act(gate(x)) * up(x))``."""
    return MLP(mlp.up_proj, mlp.act_fn, *_linear(mlp.down_proj), gate=mlp.gate_proj)


def _linear(module: Any) -> tuple[Tensor, Tensor | None]:
    """Weight ``[in, out]`` and bias of a linear module, or of GPT-2's transposed kind."""
    transposed = type(getattr(module, "original_component", module)).__name__ == "Conv1D"
    return (module.weight if transposed else module.weight.T), module.bias
