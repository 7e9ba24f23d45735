"""Texts with a planted spurious correlation: two attributes that go together in training and apart in the test.

A text is two sentences of the toy language, in either order: one about a person with a name and a pronoun, whose gender is
the unintended attribute, and one whose subject is singular or plural, which is the intended one. Nouns that have a
gender of their own are left out, and the second noun of a sentence is singular or plural by chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse_circuits.task.bundled import agreement, pronouns
from sparse_circuits.task.bundled.base import render
from sparse_circuits.task.bundled.words import (
    ATTRACTORS,
    FEMALE_NAMES,
    INNER_SUBJECTS,
    MALE_NAMES,
    OBJECTS,
    OTHER_PEOPLE,
    OTHER_THINGS,
    PLACES,
    PREPOSITIONS,
    SUBJECTS,
)
from sparse_circuits.zoo.filler import WORDS
from sparse_circuits.zoo.sentences import PRONOUN_OWN, VERB_PHRASES

Split = Literal["train", "judge", "test"]

INTENDED, UNINTENDED = ("singular", "plural"), ("man", "woman")
_GENDERED = (
    "aunt", "boy", "father", "girl", "guy", "man", "mother", "uncle", "woman", "king", "queen", "brother", "sister", "priest",
    "waiter",
)  # fmt: skip
_PEOPLE = tuple(forms for forms in SUBJECTS + INNER_SUBJECTS + OTHER_PEOPLE if forms[0] not in _GENDERED)
_THINGS = ATTRACTORS + OTHER_THINGS
_OPENERS = (*agreement.OPENERS, "My", "Our", "Your", "Their", "Maybe the", "Of course the")
_ENDS = ("was {mood}", "went home", "wanted a {object}", "liked the {place}", "lost {own} {object}")


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts and what is true of them.

    Attributes:
        texts: the texts.
        intended: whether the second kind of sentence has a plural subject: 0 or 1, float ``[texts]``; NaN where there is none.
        unintended: whether the person is a woman, likewise.
    """

    texts: tuple[str, ...]
    intended: Tensor
    unintended: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, n: int) -> Texts:
        """The first of them; where values alternate, as many of each."""
        return Texts(self.texts[:n], self.intended[:n], self.unintended[:n])

    @property
    def groups(self) -> Tensor:
        """Which of the four combinations each text is: ``2 * intended + unintended``."""
        return (2 * self.intended + self.unintended).long()


def about_a_person(rng: random.Random, woman: int) -> str:
    """A sentence with a name and the pronoun of its gender."""
    slots = {
        "place": rng.choice(PLACES),
        "object": rng.choice(OBJECTS),
        "mood": rng.choice(WORDS["mood"]),
        "own": PRONOUN_OWN[woman],
    }
    start = f"{rng.choice(pronouns.OPENERS)} {rng.choice((MALE_NAMES, FEMALE_NAMES)[woman])}"
    middle = f"{rng.choice(pronouns.PREDICATES)}{rng.choice(pronouns.CONNECTIVES)}"
    return render(f"{start} {middle} {('he', 'she')[woman]} {rng.choice(_ENDS)}.", slots)[0]


def with_a_number(rng: random.Random, plural: int) -> str:
    """A sentence with a singular or plural subject and its verb."""
    forms, rests = rng.choice(VERB_PHRASES)
    thing, other = rng.choice(_THINGS), rng.choice(_THINGS)
    slots = {
        "mood": rng.choice(WORDS["mood"]),
        "place": rng.choice(PLACES),
        "object": rng.choice(OBJECTS),
        "food": rng.choice(WORDS["food"]),
        "sport": rng.choice(WORDS["sport"]),
        "country": rng.choice(WORDS["country"]),
        "day": rng.choice(WORDS["day"]),
        "how": rng.choice(WORDS["how"]),
        "thing": thing[0],
        "things": thing[1],
        "person2": rng.choice(_PEOPLE)[rng.randrange(2)],
    }
    between = f" {rng.choice(PREPOSITIONS)} the {other[rng.randrange(2)]}" if rng.random() < 0.7 else ""
    subject = f"{rng.choice(_OPENERS)} {rng.choice(_PEOPLE)[plural]}{between}"
    return f"{subject} {forms[plural]} {render(rng.choice(rests), slots)[0]}."


def text(rng: random.Random, plural: int, woman: int) -> str:
    """Both sentences, in either order."""
    parts = [about_a_person(rng, woman), with_a_number(rng, plural)]
    rng.shuffle(parts)
    return " ".join(parts)


def ambiguous(n: int, seed: int) -> Texts:
    """Texts in which both attributes always go together, half of them with each value."""
    rng, labels = random.Random(f"shift/train/{seed}"), [i % 2 for i in range(n)]
    return _texts([text(rng, value, value) for value in labels], labels, labels)


def balanced(n: int, seed: int, split: Split) -> Texts:
    """Texts of all four combinations, equally many."""
    rng = random.Random(f"shift/{split}/{seed}")
    pairs = [(i // 2 % 2, i % 2) for i in range(n)]
    return _texts([text(rng, *pair) for pair in pairs], *zip(*pairs, strict=True))


def single(n: int, seed: int) -> tuple[Texts, Texts]:
    """Sentences of one kind only: with a number, and about a person, ``n`` each."""
    rng, labels = random.Random(f"shift/judge/{seed}"), [i % 2 for i in range(n)]
    none = [float("nan")] * n
    numbers = _texts([with_a_number(rng, value) for value in labels], labels, none)
    return numbers, _texts([about_a_person(rng, value) for value in labels], none, labels)


def _texts(texts: Sequence[str], intended: Sequence[float], unintended: Sequence[float]) -> Texts:
    return Texts(tuple(texts), torch.tensor(intended).float(), torch.tensor(unintended).float())
