"""The record of a trace, ``trace.json``: what it is of, the commands that grew it, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from sparse_circuits.cli.json_record import fits, read_record, text_of
from sparse_circuits.cli.options import AblationName, PositionsName
from sparse_circuits.errors import FileFormatError, InputError

FORMAT, FORMAT_VERSION = "sparse-circuits trace", 1
TRACE, TRACE_RECORD, VALIDATION = "trace.safetensors", "trace.json", "validation.json"
NEXT = ".trace.next"
"""Files that together replace a folder's own: once it is there, the trace has grown."""


@dataclass(frozen=True)
class Slice:
    """What all runs of a trace share."""

    model: str = "toy"
    task: str = "sva-across-rc"
    dictionaries: str = "toy"
    sites: tuple[str, ...] | None = None
    whole: tuple[str, ...] | None = None
    form: Literal["ablation", "gradient"] = "ablation"
    ablation: AblationName = "zero"
    positions: PositionsName = "sum"
    examples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class TraceRecord:
    """A trace's folder as written to ``trace.json``. ``commands``: one for each time that it was grown."""

    slice: Slice
    commands: tuple[str, ...]
    results: dict[str, Any]
    files: tuple[str, ...]

    @property
    def text(self) -> str:
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "commands": list(self.commands),
            "slice": asdict(self.slice),
            "results": self.results,
            "files": list(self.files),
        }
        return text_of(content)

    @classmethod
    def load(cls, folder: Path) -> TraceRecord:
        """
        Raises:
            InputError: if the folder holds no trace. FileFormatError: if its record is damaged, or something else.
        """
        settle(folder)
        path = folder / TRACE_RECORD
        if not path.is_file() or not (folder / TRACE).is_file():
            raise InputError(f"{folder} holds no trace; expected a folder that 'sparse-circuits trace' wrote.")
        parts = {"slice": dict, "commands": list, "results": dict, "files": list}
        content = read_record(path, "the record of a trace", FORMAT, FORMAT_VERSION, parts)
        return cls(
            _slice(path, content["slice"]), tuple(content["commands"]), content["results"], tuple(content["files"])
        )


def settle(folder: Path) -> None:
    """Move the files of :data:`NEXT` into place: all of them, also where a command was killed over it."""
    waiting = folder / NEXT
    if waiting.is_dir():
        for file in sorted(waiting.iterdir()):
            file.replace(folder / file.name)
        waiting.rmdir()


def _slice(path: Path, content: dict[str, Any]) -> Slice:
    hints = get_type_hints(Slice)
    if set(content) != {field.name for field in fields(Slice)}:
        raise FileFormatError(f"{path}: its slice lacks something, or has something unknown; the file is damaged.")
    for name, value in content.items():
        if not fits(value, hints[name]):
            raise FileFormatError(f"{path}: {name} cannot be {value!r}.")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Slice(**given)
