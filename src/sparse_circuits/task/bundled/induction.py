"""Induction: a random sequence of words comes again -> the word that followed the first time.

The corrupted prompt swaps two words of the first occurrence, so that both prompts hold the same words and only their
order tells what comes next. No two prompts are likely to agree, so nothing needs to be held out.
"""

import random

from sparse_circuits.task.bundled.base import BundledTask, Example, Pairs, Vocabulary, collect, render
from sparse_circuits.task.bundled.words import PLAIN_WORDS

OPENER = "Words:"
LENGTHS = range(5, 13)


def _generate(vocabulary: Vocabulary, n: int, seed: int) -> Pairs:
    words = vocabulary.need(PLAIN_WORDS, "induction", "plain words", 2 * max(LENGTHS))

    def draw(rng: random.Random) -> Example:
        first = rng.sample(words, rng.choice(LENGTHS))
        # At least two words are repeated before the answer, and the word it is swapped with comes later.
        answer = rng.randrange(2, len(first) - 1)
        other = rng.randrange(answer + 1, len(first))
        swapped = list(first)
        swapped[answer], swapped[other] = first[other], first[answer]
        again = first[:answer]
        slots = {f"w{i}": word for i, word in enumerate([*first, *again])}
        template = OPENER + "".join(f" {{{slot}}}" for slot in slots)
        clean, where = render(template, slots)
        corrupted, _ = render(template, {f"w{i}": word for i, word in enumerate([*swapped, *again])})
        spans = {"context": where[f"w{answer - 1}"], "source": where[f"w{answer}"]}
        return Example(clean, corrupted, (" " + first[answer],), (" " + first[other],), spans)

    return collect(vocabulary, n, seed, "induction", draw)


INDUCTION = BundledTask("induction", "induction: a random sequence of words is repeated", "logit_diff", _generate)
