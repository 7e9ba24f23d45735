"""What could be in a circuit: nodes, edges and their names. Static, cheap, frozen; knows no weights."""

from sparse_circuits.graph.graph import LEVELS, Graph, Level

__all__ = ["LEVELS", "Graph", "Level"]
