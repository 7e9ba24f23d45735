"""What ``find --dictionaries`` leaves and prints: a run's folder, and a page on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sparse_circuits.cli import output
from sparse_circuits.cli.contexts import PAGES
from sparse_circuits.cli.feature_search import FoundFeatures
from sparse_circuits.cli.folder import new_folder
from sparse_circuits.cli.measured import numbers_of, numbers_of_random
from sparse_circuits.cli.page import RunPage, Told
from sparse_circuits.cli.record import CIRCUIT, NEURONS, PAGE, RECORD, SCORES, Record
from sparse_circuits.cli.summary import PICTURES

_ERRORS = {"keep": "all kept, in the circuit or not", "remove": "all ablated, in the circuit or not"}


def write_features(
    found: FoundFeatures, out: Path, force: bool, title: str | None = None, told: Told | None = None
) -> None:
    """Write the run's folder, whole or not at all.

    Args:
        title: of its page to explore. told: what is known of its nodes.
    """
    from sparse_circuits.view.feature_picture import draw_feature_circuit

    with new_folder(out, force) as folder, output.working("drawing"):
        found.circuit.save(folder / CIRCUIT)
        found.scores.save(folder / SCORES)
        files = [CIRCUIT, SCORES, *PICTURES, PAGE, RECORD, *([] if told is None else [PAGES])]
        if found.neurons is not None:
            found.neurons.save(folder / NEURONS)
            files.append(NEURONS)
        for picture in PICTURES:
            draw_feature_circuit(found.circuit, folder / picture, evaluation=found.evaluation, baseline=found.baseline)
        record = Record(found.arguments, found.circuit.provenance, {"title": title, **_results(found)}, tuple(files))
        (folder / RECORD).write_text(record.text, encoding="utf-8")
        RunPage.of_run(found.circuit, found.scores, record).save(folder, told)


def report_features(found: FoundFeatures, out: Path) -> None:
    """Print what was found, briefly."""
    arguments, circuit = found.arguments, found.circuit
    output.line(
        f"The {circuit.provenance['task']} feature circuit of {arguments.model}: {arguments.method}, "
        f"{arguments.ablation} ablation, {circuit.provenance['n_examples']} examples"
    )
    output.line()
    output.strongest(circuit)
    output.line()
    if circuit.n_edges:
        output.strongest_edges(circuit)
        output.line()
    output.line(f"Evaluated on {_evaluated_on(found)}:")
    neurons = {} if found.of_neurons is None else {"this circuit": found.of_neurons}
    output.comparison({"this circuit": found.evaluation}, {"this circuit": found.baseline}, neurons)
    output.line()
    forwards, backwards = found.scores.passes
    output.pairs(
        [
            ("dictionaries", _dictionaries(found)),
            ("asked for", _asked(found)),
            ("size", _size(found)),
            *_errors(found),
            *_signs(found),
            *_convergence(found),
            (
                "cost",
                f"{round(forwards, 1):,g} forward, {round(backwards, 1):,g} backward passes; {found.seconds:.1f} s in all",
            ),
            ("circuit", str(out / CIRCUIT)),
            ("picture", f"{out / PICTURES[0]}, {out / PICTURES[1]}"),
            ("page", str(out / PAGE)),
            ("scores", str(out / SCORES)),
            ("record", str(out / RECORD)),
        ]
    )


def _evaluated_on(found: FoundFeatures) -> str:
    n, seed = len(found.evaluated_on), found.arguments.seed + 1
    if found.shared == n:
        return "the same examples"
    if found.shared:
        return f"{n} examples, {found.shared} of them the same (seed {seed})"
    return f"{_counted(n, 'other example')} (seed {seed})"


def _dictionaries(found: FoundFeatures) -> str:
    """What they were asked for as, and at how many sites of which kinds."""
    places = found.circuit.graph.places
    kinds = Counter(place.site.kind for place in places if place.split)
    whole = Counter(place.site.kind for place in places if not place.split)
    text = f"{found.arguments.dictionaries}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return text + ("; whole: " + ", ".join(f"{n} {kind}" for kind, n in whole.items()) if whole else "")


def _asked(found: FoundFeatures) -> str:
    arguments = found.arguments
    if arguments.cumulative is not None:
        return f"{arguments.cumulative:g} of the influence on the logits"
    nodes = f"nodes |score| > {arguments.node_threshold or 0:g}"
    if arguments.size is not None:
        nodes = _counted(arguments.size, "node")
    if arguments.edges is not None:
        return f"{nodes}, {_counted(arguments.edges, 'edge')}"
    return nodes if arguments.edge_threshold is None else f"{nodes}, edges |score| > {arguments.edge_threshold:g}"


def _size(found: FoundFeatures) -> str:
    circuit, words = found.circuit, {"features": "feature", "errors": "error term", "whole": "whole node"}
    made_of = ", ".join(_counted(n, words[kind]) for kind, n in parts(found).items() if n)
    scored = f"of {len(found.scores.node_ids):,} with a score"
    positions = {"sum": "", "keep": ", each position apart", "spans": ", by named spans"}[found.arguments.positions]
    edges = "" if found.arguments.nodes_only else f", {_counted(circuit.n_edges, 'edge')}"
    return f"{_counted(circuit.size, 'node')} {scored}{positions} ({made_of}){edges}"


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def parts(found: FoundFeatures) -> dict[str, int]:
    """How many of the circuit's nodes are features, error terms, and whole sites or heads."""
    graph, ids = found.circuit.graph, found.circuit.node_ids.tolist()
    split = [graph.places[graph.place_of(node)].split for node in ids]
    errors = len(set(ids) & set(graph.errors.tolist()))
    return {"features": sum(split) - errors, "errors": errors, "whole": len(ids) - sum(split)}


