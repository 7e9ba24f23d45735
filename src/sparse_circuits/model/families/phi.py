"""Phi 1 to 2: partial rotary embedding, attention and MLP behind one LayerNorm, in parallel. Phi 3: Llama's layout."""

from __future__ import annotations

from sparse_circuits.model.family import Family, NormNames
from sparse_circuits.model.modules import halves, plain_mlp, split_mlp

_COMMON = frozenset(
    [
        "max_position_embeddings",
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
        "partial_rotary_factor",
        "embd_pdrop",
        "resid_pdrop",
    ]
)


PHI = Family(
    ("phi",),
    _COMMON | {"layer_norm_eps"},
    plain_mlp("fc1", "activation_fn", "fc2"),
    required={"qk_layernorm": (False,)},
    norms=NormNames("input_layernorm", "input_layernorm"),
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
    parallel=lambda config: True,
)
PHI3 = Family(
    ("phi3",),
    _COMMON | {"rms_norm_eps", "sliding_window", "original_max_position_embeddings", "attention_bias"},
    split_mlp,
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
    window=lambda config, layer: config.sliding_window,
)
