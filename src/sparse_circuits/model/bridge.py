"""TransformerBridge (TransformerLens 3 and 4) as an Anatomy: what all families share.

A configuration with a field that its family does not explain is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import Anatomy, Attention, Block
from sparse_circuits.model.families import FAMILIES
from sparse_circuits.model.family import Family
from sparse_circuits.model.norm import Norm

# Fields of any Hugging Face configuration that do not change what the model computes in evaluation.
_BOOKKEEPING = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "tie_word_embeddings",
        "use_cache",
        "initializer_range",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "architectures",
        "model_type",
        "attention_dropout",
        "hidden_dropout",
        "pretraining_tp",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "id2label",
        "label2id",
        "problem_type",
        "chunk_size_feed_forward",
        "is_encoder_decoder",
        "is_decoder",
        "name_or_path",
        "_name_or_path",
        "task_specific_params",
    ]
)


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
    family = next((f for f in FAMILIES if config.model_type in f.model_types), None)
    if family is None:
        known = sorted(t for f in FAMILIES for t in f.model_types)
        raise UnsupportedModelError(
            f"Model family {config.model_type!r} is not supported; supported: {', '.join(known)}."
        )
    _refuse_unexplained(config, family)
    table = family.positions
    return Anatomy(
        embed=model.embed,
        positions=None if table is None else (lambda n: table(model)[:n]),
        blocks=tuple(_block(model, block, layer, family) for layer, block in enumerate(model.blocks)),
        final_norm=_norm(model.ln_final, family),
        unembed=model.unembed,
        d_model=model.cfg.d_model,
        d_vocab=model.cfg.d_vocab,
        d_vocab_out=model.cfg.d_vocab,
        max_positions=family.max_positions(config),
        dtype=model.embed.weight.dtype,
        device=model.embed.weight.device,
    )


def _refuse_unexplained(config: Any, family: Family) -> None:
    fields = config.to_dict()
    for name, value in fields.items():
        if name in family.required:
            if value not in family.required[name]:
                allowed = " or ".join(repr(v) for v in family.required[name])
                raise UnsupportedModelError(
                    f"{config.model_type} with {name}={value!r} is not supported; expected {allowed}."
                )
        elif name not in family.explained and name not in _BOOKKEEPING and value not in (None, False, 0, [], {}, ""):
            raise UnsupportedModelError(
                f"{config.model_type} with {name}={value!r}: the library cannot explain this configuration field, "
                "so it cannot be right about the model."
            )


def _norm(module: Any, family: Family) -> Norm:
    norm = module.original_component
    if isinstance(norm, torch.nn.Identity):
        return Norm("none")
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
    if eps is None:
        raise UnsupportedModelError(f"Norm {type(norm).__name__} has neither eps nor variance_epsilon.")
    return Norm(family.norm, norm.weight, getattr(norm, "bias", None), float(eps))  # pyright: ignore[reportArgumentType]


def _block(model: Any, block: Any, layer: int, family: Family) -> Block:
    config, attn = model.original_model.config, block.attn
    d_head = attn.W_Q.shape[-1]
    attention = Attention(
        W_Q=attn.W_Q,
        W_K=attn.W_K,
        W_V=attn.W_V,
        W_O=attn.W_O,
        b_Q=attn.b_Q,
        b_K=attn.b_K,
        b_V=attn.b_V,
        b_O=attn.b_O,
        scale=d_head**-0.5 if family.scale is None else family.scale(config, layer),
        rotate=None if family.rotary is None else _rotation(family.rotary(model.original_model)),
        q_norm=attn.q_norm.original_component if family.head_norms else None,
        k_norm=attn.k_norm.original_component if family.head_norms else None,
        window=family.window(config, layer),
    )
    mlp = family.mlp(block.mlp.original_component)
    return Block(_norm(block.ln1, family), attention, _norm(block.ln2, family), mlp, family.parallel(config))


def _rotation(rotary: Any) -> Callable[[Tensor], Tensor]:
    """Rotate the first dimensions of each head by the model's own cosines and sines, halves paired."""

    def rotate(x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)[None]
        cos, sin = (t[:, :, None, :] for t in rotary(x, positions))
        turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        first, second = turned.chunk(2, dim=-1)
        turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned

    return rotate
