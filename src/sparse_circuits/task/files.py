"""Tasks from files: plain columns, EAP-IG's .csv and feature-circuits' .jsonl."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.task.metrics import LogitDiff, LogProb, ProbDiff
from sparse_circuits.task.spans import checked
from sparse_circuits.task.task import Encoder, Task

_NAME = re.compile(r"\b[A-Z][\w'-]*")
_PLAIN = "'clean', 'correct', and where there are any 'corrupted' and 'incorrect'"


def read_csv(path: Path, model: Any) -> Task:
    """A task in columns ``clean``, ``corrupted``, and what the answer is. Capitals in their names do not matter.

    - ``correct``, ``incorrect``: answers as text, or lists of them, as :class:`LogitDiff`; without ``incorrect`` as
      :class:`LogProb`. ``corrupted`` may be left out here. A cell that is a list in JSON, ``[" has", " had"]``, is several
      answers, and one of numbers, ``[17]``, token ids, also of a prompt.
    - ``label``, EAP-IG's for a two-digit year: later years against that year and earlier ones, as :class:`ProbDiff`.
    - ``correct_idx``, ``incorrect_idx``, EAP-IG's for two names: token ids, as :class:`LogitDiff`. Files carry the ids of the
      tokenizer that they were made with: they are used only if in this model's tokenizer they are the name that the clean
      prompt mentions once and the name that it repeats; otherwise these two names are read off the prompt.

    Raises:
        FileFormatError: for an empty file, a missing column or cell, or a line that is not CSV, naming it. InputError: for a
            row without an answer, naming it.
    """
    rows, where = _table(path)
    if "correct" in rows[0]:
        return _plain(path, [{name: _listed(cell) for name, cell in row.items()} for row in rows], where)
    answer = ("label",) if "label" in rows[0] else tuple(c for c in ("correct_idx", "incorrect_idx") if c in rows[0])
    _require(rows, where, ("clean", "corrupted", *answer))
    clean, corrupted = ([row[column] for row in rows] for column in ("clean", "corrupted"))
    if "label" in rows[0]:
        metric: Any = _later_years(where, [row["label"] for row in rows])
    elif "correct_idx" in rows[0] and "incorrect_idx" in rows[0]:
        metric = _two_names(path, rows, where, model)
    else:
        raise FileFormatError(
            f"{path.name}: expected columns {_PLAIN}; or EAP-IG's 'clean', 'corrupted', and 'label' or 'correct_idx' and "
            f"'incorrect_idx'; found {_found(rows[0])}.{_hint(rows[0])}"
        )
    return Task(clean, corrupted, metric=metric, name=path.stem)


def read_jsonl(path: Path) -> Task:
    """A task in feature-circuits' fields: ``clean_prefix``, ``patch_prefix``, ``clean_answer``, ``patch_answer``; or in plain
    ones: ``clean``, ``correct``, and where there are any ``corrupted`` and ``incorrect``, as in :func:`read_csv`.

    Prompts are text or lists of token ids; answers are text, token ids, or lists of several. A field ``spans``, in every row or
    in none, names token positions as :class:`Task` takes them: ``{"subject": [1, 3], "last": -1}``.

    Raises:
        FileFormatError: for an empty file, a line that is not JSON, or a missing field, naming the row. InputError: for
            spans that cannot be used, naming it.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_text(path).split("\n")):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"{path.name}, row {number}: not a line of JSON ({error}).") from None
        if not isinstance(row, dict):
            raise FileFormatError(f"{path.name}, row {number}: expected a JSON object, got {type(row).__name__}.")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"{path.name} holds no rows.")
    where = [f"{path.name}, row {number}" for number in range(len(rows))]
    spans = _spans(path, rows, where)
    if "clean" in rows[0] and "clean_prefix" not in rows[0]:
        return _plain(path, rows, where, spans)
    _require(rows, where, ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer"))
    metric = LogitDiff([row["clean_answer"] for row in rows], [row["patch_answer"] for row in rows])
    return Task(
        [row["clean_prefix"] for row in rows],
        [row["patch_prefix"] for row in rows],
        metric=metric,
        name=path.stem,
        spans=spans,
    )


def _plain(path: Path, rows: Sequence[Mapping[str, Any]], where: Sequence[str], spans: Any = None) -> Task:
    """A task of rows with ``clean``, ``correct``, and in all of them or none ``corrupted`` and ``incorrect``."""
    given = [name for name in ("corrupted", "incorrect") if any(row.get(name) not in (None, "") for row in rows)]
    _require(rows, where, ("clean", "correct", *given))
    column = {name: [row[name] for row in rows] for name in ("clean", "correct", *given)}
    correct, incorrect = column["correct"], column.get("incorrect")
    metric = LogProb(correct) if incorrect is None else LogitDiff(correct, incorrect)
    return Task(column["clean"], column.get("corrupted"), metric=metric, name=path.stem, spans=spans)


def _table(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a .csv file by column, empty ones left out, and how to name each in a message."""
    rows: list[dict[str, str]] = []
    where: list[str] = []
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        twice = {name for name in header if name and header.count(name) > 1}
        if twice:
            raise FileFormatError(f"{path.name}: two columns are called {min(twice)!r}; found {', '.join(header)}.")
        for cells in reader:
            if not any(cells):
                continue
            at = f"{path.name}, line {reader.line_num}, row {len(rows)}"
            if len(cells) > len(header):
                raise FileFormatError(
                    f"{at}: {len(cells)} cells in {len(header)} columns; put text that holds a comma in double quotes."
                )
            rows.append(dict(zip(header, cells, strict=False)))
            where.append(at)
    except csv.Error as error:
        raise FileFormatError(f"{path.name}, line {reader.line_num}: not a line of CSV ({error}).") from None
    if not rows:
        raise FileFormatError(f"{path.name} holds no rows.")
    return rows, where


def _text(path: Path) -> str:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark in front
            return file.read()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path.name} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None


def _listed(cell: str) -> Any:
    """A cell as it stands, or the list that it is as JSON."""
    if not cell.strip().startswith("["):
        return cell
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def _found(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row))


def _hint(row: Mapping[str, Any]) -> str:
    """What may be wrong with columns of other names."""
    if len(row) == 1 and any(sign in name for name in row for sign in ";\t"):
        return " Columns are separated by commas."
    if any(name.endswith("_idx") for name in row):
        return " Token ids depend on the tokenizer that a file was made with; give answers as text instead."
    return ""


def _spans(path: Path, rows: Sequence[dict[str, Any]], where: Sequence[str]) -> Sequence[dict[str, Any]] | None:
    if all(row.get("spans") is None for row in rows):
        return None
    _require(rows, where, ("spans",))
    return checked([row["spans"] for row in rows], len(rows), path.name)


def _require(rows: Sequence[Mapping[str, Any]], where: Sequence[str], columns: tuple[str, ...]) -> None:
    for at, row in zip(where, rows, strict=True):
        missing = [c for c in columns if row.get(c) in (None, "")]
        if missing:
            raise FileFormatError(f"{at}: no {' and no '.join(map(repr, missing))}; found {_found(row)}.{_hint(row)}")


def _later_years(where: Sequence[str], labels: Sequence[str]) -> ProbDiff:
    correct, incorrect = [], []
    for at, label in zip(where, labels, strict=True):
        if not re.fullmatch(r"\d{1,2}", label.strip()):
            raise InputError(f"{at}: expected a two-digit year as label, got {label!r}.")
        year = int(label)
        if year == 99:
            raise InputError(f"{at}: no two-digit year is later than 99.")
        years = [f"{y:02d}" for y in range(100)]
        correct.append(tuple(years[year + 1 :]))
        incorrect.append(tuple(years[: year + 1]))
    return ProbDiff(correct, incorrect)


def _two_names(path: Path, rows: Sequence[dict[str, str]], where: Sequence[str], model: Any) -> LogitDiff:
    encoder = Encoder(model)
    if encoder.tokenizer is None:
        raise InputError(f"{path.name} holds text, but the model has no tokenizer.")
    correct, incorrect = [], []
    for at, row in zip(where, rows, strict=True):
        once, repeated = _given_names(row, encoder) or _names_in(row["clean"]) or (None, None)
        if once is None or repeated is None:
            raise InputError(
                f"{at}: the ids {row['correct_idx']}, {row['incorrect_idx']} are not names of the prompt in "
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
