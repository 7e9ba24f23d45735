"""Greater-than: "The war lasted from the year 1352 to the year 13" -> any two digits later than 52."""

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
from sparse_circuits.task.bundled.words import CENTURIES, EVENTS, OTHER_EVENTS, TWO_DIGITS, YEARS

# {start} is the whole start year, {century} its first two digits.
PUBLISHED_FRAME = "The {noun} lasted from the year {start} to the year {century}"  # EAP-IG's greater_than.csv
FRAMES = (
    PUBLISHED_FRAME,
    "The {noun} lasted from the year {start} until the year {century}",
    "The {noun} went on from the year {start} to the year {century}",
    "The {noun} continued from the year {start} to the year {century}",
    "The {noun} lasted from {start} to {century}",
    "The {noun} lasted from {start} until {century}",
    "The {noun} began in {start} and ended in {century}",
    "The {noun} started in the year {start} and ended in the year {century}",
    "The records of the {noun} run from the year {start} to the year {century}",
    "People say that the {noun} lasted from the year {start} to the year {century}",
    "We read that the {noun} went on from {start} until {century}",
)
# "01" as the corrupted start year: then every year but the first is later.
CORRUPTED_YEAR = "01"


def frame_held_out(frame: str, noun: str) -> bool:
    """Whether the bundled model never saw this noun in this frame."""
    return (frame == PUBLISHED_FRAME and noun in EVENTS) or held_out("greater-than", frame, noun)


HELD_OUT_FRAMES = tuple(
    (frame, noun) for frame in FRAMES for noun in EVENTS + OTHER_EVENTS if frame_held_out(frame, noun)
)


def _usable(vocabulary: Vocabulary, century: str, year: str) -> bool:
    """Whether "1352" is the tokens of " 13" and of "52", and "52" by itself is that same token."""
    before, both = vocabulary.ids("year " + century), vocabulary.ids(f"year {century}{year}")
    return vocabulary.single(" " + century) and both[:-1] == before and both[-1:] == vocabulary.ids(year)


def _generate(vocabulary: Vocabulary, n: int, seed: int) -> Pairs:
    nouns = set(vocabulary.need(EVENTS + OTHER_EVENTS, "greater-than", "nouns", 3))
    frames = tuple((frame, noun) for frame, noun in HELD_OUT_FRAMES if noun in nouns)
    answers = tuple(year for year in TWO_DIGITS if vocabulary.count(year) == 1)
    if len(answers) < 90:
        raise TooFewWords("greater-than", "two-digit numbers", len(answers), 90)
    years = tuple(
        (century, year)
        for century in CENTURIES
        if _usable(vocabulary, century, CORRUPTED_YEAR)
        for year in YEARS
        if _usable(vocabulary, century, year) and year < answers[-1]
    )
    if len(years) < 20:
        raise TooFewWords("greater-than", "years that split into two and two digits", len(years), 20)

    def draw(rng: random.Random) -> Example:
        (frame, noun), (century, year) = rng.choice(frames), rng.choice(years)
        # The year's two tokens are rendered as two slots, so that each has its span.
        template = frame.replace("{start}", "{first}{year}")
        slots = {"noun": noun, "first": century, "year": year, "century": century}
        clean, where = render(template, slots)
        corrupted, _ = render(template, {**slots, "year": CORRUPTED_YEAR})
        named = {"noun": "noun", "first": "century", "year": "year", "century": "last_century"}
        spans = {name: where[slot] for slot, name in named.items()}
        later = tuple(answer for answer in answers if int(answer) > int(year))
        return Example(clean, corrupted, later, answers[: -len(later)], spans)

    return collect(vocabulary, n, seed, "greater-than", draw)


GREATER_THAN = BundledTask(
    "greater-than", "greater-than: an end year comes after the start year", "prob_diff", _generate
)
