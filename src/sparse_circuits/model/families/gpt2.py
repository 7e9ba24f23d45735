"""GPT-2: learned positions, LayerNorm, attention then MLP."""

from __future__ import annotations

from typing import Any

from sparse_circuits.model.family import Family, NormNames
from sparse_circuits.model.modules import plain_mlp


def _scale(config: Any, layer: int) -> float:
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


GPT2 = Family(
    model_types=("gpt2",),
    explained=frozenset(
        [
            "n_ctx",
            "n_embd",
            "n_head",
            "n_inner",
            "n_layer",
            "n_positions",
            "layer_norm_epsilon",
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "reorder_and_upcast_attn",
            "attn_pdrop",
            "embd_pdrop",
            "resid_pdrop",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]
    ),
    required={"add_cross_attention": (False,)},
    activation="activation_function",
    norms=NormNames("ln_1", "ln_2"),
    mlp=plain_mlp("c_fc", "act", "c_proj"),
    positions=lambda bridge: bridge.pos_embed.weight,
    scale=_scale,
    max_positions=lambda config: config.n_positions,
)
