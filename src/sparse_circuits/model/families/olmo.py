"""OLMo 1 and 2: Llama's layout with a LayerNorm without parameters; OLMo 2 norms behind attention and MLP, not before.

OLMo 2 also norms queries and keys, each over all heads together.
"""

from __future__ import annotations

from sparse_circuits.model.family import Family, NormNames
from sparse_circuits.model.modules import gated_mlp, halves

_COMMON = frozenset(["max_position_embeddings", "rope_parameters", "rope_theta", "rope_scaling", "attention_bias"])

OLMO = Family(
    ("olmo",),
    _COMMON | {"clip_qkv"},
    gated_mlp,
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
    clip=lambda config: config.clip_qkv,
)
OLMO2 = Family(
    ("olmo2",),
    _COMMON | {"rms_norm_eps"},
    gated_mlp,
    norms=NormNames(None, None, "post_attention_layernorm", "post_feedforward_layernorm"),
    rotary=lambda hf_model, layer: halves(hf_model.model.rotary_emb),
    head_norms=True,
    joint_norm=True,
)
