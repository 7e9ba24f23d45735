"""Scores, the circuits chosen from them, and their files."""

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.comparison import Comparison
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.circuit.feature_scores import FeatureScores
from sparse_circuits.circuit.scores import Scores
from sparse_circuits.circuit.stability import Stability

__all__ = ["Circuit", "Comparison", "FeatureCircuit", "FeatureScores", "Scores", "Stability"]
