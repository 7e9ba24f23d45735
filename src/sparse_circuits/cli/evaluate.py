"""``sparse-circuits evaluate``: how good circuits are, on examples that they were not found on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparse_circuits.cli import output
from sparse_circuits.cli.curves import Curves, curve_as_found, report_curves, write_curves
from sparse_circuits.cli.feature_evaluate import attached, feature_curves, policy_of, said_of
from sparse_circuits.cli.load import Opened, ablation_named, fitting, load_model_on, open_circuit, prompts_of
from sparse_circuits.cli.options import (
    BATCH_SIZE,
    DRAWS,
    FEATURES,
    AblationName,
    BatchSize,
    Device,
    Draws,
    Errors,
    Examples,
    NewSeed,
    StartLayer,
    option,
)
from sparse_circuits.cli.record import SCORES
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.task import Task

EXAMPLES = (
    "evaluate runs/ioi",
    "evaluate runs/ioi --seed 7 --examples 500 --ablation mean --completeness",
    "evaluate runs/eap runs/eap-ig --curve",
    "evaluate runs/rc --errors remove --start-layer 2",
)


def evaluate(
    circuits: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_CIRCUIT", help="Folders that 'find' or 'trace' wrote, or circuit files.", show_default=False
        ),
    ],
    model: Annotated[str | None, option("--model", "Another model.", "the circuit's", metavar="MODEL")] = None,
    task: Annotated[str | None, option("--task", "Another task.", "the circuit's", metavar="TASK")] = None,
    examples: Examples = None,
    seed: NewSeed = None,
    ablation: Annotated[
        AblationName | None, option("--ablation", "What stands in for a part left out.", "the circuit's")
    ] = None,
    completeness: Annotated[
        bool, typer.Option("--completeness", help="Also run everything but the circuit (lower is better).")
    ] = False,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Also evaluate other sizes; writes curve.svg, .png and .json into the run's folder, for its page too.",
        ),
    ] = False,
    dictionaries: Annotated[
        str | None,
        option("--dictionaries", "Of a circuit file.", "the run's", panel=FEATURES, metavar="NAME"),
    ] = None,
    errors: Errors = None,
    start_layer: StartLayer = None,
    draws: Draws = None,
    batch_size: BatchSize = None,
    device: Device = None,
) -> None:
    """Evaluate circuits, beside random ones of the same size; those of features beside neurons too.

    Several circuits of one model share the runs of the model.
    """
    opened = _named([open_circuit(path) for path in circuits])
    if curve:
        _check_scores(opened)
    policy = policy_of(opened, dictionaries, errors, start_layer)
    model_name = model or common_value("--model", {name: one.model for name, one in opened.items()})
    task_name = task or common_value("--task", {name: one.task for name, one in opened.items()})
    ablation_name = ablation or common_value("--ablation", {name: one.ablation for name, one in opened.items()})
    how = ablation_named(ablation_name)
    seed = 1 + max(one.seed for one in opened.values()) if seed is None else seed

    import sparse_circuits as sc

    loaded = load_model_on(model_name, device)
    asked = sc.load_task(task_name, loaded, n=examples, seed=seed)
    prompts = fitting(loaded, asked, [one.circuit for one in opened.values()])
    common: dict[str, Any] = {"ablation": how, "batch_size": batch_size or BATCH_SIZE, "progress": True}
    common |= policy
    runs = attached(opened, loaded, dictionaries)
    neurons = {name: run.as_many_neurons for name, run in runs.items() if run.as_many_neurons is not None}
    plain = {name: runs[name].circuit if name in runs else one.circuit for name, one in opened.items()}
    results = sc.evaluate_many(
        loaded, [*plain.values(), *neurons.values()], prompts, completeness=completeness, **common
    )
    baselines = {
        name: sc.random_baseline(loaded, circuit, prompts, draws=draws or DRAWS, seed=seed, **common)
        for name, circuit in plain.items()
    }
    said = f"{model_name} on {_examples(task_name, prompts, seed)}, {ablation_name} ablation"
    output.line(", ".join([said, *said_of(policy)]))
    for note in _notes(loaded, opened, task_name, asked, prompts):
        output.line(f"({note})")
    output.line()
    of_neurons = dict(zip(neurons, results[len(plain) :], strict=True))
    output.comparison(dict(zip(plain, results, strict=False)), baselines, of_neurons)
    for (name, one), result in zip(opened.items(), results, strict=False) if curve else ():
        folder = one.path.parent
        about = {"task": task_name, "model": model_name, "examples": len(prompts), "seed": seed}
        about |= {name: policy.get(name) for name in ("errors", "start_layer")}
        if name in runs:
            made = feature_curves(loaded, runs[name], prompts, draws=draws or DRAWS, seed=seed, **common)
        else:
            scores = sc.Scores.load(folder / SCORES)
            made = Curves(curve_as_found(loaded, scores, prompts, one.arguments, **common))
        report_curves(name, made, write_curves(made, folder, about, result, baselines[name]))


def _named(opened: list[Opened]) -> dict[str, Opened]:
    """Circuits by what the table calls them: "this circuit", or their places."""
    if len(opened) == 1:
        return {"this circuit": opened[0]}
    return {str(one.path if one.origin is None else one.path.parent): one for one in opened}


def common_value(option: str, values: dict[str, str | None]) -> str:
    different = sorted({str(value) for value in values.values()})
    if len(different) > 1:
        raise InputError(
            f"The circuits differ in {option} ({', '.join(different)}); evaluate them one by one, or give {option}."
        )
    value = next(iter(values.values()))
    if value is None:
        raise InputError(f"The circuit file does not say which {option.removeprefix('--')} it is of; give {option}.")
    return value


def _notes(model: Any, opened: dict[str, Opened], task: str, asked: Task, prompts: Task) -> Iterator[str]:
    """How many of the prompts that were asked for are left out, and how many the circuits were found on."""
    from sparse_circuits.task.shared import shared_prompts

    if len(prompts) < len(asked):
        yield f"{len(asked) - len(prompts)} longer than those that the circuit was found on are left out"
    if any(one.circuit.provenance.get("task_hash") == asked.hash for one in opened.values()):
        yield "those that the circuit was found on"
        return
    shared = 0
    for one in opened.values():
        if one.origin is not None and one.origin.task == task:
            with suppress(InputError):  # a file that has changed since
                shared = max(shared, shared_prompts(prompts, prompts_of(model, one.origin)))
    if shared:
        yield f"{'all' if shared == len(prompts) else shared} of them are among those that the circuit was found on"


def _check_scores(opened: dict[str, Opened]) -> None:
    for one in opened.values():
        if one.record is None or not (one.path.parent / SCORES).is_file():
            raise InputError(f"--curve needs the scores of a run, and there is no {SCORES} beside {one.path}.")


def _examples(name: str, task: Task, seed: int) -> str:
    from sparse_circuits.task.bundled import BUNDLED

    return f"{len(task)} examples of {name}" + (f", seed {seed}" if name in BUNDLED else "")
