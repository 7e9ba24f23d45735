"""Tasks from files: EAP-IG's .csv and feature-circuits' .jsonl."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.task.metrics import LogitDiff, ProbDiff
from sparse_circuits.task.spans import checked
from sparse_circuits.task.task import Encoder, Task

_NAME = re.compile(r"\b[A-Z][\w'-]*")


def read_csv(path: Path, model: Any) -> Task:
    """A task in EAP-IG's columns: ``clean``, ``corrupted``, and what the answer is.

    - ``label``, a two-digit year: later years against that year and earlier ones, as :class:`ProbDiff`.
    - ``correct_idx``, ``incorrect_idx``: token ids, as :class:`LogitDiff`. Files carry the ids of the tokenizer that they
      were made with: they are used only if in this model's tokenizer they are the name that the clean prompt mentions
      once and the name that it repeats; otherwise these two names are read off the prompt.

    Raises:
        FileFormatError: for an empty file or a missing column. InputError: for a row without an answer, naming it.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    _require(path, rows, ("clean", "corrupted"))
    clean, corrupted = ([row[column] for row in rows] for column in ("clean", "corrupted"))
    if "label" in rows[0]:
        metric: Any = _later_years(path, [row["label"] for row in rows])
    elif "correct_idx" in rows[0] and "incorrect_idx" in rows[0]:
        metric = _two_names(path, rows, model)
    else:
        raise FileFormatError(
            f"{path.name}: expected a column 'label', or 'correct_idx' and 'incorrect_idx'; found {', '.join(rows[0])}."
        )
    return Task(clean, corrupted, metric=metric, name=path.stem)


def read_jsonl(path: Path) -> Task:
    """A task in feature-circuits' fields: ``clean_prefix``, ``patch_prefix``, ``clean_answer``, ``patch_answer``.

    A field ``spans``, in every row or in none, names token positions as :class:`Task` takes them: ``{"subject": [1, 3],
    "last": -1}``.

    Raises:
        FileFormatError: for an empty file, a line that is not JSON, or a missing field, naming the row. InputError: for
            spans that cannot be used, naming it.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"{path.name}, row {number}: not a line of JSON ({error}).") from None
        if not isinstance(row, dict):
            raise FileFormatError(f"{path.name}, row {number}: expected a JSON object, got {type(row).__name__}.")
        rows.append(row)
    _require(path, rows, ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer"))
    metric = LogitDiff([row["clean_answer"] for row in rows], [row["patch_answer"] for row in rows])
    return Task(
        [row["clean_prefix"] for row in rows],
        [row["patch_prefix"] for row in rows],
        metric=metric,
        name=path.stem,
        spans=_spans(path, rows),
    )


def _spans(path: Path, rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]] | None:
    if all(row.get("spans") is None for row in rows):
        return None
    _require(path, rows, ("spans",))
    return checked([row["spans"] for row in rows], len(rows), path.name)


def _require(path: Path, rows: Sequence[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        raise FileFormatError(f"{path.name} holds no rows.")
    for number, row in enumerate(rows):
        missing = [c for c in columns if row.get(c) is None]
        if missing:
            raise FileFormatError(
                f"{path.name}, row {number}: no {' and no '.join(repr(c) for c in missing)}; found {', '.join(map(str, row))}."
            )


def _later_years(path: Path, labels: Sequence[str | None]) -> ProbDiff:
    correct, incorrect = [], []
    for row, label in enumerate(labels):
        if label is None or not re.fullmatch(r"\d{1,2}", label.strip()):
            raise InputError(f"{path.name}, row {row}: expected a two-digit year as label, got {label!r}.")
        year = int(label)
        if year == 99:
            raise InputError(f"{path.name}, row {row}: no two-digit year is later than 99.")
        years = [f"{y:02d}" for y in range(100)]
        correct.append(tuple(years[year + 1 :]))
        incorrect.append(tuple(years[: year + 1]))
    return ProbDiff(correct, incorrect)


def _two_names(path: Path, rows: Sequence[dict[str, Any]], model: Any) -> LogitDiff:
    encoder = Encoder(model)
    if encoder.tokenizer is None:
        raise InputError(f"{path.name} holds text, but the model has no tokenizer.")
    correct, incorrect = [], []
    for number, row in enumerate(rows):
        once, repeated = _given_names(row, encoder) or _names_in(row["clean"]) or (None, None)
        if once is None or repeated is None:
            raise InputError(
                f"{path.name}, row {number}: the ids {row['correct_idx']}, {row['incorrect_idx']} are not names of the prompt in "
                "this model's tokenizer, and the prompt does not mention one name once and one name repeatedly: "
                f"{row['clean']!r}."
            )
        correct.append(once)
        incorrect.append(repeated)
    return LogitDiff(correct, incorrect)


def _given_names(row: dict[str, Any], encoder: Encoder) -> tuple[int, int] | None:
    """The row's own ids, if they are the name mentioned once and the name repeated."""
    try:
        once, repeated = int(row["correct_idx"]), int(row["incorrect_idx"])
    except (TypeError, ValueError):
        return None
    ids = encoder.prompt(row["clean"])
    return (
        (once, repeated)
        if ids.count(once) == 1 and ids.count(repeated) > 1 and _are_names(row, once, repeated, encoder)
        else None
    )


def _are_names(row: dict[str, Any], once: int, repeated: int, encoder: Encoder) -> bool:
    words = {str(encoder.tokenizer.decode([i])).strip() for i in (once, repeated)}  # pyright: ignore[reportOptionalMemberAccess]
    return words <= set(_NAME.findall(row["clean"]))


def _names_in(prompt: str) -> tuple[str, str] | None:
    """The name mentioned once and the name repeated, with a leading space: the pair joined by "and", else the only candidates."""
    words = _NAME.findall(prompt)
    repeated = {w for w in words if words.count(w) > 1}
    pairs = re.findall(r"\b([A-Z][\w'-]*),? and ([A-Z][\w'-]*)", prompt)
    for first, second in pairs:
        if (first in repeated) != (second in repeated):
            subject, other = (first, second) if first in repeated else (second, first)
            return f" {other}", f" {subject}"
    opening = {m.group(1) for m in re.finditer(r"(?:^|[.!?]\s+)([A-Z][\w'-]*)", prompt)}
    once = [w for w in words if words.count(w) == 1 and w not in opening]
    repeated -= opening - set(re.findall(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'-]*", prompt))
    if len(once) == 1 and len(repeated) == 1:
        return f" {once[0]}", f" {repeated.pop()}"
    return None
