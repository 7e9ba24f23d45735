"""TransformerBridge (TransformerLens 3 and 4) as an Anatomy: what all families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import Anatomy, Attention, Block
from sparse_circuits.model.configuration import family_of
from sparse_circuits.model.family import Family
from sparse_circuits.model.modules import capped, norm_of, unwrapped
from sparse_circuits.model.norm import JointNorm, Norm


def bridge_anatomy(model: Any) -> Anatomy:
    """The parts of a ``TransformerBridge``, as its family declares them.

    Raises:
        UnsupportedModelError: for a family that no file declares, or a configuration field that it does not explain.
    """
    config: Any = getattr(model.original_model, "config", None)
    if not hasattr(config, "model_type"):
        raise UnsupportedModelError(
            f"This TransformerBridge holds a {type(model.original_model).__name__}, which is not a Hugging Face model of a "
            "family that the library knows."
        )
    family = family_of(config)
    table = family.positions
    return Anatomy(
        embed=model.embed,
        positions=None if table is None else (lambda n: table(model)[:n]),
        blocks=tuple(_block(model, block, layer, family) for layer, block in enumerate(model.blocks)),
        final_norm=norm_of(model.ln_final),
        unembed=capped(model.unembed, family.logit_softcap(config)),
        d_model=model.cfg.d_model,
        d_vocab=model.cfg.d_vocab,
        d_vocab_out=model.cfg.d_vocab,
        max_positions=family.max_positions(config),
        dtype=model.embed.weight.dtype,
        device=model.embed.weight.device,
        unembed_device=unwrapped(model.unembed).weight.device,
    )


def _block(model: Any, block: Any, layer: int, family: Family) -> Block:
    config, attn, names = model.original_model.config, block.attn, family.norms
    whole = unwrapped(block)

    def norm(name: str | None) -> Norm | None:
        return None if name is None else norm_of(getattr(whole, name))

    attention = Attention(
        W_Q=attn.W_Q,
        W_K=attn.W_K,
        W_V=attn.W_V,
        W_O=attn.W_O,
        b_Q=attn.b_Q,
        b_K=attn.b_K,
        b_V=attn.b_V,
        b_O=attn.b_O,
        scale=attn.W_Q.shape[-1] ** -0.5 if family.scale is None else family.scale(config, layer),
        rotate=None if family.rotary is None else family.rotary(model.original_model, layer),
        q_norm=_head_norm(attn.q_norm, family) if family.head_norms else None,
        k_norm=_head_norm(attn.k_norm, family) if family.head_norms else None,
        joint_norm=family.joint_norm,
        clip=family.clip(config),
        window=family.window(config, layer),
        softcap=family.attention_softcap(config),
    )
    return Block(
        attn_norm=norm(names.attn) or Norm("none"),
        attention=attention,
        mlp_norm=norm(names.mlp) or Norm("none"),
        mlp=replace(family.mlp(block.mlp), post_norm=norm(names.mlp_post)),
        parallel=family.parallel(config),
        attn_post_norm=norm(names.attn_post),
    )


def _head_norm(module: Any, family: Family) -> Callable[[Tensor], Tensor]:
    norm = norm_of(module)
    return JointNorm(norm) if family.joint_norm else norm
