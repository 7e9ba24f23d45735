"""The words above a circuit's picture: title and numbers."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.naming import about, asked_for

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Evaluation


def headline(
    circuit: Circuit, title: str | None, evaluation: Evaluation | None, baseline: Baseline | None, shown: Circuit
) -> tuple[str, list[str]]:
    """The title, and, in parts, below it the size, how good the circuit is, and how much of it is drawn."""
    known = circuit.provenance
    if title is None:
        title = ", ".join(about(known, "task", "model")) or "Circuit"
    parts = [size(circuit), *about(known, "method")]
    if evaluation is not None:
        value = interval(evaluation.faithfulness, evaluation.faithfulness_interval)
        parts.append(f"faithfulness {value} under {evaluation.ablation} ablation")
    if baseline is not None and baseline.median == baseline.median:
        parts.append(f"random circuits of this size: {baseline.median:z.2f} (median of {len(baseline.evaluations)})")
    if shown.size < circuit.size:
        parts.append(f"only the {shown.size:,} strongest {circuit.graph.thing}s are drawn")
    return title, parts


def size(circuit: Circuit) -> str:
    """How much of the model a circuit is."""
    graph = circuit.graph
    of_all = f"{circuit.size:,} of {graph.size:,} {graph.thing}s ({percent(circuit.size, graph.size)})"
    of_all += asked_for(circuit)
    if graph.level == "nodes":
        return of_all
    if graph.level == "edges":
        return f"{of_all}, {circuit.n_nodes:,} of {len(graph.nodes):,} nodes"
    n_nodes = max(0, circuit.n_nodes - graph.n_positions)  # the logits have no units
    return f"{of_all}, in {n_nodes:,} of {graph.n_sources * graph.n_positions:,} nodes"


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
