"""What a task measures: one number per example from the logits; higher is the behaviour.

Any callable ``f(logits, batch) -> [examples]`` is a metric, with logits ``[examples, pos, vocab]``. The ones here read a
single position, the last real token unless ``position`` says otherwise, and the library then computes logits there only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.task.batch import Batch

__all__ = ["Answer", "CrossEntropy", "LogProb", "LogitDiff", "Metric", "NegativeKL", "PositionMetric", "ProbDiff"]

Metric = Callable[[Tensor, Batch], Tensor]
Answer = str | int | Sequence[str] | Sequence[int]
"""One example's acceptable answers: a token (as a string or an id), or several."""
Encode = Callable[[str], list[int] | None]
"""Token ids of a text; None where the tokenizer has no tokens for it, only its unknown one."""


class PositionMetric(ABC):
    """A metric that reads the logits at one position of each example.

    ``position`` is that position in each prompt (negative counts back from the last real token, -1); BOS counts.
    """

    position: int = -1
    needs_clean_logits = False
    flat_at_clean = False

    @abstractmethod
    def at(self, logits: Tensor, batch: Batch) -> Tensor:
        """The metric from the logits at its position: ``[examples, vocab]`` to ``[examples]``."""

    def rows(self, lengths: Tensor) -> Tensor:
        """Where each example is read: int64 ``[examples]``."""
        rows = torch.full_like(lengths, self.position) if self.position >= 0 else lengths + self.position
        if bool((rows < 0).any()) or bool((rows >= lengths).any()):
            raise InputError(
                f"{type(self).__name__}(position={self.position}) lies outside a prompt of {int(lengths.min())} tokens."
            )
        return rows

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        rows = self.rows(batch.lengths)
        return self.at(logits[torch.arange(len(rows), device=logits.device), rows], batch)

    def resolved(self, encode: Encode | None, n_examples: int, d_vocab: int) -> PositionMetric:
        """This metric with every answer as token ids.

        Raises:
            InputError: for an answer that is not one token, naming its row, or answers that do not match the examples.
        """
        return self


