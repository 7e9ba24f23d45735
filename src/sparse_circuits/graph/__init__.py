"""What could be in a circuit: nodes, edges and their names. Static, cheap, frozen; knows no weights."""

from sparse_circuits.graph.components import Graph

__all__ = ["Graph"]
