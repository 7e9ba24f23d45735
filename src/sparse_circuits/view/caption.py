"""The words around a circuit's picture: title, numbers and legend."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.layout import Layout
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES, Strokes

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Evaluation


def headline(
    circuit: Circuit, title: str | None, evaluation: Evaluation | None, baseline: Baseline | None, shown: Circuit
) -> tuple[str, list[str]]:
    """The title, and, in parts, below it the size, how good the circuit is, and how much of it is drawn."""
    known = circuit.provenance
    if title is None:
        title = ", ".join(str(known[key]) for key in ("task", "model") if known.get(key)) or "Circuit"
    total, n = circuit.graph.n_edges, circuit.n_edges
    parts = [
        f"{n:,} of {total:,} edges ({percent(n, total)}), {circuit.n_nodes:,} of {len(circuit.graph.nodes):,} nodes"
    ]
    if known.get("method"):
        parts.append(str(known["method"]))
    if evaluation is not None:
        value = interval(evaluation.faithfulness, evaluation.faithfulness_interval)
        parts.append(f"faithfulness {value} under {evaluation.ablation} ablation")
    if baseline is not None:
        parts.append(f"random circuits of this size: {baseline.median:z.2f} (median of {len(baseline.evaluations)})")
    if shown.n_edges < n:
        parts.append(f"only the {shown.n_edges:,} strongest edges are drawn")
    return title, parts


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2g}%" if part < whole else "100%"


def interval(value: float, bounds: tuple[float, float]) -> str:
    """A value with its 95% interval."""
    if value != value:
        return "undefined (the ablation does not change the behaviour)"
    return f"{value:z.2f} [{bounds[0]:z.2f}, {bounds[1]:z.2f}]"


def wrapped(text: str, width: float, per_character: float) -> list[str]:
    """Lines of text for a width in inches."""
    return wrap(text, max(20, int(width / per_character)))


def flowed(parts: list[str], width: float, per_character: float) -> list[str]:
    """Parts set one after the other, a new line begun where the next one does not fit."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and len(joined) * per_character <= width:
            lines[-1] = joined
        else:
            lines += wrapped(part, width, per_character)
    return lines


@dataclass(frozen=True)
class LegendRow:
    """Sample strokes as (width in points, colour, label), or a symbol, and what they mean."""

    text: str
    samples: tuple[tuple[float, str, str], ...] = ()
    symbol: str = ""


def legend_rows(strokes: Strokes, layout: Layout) -> list[LegendRow]:
    """What the marks mean, for the marks that there are."""
    rows: list[LegendRow] = []
    if not strokes.circuit.n_edges:
        pass
    elif strokes.scored and strokes.signed:
        ablation = str(strokes.circuit.provenance.get("ablation", "patch"))
        change = {"patch": "its corrupted value", "zero": "zero"}.get(ablation, "its ablated value")
        doing = "patching" if ablation == "patch" else "ablating"
        rows += [
            LegendRow(f"Scores are indirect effects: how the metric changes when the edge alone carries {change}."),
            LegendRow(
                f"negative: {doing} this edge hurts the behaviour, which the edge carries", ((2.4, CARRIES, ""),)
            ),
            LegendRow(
                f"positive: {doing} this edge helps the behaviour; the edge works against it", ((2.4, OPPOSES, ""),)
            ),
        ]
    elif strokes.scored:
        rows.append(LegendRow("The scores of this method carry no sign.", ((2.4, NEUTRAL, ""),)))
    else:
        rows.append(LegendRow("an edge; this circuit has no scores", ((strokes.width(None), NEUTRAL, ""),)))
    if strokes.strongest:
        sizes = [strokes.strongest * share for share in (1, 0.3, 0.05)]
        rows.append(LegendRow("the width shows |score|", tuple((strokes.width(s), NEUTRAL, f"{s:.2g}") for s in sizes)))
    if layout.rails:
        rows.append(
            LegendRow(
                "a head's query input; the key and value inputs between heads belong to their whole group (g)",
                symbol="q k v",
            )
        )
    elif any(port.label == "q" for port in layout.ports.values()):
        rows.append(LegendRow("a head's query, key and value inputs", symbol="q k v"))
    if layout.dots:
        rows.append(LegendRow("a head or MLP outside the circuit", symbol="•"))
    return rows
