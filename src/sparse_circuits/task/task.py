"""A task: prompts that show a behaviour, minimal counterfactuals, and a metric."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.metrics import Metric, PositionMetric, several
from sparse_circuits.task.positions import Positions, kept, spanned
from sparse_circuits.task.spans import Span, checked, placed

Prompt = str | Sequence[int]
# A private character and a word of no language: one token of both only where a tokenizer has an unknown one.
_NONSENSE = ("\ue000", "qxzjkvwq")


@dataclass(frozen=True)
class Example:
    """One example of a task.

    Attributes:
        index: its row in the original task, also in a slice of it.
        clean, corrupted: its prompts; ``corrupted`` is None where the task has none.
        correct, incorrect: its answers as the metric has them, text or token ids; None for a metric without such answers.
    """

    index: int
    clean: Prompt
    corrupted: Prompt | None
    correct: tuple[str | int, ...] | None
    incorrect: tuple[str | int, ...] | None


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Clean and corrupted prompts with a metric.

    Args:
        clean: the prompts that show the behaviour: strings, or lists of token ids (then nothing is prepended).
        corrupted: one minimal counterfactual for each, of the same length in tokens; None where no method or ablation
            needs them (ZERO and MEAN do not).
        metric: :class:`LogitDiff`, :class:`ProbDiff`, :class:`LogProb`, :class:`NegativeKL`, :class:`CrossEntropy`, or any
            callable ``f(logits, batch) -> [examples]``; higher is the behaviour.
        name: for titles and files.
        prepend_bos: whether strings get the tokenizer's BOS token in front; None follows the model.
        spans: names for token positions, one mapping per example and the same names in each: ``{"subject": (1, 3), "last":
            -1}``. A span is ``[start, stop)`` in the prompt's own tokens, or one position; a BOS token that the library
            prepends is not counted, negative positions count back from the end, and a span may be empty. Names become part of
            node names (``m3@subject``).
        index: the rows' numbers in the task that this one is a slice of; set by slicing.

    Rows may differ in length; they are right-padded and masked. ``task[:32]`` is a task too.

    Raises:
        InputError: for no prompts, unequal numbers of clean and corrupted prompts, a metric that cannot be called, or spans
            that do not fit the examples or cannot be named so.
    """

    clean: Sequence[Prompt]
    corrupted: Sequence[Prompt] | None = None
    metric: Metric = field(kw_only=True)
    name: str = field(default="custom", kw_only=True)
    prepend_bos: bool | None = field(default=None, kw_only=True)
    spans: Sequence[Mapping[str, Span]] | None = field(default=None, kw_only=True)
    index: Sequence[int] | None = field(default=None, kw_only=True)
    _total: int | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for side in ("clean", "corrupted"):
            prompts = getattr(self, side)
            if isinstance(prompts, str):
                raise InputError(
                    f"Task({side}=...): expected a list of prompts, got one string; write [{prompts[:30]!r}]."
                )
            if hasattr(prompts, "tolist"):  # a tensor or an array of token ids
                object.__setattr__(self, side, prompts.tolist())
        if len(self.clean) == 0:
            raise InputError("Task(clean=[]): expected at least one prompt.")
        if self.corrupted is not None and len(self.corrupted) != len(self.clean):
            raise InputError(
                f"Task: {len(self.clean)} clean prompts but {len(self.corrupted)} corrupted ones; expected one for each."
            )
        if not callable(self.metric):
            raise InputError(f"Task(metric={self.metric!r}): expected a metric such as LogitDiff(...), or a callable.")
        if self.spans is not None:
            object.__setattr__(self, "spans", checked(self.spans, len(self), f"Task {self.name!r}"))

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: int | slice | Sequence[int]) -> Task:
        """One or some of the examples, with the same metric and their spans; their ``index`` stays that of the original task."""
        all_rows = range(len(self))
        rows = [rows] if isinstance(rows, int) else rows
        picked = all_rows[rows] if isinstance(rows, slice) else [all_rows[i] for i in rows]
        if len(picked) == 0:
            raise InputError(f"Task slice {rows!r} holds no example; the task has {len(self)}.")
        index = self.index or range(len(self))
        return replace(
            self,
            clean=[self.clean[i] for i in picked],
            corrupted=None if self.corrupted is None else [self.corrupted[i] for i in picked],
            spans=None if self.spans is None else [self.spans[i] for i in picked],
            index=[index[i] for i in picked],
            _total=self._total or len(self),
        )

    @property
    def examples(self) -> tuple[Example, ...]:
        """Prompts and answers example by example, of a slice those that it holds.

        Each has ``index`` (its row in the original task), ``clean``, ``corrupted``, and where the metric has them ``correct`` and
        ``incorrect``, tuples of answers: ``task.examples[0].correct``.
        """
        return tuple(map(self._example, range(len(self))))

    def _example(self, row: int) -> Example:
        index = row if self.index is None else int(self.index[row])

        def answers(side: str) -> tuple[str | int, ...] | None:
            given = getattr(self.metric, side, None) if isinstance(self.metric, PositionMetric) else None
            return None if given is None else tuple(several(given[index]))

        other = None if self.corrupted is None else self.corrupted[row]
        return Example(index, self.clean[row], other, answers("correct"), answers("incorrect"))

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_task

        return of_task(self)

    def __repr__(self) -> str:
        metric = type(self.metric).__name__ if isinstance(self.metric, PositionMetric) else _name(self.metric)
        return f"Task({self.name!r}: {len(self)} example{'s' * (len(self) > 1)}, {metric}, the first {_short(self.clean[0])})"

    @property
    def hash(self) -> str:
        """A short fingerprint of prompts, metric and spans, for provenance."""
        metric = repr(self.metric) if isinstance(self.metric, PositionMetric) else _name(self.metric)
        content = [list(self.clean), list(self.corrupted or []), metric]
        if self.spans is not None:  # a task without spans keeps the fingerprint it had before there were any
            content.append(self.spans)
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]

    def tokenized(self, model: Any, anatomy: Anatomy, *, corrupted: bool) -> Prompts:
        """The prompts as tokens of a model, checked.

        Args:
            corrupted: whether the corrupted prompts are needed.

        Raises:
            InputError: naming the row: a pair of different lengths, an empty or overlong prompt, an id outside the
                vocabulary, text without a tokenizer, an answer that is not one token, a span outside the prompt; or if
                there are no corrupted prompts though they are needed.
        """
        if corrupted and self.corrupted is None:
            raise InputError(
                f"Task {self.name!r} has no corrupted prompts, which this method or ablation needs; "
                "pass Task(corrupted=...), or use Ablation.ZERO or Ablation.MEAN with a method that takes no path from them."
            )
        encode = Encoder(model, self.prepend_bos)
        clean = [self._ids(row, "clean", p, encode, anatomy) for row, p in enumerate(self.clean)]
        pairs: list[list[int]] | None = None
        if self.corrupted is not None:
            pairs = [self._ids(row, "corrupted", p, encode, anatomy) for row, p in enumerate(self.corrupted)]
            for row, (a, b) in enumerate(zip(clean, pairs, strict=True)):
                if len(a) != len(b):
                    raise InputError(
                        f"Task {self.name!r}, row {row}: the clean prompt is {len(a)} tokens and the corrupted one {len(b)}; "
                        f"expected equal lengths. Clean: {self.clean[row]!r}. Corrupted: {self.corrupted[row]!r}."
                    )
        metric = self.metric
        if isinstance(metric, PositionMetric):
            metric = metric.resolved(
                encode.answer if encode.tokenizer else None, self._total or len(self), anatomy.d_vocab_out
            )
            metric.rows(torch.tensor([len(ids) for ids in clean]))
        encode.warn_unknown(self.name)
        return Prompts(
            index=list(self.index or range(len(self))),
            clean=clean,
            corrupted=pairs,
            metric=metric,
            device=anatomy.device,
            spans=self._placed(clean, encode),
            name=self.name,
        )

    def _placed(self, clean: list[list[int]], encode: Encoder) -> list[dict[str, tuple[int, int]]] | None:
        """The spans in the tokens that run."""
        if self.spans is None:
            return None
        before = [encode.n_prepended if isinstance(prompt, str) else 0 for prompt in self.clean]
        return [
            placed(spans, len(ids) - bos, bos, f"Task {self.name!r}, row {row}")
            for row, (spans, ids, bos) in enumerate(zip(self.spans, clean, before, strict=True))
        ]

    def _ids(self, row: int, side: str, prompt: Prompt, encode: Encoder, anatomy: Anatomy) -> list[int]:
        where = f"Task {self.name!r}, row {row} ({side})"
        if isinstance(prompt, str):
            if encode.tokenizer is None:
                raise InputError(
                    f"{where}: the prompt is text, but the model has no tokenizer; give lists of token ids."
                )
            ids = encode.prompt(prompt)
        else:
            ids = [int(i) for i in prompt]
            if any(not 0 <= i < anatomy.d_vocab for i in ids):
                raise InputError(f"{where}: token ids must lie between 0 and {anatomy.d_vocab - 1}, got {ids}.")
        if not ids:
            raise InputError(f"{where}: the prompt is empty.")
        if anatomy.max_positions is not None and len(ids) > anatomy.max_positions:
            raise InputError(f"{where}: {len(ids)} tokens, but the model takes at most {anatomy.max_positions}.")
        return ids


