"""What a bundled task is, and the few tools that all of them share.

A bundled task is a generator of prompt pairs. It works with any tokenizer, because it fills its slots only with words
that are a single token there. So a clean and a corrupted prompt always have equal lengths, and an answer is one token.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sparse_circuits.errors import InputError
from sparse_circuits.task.task import unknown_ids

Span = tuple[int, int]

# How often a draw is repeated to avoid a prompt that the set already holds. Beyond this the space is taken as used up.
_TRIES = 200


class TooFewWords(InputError):
    """The tokenizer leaves a task too few words to draw from."""

    def __init__(self, task: str, kind: str, left: int, needed: int) -> None:
        super().__init__(
            f"task {task!r}: only {left} {kind} are single tokens of this model's tokenizer, and at least {needed} are "
            f"needed. Use a model with a larger vocabulary, or load your own prompts from a .csv or .jsonl file."
        )
        self.task, self.kind, self.left, self.needed = task, kind, left, needed


@dataclass(frozen=True)
class Pairs:
    """Prompt pairs, one entry per example in every field.

    Answers are written as they follow the prompt, with a leading space where one belongs. `spans` names token positions
    as `[start, stop)`, counted without a BOS token; every example of a task has the same names, and "last" among them.
    """

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    correct: tuple[tuple[str, ...], ...]
    incorrect: tuple[tuple[str, ...], ...]
    spans: tuple[Mapping[str, Span], ...] = ()


class Vocabulary:
    """What a tokenizer makes of words in running text.

    Args:
        tokenizer: a Hugging Face tokenizer: anything with `encode(text, add_special_tokens=False)`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[str, str], bool] = {}
        self._unknown = unknown_ids(self.ids, getattr(tokenizer, "unk_token_id", None))

    def ids(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def count(self, text: str) -> int:
        """The number of tokens in `text`, without special tokens."""
        return len(self.ids(text))

    def single(self, text: str, after: str = "The") -> bool:
        """Whether `text` adds exactly one token, and a known one, to `after`.

        It is read in context because some tokenizers treat the start of a text as if a space stood before it.
        """
        key = (after, text)
        if key not in self._known:
            before, both = self.ids(after), self.ids(after + text)
            self._known[key] = (
                len(both) == len(before) + 1
                and both[:-1] == before
                # With byte fallback or an unknown token, "one token" can mean "no such token".
                and both[-1] not in self._unknown
            )
        return self._known[key]

    def keep(self, words: Iterable[str]) -> tuple[str, ...]:
        """The words that are one token with a leading space, in their order."""
        return tuple(word for word in words if self.single(" " + word))

    def need(self, words: Iterable[str], task: str, kind: str, at_least: int) -> tuple[str, ...]:
        """Like `keep`, but raises `TooFewWords` where fewer than `at_least` are left."""
        kept = self.keep(words)
        if len(kept) < at_least:
            raise TooFewWords(task, kind, len(kept), at_least)
        return kept

    def need_forms(
        self, forms: Iterable[tuple[str, str]], task: str, kind: str, at_least: int
    ) -> tuple[tuple[str, str], ...]:
        """The (singular, plural) pairs of which both are one token; raises `TooFewWords` where too few are left."""
        kept = tuple(pair for pair in forms if len(self.keep(pair)) == 2)
        if len(kept) < at_least:
            raise TooFewWords(task, kind, len(kept), at_least)
        return kept


@dataclass(frozen=True)
class BundledTask:
    """A behaviour with a generator of prompt pairs: `generate(vocabulary, n, seed)`."""

    name: str
    summary: str
    metric: Literal["logit_diff", "prob_diff"]
    generate: Callable[[Vocabulary, int, int], Pairs]


@dataclass(frozen=True)
class Example:
    """One row of `Pairs`."""

    clean: str
    corrupted: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    where: Mapping[str, Span]  # the named spans of the clean prompt, in characters


def collect(vocabulary: Vocabulary, n: int, seed: int, name: str, draw: Callable[[random.Random], Example]) -> Pairs:
    """`n` examples from `draw`, with distinct clean prompts as long as the space allows."""
    if n < 1:
        raise InputError(f"task {name!r}: a task needs at least one example, but n is {n}")
    rng = random.Random(f"{name}/{seed}")
    examples: list[Example] = []
    seen: set[str] = set()
    for _ in range(n):
        example = draw(rng)
        tries = 0
        while example.clean in seen and tries < _TRIES:
            example, tries = draw(rng), tries + 1
        seen.add(example.clean)
        examples.append(example)
    return Pairs(
        tuple(e.clean for e in examples),
        tuple(e.corrupted for e in examples),
        tuple(e.correct for e in examples),
        tuple(e.incorrect for e in examples),
        tuple(token_spans(vocabulary, e.clean, e.where) for e in examples),
    )


def render(template: str, slots: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """`template` with its `{slot}`s filled in, and where each slot lies in the text, in characters."""
    text, where, end = "", {}, 0
    for match in re.finditer(r"\{(\w+)\}", template):
        text += template[end : match.start()]
        word = slots[match.group(1)]
        where[match.group(1)] = (len(text), len(text) + len(word))
        text += word
        end = match.end()
    return text + template[end:], where


def token_spans(vocabulary: Vocabulary, text: str, where: Mapping[str, Span]) -> dict[str, Span]:
    """The token spans of spans given in characters, and "last"."""
    # A word's tokens don't depend on what follows the word, so the text can be measured up to each of its spans.
    ends = sorted({edge for start, stop in where.values() for edge in (start, stop)} | {len(text)})
    count = {edge: vocabulary.count(text[:edge].rstrip()) for edge in ends}
    spans = {name: (count[start], count[stop]) for name, (start, stop) in where.items()}
    return {**spans, "last": (count[len(text)] - 1, count[len(text)])}


@cache
def held_out(*parts: str, share: float = 0.15) -> bool:
    """Whether this combination of words is kept out of the bundled model's training text.

    A stable hash of the words decides, so that the trainer (which rejects such combinations) and the bundled tasks
    (which draw only such combinations) agree without a list.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
