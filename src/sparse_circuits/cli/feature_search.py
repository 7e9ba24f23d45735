"""What ``find --dictionaries`` does: scores features, chooses a circuit, and says how good it is on other prompts."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.load import ablation_named, fitting, load_model_on, working
from sparse_circuits.cli.methods import ENTRIES
from sparse_circuits.cli.options import NODES, NODES_ABOVE, STEPS_OF_FEATURES
from sparse_circuits.cli.page import curve_through, other_circuits
from sparse_circuits.cli.record import Arguments
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Method
    from sparse_circuits.circuit import FeatureCircuit, FeatureScores
    from sparse_circuits.dictionary import Dictionaries
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation
    from sparse_circuits.graph import FeatureGraph
    from sparse_circuits.task import Task


@dataclass(frozen=True, eq=False)
class FoundFeatures:
    """A feature circuit with everything known of it; ``arguments`` with nothing left open.

    Attributes:
        evaluated_on: the prompts of the evaluation, other draws than those of the scores where the task is bundled.
        shared: how many of them are among those of the scores all the same.
        neurons, of_neurons: scores of the neurons of the same sites, and the circuit of as many of these, evaluated; None
            where the features are neurons.
        curve: of circuits of other sizes from the same scores; None where no size stands for the circuit.
    """

    arguments: Arguments
    scores: FeatureScores
    circuit: FeatureCircuit
    evaluated_on: Task
    shared: int
    evaluation: Evaluation
    baseline: Baseline
    curve: Curve | None
    neurons: FeatureScores | None
    of_neurons: Evaluation | None
    seconds: float
    device: str


def search_features(arguments: Arguments, device: str | None) -> FoundFeatures:
    """Score, select, evaluate; writes nothing.

    Raises:
        SparseCircuitsError: for anything that cannot be used, before the long work as far as possible.
    """
    import sparse_circuits as sc
    from sparse_circuits.task.shared import shared_prompts

    start = time.perf_counter()
    arguments, method = _resolved(arguments)
    model = load_model_on(arguments.model, device)
    task = sc.load_task(arguments.task, model, n=arguments.examples, seed=arguments.seed)
    dictionaries = load_dictionaries_on(arguments, model)
    whole = arguments.whole or ()
    graph = feature_graph(model, dictionaries, whole)
    arguments = _checked(arguments, graph, dictionaries, len(task))
    batches: dict[str, Any] = {"batch_size": arguments.batch_size, "progress": True}
    scoring = {"ablation": ablation_named(arguments.ablation), "positions": arguments.positions, **batches}
    scores = sc.attribute(model, graph, task, method, nodes_above=arguments.nodes_above, **scoring)
    circuit = select(arguments, scores)
    neurons = of_neurons = None
    if arguments.dictionaries != "neurons":
        neurons = sc.attribute(model, neuron_graph(model, graph, whole), task, method, **scoring)
        of_neurons = neurons.top(circuit.size, signed=arguments.signed)
    fresh = fitting(model, fresh_task(arguments, model), [circuit])
    evaluating = {"ablation": scoring["ablation"], **policy(arguments), **batches}
    others = other_circuits(scores, circuit)
    circuits = [circuit, *others.values()]
    evaluations = sc.evaluate_many(
        model, circuits if of_neurons is None else [*circuits, of_neurons], fresh, **evaluating
    )
    baseline = sc.random_baseline(model, circuit, fresh, draws=arguments.draws, seed=arguments.seed + 1, **evaluating)
    return FoundFeatures(
        arguments=arguments,
        scores=scores,
        circuit=circuit,
        evaluated_on=fresh,
        shared=shared_prompts(fresh, task),
        evaluation=evaluations[0],
        baseline=baseline,
        curve=curve_through(circuit, others, evaluations[: len(circuits)]),
        neurons=neurons,
        of_neurons=None if of_neurons is None else evaluations[-1],
        seconds=time.perf_counter() - start,
        device=str(model.cfg.device),
    )


def load_dictionaries_on(arguments: Arguments, model: Any) -> Dictionaries:
    """The dictionaries that a run asks for."""
    from sparse_circuits import load_dictionaries

    with working(f"loading dictionaries {arguments.dictionaries}"):
        return load_dictionaries(arguments.dictionaries, model, sites=arguments.sites)


def feature_graph(model: Any, dictionaries: Any, whole: tuple[str, ...]) -> FeatureGraph:
    from sparse_circuits.graph import Graph

    return Graph.of(model, dictionaries, whole=whole)


def neuron_graph(model: Any, graph: FeatureGraph, whole: tuple[str, ...]) -> FeatureGraph:
    """The same sites with their neurons for features; a transcoder's place is taken by what its MLP writes."""
    from sparse_circuits import load_dictionaries

    sites = [place.name.replace("transcoder", "mlp") for place in graph.places if place.split]
    return feature_graph(model, load_dictionaries("neurons", model, sites=sites), whole)


