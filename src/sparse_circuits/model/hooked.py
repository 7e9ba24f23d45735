"""HookedTransformer (TransformerLens 3) as an Anatomy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import MLP, Anatomy, Attention, Block
from sparse_circuits.model.norm import Norm

_NORMS = {
    "LN": "layer",
    "LayerNorm": "layer",
    "LayerNormPre": "layer",
    "RMSNorm": "rms",
    "RMSNormPre": "rms",
    "Identity": "none",
}

# Switches of HookedTransformerConfig that change the computation in a way that this file does not describe.
_REFUSED = {
    "use_normalization_before_and_after": "norms after attention and MLP",
    "use_attention_sinks": "attention sinks",
    "use_logn_attention_scaling": "log-n attention scaling",
    "use_dynamic_ntk_rope": "dynamic NTK rotary embeddings",
    "load_in_4bit": "4-bit weights",
    "num_experts": "a mixture of experts",
    "post_embedding_ln": "a norm after the embedding",
}
_POST_NORM = ("Olmo2ForCausalLM", "Olmo3ForCausalLM", "OlmoeForCausalLM")


def hooked_anatomy(model: Any) -> Anatomy:
    """The parts of a ``HookedTransformer``, with or without norms, MLPs, causal masks, rotary or learned positions.

    Raises:
        UnsupportedModelError: for a configuration with anything that the parts cannot express, by its name.
    """
    cfg = model.cfg
    for name, what in _REFUSED.items():
        if getattr(cfg, name, None):
            raise UnsupportedModelError(
                f"HookedTransformer with cfg.{name}={getattr(cfg, name)!r} ({what}) is not supported."
            )
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        raise UnsupportedModelError(
            f"HookedTransformer with cfg.positional_embedding_type={cfg.positional_embedding_type!r} is not supported; "
            "expected 'standard' or 'rotary'."
        )
    if cfg.original_architecture in _POST_NORM:
        raise UnsupportedModelError(
            f"{cfg.original_architecture} normalises after its blocks; load it as TransformerBridge."
        )
    embed = model.embed
    positions = (lambda n: model.pos_embed.W_pos[:n]) if cfg.positional_embedding_type == "standard" else None
    return Anatomy(
        embed=embed,
        positions=positions,
        blocks=tuple(_block(model, block, layer) for layer, block in enumerate(model.blocks)),
        final_norm=_norm(model.ln_final) if hasattr(model, "ln_final") else Norm("none"),
        unembed=_unembed(model),
        d_model=cfg.d_model,
        d_vocab=cfg.d_vocab,
        d_vocab_out=cfg.d_vocab_out,
        max_positions=cfg.n_ctx,
        dtype=model.embed.W_E.dtype,
        device=model.embed.W_E.device,
        unembed_device=model.unembed.W_U.device,
    )


def _unembed(model: Any) -> Any:
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0) or -1.0
    if cap <= 0:
        return model.unembed
    return lambda x: cap * torch.tanh(model.unembed(x) / cap)


def _norm(module: Any) -> Norm:
    kind = _NORMS.get(type(module).__name__)
    if kind is None:
        raise UnsupportedModelError(f"Unknown norm {type(module).__name__}; expected one of {sorted(_NORMS)}.")
    eps = float(getattr(module, "eps", 0.0))
    return Norm(kind, getattr(module, "w", None), getattr(module, "b", None), eps)  # pyright: ignore[reportArgumentType]


def _block(model: Any, block: Any, layer: int) -> Block:
    cfg, attn = model.cfg, block.attn
    grouped = hasattr(attn, "_W_K")
    cap = getattr(cfg, "attn_scores_soft_cap", -1.0) or -1.0
    attention = Attention(
        W_Q=attn.W_Q,
        W_K=attn._W_K if grouped else attn.W_K,
        W_V=attn._W_V if grouped else attn.W_V,
        W_O=attn.W_O,
        b_Q=attn.b_Q,
        b_K=attn._b_K if grouped else attn.b_K,
        b_V=attn._b_V if grouped else attn.b_V,
        b_O=attn.b_O,
        scale=1.0 / attn.attn_scale,
        rotate=attn.apply_rotary if cfg.positional_embedding_type == "rotary" else None,
        q_norm=attn.q_norm if cfg.use_qk_norm else None,
        k_norm=attn.k_norm if cfg.use_qk_norm else None,
        causal=cfg.attention_dir == "causal",
        window=cfg.window_size if attn.attn_type == "local" else None,
        softcap=cap if cap > 0 else None,
    )
    if cfg.attn_only:
        return Block(_norm(block.ln1), attention, None, None)
    return Block(_norm(block.ln1), attention, _norm(block.ln2), _mlp(cfg, block.mlp), bool(cfg.parallel_attn_mlp))


def _mlp(cfg: Any, mlp: Any) -> MLP:
    if getattr(cfg, "act_fn", "").endswith("_ln"):
        raise UnsupportedModelError(
            f"HookedTransformer with cfg.act_fn={cfg.act_fn!r} (a norm inside the MLP) is not supported."
        )

    def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: torch.nn.functional.linear(x, weight.T, bias)

    if not cfg.gated_mlp:
        return MLP(linear(mlp.W_in, mlp.b_in), mlp.act_fn, mlp.W_out, mlp.b_out)
    return MLP(
        linear(mlp.W_in, None), mlp.act_fn, mlp.W_out, mlp.b_out, gate=linear(mlp.W_gate, None), b_hidden=mlp.b_in
    )
