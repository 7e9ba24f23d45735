"""The record of a run, ``run.json``: what was asked for, with which versions, and what came out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_type_hints

from sparse_circuits.cli.features import FEATURE_OPTIONS, NOT_FEATURES, check_features
from sparse_circuits.cli.json_record import fits, read_record, text_of
from sparse_circuits.cli.methods import ENTRIES, OPTIONS, check_owner, flag
from sparse_circuits.cli.options import (
    BATCH_SIZE,
    DRAWS,
    FEWEST_DRAWS,
    AblationName,
    DirectName,
    ErrorsName,
    KVName,
    LevelName,
    MethodName,
    ObjectiveName,
    PathName,
    PositionsName,
    QuadratureName,
    RuleName,
    SelectName,
)
from sparse_circuits.errors import FileFormatError, InputError

FORMAT = "sparse-circuits run"
FORMAT_VERSION = 1
RECORD, CIRCUIT, SCORES, NEURONS = "run.json", "circuit.safetensors", "scores.safetensors", "neurons.safetensors"
PAGE = "explorer.html"


@dataclass(frozen=True)
class Arguments:
    """What ``find`` was asked to do. None: left to the library, and filled in before the run is recorded.

    Raises:
        InputError: for options that exclude each other.
    """

    model: str = "toy"
    task: str = "ioi"
    method: MethodName = "eap-ig"
    level: LevelName | Literal["features"] = "edges"
    positions: PositionsName = "sum"
    steps: int | None = None
    path: PathName | None = None
    quadrature: QuadratureName | None = None
    direct: DirectName | None = None
    rule: RuleName | None = None
    qk_fix: bool | None = None
    grad_drop: bool | None = None
    acdc_threshold: float | None = None
    sparsity: float | None = None
    warmup: float | None = None
    learning_rate: float | None = None
    objective: ObjectiveName | None = None
    ablation: AblationName = "patch"
    size: int | None = None
    threshold: float | None = None
    stable: float | None = None
    select: SelectName | None = None
    signed: bool = False
    examples: int | None = None
    seed: int = 0
    batch_size: int | Literal["auto"] = BATCH_SIZE
    kv: KVName = "per-group"
    draws: int = DRAWS
    dictionaries: str | None = None
    sites: tuple[str, ...] | None = None
    whole: tuple[str, ...] | None = None
    nodes_above: float | None = None
    nodes_only: bool = False
    edges: int | None = None
    node_threshold: float | None = None
    edge_threshold: float | None = None
    cumulative: float | None = None
    errors: ErrorsName | None = None
    start_layer: int | None = None

    def __post_init__(self) -> None:
        for name in OPTIONS:
            if (value := getattr(self, name)) is not None:
                check_owner(name, self.method, value)
        check_features(self)
        self._check_choice()
        if self.method == "edge-pruning":
            if self.size is not None and self.sparsity is not None:
                raise InputError(f"--sparsity and {self.size_flag} both say how much to keep; give one of them.")
            if self.batch_size == "auto":
                raise InputError("--batch-size auto: what edge-pruning learns depends on it; give a number.")
        for name, fewest in _FEWEST.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < fewest:
                raise InputError(f"{flag(name)} {value}: expected at least {fewest}.")

    def _check_choice(self) -> None:
        """Whether what is given of size, threshold, stable and select says one thing."""
        if self.threshold is not None:
            if self.size is not None:
                raise InputError(f"Expected {self.size_flag} or --threshold, got both.")
            if self.stable is not None:
                raise InputError(f"--stable says how sure {self.size_flag} must be; leave it out with --threshold.")
            if self.select is not None:
                raise InputError(f"--select says how {self.size_flag} are chosen; leave it out with --threshold.")
            if not 0 <= self.threshold < math.inf:
                raise InputError(f"--threshold {self.threshold}: expected a number of at least 0.")
        if self.stable is not None:
            if self.select is not None:
                raise InputError("--stable chooses among the strongest of all; leave --select out.")
            if ENTRIES[self.method].selects:
                raise InputError(f"--stable is for methods that only score; {self.method} chooses by itself.")
            if not 0 < self.stable <= 1:
                raise InputError(f"--stable {self.stable}: expected a share above 0 and at most 1.")
        given = "--select" if self.select is not None else "--signed" if self.signed else None
        if given and self.chosen_by_method:
            raise InputError(f"{given} goes with {self.size_flag}: without it {self.method} chooses by itself.")
        if self.select is not None and self.level != "edges":
            raise InputError(
                f"--select is for edges; with --level {self.level} the strongest are chosen: leave it out."
            )

    @property
    def of_components(self) -> LevelName:
        """The level, where it is not that of features.

        Raises:
            InputError: where it is.
        """
        if self.level == "features":
            raise InputError("A circuit of features is found by its dictionaries.")
        return self.level

    @property
    def size_flag(self) -> str:
        """How the size is given at this level."""
        return {"edges": "--edges", "features": "--nodes"}.get(self.level, "--size")

    @property
    def chosen_by_method(self) -> bool:
        """Whether the circuit is what the method selected."""
        return ENTRIES[self.method].selects and self.size is None and self.threshold is None

    def overridden(self, given: Mapping[str, Any]) -> Arguments:
        """These arguments with others in their place; what no longer goes with those is dropped."""
        dropped: dict[str, Any] = {}
        choice = dict.fromkeys(("size", "threshold", "stable", "select"))
        method = given.get("method", self.method)
        if method != self.method:
            dropped |= dict.fromkeys(OPTIONS)
            if ENTRIES[method].selects:
                dropped |= {**choice, "signed": False}
        if given.get("level", self.level) != self.level:
            dropped |= choice
            if self.level == "features":
                dropped |= dict.fromkeys(FEATURE_OPTIONS) | {"nodes_only": False}
            elif given["level"] == "features":
                dropped |= dict.fromkeys((*NOT_FEATURES, "direct"))
                if "method" not in given and self.method == "eap-ig":
                    dropped |= {"path": None, "steps": None}
        if given.keys() & {"dictionaries"} and given["dictionaries"] != self.dictionaries:
            dropped |= {"sites": None}
        if "threshold" in given:
            dropped |= {"size": None, "stable": None, "select": None}
        if given.keys() & {"size", "stable", "select"}:
            dropped |= {"threshold": None}
        if given.keys() & {"size", "node_threshold"}:
            dropped |= {"size": None, "node_threshold": None, "cumulative": None}
        if given.keys() & {"edges", "edge_threshold"}:
            dropped |= {"edges": None, "edge_threshold": None, "cumulative": None, "nodes_only": False}
        if "cumulative" in given:
            dropped |= dict.fromkeys(("size", "node_threshold", "edges", "edge_threshold")) | {"nodes_only": False}
        if given.get("nodes_only"):
            dropped |= dict.fromkeys(("edges", "edge_threshold", "cumulative", "nodes_above"))
        if "size" in given:
            dropped |= {"sparsity": None}
        if "sparsity" in given:
            dropped |= {"size": None}
        if "stable" in given:
            dropped |= {"select": None}
        if "select" in given:
            dropped |= {"stable": None}
        return replace(self, **{**dropped, **given})

    @property
    def command(self) -> str:
        """The line that gives the same run."""
        words = ["sparse-circuits", "find"]
        for name, value in asdict(self).items():
            if name == "level" and value == "features":
                continue  # --dictionaries says so
            if isinstance(value, tuple):
                words += [word for one in value for word in (flag(name), one)]
            elif isinstance(value, bool):
                if value or name in OPTIONS:
                    words.append(flag(name, value))
            elif value is not None:
                words += [self.size_flag if name == "size" else flag(name), str(value)]
        return shlex.join(words)


_FEWEST = {
    "start_layer": 0,
    "edges": 1,
    "steps": 1,
    "size": 1,
    "examples": 1,
    "seed": 0,
    "batch_size": 1,
    "draws": FEWEST_DRAWS,
}


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
        return text_of(content)

    @classmethod
    def load(cls, path: Path) -> Record:
        """
        Raises:
            InputError: if there is no such file. FileFormatError: if it is damaged, or something else.
        """
        if not path.is_file():
            raise InputError(f"No file at {path}.")
        parts = {"arguments": dict, "provenance": dict, "results": dict, "files": list}
        content = read_record(path, "a run.json of sparse-circuits", FORMAT, FORMAT_VERSION, parts)
        arguments = _checked(path, content["arguments"])
        return cls(arguments, content["provenance"], content["results"], tuple(content["files"]))


def _checked(path: Path, content: dict[str, Any]) -> Arguments:
    hints = get_type_hints(Arguments)
    for name, value in content.items():
        if name not in hints:
            raise FileFormatError(
                f"{path}: unknown argument {name!r}; expected {', '.join(f.name for f in fields(Arguments))}."
            )
        if not fits(value, hints[name]):
            raise FileFormatError(f"{path}: {name} cannot be {value!r}.")
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    try:
        return Arguments(**{**content, **lists})
    except InputError as error:
        raise FileFormatError(f"{path}: {error}") from None
