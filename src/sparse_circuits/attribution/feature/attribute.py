"""Attribution of a feature graph: what :func:`sparse_circuits.attribute` does with one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import with_batch_size
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally, Sparse
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.attribution.method import Method
from sparse_circuits.circuit import FeatureScores
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.progress import tracker
from sparse_circuits.provenance import provenance
from sparse_circuits.task.task import Task


def attribute_features(
    model: Any,
    anatomy: Anatomy,
    graph: FeatureGraph,
    task: Task,
    method: Method,
    *,
    ablation: Ablation,
    positions: Literal["sum", "keep", "spans"],
    per_example: bool,
    batch_size: int | Literal["auto"],
    progress: bool,
    nodes_above: float | None,
) -> FeatureScores:
    """See :func:`sparse_circuits.attribute`; arguments are checked there as far as they concern all graphs.

    Raises:
        InputError: for a graph without its dictionaries, or a method that finds no edges where these are asked for.
    """
    graph.check_dictionaries("The graph", "load them, and pass dictionaries=... when loading the circuit.")
    if nodes_above is not None and not nodes_above >= 0:
        raise InputError(
            f"attribute(nodes_above={nodes_above!r}): expected a number of at least 0, or None for no edges."
        )
    if nodes_above is not None and not method.finds_edges:
        raise InputError(f"{type(method).__name__} finds no edges between features; leave nodes_above out.")
    prompts = task.tokenized(model, anatomy, corrupted=method.needs_corrupted or ablation.kind == "patch")
    kept = None if positions == "sum" else prompts.positions(positions)
    graph = graph.at(() if kept is None else kept.names)

    def track(items: Iterator[Any], total: int) -> Iterator[Any]:
        return tracker(items, total, f"{type(method).__name__} on {task.name}", progress)

    def attempt(size: int) -> FeatureTally:
        ablated = prepare_places(ablation, model, anatomy, graph, task, prompts, size)
        problem = FeatureProblem(anatomy, graph, prompts, ablated, size, track, kept, per_example, nodes_above)
        return method.run_features(problem)

    tally = with_batch_size(attempt, batch_size, anatomy, prompts)
    n = len(prompts)
    nodes, values = tally.nodes.collect()
    return FeatureScores(
        graph=graph,
        node_ids=nodes,
        node_values=values / n,
        edge_list=None if nodes_above is None else _edges(tally.edges, graph, n),
        clean=tally.clean,
        corrupted=tally.corrupted,
        signed=method.signed,
        passes=tally.passes,
        per_example=None if tally.per_example is None else _by_example(tally.per_example, graph),
        convergence=tally.convergence(n),
        provenance=provenance(
            model,
            task,
            method=str(method),
            ablation=str(ablation),
            level=graph.level,
            positions=positions,
            signed=method.signed,
            nodes_above=nodes_above,
            dictionaries={place.name: place.dictionary_id for place in graph.places},
            n_examples=n,
            d_model=anatomy.d_model,
        ),
    )


def _edges(found: Sparse, graph: FeatureGraph, n: int) -> EdgeList:
    keys, values = found.collect()
    return EdgeList(torch.div(keys, graph.size + 1, rounding_mode="floor"), keys % (graph.size + 1), values / n)


def _by_example(found: Sparse, graph: FeatureGraph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    keys, values = found.collect()
    return torch.div(keys, graph.size + 1, rounding_mode="floor"), keys % (graph.size + 1), values
