"""A trace and what another run adds to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph
from sparse_circuits.tracing.method import Found
from sparse_circuits.tracing.trace import Trace, TracedEdge, TracedNode

# what must be the same for runs to be parts of one trace, and what it is called
_SAME = {
    "model": "model",
    "revision": "revision of the model",
    "task_hash": "task (its prompts or metric differ)",
    "metric": "metric",
    "ablation": "ablation",
    "ablation_prompts": "set of prompts that its mean is over",
    "positions": "choice of positions",
    "form": "form of tracing",
}


def check_extends(earlier: Any, graph: FeatureGraph, about: dict[str, Any]) -> None:
    """
    Raises:
        InputError: if a trace is not of this model, task, graph, ablation, positions and form.
    """
    if not isinstance(earlier, Trace):
        raise InputError(f"trace(extend={earlier!r}): expected a Trace, or the file of one.")
    for key, what in _SAME.items():
        was, now = earlier.provenance.get(key), about[key]
        if was != now:
            raise InputError(
                f"The trace to be extended has another {what}: {was!r}, and this run {now!r}. Start a new trace, or make "
                "this run like the earlier ones."
            )
    if earlier.graph != graph:
        sites = [", ".join(f"{p.name} ({p.dictionary_id})" for p in g.places) for g in (earlier.graph, graph)]
        raise InputError(f"The trace to be extended has other sites or dictionaries: {sites[0]}; this run: {sites[1]}.")


def grown(earlier: Trace | None, graph: FeatureGraph, found: Found, about: dict[str, Any]) -> Trace:
    """The earlier trace with a run's finds added; nothing of it is lost, and nothing is in it twice.

    What is found again stays as the run found it that found it first.
    """
    runs = () if earlier is None else earlier.runs
    number = next((i for i, run in enumerate(runs) if _did(run) == _did(found.record)), len(runs))
    nodes = {} if earlier is None else {node.name: node for node in earlier.nodes}
    for node in found.nodes:
        nodes[node.name] = _node(nodes.get(node.name), replace(node, run=number))
    edges: dict[str, TracedEdge] = {} if earlier is None else {edge.name: edge for edge in earlier.edges}
    for edge in found.edges:
        edges.setdefault(edge.name, replace(edge, run=number))
    return Trace(
        graph,
        tuple(sorted(nodes.values(), key=lambda node: graph.index(node.name))),
        tuple(sorted(edges.values(), key=lambda edge: abs(edge.effect), reverse=True)),
        runs if number < len(runs) else (*runs, found.record),
        about,
    )


def _did(run: dict[str, Any]) -> dict[str, Any]:
    """What a run did, whatever it cost: passes per batch hang on the batches."""
    return {key: value for key, value in run.items() if key != "passes"}


def _node(known: TracedNode | None, new: TracedNode) -> TracedNode:
    if known is None or (known.effect is None and new.effect is not None):
        return new
    return replace(known, logits=max(known.logits, new.logits, key=len))
