"""What ``find`` leaves and prints: a run's folder, and a page on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_circuits.cli import output
from sparse_circuits.cli.contexts import PAGES
from sparse_circuits.cli.folder import new_folder
from sparse_circuits.cli.measured import numbers_of, numbers_of_random
from sparse_circuits.cli.page import RunPage, Told
from sparse_circuits.cli.record import CIRCUIT, PAGE, RECORD, SCORES, Arguments, Record
from sparse_circuits.cli.search import Found

PICTURES = ("circuit.svg", "circuit.png")


def write(found: Found, out: Path, force: bool, title: str | None = None, told: Told | None = None) -> None:
    """Write the run's folder, whole or not at all.

    Args:
        title: of its page to explore. told: what is known of its nodes.
    """
    from sparse_circuits.view.picture import draw_circuit

    with new_folder(out, force) as folder, output.working("drawing"):
        found.circuit.save(folder / CIRCUIT)
        found.scores.save(folder / SCORES)
        for picture in PICTURES:
            draw_circuit(found.circuit, folder / picture, evaluation=found.evaluation, baseline=found.baseline)
        files = (CIRCUIT, SCORES, *PICTURES, PAGE, RECORD, *([] if told is None else [PAGES]))
        record = Record(found.arguments, found.circuit.provenance, {"title": title, **_results(found)}, files)
        (folder / RECORD).write_text(record.text, encoding="utf-8")
        RunPage.of_run(found.circuit, found.scores, record).save(folder, told)


def report(found: Found, out: Path) -> None:
    """Print what was found, briefly."""
    arguments, circuit, scores = found.arguments, found.circuit, found.scores
    output.line(
        f"The {circuit.provenance['task']} circuit of {arguments.model}: {arguments.method}, "
        f"{arguments.ablation} ablation, {circuit.provenance['n_examples']} examples"
    )
    output.line()
    output.strongest(circuit)
    output.line()
    output.comparison({"this circuit": found.evaluation}, {"this circuit": found.baseline})
    output.line()
    forwards, backwards = scores.passes
    output.pairs(
        [
            *_kind(arguments),
            ("asked for", _asked(found)),
            ("size", _size(found)),
            *_signs(found),
            *_convergence(found),
            (
                "cost",
                f"{round(forwards, 1):g} forward and {round(backwards, 1):g} backward passes; {found.seconds:.1f} s in all",
            ),
            ("circuit", str(out / CIRCUIT)),
            ("picture", f"{out / PICTURES[0]}, {out / PICTURES[1]}"),
            ("page", str(out / PAGE)),
            ("scores", str(out / SCORES)),
            ("record", str(out / RECORD)),
        ]
    )


def _kind(arguments: Arguments) -> list[tuple[str, str]]:
    """What was scored, where that is not edges over all positions."""
    if (arguments.level, arguments.positions) == ("edges", "sum"):
        return []
    positions = {"sum": "", "keep": ", each position apart", "spans": ", by named spans"}
    return [("level", arguments.level + positions[arguments.positions])]


def _asked(found: Found) -> str:
    arguments = found.arguments
    if arguments.threshold is not None:
        return f"|score| >= {arguments.threshold:g}"
    if arguments.size is None:
        return f"what {arguments.method} chooses"
    asked = f"{arguments.size:,} {found.circuit.graph.thing}s"
    return asked if arguments.stable is None else f"{asked}, less those not stable at {arguments.stable:g}"


def _size(found: Found) -> str:
    circuit, graph = found.circuit, found.circuit.graph
    size = f"{circuit.size:,} of {graph.size:,} {graph.thing}s ({circuit.size / graph.size:.1%})"
    if graph.level == "nodes":
        return size
    # at the other levels the logits have no units
    return f"{size}, {circuit.n_nodes - (0 if graph.level == 'edges' else graph.n_positions)} nodes"


def _signs(found: Found) -> list[tuple[str, str]]:
    if not found.scores.signed:
        return []
    carries, opposes = found.circuit.signs
    return [("signs", f"{carries:.0%} negative (for the behaviour), {opposes:.0%} positive (against it)")]


def _convergence(found: Found) -> list[tuple[str, str]]:
    if not found.scores.signed or not found.scores.passes[1]:  # nothing was integrated
        return []
    gap = found.scores.convergence_gap
    return [("convergence gap", "unknown: no corrupted run was made" if gap is None else _gap(found, gap))]


def _gap(found: Found, gap: float) -> str:
    if found.scores.corrupted is None:
        return output.number(gap)
    total = float((found.scores.corrupted - found.scores.clean).mean())
    share = f" ({abs(gap / total):.1%})" if total else ""
    return f"{output.number(gap)}, where the whole effect is {output.number(total)}{share}"


def _results(found: Found) -> dict[str, Any]:
    evaluation, baseline, scores, circuit = found.evaluation, found.baseline, found.scores, found.circuit
    return {
        "size": {"of": circuit.graph.level, "graph": circuit.graph.size, "circuit": circuit.size},
        "nodes": circuit.n_nodes,
        "signs": dict(zip(("negative", "positive"), circuit.signs, strict=True)) if scores.signed else None,
        "metric": {
            "clean": float(evaluation.clean.mean()),
            "corrupted": None if scores.corrupted is None else float(scores.corrupted.mean()),
            "circuit": evaluation.mean,
            "empty": float(evaluation.empty.mean()),
        },
        "faithfulness": evaluation.faithfulness,
        "faithfulness_interval": evaluation.faithfulness_interval,
        "random": numbers_of_random(baseline),
        "curve": None if found.curve is None else numbers_of(found.curve),
        "convergence_gap": scores.convergence_gap,
        "passes": {"forward": scores.passes[0], "backward": scores.passes[1]},
        "seconds": round(found.seconds, 2),
        "device": found.device,
    }
