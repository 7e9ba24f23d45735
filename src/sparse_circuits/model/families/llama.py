"""Llama and its kin (Mistral, Qwen 2 and 3): rotary embedding, RMSNorm, gated MLP, grouped-query attention."""

from __future__ import annotations

from typing import Any

from sparse_circuits.model.family import Family, gated_mlp

_COMMON = frozenset(
    [
        "hidden_act",
        "rms_norm_eps",
        "max_position_embeddings",
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
        "attention_bias",
        "mlp_bias",
        "layer_types",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
    ]
)


def _rotary(hf_model: Any) -> Any:
    return hf_model.model.rotary_emb


def _by_layer_type(config: Any, layer: int) -> int | None:
    return config.sliding_window if config.layer_types[layer] == "sliding_attention" else None


LLAMA = Family(("llama",), _COMMON - {"sliding_window", "layer_types"}, "rms", gated_mlp, rotary=_rotary)
MISTRAL = Family(
    ("mistral",), _COMMON, "rms", gated_mlp, rotary=_rotary, window=lambda config, layer: getattr(config, "sliding_window", None)
)
QWEN2 = Family(("qwen2",), _COMMON, "rms", gated_mlp, rotary=_rotary, window=_by_layer_type)
QWEN3 = Family(("qwen3",), _COMMON, "rms", gated_mlp, rotary=_rotary, window=_by_layer_type, head_norms=True)
