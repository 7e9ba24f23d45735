"""Random feature circuits to compare with: as many features per site, drawn from those that are active."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import with_batch_size
from sparse_circuits.attribution.feature.splits import capture, change_at, prepare_places
from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.task import Task


def random_features(circuit: FeatureCircuit, active: list[Tensor], generator: torch.Generator) -> FeatureCircuit:
    """A circuit with as many features per site as ``circuit``, each active one as likely as any other; error terms and whole
    nodes are those of ``circuit``.

    Args:
        active: per place, what :func:`active_features` finds.
    """
    graph, ids = circuit.graph, circuit.node_ids
    places, features = graph.places_of(ids), ~torch.isin(ids, _others(circuit))
    drawn = [ids[~features]]
    for place, candidates in enumerate(active):
        n = int(((places == place) & features).sum())
        drawn.append(candidates[torch.randperm(len(candidates), generator=generator)[:n]])
    return FeatureCircuit(graph, torch.cat(drawn).sort().values, provenance={"task": "random", "n": circuit.size})


def active_features(
    model: Any,
    anatomy: Anatomy,
    circuit: FeatureCircuit,
    task: Task,
    ablation: Ablation,
    batch_size: int | Literal["auto"],
) -> list[Tensor]:
    """Per place, the numbers of the features that are not 0 somewhere in the task's clean or ablated runs."""
    graph = circuit.graph
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    positions = prompts.positions_named(graph.positions) if graph.positions else None

    @torch.no_grad()
    def attempt(size: int) -> list[Tensor]:
        ablated = prepare_places(ablation, model, anatomy, graph, task, prompts, size)
        found: list[list[Tensor]] = [[] for _ in graph.places]
        for _, batch in prompts.batches(size, positions=positions):
            run = capture(anatomy, graph, anatomy.embed(batch.tokens), batch.padding)
            references, _ = ablated(batch)
            groups = torch.where(batch.real, 0, -1) if batch.groups is None else batch.groups
            for i, place in enumerate(graph.places):
                if place.split:
                    change = change_at(place, run.held[i], references[i], batch.real)
                    there = (change.clean != 0) | (change.change != 0)
                    at = graph.offsets[i] + change.listed(place.n_features)
                    numbers = at * graph.n_positions + groups.flatten().to(at.device)[:, None]
                    found[i].append(numbers[there].unique().cpu())
        return [torch.cat(parts).unique() if parts else torch.empty(0, dtype=torch.int64) for parts in found]

    return with_batch_size(attempt, batch_size, anatomy, prompts)


def _others(circuit: FeatureCircuit) -> Tensor:
    """Numbers of the circuit's error terms and whole nodes."""
    graph, width = circuit.graph, circuit.graph.n_positions
    places = graph.places_of(circuit.node_ids)
    local = circuit.node_ids // width - torch.tensor(graph.offsets)[places]
    n_features = torch.tensor([place.n_features for place in graph.places])
    return circuit.node_ids[local >= n_features[places]]
