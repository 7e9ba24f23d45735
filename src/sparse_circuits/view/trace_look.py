"""How much of a trace is drawn, and how its effects look: colour and dashes by sign, width and opacity by size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import LOGITS
from sparse_circuits.tracing.trace import Trace, TracedEdge, TracedNode
from sparse_circuits.view.contents import Shades
from sparse_circuits.view.feature_layout import Role
from sparse_circuits.view.strokes import CARRIES, Pens, largest

LOWERS, RAISES = CARRIES, "#B2182B"
"""Blue and a red that people with any of the common colour blindnesses tell apart; red edges are dashed besides."""


@dataclass(frozen=True, eq=False)
class TraceLook:
    """What of a trace is drawn, and its colours and strokes.

    Effects on features and effects on the metric have different units, so that each are measured by their own strongest.

    Attributes:
        nodes: in the model's order. edges: strongest first, all between these nodes and the logits.
        between: how many such edges the trace has.
    """

    trace: Trace
    nodes: tuple[TracedNode, ...]
    edges: tuple[TracedEdge, ...]
    between: int

    @classmethod
    def of(cls, trace: Trace, max_nodes: int | None, max_edges: int | None, caller: str) -> TraceLook:
        """The strongest nodes, and of the edges between them the strongest. ``caller`` is what an error names.

        Nodes go by their effect on the metric. Those that were not ablated come after all others, by the strongest edge
        that reaches them. Edges are relative to the strongest of their kind.

        Raises:
            InputError: for what is no trace, has no node, or has an edge that no picture can have; a limit that is no count.
        """
        _check(trace, caller)
        for name, n in (("max_nodes", max_nodes), ("max_edges", max_edges)):
            if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
                raise InputError(f"{caller}({name}={n!r}): expected a whole number of at least 1, or None for all.")
        whole = cls(trace, trace.nodes, trace.edges, len(trace.edges))
        nodes, edges = trace.nodes, trace.edges
        if max_nodes is not None and max_nodes < len(nodes):
            reached: dict[str, float] = {}
            for edge in edges:
                reached[edge.target] = max(reached.get(edge.target, 0.0), whole.share(edge))

            def weakness(i: int) -> tuple[bool, float]:
                name, effect = nodes[i].name, nodes[i].effect
                return effect is None, -(reached.get(name, 0.0) if effect is None else whole.metric.share(effect))

            kept = sorted(range(len(nodes)), key=weakness)[:max_nodes]
            nodes = tuple(nodes[i] for i in sorted(kept))
        there = {LOGITS, *(node.name for node in nodes)}
        edges = [edge for edge in edges if edge.source in there and edge.target in there]
        edges.sort(key=lambda edge: -whole.share(edge))
        return cls(trace, nodes, tuple(edges[:max_edges]), len(edges))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """The number of each node's site; the logits come last."""
        sites = self.trace.graph.at(())
        places = {node.name: sites.place_of(sites.index(_base(node.name))) for node in self.nodes}
        return {**places, LOGITS: len(sites.places)}

    def role_of(self, name: str) -> Role:
        """Whether a node is a feature, an error term, or a whole site or head."""
        split = self.trace.graph.places[self.place_of[name]].split
        return "whole" if not split else "error" if _base(name).endswith(".error") else "feature"

    @cached_property
    def shades(self) -> Shades:
        """Of the nodes' effects on the metric."""
        return Shades(_largest(node.effect for node in self.nodes), True, RAISES)

    @cached_property
    def metric(self) -> Pens:
        """Of the nodes' effects, and of edges into the logits."""
        into = [edge.effect for edge in self.edges if edge.target == LOGITS]
        return self._pens([*into, *(node.effect for node in self.nodes)])

    @cached_property
    def activations(self) -> Pens:
        """Of edges into features."""
        return self._pens([edge.effect for edge in self.edges if edge.target != LOGITS])

    def _pens(self, effects: Iterable[float | None]) -> Pens:
        return Pens(_largest(effects), True, True, len(self.edges), RAISES)

    def pens(self, edge: TracedEdge) -> Pens:
        return self.metric if edge.target == LOGITS else self.activations

    def share(self, edge: TracedEdge) -> float:
        """|effect| as a share of the strongest of its kind, 0 to 1."""
        return self.pens(edge).share(edge.effect)


def _base(name: str) -> str:
    return name.partition("@")[0]


def _largest(values: Iterable[float | None]) -> float:
    return largest(torch.tensor([value for value in values if value is not None], dtype=torch.float64))


def _check(trace: Trace, caller: str) -> None:
    if not isinstance(trace, Trace):
        raise InputError(f"{caller}(trace={type(trace).__name__}): expected a Trace, such as sc.trace(...) returns.")
    if not trace.nodes:
        raise InputError(f"{caller}: this trace has no nodes, so there is nothing to draw.")
    place_of = TraceLook(trace, trace.nodes, trace.edges, len(trace.edges)).place_of
    if len(place_of) <= len(trace.nodes):
        raise InputError(f"{caller}: the trace has a node twice, or one called {LOGITS!r}.")
    for edge in trace.edges:
        missing = [name for name in (edge.source, edge.target) if name not in place_of]
        if missing:
            raise InputError(f"{caller}: the trace has an edge {edge.name}, and no node {missing[0]!r}.")
        if place_of[edge.source] >= place_of[edge.target]:
            raise InputError(f"{caller}: the trace has an edge {edge.name}, which does not lead to a later site.")
