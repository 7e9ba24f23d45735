"""Indirect object identification: "Then, Aaron and Amber went ... Aaron gave a ring to" -> " Amber".

A template is a frame (how the two clauses are joined), a setting and a giving. Setting and giving fit together when
"it" in the giving has an object in the setting to refer to.
"""

import random
from typing import NamedTuple

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
from sparse_circuits.task.bundled.words import NAMES, OBJECTS, PLACES


class Template(NamedTuple):
    """One way to say it; the frame has `{setting}` and `{giving}` in it."""

    frame: str
    setting: str
    giving: str

    @property
    def text(self) -> str:
        """The prompt with its slots: {A}, {B}, {S2}, and {place} and {object} where the template has them."""
        return self.frame.replace("{setting}", self.setting).replace("{giving}", self.giving)


FRAMES = (
    *(
        f"{opener} {{A}} and {{B}} {{setting}}. {{S2}} {{giving}} to"
        for opener in ("Then,", "Later,", "Afterwards,", "Yesterday,", "One day,", "Last week,", "Friends", "Today,")
    ),
    *(f"{opener} {{A}} and {{B}} {{setting}}, {{S2}} {{giving}} to" for opener in ("When", "After", "While", "Once")),
    *(
        f"{opener} {{A}} and {{B}} {{setting}}, and {adverb} {{S2}} {{giving}} to"
        for opener in ("Then,", "Yesterday,", "Today,", "Later,")
        for adverb in ("afterwards", "then")
    ),
)
SETTINGS = (
    "went to the {place}",
    "were working at the {place}",
    "were thinking about going to the {place}",
    "had a lot of fun at the {place}",
    "met at the {place}",
    "spent the day at the {place}",
    "walked to the {place}",
    "were sitting in the {place}",
    "had lunch at the {place}",
    "arrived at the {place}",
    "talked at the {place}",
    "were waiting outside the {place}",
    "had a long argument",
    "had a long talk",
    "had a very good day",
    "were good friends",
)
SETTINGS_WITH_OBJECT = (
    "got a {object} at the {place}",
    "found a {object} at the {place}",
    "bought a {object} at the {place}",
    "saw a {object} in the {place}",
    "lost a {object} near the {place}",
)
GIVINGS = (
    "gave a {object}",
    "decided to give a {object}",
    "wanted to give a {object}",
    "handed a {object}",
    "offered a {object}",
    "sent a {object}",
    "showed a {object}",
    "passed a {object}",
    "brought a {object}",
    "said",
    "said hello",
    "spoke",
)
GIVINGS_OF_IT = ("decided to give it", "gave it", "handed it", "wanted to show it", "sold it", "brought it")

TEMPLATES = tuple(
    Template(frame, setting, giving)
    for settings, givings in ((SETTINGS, GIVINGS), (SETTINGS_WITH_OBJECT, GIVINGS_OF_IT))
    for frame in FRAMES
    for setting in settings
    for giving in givings
)
# Whole templates of a published data set (EAP-IG's ioi.csv): never in the bundled model's training text.
PUBLISHED_TEMPLATES = (
    "Then, {A} and {B} had a lot of fun at the {place}. {S2} gave a {object} to",
    "When {A} and {B} got a {object} at the {place}, {S2} decided to give it to",
    "Then, {A} and {B} had a long argument, and afterwards {S2} said to",
    "Then, {A} and {B} were working at the {place}. {S2} decided to give a {object} to",
    "Then, {A} and {B} were thinking about going to the {place}. {S2} wanted to give a {object} to",
    "After {A} and {B} went to the {place}, {S2} gave a {object} to",
    "Then, {A} and {B} went to the {place}. {S2} gave a {object} to",
)


def template_held_out(template: Template) -> bool:
    """Whether the bundled model never saw this template."""
    return template.text in PUBLISHED_TEMPLATES or held_out("ioi", template.text)


def names_held_out(first: str, second: str) -> bool:
    """Whether the bundled model never saw these two names, in either order, in one of these sentences."""
    return held_out("names", *sorted((first, second)))


HELD_OUT_TEMPLATES = tuple(template for template in TEMPLATES if template_held_out(template))


def _generate(vocabulary: Vocabulary, n: int, seed: int) -> Pairs:
    names = vocabulary.need(NAMES, "ioi", "names", 12)
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :] if names_held_out(a, b))
    if not pairs:
        raise TooFewWords("ioi", "pairs of names", 0, 1)
    places = vocabulary.need(PLACES, "ioi", "places", 3)
    objects = vocabulary.need(OBJECTS, "ioi", "objects", 3)

    def draw(rng: random.Random) -> Example:
        a, b = rng.sample(rng.choice(pairs), 2)
        indirect, subject = rng.sample((a, b), 2)
        third = rng.choice([name for name in names if name not in (a, b)])
        slots = {"A": a, "B": b, "S2": subject, "place": rng.choice(places), "object": rng.choice(objects)}
        template = rng.choice(HELD_OUT_TEMPLATES).text
        clean, where = render(template, slots)
        corrupted, _ = render(template, {**slots, "S2": third})
        first = ("A", "B") if subject == a else ("B", "A")
        named = {first[0]: "subject", first[1]: "indirect_object", "S2": "second_subject"}
        spans = {name: where[slot] for slot, name in named.items()}
        return Example(clean, corrupted, (" " + indirect,), (" " + subject,), spans)

    return collect(vocabulary, n, seed, "ioi", draw)


IOI = BundledTask("ioi", "indirect object identification: which of two names comes next", "logit_diff", _generate)
