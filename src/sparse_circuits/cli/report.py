"""``sparse-circuits report``: one page on a run for a colleague."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparse_circuits.cli import beside, meanings, output
from sparse_circuits.cli.curves import Curves, curve_as_found
from sparse_circuits.cli.feature_evaluate import FeatureRun, attached, feature_curves, policy_of
from sparse_circuits.cli.feature_search import feature_graph
from sparse_circuits.cli.load import ablation_named, fitting, load_model_on, open_circuit, prompts_of
from sparse_circuits.cli.methods import flag
from sparse_circuits.cli.options import BATCH_SIZE, DRAWS, BatchSize, Device, Draws, Examples, NewSeed, option
from sparse_circuits.cli.record import PAGE, RECORD, SCORES, Arguments
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.attribution import Method
    from sparse_circuits.evaluation import Evaluation
    from sparse_circuits.task import Task

EXAMPLES = (
    "report runs/ioi",
    "report runs/rc --labels notes.json --out agreement.html",
    "report runs/gpt2 --text book.txt --tokens 200000 --methods eap --methods relp",
    "report runs/ioi --no-methods --no-random --interactive",
)
REPORT = "report.html"
SHOWN = 20
COMPARING, MEANING = "What it is compared with", "What its nodes mean"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'find' wrote.", show_default=False)],
    out: Annotated[Path | None, option("--out", "The page to write.", f"RUN/{REPORT}", metavar="FILE.HTML")] = None,
    title: Annotated[str | None, option("--title", "Of the page.", "task and model", metavar="TEXT")] = None,
    question: Annotated[
        str | None, option("--question", "The task in words.", "a bundled task's own", metavar="TEXT")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Plots to point at and zoom, for 5 MB more; otherwise pictures.")
    ] = False,
    model: Annotated[str | None, option("--model", "Another name of the model.", "the run's", metavar="MODEL")] = None,
    task: Annotated[str | None, option("--task", "Other prompts to evaluate on.", "the run's", metavar="TASK")] = None,
    examples: Examples = None,
    seed: NewSeed = None,
    methods: Annotated[
        list[str] | None,
        option(
            "--methods",
            "A method to compare with, perhaps with options: eap, eap-ig/left/10. May be repeated.",
            "one or two cheap ones",
            panel=COMPARING,
            metavar="NAME",
        ),
    ] = None,
    no_methods: Annotated[
        bool, typer.Option("--no-methods", help="Compare with no other method.", rich_help_panel=COMPARING)
    ] = False,
    no_random: Annotated[
        bool,
        typer.Option(
            "--no-random", help="Compare with random circuits of its own size only.", rich_help_panel=COMPARING
        ),
    ] = False,
    draws: Draws = None,
    text: Annotated[
        str | None,
        option(
            "--text",
            "Where to look, as for 'features'; what that left beside the run is then not used.",
            "toy, for the bundled model",
            panel=MEANING,
            metavar="TEXT",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        option("--tokens", "Stop after so many.", "20,000; all of a file", panel=MEANING, metavar="N", min=1),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        option("--labels", "Notes, as for 'features'. May be repeated.", panel=MEANING, metavar="FILE"),
    ] = None,
    show: Annotated[
        int,
        typer.Option(
            "--show", help="Tell everything of so many of the strongest.", metavar="N", min=1, rich_help_panel=MEANING
        ),
    ] = SHOWN,
    no_meanings: Annotated[
        bool, typer.Option("--no-meanings", help="Leave out what nodes mean.", rich_help_panel=MEANING)
    ] = False,
    batch_size: BatchSize = None,
    device: Device = None,
) -> None:
    """Write one HTML file on a run for a colleague, with everything in it.

    The question, how far the circuit can be believed, the model, the circuit, its curve beside random circuits and other
    methods, what its nodes mean, what was not explained, and the commands that made it. What the run's folder has is used:
    the scores, what 'features' found, and an explorer page named explorer.html.
    """
    opened = open_circuit(run)
    if opened.record is None:
        raise InputError(f"{run} holds no {RECORD}; expected a folder that 'find' wrote.")
    arguments, folder = opened.record.arguments, opened.path.parent
    file = _checked(folder / REPORT if out is None else out)
    others = {} if no_methods else beside.named(methods or beside.usual(arguments), arguments)
    if no_methods and methods:
        raise InputError("Expected --methods or --no-methods, got both.")
    if no_meanings and (text is not None or labels or tokens is not None):
        raise InputError("--no-meanings leaves out what --text, --tokens and --labels are for; leave these out.")
    for notes in labels or ():
        if not notes.is_file():
            raise InputError(f"--labels {notes}: there is no such file.")
    pages = None if no_meanings or text is not None or tokens is not None else meanings.read_pages(folder)
    explorer = _explorer(folder)
    own = {
        "out": out, "title": title, "question": question, "interactive": interactive, "methods": methods,
        "no_methods": no_methods, "no_random": no_random, "text": text, "tokens": tokens, "labels": labels,
        "show": None if show == SHOWN else show, "no_meanings": no_meanings,
    }  # fmt: skip
    policy = policy_of({"this circuit": opened}, None, None, None)
    seed = opened.seed + 1 if seed is None else seed

    import sparse_circuits as sc

    loaded = load_model_on(model or arguments.model, device)
    found_on = prompts_of(loaded, arguments)
    prompts = sc.load_task(task or arguments.task, loaded, n=examples, seed=seed)
    evaluated = {"model": model, "task": task, "examples": len(prompts), "seed": seed, "draws": draws}
    prompts = fitting(loaded, prompts, [opened.circuit])
    feature_run = attached({"this circuit": opened}, loaded, None).get("this circuit")
    circuit = opened.circuit if feature_run is None else feature_run.circuit
    scores = _scores(folder, feature_run)
    common: dict[str, Any] = {"ablation": ablation_named(opened.ablation), "batch_size": batch_size or BATCH_SIZE}
    common |= {"progress": True, **policy}
    known = None if feature_run is None else feature_run.dictionaries
    how = f"Run 'sparse-circuits features {shlex.quote(str(run))} --text FILE', and then this command again."
    page_command = shlex.join(["sparse-circuits", "view", str(run), "--explore", str(folder / PAGE)])
    if no_meanings:
        told = meanings.Meanings(missing={"meanings": how})
    elif pages is not None:
        told = meanings.from_pages(pages, labels or (), known)
    else:
        told = meanings.look(
            loaded,
            circuit,
            prompts,
            text="toy" if text is None and (model or arguments.model) == "toy" else text,
            tokens=tokens,
            labels=labels or (),
            dictionaries=known,
            heads=show,
            how=how,
        )
    of_mlps = {} if no_meanings else meanings.mlps(loaded, circuit, prompts, show)
    evaluation, policies = _evaluated(loaded, circuit, feature_run, prompts, common)
    drawing = {"draws": draws or DRAWS, "seed": seed}
    baseline = sc.random_baseline(loaded, circuit, prompts, **drawing, **common)
    judged = evaluation.faithfulness == evaluation.faithfulness  # otherwise it is undefined at every size
    curves = None
    if judged and scores is not None:
        curves = _curves(loaded, scores, arguments, feature_run, prompts, not no_random, drawing, common)
    compared = {} if curves is None or curves.neurons is None else {"neurons, same sites": curves.neurons}
    if curves is not None:
        compared |= _beside(loaded, others, arguments, feature_run, found_on, prompts, curves, common)
    with output.working("writing the page"):
        page = sc.report(
            evaluation,
            file,
            task=prompts,
            found_on=found_on,
            model=loaded,
            question=question or _summary(task or arguments.task),
            corrupted=_corrupted(loaded, prompts, common),
            baseline=baseline,
            curve=None if curves is None else curves.curve,
            random=() if curves is None else curves.random,
            beside=compared,
            policies=policies,
            name=arguments.method,
            scores=scores,
            meanings={**of_mlps, **told.nodes},
            looked_at=told.looked_at,
            explorer=explorer,
            commands=_commands(run, arguments, evaluated, own, pages is not None),
            recorded={
                "seed of the run": arguments.seed,
                "seed of the evaluation's prompts and random circuits": seed,
                "longer prompts left out": evaluated["examples"] - len(prompts) or None,
            },
            missing={
                "curve": f"There is no {SCORES} in the run's folder.",
                "explorer": f"Run '{page_command}', and then this command again.",
                **told.missing,
            },
            title=title,
            described=show,
            interactive=interactive,
        )
    output.line(f"The report on {arguments.task} in {arguments.model}")
    output.line()
    name = {"this circuit": evaluation}
    output.comparison(
        name, {"this circuit": baseline}, {"this circuit": policies["neurons"]} if "neurons" in policies else {}
    )
    output.line()
    output.pairs([("report", str(file)), ("size", f"{len(page.html.encode()) / 1e6:.1f} MB, all in this one file")])


def _checked(out: Path) -> Path:
    """
    Raises:
        InputError: for a file that could not be written at the end.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a file that ends in .html.")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; expected a file that ends in .html.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: {out.parent} is not a folder that can be written to.")
    return out


