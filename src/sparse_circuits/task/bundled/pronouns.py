"""Gendered pronouns: "Then Mary went to the park because" -> " she"."""

import random

from sparse_circuits.task.bundled.base import (
    BundledTask,
    Example,
    Pairs,
    TooFewWords,
    Vocabulary,
    collect,
    held_out,
    render,
)
from sparse_circuits.task.bundled.words import FEMALE_NAMES, MALE_NAMES, OBJECTS, PLACES

OPENERS = ("Then", "Yesterday", "So", "My friend", "I think that", "One day", "Later", "We heard that", "Last week")
PREDICATES = (
    "went to the {place}",
    "is a really great friend",
    "was late for the train",
    "lost the {object}",
    "bought a {object} at the {place}",
    "left the {place} with the doctor",
    "talked to the people in the {place}",
    "was tired after the long day",
    "looked for the {object} near the {place}",
    "stayed at home with the kids",
    "read a story about the {place}",
    "wanted to visit the {place}",
    "helped the farmers in the {place}",
    "liked the {object} very much",
)
CONNECTIVES = (" because", ", and", ", so", ", but", " when", " before", " until", ", and then")


def held_out_with(predicate: str, name: str) -> bool:
    """Whether the bundled model never saw this name with this predicate."""
    return held_out("pronoun", predicate, name)


def _generate(vocabulary: Vocabulary, n: int, seed: int) -> Pairs:
    task = "gendered-pronouns"
    for pronoun in (" he", " she"):
        if not vocabulary.single(pronoun):
            raise TooFewWords(task, "pronouns", 0, 2)
    women = vocabulary.need(FEMALE_NAMES, task, "female names", 3)
    men = vocabulary.need(MALE_NAMES, task, "male names", 3)
    places = vocabulary.need(PLACES, task, "places", 3)
    objects = vocabulary.need(OBJECTS, task, "objects", 3)
    subjects = tuple(
        (predicate, name, woman)
        for woman, names in ((True, women), (False, men))
        for name in names
        for predicate in PREDICATES
        if held_out_with(predicate, name)
    )
    by_gender = tuple(tuple(s for s in subjects if s[2] is woman) for woman in (False, True))
    if not all(by_gender):
        raise TooFewWords(task, "names with a predicate", len(subjects), 2)

    def draw(rng: random.Random) -> Example:
        predicate, name, woman = rng.choice(rng.choice(by_gender))
        template = f"{rng.choice(OPENERS)} {{name}} {predicate}{rng.choice(CONNECTIVES)}"
        slots = {"name": name, "place": rng.choice(places), "object": rng.choice(objects)}
        clean, where = render(template, slots)
        corrupted, _ = render(template, {**slots, "name": rng.choice(men if woman else women)})
        spans = {"name": where["name"]}
        answers = ((" he",), (" she",))
        return Example(clean, corrupted, answers[woman], answers[not woman], spans)

    return collect(vocabulary, n, seed, task, draw)


PRONOUNS = BundledTask("gendered-pronouns", "gendered pronouns: he or she, after a name", "logit_diff", _generate)