@dataclass(frozen=True)
class _AnswerMetric(PositionMetric, ABC):
    """Compares answers: per example one token, or several."""

    correct: Sequence[Answer]
    incorrect: Sequence[Answer]
    position: int = -1

    def resolved(self, encode: Encode | None, n_examples: int, d_vocab: int) -> PositionMetric:
        def ids(side: str) -> tuple[tuple[int, ...], ...]:
            return _resolve(type(self).__name__, side, getattr(self, side), encode, n_examples, d_vocab)

        return replace(self, correct=ids("correct"), incorrect=ids("incorrect"))

    def _masks(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Correct and incorrect answers as 0/1 masks over the vocabulary, ``[examples, vocab]``."""
        return _mask(self.correct, logits, batch), _mask(self.incorrect, logits, batch)


@dataclass(frozen=True)
class LogitDiff(_AnswerMetric):
    """Logit of the correct answer minus logit of the incorrect one (several answers: their mean logit).

    m = mean_{t in correct} logit_t - mean_{t in incorrect} logit_t, in nats. Wang et al. 2023 (arXiv:2211.00593).
    """

    def at(self, logits: Tensor, batch: Batch) -> Tensor:
        right, wrong = self._masks(logits, batch)
        return (logits * (right / right.sum(-1, keepdim=True) - wrong / wrong.sum(-1, keepdim=True))).sum(-1)


@dataclass(frozen=True)
class ProbDiff(_AnswerMetric):
    """Probability of the correct answers minus that of the incorrect ones, softmax over the full vocabulary.

    m = sum_{t in correct} p_t - sum_{t in incorrect} p_t, between -1 and 1. Greater-than: Hanna et al. 2023
    (arXiv:2305.00586).
    """

    def at(self, logits: Tensor, batch: Batch) -> Tensor:
        right, wrong = self._masks(logits, batch)
        return (logits.softmax(-1) * (right - wrong)).sum(-1)


@dataclass(frozen=True)
class LogProb(PositionMetric):
    """Log-probability of the correct answer (several: of any of them), in nats: m = log sum_{t in correct} p_t."""

    correct: Sequence[Answer]
    position: int = -1

    def resolved(self, encode: Encode | None, n_examples: int, d_vocab: int) -> PositionMetric:
        return replace(self, correct=_resolve("LogProb", "correct", self.correct, encode, n_examples, d_vocab))

    def at(self, logits: Tensor, batch: Batch) -> Tensor:
        right = _mask(self.correct, logits, batch)
        return logits.log_softmax(-1).masked_fill(right == 0, -torch.inf).logsumexp(-1)


@dataclass(frozen=True)
class NegativeKL(PositionMetric):
    """Minus the KL divergence of the next-token distribution from the clean run's, in nats: m = -sum_t p_t log(p_t / q_t).

    p is the unablated model on the clean prompt, q the run in question. The maximum, 0, is at the clean run, where the
    gradient is zero too: a method that takes its only gradient there cannot use it (:class:`EAP` refuses).
    """

    position: int = -1
    needs_clean_logits = True
    flat_at_clean = True

    def at(self, logits: Tensor, batch: Batch) -> Tensor:
        if batch.clean_logits is None:
            raise InputError("NegativeKL needs the clean logits, but the batch has none.")
        clean = batch.clean_logits
        if clean.dim() == 3:
            clean = clean[torch.arange(len(clean), device=clean.device), self.rows(batch.lengths)]
        p, q = clean.log_softmax(-1), logits.log_softmax(-1)
        return -(p.exp() * (p - q)).sum(-1)


@dataclass(frozen=True)
class CrossEntropy:
    """Minus the next-token cross-entropy of the prompt itself, averaged over all positions that have a next token, in nats:
    m = mean_i log p(token_{i+1} | tokens up to i). For plain text, which needs no answers: higher is better prediction.

    Logits are computed at all positions.
    """

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        if bool((batch.lengths < 2).any()):
            raise InputError(
                "CrossEntropy needs prompts of at least 2 tokens: a single one has no next token to predict."
            )
        found = logits[:, :-1].log_softmax(-1).gather(-1, batch.tokens[:, 1:, None])[..., 0]
        return (found * batch.real[:, 1:]).sum(1) / (batch.lengths - 1)


def _resolve(
    metric: str, side: str, answers: Sequence[Answer], encode: Encode | None, n_examples: int, d_vocab: int
) -> tuple[tuple[int, ...], ...]:
    if isinstance(answers, str) or not hasattr(answers, "__len__"):
        raise InputError(f"{metric}({side}=...): expected one answer per example, got {answers!r}.")
    if len(answers) != n_examples:
        raise InputError(
            f"{metric}({side}=...): {len(answers)} answers for {n_examples} examples; expected one per example."
        )
    resolved = []
    seen: dict[str, int] = {}
    for row, answer in enumerate(answers):
        given = several(answer)
        if not given:
            raise InputError(f"{metric}: row {row} has no {side} answer.")
        for one in given:
            if isinstance(one, str) and one not in seen:
                seen[one] = _one_token(metric, side, row, one, encode)
            if not isinstance(one, str) and not 0 <= int(one) < d_vocab:
                raise InputError(
                    f"{metric}: row {row}: {side} answer {one} is not a token id of this model (0 to {d_vocab - 1})."
                )
        resolved.append(tuple(seen[one] if isinstance(one, str) else int(one) for one in given))
    return tuple(resolved)


def several(answer: Any) -> list[str | int]:
    """One example's answers as a list."""
    if isinstance(answer, str):
        return [answer]
    if isinstance(answer, Tensor):
        return answer.flatten().tolist()
    return list(answer) if hasattr(answer, "__len__") else [int(answer)]


def _one_token(metric: str, side: str, row: int, answer: str, encode: Encode | None) -> int:
    if encode is None:
        raise InputError(
            f"{metric}: row {row}: {side} answer {answer!r} is text, but the model has no tokenizer; give its token id."
        )
    ids = encode(answer)
    if ids is None:
        raise InputError(
            f"{metric}: row {row}: {side} answer {answer!r} is not in the vocabulary of this model's tokenizer, which would read "
            "it as its unknown token; choose a word that it has, or give a token id."
        )
    if len(ids) != 1:
        raise InputError(
            f"{metric}: row {row}: {side} answer {answer!r} is {len(ids)} tokens of this model's tokenizer; expected one "
            "(many tokenizers need the leading space, ' Mary')."
        )
    return ids[0]


def _mask(answers: Sequence[Any], logits: Tensor, batch: Batch) -> Tensor:
    # a batch can hold an example many times over, once for each change that is tried on it
    examples, place = batch.index.unique(return_inverse=True)
    rows, columns = [], []
    for row, example in enumerate(examples.tolist()):
        for answer in several(answers[example]):
            if isinstance(answer, str):
                raise InputError(f"Answer {answer!r} is text; called on its own, a metric needs token ids.")
            rows.append(row)
            columns.append(int(answer))
    mask = logits.new_zeros(len(examples), logits.shape[-1])
    mask[rows, columns] = 1
    return mask[place]
