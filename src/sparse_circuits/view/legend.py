"""The words below a circuit's picture: what its marks mean."""

from __future__ import annotations

from dataclasses import dataclass

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.view.contents import Contents, brief
from sparse_circuits.view.layout import Layout
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES, Strokes


@dataclass(frozen=True)
class LegendRow:
    """Sample strokes as (width in points, colour, label), dashed or not, or a symbol, and what they mean."""

    text: str
    samples: tuple[tuple[float, str, str], ...] = ()
    symbol: str = ""
    dashed: bool = False


_CHANGES = {"patch": "its corrupted value", "zero": "zero"}


def legend_rows(strokes: Strokes, layout: Layout) -> list[LegendRow]:
    """What the marks mean in a circuit of edges, for the marks that there are."""
    rows: list[LegendRow] = []
    if not strokes.circuit.size:
        pass
    elif strokes.scored and strokes.signed:
        rows += of_signs(strokes.circuit, "edge", 2.4)
    elif strokes.scored:
        rows.append(LegendRow("The scores of this method carry no sign.", ((2.4, NEUTRAL, ""),)))
    else:
        rows.append(LegendRow("an edge; this circuit has no scores", ((strokes.width(None), NEUTRAL, ""),)))
    if strokes.strongest:
        sizes = [strokes.strongest * share for share in (1, 0.3, 0.05)]
        rows.append(LegendRow("the width shows |score|", tuple((strokes.width(s), NEUTRAL, f"{s:.2g}") for s in sizes)))
    if layout.rails:
        beside = "beside" if layout.borders else "between"
        rows.append(
            LegendRow(
                f"a head's query input; the key and value inputs {beside} heads belong to their whole group (g)",
                symbol="q k v",
            )
        )
    elif any(port.label == "q" for port in layout.ports.values()):
        rows.append(LegendRow("a head's query, key and value inputs", symbol="q k v"))
    if layout.dots:
        rows.append(LegendRow("a head or MLP outside the circuit", symbol="•"))
    if strokes.circuit.graph.positions and strokes.circuit.size:
        rows.append(
            LegendRow(
                "A head stands at the position that it writes to; k and v edges come from positions that it reads."
            )
        )
        rows += _of_columns(strokes.circuit, layout)
    return rows


def legend_of_boxes(contents: Contents, layout: Layout) -> list[LegendRow]:
    """What the marks mean in a circuit of nodes or units."""
    circuit, strongest = contents.circuit, contents.strongest
    thing = circuit.graph.thing
    rows: list[LegendRow] = []
    if not circuit.size:
        pass
    elif contents.signed:
        rows += of_signs(circuit, thing, 8)
    elif contents.scored:
        rows.append(LegendRow("The scores of this method carry no sign."))
    else:
        rows.append(
            LegendRow(
                f"a node in the circuit; its {thing}s have no scores"
                if contents.in_parts
                else "a node in the circuit; it has no scores",
                symbol="□",
            )
        )
    if strongest:
        shares = (1.0, 0.3, 0.05)
        levels = (
            [*(-strongest * s for s in shares), *(strongest * s for s in reversed(shares))]
            if contents.signed
            else [strongest * s for s in shares]
        )
        parts = f", the sum of its {thing}s' in the circuit" if contents.in_parts else ""
        rows += [
            LegendRow(f"The colour shows a node's score{parts}:"),
            LegendRow("", tuple((8.0, contents.colour(score), brief(score, 2)) for score in levels)),
        ]
    if contents.in_parts and circuit.size:
        last = "; below, the strongest by name" if contents.scored else "; below, some of them by name"
        rows.append(LegendRow(f"how many of a node's {thing}s are in the circuit{last}", symbol="n of N"))
    if layout.dots:
        rows.append(LegendRow("a head or MLP outside the circuit", symbol="•"))
    return rows + _of_columns(circuit, layout)


def of_signs(circuit: Circuit | FeatureCircuit, thing: str, width: float) -> list[LegendRow]:
    """What the two colours mean, at some width of their samples."""
    ablation = str(circuit.provenance.get("ablation", "patch"))
    change = _CHANGES.get(ablation, "its ablated value")
    doing = "patching" if ablation == "patch" else "ablating"
    short = thing.rpartition(" ")[2]
    return [
        LegendRow(f"Scores are indirect effects: how the metric changes when the {thing} alone carries {change}."),
        LegendRow(
            f"negative: {doing} this {thing} hurts the behaviour, which the {short} carries", ((width, CARRIES, ""),)
        ),
        LegendRow(
            f"positive: {doing} this {thing} helps the behaviour; the {short} works against it", ((width, OPPOSES, ""),)
        ),
    ]


def _of_columns(circuit: Circuit, layout: Layout) -> list[LegendRow]:
    """Whether all positions are there."""
    n, total = len(layout.columns), circuit.graph.n_positions
    if not circuit.graph.positions or not circuit.size or n == total:
        return []
    return [LegendRow(f"{total - n} of {total} positions have no part in the circuit and are left out.")]