def _explorer(folder: Path) -> str | None:
    """The page beside the run."""
    path = folder / PAGE
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not an explorer page; move it away, or make it again with 'view --explore'."
        ) from None


def _evaluated(
    model: Any, circuit: Any, run: FeatureRun | None, task: Task, common: dict[str, Any]
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """The circuit on new prompts; of features also with other rules for error terms, and beside as many neurons."""
    import sparse_circuits as sc

    beside_it = [] if run is None or run.as_many_neurons is None else [run.as_many_neurons]
    first, *neurons = sc.evaluate_many(model, [circuit, *beside_it], task, completeness=True, **common)
    policies = {"neurons": neurons[0]} if neurons else {}
    if run is not None:
        for errors in ("keep", "remove"):
            if errors != common["errors"]:
                (policies[errors],) = sc.evaluate_many(model, [circuit], task, **{**common, "errors": errors})
    return first, policies


def _curves(
    model: Any, scores: Any, arguments: Arguments, run: FeatureRun | None, task: Task, random: bool,
    drawing: dict[str, int], common: dict[str, Any],
) -> Curves:  # fmt: skip
    """Other sizes with random circuits of each; not of edges with positions, where a circuit costs many times what it does
    without.
    """
    import sparse_circuits as sc

    if run is not None:
        return feature_curves(model, run, task, random=random, **drawing, **common)
    curve = curve_as_found(model, scores, task, arguments, **common)
    costly = scores.graph.level == "edges" and bool(scores.graph.positions)
    circuits = [e.circuit for e in curve.evaluations if 0 < e.circuit.size < scores.graph.size]
    drawn = circuits if random and not costly else []
    return Curves(curve, None, tuple(sc.random_baseline(model, one, task, **drawing, **common) for one in drawn))


def _beside(
    model: Any, methods: dict[str, Method], arguments: Arguments, run: FeatureRun | None, found_on: Task, task: Task,
    curves: Curves, common: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    import sparse_circuits as sc

    if run is not None:
        graph: Any = feature_graph(model, run.dictionaries, arguments.whole or ())
    else:
        kv = "per_query_head" if arguments.kv == "per-query-head" else "per_group"
        graph = sc.Graph.of(model, kv=kv, level=arguments.of_components)
    return beside.curves_beside(model, graph, methods, arguments, found_on, task, curves.curve.requested, **common)


def _corrupted(model: Any, task: Task, common: dict[str, Any]) -> Any:
    """The whole model's metric on each corrupted prompt: patched in full, a model is on that prompt."""
    import sparse_circuits as sc

    if task.corrupted is None:
        return None
    nothing = sc.Circuit.of(sc.Graph.of(model, level="nodes"), [])
    return sc.evaluate(model, nothing, task, batch_size=common["batch_size"]).empty


def _scores(folder: Path, run: FeatureRun | None) -> Any:
    """What the circuit was chosen from, if it is there.

    Raises:
        FileFormatError: for a file that is damaged.
    """
    import sparse_circuits as sc

    if not (folder / SCORES).is_file():
        return None
    return sc.Scores.load(folder / SCORES) if run is None else run.scores


def _summary(task: str) -> str | None:
    from sparse_circuits.task.bundled import BUNDLED

    return BUNDLED[task].summary if task in BUNDLED else None


def _commands(
    run: Path, arguments: Arguments, evaluated: dict[str, Any], own: dict[str, Any], with_features: bool
) -> list[tuple[str, str]]:
    """The lines that make the run and its report again.

    Args:
        evaluated: options of this command that ``evaluate`` has too. own: those that it has not.
    """
    place, shared = str(run), _words(evaluated)
    lines = [
        ("Find the circuit", f"{arguments.command} --out {shlex.quote(place)}"),
        (
            "Evaluate it as here",
            shlex.join(["sparse-circuits", "evaluate", place, *shared, "--completeness", "--curve"]),
        ),
    ]
    if with_features:
        lines.append(("Look at what its nodes mean", shlex.join(["sparse-circuits", "features", place])))
    return [*lines, ("Make this page", shlex.join(["sparse-circuits", "report", place, *shared, *_words(own)]))]


def _words(options: dict[str, Any]) -> list[str]:
    """Options as they are given; those that were left alone are None, False or their default."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(flag(name))
        elif value is not None and value is not False:
            words += [
                word for one in (value if isinstance(value, list) else [value]) for word in (flag(name), str(one))
            ]
    return words
