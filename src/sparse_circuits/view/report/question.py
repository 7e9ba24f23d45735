"""The question: what was asked of the model, on which prompts, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from torch import Tensor

from sparse_circuits.task import LogitDiff, ProbDiff, Task
from sparse_circuits.task.metrics import PositionMetric
from sparse_circuits.task.tokens import token_text
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.markup import Html, Piece, bounded, join, number, share, table, tag

_METRICS = {
    "LogitDiff": "the logit of the right answer minus that of the wrong one",
    "ProbDiff": "the probability of the right answers minus that of the wrong ones",
    "LogProb": "the log-probability of the right answer",
    "NegativeKL": "minus the divergence of the next token's distribution from that of the whole model on the clean prompt",
    "CrossEntropy": "the mean log-probability of the prompt's own tokens",
}
_SHOWN, _ANSWERS = 5, 4


def question(g: Given) -> Html:
    name = str(g.known.get("task") or (g.task.name if g.task is not None else "an unnamed task"))
    asked = tag("p", tag("strong", name), f": {g.question}" if g.question else "", class_="lead")
    return join(asked, _pairs(g), tag("p", _metric(g)), _values(g))


def _metric(g: Given) -> Piece:
    name = _metric_name(g)
    meaning = f", {_METRICS[name]}" if name in _METRICS else ""
    text = f"The metric is {name}{meaning}; higher is more of the behaviour."
    if _compares(g.task):
        text += " It is above 0 where the right answer is preferred."
    return text


def _metric_name(g: Given) -> str:
    if g.task is None:
        return str(g.known.get("metric", "not recorded"))
    return type(g.task.metric).__name__ if isinstance(g.task.metric, PositionMetric) else _own(g.task.metric)


def _own(metric: Any) -> str:
    return getattr(metric, "__qualname__", type(metric).__qualname__)


def _values(g: Given) -> Html:
    """The metric at both ends and of the circuit; with the share of prompts above 0 where that says something."""
    e, compares = g.evaluation, _compares(g.task)
    rows: list[tuple[str, Tensor, str]] = [("whole model, clean prompts", e.clean, "1.00")]
    rows.append(("only the circuit", e.per_example, bounded(e.faithfulness, e.faithfulness_interval)))
    rows.append(("none of the circuit", e.empty, "0.00"))
    if g.corrupted is not None:
        rows.append(("whole model, corrupted prompts", g.corrupted, ""))
    columns = ["", f"mean {_metric_name(g)}", *(["right answer preferred"] if compares else []), "faithfulness"]
    cells = [
        [name, number(float(values.double().mean())), *([share(float((values > 0).double().mean()))] if compares else []), f]
        for name, values, f in rows
    ]  # fmt: skip
    return table(f"How well the model does, and how well with parts of it only ({g.n:,} prompts)", columns, cells)


def _compares(task: Task | None) -> bool:
    return task is not None and isinstance(task.metric, LogitDiff | ProbDiff)


def _pairs(g: Given) -> Html | None:
    task = g.task
    if task is None:
        return tag("p", "The prompts were not given.", class_="missing")
    answers = {side: getattr(task.metric, side, None) for side in ("correct", "incorrect")}
    answers = {side: given for side, given in answers.items() if given is not None}
    columns = ["clean prompt", *(["corrupted prompt"] if task.corrupted else [])]
    columns += [{"correct": "right answer", "incorrect": "wrong answer"}[side] for side in answers]
    columns += ["metric", *(["corrupted"] if g.corrupted is not None else [])]
    rows = []
    for i in range(min(_SHOWN, len(task))):
        row: list[Piece] = list(_pair(g, task, i))
        at = task.index[i] if task.index is not None else i
        row += [_answer(g, given[at]) for given in answers.values()]
        row.append(number(float(g.evaluation.clean[i])))
        if g.corrupted is not None:
            row.append(number(float(g.corrupted[i])))
        rows.append(row)
    text = range(len(columns) - 1 - (g.corrupted is not None))
    caption = f"The first {len(rows)} of {len(task):,} prompts" if len(rows) < len(task) else "The prompts"
    return table(caption, columns, rows, text=text)


def _pair(g: Given, task: Task, row: int) -> tuple[Html, ...]:
    """Clean and corrupted prompt, marked where they differ."""
    clean = words(g, task.clean[row])
    both = (join(*clean),) if task.corrupted is None else _marked(clean, words(g, task.corrupted[row]))
    return tuple(tag("div", prompt, class_="prompt") for prompt in both)


def words(g: Given, prompt: Any) -> list[str]:
    """A prompt in pieces: words with the space before them, or tokens."""
    if isinstance(prompt, str):
        first, *rest = prompt.split(" ")
        return [first, *(f" {word}" for word in rest)]
    tokenizer = getattr(g.model, "tokenizer", None)
    return [token_text(tokenizer, int(token)) + ("" if tokenizer is not None else " ") for token in prompt]


def _marked(a: Sequence[str], b: Sequence[str]) -> tuple[Html, Html]:
    out: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, *ends in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for side, pieces, (start, stop) in zip(out, (a, b), (ends[:2], ends[2:]), strict=True):
            text = "".join(pieces[start:stop])
            bare = text.lstrip(" ")
            if bare and kind != "equal":
                side += [text[: len(text) - len(bare)], tag("mark", bare)]
            elif text:
                side.append(text)
    return join(*out[0]), join(*out[1])


def _answer(g: Given, answer: Any) -> str:
    """One acceptable answer, or the first few of them."""
    several = [answer] if isinstance(answer, str) or not hasattr(answer, "__len__") else list(answer)
    tokenizer = getattr(g.model, "tokenizer", None)
    shown = [one if isinstance(one, str) else token_text(tokenizer, int(one)) for one in several[:_ANSWERS]]
    rest = len(several) - len(shown)
    return ", ".join(text.strip() or repr(text) for text in shown) + (f" and {rest} more" if rest else "")
