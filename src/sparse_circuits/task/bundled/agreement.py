"""Subject-verb agreement: simple, across a prepositional phrase, within and across a relative clause.

The corrupted prompt has the subject in the other number. Number 0 is singular and 1 plural throughout.
"""

import random
from functools import partial

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
from sparse_circuits.task.bundled.words import (
    ATTRACTORS,
    INNER_SUBJECTS,
    OTHER_PEOPLE,
    OTHER_THINGS,
    PLACES,
    PREPOSITIONS,
    SUBJECTS,
    TRANSITIVE_VERBS,
    VERBS,
    Forms,
)

# What comes before the subject phrase. "The" is special: see `determiner_held_out`.
OPENERS = ("The", "Today the", "Now the", "Sometimes the", "I think that the", "We know that the")
PLACE_OPENERS = ("At the {place} the", "In the {place} the", "Near the {place} the", "Outside the {place} the")
PHRASES = {
    "sva-simple": "{subject}",
    "sva-pp": "{subject} {preposition} the {attractor}",
    "sva-within-rc": "{attractor} that the {subject}",
    "sva-across-rc": "{subject} that the {attractor} {verb}",
}
# The noun beside the subject, by task.
_ATTRACTORS: dict[str, Forms] = {
    "sva-pp": ATTRACTORS + OTHER_THINGS,
    "sva-within-rc": SUBJECTS,
    "sva-across-rc": INNER_SUBJECTS + OTHER_PEOPLE,
}
_SUBJECTS: dict[str, Forms] = {"sva-within-rc": INNER_SUBJECTS + OTHER_PEOPLE}


def determiner_held_out(determiner: str, noun: str) -> bool:
    """Whether the bundled model never saw this noun after this determiner: "The" before one of `SUBJECTS`."""
    return determiner == "The" and any(noun in forms for forms in SUBJECTS)


def nouns_held_out(outer: tuple[str, str], inner: tuple[str, str]) -> bool:
    """Whether the bundled model never saw these nouns, in any number, as the two nouns of a subject phrase."""
    return held_out("nouns", outer[0], inner[0], share=0.2)


def place_held_out(place: str, noun: tuple[str, str]) -> bool:
    """Whether the bundled model never saw this noun as a subject after this place."""
    return held_out("place", place, noun[0], share=0.2)


def _generate(name: str, vocabulary: Vocabulary, n: int, seed: int) -> Pairs:
    subjects = vocabulary.need_forms(_SUBJECTS.get(name, SUBJECTS), name, "nouns with both numbers", 4)
    verbs = vocabulary.need_forms(VERBS, name, "verbs with both numbers", 1)
    attractors = vocabulary.need_forms(_ATTRACTORS.get(name, SUBJECTS), name, "second nouns with both numbers", 4)
    inner_verbs = vocabulary.need_forms(TRANSITIVE_VERBS, name, "transitive verbs with both numbers", 2)
    prepositions = vocabulary.need(PREPOSITIONS, name, "prepositions", 2)
    places = vocabulary.need(PLACES, name, "places", 3)

    def outer_first(subject: tuple[str, str], other: tuple[str, str]) -> bool:
        return nouns_held_out(other, subject) if name == "sva-within-rc" else nouns_held_out(subject, other)

    if name == "sva-simple":
        after_place = tuple((s, place) for s in subjects for place in places if place_held_out(place, s))
        pairs = tuple((s, s) for s in subjects)
    else:
        after_place = ()
        pairs = tuple((s, other) for s in subjects for other in attractors if outer_first(s, other))
        if not pairs:
            raise TooFewWords(name, "pairs of nouns", 0, 1)

    def draw(rng: random.Random) -> Example:
        subject, other = rng.choice(pairs)
        opener, place = rng.choice(OPENERS), rng.choice(places)
        if name == "sva-simple":
            # Short prompts are few: half are "The" and a noun, the others name a place first.
            opener = rng.choice(("The", rng.choice(PLACE_OPENERS)) if after_place else ("The",))
            if opener != "The":
                subject, place = rng.choice(after_place)
        number, other_number = rng.randrange(2), rng.randrange(2)
        slots = {
            "subject": subject[number],
            "attractor": other[other_number],
            "preposition": rng.choice(prepositions),
            "verb": rng.choice(inner_verbs)[other_number],
            "place": place,
        }
        template = f"{opener} {PHRASES[name]}"
        clean, where = render(template, slots)
        corrupted, _ = render(template, {**slots, "subject": subject[1 - number]})
        spans = {slot: where[slot] for slot in ("subject", "attractor") if slot in where}
        verb = rng.choice(verbs)
        return Example(clean, corrupted, (" " + verb[number],), (" " + verb[1 - number],), spans)

    return collect(vocabulary, n, seed, name, draw)


def _task(name: str, where: str) -> BundledTask:
    summary = f"subject-verb agreement {where}"
    return BundledTask(name, summary, "logit_diff", partial(_generate, name))


AGREEMENT = (
    _task("sva-simple", "with the subject right before the verb"),
    _task("sva-pp", "across a prepositional phrase"),
    _task("sva-within-rc", "within a relative clause"),
    _task("sva-across-rc", "across a relative clause"),
)