def check_task(where: str, task: Any) -> None:
    """
    Raises:
        InputError: for anything but a task, such as its name.
    """
    if not isinstance(task, Task):
        raise InputError(f"{where}(task={task!r}): expected a Task, made by load_task(...) or Task(...).")


def _short(prompt: Prompt) -> str:
    text = repr(prompt)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"


def _name(metric: Metric) -> str:
    """What a metric of one's own is called; its representation holds an address that changes with every run."""
    return getattr(metric, "__qualname__", type(metric).__qualname__)


def unknown_ids(encode: Callable[[str], list[int]], declared: int | None) -> set[int]:
    """Ids of unknown tokens: the one that a tokenizer declares, and what it makes of texts that no vocabulary has.

    A tokenizer may have an unknown token without declaring it.
    """
    found = {ids[0] for ids in map(encode, _NONSENSE) if len(ids) == 1}
    return found if declared is None else found | {declared}


class Encoder:
    """A model's tokenizer, without special tokens but for the BOS that the model expects in front of a prompt."""

    def __init__(self, model: Any, prepend_bos: bool | None = None) -> None:
        self.tokenizer = getattr(model, "tokenizer", None)
        self._bos: list[int] = []
        self._unknown: set[str] = set()
        self._unknown_ids: set[int] = set()
        if self.tokenizer is not None:
            wanted = getattr(model.cfg, "default_prepend_bos", True) if prepend_bos is None else prepend_bos
            bos = self.tokenizer.bos_token_id
            if prepend_bos and bos is None:
                raise InputError("Task(prepend_bos=True): the model's tokenizer has no BOS token.")
            self._bos = [bos] if wanted and bos is not None else []
            self._unknown_ids = unknown_ids(self._encode, self.tokenizer.unk_token_id)

    @property
    def n_prepended(self) -> int:
        """Tokens put in front of a prompt: 1 if it gets a BOS token, else 0."""
        return len(self._bos)

    def prompt(self, text: str) -> list[int]:
        ids = self._encode(text)
        if self._lacks(text, ids):
            self._unknown.add(text)
        return self._bos + ids

    def answer(self, text: str) -> list[int] | None:
        """Token ids of an answer; None for one outside the vocabulary."""
        ids = self._encode(text)
        return None if self._lacks(text, ids) else ids

    def warn_unknown(self, name: str) -> None:
        if self._unknown:
            warnings.warn(
                f"Task {name!r}: {len(self._unknown)} prompts hold words outside the model's vocabulary, which become its "
                f"unknown token, for example {min(self._unknown)!r}.",
                stacklevel=4,
            )

    def _lacks(self, text: str, ids: list[int]) -> bool:
        """Whether a text became the unknown token somewhere, other than by naming it (GPT-2's is its end of text)."""
        found = self._unknown_ids.intersection(ids)
        return any(self.tokenizer.decode([i]).strip() not in text for i in found)  # pyright: ignore[reportOptionalMemberAccess]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportOptionalCall]


