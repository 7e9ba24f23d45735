"""Submissions to the circuit track of MIB, the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv:2504.13151).

A submission is a folder with one entry for each task and model, ``ioi_gpt2`` and so on. An entry holds one file of scores,
``importances.pt`` or ``.json``, from which MIB chooses circuits of nine sizes by itself; or nine circuits, one file each. The
sizes are 0.1, 0.2, 0.5, 1, 2, 5, 10, 20 and 50 percent of the edges (of the scored nodes, or output dimensions, rounded down).
All files are EAP-IG's (:mod:`sparse_circuits.circuit.formats.eap_ig`), and hold what those hold.

**Signs.** For its metric CPR, MIB keeps what scores highest, so that what carries the behaviour has to be positive; for CMD, what
is largest. Signed scores are turned around when they are written, and back when they are read; scores without a sign are not.
The files that are written say which, where MIB does not look; those of others are read as signed.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.formats.eap_ig import EAPIGFile, read_eap_ig
from sparse_circuits.circuit.scores import Scores
from sparse_circuits.errors import FileFormatError, InputError

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of what there is to choose from."""
ENTRIES = (
    "ioi_gpt2", "ioi_qwen2.5", "ioi_gemma2", "ioi_llama3", "mcqa_qwen2.5", "mcqa_gemma2", "mcqa_llama3",
    "arithmetic-addition_llama3", "arithmetic-subtraction_llama3", "arc-easy_gemma2", "arc-easy_llama3",
    "arc-challenge_llama3",
)  # fmt: skip
"""The tasks and models that MIB evaluates."""
# MIB's names of the models that it loads
_MODELS = {
    "gpt2": "gpt2",
    "gpt2-small": "gpt2",
    "openai-community/gpt2": "gpt2",
    "Qwen/Qwen2.5-0.5B": "qwen2.5",
    "google/gemma-2-2b": "gemma2",
    "meta-llama/Llama-3.1-8B": "llama3",
}
_IMPORTANCES = "importances"


@dataclass(frozen=True, eq=False)
class MIBEntry:
    """What a submission has for one task and model: scores, or circuits from the smallest to the largest."""

    task: str
    model: str
    scores: Scores | None
    circuits: tuple[Circuit, ...] = ()


def budgets(n: int) -> tuple[int, ...]:
    """The nine sizes, of ``n`` edges (nodes, output dimensions).

    >>> budgets(32491)
    (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245)
    """
    return tuple(int(share * n) for share in SIZES)


