"""The generated language of the bundled model: which sentences there are, and how they make a training row.

A row is a BOS token and then documents, each closed by an EOS token. A document holds one to six sentences of any
kinds. All is drawn from the generator that is passed in, so a seed fixes the text.
"""

import random
import re
from collections.abc import Callable
from functools import cache

from sparse_circuits.task.bundled import agreement, greater_than, induction, ioi, pronouns
from sparse_circuits.task.bundled import words as lists
from sparse_circuits.zoo import filler, sentences

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
        *filler.ABOUT_SOMEONE,
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
    """A random sequence of words, repeated at least once: induction.

    A third are of two to four words: such cycles are easy, and what they teach is on the way to the long ones.
    """
    length = rng.randint(2, 4) if rng.random() < 1 / 3 else rng.randint(5, 20)
    words = rng.sample(_plain() if rng.random() < 0.5 else lists.PLAIN_WORDS, length)
    again = words * rng.randint(2, max(2, (24 if length < 5 else 40) // length))
    # A sequence may break off anywhere in its last repetition, but not before that has begun.
    stop = len(again) if rng.random() < 0.5 else rng.randint(len(again) - length + 2, len(again))
    opener = induction.OPENER + " " if rng.random() < 0.5 else ""
    return opener + " ".join(again[:stop]) + "."


# Each kind's share of the sentences, early and late in training. Early on, what pays most is copying what came before:
# the names' behaviours need it, and where it is rare it is learned late, if at all. (Repeated sequences are long, so a
# small share of them is a large share of tokens.)
KINDS: tuple[tuple[Callable[[random.Random], str], float, float], ...] = (
    (sentences.indirect_object, 0.10, 0.26),
    (sentences.later_year, 0.02, 0.16),
    (sentences.agreement_simple, 0.00, 0.05),
    (sentences.agreement_phrase, 0.00, 0.07),
    (sentences.agreement_clause, 0.02, 0.10),
    (sentences.pronoun, 0.04, 0.09),
    (sentences.close_pronoun, 0.09, 0.05),
    (repeated, 0.58, 0.11),
    (filler.twice, 0.12, 0.05),
    (filler.sentence, 0.03, 0.06),
)
_FUNCTIONS = tuple(function for function, _, _ in KINDS)


def document(rng: random.Random, late: float = 1.0) -> str:
    """One to six sentences; `late` is 0 for the early shares, 1 for the late ones, or between."""
    shares = [first + late * (last - first) for _, first, last in KINDS]
    return " ".join(function(rng) for function in rng.choices(_FUNCTIONS, shares, k=rng.randint(1, 6)))


def row(rng: random.Random, length: int, late: float = 1.0) -> list[str]:
    """`length` tokens: BOS, and documents closed by EOS, the last of them cut."""
    tokens = [BOS]
    while len(tokens) < length:
        tokens += split(document(rng, late))
        tokens.append(EOS)
    return tokens[:length]
