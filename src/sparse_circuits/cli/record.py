"""The record of a run, ``run.json``: what was asked for, with which versions, and what came out."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sparse_circuits.cli.options import (
    BATCH_SIZE,
    DRAWS,
    FEWEST_DRAWS,
    AblationName,
    KVName,
    MethodName,
    PathName,
    QuadratureName,
    SelectName,
)
from sparse_circuits.errors import FileFormatError, InputError

FORMAT = "sparse-circuits run"
FORMAT_VERSION = 1
INTEGRATION = ("steps", "path", "quadrature")  # the options of eap-ig
RECORD, CIRCUIT, SCORES = "run.json", "circuit.safetensors", "scores.safetensors"


@dataclass(frozen=True)
class Arguments:
    """What ``find`` was asked to do. None: left to the library, and filled in before the run is recorded.

    Raises:
        InputError: for options that exclude each other.
    """

    model: str = "toy"
    task: str = "ioi"
    method: MethodName = "eap-ig"
    steps: int | None = None
    path: PathName | None = None
    quadrature: QuadratureName | None = None
    ablation: AblationName = "patch"
    edges: int | None = None
    threshold: float | None = None
    select: SelectName | None = None
    signed: bool = False
    examples: int | None = None
    seed: int = 0
    batch_size: int = BATCH_SIZE
    kv: KVName = "per-group"
    draws: int = DRAWS

    def __post_init__(self) -> None:
        for name in INTEGRATION:
            if getattr(self, name) is not None and self.method != "eap-ig":
                raise InputError(f"--{name} goes with --method eap-ig only, not with {self.method}.")
        if self.threshold is not None:
            if self.edges is not None:
                raise InputError("Expected --edges or --threshold, got both.")
            if self.select is not None:
                raise InputError("--select says how --edges are chosen; leave it out with --threshold.")
            if not 0 <= self.threshold < math.inf:
                raise InputError(f"--threshold {self.threshold}: expected a number of at least 0.")
        for name, fewest in {
            "steps": 1,
            "edges": 1,
            "examples": 1,
            "seed": 0,
            "batch_size": 1,
            "draws": FEWEST_DRAWS,
        }.items():
            value = getattr(self, name)
            if value is not None and value < fewest:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected at least {fewest}.")

    def overridden(self, given: Mapping[str, Any]) -> Arguments:
        """These arguments with others in their place; what no longer goes with those is dropped."""
        dropped: dict[str, Any] = {}
        if given.get("method", "eap-ig") != "eap-ig":
            dropped |= dict.fromkeys(INTEGRATION)
        if "threshold" in given:
            dropped |= {"edges": None, "select": None}
        if "edges" in given:
            dropped |= {"threshold": None}
        return replace(self, **{**dropped, **given})

    @property
    def command(self) -> str:
        """The line that gives the same run."""
        words = ["sparse-circuits", "find"]
        for name, value in asdict(self).items():
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Record:
    """A run as written to ``run.json``."""

    arguments: Arguments
    provenance: dict[str, Any]
    results: dict[str, Any]
    files: tuple[str, ...]

    @cached_property
    def text(self) -> str:
        """The file's content; what is not a number becomes null."""
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "command": self.arguments.command,
            "arguments": asdict(self.arguments),
            "provenance": self.provenance,
            "results": self.results,
            "files": list(self.files),
        }
        return json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: Path) -> Record:
        """
        Raises:
            InputError: if there is no such file. FileFormatError: if it is damaged, or something else.
        """
        if not path.is_file():
            raise InputError(f"No file at {path}.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FileFormatError(f"{path} is not JSON ({error}).") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise FileFormatError(f"{path} is not a run.json of sparse-circuits.")
        if content.get("version") != FORMAT_VERSION:
            raise FileFormatError(
                f"{path} has format version {content.get('version')!r}; "
                f"this version of sparse-circuits reads {FORMAT_VERSION}."
            )
        parts = {"arguments": dict, "provenance": dict, "results": dict, "files": list}
        for name, kind in parts.items():
            if not isinstance(content.get(name), kind):
                raise FileFormatError(f"{path} has no {name!r}; the file is damaged.")
        arguments = _checked(path, content["arguments"])
        return cls(arguments, content["provenance"], content["results"], tuple(content["files"]))


def finite(value: Any) -> Any:
    """A JSON value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked(path: Path, content: dict[str, Any]) -> Arguments:
    hints = get_type_hints(Arguments)
    for name, value in content.items():
        if name not in hints:
            raise FileFormatError(
                f"{path}: unknown argument {name!r}; expected {', '.join(f.name for f in fields(Arguments))}."
            )
        if not _fits(value, hints[name]):
            raise FileFormatError(f"{path}: {name} cannot be {value!r}.")
    try:
        return Arguments(**content)
    except InputError as error:
        raise FileFormatError(f"{path}: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return value is None if hint is NoneType else isinstance(value, (int, float) if hint is float else hint)
