"""Gemma 1, 2 and 3 (text): scaled embedding, RMSNorm by 1 + weight; from Gemma 2 on, norms behind attention and MLP too.

Gemma 2 caps attention scores and logits; Gemma 3 norms queries and keys instead, and rotates by one table in its layers with
a sliding window and by another in the rest.
"""

from __future__ import annotations

from sparse_circuits.model.family import Family, NormNames, window_by_layer_type
from sparse_circuits.model.modules import gated_mlp, halves

_COMMON = frozenset(
    [
        "rms_norm_eps",
        "max_position_embeddings",
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
        "attention_bias",
    ]
)
_WITH_WINDOW = _COMMON | {"layer_types", "sliding_window", "query_pre_attn_scalar", "final_logit_softcapping"}
_POST_NORMS = NormNames(
    "input_layernorm", "pre_feedforward_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"
)
_CAUSAL = {"use_bidirectional_attention": (None, False)}

GEMMA = Family(
    ("gemma",),
    _COMMON,
    gated_mlp,
    # the older files' own name for the activation, which Hugging Face no longer reads
    required=_CAUSAL | {"hidden_activation": (None, "gelu_pytorch_tanh")},
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
)
GEMMA2 = Family(
    ("gemma2",),
    _WITH_WINDOW | {"attn_logit_softcapping", "cache_implementation"},
    gated_mlp,
    required=_CAUSAL | {"hidden_act": (None, "gelu_pytorch_tanh")},
    activation="hidden_activation",
    norms=_POST_NORMS,
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
    scale=lambda config, layer: config.query_pre_attn_scalar**-0.5,
    window=window_by_layer_type,
    attention_softcap=lambda config: config.attn_logit_softcapping,
    logit_softcap=lambda config: config.final_logit_softcapping,
)
GEMMA3 = Family(
    ("gemma3_text",),
    _WITH_WINDOW
    | {"rope_local_base_freq", "_sliding_window_pattern", "sliding_window_pattern", "cache_implementation"},
    gated_mlp,
    # Hugging Face's Gemma 3 has this field and ignores it
    required=_CAUSAL | {"attn_logit_softcapping": (None,)},
    activation="hidden_activation",
    norms=_POST_NORMS,
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb, hf_model.config.layer_types[layer]),
    head_norms=True,
    scale=lambda config, layer: config.query_pre_attn_scalar**-0.5,
    window=window_by_layer_type,
    logit_softcap=lambda config: config.final_logit_softcapping,
)
