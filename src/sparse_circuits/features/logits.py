"""What a direction does to the logits by itself: the tokens it promotes and suppresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.features.nodes import dictionaries_of, names_in, probes_for
from sparse_circuits.features.store import check_whole
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.norm import Norm
from sparse_circuits.task.tokens import token_text

Tokens = tuple[tuple[str, float], ...]
# logits, and weights of the unembedding in float32, that are held at a time
_ELEMENTS = 1 << 24


def promoted(model: Any, nodes: Any, k: int = 10, *, dictionaries: Any = None) -> dict[str, tuple[Tokens, Tokens]]:
    """The tokens whose logits a feature or neuron raises most, and those that it lowers most, on the direct way.

    >>> up, down = sc.promoted(model, "resid_3.f217", dictionaries=saes)["resid_3.f217"]

    With d what one unit of it writes into the stream (its decoder direction; through W_O at ``z``), the effect on the logits is
    ``W_U^T (w * C d)``: C removes the mean where the final norm is a LayerNorm, and w is that norm's weight. It is what one
    unit adds to the logits for a stream whose size the final norm leaves as it is; at another one all effects are
    multiplied by the norm's own factor r, which changes no order. The mean over the vocabulary is taken off, as it
    changes no probability: above 0 a token is promoted, below it suppressed.

    What later layers make of the feature is not in it, and in early layers that is most of what it does. Behind a post-norm
    (heads' dimensions, z) the norm's weight is applied and its factor left out. Cost: no pass; one product with W_U.

    Args:
        nodes: as in :func:`collect_contexts`; heads (``"a1.h3"``) have no one direction, see :func:`head_report`.
        k: how many tokens of each kind.

    Returns:
        By name, promoted and suppressed tokens with their effects, strongest first.

    Raises:
        InputError: for a name without a dictionary, no node with a direction, or a k that is no number of tokens.
    """
    check_whole("k", k, 0)
    anatomy = anatomy_of(model)
    names, _ = names_in(nodes)
    named = [name for name in names if not re.fullmatch(r"a\d+\.h\d+", name)]
    if not named:
        raise InputError(
            f"{names[0]} is a head, which writes in many directions; use head_report(model, task, {names[0]!r})."
        )
    known = dictionaries_of(nodes, dictionaries)
    probes_for(anatomy, named, known)
    written = directions(anatomy, named, known)
    found: dict[str, tuple[Tokens, Tokens]] = {}
    size = max(1, _ELEMENTS // anatomy.d_vocab_out)
    for start in range(0, len(named), size):
        effects = logit_effects(anatomy, model.unembed.W_U, written[start : start + size])
        pairs = strongest(effects, k, getattr(model, "tokenizer", None))
        found |= dict(zip(named[start : start + size], pairs, strict=True))
    return found


def directions(anatomy: Anatomy, names: Iterable[str], dictionaries: Mapping[str, Dictionary]) -> Tensor:
    """What one unit of each writes into the stream: float32 ``[names, d_model]``, on the unembedding's device."""
    rows = []
    for name in names:
        site, _, part = name.partition(".")
        if part.startswith("f"):
            dictionary = dictionaries[site]
            row = dictionary.W_dec[int(part[1:])].detach().float()
            if dictionary.site.kind == "z":
                row = _through_heads(anatomy, dictionary.site.layer, row)
        elif site.startswith("m"):
            block = anatomy.blocks[int(site[1:])]
            mlp = block.mlp
            if mlp is None:
                raise InputError(f"Layer {site[1:]} has no MLP.")
            row = weighted(mlp.post_norm, mlp.W_out[int(part[1:])].detach().float())
        else:
            layer = int(site[1:])
            head, dim = (int(piece[1:]) for piece in part.split("."))
            W_O = anatomy.blocks[layer].attention.W_O
            row = weighted(anatomy.blocks[layer].attn_post_norm, W_O[head, dim].detach().float())
        rows.append(row.to(anatomy.unembed_device))
    return torch.stack(rows)


def units_of(anatomy: Anatomy, layer: str) -> tuple[list[str], Tensor]:
    """All neurons of an MLP ("m2") or dimensions of a layer's heads ("a1"), and what one unit of each writes into the stream."""
    block = anatomy.blocks[int(layer[1:])]
    if layer.startswith("m") and block.mlp is not None:
        rows, norm = block.mlp.W_out, block.mlp.post_norm
        names = [f"{layer}.n{i}" for i in range(len(rows))]
    else:
        W_O, norm = block.attention.W_O, block.attn_post_norm
        rows = W_O.flatten(0, 1)
        names = [f"{layer}.h{head}.n{i}" for head in range(W_O.shape[0]) for i in range(W_O.shape[1])]
    return names, weighted(norm, rows.detach().float())


def _through_heads(anatomy: Anatomy, layer: int, z: Tensor) -> Tensor:
    block = anatomy.blocks[layer]
    written = z.to(block.device) @ block.attention.W_O.detach().float().flatten(0, 1)
    return weighted(block.attn_post_norm, written)


def weighted(norm: Norm | None, x: Tensor) -> Tensor:
    """``w * C x``: a norm's linear part without its factor r."""
    if norm is None or norm.kind == "none":
        return x
    if norm.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x if norm.weight is None else x * norm.weight.detach().float().to(x.device)


@torch.no_grad()
def logit_effects(anatomy: Anatomy, W_U: Tensor, written: Tensor) -> Tensor:
    """What vectors added to the stream add to the logits, for r = 1 and less the mean over the vocabulary.

    The products are float32 ones in any model: beside the logits' bias, small differences of them would be rounded away.
    A cap on the logits is the identity to first order around 0, and left out.

    Args:
        W_U: the unembedding's weight, ``[d_model, vocabulary]``.
        written: float32 ``[..., d_model]``.

    Returns:
        float32 ``[..., vocabulary]``.
    """
    change = weighted(anatomy.final_norm, written).to(W_U.device, torch.float32)
    columns = max(1, _ELEMENTS // anatomy.d_model)
    effects = torch.cat([change @ part.float() for part in W_U.split(columns, dim=-1)], dim=-1)
    return effects - effects.mean(-1, keepdim=True)


def strongest(effects: Tensor, k: int, tokenizer: Any) -> list[tuple[Tokens, Tokens]]:
    """The k largest and the k smallest of each row, as tokens with values."""
    k = min(k, effects.shape[-1])
    most = effects.topk(k, dim=-1)
    least = effects.topk(k, dim=-1, largest=False)

    def named(values: Tensor, at: Tensor) -> Tokens:
        return tuple((token_text(tokenizer, i), v) for i, v in zip(at.tolist(), values.tolist(), strict=True))

    rows = range(len(effects))
    return [(named(most.values[i], most.indices[i]), named(least.values[i], least.indices[i])) for i in rows]
