"""What could be in a circuit: nodes, edges and their names. Static, cheap, frozen; knows no weights."""

from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.graph.graph import LEVELS, Graph, Level
from sparse_circuits.graph.places import Place

__all__ = ["LEVELS", "FeatureGraph", "Graph", "Level", "Place"]
