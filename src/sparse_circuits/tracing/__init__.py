"""Tracing: circuits of features grown layer by layer, by ablation or by gradient, and validated."""

from sparse_circuits.tracing.by_ablation import ByAblation
from sparse_circuits.tracing.by_gradient import ByGradient
from sparse_circuits.tracing.compare import TraceComparison
from sparse_circuits.tracing.run import trace
from sparse_circuits.tracing.trace import Trace, TracedEdge, TracedNode
from sparse_circuits.tracing.validate import validate_trace
from sparse_circuits.tracing.validation import Validation

__all__ = [
    "ByAblation",
    "ByGradient",
    "Trace",
    "TraceComparison",
    "TracedEdge",
    "TracedNode",
    "Validation",
    "trace",
    "validate_trace",
]
