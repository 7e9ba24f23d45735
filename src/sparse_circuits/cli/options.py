"""The options that several commands share, and the values that they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# Written out rather than taken from the library, so that --help need not import torch; a test compares them.
MethodName = Literal[
    "eap",
    "eap-ig",
    "clean-corrupted",
    "relp",
    "atp-star",
    "information-flow-routes",
    "exact",
    "acdc",
    "edge-pruning",
]
PathName = Literal["inputs", "activations"]
QuadratureName = Literal["left", "right", "midpoint", "trapezoid", "gauss-legendre"]
DirectName = Literal["path", "exact", "mean"]
RuleName = Literal["plain", "frozen", "relp"]
ObjectiveName = Literal["kl", "metric"]
LevelName = Literal["edges", "nodes", "outputs", "neurons"]
PositionsName = Literal["sum", "keep", "spans"]
AblationName = Literal["patch", "zero", "mean", "mean-positional"]
SelectName = Literal["greedy", "top"]
KVName = Literal["per-group", "per-query-head"]
ErrorsName = Literal["nodes", "keep", "remove"]

# how many are chosen where nothing is said
SIZES: dict[LevelName, int] = {"edges": 200, "nodes": 20, "outputs": 400, "neurons": 200}
# of feature circuits: nodes, the effect above which edges into a node are found, and gradients of eap-ig
NODES = 100
NODES_ABOVE = 0.1
STEPS_OF_FEATURES = 10
# how much of a feature circuit is drawn
MAX_NODES, MAX_EDGES = 150, 250
FEWEST_DRAWS = 20
DRAWS = 20
BATCH_SIZE = 32
FEATURES = "Circuits of features"
"""The heading, in help, of what goes with --dictionaries."""


def option(name: str, what: str, default: object = None, *, panel: str | None = None, **more: Any) -> Any:
    """An option whose own default is None, so that what was given can be told; help says ``default``."""
    return typer.Option(
        *name.split(),
        help=what if default is None else f"{what} Default: {default}.",
        show_default=False,
        rich_help_panel=panel,
        **more,
    )


def model_option(default: str, panel: str | None = None) -> Any:
    return option(
        "--model", "'toy' (bundled), a Hugging Face folder or a hub id.", default, panel=panel, metavar="MODEL"
    )


def task_option(default: str, panel: str | None = None) -> Any:
    return option("--task", "A bundled task, or a .csv or .jsonl file.", default, panel=panel, metavar="TASK")


def dictionaries_option(begins: str = "", default: str | None = None) -> Any:
    """What ``begins`` its help says what they are for."""
    what = "'toy' (bundled), 'neurons', a SAELens release or a folder."
    return option("--dictionaries", begins + what, default, panel=FEATURES, metavar="NAME")


def sites_option(begins: str) -> Any:
    return option(
        "--sites", f"{begins}: resid, mlp_2, a hook name, an id. May be repeated.", panel=FEATURES, metavar="SITE"
    )


def whole_option(what: str) -> Any:
    return option("--whole", f"Beside them, sites {what}.", panel=FEATURES, metavar="SITE")


def batch_size(text: str) -> int | str:
    """A whole number of at least 1, or "auto"."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a whole number of at least 1 nor 'auto'.")
    return int(text)


Examples = Annotated[
    int | None, option("--examples", "Prompt pairs.", "100 of a bundled task, all of a file", metavar="N", min=1)
]
NewSeed = Annotated[
    int | None,
    option(
        "--seed",
        "Of bundled prompts and random circuits.",
        "the run's + 1, for prompts that the circuit was not found on",
        metavar="N",
        min=0,
    ),
]
"""The seed of an evaluation."""
BatchSize = Annotated[
    Any,
    option(
        "--batch-size",
        "Prompt pairs at a time, or as many as fit; changes memory, not results (but for edge-pruning).",
        BATCH_SIZE,
        metavar="N|auto",
        parser=batch_size,
    ),
]
Draws = Annotated[
    int | None,
    option("--draws", "Random circuits of the same size to compare with.", DRAWS, metavar="N", min=FEWEST_DRAWS),
]
Errors = Annotated[
    ErrorsName | None,
    option(
        "--errors",
        "Of error terms: those in the circuit stay, as nodes do, or all stay, or none.",
        "nodes, or the run's",
        panel=FEATURES,
    ),
]
StartLayer = Annotated[
    int | None,
    option(
        "--start-layer",
        "Leave all sites before that layer as they are.",
        "0, or the run's",
        panel=FEATURES,
        metavar="L",
        min=0,
    ),
]
Device = Annotated[
    str | None, option("--device", "Where to run: cpu, cuda, cuda:1...", "a GPU if there is one", metavar="DEVICE")
]
Force = Annotated[bool, typer.Option("--force", help="Replace --out if an earlier run wrote it.")]
RunOrCircuit = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_CIRCUIT", help="A folder that 'find' or 'trace' wrote, or a circuit file.", show_default=False
    ),
]
