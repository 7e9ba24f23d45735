"""``sparse-circuits trace``: a circuit of features grown layer by layer, and validated."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sparse_circuits.cli.folder import check_out
from sparse_circuits.cli.options import (
    BATCH_SIZE,
    FEATURES,
    AblationName,
    BatchSize,
    Device,
    Examples,
    Force,
    PositionsName,
    dictionaries_option,
    model_option,
    option,
    sites_option,
    task_option,
    whole_option,
)
from sparse_circuits.cli.trace_record import TRACE_RECORD, Slice, TraceRecord
from sparse_circuits.cli.trace_work import TOKENS, Asked, compare, grow, validate
from sparse_circuits.errors import InputError

EXAMPLES = (
    "trace --task sva-across-rc --sites resid --at resid_1 --out runs/trace",
    "trace --extend runs/trace",
    "trace --extend runs/trace --features resid_2.f34,resid_3.f223 --threshold -1",
    "trace --validate runs/trace",
    "trace --gradient --sites resid --top 10 --bottom 10 --out runs/gradient",
    "trace --compare runs/trace runs/gradient",
)
OLD, PROMPTS, RUN, GRADIENT, MEANING = "With earlier traces", "Model and task", "A run", "By gradient", "The picture"


def trace(
    extend: Annotated[
        Path | None,
        option("--extend", "Go on with a trace: a folder that an earlier run wrote.", panel=OLD, metavar="FOLDER"),
    ] = None,
    validating: Annotated[
        Path | None,
        option(
            "--validate", "Ablate all features of a trace at once, and say what that does.", panel=OLD, metavar="FOLDER"
        ),
    ] = None,
    comparing: Annotated[
        tuple[Path, Path] | None,
        option("--compare", "Two traces of one task beside each other.", panel=OLD, metavar="FOLDER FOLDER"),
    ] = None,
    model: Annotated[str | None, model_option(Slice.model, PROMPTS)] = None,
    task: Annotated[str | None, task_option(Slice.task, PROMPTS)] = None,
    dictionaries: Annotated[str | None, dictionaries_option(default="toy, for the bundled model")] = None,
    sites: Annotated[list[str] | None, sites_option("The slice")] = None,
    whole: Annotated[list[str] | None, whole_option("held as a whole: attn, mlp_0, z")] = None,
    ablation: Annotated[
        AblationName | None, option("--ablation", "What a feature's value becomes.", Slice.ablation, panel=FEATURES)
    ] = None,
    positions: Annotated[
        PositionsName | None,
        option("--positions", "Features at all tokens at once, or apart.", Slice.positions, panel=FEATURES),
    ] = None,
    at: Annotated[
        str | None,
        option(
            "--at",
            "The site to start at.",
            "the first; of a trace, the next with reached features; by gradient, the last",
            panel=RUN,
            metavar="SITE",
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        option("--features", "Start from these, with commas between. May be repeated.", panel=RUN, metavar="NAMES"),
    ] = None,
    top: Annotated[
        int | None,
        option(
            "--top",
            "Or from so many of the strongest, if a trace is extended of those reached; by gradient, of the most positive at "
            "every site.",
            "10; 5 by gradient",
            panel=RUN,
            metavar="N",
            min=0,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        option("--threshold", "Keep edges whose change is at least 2^X, up or down.", -3, panel=RUN, metavar="X"),
    ] = None,
    gradient: Annotated[
        bool, typer.Option("--gradient", help="By gradient instead of ablation.", rich_help_panel=GRADIENT)
    ] = False,
    bottom: Annotated[
        int | None,
        option("--bottom", "So many of the most negative at every site.", 5, panel=GRADIENT, metavar="N", min=0),
    ] = None,
    steps: Annotated[
        int | None,
        option(
            "--steps",
            "Gradients averaged at every site; 0 for the clean run's alone.",
            10,
            panel=GRADIENT,
            metavar="N",
            min=0,
        ),
    ] = None,
    contexts: Annotated[
        int | None,
        option(
            "--contexts",
            "Look where the features fire in so many tokens of text; 0 for not.",
            f"{TOKENS:,} of the bundled language for the bundled model, else 0",
            panel=MEANING,
            metavar="N",
            min=0,
        ),
    ] = None,
    text: Annotated[
        str | None,
        option("--text", "Of that text: 'toy', a .txt or .jsonl file, hf:NAME.", "toy", panel=MEANING, metavar="TEXT"),
    ] = None,
    examples: Examples = None,
    seed: Annotated[int | None, option("--seed", "Of bundled prompts.", Slice.seed, metavar="N", min=0)] = None,
    batch_size: BatchSize = None,
    out: Annotated[
        Path | None, option("--out", "Folder to write.", "runs/trace-TASK, or that of --extend", metavar="FOLDER")
    ] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Trace a circuit of features through the layers, one run at a time.

    A run ablates features of one site, each on its own, and records what that changes of the features that read it and of the
    logits. Every further run extends the trace, by default at the next site. With --gradient one run goes through all
    sites. Writes one folder: the trace, its circuit, pictures, and what the features fire on.
    """
    here: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in locals().items()
    }
    given = {name: value for name, value in here.items() if value is not None and value is not False and value != ()}
    modes = [name for name in ("extend", "validating", "comparing") if name in given]
    if len(modes) > 1:
        raise InputError("--extend, --validate and --compare are three things; give one of them.")
    sizes = {"batch_size": batch_size or BATCH_SIZE, "device": device}
    if comparing is not None:
        _only("comparing", given, ())
        compare(*comparing)
        return
    if validating is not None:
        _only("validating", given, ("examples", "seed", "ablation", "batch_size", "device"))
        record = TraceRecord.load(validating)
        validate(validating, record, examples=examples, seed=seed, ablation=ablation, **sizes)
        return
    asked = Asked(**{name: given[name] for name in _OF_RUN if name in given})
    if features is not None:
        names = tuple(name.strip() for part in features for name in part.split(",") if name.strip())
        asked = replace(asked, features=names)
    commands = (_command(given),)
    if extend is not None:
        _only("extend", given, (*_OF_RUN, "batch_size", "device", "out", "force"))
        record = TraceRecord.load(extend)
        asked.check(record.slice)
        if out is not None:
            check_out(out, force, TRACE_RECORD)
        grow(
            record.slice,
            asked,
            out or extend,
            earlier=extend,
            force=force,
            commands=record.commands + commands,
            **sizes,
        )
        return
    of = Slice(
        **{name: given[name] for name in _OF_SLICE if name in given}, form="gradient" if gradient else "ablation"
    )
    if of.model != "toy" and dictionaries is None:
        raise InputError(f"Which dictionaries to trace {of.model} with is missing; give --dictionaries.")
    asked.check(of)
    folder = out or Path("runs") / f"trace-{Path(of.task).stem}"
    check_out(folder, force, TRACE_RECORD)
    grow(of, asked, folder, force=force, commands=commands, **sizes)


_OF_SLICE = ("model", "task", "dictionaries", "sites", "whole", "ablation", "positions", "examples", "seed")
_OF_RUN = ("at", "features", "top", "threshold", "bottom", "steps", "contexts", "text")
_NAMES = {"validating": "validate", "comparing": "compare"}


def _only(mode: str, given: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """
    Raises:
        InputError: for an option that has no say in what is done.
    """
    for name in given:
        if name not in (mode, *allowed):
            raise InputError(f"{_flag(name)} does not go with {_flag(mode)}; leave it out.")


def _flag(name: str) -> str:
    return "--" + _NAMES.get(name, name).replace("_", "-")


def _command(given: dict[str, Any]) -> str:
    """The line that asks for the same."""
    words = ["sparse-circuits", "trace"]
    for name, value in given.items():
        if value is True:
            words.append(_flag(name))
        elif isinstance(value, tuple):
            words += [word for one in value for word in (_flag(name), str(one))]
        else:
            words += [_flag(name), str(value)]
    return shlex.join(words)
