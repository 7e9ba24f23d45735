"""Other methods, beside which a run's own is shown: how they are named on the command line, and their curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from sparse_circuits.cli.curves import curve_as_found
from sparse_circuits.cli.load import ablation_named
from sparse_circuits.cli.methods import ENTRIES, FIELDS, check_owner
from sparse_circuits.cli.options import DirectName, PathName, QuadratureName, RuleName
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Method
    from sparse_circuits.cli.record import Arguments
    from sparse_circuits.evaluation import Curve
    from sparse_circuits.graph import FeatureGraph, Graph
    from sparse_circuits.task import Task

_VALUES = {"path": PathName, "quadrature": QuadratureName, "direct": DirectName, "rule": RuleName}


def usual(arguments: Arguments) -> tuple[str, ...]:
    """One or two cheap methods to put beside a run's own."""
    own = arguments.method
    if arguments.level == "features":
        return ("clean-corrupted" if own == "eap" else "eap",)
    if own == "eap-ig" and arguments.path != "activations":
        side = "right" if arguments.quadrature == "left" else "left"
        return "eap", f"eap-ig/{side}/{arguments.steps}"
    return tuple(name for name in ("eap", "eap-ig") if name != own)


def named(names: Iterable[str], arguments: Arguments) -> dict[str, Method]:
    """Methods by what they are called: a name and options, ``eap-ig/left/10``.

    Raises:
        InputError: for a name or an option that is not known, or a method that cannot score what the run scores.
    """
    return {name: _method(name, arguments) for name in names}


def _method(name: str, arguments: Arguments) -> Method:
    from sparse_circuits.attribution import METHODS

    base, *words = name.split("/")
    if base not in METHODS:
        raise InputError(f"--methods {name}: unknown method {base!r}; expected one of {', '.join(METHODS)}.")
    options = {}
    for word in words:
        option, value = _option(name, word)
        check_owner(option, base, value)
        options[FIELDS.get(option, option)] = value
    method = METHODS[base](**options)
    if arguments.level == "features":
        if not ENTRIES[base].features:  # pyright: ignore[reportArgumentType]
            raise InputError(f"--methods {name}: {base} does not score features.")
    elif arguments.level not in method.levels:
        raise InputError(f"--methods {name}: {base} scores {' and '.join(method.levels)}, not {arguments.level}.")
    if arguments.positions != "sum" and not method.tells_positions:
        raise InputError(f"--methods {name}: {base} does not tell positions apart.")
    return method


def _option(name: str, word: str) -> tuple[str, Any]:
    """Which option a word is a value of: no two options have a value in common."""
    if word.isdecimal() and int(word):
        return "steps", int(word)
    for option, values in _VALUES.items():
        if word in get_args(values):
            return option, word
    raise InputError(
        f"--methods {name}: {word!r} is no option; expected a number of steps, or one of "
        f"{', '.join(value for values in _VALUES.values() for value in get_args(values))}."
    )


def curves_beside(
    model: Any,
    graph: Graph | FeatureGraph,
    methods: dict[str, Method],
    arguments: Arguments,
    found_on: Task,
    task: Task,
    sizes: Sequence[int],
    **common: Any,
) -> dict[str, Curve]:
    """Their curves: scored on the prompts that the run's circuit was found on, and chosen and evaluated as that is."""
    import sparse_circuits as sc

    batches = {"batch_size": common["batch_size"], "progress": common["progress"]}
    curves = {}
    for name, method in methods.items():
        scores = sc.attribute(
            model,
            graph,
            found_on,
            method,
            ablation=ablation_named(arguments.ablation),
            positions=arguments.positions,
            **batches,
        )
        most = len(scores.node_ids) if isinstance(scores, sc.FeatureScores) else scores.graph.size
        wanted = [n for n in sizes if n <= most]
        curves[name] = curve_as_found(model, scores, task, arguments, sizes=wanted, **common)
    return curves
