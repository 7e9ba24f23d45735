"""Running a model with only a circuit, and what the numbers mean."""

from sparse_circuits.evaluation.evaluate import evaluate, evaluate_many
from sparse_circuits.evaluation.result import Evaluation

__all__ = ["Evaluation", "evaluate", "evaluate_many"]
