"""One circuit as the page shows it: its parts, their scores, and the size from which on each is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.circuit.select import strength, top
from sparse_circuits.errors import InputError
from sparse_circuits.view.explorer.steps import entries, order_of, order_within, step_of

Shown = Circuit | FeatureCircuit | Scores | FeatureScores

MOST_EDGES = 5000
"""So many edges the page draws without a slider step taking long; of more, the strongest."""
_DEFAULT_EDGES, _DEFAULT_NODES = 1000, 200
_NAMED = 16


@dataclass(frozen=True)
class Part:
    """A node, edge or unit: its score, and the first step at which the circuit has it."""

    score: float | None
    at: int


@dataclass(frozen=True, eq=False)
class Side:
    """A circuit at every step.

    Attributes:
        circuit: at the last step, with all that is drawn.
        nodes: by name; without the logits, and without an input that no edge leaves.
        edges: by the names of source and destination.
        units: of a node, by the node's name, where single units are chosen.
        sizes: the circuit's own size at each step, after dangling parts are removed.
        left_out: at each step, edges that are in the circuit but not drawn.
    """

    circuit: Circuit | FeatureCircuit
    nodes: dict[str, Part]
    edges: dict[tuple[str, str], Part]
    sizes: tuple[int, ...]
    units: dict[str, list[tuple[str, Part]]] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        return self.circuit.provenance

    @property
    def signed(self) -> bool:
        return self.provenance.get("signed", True) is not False


def largest_size(shown: Shown, max_size: int | None) -> int:
    """How many parts the last step has."""
    if isinstance(shown, Circuit | FeatureCircuit):
        return shown.size if max_size is None else min(shown.size, max_size)
    if isinstance(shown, FeatureScores):
        return min(len(shown.node_ids), _DEFAULT_NODES if max_size is None else max_size)
    return min(shown.graph.size, _DEFAULT_EDGES if max_size is None else max_size)


def known_parts(shown: Shown) -> list[str]:
    """Names that a circuit is known by: of scores those of the strongest parts, whatever is shown of them."""
    if isinstance(shown, Circuit | FeatureCircuit):
        return sorted(shown.names)
    if isinstance(shown, FeatureScores):
        strongest = shown.node_values.abs().argsort(descending=True, stable=True)[:_NAMED]
        return sorted(shown.graph.name_of(int(i)) for i in shown.node_ids[strongest])
    return sorted(shown.graph.names_of(top(shown.graph, shown.values.abs(), min(_NAMED, shown.graph.size))))


def side_of(shown: Shown, steps: Sequence[int], n: int, select: str, signed: bool, max_edges: int, first: int) -> Side:
    """
    Args:
        n: how many parts of it are shown at the last step; ``steps`` may go further, for another circuit's sake.
        select: "greedy" or "top", of scores.
        max_edges: so many edges are drawn, the strongest; those that are there at the step ``first`` before all others.
    """
    if isinstance(shown, FeatureCircuit | FeatureScores):
        return _feature_side(shown, steps, n, signed, max_edges, first)
    return _component_side(shown, steps, n, select, signed, max_edges, first)


# --- heads and MLPs ---


def _component_side(
    shown: Circuit | Scores, steps: Sequence[int], n: int, select: str, signed: bool, max_edges: int, first: int
) -> Side:
    graph, values = shown.graph, shown.values
    if isinstance(shown, Scores):
        order = order_of(graph, shown.values, n, select, signed)
    else:
        rule = (shown.provenance.get("selection") or {}).get("rule", "top")
        order = order_within(graph, shown.mask, values, rule)[:n]
    last = len(steps) - 1
    if graph.level == "edges":
        at = entries(graph, [(u, v) for u, v in order], steps)
        if isinstance(shown, Circuit) and n == shown.size:
            at = [min(i, last) for i in at]  # whole, a circuit may be shown with what dangles
    else:
        at = [step_of(rank, steps) for rank in range(len(order))]
    if values is None:
        at = [0] * len(order)
    scores = [None if values is None else float(values[where]) for where in order]
    kept = [(where, Part(s, i)) for where, s, i in zip(order, scores, at, strict=True) if i <= last]
    mask = torch.zeros(graph.shape, dtype=torch.bool)
    for where, _ in kept:
        mask[where] = True
    provenance = _provenance(shown)
    circuit = Circuit(graph, mask, None if values is None else values * mask, provenance)
    sizes = _there((part.at for _, part in kept), len(steps))
    if graph.level != "edges":
        return _of_units(circuit, kept, sizes)
    drawn = (
        sorted(kept, key=lambda one: (one[1].at > first, -abs(one[1].score or 0.0))) if len(kept) > max_edges else kept
    )
    edges = {(graph.rows[where[0]], graph.columns[where[1]]): part for where, part in drawn[:max_edges]}
    left_out = _there((part.at for _, part in drawn[max_edges:]), len(steps))
    nodes = _wired_nodes(circuit, kept)
    if values is not None:  # of scores, over the whole graph
        sums = (values * graph.mask if isinstance(shown, Scores) else circuit.values).sum(1)  # pyright: ignore[reportOptionalMemberAccess]
        at_row = {name: i for i, name in enumerate(graph.rows)}
        nodes = {name: Part(float(sums[at_row[name]]), part.at) for name, part in nodes.items() if name in at_row}
    return Side(circuit, nodes, edges, sizes, left_out=left_out)


def _wired_nodes(circuit: Circuit, kept: Sequence[tuple[tuple[int, ...], Part]]) -> dict[str, Part]:
    """When each node first has an edge; a shared key or value makes a node of none, unless none of its heads is one."""
    graph = circuit.graph
    owners: dict[int, list[int]] = {}
    for row in range(graph.shape[0]):
        for column in graph.owned(row):
            owners.setdefault(column, []).append(row)
    first: dict[int, int] = {}

    def seen(row: int, at: int) -> None:
        first[row] = min(first.get(row, at), at)

    for (row, column), part in kept:
        seen(row, part.at)
        if len(owners.get(column, [])) == 1:
            seen(owners[column][0], part.at)
    for (_, column), part in kept:
        heads = owners.get(column, [])
        if len(heads) > 1 and not any(row in first for row in heads):
            for row in heads:
                seen(row, part.at)
    return {graph.rows[row]: Part(None, at) for row, at in sorted(first.items())}


def _of_units(circuit: Circuit, kept: Sequence[tuple[tuple[int, ...], Part]], sizes: tuple[int, ...]) -> Side:
    """Nodes that have units in the circuit, at the levels of nodes, outputs and neurons."""
    graph = circuit.graph
    owner, width = graph.owner.tolist(), graph.n_positions
    units: dict[str, list[tuple[str, Part]]] = {}
    for (where,), part in kept:
        unit, position = divmod(where, width)
        units.setdefault(graph.nodes[owner[unit] * width + position], []).append((graph.rows[where], part))
    nodes = {}
    for name, parts in units.items():
        scores = [part.score for _, part in parts if part.score is not None]
        nodes[name] = Part(sum(scores) if scores else None, min(part.at for _, part in parts))
    return Side(circuit, nodes, {}, sizes, {} if graph.level == "nodes" else units)


# --- features ---


def _feature_side(
    shown: FeatureCircuit | FeatureScores, steps: Sequence[int], n: int, signed: bool, max_edges: int, first: int
) -> Side:
    values, listed = shown.node_values, shown.edge_list
    edges = EdgeList.empty() if listed is None else listed
    if values is None:
        order = list(range(len(shown.node_ids)))[:n]
    else:
        order = strength(values, signed).argsort(descending=True, stable=True)[:n].tolist()
    at = {int(shown.node_ids[i]): 0 if values is None else step_of(rank, steps) for rank, i in enumerate(order)}
    ids = torch.tensor(sorted(at), dtype=torch.int64)
    graph = shown.graph
    inside = torch.isin(edges.sources, ids) & torch.isin(edges.targets, torch.cat([ids, torch.tensor([graph.logits])]))
    edges = edges[inside.nonzero()[:, 0]]
    entries_at = torch.tensor([*(at[i] for i in ids.tolist()), 0])  # the logits are the graph's last node
    entered = torch.maximum(*(entries_at[torch.searchsorted(ids, ends)] for ends in (edges.sources, edges.targets)))
    order = edges.values.abs().argsort(descending=True, stable=True)
    order = order[(entered[order] > first).to(torch.int8).argsort(stable=True)]
    left_out = _there(entered[order[max_edges:]].tolist(), len(steps))
    edges = edges[order[:max_edges]]
    where = torch.searchsorted(shown.node_ids, ids)
    circuit = FeatureCircuit(graph, ids, None if values is None else values[where], edges, _provenance(shown))
    names = {i: graph.name_of(i) for i in [*at, graph.logits]}
    at[graph.logits] = 0
    scores = [None] * len(ids) if values is None else values[where].tolist()
    nodes = {names[i]: Part(score, at[i]) for i, score in zip(ids.tolist(), scores, strict=True)}
    columns = (edges.sources.tolist(), edges.targets.tolist(), edges.values.tolist())
    wires = {(names[u], names[d]): Part(s, max(at[u], at[d])) for u, d, s in zip(*columns, strict=True)}
    sizes = _there((part.at for part in nodes.values()), len(steps))
    return Side(circuit, nodes, wires, sizes, left_out=left_out)


def _there(entered: Iterable[int], n_steps: int) -> tuple[int, ...]:
    """How many parts are there at each step, by the steps at which they come in."""
    return tuple(torch.tensor([*entered], dtype=torch.int64).bincount(minlength=n_steps)[:n_steps].cumsum(0).tolist())


def _provenance(shown: Shown) -> dict[str, Any]:
    return {**shown.provenance, "signed": getattr(shown, "signed", shown.provenance.get("signed", True))}


# --- two circuits ---


def together(a: Side, b: Side | None) -> Circuit | FeatureCircuit:
    """All that is on either side, as one circuit to lay out.

    Raises:
        InputError: for circuits of different graphs, or of different dictionaries at the same site.
    """
    if b is None:
        return a.circuit
    one, other = a.circuit, b.circuit
    if isinstance(one, Circuit) and isinstance(other, Circuit):
        if one.graph != other.graph:
            raise InputError(
                f"explore(compare=...) is of another graph, {other.graph}; expected the first circuit's, {one.graph}."
            )
        return Circuit(one.graph, one.mask | other.mask)
    if not isinstance(one, FeatureCircuit) or not isinstance(other, FeatureCircuit):
        raise InputError(
            f"explore(compare={type(other).__name__}): expected what the first argument is, a {type(one).__name__}; "
            "circuits of components and of features have no parts in common."
        )
    graph = one.graph
    theirs = {place.name: place for place in other.graph.places}
    for place in graph.places:
        also = theirs.get(place.name, place)
        if (also.dictionary_id, also.n_features) != (place.dictionary_id, place.n_features):
            raise InputError(
                f"explore(compare=...) has another dictionary at {place.name}, {also.dictionary_id} ({also.n_features:,} "
                f"features); expected the first circuit's, {place.dictionary_id} ({place.n_features:,})."
            )
    try:
        ids = sorted({graph.index(name) for name in (*a.nodes, *b.nodes)} - {graph.logits})
    except InputError as error:
        raise InputError(f"explore(compare=...) is of another graph than the first circuit. {error}") from error
    ends = [(graph.index(u), graph.index(d)) for u, d in {**a.edges, **b.edges}]
    sources, targets = torch.tensor(ends, dtype=torch.int64).view(-1, 2).T
    weights = torch.tensor([_weight(a, b, edge) for edge in {**a.edges, **b.edges}])
    # node scores only say how high the boxes are
    values = None if one.node_values is None else torch.ones(len(ids))
    return FeatureCircuit(graph, torch.tensor(ids, dtype=torch.int64), values, EdgeList(sources, targets, weights))


def _weight(a: Side, b: Side, edge: tuple[str, str]) -> float:
    scores = [side.edges[edge].score for side in (a, b) if edge in side.edges]
    return max((abs(score) for score in scores if score is not None), default=0.0)
