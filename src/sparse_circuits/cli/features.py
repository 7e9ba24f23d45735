"""Which options are of feature circuits, and how they go together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparse_circuits.cli.methods import ENTRIES
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.cli.record import Arguments

FEATURE_OPTIONS = (
    "dictionaries",
    "sites",
    "whole",
    "nodes_above",
    "edges",
    "node_threshold",
    "edge_threshold",
    "cumulative",
    "errors",
    "start_layer",
)
"""Arguments that only feature circuits have, apart from ``nodes_only``."""
NOT_FEATURES = ("threshold", "stable", "select")


def check_features(arguments: Arguments) -> None:
    """Whether options of feature circuits go together, and with the others.

    Raises:
        InputError: naming the options.
    """
    if arguments.dictionaries is None:
        given = [name for name in FEATURE_OPTIONS if getattr(arguments, name) is not None]
        given += ["nodes_only"] * arguments.nodes_only
        if given:
            raise InputError(f"{_flag(given[0])} is for circuits of features; give --dictionaries too.")
        if arguments.level == "features":
            raise InputError("level 'features': which dictionaries they are of is missing; give --dictionaries.")
        return
    if arguments.level != "features":
        raise InputError(f"--level {arguments.level} is for circuits of components; leave it out, or --dictionaries.")
    for name in NOT_FEATURES:
        if getattr(arguments, name) is not None:
            instead = "give --node-threshold" if name == "threshold" else "leave it out"
            raise InputError(f"{_flag(name)} is for circuits of components; with --dictionaries {instead}.")
    if not ENTRIES[arguments.method].features:
        able = ", ".join(name for name, entry in ENTRIES.items() if entry.features)
        raise InputError(
            f"--method {arguments.method} does not score features; with --dictionaries take one of {able}."
        )
    if arguments.kv != "per-group":
        raise InputError("--kv is for circuits of components; leave it out with --dictionaries.")
    if arguments.direct not in (None, "path"):
        raise InputError("--direct is for edges between components; leave it out with --dictionaries.")
    _check_choice(arguments)
    _check_edges(arguments)


def _check_choice(arguments: Arguments) -> None:
    if arguments.size is not None and arguments.node_threshold is not None:
        raise InputError("Expected --nodes or --node-threshold, got both.")
    if arguments.edges is not None and arguments.edge_threshold is not None:
        raise InputError("Expected --edges or --edge-threshold, got both.")
    if arguments.cumulative is not None:
        others = {"nodes": "size"} | {
            name.replace("_", "-"): name for name in ("node_threshold", "edges", "edge_threshold")
        }
        for flag, name in others.items():
            if getattr(arguments, name) is not None:
                raise InputError(f"--cumulative chooses nodes and edges; leave --{flag} out.")
        if arguments.signed:
            raise InputError("--cumulative goes by influence, which has no sign; leave --signed out.")
        if not 0 < arguments.cumulative <= 1:
            raise InputError(f"--cumulative {arguments.cumulative}: expected a share above 0 and at most 1.")
    for name in ("node_threshold", "edge_threshold", "nodes_above"):
        value = getattr(arguments, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{_flag(name)} {value}: expected a number of at least 0.")


def _check_edges(arguments: Arguments) -> None:
    for name in ("edges", "edge_threshold", "cumulative", "nodes_above"):
        if arguments.nodes_only and getattr(arguments, name) is not None:
            raise InputError(f"--nodes-only finds no edges, which {_flag(name)} needs; give one of them.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