@dataclass(frozen=True, eq=False)
class Prompts:
    """A task in a model's tokens. Batches hold prompts of similar length, so that little is padded.

    ``spans`` are the task's as ``[start, stop)`` in these tokens, a BOS token included.
    """

    index: list[int]
    clean: list[list[int]]
    corrupted: list[list[int]] | None
    metric: Metric
    device: torch.device
    spans: list[dict[str, tuple[int, int]]] | None = None
    name: str = "custom"

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def n_positions(self) -> set[int]:
        return {len(ids) for ids in self.clean}

    def positions(self, kind: Literal["keep", "spans"]) -> Positions:
        """Groups of token positions.

        Args:
            kind: "keep" for one group per position, "0", "1" and so on, counted from the left with a BOS token included;
                "spans" for one per named span, in the order of the first example's names, and then "other" for the tokens
                in no span (a BOS token that the library prepends is always one), if there are any. A token in several
                spans is in the one that is named first.

        Raises:
            InputError: for another kind, or a task without spans.
        """
        lengths, where = [len(ids) for ids in self.clean], f"Task {self.name!r}"
        if kind == "keep":
            return kept(tuple(map(str, range(max(lengths)))), lengths, self.device, where)
        if kind != "spans":
            raise InputError(f"positions={kind!r}: expected 'keep' or 'spans'.")
        if self.spans is None:
            raise InputError(
                f"{where} has no named spans; pass Task(spans=...), or use a bundled task, which has them."
            )
        return spanned(None, self.spans, lengths, self.device, where)

    def positions_named(self, names: tuple[str, ...]) -> Positions:
        """The groups of these names, in this order: how a circuit's groups are found again in another task.

        Args:
            names: as :class:`Positions` has them: "0", "1" and so on are positions counted from the left, and there may be
                more of them than a prompt has tokens; others are spans, and "other" is the tokens in none of these.

        Raises:
            InputError: naming the row: a prompt longer than there are positions, a span that the task lacks, or a token in
                no span where there is no "other".
        """
        lengths, where = [len(ids) for ids in self.clean], f"Task {self.name!r}"
        if names and all(name.isdecimal() for name in names):
            return kept(tuple(names), lengths, self.device, where)
        return spanned(tuple(names), self.spans, lengths, self.device, where)

    def batches(self, size: int, positions: Positions | None = None) -> Iterator[tuple[Tensor, Batch]]:
        """Each batch with the rows (in this task, not the original one) that it holds, the longest prompts first.

        Args:
            positions: this task's; each batch then says which group every token is in.
        """
        # Where memory is too small, this shows at the first batch instead of after most of the work.
        order = sorted(range(len(self)), key=lambda row: -len(self.clean[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            lengths = torch.tensor([len(self.clean[row]) for row in rows], device=self.device)
            at = torch.tensor(rows)
            tokens = self._pad(self.clean, rows)
            yield (
                at,
                Batch(
                    index=torch.tensor([self.index[row] for row in rows], device=self.device),
                    tokens=tokens,
                    lengths=lengths,
                    corrupted=None if self.corrupted is None else self._pad(self.corrupted, rows),
                    groups=None if positions is None else positions.of(at, tokens.shape[1]),
                ),
            )

    def _pad(self, prompts: list[list[int]], rows: list[int]) -> Tensor:
        width = max(len(prompts[row]) for row in rows)
        return torch.tensor([prompts[row] + [0] * (width - len(prompts[row])) for row in rows], device=self.device)
