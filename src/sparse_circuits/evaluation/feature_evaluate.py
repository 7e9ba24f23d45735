"""Evaluation of feature circuits: what :func:`sparse_circuits.evaluate_many` does with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import with_batch_size
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.dictionary import Dictionaries, load_dictionaries
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.feature_run import FeatureRunner, Policy
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.walk import Walk, unchanged
from sparse_circuits.progress import tracker
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits
from sparse_circuits.task.task import Task


def evaluate_features(
    model: Any,
    anatomy: Anatomy,
    circuits: Sequence[FeatureCircuit],
    task: Task,
    *,
    ablation: Ablation,
    completeness: bool,
    dictionaries: Mapping[str, Any] | None,
    policy: Policy,
    batch_size: int | Literal["auto"],
    progress: bool,
) -> list[Evaluation]:
    """See :func:`sparse_circuits.evaluate`; circuits of several graphs share the clean run, those of one also the ablated."""
    if not isinstance(policy.start_layer, int) or not 0 <= policy.start_layer < len(anatomy.blocks):
        raise InputError(
            f"evaluate(start_layer={policy.start_layer!r}): expected a layer of the model, 0 to {len(anatomy.blocks) - 1}."
        )
    if dictionaries is not None and not isinstance(dictionaries, Dictionaries):
        dictionaries = load_dictionaries(dictionaries, model)  # once for all circuits
    circuits = [with_dictionaries(model, circuit, dictionaries) for circuit in circuits]
    # circuits of equal graphs share what is ablated, if it is by the same dictionaries
    graphs: list[FeatureGraph] = []
    which = [_place(circuit.graph, graphs) for circuit in circuits]
    for graph in graphs:
        graph.check(anatomy)
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    positions = [prompts.positions_named(graph.positions) if graph.positions else None for graph in graphs]
    runs = [(i, circuit, policy) for i, circuit in zip(which, circuits, strict=True)]
    if completeness:
        runs += [(i, circuit, replace(policy, complement=True)) for i, circuit in zip(which, circuits, strict=True)]
    nothing = [FeatureCircuit(graph, torch.empty(0, dtype=torch.int64)) for graph in graphs]

    def attempt(size: int) -> tuple[Tensor, Tensor, Tensor]:
        ablated = [prepare_places(ablation, model, anatomy, graph, task, prompts, size) for graph in graphs]
        clean, values, empty = (
            torch.empty(len(prompts)),
            torch.empty(len(runs), len(prompts)),
            torch.empty(len(graphs), len(prompts)),
        )

        def work() -> Iterator[tuple[Tensor, Batch, FeatureRunner, FeatureCircuit, Policy, Tensor]]:
            for rows, plain in prompts.batches(size):
                with torch.no_grad():
                    final = Walk(anatomy, (), plain.padding).run(anatomy.embed(plain.tokens), unchanged)
                    batch = with_clean_logits(anatomy, prompts.metric, final, plain)
                    clean[rows] = measure(anatomy, prompts.metric, final, batch).cpu().float()
                for i, graph in enumerate(graphs):
                    of = positions[i]
                    groups = None if of is None else of.of(rows, batch.tokens.shape[1])
                    runner = FeatureRunner.of(anatomy, graph, batch, ablated[i], groups)
                    yield rows, batch, runner, nothing[i], policy, empty[i]
                    for into, (graph_of, circuit, how) in zip(values, runs, strict=True):
                        if graph_of == i:
                            yield rows, batch, runner, circuit, how, into

        total = -(-len(prompts) // size) * (len(runs) + len(graphs))
        for rows, batch, runner, circuit, how, into in tracker(work(), total, f"evaluating on {task.name}", progress):
            final = runner.final(circuit, how)
            with torch.no_grad():
                into[rows] = measure(anatomy, prompts.metric, final, batch).cpu().float()
        return clean, values, empty

    clean, values, empty = with_batch_size(attempt, batch_size, anatomy, prompts)

    def result(i: int, circuit: FeatureCircuit) -> Evaluation:
        complement = values[len(circuits) + i] if completeness else None
        return Evaluation(
            circuit, values[i], clean, empty[which[i]], complement, str(ablation), policy.errors, policy.start_layer
        )

    return [result(i, circuit) for i, circuit in enumerate(circuits)]


def with_dictionaries(model: Any, circuit: FeatureCircuit, dictionaries: Mapping[str, Any] | None) -> FeatureCircuit:
    """The circuit with dictionaries at its places; places that ``dictionaries`` leaves out are none of the circuit's."""
    graph = circuit.graph
    if dictionaries is not None:
        if not isinstance(dictionaries, Dictionaries):
            dictionaries = load_dictionaries(dictionaries, model)
        left_out = [place.name for place in graph.places if place.split and place.name not in dictionaries]
        circuit = _without(circuit, left_out) if left_out else circuit
        return replace(circuit, graph=circuit.graph.with_dictionaries(dictionaries))
    graph.check_dictionaries("The circuit", "pass evaluate(dictionaries=...) or Circuit.load(path, dictionaries=...).")
    return circuit


def _without(circuit: FeatureCircuit, names: list[str]) -> FeatureCircuit:
    graph = circuit.graph
    smaller = replace(graph, places=tuple(place for place in graph.places if place.name not in names))
    if not smaller.places:
        raise InputError(f"evaluate(dictionaries=...): expected some of {', '.join(names)}; got none of them.")
    place = graph.places_of(circuit.node_ids)
    stays = torch.tensor([p.name not in names for p in graph.places])
    shift = torch.tensor([graph.nodes_of(i).start for i in range(len(graph.places))])
    new = iter(range(len(smaller.places)))
    starts = [smaller.nodes_of(next(new)).start if s else 0 for s in stays.tolist()]
    kept = stays[place]
    ids = circuit.node_ids[kept] - shift[place[kept]] + torch.tensor(starts)[place[kept]]
    values = None if circuit.node_values is None else circuit.node_values[kept]
    return FeatureCircuit(smaller, ids, values, provenance=circuit.provenance)


def _place(graph: FeatureGraph, graphs: list[FeatureGraph]) -> int:
    """The number of an equal graph with the very same dictionaries, added if there is none yet."""
    for i, other in enumerate(graphs):
        same = graph == other and all(
            a.dictionary is b.dictionary for a, b in zip(graph.places, other.places, strict=True)
        )
        if same:
            return i
    graphs.append(graph)
    return len(graphs) - 1
