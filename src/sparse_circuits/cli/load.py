"""From what the command line says to the library's objects."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.output import working
from sparse_circuits.cli.record import CIRCUIT, RECORD, Arguments, Record
from sparse_circuits.cli.trace_record import TRACE, TRACE_RECORD, Slice, TraceRecord
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Ablation
    from sparse_circuits.circuit import Circuit, FeatureCircuit
    from sparse_circuits.task import Task


def load_model_on(name: str, device: str | None) -> Any:
    """A model by name, on a device.

    Raises:
        InputError: for a device that this machine does not have, or a model that cannot be loaded.
    """
    # What these have to say of a failure stands in the error. They read it when first imported, which is below.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with working(f"loading {name}"):
        import torch

        import sparse_circuits as sc

        if device is not None:
            try:
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
                reason = str(error).splitlines()[0]
                raise InputError(f"--device {device} cannot be used here ({reason}).") from None
        return sc.load_model(name, device=device)


def ablation_named(name: str) -> Ablation:
    """An ablation by its name on the command line or in a file ("mean-positional", "mean_positional")."""
    from sparse_circuits.attribution import Ablation

    return getattr(Ablation, name.replace("-", "_").upper())


@dataclass(frozen=True, eq=False)
class Opened:
    """A circuit from the command line, with the record of the run that found it, where there is one.

    Attributes:
        trace: the record of the trace that it is of.
    """

    path: Path
    circuit: Circuit | FeatureCircuit
    record: Record | None
    trace: TraceRecord | None = None

    @property
    def origin(self) -> Arguments | Slice | None:
        """What a run or a trace was asked for, as far as both are asked for the same."""
        return self.trace.slice if self.trace is not None else self.arguments

    @property
    def model(self) -> str | None:
        return self.circuit.provenance.get("model") if self.origin is None else self.origin.model

    @property
    def task(self) -> str | None:
        return self.circuit.provenance.get("task") if self.origin is None else self.origin.task

    @property
    def ablation(self) -> str:
        """As it was found; a method that needs no ablation leaves only its run's."""
        known = self.circuit.provenance.get("ablation")
        if known is None and self.origin is not None:
            known = self.origin.ablation
        return str(known or "patch")

    @property
    def of_features(self) -> bool:
        return self.circuit.graph.level == "features"

    @property
    def arguments(self) -> Arguments | None:
        return None if self.record is None else self.record.arguments

    @property
    def seed(self) -> int:
        return 0 if self.origin is None else self.origin.seed


def open_circuit(path: Path) -> Opened:
    """The folder of a run or a trace, or a circuit file.

    Raises:
        InputError: if there is neither. FileFormatError: if it is damaged, or something else.
    """
    from sparse_circuits.circuit import Circuit

    trace = TraceRecord.load(path) if (path / TRACE_RECORD).is_file() and (path / TRACE).is_file() else None
    if path.is_dir() and not (path / CIRCUIT).is_file():
        raise InputError(
            f"{path} holds no {CIRCUIT}; expected a folder that 'find' or 'trace' wrote, or a circuit file."
        )
    file = path / CIRCUIT if path.is_dir() else path
    circuit, record = Circuit.load(file), file.parent / RECORD
    return Opened(file, circuit, Record.load(record) if file.name == CIRCUIT and record.is_file() else None, trace)


def fitting(model: Any, task: Task, circuits: Iterable[Circuit | FeatureCircuit]) -> Task:
    """The prompts that are no longer than those that circuits which tell positions apart were found on.

    Raises:
        InputError: if there are none.
    """
    from sparse_circuits.model import anatomy_of

    told_apart = (circuit.graph.positions for circuit in circuits)
    longest = min((len(names) for names in told_apart if names and all(map(str.isdecimal, names))), default=None)
    if longest is None:
        return task
    ids = task.tokenized(model, anatomy_of(model), corrupted=False).clean
    rows = [row for row, prompt in enumerate(ids) if len(prompt) <= longest]
    if not rows:
        raise InputError(
            f"The circuit tells positions apart up to token {longest}, and all prompts of {task.name} are longer; give others "
            "with --task or --seed."
        )
    return task if len(rows) == len(task) else task[rows]


def prompts_of(model: Any, arguments: Arguments | Slice) -> Task:
    """The prompts that a circuit was found on."""
    from sparse_circuits import load_task

    return load_task(arguments.task, model, n=arguments.examples, seed=arguments.seed)
