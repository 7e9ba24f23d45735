"""The record of a trace, ``trace.json``: what it is of, the commands that grew it, and what came out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sparse_circuits.cli.options import AblationName, PositionsName
from sparse_circuits.cli.record import finite
from sparse_circuits.errors import FileFormatError, InputError

FORMAT, FORMAT_VERSION = "sparse-circuits trace", 1
TRACE, TRACE_RECORD, VALIDATION = "trace.safetensors", "trace.json", "validation.json"


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
        return json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, folder: Path) -> TraceRecord:
        """
        Raises:
            InputError: if the folder holds no trace. FileFormatError: if its record is damaged, or something else.
        """
        path = folder / TRACE_RECORD
        if not path.is_file() or not (folder / TRACE).is_file():
            raise InputError(f"{folder} holds no trace; expected a folder that 'sparse-circuits trace' wrote.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FileFormatError(f"{path} is not JSON ({error}).") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise FileFormatError(f"{path} is not the record of a trace.")
        if content.get("version") != FORMAT_VERSION:
            raise FileFormatError(
                f"{path} has format version {content.get('version')!r}; this version of sparse-circuits reads {FORMAT_VERSION}."
            )
        for name, kind in {"slice": dict, "commands": list, "results": dict, "files": list}.items():
            if not isinstance(content.get(name), kind):
                raise FileFormatError(f"{path} has no {name!r}; the file is damaged.")
        return cls(
            _slice(path, content["slice"]), tuple(content["commands"]), content["results"], tuple(content["files"])
        )


def _slice(path: Path, content: dict[str, Any]) -> Slice:
    hints = get_type_hints(Slice)
    if set(content) != {field.name for field in fields(Slice)}:
        raise FileFormatError(f"{path}: its slice lacks something, or has something unknown; the file is damaged.")
    for name, value in content.items():
        if not _fits(value, hints[name]):
            raise FileFormatError(f"{path}: {name} cannot be {value!r}.")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Slice(**given)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if get_args(hint):
        return any(_fits(value, one) for one in get_args(hint))
    if hint is NoneType:
        return value is None
    return isinstance(value, hint) and not isinstance(value, bool)
