"""What ``evaluate`` does with feature circuits: their dictionaries, the neurons beside them, their curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.curves import Curves
from sparse_circuits.cli.load import Opened, working
from sparse_circuits.cli.record import NEURONS, SCORES
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.circuit import FeatureCircuit, FeatureScores
    from sparse_circuits.dictionary import Dictionaries
    from sparse_circuits.task import Task


@dataclass(frozen=True, eq=False)
class FeatureRun:
    """A feature circuit that can be evaluated, and what its run left beside it.

    Attributes:
        signed: whether its nodes were chosen by sign.
        dictionaries, neurons: of its sites, and the identity there; None where the run compared with no neurons.
    """

    circuit: FeatureCircuit
    folder: Path
    signed: bool
    dictionaries: Dictionaries
    neurons: Dictionaries | None

    @cached_property
    def scores(self) -> FeatureScores:
        from sparse_circuits.circuit import FeatureScores

        return FeatureScores.load(self.folder / SCORES, self.dictionaries)

    @cached_property
    def neuron_scores(self) -> FeatureScores | None:
        from sparse_circuits.circuit import FeatureScores

        return None if self.neurons is None else FeatureScores.load(self.folder / NEURONS, self.neurons)

    @cached_property
    def as_many_neurons(self) -> FeatureCircuit | None:
        scores = self.neuron_scores
        return None if scores is None else scores.top(self.circuit.size, signed=self.signed)


def policy_of(
    opened: Mapping[str, Opened], dictionaries: str | None, errors: str | None, start_layer: int | None
) -> dict[str, Any]:
    """What becomes of error terms and of early layers: as given, or as in the runs; nothing for circuits of components.

    Raises:
        InputError: for such options without feature circuits, circuits of both kinds, or runs that differ.
    """
    kinds = {one.of_features for one in opened.values()}
    if kinds == {False}:
        given = {"--dictionaries": dictionaries, "--errors": errors, "--start-layer": start_layer}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} is for circuits of features, and this is one of components; leave it out.")
        return {}
    if len(kinds) > 1:
        raise InputError("Circuits of features and of components have no runs in common; evaluate them one by one.")
    for one in opened.values():
        if dictionaries is None and one.origin is None:
            raise InputError(f"{one.path} does not say where its dictionaries are; give --dictionaries.")
    return {
        "errors": errors or _shared("--errors", [a and a.errors for a in _arguments(opened)], "nodes"),
        "start_layer": _shared("--start-layer", [a and a.start_layer for a in _arguments(opened)], 0)
        if start_layer is None
        else start_layer,
    }


def said_of(policy: Mapping[str, Any]) -> Iterator[str]:
    """What differs from the usual, in words."""
    if policy.get("errors", "nodes") != "nodes":
        yield "all error terms " + {"keep": "kept", "remove": "ablated"}[policy["errors"]]
    if policy.get("start_layer"):
        yield f"from layer {policy['start_layer']} on"


def attached(opened: Mapping[str, Opened], model: Any, dictionaries: str | None) -> dict[str, FeatureRun]:
    """Feature circuits with their dictionaries, each source loaded once; nothing for circuits of components.

    Raises:
        InputError: for dictionaries that are not the circuit's.
    """
    from sparse_circuits import load_dictionaries
    from sparse_circuits.circuit import FeatureCircuit

    found: dict[tuple[str, tuple[str, ...] | None], Dictionaries] = {}

    def load(source: str, sites: tuple[str, ...] | None) -> Dictionaries:
        if (source, sites) not in found:
            with working(f"loading dictionaries {source}"):
                found[source, sites] = load_dictionaries(source, model, sites=sites)
        return found[source, sites]

    runs = {}
    for name, one in opened.items():
        if not isinstance(one.circuit, FeatureCircuit):
            continue
        places, arguments = one.circuit.graph.places, one.arguments
        if dictionaries is not None or one.origin is None:
            source, sites = str(dictionaries), tuple(place.name for place in places if place.split)
        else:
            source, sites = str(one.origin.dictionaries), one.origin.sites
        own, neurons = load(source, sites), None
        if arguments is not None and (one.path.parent / NEURONS).is_file():
            neurons = load("neurons", tuple(p.name.replace("transcoder", "mlp") for p in places if p.split))
        circuit = replace(one.circuit, graph=one.circuit.graph.with_dictionaries(own))
        runs[name] = FeatureRun(circuit, one.path.parent, bool(arguments and arguments.signed), own, neurons)
    return runs


def feature_curves(
    model: Any, run: FeatureRun, task: Task, *, draws: int, seed: int, random: bool = True, **common: Any
) -> Curves:
    """Features, neurons and, unless they are unwanted, random features at sizes of one, two and five times powers of ten."""
    import sparse_circuits as sc

    sizes = _sizes(len(run.scores.node_ids))
    common = {"signed": run.signed, **common}
    curve = sc.faithfulness_curve(model, run.scores, task, sizes, **common)
    neurons = None
    if run.neuron_scores is not None:
        total = len(run.neuron_scores.node_ids)
        also = {n for n in sizes if n <= total} | set(_sizes(total))
        neurons = sc.faithfulness_curve(model, run.neuron_scores, task, sorted(also), **common)
    del common["signed"]
    # the last circuit has all that is active, so that nothing about it can be random
    circuits = [e.circuit for e in curve.evaluations[:-1]] if random else []
    drawn = [sc.random_baseline(model, circuit, task, draws=draws, seed=seed, **common) for circuit in circuits]
    return Curves(curve, neurons, tuple(drawn))


def _sizes(total: int) -> list[int]:
    steps = (step * 10**power for power in range(len(str(total))) for step in (1, 2, 5))
    return [*(n for n in steps if n < total), total]


def _arguments(opened: Mapping[str, Opened]) -> list[Any]:
    return [one.arguments for one in opened.values()]


def _shared(option: str, values: list[Any], default: Any) -> Any:
    different = sorted({default if value is None else value for value in values})
    if len(different) > 1:
        listed = ", ".join(map(str, different))
        raise InputError(f"The circuits differ in {option} ({listed}); evaluate them one by one, or give {option}.")
    return different[0]
