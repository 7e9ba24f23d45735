"""What a model family declares under TransformerBridge.

A family is one small file in :mod:`sparse_circuits.model.families`: the ``model_type`` it handles, the configuration fields
it explains, and the few things that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import MLP


@dataclass(frozen=True)
class NormNames:
    """What a layer's norms are called in the Hugging Face module; None where there is none.

    ``attn`` and ``mlp`` stand in front of what they are named after (the same name twice: one norm, read by both),
    ``attn_post`` and ``mlp_post`` behind it, before the stream.
    """

    attn: str | None = "input_layernorm"
    mlp: str | None = "post_attention_layernorm"
    attn_post: str | None = None
    mlp_post: str | None = None


@dataclass(frozen=True)
class Family:
    """One model family under TransformerBridge.

    Attributes:
        model_types: values of the Hugging Face configuration's ``model_type``.
        explained: configuration fields that the family's parts account for, whatever their value.
        required: configuration fields that must have one of these values.
        activation: the configuration field that names the MLP's activation.
        norms: the layers' norms, by name.
        mlp: the bridge's MLP component to its parts; see :func:`~sparse_circuits.model.modules.gated_mlp`.
        positions: the bridge to the learned positional embedding's table ``[pos, d_model]``, or None.
        rotary: (Hugging Face model, layer) to the rotation of ``[batch, pos, heads, d_head]``, or None.
        head_norms: whether queries and keys are normed (``q_norm``, ``k_norm``); ``joint_norm``: over all heads at once.
        parallel: the configuration to whether attention and MLP read the same stream.
        scale: (configuration, layer) to the factor on attention scores; None for ``d_head ** -0.5``.
        window: (configuration, layer) to the sliding window, None for full attention.
        clip: the configuration to the bound on queries, keys and values, or None.
        attention_softcap, logit_softcap: the configuration to the soft cap on attention scores and on logits, or None.
        max_positions: the configuration to the longest prompt, None where there is no hard limit.
    """

    model_types: tuple[str, ...]
    explained: frozenset[str]
    mlp: Callable[[Any], MLP]
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    activation: str = "hidden_act"
    norms: NormNames = NormNames()
    positions: Callable[[Any], Tensor] | None = None
    rotary: Callable[[Any, int], Callable[[Tensor], Tensor]] | None = None
    head_norms: bool = False
    joint_norm: bool = False
    parallel: Callable[[Any], bool] = lambda config: False
    scale: Callable[[Any, int], float] | None = None
    window: Callable[[Any, int], int | None] = lambda config, layer: None
    clip: Callable[[Any], float | None] = lambda config: None
    attention_softcap: Callable[[Any], float | None] = lambda config: None
    logit_softcap: Callable[[Any], float | None] = lambda config: None
    max_positions: Callable[[Any], int | None] = lambda config: None


def window_by_layer_type(config: Any, layer: int) -> int | None:
    """The sliding window of a layer where the configuration lists the layers' kinds.

    Raises:
        UnsupportedModelError: for a kind of layer that is not known.
    """
    kind = config.layer_types[layer]
    if kind not in ("sliding_attention", "full_attention"):
        raise UnsupportedModelError(
            f"{config.model_type} with layer_types[{layer}]={kind!r} is not supported; "
            "expected 'sliding_attention' or 'full_attention'."
        )
    return config.sliding_window if kind == "sliding_attention" else None
