"""Llama and its kin (Mistral, Qwen 2 and 3): rotary embedding, RMSNorm, gated MLP, grouped-query attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparse_circuits.model.family import Family, window_by_layer_type
from sparse_circuits.model.modules import gated_mlp, halves

_COMMON = frozenset(
    [
        "rms_norm_eps",
        "max_position_embeddings",
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
        "attention_bias",
        "mlp_bias",
    ]
)
_QWEN = _COMMON | {"layer_types", "sliding_window", "use_sliding_window", "max_window_layers"}


def _rotary(hf_model: Any, layer: int) -> Callable[[Tensor], Tensor]:
    return halves(hf_model.model.rotary_emb)


LLAMA = Family(("llama",), _COMMON, gated_mlp, rotary=_rotary)
MISTRAL = Family(
    ("mistral",),
    _COMMON | {"sliding_window"},
    gated_mlp,
    rotary=_rotary,
    window=lambda config, layer: getattr(config, "sliding_window", None),
)
QWEN2 = Family(("qwen2",), _QWEN, gated_mlp, rotary=_rotary, window=window_by_layer_type)
QWEN3 = Family(("qwen3",), _QWEN, gated_mlp, rotary=_rotary, window=window_by_layer_type, head_norms=True)