def write_mib(
    folder: str | Path,
    content: Scores | Sequence[Circuit],
    *,
    task: str | None = None,
    model: str | None = None,
    select: Literal["greedy", "top"] | None = None,
    ending: Literal[".pt", ".json"] = ".pt",
    d_model: int | None = None,
    negate: bool | None = None,
) -> Path:
    """Add an entry to a submission. Written in one step.

    Args:
        folder: the submission; made if it is not there.
        content: scores; or nine circuits of MIB's sizes at most, the smallest first.
        task: MIB's name; by default that of the task it was found on, where MIB has one of that name.
        model: MIB's name ("gpt2", "qwen2.5", "gemma2", "llama3"); by default that of the model it was found on.
        select: write nine circuits chosen from scores, instead of the scores themselves.
        d_model: the model's width; by default what the provenance says.
        negate: turn signs around; by default where scores have a sign.

    Returns:
        the entry's folder.

    Raises:
        InputError: for names that have to be given, an entry that is there already, circuits that are not nine or larger than
            MIB's sizes, or a graph that EAP-IG's files cannot hold.

    Warns:
        UserWarning: for a task and model that MIB does not evaluate.
    """
    if ending not in (".pt", ".json"):
        raise InputError(f"ending={ending!r}: expected '.pt' or '.json'.")
    files = _files(content, select)
    about = next(iter(files.values())).provenance
    name = f"{_task(about, task)}_{_model(about, model)}"
    if name not in ENTRIES:
        warnings.warn(f"MIB evaluates no {name!r}; it has {', '.join(ENTRIES)}.", stacklevel=2)
    signed = content.signed if isinstance(content, Scores) else bool(about.get("signed", True))
    turned = signed if negate is None else negate
    made = {stem: EAPIGFile.of(one, d_model=d_model, negate=turned) for stem, one in files.items()}
    folder = Path(folder)
    entry, temporary = folder / name, folder / f".{name}.{os.getpid()}.new"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected the submission's folder.")
    if entry.exists():
        raise InputError(f"{entry} is there already; remove it, or write another submission.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
        for stem, file in made.items():
            replace(file, signed=signed, negated=turned).write(temporary / f"{stem}{ending}")
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return entry


def read_mib(folder: str | Path, *, negate: bool | None = None) -> tuple[MIBEntry, ...]:
    """The entries of a submission, by name; or the one whose own folder it is.

    Args:
        negate: turn signs around; by default where ``write_mib`` did, and in files that it did not write. Of these, pass False
            for scores that have none.

    Raises:
        InputError: if there is no such folder, or nothing of a submission in it. FileFormatError: for a damaged file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"No folder at {folder}.")
    own = [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".") and _stored(path)
    ]
    entries = [folder] if _stored(folder) else own
    if not entries:
        raise InputError(
            f"{folder} holds no submission to MIB: expected folders such as ioi_gpt2, with .pt or .json files."
        )
    return tuple(_entry(path.resolve(), negate) for path in entries)


def _files(content: Any, select: str | None) -> dict[str, Scores | Circuit]:
    """What to write, by the files' names."""
    if isinstance(content, Scores):
        if select is None:
            return {_IMPORTANCES: content}
        if select not in ("greedy", "top"):
            raise InputError(f"select={select!r}: expected 'greedy' or 'top'.")
        sizes = budgets(content.graph.size)
        return {str(share): getattr(content, select)(n) for share, n in zip(SIZES, sizes, strict=True)}
    circuits = list(content) if isinstance(content, Sequence) else [content]
    strange = [type(one).__name__ for one in circuits if not isinstance(one, Circuit)]
    if strange or len(circuits) != len(SIZES):
        raise InputError(
            f"write_mib: expected scores, or {len(SIZES)} circuits from small to large, got "
            f"{strange[0] if strange else len(circuits)}."
        )
    if select is not None:
        raise InputError("select chooses circuits from scores; leave it out where these are given.")
    if len({one.graph for one in circuits}) > 1:
        raise InputError("write_mib: the circuits are of different graphs.")
    for share, n, one in zip(SIZES, budgets(circuits[0].graph.size), circuits, strict=True):
        if one.size > n:
            raise InputError(
                f"The circuit for {share:.1%} has {one.size} {one.graph.thing}s; MIB allows {n} of {one.graph.size}."
            )
    return dict(zip(map(str, SIZES), circuits, strict=True))


def _task(about: dict[str, Any], given: str | None) -> str:
    tasks = {name.partition("_")[0] for name in ENTRIES}
    name = str(about.get("task")) if given is None else given
    name = name.replace("_", "-")
    if given is None and name not in tasks:
        raise InputError(f"MIB has no task {name!r}; give task= (--mib-task), one of {', '.join(sorted(tasks))}.")
    return _checked("task", name)


def _model(about: dict[str, Any], given: str | None) -> str:
    if given is None:
        given = _MODELS.get(str(about.get("model")))
        if given is None:
            names = ", ".join(sorted(set(_MODELS.values())))
            raise InputError(
                f"What MIB calls the model {about.get('model')!r} is not known; give model= (--mib-model), one of {names}."
            )
    return _checked("model", given)


def _checked(what: str, name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name) is None:
        raise InputError(f"{what}={name!r}: expected letters, digits, '.' and '-', since it names a folder.")
    return name


def _stored(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".pt", ".json") and path.is_file()]


def _entry(folder: Path, negate: bool | None) -> MIBEntry:
    task, _, model = folder.name.rpartition("_")
    if not task or not model:
        raise FileFormatError(f"{folder}: expected a name such as ioi_gpt2, of a task and a model.")
    files = _stored(folder)
    if len(files) == 1:
        return MIBEntry(task, model, _scores(files[0], negate))
    circuits = sorted((_circuit(file, negate) for file in files), key=lambda one: one.size)
    if len(circuits) != len(SIZES):
        raise FileFormatError(f"{folder} has {len(circuits)} circuits; expected {len(SIZES)}, or one file of scores.")
    return MIBEntry(task, model, None, tuple(circuits))


def _scores(path: Path, negate: bool | None) -> Scores:
    graph, _, values, about = read_eap_ig(path, negate=negate)
    values = torch.zeros(graph.shape) if values is None else values
    return Scores(graph, values, torch.empty(0), None, about.get("signed", True), provenance=about)


def _circuit(path: Path, negate: bool | None) -> Circuit:
    graph, mask, values, about = read_eap_ig(path, negate=negate)
    return Circuit(graph, mask, None if values is None else torch.where(mask, values, 0.0), about)
