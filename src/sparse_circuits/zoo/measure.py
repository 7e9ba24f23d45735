"""What the bundled model can do: accuracies on the bundled tasks and on published files.

Accuracy is the share of prompts whose correct answer has the larger logit after `BOS + prompt`. Greater-than has a
mean difference of probabilities instead, over the softmax of the whole vocabulary.
"""

import csv
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from sparse_circuits.task.bundled import BUNDLED, Pairs, Vocabulary
from sparse_circuits.task.bundled.words import NAMES, TWO_DIGITS
from sparse_circuits.zoo import language

# A seed apart from the training text's.
SEED = 20_000


@dataclass(frozen=True)
class Measurement:
    """One number, what it is of, and what the issue asked of it."""

    name: str
    source: str
    measure: str
    examples: int
    value: float
    wanted: float | None = None


@dataclass(frozen=True)
class Toy:
    """A trained model with its tokenizer, ready to be measured."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def load(cls, folder: Path) -> "Toy":
        """Load from a Hugging Face folder."""
        model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        return cls(model.eval(), PreTrainedTokenizerFast.from_pretrained(folder))

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token ids by word."""
        return self.tokenizer.get_vocab()

    def ids(self, prompt: str) -> list[int]:
        """BOS and the prompt's token ids; ValueError if one of its words is unknown."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False)
        if self.tokenizer.unk_token_id in ids:
            raise ValueError(f"the bundled tokenizer does not know every word of {prompt!r}")
        return [self.vocabulary[language.BOS], *ids]

    def word(self, answer: str) -> int:
        """The id of a one-word answer; KeyError if it is unknown."""
        return self.vocabulary[answer.strip()]

    @torch.no_grad()
    def logits(self, rows: Sequence[Sequence[int]], batch: int = 128) -> list[torch.Tensor]:
        """For each row of token ids the logits at its positions, [pos, vocab]."""
        found: list[torch.Tensor] = []
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            longest = max(map(len, part))
            # Padding on the right can't reach earlier positions.
            padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in part])
            logits = self.model(input_ids=padded).logits
            found += [logits[i, : len(row)] for i, row in enumerate(part)]
        return found

    def last_logits(self, prompts: Iterable[str]) -> torch.Tensor:
        """Logits after each prompt, [prompt, vocab]."""
        return torch.stack([logits[-1] for logits in self.logits([self.ids(prompt) for prompt in prompts])])


def answer_scores(toy: Toy, pairs: Pairs, *, probabilities: bool) -> torch.Tensor:
    """Correct minus incorrect, per example: probabilities summed over the answers, or the one answers' logits."""
    values = toy.last_logits(pairs.clean)
    if probabilities:
        values = values.softmax(-1)
    rows = zip(values, pairs.correct, pairs.incorrect, strict=True)
    sums = [
        value[list(map(toy.word, right))].sum() - value[list(map(toy.word, wrong))].sum()
        for value, right, wrong in rows
    ]
    return torch.stack(sums)


def top_one(toy: Toy, pairs: Pairs) -> float:
    """The share of prompts after which the correct answer is the most likely token of all."""
    values = toy.last_logits(pairs.clean)
    right = torch.tensor([toy.word(answers[0]) for answers in pairs.correct])
    return float((values.argmax(-1) == right).float().mean())


def repetition_accuracy(toy: Toy, n: int, seed: int) -> float:
    """Top-1 accuracy on the second occurrence of random sequences of 5 to 20 words from across the vocabulary.

    The second occurrence's first word is left out: nothing says yet that the sequence comes again.
    """
    rng = random.Random(f"repetition/{seed}")
    words = [word for word in language.vocabulary() if word[0].isalnum()]
    sequences = [rng.sample(words, rng.randint(5, 20)) for _ in range(n)]
    right = total = 0
    rows = [toy.ids(" ".join(sequence * 2)) for sequence in sequences]
    for row, sequence, logits in zip(rows, sequences, toy.logits(rows), strict=True):
        # The tokens from the second word of the repetition on, each predicted one position earlier.
        first = 1 + len(sequence) + 1
        right += int((logits[first - 1 : -1].argmax(-1) == torch.tensor(row[first:])).sum())
        total += len(row) - first
    return right / total


