"""GPT-NeoX and Pythia: partial rotary embedding, LayerNorm, attention and MLP usually in parallel."""

from sparse_circuits.model.family import Family
from sparse_circuits.model.modules import halves, plain_mlp

GPT_NEOX = Family(
    model_types=("gpt_neox",),
    explained=frozenset(
        [
            "layer_norm_eps",
            "max_position_embeddings",
            "rope_parameters",
            "rope_theta",
            "rope_scaling",
            "rotary_pct",
            "rotary_emb_base",
            "use_parallel_residual",
            "attention_bias",
            "classifier_dropout",
            "partial_rotary_factor",
        ]
    ),
    mlp=plain_mlp("dense_h_to_4h", "act", "dense_4h_to_h"),
    rotary=lambda hf_model, layer: halves(hf_model.gpt_neox.rotary_emb),
    parallel=lambda config: config.use_parallel_residual,
)
