"""``sparse-circuits find``: score the edges, choose a circuit, and say how good it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.folder import check_out, new_folder
from sparse_circuits.cli.load import ablation_named, load_model_on
from sparse_circuits.cli.options import (
    AblationName,
    BatchSize,
    Device,
    Draws,
    Examples,
    Force,
    KVName,
    MethodName,
    PathName,
    QuadratureName,
    SelectName,
    option,
)
from sparse_circuits.cli.record import CIRCUIT, INTEGRATION, RECORD, SCORES, Arguments, Record
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Method
    from sparse_circuits.circuit import Circuit, Scores
    from sparse_circuits.evaluation import Baseline, Evaluation

EXAMPLES = (
    "find --model toy --task ioi --method eap-ig --edges 200 --out runs/ioi",
    "find --model gpt2 --task pairs.jsonl --method eap --threshold 0.01",
    "find --from runs/ioi/run.json --seed 1 --out runs/ioi-1",
)
EDGES = 200
PICTURES = ("circuit.svg", "circuit.png")


@dataclass(frozen=True, eq=False)
class Found:
    """A circuit with everything known of it; ``arguments`` with nothing left open."""

    arguments: Arguments
    scores: Scores
    circuit: Circuit
    evaluation: Evaluation
    baseline: Baseline
    seconds: float
    device: str


def find(
    model: Annotated[
        str | None,
        option("--model", "'toy' (bundled), a Hugging Face folder or a hub id.", Arguments.model, metavar="MODEL"),
    ] = None,
    task: Annotated[
        str | None, option("--task", "A bundled task, or a .csv or .jsonl file.", Arguments.task, metavar="TASK")
    ] = None,
    method: Annotated[MethodName | None, option("--method", "How edges are scored.", Arguments.method)] = None,
    steps: Annotated[
        int | None, option("--steps", "Gradients that eap-ig takes.", 5, metavar="N", min=1, max=1000)
    ] = None,
    path: Annotated[PathName | None, option("--path", "What eap-ig interpolates.", "inputs")] = None,
    quadrature: Annotated[QuadratureName | None, option("--quadrature", "Where eap-ig takes them.", "midpoint")] = None,
    ablation: Annotated[
        AblationName | None, option("--ablation", "What stands in for a part left out.", Arguments.ablation)
    ] = None,
    edges: Annotated[
        int | None, option("--edges", "Edges to choose.", f"{EDGES}, or all if fewer", metavar="N", min=1)
    ] = None,
    threshold: Annotated[
        float | None, option("--threshold", "Instead: every edge with |score| of at least X.", metavar="X")
    ] = None,
    select: Annotated[
        SelectName | None,
        option("--select", "The strongest edges as grown from the logits, or from anywhere.", "greedy"),
    ] = None,
    signed: Annotated[
        bool | None,
        option("--signed/--unsigned", "Strongest is the most damaging, or the largest either way.", "unsigned"),
    ] = None,
    examples: Examples = None,
    seed: Annotated[
        int | None, option("--seed", "Of bundled prompts and random circuits.", Arguments.seed, metavar="N", min=0)
    ] = None,
    batch_size: BatchSize = None,
    kv: Annotated[KVName | None, option("--kv", "Keys and values of grouped-query attention.", Arguments.kv)] = None,
    draws: Draws = None,
    repeat: Annotated[
        Path | None, option("--from", "Repeat a run; other options override its own.", metavar="RUN.JSON")
    ] = None,
    out: Annotated[Path | None, option("--out", "Folder to write.", "runs/TASK", metavar="FOLDER")] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Find the circuit of a task in a model.

    Writes one folder: the circuit, the scores of all edges, a picture (.svg, .png), and run.json, from which
    the run can be repeated.
    """
    options = {
        "model": model,
        "task": task,
        "method": method,
        "steps": steps,
        "path": path,
        "quadrature": quadrature,
        "ablation": ablation,
        "edges": edges,
        "threshold": threshold,
        "select": select,
        "signed": signed,
        "examples": examples,
        "seed": seed,
        "batch_size": batch_size,
        "kv": kv,
        "draws": draws,
    }
    given = {name: value for name, value in options.items() if value is not None}
    earlier = None if repeat is None else Record.load(repeat)
    arguments = Arguments(**given) if earlier is None else earlier.arguments.overridden(given)
    out = Path("runs") / Path(arguments.task).stem if out is None else out
    check_out(out, force)
    found = search(arguments, device)
    if earlier is not None and found.arguments == earlier.arguments:
        _warn_if_changed(earlier, found)
    write(found, out, force)
    report(found, out)


def search(arguments: Arguments, device: str | None) -> Found:
    """Score, select, evaluate; writes nothing.

    Raises:
        SparseCircuitsError: for anything that cannot be used, before the long work as far as possible.
    """
    import sparse_circuits as sc

    start = time.perf_counter()
    method = _method(arguments)
    model = load_model_on(arguments.model, device)
    task = sc.load_task(arguments.task, model, n=arguments.examples, seed=arguments.seed)
    graph = sc.Graph.of(model, kv="per_query_head" if arguments.kv == "per-query-head" else "per_group")
    arguments = _resolved(arguments, method, graph.n_edges, len(task))
    common: dict[str, Any] = {
        "ablation": ablation_named(arguments.ablation),
        "batch_size": arguments.batch_size,
        "progress": True,
    }
    scores = sc.attribute(model, graph, task, method, **common)
    circuit = _select(arguments, scores)
    (evaluation,) = sc.evaluate_many(model, [circuit], task, **common)
    baseline = sc.random_baseline(model, circuit, task, draws=arguments.draws, seed=arguments.seed, **common)
    seconds = time.perf_counter() - start
    return Found(arguments, scores, circuit, evaluation, baseline, seconds, str(model.cfg.device))


