"""What tracing returns: a graph of features, grown run by run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit
from sparse_circuits.circuit.files import pack_graph, read, unpack_graph, write
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import FeatureGraph
from sparse_circuits.graph.features import LOGITS
from sparse_circuits.tracing.compare import TraceComparison, compared


@dataclass(frozen=True)
class TracedNode:
    """A feature of a trace.

    Attributes:
        name: as everywhere, ``"resid_1.f217"``.
        effect: its indirect effect on the metric, m(it ablated) - m(clean), averaged over examples: exact or estimated, as its
            run found it. None for a feature that a run reached and none has ablated yet.
        logits: the tokens whose logits at the last position its ablation changes most, largest change first, with the signed
            change averaged over examples, less the mean change of all logits, which alters no probability; empty where that
            was not measured.
        run: the number of the run that ablated it, or else of the one that reached it, counted from 0.
    """

    name: str
    effect: float | None
    logits: tuple[tuple[str, float], ...] = ()
    run: int = 0


@dataclass(frozen=True)
class TracedEdge:
    """What ablating ``source`` changes of ``target`` directly, averaged over examples.

    Directly: along paths that cross no other site of the graph. By ablation it is what happens, by gradient the first-order
    estimate of the same.

    Attributes:
        source, target: names of features; or, as the target, ``"logits"``.
        effect: the change of the target's activation, summed over tokens; into the logits, of the metric.
        run: the number of the run that found it, counted from 0.
        contribution: the part of the source's effect on the metric that goes along this edge, to first order: the change of
            the target at every token times the metric's derivative by the target there. By gradient always, by ablation
            only into the logits, where it is the effect; else None.
    """

    source: str
    target: str
    effect: float
    run: int = 0
    contribution: float | None = None

    @property
    def name(self) -> str:
        return f"{self.source}->{self.target}"


@dataclass(frozen=True, eq=False)
class Trace:
    """Features and the effects between them, as the runs so far found them; see :func:`trace`.

    Attributes:
        graph: the sites of the slice, in the model's order.
        nodes: in the model's order.
        edges: strongest first.
        runs: what each run did, as JSON-ready values: its form, site, threshold, what it started from and so on.
        provenance: model, task, dictionaries, versions.
    """

    graph: FeatureGraph
    nodes: tuple[TracedNode, ...]
    edges: tuple[TracedEdge, ...]
    runs: tuple[dict[str, Any], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """Where its effects come from: "ablation" or "gradient"."""
        return str(self.provenance.get("form", "ablation"))

    @property
    def traced(self) -> tuple[TracedNode, ...]:
        """The nodes whose effect is known, in the model's order."""
        return tuple(node for node in self.nodes if node.effect is not None)

    @property
    def frontier(self) -> tuple[str, ...]:
        """Names of the features that were reached and not yet ablated, in the model's order: where the next run goes on."""
        return tuple(node.name for node in self.nodes if node.effect is None)

    def to_dict(self, kind: str = "nodes") -> dict[str, float | None]:
        """Effects by name, strongest first.

        Args:
            kind: "nodes", ``{"resid_1.f217": -0.4, ...}`` with None for the frontier, which comes last; or "edges",
                ``{"resid_1.f217->resid_2.f9": -1.3, "resid_3.f2->logits": 0.2, ...}``.
        """
        if kind == "nodes":
            order = sorted(self.nodes, key=lambda node: -1.0 if node.effect is None else abs(node.effect), reverse=True)
            return {node.name: node.effect for node in order}
        if kind != "edges":
            raise InputError(f"to_dict({kind!r}): expected 'nodes' or 'edges'.")
        return {edge.name: edge.effect for edge in self.edges}

    def circuit(self) -> FeatureCircuit:
        """The features whose effect is known, scored by it, with the edges between them, as every other feature circuit.

        The frontier is left out. Edges are scored by their effects, which between features are in units of activation; a
        circuit is evaluated by its nodes.
        """
        graph, traced = self.graph, {node.name: node for node in self.traced}
        ids = {name: graph.index(name) for name in traced}
        edges = [e for e in self.edges if e.source in traced and (e.target in traced or e.target == LOGITS)]
        order = sorted(traced, key=lambda name: ids[name])
        return FeatureCircuit(
            graph,
            torch.tensor([ids[name] for name in order], dtype=torch.int64),
            torch.tensor([traced[name].effect for name in order], dtype=torch.float32),
            EdgeList(
                torch.tensor([ids[e.source] for e in edges], dtype=torch.int64),
                torch.tensor([graph.index(e.target) for e in edges], dtype=torch.int64),
                torch.tensor([e.effect for e in edges], dtype=torch.float32),
            ),
            {**self.provenance, "selection": {"rule": "trace", "runs": len(self.runs)}},
        )

    def compare(self, other: Trace) -> TraceComparison:
        """This trace beside another of the same graph, as a rule the exact form beside the gradient form.

        Raises:
            InputError: for a trace of another graph, or under another ablation.
        """
        if not isinstance(other, Trace):
            raise InputError(f"compare({type(other).__name__}): expected a Trace; load one with Trace.load(path).")
        return compared(self, other)

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically. Dictionaries are not saved, only
        what they were loaded as.
        """
        index = self.graph.index
        numbers = {
            "nodes": [index(node.name) for node in self.nodes],
            "node_runs": [node.run for node in self.nodes],
            "sources": [index(edge.source) for edge in self.edges],
            "targets": [index(edge.target) for edge in self.edges],
            "edge_runs": [edge.run for edge in self.edges],
        }
        values = {
            "effects": [math.nan if node.effect is None else node.effect for node in self.nodes],
            "edge_effects": [edge.effect for edge in self.edges],
            "contributions": [math.nan if e.contribution is None else e.contribution for e in self.edges],
        }
        tensors = {name: torch.tensor(of, dtype=torch.int64) for name, of in numbers.items()}
        tensors |= {name: torch.tensor(of, dtype=torch.float64) for name, of in values.items()}
        header = {
            "graph": pack_graph(self.graph),
            "provenance": self.provenance,
            "runs": list(self.runs),
            "logits": [[list(pair) for pair in node.logits] for node in self.nodes],
        }
        return write(Path(path), "trace", header, tensors)

    @classmethod
    def load(cls, path: str | Path, dictionaries: Mapping[str, Any] | None = None) -> Trace:
        """
        Args:
            dictionaries: what its graph refers to; without them it can be looked at and extended, but not validated.

        Raises:
            FileFormatError: for a file that is damaged or holds something else. InputError: for other dictionaries.
        """
        path = Path(path)
        header, tensors = read(path, "trace")
        graph = unpack_graph(path, header["graph"])
        try:
            trace = _unpacked(graph, header, {name: tensor.tolist() for name, tensor in tensors.items()})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileFormatError(
                f"{path}: its nodes or edges cannot be read ({error}); the file is damaged."
            ) from None
        return trace if dictionaries is None else replace(trace, graph=graph.with_dictionaries(dictionaries))

    def plot(self, path: str | Path | None = None, *, meanings: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Draw it; see :func:`sparse_circuits.view.trace_picture.draw_trace`."""
        from sparse_circuits.view.trace_picture import draw_trace

        return draw_trace(self, path, meanings=meanings, **options)

    def to_dot(self, *, meanings: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Graphviz text; see :func:`sparse_circuits.view.trace_dot.trace_dot`."""
        from sparse_circuits.view.trace_dot import trace_dot

        return trace_dot(self, meanings=meanings, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_trace

        return of_trace(self)

    def __repr__(self) -> str:
        waiting = len(self.frontier)
        frontier = f" + {waiting} reached" if waiting else ""
        features, edges, runs = (
            f"{thing}{'s' * (n != 1)}"
            for n, thing in ((len(self.nodes), "feature"), (len(self.edges), "edge"), (len(self.runs), "run"))
        )
        found = f"{len(self.traced)}{frontier} {features}, {len(self.edges)} {edges}"
        task = self.provenance.get("task")
        return f"Trace({found}, by {self.form} in {len(self.runs)} {runs}, task={task!r})"


def _unpacked(graph: FeatureGraph, header: dict[str, Any], tensors: dict[str, list[Any]]) -> Trace:
    runs, logits = header["runs"], header["logits"]
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ValueError("its runs are no records")
    for name in ("nodes", "sources", "targets"):
        if any(not isinstance(i, int) or not 0 <= i < graph.size + (name == "targets") for i in tensors[name]):
            raise ValueError(f"{name} that its graph does not have")
    if any(not isinstance(i, int) or not 0 <= i < len(runs) for i in tensors["node_runs"] + tensors["edge_runs"]):
        raise ValueError("runs that it does not record")
    nodes = tuple(
        TracedNode(
            graph.name_of(i),
            None if math.isnan(effect) else effect,
            tuple((str(token), float(change)) for token, change in moved),
            run,
        )
        for i, effect, moved, run in zip(
            tensors["nodes"], tensors["effects"], logits, tensors["node_runs"], strict=True
        )
    )
    columns = (tensors[name] for name in ("sources", "targets", "edge_effects", "edge_runs", "contributions"))
    edges = tuple(
        TracedEdge(graph.name_of(u), graph.name_of(d), effect, run, None if math.isnan(part) else part)
        for u, d, effect, run, part in zip(*columns, strict=True)
    )
    return Trace(graph, nodes, edges, tuple(runs), header["provenance"])
