"""Running a model with only a circuit, and what the numbers mean."""

from sparse_circuits.evaluation.baseline import Baseline, random_baseline
from sparse_circuits.evaluation.curve import Curve, faithfulness_curve
from sparse_circuits.evaluation.evaluate import evaluate, evaluate_many
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.evaluation.whole import evaluate_baseline

__all__ = [
    "Baseline",
    "Curve",
    "Evaluation",
    "evaluate",
    "evaluate_baseline",
    "evaluate_many",
    "faithfulness_curve",
    "random_baseline",
]
