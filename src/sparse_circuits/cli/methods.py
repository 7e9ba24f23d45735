"""``sparse-circuits methods``: how circuits can be found; and which options belong to which method."""

from __future__ import annotations

from dataclasses import dataclass

from sparse_circuits.cli import output
from sparse_circuits.cli.options import MethodName
from sparse_circuits.errors import InputError

EXAMPLES = ("methods",)


@dataclass(frozen=True)
class Entry:
    """A method as the command line knows it.

    Attributes:
        summary: what it does, in a few words.
        passes: what it costs, per batch.
        options: the arguments that are its own, each given as ``--name``.
        selects: whether it chooses a circuit by itself.
        features: whether it scores the features of dictionaries too.
    """

    summary: str
    passes: str
    options: tuple[str, ...] = ()
    selects: bool = False
    features: bool = False


_GRADIENT = ("rule",)
# Written out, like the names in options.py, so that --help and bad input need no torch; tests compare it with METHODS.
ENTRIES: dict[MethodName, Entry] = {
    "eap": Entry("a first-order estimate, at the clean run", "2 forward, 1 backward", _GRADIENT, features=True),
    "eap-ig": Entry(
        "gradients averaged on the way from corrupted to clean",
        "2 + steps forward, steps backward; for activations many more",
        ("steps", "path", "quadrature", "direct", *_GRADIENT),
        features=True,
    ),
    "clean-corrupted": Entry(
        "the mean of the gradients at both ends", "3 forward, 2 backward", _GRADIENT, features=True
    ),
    "relp": Entry("as eap, with relevance propagated instead of gradients", "2 forward, 1 backward", features=True),
    "atp-star": Entry(
        "as eap, but for saturated attention and effects that cancel",
        "2 forward and more, 1 or 2 backward per layer",
        ("qk_fix", "grad_drop"),
    ),
    "information-flow-routes": Entry("how much flows, whatever it does to the metric", "1 forward"),
    "exact": Entry("every part patched on its own", "up to 1 forward per part", features=True),
    "acdc": Entry(
        "edges removed as long as the metric hardly suffers", "up to 1 forward per edge", ("acdc_threshold",), True
    ),
    "edge-pruning": Entry(
        "a mask over all parts, learned by gradient descent",
        "1 forward, 1 backward per step",
        ("steps", "sparsity", "warmup", "learning_rate", "objective"),
        True,
    ),
}
CHECKPOINTED = "edge-pruning"  # the method that can be taken up again
OPTIONS = tuple(dict.fromkeys(name for entry in ENTRIES.values() for name in entry.options))
FIELDS = {"acdc_threshold": "threshold"}
"""Fields of the methods that are named otherwise than the arguments."""


def flag(name: str, value: object = None) -> str:
    """An argument as it is given: ``--no-qk-fix`` where the value is False."""
    return ("--no-" if value is False else "--") + name.replace("_", "-")


def check_owner(name: str, method: str, value: object = None) -> None:
    """
    Raises:
        InputError: for an option of another method.
    """
    owners = [owner for owner, entry in ENTRIES.items() if name in entry.options]
    if method not in owners:
        listed = f"{owners[0]} only" if len(owners) == 1 else f"{', '.join(owners[:-1])} or {owners[-1]}"
        raise InputError(f"{flag(name, value)} goes with --method {listed}, not with {method}.")


def methods() -> None:
    """List the methods, with what each costs and which options are its own."""
    output.line("Methods (--method NAME), each with its passes per batch and its own options:")
    for name, entry in ENTRIES.items():
        own = [("", "options " + " ".join(map(flag, entry.options)))] if entry.options else []
        output.pairs([(f"  {name:{max(map(len, ENTRIES))}}", entry.summary), ("", entry.passes), *own])
    output.line()
    chosen = " and ".join(name for name, entry in ENTRIES.items() if entry.selects)
    output.line(f"{chosen} choose a circuit by themselves, unless a size or threshold is given.")
    *most, last = (name for name, entry in ENTRIES.items() if entry.features)
    output.line(f"{', '.join(most)} and {last} score features too (--dictionaries NAME).")