def on_bundled_tasks(toy: Toy, n: int, seed: int = SEED) -> list[Measurement]:
    """Each bundled task's number on `n` generated examples, all of combinations held out from training."""
    vocabulary = Vocabulary(toy.tokenizer)
    found: list[Measurement] = []
    for name, task in BUNDLED.items():
        pairs = task.generate(vocabulary, n, seed)
        if task.metric == "prob_diff":
            value = float(answer_scores(toy, pairs, probabilities=True).mean())
            found.append(Measurement(name, "generated", "probability difference", n, value, 0.8))
            continue
        value = float((answer_scores(toy, pairs, probabilities=False) > 0).float().mean())
        wanted = None if name == "induction" else 0.95
        found.append(Measurement(name, "generated", "accuracy", n, value, wanted))
        if name == "induction":
            found.append(Measurement(name, "generated", "top-1 accuracy, last word", n, top_one(toy, pairs), 0.9))
            value = repetition_accuracy(toy, n, seed)
            found.append(Measurement(name, "random words", "top-1 accuracy, second occurrence", n, value, 0.9))
    return found


def read_ioi(path: Path) -> Pairs:
    """EAP-IG's `ioi.csv`: the answer is the name that the clean prompt has once, the wrong one the name it repeats."""
    clean, corrupted, correct, incorrect = [], [], [], []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            names = [word for word in language.split(row["clean"]) if word in NAMES]
            clean.append(row["clean"])
            corrupted.append(row["corrupted"])
            correct.append(tuple(" " + name for name in names if names.count(name) == 1))
            incorrect.append(tuple({" " + name for name in names if names.count(name) == 2}))
    return Pairs(tuple(clean), tuple(corrupted), tuple(correct), tuple(incorrect))


def read_greater_than(path: Path) -> Pairs:
    """EAP-IG's `greater_than.csv`: every two-digit year later than the label is correct."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    years = [int(row["label"]) for row in rows]
    return Pairs(
        tuple(row["clean"] for row in rows),
        tuple(row["corrupted"] for row in rows),
        tuple(TWO_DIGITS[year + 1 :] for year in years),
        tuple(TWO_DIGITS[: year + 1] for year in years),
    )


def read_agreement(path: Path) -> Pairs:
    """feature-circuits' JSON lines."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return Pairs(
        tuple(row["clean_prefix"] for row in rows),
        tuple(row["patch_prefix"] for row in rows),
        tuple((row["clean_answer"],) for row in rows),
        tuple((row["patch_answer"],) for row in rows),
    )


PUBLISHED: dict[str, tuple[str, Callable[[Path], Pairs]]] = {
    "ioi.csv": ("ioi", read_ioi),
    "greater_than.csv": ("greater-than", read_greater_than),
    **{
        f"{file}_{part}.jsonl": (name, read_agreement)
        for file, name in (("sva_simple", "sva-simple"), ("sva_nounpp", "sva-pp"), ("sva_within_rc", "sva-within-rc"))
        for part in ("train", "test")
    },
}


def on_published_files(toy: Toy, folder: Path, limit: int | None = None) -> list[Measurement]:
    """The same on the published files in `folder`, the first `limit` prompts of each."""
    found: list[Measurement] = []
    for file, (name, read) in PUBLISHED.items():
        pairs = read(folder / file)
        pairs = Pairs(pairs.clean[:limit], pairs.corrupted[:limit], pairs.correct[:limit], pairs.incorrect[:limit])
        n = len(pairs.clean)
        if BUNDLED[name].metric == "prob_diff":
            value = float(answer_scores(toy, pairs, probabilities=True).mean())
            found.append(Measurement(name, file, "probability difference", n, value, 0.8))
        else:
            value = float((answer_scores(toy, pairs, probabilities=False) > 0).float().mean())
            found.append(Measurement(name, file, "accuracy", n, value, 0.95))
    return found
