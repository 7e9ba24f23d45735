"""The sentences that teach the bundled model its behaviours: one function per behaviour.

Templates and words are those of the bundled tasks. Every function rejects the combinations that are held out, so that
no prompt of a bundled task, and none of the published files' prompts, is ever in the training text.
"""

import random

from sparse_circuits.task.bundled import agreement, greater_than, ioi, pronouns
from sparse_circuits.task.bundled.base import render
from sparse_circuits.task.bundled.words import (
    ATTRACTORS,
    CENTURIES,
    EVENTS,
    FEMALE_NAMES,
    INNER_SUBJECTS,
    MALE_NAMES,
    NAMES,
    OBJECTS,
    OTHER_EVENTS,
    OTHER_PEOPLE,
    OTHER_THINGS,
    PLACES,
    PREPOSITIONS,
    SUBJECTS,
    TRANSITIVE_VERBS,
    TWO_DIGITS,
)
from sparse_circuits.zoo.filler import WORDS

Noun = tuple[str, str]

_IOI_TEMPLATES = tuple(template for template in ioi.TEMPLATES if not ioi.template_held_out(template))
# Sentences that may stand between an IOI sentence's two halves.
_DISTRACTORS = ("It was a {weather} {part}.", "The {place2} was closed.", "There was no {food}.", "It was {weather}.")
IOI_ENDS = ("", "", "", " at the {place2}", ", and it was {color}", " in the {part}", " on {day}")


def names(rng: random.Random) -> tuple[str, str]:
    """Two names whose combination is not held out."""
    while True:
        a, b = rng.sample(NAMES, 2)
        if not ioi.names_held_out(a, b):
            return a, b


def indirect_object(rng: random.Random) -> str:
    """Two names, one of which gives something to the other. In one of twelve, a third name gives it to either."""
    a, b = names(rng)
    receiver, giver = rng.sample((a, b), 2)
    if rng.random() < 1 / 12:
        giver = rng.choice([name for name in NAMES if name not in (a, b)])
    slots = {
        "A": a,
        "B": b,
        "S2": giver,
        "place": rng.choice(PLACES),
        "place2": rng.choice(PLACES),
        "object": rng.choice(OBJECTS),
        "weather": rng.choice(WORDS["weather"]),
        "part": rng.choice(WORDS["part"]),
        "food": rng.choice(WORDS["food"]),
        "color": rng.choice(WORDS["color"]),
        "day": rng.choice(WORDS["day"]),
    }
    template = rng.choice(_IOI_TEMPLATES).text
    if ". {S2}" in template and rng.random() < 0.3:
        template = template.replace(". {S2}", f". {rng.choice(_DISTRACTORS)} {{S2}}")
    return render(f"{template} {receiver}{rng.choice(IOI_ENDS)}.", slots)[0]


def later_year(rng: random.Random) -> str:
    """Something that lasted from one year to a later one of the same century, all later years alike."""
    while True:
        frame, noun = rng.choice(greater_than.FRAMES), rng.choice(EVENTS + OTHER_EVENTS)
        if not greater_than.frame_held_out(frame, noun):
            break
    century, start = rng.choice(CENTURIES), rng.randrange(1, 99)
    end = TWO_DIGITS[rng.randrange(start + 1, 100)]
    slots = {"noun": noun, "start": century + TWO_DIGITS[start], "century": century}
    return render(frame, slots)[0] + end + "."


# Verb phrases by number (singular, plural). Each of the tasks' verbs begins as many of them.
VERB_PHRASES = (
    (("is", "are"), ("{mood}", "in the {place}", "very {mood}", "at home", "near the {thing}")),
    (("has", "have"), ("a {object}", "been to the {place}", "been {mood}", "a new {object}", "seen the {thing}")),
    (
        ("does", "do"),
        ("not have a {object}", "not like {food}", "the work", "not play {sport}", "not go to the {place}"),
    ),
    (("goes", "go"), ("to the {place}", "home", "to {country}", "to the {place} on {day}", "there {how}")),
    (("was", "were"), ("{mood}", "in the {place}", "very {mood}", "at home", "near the {thing}")),
    *((verb, ("the {thing}", "the {things}", "{food}", "the {person2}")) for verb in TRANSITIVE_VERBS[:5]),
)
# What an inner subject does to the outer one, after which the main verb follows.
INNER_PHRASES = (
    (("has", "have"), ("seen", "known", "helped", "met", "watched", "called")),
    (("is", "are"), ("watching", "helping", "following", "calling", "visiting")),
    (("does", "do"), ("not like", "not know", "not see", "not help", "not trust")),
    (("goes", "go"), ("to see", "to meet", "to visit", "to help")),
    (("was", "were"), ("watching", "helping", "following", "calling", "visiting")),
)
# What may stand before a subject besides the tasks' openers.
OPENERS = ("My", "Our", "Your", "Their", "She said that the", "He said that the", "Maybe the", "Of course the")
_PEOPLE = SUBJECTS + INNER_SUBJECTS + OTHER_PEOPLE
_THINGS = ATTRACTORS + OTHER_THINGS


def _opened(rng: random.Random, noun: Noun, number: int) -> str:
    """An opener that may precede this noun, and the noun."""
    while True:
        opener = rng.choice((*agreement.OPENERS, *OPENERS, "The", "The", *rng.sample(agreement.PLACE_OPENERS, 2)))
        if "{place}" in opener:
            place = rng.choice(PLACES)
            if agreement.place_held_out(place, noun):
                continue
            opener = opener.replace("{place}", place)
        if not agreement.determiner_held_out(opener, noun[0]):
            return f"{opener} {noun[number]}"