def fresh_task(arguments: Arguments, model: Any) -> Task:
    """Prompts to evaluate on: other draws of a bundled task, as ``evaluate`` takes them; a file's own."""
    import sparse_circuits as sc

    return sc.load_task(arguments.task, model, n=arguments.examples, seed=arguments.seed + 1)


def policy(arguments: Arguments) -> dict[str, Any]:
    """What evaluation does with error terms, and from which layer on."""
    return {"errors": arguments.errors or "nodes", "start_layer": arguments.start_layer or 0}


def select(arguments: Arguments, scores: FeatureScores) -> FeatureCircuit:
    """The circuit that the arguments ask for.

    Raises:
        InputError: if nothing is left of it.
    """
    signed, edges = arguments.signed, arguments.edges
    if arguments.cumulative is not None:
        circuit = scores.cumulative(nodes=arguments.cumulative)
    elif edges is None and arguments.size is None:
        above = arguments.node_threshold or 0.0
        circuit = scores.threshold(nodes=above, edges=arguments.edge_threshold, signed=signed)
    else:
        n = arguments.size
        if n is None:  # as many as are above the threshold
            n = scores.threshold(nodes=arguments.node_threshold or 0.0, signed=signed).size
        if arguments.edge_threshold is not None:
            values = scores.top(n, signed=signed).edge_list.values.abs()
            edges = int((values > arguments.edge_threshold).sum())
        circuit = scores.top(n, edges=edges, signed=signed)
    if circuit.size == 0:
        raise InputError(_nothing(arguments, scores))
    return circuit


def _nothing(arguments: Arguments, scores: FeatureScores) -> str:
    strongest = output.number(float(scores.node_values.abs().max())) if len(scores.node_values) else "0"
    wired = next((f for f in ("edges", "edge_threshold", "cumulative") if getattr(arguments, f) is not None), None)
    if wired is None:
        return f"No node is left; try a lower --node-threshold (the strongest |score| is {strongest})."
    advice = {
        "edges": "more --edges",
        "edge_threshold": "a lower --edge-threshold",
        "cumulative": "a higher --cumulative",
    }
    return (
        f"The chosen edges do not connect the nodes to the logits, so nothing is left; try {advice[wired]}, or a lower "
        f"--nodes-above (the strongest node's |score| is {strongest})."
    )


def _resolved(arguments: Arguments) -> tuple[Arguments, Method]:
    """The method, and the arguments with what does not hang on the model filled in; refusals need no model.

    Raises:
        InputError: for what the method cannot do with features.
    """
    from sparse_circuits.attribution import METHODS

    name = arguments.method
    defaults: dict[str, Any] = {"path": "activations", "steps": STEPS_OF_FEATURES} if name == "eap-ig" else {}
    given = {option: getattr(arguments, option) for option in ENTRIES[name].options}
    method = METHODS[name](**defaults | {option: value for option, value in given.items() if value is not None})
    if arguments.positions != "sum" and not method.tells_positions:
        raise InputError(f"--positions {arguments.positions}: {name} does not tell positions apart.")
    if arguments.signed and not method.signed:
        raise InputError(f"--signed: the scores of {name} carry no sign; leave it out.")
    asked = [n for n in ("edges", "edge_threshold", "cumulative", "nodes_above") if getattr(arguments, n) is not None]
    if asked and not method.finds_edges:
        raise InputError(f"--{asked[0].replace('_', '-')}: {name} finds no edges between features; leave it out.")
    filled: dict[str, Any] = {option: method.options[option] for option in given}
    filled |= {"errors": arguments.errors or "nodes", "start_layer": arguments.start_layer or 0}
    if not method.finds_edges:
        filled["nodes_only"] = True
    elif not arguments.nodes_only and arguments.nodes_above is None:
        filled["nodes_above"] = NODES_ABOVE
    if arguments.node_threshold is None and arguments.cumulative is None:
        filled["size"] = arguments.size or NODES
    return replace(arguments, **filled), method


def _checked(arguments: Arguments, graph: FeatureGraph, dictionaries: Dictionaries, n_examples: int) -> Arguments:
    """The arguments with what hangs on model and dictionaries filled in.

    Raises:
        InputError: for numbers that the graph does not have.
    """
    if (arguments.start_layer or 0) >= graph.n_layers:
        raise InputError(f"--start-layer {arguments.start_layer}: the model has {graph.n_layers} layers, from 0.")
    if arguments.size is not None and arguments.positions == "sum" and arguments.size > graph.size:
        raise InputError(f"--nodes {arguments.size}: the graph of {arguments.model} has {graph.size}.")
    filled: dict[str, Any] = {"examples": n_examples}
    if arguments.dictionaries in ("toy", "neurons"):  # what they hold by default may grow
        filled["sites"] = tuple(dictionaries)
    return replace(arguments, **filled)