def write(found: Found, out: Path, force: bool) -> None:
    """Write the run's folder, whole or not at all."""
    from sparse_circuits.view.picture import draw_circuit

    with new_folder(out, force) as folder, output.working("drawing"):
        found.circuit.save(folder / CIRCUIT)
        found.scores.save(folder / SCORES)
        for picture in PICTURES:
            draw_circuit(found.circuit, folder / picture, evaluation=found.evaluation, baseline=found.baseline)
        files = (CIRCUIT, SCORES, *PICTURES, RECORD)
        record = Record(found.arguments, found.circuit.provenance, _results(found), files)
        (folder / RECORD).write_text(record.text, encoding="utf-8")


def report(found: Found, out: Path) -> None:
    """Print what was found, briefly."""
    arguments, circuit, scores = found.arguments, found.circuit, found.scores
    output.line(
        f"The {circuit.provenance['task']} circuit of {arguments.model}: {arguments.method}, "
        f"{arguments.ablation} ablation, {circuit.provenance['n_examples']} examples"
    )
    output.line()
    output.strongest_edges(circuit)
    output.line()
    output.comparison({"this circuit": found.evaluation}, {"this circuit": found.baseline})
    output.line()
    asked = f"{arguments.edges:,} edges" if arguments.edges is not None else f"|score| >= {arguments.threshold:g}"
    share = f"{circuit.n_edges / circuit.graph.n_edges:.1%}"
    size = (
        f"{circuit.n_edges:,} of {circuit.graph.n_edges:,} edges ({share}), {circuit.n_nodes} nodes; asked for {asked}"
    )
    gap = scores.convergence_gap
    forwards, backwards = scores.passes
    output.pairs(
        [
            ("size", size),
            ("convergence gap", "unknown: no corrupted run was made" if gap is None else _gap(found, gap)),
            ("cost", f"{forwards:g} forward and {backwards:g} backward passes; {found.seconds:.1f} s in all"),
            ("circuit", str(out / CIRCUIT)),
            ("picture", f"{out / PICTURES[0]}, {out / PICTURES[1]}"),
            ("scores", str(out / SCORES)),
            ("record", str(out / RECORD)),
        ]
    )


def _gap(found: Found, gap: float) -> str:
    if found.scores.corrupted is None:
        return output.number(gap)
    total = float((found.scores.corrupted - found.scores.clean).mean())
    share = f" ({abs(gap / total):.1%})" if total else ""
    return f"{output.number(gap)}, where the whole effect is {output.number(total)}{share}"


def _method(arguments: Arguments) -> Method:
    from sparse_circuits.attribution import METHODS

    options = {name: getattr(arguments, name) for name in INTEGRATION}
    return METHODS[arguments.method](**{name: value for name, value in options.items() if value is not None})


def _resolved(arguments: Arguments, method: Method, n_edges: int, n_examples: int) -> Arguments:
    """The arguments with nothing left open, so that another version's defaults cannot change a repeated run."""
    filled: dict[str, Any] = {"examples": n_examples}
    if arguments.method == "eap-ig":
        filled |= {name: method.options[name] for name in INTEGRATION}
    if arguments.threshold is None:
        filled |= {"edges": arguments.edges or min(EDGES, n_edges), "select": arguments.select or "greedy"}
        if filled["edges"] > n_edges:
            raise InputError(f"--edges {filled['edges']}: the graph of {arguments.model} has {n_edges}.")
    return replace(arguments, **filled)


def _select(arguments: Arguments, scores: Scores) -> Circuit:
    if arguments.threshold is not None:
        circuit = scores.threshold(arguments.threshold, signed=arguments.signed)
    elif arguments.select == "top":
        circuit = scores.top(arguments.edges or 0, signed=arguments.signed)
    else:
        circuit = scores.greedy(arguments.edges or 0, signed=arguments.signed)
    if circuit.n_edges == 0:
        strongest = float(scores.values.abs().max())
        advice = "a lower --threshold" if arguments.threshold is not None else "more --edges, or --select greedy"
        raise InputError(
            f"The chosen edges do not connect the input to the logits, so nothing is left; try {advice} "
            f"(the strongest |score| is {output.number(strongest)})."
        )
    return circuit


def _results(found: Found) -> dict[str, Any]:
    evaluation, baseline, scores, circuit = found.evaluation, found.baseline, found.scores, found.circuit
    return {
        "edges": {"graph": circuit.graph.n_edges, "circuit": circuit.n_edges},
        "nodes": circuit.n_nodes,
        "metric": {
            "clean": float(evaluation.clean.mean()),
            "corrupted": None if scores.corrupted is None else float(scores.corrupted.mean()),
            "circuit": evaluation.mean,
            "empty": float(evaluation.empty.mean()),
        },
        "faithfulness": evaluation.faithfulness,
        "faithfulness_interval": evaluation.faithfulness_interval,
        "random": {
            "faithfulness": baseline.faithfulness.tolist(),
            "median": baseline.median,
            "interval": baseline.interval,
        },
        "convergence_gap": scores.convergence_gap,
        "passes": {"forward": scores.passes[0], "backward": scores.passes[1]},
        "seconds": round(found.seconds, 2),
        "device": found.device,
    }


def _warn_if_changed(earlier: Record, found: Found) -> None:
    """Say so where a repeated run could not see the same prompts or libraries again."""
    import warnings

    then, now = earlier.provenance, found.circuit.provenance
    if then.get("task_hash") != now.get("task_hash"):
        warnings.warn(f"The prompts of {found.arguments.task} are not those of the earlier run.", stacklevel=1)
    if then.get("versions") != now.get("versions"):
        warnings.warn(
            "The earlier run was made with other library versions; scores may differ by rounding.", stacklevel=1
        )
