"""The words below a feature circuit's picture: what its marks mean, for the marks that there are."""

from __future__ import annotations

from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.view.contents import brief
from sparse_circuits.view.feature_layout import Placed
from sparse_circuits.view.feature_look import Look
from sparse_circuits.view.legend import LegendRow, of_signs
from sparse_circuits.view.strokes import NEUTRAL

_SHARES = (1.0, 0.3, 0.05)


def legend_of_features(circuit: FeatureCircuit, placed: Placed, look: Look) -> list[LegendRow]:
    """Rows of the legend, none of them wider than the narrowest picture."""
    rows: list[LegendRow] = []
    strong, wide = look.shades.strongest, look.pens.strongest
    if strong and look.signed:
        rows += of_signs(circuit, "node", 8)
    elif strong:
        rows.append(LegendRow("The scores of this method carry no sign."))
    elif circuit.node_values is None:
        rows.append(LegendRow("a node in the circuit; it has no scores", symbol="□"))
    if strong:
        negative = [-strong * share for share in _SHARES] if look.signed else []
        levels = [*negative, *(strong * share for share in reversed(_SHARES))]
        rows.append(
            LegendRow("score of a node", tuple((8.0, look.shades.colour(score), brief(score, 2)) for score in levels))
        )
    if wide:
        sizes = [wide * share for share in _SHARES]
        samples = tuple((look.pens.width(size), NEUTRAL, brief(size, 2)) for size in sizes)
        rows.append(LegendRow("|score| of an edge; same colours", samples))
    roles = set(placed.roles.values())
    if "feature" in roles:
        rows.append(LegendRow("a feature of the site's dictionary, by its number", symbol="f7"))
    if "error" in roles:
        rows.append(
            LegendRow("dashed: what is there and in none of the site's features (the error term)", symbol="error")
        )
    if "whole" in roles:
        rows.append(LegendRow("bold: a head, or a site, as one node"))
    n, total = len(placed.layout.columns), circuit.graph.n_positions
    if circuit.graph.positions and n < total:
        rows.append(LegendRow(f"Positions with no part in what is drawn are left out: {total - n} of {total}."))
    return rows