def _errors(found: FoundFeatures) -> list[tuple[str, str]]:
    arguments, rows = found.arguments, []
    if arguments.errors in _ERRORS:
        rows.append(("error terms", _ERRORS[arguments.errors]))
    if arguments.start_layer:
        rows.append(("ablated", f"from layer {arguments.start_layer} on"))
    return rows


def _signs(found: FoundFeatures) -> list[tuple[str, str]]:
    if not found.scores.signed:
        return []
    carries, opposes = found.circuit.signs
    return [("signs", f"{carries:.0%} negative (for the behaviour), {opposes:.0%} positive (against it)")]


def _convergence(found: FoundFeatures) -> list[tuple[str, str]]:
    gaps = found.scores.convergence_gaps
    if not gaps:
        return []
    site = max(gaps, key=lambda name: abs(gaps[name]))
    whole = found.scores.convergence[site][1]
    share = f" ({abs(gaps[site] / whole):.1%})" if whole else ""
    return [
        (
            "convergence gap",
            f"{output.number(gaps[site])} at worst, at {site}, whose effect is {output.number(whole)}{share}",
        )
    ]


def _results(found: FoundFeatures) -> dict[str, Any]:
    evaluation, baseline, scores, circuit = found.evaluation, found.baseline, found.scores, found.circuit
    neurons = found.of_neurons
    return {
        "size": {"of": "features", "graph": circuit.graph.size, "circuit": circuit.size, **parts(found)},
        "edges": circuit.n_edges,
        "signs": dict(zip(("negative", "positive"), circuit.signs, strict=True)) if scores.signed else None,
        "held_out": found.shared == 0,
        "metric": {
            "clean": float(evaluation.clean.mean()),
            "circuit": evaluation.mean,
            "empty": float(evaluation.empty.mean()),
        },
        "faithfulness": evaluation.faithfulness,
        "faithfulness_interval": evaluation.faithfulness_interval,
        "neurons": None
        if neurons is None
        else {
            "size": neurons.circuit.size,
            "faithfulness": neurons.faithfulness,
            "interval": neurons.faithfulness_interval,
        },
        "random": numbers_of_random(baseline),
        "curve": None if found.curve is None else numbers_of(found.curve),
        "convergence_gaps": scores.convergence_gaps,
        "passes": {"forward": scores.passes[0], "backward": scores.passes[1]},
        "seconds": round(found.seconds, 2),
        "device": found.device,
    }
