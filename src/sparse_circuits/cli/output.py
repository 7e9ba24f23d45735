"""What the commands print: results on standard output, progress on standard error."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit
    from sparse_circuits.evaluation import Baseline, Evaluation
    from sparse_circuits.graph import FeatureGraph, Graph


@contextmanager
def working(on: str) -> Iterator[None]:
    """A spinner on standard error, for work that cannot tell how far it is."""
    with Console(stderr=True).status(f"{on}..."):
        yield


def line(text: str = "") -> None:
    """One line of text, as it is."""
    Console().print(Text(text), soft_wrap=True)


def table(*columns: str, rows: Iterable[Sequence[str]], text: Container[str] = ()) -> None:
    """A plain table. Columns of numbers are set to the right; ``text`` names the others."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="left" if column in text else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    Console().print(made)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names with their values, one below the other; long values, such as paths, are not broken."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        line(f"{name:{width}}   {value}")


def strongest(circuit: Circuit | FeatureCircuit, n: int = 10) -> None:
    """The strongest edges, nodes or units with their scores."""
    _ranked(f"strongest {circuit.graph.thing}s", circuit.to_dict(), n)


def strongest_edges(circuit: FeatureCircuit, n: int = 10) -> None:
    """The strongest edges of a feature circuit, which is one of nodes."""
    _ranked("strongest edges", circuit.to_dict("edges"), n)


def _ranked(title: str, scores: Mapping[str, float], n: int) -> None:
    rows = [(name, number(score)) for name, score in islice(scores.items(), n)]
    table(title, "score", rows=rows, text=[title])


def comparison(
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, Baseline],
    neurons: Mapping[str, Evaluation] | None = None,
) -> None:
    """The whole model, each circuit with random ones of its size, and the empty circuit, one below the other.

    Sizes are in one unit, which heads their column, unless the circuits are of different levels or positions.

    Args:
        neurons: with feature circuits, as many neurons of the same sites.
    """
    first = next(iter(evaluations.values()))
    features = first.circuit.graph.level == "features"
    alike = features or len({e.circuit.graph for e in evaluations.values()}) == 1
    complete = any(e.completeness is not None for e in evaluations.values())
    # where circuits leave other sites alone, nothing of one is not nothing of another
    apart = features and any(abs(float((e.empty - first.empty).mean())) > 1e-3 for e in evaluations.values())

    def size(n: int, graph: Graph | FeatureGraph) -> str:
        return f"{n:,}" if alike else f"{n:,} {graph.level}"

    def row(name: str, evaluation: Evaluation) -> tuple[str, ...]:
        own = (evaluation.completeness, evaluation.completeness_interval)
        return (
            name,
            size(evaluation.circuit.size, evaluation.circuit.graph),
            number(evaluation.mean),
            with_interval(evaluation.faithfulness, evaluation.faithfulness_interval),
            "" if own[0] is None or own[1] is None else with_interval(own[0], own[1]),
        )

    # of features only those that are active at all could be in a circuit
    whole = size(first.circuit.graph.size, first.circuit.graph) if alike and not features else ""
    rows: list[tuple[str, ...]] = [("whole model", whole, number(float(first.clean.mean())), "1.00", "")]
    for name, evaluation in evaluations.items():
        rows.append(row(name, evaluation))
        if neurons and name in neurons:
            rows.append(row("neurons, same sites", neurons[name]))
        if name in baselines:
            baseline = baselines[name]
            metric_of_draws = number(median(e.mean for e in baseline.evaluations))
            # units take up the room that the number of draws has otherwise
            label = f"random, median of {len(baseline.evaluations)}" if alike else "random, median"
            faithfulness = with_interval(baseline.median, baseline.interval)
            rows.append((label, size(baseline.size, evaluation.circuit.graph), metric_of_draws, faithfulness, ""))
        if apart:
            rows.append(("its empty circuit", "0", number(float(evaluation.empty.mean())), "0.00", ""))
    if not apart:
        rows.append(("empty circuit", "0", number(float(first.empty.mean())), "0.00", ""))
    metric = str(first.circuit.provenance.get("metric", "metric"))
    unit = "nodes" if features else first.circuit.graph.level if alike else "size"
    columns = ["", unit, metric, "faithfulness", *(["completeness"] if complete else [])]
    table(*columns, rows=[row[: len(columns)] for row in rows], text=("", "faithfulness", "completeness"))


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:,.0f}"


def with_interval(value: float, interval: tuple[float, float], digits: int = 2) -> str:
    """A value with its 95% interval."""
    # Adding 0 after rounding keeps "-0.00" away.
    middle, low, high = (round(x, digits) + 0.0 for x in (value, *interval))
    return "undefined" if value != value else f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
