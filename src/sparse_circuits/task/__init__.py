"""Prompt pairs with a metric: the behaviour that a circuit is sought for."""

from sparse_circuits.task.batch import Batch
from sparse_circuits.task.load import load_task
from sparse_circuits.task.metrics import CrossEntropy, LogitDiff, LogProb, NegativeKL, ProbDiff
from sparse_circuits.task.task import Task

__all__ = ["Batch", "CrossEntropy", "LogProb", "LogitDiff", "NegativeKL", "ProbDiff", "Task", "load_task"]
