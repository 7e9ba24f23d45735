"""What tracing returns: a graph of features, grown run by run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparse_circuits.graph import FeatureGraph


@dataclass(frozen=True)
class TracedNode:
    """A feature of a trace.

    Attributes:
        name: as everywhere, ``"resid_1.f217"``.
        effect: its indirect effect on the metric, m(it ablated) - m(clean), averaged over examples: exact or estimated, as its
            run found it. None for a feature that a run reached and none has ablated yet.
        logits: the tokens whose logits at the last position its ablation changes most, largest change first, with the signed
            change averaged over examples; empty where that was not measured.
        run: the number of the run that ablated it, or else of the one that reached it.
    """

    name: str
    effect: float | None
    logits: tuple[tuple[str, float], ...] = ()
    run: int = 0


@dataclass(frozen=True)
class TracedEdge:
    """What ablating ``source`` changes of ``target``, averaged over examples.

    Attributes:
        source, target: names of features; or, as the target, ``"logits"``.
        effect: the change of the target's activation, summed over tokens; into the logits, of the metric.
        run: the number of the run that found it.
    """

    source: str
    target: str
    effect: float
    run: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """Features and the effects between them, as the runs so far found them.

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
