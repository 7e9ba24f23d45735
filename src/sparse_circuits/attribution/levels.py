"""Which scorer a graph's level needs."""

from __future__ import annotations

from sparse_circuits.attribution.edges import EdgeScorer
from sparse_circuits.attribution.method import Problem
from sparse_circuits.attribution.scorer import Scorer
from sparse_circuits.attribution.units import UnitScorer


def scorer_for(problem: Problem) -> Scorer:
    return EdgeScorer(problem) if problem.graph.level == "edges" else UnitScorer(problem)
