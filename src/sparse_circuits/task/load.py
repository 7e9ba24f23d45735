"""One door to every task: bundled ones by name, files by their ending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_circuits.errors import InputError
from sparse_circuits.task.metrics import LogitDiff, ProbDiff
from sparse_circuits.task.task import Task


def load_task(source: str | Path, model: Any, *, n: int | None = None, seed: int = 0) -> Task:
    """A bundled task by name, or a file.

    Args:
        source: "ioi", "greater-than" and so on (``sparse-circuits tasks`` lists them); a ``.csv`` or
            ``.jsonl`` with ``clean``, ``correct``, and where there are any ``corrupted`` and ``incorrect``; a ``.csv`` in
            EAP-IG's columns; a ``.jsonl`` in feature-circuits' fields.
        model: the model whose tokenizer the prompts must suit.
        n: number of examples; by default 100 of a bundled task, all of a file.
        seed: of a bundled task's generator.

    Returns:
        A task that was checked against the model, with equal lengths in each pair and answers of one token. Bundled tasks
        name the spans of tokens that matter ("subject", "last"), as a ``.jsonl`` may.

    Raises:
        InputError: for an unknown name, a missing file, too few words that are single tokens, or a bad row, naming it.
        FileFormatError: for an empty file, a missing column or cell, or a line that cannot be read, naming it.
    """
    from sparse_circuits.model import anatomy_of
    from sparse_circuits.task.bundled import BUNDLED

    if n is not None and n < 1:
        raise InputError(f"load_task(n={n}): expected at least 1 example.")
    name = str(source)
    if name in BUNDLED:
        task = _bundled(name, model, 100 if n is None else n, seed)
    elif Path(source).suffix in (".csv", ".jsonl"):
        from sparse_circuits.task.files import read_csv, read_jsonl

        path = Path(source)
        if not path.is_file():
            raise InputError(f"No task file at {name}.")
        task = read_csv(path, model) if path.suffix == ".csv" else read_jsonl(path)
        if n is not None and n > len(task):
            raise InputError(f"{name} holds {len(task)} examples; {n} were asked for.")
        task = task if n is None else task[:n]
    else:
        raise InputError(f"Unknown task {name!r}; expected one of {', '.join(BUNDLED)}, or a .csv or .jsonl file.")
    task.tokenized(model, anatomy_of(model), corrupted=task.corrupted is not None)
    return task


def _bundled(name: str, model: Any, n: int, seed: int) -> Task:
    from sparse_circuits.task.bundled import BUNDLED, Vocabulary

    if getattr(model, "tokenizer", None) is None:
        raise InputError(f"Task {name!r} is text, but the model has no tokenizer; build a Task from token ids instead.")
    bundled = BUNDLED[name]
    pairs = bundled.generate(Vocabulary(model.tokenizer), n, seed)
    metric = {"logit_diff": LogitDiff, "prob_diff": ProbDiff}[bundled.metric](pairs.correct, pairs.incorrect)
    return Task(pairs.clean, pairs.corrupted, metric=metric, name=name, spans=pairs.spans)
