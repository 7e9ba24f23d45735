"""A transformer with weights set by hand, whose circuit is therefore known: what a method that finds circuits must find.

It completes ``... A B ... A`` with ``B``, as induction heads do (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; Olsson et al. 2022, arXiv:2209.11895), among heads that do other work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.task.metrics import LogitDiff
from sparse_circuits.task.task import Task

BOS, STOP = 0, 1
N_WORDS, LENGTH = 14, 9
_MATCH, _SINK, _COPY = (
    10.0,
    5.0,
    8.0,
)  # of induction: score of a match, score of the first position, logit of what is copied
_PREVIOUS = 20.0  # score of the position before, in the previous-token head
EDGES = (
    "input->a0.h1<v>",
    "a0.h1->a1.h2<k>",
    "input->a1.h2<q>",
    "input->a1.h2<v>",
    "a1.h2->logits",
)


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with a known circuit.

    Attributes:
        model: a ``HookedTransformer``: attention only, two layers of four heads, no norms, learned positions.
        task: clean and corrupted prompts in token ids, with :class:`~sparse_circuits.LogitDiff`.
        edges: names of exactly the edges that carry the task under ``Ablation.PATCH``, keys and values per head.
    """

    model: Any
    task: Task
    edges: tuple[str, ...]


def planted_induction(n_examples: int = 24, seed: int = 0) -> Planted:
    """An induction circuit and six decoys.

    The circuit: ``a0.h1`` writes at each position which token stands before it (where to look is told by positions, which
    belong to no source); ``a1.h2`` looks from the last token for the position whose preceding token is the same, and
    copies what stands there into the logits; where there is none it looks at the first position and copies nothing.

    The decoys are at work too, and what they write differs between the prompts, but for the fourth:

    - ``a0.h0`` writes the average of all tokens so far. ``a1.h2`` takes it into its queries, where it adds the same to the
      scores of all keys, which the softmax takes out again.
    - ``a0.h3`` copies the token at each position, and ``a1.h1`` finds by it earlier copies of that token, and writes what
      ``a0.h1`` says of them where nothing reads it.
    - ``a1.h0`` adds to all logits alike, by the average of the tokens.
    - ``a0.h2`` finds full stops, which ``a1.h3`` turns into logits of another one: the same in both prompts.

    A corrupted prompt has other words for both A's, different ones, and for B: it holds nothing to complete, and each
    edge of the circuit alone, ablated, takes the metric from about 8 to 0 or below.

    Args:
        n_examples: number of prompts.
        seed: of the words in them.

    Raises:
        UnsupportedModelError: if the installed TransformerLens has no ``HookedTransformer``.
    """
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError:
        raise UnsupportedModelError(
            "planted_induction() builds a HookedTransformer, which the installed TransformerLens does not have; install "
            "TransformerLens 3."
        ) from None
    space, width = _layout()
    config = HookedTransformerConfig(
        n_layers=2,
        n_heads=4,
        d_head=N_WORDS + 2,
        d_model=width,
        n_ctx=LENGTH,
        d_vocab=N_WORDS,
        attn_only=True,
        normalization_type=None,
        init_weights=False,
        device="cpu",
        model_name="planted-induction",
    )
    model = HookedTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, space["token"]] = torch.eye(N_WORDS)
        model.pos_embed.W_pos[:, space["position"]] = torch.eye(LENGTH)
        model.unembed.W_U[space["logit"]] = torch.eye(N_WORDS)
        _first_layer(model.blocks[0].attn, space)
        _second_layer(model.blocks[1].attn, space)
    model.requires_grad_(False)
    return Planted(model.eval(), _task(n_examples, seed), EDGES)


def _layout() -> tuple[dict[str, slice], int]:
    """Which dimensions of the residual stream hold what."""
    sizes = {
        "token": N_WORDS,
        "position": LENGTH,
        "previous": N_WORDS,
        "average": N_WORDS,
        "stop": 1,
        "same": N_WORDS,
        "unread": N_WORDS,
        "logit": N_WORDS,
    }
    space, start = {}, 0
    for name, size in sizes.items():
        space[name] = slice(start, start + size)
        start += size
    return space, start


def _first_layer(attn: Any, space: dict[str, slice]) -> None:
    words, scale = torch.eye(N_WORDS), attn.attn_scale
    here = torch.eye(LENGTH)
    before = torch.eye(LENGTH).roll(1, 0)  # the position before has its key at the place of this one
    before[0] = 0
    for head, name in ((0, "average"), (1, "previous"), (3, "same")):
        attn.W_V[head, space["token"], :N_WORDS] = words
        attn.W_O[head, :N_WORDS, space[name]] = words
    for head, keys in ((1, before.T), (3, here)):
        attn.W_Q[head, space["position"], :LENGTH] = _PREVIOUS * scale * here
        attn.W_K[head, space["position"], :LENGTH] = keys
    stop = space["token"].start + STOP
    attn.b_Q[2, 0] = _PREVIOUS * scale
    attn.W_K[2, stop, 0] = 1
    attn.W_V[2, stop, 0] = 1
    attn.W_O[2, 0, space["stop"]] = 1


def _second_layer(attn: Any, space: dict[str, slice]) -> None:
    words, scale = torch.eye(N_WORDS), attn.attn_scale
    weights = torch.linspace(-1, 1, N_WORDS)[:, None]
    attn.W_V[0, space["average"], :1] = weights
    attn.W_O[0, 0, space["logit"]] = 3

    attn.W_Q[1, space["same"], :N_WORDS] = _MATCH * scale * words
    attn.W_K[1, space["token"], :N_WORDS] = words
    attn.W_V[1, space["previous"], :N_WORDS] = words
    attn.W_O[1, :N_WORDS, space["unread"]] = words

    sink, shift = N_WORDS, N_WORDS + 1
    copied = words.clone()
    copied[BOS] = 0
    attn.W_Q[2, space["token"], :N_WORDS] = _MATCH * scale * words
    attn.W_K[2, space["previous"], :N_WORDS] = words
    attn.b_Q[2, sink] = _SINK * scale
    attn.W_K[2, space["position"].start, sink] = 1
    attn.W_Q[2, space["average"], shift] = 2 * scale * weights[:, 0]
    attn.b_K[2, shift] = 1
    attn.W_V[2, space["token"], :N_WORDS] = copied
    attn.W_O[2, :N_WORDS, space["logit"]] = _COPY * words

    attn.W_V[3, space["stop"], 0] = 1
    attn.W_O[3, 0, space["logit"].start + STOP] = 2


def _task(n_examples: int, seed: int) -> Task:
    """Prompts ``BOS w w A B w . w A``, the pair at one of several places."""
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, right, wrong = [], [], [], []
    for _ in range(n_examples):
        a, b, other_a, other_b, other_last, *fillers = _words(generator)
        place = int(torch.randint(4, (1,), generator=generator))

        def prompt(first: int, second: int, last: int, place: int = place, rest: list[int] = fillers) -> list[int]:
            middle = [*rest[:3], STOP, rest[3]]
            return [BOS, *middle[:place], first, second, *middle[place:], last]

        clean.append(prompt(a, b, a))
        corrupted.append(prompt(other_a, other_b, other_last))
        right.append(b)
        wrong.append(other_b)
    return Task(clean, corrupted, metric=LogitDiff(right, wrong), name="planted-induction")


def _words(generator: torch.Generator) -> list[int]:
    """All words but the special ones, in random order."""
    order: Tensor = torch.randperm(N_WORDS - 2, generator=generator) + 2
    return order.tolist()
