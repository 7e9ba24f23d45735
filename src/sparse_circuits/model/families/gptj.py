"""GPT-J: rotary embedding with neighbouring dimensions paired, attention and MLP behind one LayerNorm, in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparse_circuits.model.family import Family, NormNames
from sparse_circuits.model.modules import interleaved, plain_mlp, unwrapped


def _rotary(hf_model: Any, layer: int) -> Callable[[Tensor], Tensor]:
    block = unwrapped(hf_model.transformer.h[layer])
    return interleaved(unwrapped(block.attn).embed_positions)


GPTJ = Family(
    model_types=("gptj",),
    explained=frozenset(
        [
            "n_embd",
            "n_head",
            "n_inner",
            "n_layer",
            "n_positions",
            "rotary_dim",
            "layer_norm_epsilon",
            "attn_pdrop",
            "embd_pdrop",
            "resid_pdrop",
            "rotary",
            "scale_attn_weights",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]
    ),
    activation="activation_function",
    norms=NormNames("ln_1", "ln_1"),
    mlp=plain_mlp("fc_in", "act", "fc_out"),
    rotary=_rotary,
    parallel=lambda config: True,
    max_positions=lambda config: config.n_positions,
)
