"""What ``find`` does: scores a graph, chooses a circuit, and says how good it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.load import ablation_named, load_model_on
from sparse_circuits.cli.methods import ENTRIES, FIELDS
from sparse_circuits.cli.options import SIZES, PositionsName
from sparse_circuits.cli.page import curve_through, other_circuits
from sparse_circuits.cli.record import Arguments
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Method
    from sparse_circuits.circuit import Circuit, Scores
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation
    from sparse_circuits.graph import Graph
    from sparse_circuits.task import Task


@dataclass(frozen=True, eq=False)
class Found:
    """A circuit with everything known of it; ``arguments`` with nothing left open.

    Attributes:
        curve: of circuits of other sizes from the same scores; None where no size stands for the circuit.
    """

    arguments: Arguments
    scores: Scores
    circuit: Circuit
    evaluation: Evaluation
    baseline: Baseline
    curve: Curve | None
    seconds: float
    device: str


def search(arguments: Arguments, device: str | None, checkpoint: Path | None = None) -> Found:
    """Score, select, evaluate; writes nothing.

    Raises:
        SparseCircuitsError: for anything that cannot be used, before the long work as far as possible.
    """
    import sparse_circuits as sc

    start = time.perf_counter()
    method = _method(arguments, checkpoint)
    model = load_model_on(arguments.model, device)
    task = sc.load_task(arguments.task, model, n=arguments.examples, seed=arguments.seed)
    kv = "per_query_head" if arguments.kv == "per-query-head" else "per_group"
    graph = sc.Graph.of(model, kv=kv, level=arguments.of_components)
    arguments = _resolved(arguments, method, _size(graph, model, task, arguments.positions), len(task))
    common: dict[str, Any] = {
        "ablation": ablation_named(arguments.ablation),
        "batch_size": arguments.batch_size,
        "progress": True,
    }
    scores = sc.attribute(
        model,
        graph,
        task,
        method,
        positions=arguments.positions,
        per_example=arguments.stable is not None,
        **common,
    )
    circuit = _select(arguments, scores)
    others = other_circuits(scores, circuit)
    evaluations = sc.evaluate_many(model, [circuit, *others.values()], task, **common)
    baseline = sc.random_baseline(model, circuit, task, draws=arguments.draws, seed=arguments.seed, **common)
    return Found(
        arguments=arguments,
        scores=scores,
        circuit=circuit,
        evaluation=evaluations[0],
        baseline=baseline,
        curve=curve_through(circuit, others, evaluations),
        seconds=time.perf_counter() - start,
        device=str(model.cfg.device),
    )


def _method(arguments: Arguments, checkpoint: Path | None) -> Method:
    """The method with its options; what it cannot do is refused before anything is loaded."""
    from sparse_circuits.attribution import METHODS

    options = {FIELDS.get(name, name): getattr(arguments, name) for name in ENTRIES[arguments.method].options}
    if arguments.method == "edge-pruning":
        options |= {"size": arguments.size, "seed": arguments.seed, "checkpoint": checkpoint}
    method = METHODS[arguments.method](**{name: value for name, value in options.items() if value is not None})
    if arguments.level not in method.levels:
        raise InputError(f"--level {arguments.level}: {arguments.method} scores {' and '.join(method.levels)} only.")
    if arguments.positions != "sum" and not method.tells_positions:
        raise InputError(f"--positions {arguments.positions}: {arguments.method} does not tell positions apart.")
    if arguments.signed and not method.signed:
        raise InputError(f"--signed: the scores of {arguments.method} carry no sign; leave it out.")
    return method


def _size(graph: Graph, model: Any, task: Task, positions: PositionsName) -> int:
    """How many there are to choose from, at the positions that will be told apart."""
    if positions == "sum":
        return graph.size
    from sparse_circuits.model import anatomy_of

    anatomy = anatomy_of(model)
    names = task.tokenized(model, anatomy, corrupted=False).positions(positions).names
    return graph.at(names, positions == "keep" and all(block.attention.causal for block in anatomy.blocks)).size


def _resolved(arguments: Arguments, method: Method, graph_size: int, n_examples: int) -> Arguments:
    """The arguments with nothing left open, so that another version's defaults cannot change a repeated run."""
    own = ENTRIES[arguments.method].options
    filled: dict[str, Any] = {name: method.options[FIELDS.get(name, name)] for name in own}
    filled["examples"] = n_examples
    if arguments.size is not None and "sparsity" in filled:
        filled["sparsity"] = None  # the size stands for it
    if arguments.threshold is None and not arguments.chosen_by_method:
        filled["size"] = arguments.size or min(SIZES[arguments.of_components], graph_size)
        if arguments.stable is None and arguments.level == "edges":
            filled["select"] = arguments.select or "greedy"
        if filled["size"] > graph_size:
            raise InputError(
                f"{arguments.size_flag} {filled['size']}: the graph of {arguments.model} has {graph_size}."
            )
    return replace(arguments, **filled)


def _select(arguments: Arguments, scores: Scores) -> Circuit:
    signed, n = arguments.signed, arguments.size or 0
    if arguments.chosen_by_method:
        circuit = scores.selected
    elif arguments.threshold is not None:
        circuit = scores.threshold(arguments.threshold, signed=signed)
    elif arguments.stable is not None:
        circuit = scores.stable(n, confidence=arguments.stable, signed=signed)
    elif arguments.select == "greedy":
        circuit = scores.greedy(n, signed=signed)
    else:
        circuit = scores.top(n, signed=signed)
    if circuit.size == 0:
        raise InputError(_nothing(arguments, scores))
    return circuit


def _nothing(arguments: Arguments, scores: Scores) -> str:
    """Why a circuit is empty, and what to try."""
    if arguments.chosen_by_method:
        advice = (
            "a lower --acdc-threshold" if "acdc_threshold" in ENTRIES[arguments.method].options else "other options"
        )
    elif arguments.threshold is not None:
        advice = "a lower --threshold"
    elif arguments.stable is not None:
        advice = "a lower --stable, more --examples or a larger " + arguments.size_flag
    else:
        advice = "more --edges, or --select greedy"
    strongest = f"the strongest |score| is {output.number(float(scores.values.abs().max()))}"
    if arguments.level != "edges":
        return f"No {scores.graph.thing} is left; try {advice} ({strongest})."
    return f"The chosen edges do not connect the input to the logits, so nothing is left; try {advice} ({strongest})."
