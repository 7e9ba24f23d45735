"""Two traces of one graph beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparse_circuits.circuit.comparison import Comparison, labels_of, pearson, spearman
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.tracing.trace import Trace

_KINDS = ("nodes", "edges", "logits")
_NOTHING = float("nan")


@dataclass(frozen=True, eq=False)
class TraceComparison:
    """What :meth:`Trace.compare` returns: effects that both traces know, and how much of either the other has.

    A trace has what it chose to look at, so that correlations are over the parts that both have; how many those are is
    part of the answer.

    Attributes:
        nodes: effects of features on the metric. edges: of features on features. logits: of edges into the logits. Each can be
            plotted.
        sizes: how many of "nodes", "edges" and "logits" each trace has.
    """

    nodes: Comparison
    edges: Comparison
    logits: Comparison
    sizes: dict[str, tuple[int, int]]

    def overlap(self, kind: str) -> float:
        """What both have of all that either has, of "nodes", "edges" or "logits"; NaN where neither has any."""
        if kind not in _KINDS:
            raise InputError(f"overlap({kind!r}): expected 'nodes', 'edges' or 'logits'.")
        shared = len(getattr(self, kind).names)
        either = sum(self.sizes[kind]) - shared
        return shared / either if either else _NOTHING

    def to_dict(self) -> dict[str, Any]:
        """Per kind: sizes, shared parts, overlap, correlations, and the share whose signs agree."""
        return {kind: self._of(kind) for kind in _KINDS}

    def _of(self, kind: str) -> dict[str, Any]:
        both: Comparison = getattr(self, kind)
        same = (both.x.sign() == both.y.sign()).double()
        return {
            "first": self.sizes[kind][0],
            "second": self.sizes[kind][1],
            "shared": len(both.names),
            "overlap": self.overlap(kind),
            "pearson": both.pearson,
            "spearman": both.spearman,
            "same_sign": float(same.mean()) if len(same) else _NOTHING,
        }

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Both traces' effects against each other; see
        :func:`sparse_circuits.view.plots.tracing.plot_trace_comparison`.
        """
        from sparse_circuits.view.plots.tracing import plot_trace_comparison

        return plot_trace_comparison(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_trace_comparison

        return of_trace_comparison(self)

    def __repr__(self) -> str:
        def said(kind: str) -> str:
            found = self._of(kind)
            return (
                f"{found['shared']} {kind} of {found['first']} and {found['second']}, pearson={found['pearson']:.3f}, "
                f"spearman={found['spearman']:.3f}"
            )

        return f"TraceComparison({self.nodes.label} with {self.nodes.other_label}: {'; '.join(map(said, _KINDS))})"


def compared(first: Trace, second: Trace) -> TraceComparison:
    """See :meth:`Trace.compare`."""
    if first.graph != second.graph:
        raise InputError(
            "compare(...): the traces are of different graphs; trace both on the same sites and positions."
        )
    a, b = (trace.provenance.get("ablation") for trace in (first, second))
    if a != b:
        raise InputError(f"compare(...): one trace is under {a} ablation, the other under {b}; expected the same.")
    labels = labels_of(first.provenance, second.provenance, first.form)
    parts = [_parts(trace) for trace in (first, second)]
    made = {kind: _comparison(kind, parts[0][kind], parts[1][kind], labels) for kind in _KINDS}
    return TraceComparison(**made, sizes={kind: (len(parts[0][kind]), len(parts[1][kind])) for kind in _KINDS})


def _parts(trace: Trace) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {kind: {} for kind in _KINDS}
    found["nodes"] = {node.name: node.effect for node in trace.nodes if node.effect is not None}
    for edge in trace.edges:
        found["logits" if edge.target == "logits" else "edges"][edge.name] = edge.effect
    return found


def _comparison(
    kind: str, first: Mapping[str, float], second: Mapping[str, float], labels: tuple[str, str]
) -> Comparison:
    names = tuple(name for name in first if name in second)
    y, x = (torch.tensor([part[name] for name in names], dtype=torch.float64) for part in (first, second))
    known = len(names) > 2  # two points always lie on a line
    return Comparison(
        names=names,
        x=x,
        y=y,
        absolute=False,
        pearson=float(pearson(y, x)) if known else _NOTHING,
        spearman=float(spearman(y, x)) if known else _NOTHING,
        pearson_interval=None,
        spearman_interval=None,
        label=labels[0],
        other_label=labels[1],
        thing="node" if kind == "nodes" else "edge",
    )