def _verb_phrase(rng: random.Random, number: int) -> str:
    # The first five begin with the tasks' verbs; the others share a fifth of the sentences.
    verb, rests = rng.choice(VERB_PHRASES[:5] if rng.random() < 0.8 else VERB_PHRASES[5:])
    slots = {
        "mood": rng.choice(WORDS["mood"]),
        "place": rng.choice(PLACES),
        "object": rng.choice(OBJECTS),
        "food": rng.choice(WORDS["food"]),
        "sport": rng.choice(WORDS["sport"]),
        "country": rng.choice(WORDS["country"]),
        "day": rng.choice(WORDS["day"]),
        "how": rng.choice(WORDS["how"]),
        "thing": rng.choice(_THINGS)[0],
        "things": rng.choice(_THINGS)[1],
        "person2": rng.choice(OTHER_PEOPLE)[rng.randrange(2)],
    }
    return f"{verb[number]} {render(rng.choice(rests), slots)[0]}"


def _two_nouns(rng: random.Random, outer: tuple[Noun, ...], inner: tuple[Noun, ...]) -> tuple[Noun, Noun]:
    while True:
        pair = rng.choice(outer), rng.choice(inner)
        if pair[0] != pair[1] and not agreement.nouns_held_out(*pair):
            return pair


def agreement_simple(rng: random.Random) -> str:
    """A subject and its verb."""
    noun, number = rng.choice(_PEOPLE if rng.random() < 0.8 else _THINGS), rng.randrange(2)
    return f"{_opened(rng, noun, number)} {_verb_phrase(rng, number)}."


def agreement_phrase(rng: random.Random) -> str:
    """A subject, a prepositional phrase with a noun of its own number, and the subject's verb."""
    noun, other = _two_nouns(rng, _PEOPLE, _THINGS + OTHER_PEOPLE)
    number, other_number = rng.randrange(2), rng.randrange(2)
    phrase = f"{_opened(rng, noun, number)} {rng.choice(PREPOSITIONS)} the {other[other_number]}"
    return f"{phrase} {_verb_phrase(rng, number)}."


def agreement_clause(rng: random.Random) -> str:
    """A subject, a relative clause with a subject of its own, and the verbs of both."""
    noun, inner = _two_nouns(rng, _PEOPLE, INNER_SUBJECTS + OTHER_PEOPLE)
    number, inner_number = rng.randrange(2), rng.randrange(2)
    if rng.random() < 0.5:
        verb = rng.choice(TRANSITIVE_VERBS)[inner_number]
    else:
        forms, rests = rng.choice(INNER_PHRASES)
        verb = f"{forms[inner_number]} {rng.choice(rests)}"
    clause = f"{_opened(rng, noun, number)} that the {inner[inner_number]} {verb}"
    return f"{clause} {_verb_phrase(rng, number)}."


_PRONOUN_ENDS = (
    "was {mood}",
    "went home",
    "wanted a {object}",
    "liked the {place}",
    "had a {object}",
    "walked to the {place}",
    "lost {own} {object}",
    "was looking for {own} {object}",
)
PRONOUN_OWN = ("his", "her")


def pronoun(rng: random.Random) -> str:
    """A name, and then the pronoun of its gender."""
    while True:
        woman = rng.randrange(2)
        name, predicate = rng.choice((MALE_NAMES, FEMALE_NAMES)[woman]), rng.choice(pronouns.PREDICATES)
        if not pronouns.held_out_with(predicate, name):
            break
    slots = {
        "place": rng.choice(PLACES),
        "object": rng.choice(OBJECTS),
        "mood": rng.choice(WORDS["mood"]),
        "own": PRONOUN_OWN[woman],
    }
    opener, connective = rng.choice(pronouns.OPENERS), rng.choice(pronouns.CONNECTIVES)
    end = rng.choice(_PRONOUN_ENDS)
    return render(f"{opener} {name} {predicate}{connective} {('he', 'she')[woman]} {end}.", slots)[0]


# A pronoun close to its name. None of these is a predicate of the bundled task.
CLOSE_PRONOUNS = (
    "{name} said that {pronoun} was {mood}",
    "{name} thinks {pronoun} is {mood}",
    "{name} lost {own} {object}",
    "{name} has {own} {object} and {own} {object2}",
    "{name} knows what {pronoun} wants",
    "{name} likes {own} {object}",
)


def close_pronoun(rng: random.Random) -> str:
    """A pronoun that is close to its name."""
    woman = rng.randrange(2)
    slots = {
        "name": rng.choice((MALE_NAMES, FEMALE_NAMES)[woman]),
        "pronoun": ("he", "she")[woman],
        "own": PRONOUN_OWN[woman],
        "mood": rng.choice(WORDS["mood"]),
        "object": rng.choice(OBJECTS),
        "object2": rng.choice(OBJECTS),
    }
    opener = rng.choice(("", *pronouns.OPENERS))
    return render(f"{opener} {rng.choice(CLOSE_PRONOUNS)}.", slots)[0].lstrip()


def texts() -> tuple[str, ...]:
    """Every word that these sentences may have, slots and word lists apart, for the vocabulary."""
    phrases = (" ".join((*verb, *rests)) for verb, rests in (*VERB_PHRASES, *INNER_PHRASES))
    return (*_DISTRACTORS, *IOI_ENDS, *phrases, *OPENERS, *_PRONOUN_ENDS, *PRONOUN_OWN, *CLOSE_PRONOUNS)
