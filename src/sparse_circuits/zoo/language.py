"""The generated language of the bundled model: which sentences there are, and how they make a training row.

A row is a BOS token and then documents, each closed by an EOS token. A document holds one to six sentences of any
kinds. All is drawn from the generator that is passed in, so a seed fixes the text.
"""

import random
import re
from collections.abc import Callable
from functools import cache

from ..task.bundled import agreement, greater_than, induction, ioi, pronouns
from ..task.bundled import words as lists
from . import filler, sentences

BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"
SPECIAL = (BOS, EOS, PAD, UNKNOWN)

_TOKEN = re.compile(r"[0-9]{1,2}|[^\W\d_]+|[^\w\s]")


def split(text: str) -> list[str]:
    """The words of `text`, as the tokenizer splits it: words, punctuation, and digits two by two."""
    return _TOKEN.findall(text)


@cache
def vocabulary() -> tuple[str, ...]:
    """All words of the language, in a fixed order, without the special tokens."""
    templates = (
        *ioi.FRAMES,
        *ioi.SETTINGS,
        *ioi.SETTINGS_WITH_OBJECT,
        *ioi.GIVINGS,
        *ioi.GIVINGS_OF_IT,
        *greater_than.FRAMES,
        *agreement.OPENERS,
        *agreement.PLACE_OPENERS,
        *agreement.PHRASES.values(),
        *pronouns.OPENERS,
        *pronouns.PREDICATES,
        *pronouns.CONNECTIVES,
        "he she",
        induction.OPENER,
        *filler.SENTENCES,
        *sentences.texts(),
    )
    flat = (lists.NAMES, lists.PREPOSITIONS, lists.PLACES, lists.OBJECTS, lists.EVENTS, lists.OTHER_EVENTS)
    pairs = (
        lists.SUBJECTS,
        lists.INNER_SUBJECTS,
        lists.OTHER_PEOPLE,
        lists.ATTRACTORS,
        lists.OTHER_THINGS,
        lists.VERBS,
        lists.TRANSITIVE_VERBS,
    )
    words = {word for template in templates for word in split(re.sub(r"\{\w+\}", " ", template))}
    words.update(word for group in flat for word in group)
    words.update(word for group in pairs for pair in group for word in pair)
    words.update(word for group in filler.WORDS.values() for word in group)
    words.update(lists.PLAIN_WORDS)
    words.update(".,?!:'")
    digits = {*lists.TWO_DIGITS, *(str(digit) for digit in range(10))}
    return (*sorted(words - digits), *sorted(digits))


@cache
def _plain() -> tuple[str, ...]:
    """What random sequences are made of: every word, but no punctuation.

    Nor "The": followed by the right noun, by chance, it would make a prompt that is held out.
    """
    return tuple(word for word in vocabulary() if word[0].isalnum() and word != "The")


def repeated(rng: random.Random) -> str:
    """A random sequence of words, repeated at least once: induction."""
    words = rng.sample(_plain() if rng.random() < 0.5 else lists.PLAIN_WORDS, rng.randint(5, 20))
    again = words * rng.randint(2, max(2, 40 // len(words)))
    # A sequence may break off anywhere in its last repetition, but not before that has begun.
    stop = len(again) if rng.random() < 0.5 else rng.randint(len(again) - len(words) + 2, len(again))
    opener = induction.OPENER + " " if rng.random() < 0.5 else ""
    return opener + " ".join(again[:stop]) + "."


# Each kind's share of the sentences. Repeated sequences are long, so a small share of them is a large share of tokens.
KINDS: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (sentences.indirect_object, 0.26),
    (sentences.later_year, 0.18),
    (sentences.agreement_simple, 0.05),
    (sentences.agreement_phrase, 0.07),
    (sentences.agreement_clause, 0.10),
    (sentences.pronoun, 0.11),
    (repeated, 0.11),
    (filler.sentence, 0.12),
)
_FUNCTIONS = tuple(function for function, _ in KINDS)
_SHARES = tuple(share for _, share in KINDS)


def document(rng: random.Random) -> str:
    """One to six sentences."""
    return " ".join(function(rng) for function in rng.choices(_FUNCTIONS, _SHARES, k=rng.randint(1, 6)))


def row(rng: random.Random, length: int) -> list[str]:
    """`length` tokens: BOS, and documents closed by EOS, the last of them cut."""
    tokens = [BOS]
    while len(tokens) < length:
        tokens += split(document(rng))
        tokens.append(EOS)
    return tokens[:length]
