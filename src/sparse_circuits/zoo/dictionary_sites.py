"""Where the bundled model's dictionaries sit, and what they are trained and measured on.

An SAE reads and writes one hook point. A transcoder reads the MLP's input as the norm leaves it, before the norm's own
weight and bias, and writes the MLP's output.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from sparse_circuits.task.bundled import BUNDLED, Vocabulary
from sparse_circuits.zoo import language

KINDS = {"attn": "hook_attn_out", "mlp": "hook_mlp_out", "resid": "hook_resid_post"}


@dataclass(frozen=True)
class Site:
    """A dictionary's place: its name, its layer, and the hook points that it reads and writes."""

    name: str
    layer: int
    reads: str
    writes: str

    @property
    def kind(self) -> str:
        """Its name without the layer."""
        return self.name.rsplit("_", 1)[0]

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes somewhere else than it reads."""
        return self.reads != self.writes


def sites(layers: int) -> tuple[Site, ...]:
    """All sites of a model of so many layers, layer by layer."""
    found: list[Site] = []
    for layer in range(layers):
        block = f"blocks.{layer}."
        found += [Site(f"{kind}_{layer}", layer, block + hook, block + hook) for kind, hook in KINDS.items()]
        found.append(
            Site(f"transcoder_{layer}", layer, f"{block}ln2.hook_normalized", f"{block}{KINDS['mlp']}"),
        )
    return tuple(found)


@dataclass(frozen=True)
class Text:
    """Token ids of the toy language, a function of the stream's name and the step alone.

    A batch holds rows as the model was trained on, and beside them prompts of the bundled tasks, clean and corrupted,
    each after a BOS, as tasks are run: rows have few tokens that come so early, and no held-out combinations.
    """

    tokenizer: Any
    context: int
    stream: str
    pool: int = 512

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token ids by word."""
        return self.tokenizer.get_vocab()

    @cached_property
    def prompts(self) -> list[list[int]]:
        """BOS + prompt, of all bundled tasks: `pool` pairs of each."""
        vocabulary = Vocabulary(self.tokenizer)
        seed = random.Random(f"{self.stream}/prompts").getrandbits(31)
        texts: list[str] = []
        for task in BUNDLED.values():
            pairs = task.generate(vocabulary, self.pool, seed)
            texts += [*pairs.clean, *pairs.corrupted]
        bos = self.ids[language.BOS]
        return [[bos, *self.tokenizer.encode(text, add_special_tokens=False)] for text in texts]

    def rows(self, step: int, count: int) -> torch.Tensor:
        """Rows of language, [count, context]."""
        rng = random.Random(f"{self.stream}/rows/{step}")
        return torch.tensor([[self.ids[token] for token in language.row(rng, self.context)] for _ in range(count)])

    def some_prompts(self, step: int, tokens: int) -> list[list[int]]:
        """Prompts with so many tokens in all, not counting each one's BOS; the last one is cut."""
        rng = random.Random(f"{self.stream}/some/{step}")
        chosen: list[list[int]] = []
        left = tokens
        while left > 0:
            chosen.append(rng.choice(self.prompts)[: 1 + left])
            left -= len(chosen[-1]) - 1
        return chosen


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right, and which of them are real, both [row, pos]."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return tokens, torch.arange(longest) < torch.tensor([[len(row)] for row in rows])


@torch.no_grad()
def activations(model: Any, tokens: torch.Tensor, hooks: Sequence[str], stop: int) -> dict[str, torch.Tensor]:
    """What the model has at `hooks`, all before layer `stop`: [row, pos, width] each."""
    found: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, hook: Any, name: str) -> None:
        found[name] = value.detach()

    def keeper(name: str) -> Any:
        return lambda value, hook: keep(value, hook, name)

    model.run_with_hooks(tokens, stop_at_layer=stop, fwd_hooks=[(name, keeper(name)) for name in hooks])
    return found


def information(model: Any, tokens: torch.Tensor, hooks: Sequence[str], seed: int) -> dict[str, torch.Tensor]:
    """The mean Fisher information of the model's predictions in the activations at `hooks`, [width, width] each.

    It is the mean of g g^T over tokens but the BOS, with g the gradient of the log probability of tokens drawn from the
    model's own predictions, at this position and all later ones. To second order, a change e of one activation costs
    e^T F e / 2 nats on the average.
    """
    kept: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, hook: Any, name: str) -> torch.Tensor:
        kept[name] = value if value.requires_grad else value.requires_grad_()
        return kept[name]

    def keeper(name: str) -> Any:
        return lambda value, hook: keep(value, hook, name)

    with torch.enable_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(name, keeper(name)) for name in hooks])
        chances = logits.detach().softmax(-1).flatten(0, 1)
        drawn = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(seed))
        likely = logits.log_softmax(-1).flatten(0, 1).gather(1, drawn).sum()
        gradients = torch.autograd.grad(likely, [kept[name] for name in hooks])
    flat = {name: gradient[:, 1:].flatten(0, 1) for name, gradient in zip(hooks, gradients, strict=True)}
    return {name: gradient.T @ gradient / len(gradient) for name, gradient in flat.items()}


@dataclass(frozen=True)
class Shape:
    """What a batch of activations is made of: so many BOS, the other tokens of so many rows, and of prompts the rest."""

    tokens: int
    rows: int
    bos: int


def batches(
    model: Any, text: Text, hooks: Sequence[str], *, stop: int, shape: Shape, first: int, last: int
) -> Iterator[dict[str, torch.Tensor]]:
    """For the steps `first` to `last` - 1 a batch of activations at every hook, [tokens, width].

    The activations at the BOS are the same in all rows and prompts, and as many as these would count for too much where
    their norm is several times that of the others.
    """
    for step in range(first, last):
        rows = text.rows(step, shape.rows)
        found = activations(model, rows, hooks, stop)
        parts = {name: [value[: shape.bos, 0], value[:, 1:].flatten(0, 1)] for name, value in found.items()}
        left = shape.tokens - sum(map(len, parts[hooks[0]]))
        if left > 0:
            prompts, real = padded(text.some_prompts(step, left))
            real[:, 0] = False
            for name, value in activations(model, prompts, hooks, stop).items():
                parts[name].append(value[real])
        yield {name: torch.cat(values) for name, values in parts.items()}
