"""Faithfulness at other sizes: what ``evaluate --curve`` writes and prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.json_record import finite
from sparse_circuits.cli.measured import CURVE, numbers_of, numbers_of_circuit
from sparse_circuits.cli.record import Arguments

if TYPE_CHECKING:
    from sparse_circuits.circuit import FeatureScores, Scores
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation
    from sparse_circuits.task import Task


@dataclass(frozen=True, eq=False)
class Curves:
    """A circuit's curve; of features, with that of neurons, and random features at the same sizes."""

    curve: Curve
    neurons: Curve | None = None
    random: tuple[Baseline, ...] = ()


def curve_as_found(
    model: Any, scores: Scores | FeatureScores, task: Task, arguments: Arguments | None, **common: Any
) -> Curve:
    """The curve of circuits chosen from scores as a run chose its own."""
    from sparse_circuits import faithfulness_curve

    select = "greedy" if scores.graph.level == "edges" else "top"
    if arguments is not None:
        select = arguments.select or ("top" if arguments.stable is not None else select)
    signed = arguments is not None and arguments.signed and scores.signed
    return faithfulness_curve(model, scores, task, select=select, signed=signed, **common)


def write_curves(
    made: Curves, folder: Path, about: dict[str, Any], evaluation: Evaluation, baseline: Baseline
) -> list[Path]:
    """Write a picture twice, and the numbers.

    Args:
        evaluation, baseline: of the run's own circuit, on the same prompts.
    """
    from sparse_circuits.circuit.files import write_atomically
    from sparse_circuits.view.curve import plot_curve

    curve = made.curve
    content = {
        **about,
        "ablation": curve.evaluations[0].ablation,
        "level": curve.evaluations[0].circuit.graph.level,
        **numbers_of(curve),
        "area": curve.area,
        "area_interval": curve.area_interval,
        "distance": curve.distance,
        "distance_interval": curve.distance_interval,
    }
    content["circuit"] = numbers_of_circuit(evaluation, baseline)
    if made.neurons is not None:
        content["neurons"] = numbers_of(made.neurons)
    if made.random:
        content["random"] = {
            "sizes": [baseline.size for baseline in made.random],
            "faithfulness": [baseline.median for baseline in made.random],
            "intervals": [baseline.interval for baseline in made.random],
        }
    text = json.dumps(finite(content), indent=2) + "\n"
    files = [folder / name for name in ("curve.svg", "curve.png", CURVE)]
    beside = {} if made.neurons is None else {"neurons, same sites": made.neurons}
    with output.working("drawing"):
        for picture in files[:2]:
            plot_curve(curve, picture, beside=beside, baseline=made.random or None)
        write_atomically(files[2], lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return files


def report_curves(name: str, made: Curves, files: list[Path]) -> None:
    """Print the numbers."""
    curve = made.curve
    graph = curve.evaluations[0].circuit.graph
    total = graph.size if curve.total is None else curve.total
    output.line()
    output.line(f"Other sizes of {name}")
    rows = [
        [
            f"{asked:,}",
            f"{e.circuit.size:,}",
            f"{e.circuit.size / total:.1%}",
            output.with_interval(e.faithfulness, e.faithfulness_interval),
        ]
        for asked, e in zip(curve.requested, curve.evaluations, strict=True)
    ]
    columns = ["asked for", "nodes" if graph.level == "features" else graph.level, "share", "faithfulness"]
    if made.neurons is not None:
        columns.append("neurons")
        for row, e in zip(rows, made.neurons.evaluations, strict=False):
            row.append(output.with_interval(e.faithfulness, e.faithfulness_interval))
    if made.random:
        columns.append("random")
        for row, baseline in zip(rows, made.random, strict=False):
            row.append(f"{baseline.median:z.2f}")
    if graph.level == "features":  # as many as were asked for
        columns, rows = columns[1:], [row[1:] for row in rows]
    rows = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    output.table(*columns, rows=rows, text=["faithfulness", "neurons"])
    output.line()
    area = output.with_interval(curve.area, curve.area_interval, 3)
    distance = output.with_interval(curve.distance, curve.distance_interval, 3)
    written = ", ".join(map(str, files))
    output.pairs([("area under the curve", area), ("area between it and 1", distance), ("curve", written)])
