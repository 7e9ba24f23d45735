"""Find, check and draw the circuits inside transformer language models.

>>> import sparse_circuits as sc
>>> model = sc.load_model("toy")
>>> task = sc.load_task("ioi", model)
>>> scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAPIG(steps=5))
>>> circuit = scores.greedy(200)
>>> sc.evaluate(model, circuit, task).faithfulness
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_circuits.attribution import (
        ACDC,
        EAP,
        EAPIG,
        Ablation,
        AtPStar,
        CleanCorrupted,
        Contributions,
        EdgePruning,
        Exact,
        InformationFlowRoutes,
        Method,
        RelP,
        attribute,
        contributions,
    )
    from sparse_circuits.circuit import Circuit, Comparison, FeatureCircuit, FeatureScores, Scores, Stability
    from sparse_circuits.circuit.formats.attribution_graph import AttributionGraph
    from sparse_circuits.circuit.formats.mib import MIBEntry, read_mib, write_mib
    from sparse_circuits.dictionary import Dictionaries, Dictionary, ablate_features, load_dictionaries, splice
    from sparse_circuits.errors import FileFormatError, InputError, SparseCircuitsError, UnsupportedModelError
    from sparse_circuits.evaluation import (
        Baseline,
        Curve,
        Evaluation,
        evaluate,
        evaluate_baseline,
        evaluate_many,
        faithfulness_curve,
        random_baseline,
    )
    from sparse_circuits.features import (
        Context,
        Feature,
        FeatureStore,
        HeadReport,
        Labels,
        Similar,
        collect_contexts,
        feature_pages,
        head_report,
        neuronpedia_url,
        promoted,
        similar,
    )
    from sparse_circuits.graph import FeatureGraph, Graph
    from sparse_circuits.model.load import load_model
    from sparse_circuits.task import Batch, CrossEntropy, LogitDiff, LogProb, NegativeKL, ProbDiff, Task, load_task
    from sparse_circuits.tracing import (
        ByAblation,
        ByGradient,
        Trace,
        TraceComparison,
        TracedEdge,
        TracedNode,
        Validation,
        trace,
        validate_trace,
    )
    from sparse_circuits.view.explorer import Page, explore
    from sparse_circuits.view.plots import Plot
    from sparse_circuits.view.report import report

__version__ = "0.1.0"

# Public names and where they live. They are imported when first used, so that importing the package costs nothing.
_HOMES = {
    "attribution": (
        "ACDC",
        "EAP",
        "EAPIG",
        "Ablation",
        "AtPStar",
        "CleanCorrupted",
        "Contributions",
        "EdgePruning",
        "Exact",
        "InformationFlowRoutes",
        "Method",
        "RelP",
        "attribute",
        "contributions",
    ),
    "circuit": ("Circuit", "Comparison", "FeatureCircuit", "FeatureScores", "Scores", "Stability"),
    "circuit.formats.attribution_graph": ("AttributionGraph",),
    "circuit.formats.mib": ("MIBEntry", "read_mib", "write_mib"),
    "dictionary": ("Dictionaries", "Dictionary", "ablate_features", "load_dictionaries", "splice"),
    "errors": ("FileFormatError", "InputError", "SparseCircuitsError", "UnsupportedModelError"),
    "evaluation": (
        "Baseline",
        "Curve",
        "Evaluation",
        "evaluate",
        "evaluate_baseline",
        "evaluate_many",
        "faithfulness_curve",
        "random_baseline",
    ),
    "features": (
        "Context",
        "Feature",
        "FeatureStore",
        "HeadReport",
        "Labels",
        "Similar",
        "collect_contexts",
        "feature_pages",
        "head_report",
        "neuronpedia_url",
        "promoted",
        "similar",
    ),
    "graph": ("FeatureGraph", "Graph"),
    "model.load": ("load_model",),
    "task": ("Batch", "CrossEntropy", "LogProb", "LogitDiff", "NegativeKL", "ProbDiff", "Task", "load_task"),
    "tracing": (
        "ByAblation",
        "ByGradient",
        "Trace",
        "TraceComparison",
        "TracedEdge",
        "TracedNode",
        "Validation",
        "trace",
        "validate_trace",
    ),
    "view.explorer": ("Page", "explore"),
    "view.plots": ("Plot",),
    "view.report": ("report",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ACDC",
    "EAP",
    "EAPIG",
    "Ablation",
    "AtPStar",
    "AttributionGraph",
    "Baseline",
    "Batch",
    "ByAblation",
    "ByGradient",
    "Circuit",
    "CleanCorrupted",
    "Comparison",
    "Context",
    "Contributions",
    "CrossEntropy",
    "Curve",
    "Dictionaries",
    "Dictionary",
    "EdgePruning",
    "Evaluation",
    "Exact",
    "Feature",
    "FeatureCircuit",
    "FeatureGraph",
    "FeatureScores",
    "FeatureStore",
    "FileFormatError",
    "Graph",
    "HeadReport",
    "InformationFlowRoutes",
    "InputError",
    "Labels",
    "LogProb",
    "LogitDiff",
    "MIBEntry",
    "Method",
    "NegativeKL",
    "Page",
    "Plot",
    "ProbDiff",
    "RelP",
    "Scores",
    "Similar",
    "SparseCircuitsError",
    "Stability",
    "Task",
    "Trace",
    "TraceComparison",
    "TracedEdge",
    "TracedNode",
    "UnsupportedModelError",
    "Validation",
    "__version__",
    "ablate_features",
    "attribute",
    "collect_contexts",
    "contributions",
    "evaluate",
    "evaluate_baseline",
    "evaluate_many",
    "explore",
    "faithfulness_curve",
    "feature_pages",
    "head_report",
    "load_dictionaries",
    "load_model",
    "load_task",
    "neuronpedia_url",
    "promoted",
    "random_baseline",
    "read_mib",
    "report",
    "similar",
    "splice",
    "trace",
    "validate_trace",
    "write_mib",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sparse_circuits' has no attribute {name!r}")
    value = getattr(import_module(f"sparse_circuits.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
