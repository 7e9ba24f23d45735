"""TransformerBridge (TransformerLens 3 and 4) as an Anatomy: what all families share.

A family is one small file that declares a :class:`Family`: the ``model_type`` it handles, the configuration fields it
explains, and the few things that differ. A configuration with a field that no family explains is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.anatomy import Anatomy, Attention, Block
from sparse_circuits.model.norm import Norm


@dataclass(frozen=True)
class Family:
    """One model family under TransformerBridge.

    Attributes:
        model_types: values of the Hugging Face configuration's ``model_type``.
        explained: configuration fields that the family's parts account for, whatever their value.
        required: configuration fields that must have one of these values.
        norm: "layer" or "rms".
        positions: the bridge to the learned positional embedding's table ``[pos, d_model]``, or None.
        rotary: the Hugging Face model to its rotary module, or None; ``head_norms`` if queries and keys are normed.
        parallel: the configuration to whether attention and MLP read the same stream.
        scale: (configuration, layer) to the factor on attention scores; None for ``d_head ** -0.5``.
        window: (configuration, layer) to the sliding window, None for full attention.
        max_positions: the configuration to the longest prompt, None where there is no hard limit.
    """

    model_types: tuple[str, ...]
    explained: frozenset[str]
    norm: str
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    positions: Callable[[Any], Tensor] | None = None
    rotary: Callable[[Any], Any] | None = None
    head_norms: bool = False
    parallel: Callable[[Any], bool] = lambda config: False
    scale: Callable[[Any, int], float] | None = None
    window: Callable[[Any, int], int | None] = lambda config, layer: None
    max_positions: Callable[[Any], int | None] = lambda config: None


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
    from sparse_circuits.model.families import FAMILIES

    config = model.original_model.config
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
    return Block(_norm(block.ln1, family), attention, _norm(block.ln2, family), block.mlp, family.parallel(config))


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
