"""Sentences about nothing in particular, so that the behaviours are needles in some hay."""

import random

from sparse_circuits.task.bundled.base import render
from sparse_circuits.task.bundled.words import NAMES, OBJECTS, OTHER_PEOPLE, OTHER_THINGS, PLACES, TWO_DIGITS

WORDS: dict[str, tuple[str, ...]] = {
    slot: tuple(words.split())
    for slot, words in {
        "animal": "rabbit fox wolf duck goose cow pig sheep goat mouse frog owl bear lion monkey snake turtle bee",
        "adjective": "old new big small red blue green yellow white black brown gray quiet loud heavy strange clean "
        "dirty cheap beautiful broken round narrow wide soft hard bright dark empty full",
        "mood": "happy sad tired angry hungry busy late early ready kind quiet proud afraid careful lucky famous young",
        "food": "bread cheese rice fish soup milk tea coffee butter salt sugar honey fruit meat pasta chocolate juice",
        "fruit": "apples pears plums grapes lemons onions carrots beans eggs nuts mushrooms tomatoes potatoes berries",
        "weather": "sunny cloudy rainy windy foggy cold warm hot cool dry wet stormy",
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "month": "January February March April May June July August September October November December",
        "season": "spring summer autumn winter",
        "part": "morning afternoon evening night",
        "sport": "football tennis chess cards music golf",
        "subject": "history science art math poetry law medicine physics",
        "color": "red blue green yellow white black brown gray purple orange pink silver",
        "moved": "ran walked jumped climbed crawled flew",
        "did": "slept waited stopped fell turned disappeared sang danced laughed smiled",
        "over": "over under past around through into behind across",
        "material": "wood stone glass iron paper gold leather cotton clay",
        "how": "slowly quickly quietly often never always rarely almost suddenly again",
        "country": "France Spain Italy Japan Egypt Norway India Canada Mexico Brazil",
    }.items()
}
SENTENCES = (
    "It was a {weather} {part}.",
    "It was raining in the {place}.",
    "The {part} was {weather} and {weather2}.",
    "The {adjective} {animal} {moved} {over} the {thing}.",
    "A {adjective} {animal} {how} {did}.",
    "There were {number} {fruit} in the {thing}.",
    "There was a {adjective} {object} on the {thing}.",
    "We like {food} and {fruit}.",
    "I had {food} with {food2} for dinner.",
    "On {day} the {place} was closed.",
    "On {day} we walked to the {place}.",
    "In {month} the garden is {color}.",
    "In the {season} it is {weather} here.",
    "What a {adjective} {object}!",
    "Where is the {adjective} {object}?",
    "Do you see the {animal} near the {thing}?",
    "{name} likes {food}.",
    "{name} came home on {day}.",
    "{name} was {mood}.",
    "{name} played {sport} in the {part}.",
    "{name} sold a {object} to the {person}.",
    "{name} and the {person} walked to the {place}.",
    "The {person} studied {subject} in {country}.",
    "The {person} asked for {food} and {fruit}.",
    "A {person} lived near the {place}.",
    "Nobody knew where the {object} was.",
    "The {thing} was made of {material}.",
    "The {object} was {color} and {adjective}.",
    "The train to the {place} left at {number}.",
    "She bought {number} {fruit} at the market.",
    "He sold {number} {fruit} on {day}.",
    "They opened the {adjective} {thing}.",
    "They sang about the {season}.",
    "The {animal} and the {animal2} {did} {how}.",
    "My {object} is {adjective}.",
    "Your {object} is in the {place}.",
    "This {material} comes from {country}.",
    "Please bring the {object} to the {place}.",
    "You can buy {food} at the {place}.",
    "In {country} people drink {food} in the {part}.",
    "Every {part} the {person} played {sport}.",
    "The first {object} was {color}, but the second was {color2}.",
    "I read a book about {subject}.",
    "No one was {mood} that {part}.",
    "The sun was {adjective} over the sea.",
    "The wind moved the {thing} {how}.",
)
# Said of one person twice or more, so that names that came before come again.
ABOUT_SOMEONE = (
    "{name} likes {food}.",
    "{name} came home on {day}.",
    "{name} was {mood}.",
    "{name} played {sport} in the {part}.",
    "{name} had a {adjective} {object}.",
    "{name} went to {country}.",
    "We saw {name} at the {place}.",
    "The {person} knows {name}.",
)
_LISTS: dict[str, tuple[str, ...]] = {
    **WORDS,
    "weather2": WORDS["weather"],
    "food2": WORDS["food"],
    "animal2": WORDS["animal"],
    "color2": WORDS["color"],
    "name": NAMES,
    "object": OBJECTS,
    "place": PLACES,
    "number": TWO_DIGITS[2:],
    "person": tuple(singular for singular, _ in OTHER_PEOPLE),
    "thing": tuple(singular for singular, _ in OTHER_THINGS),
}


class _Draw(dict[str, str]):
    """Slots that are drawn when a template asks for them."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    def __missing__(self, slot: str) -> str:
        return self.rng.choice(_LISTS[slot])


def sentence(rng: random.Random) -> str:
    """One filler sentence."""
    return render(rng.choice(SENTENCES), _Draw(rng))[0]


def twice(rng: random.Random) -> str:
    """Two or three short sentences about the same person."""
    name = rng.choice(NAMES)
    templates = rng.sample(ABOUT_SOMEONE, rng.randint(2, 3))
    return " ".join(render(template.replace("{name}", name), _Draw(rng))[0] for template in templates)
