"""Train the bundled model's dictionaries: `python -m sparse_circuits.zoo.train_dictionaries --out DIR`.

Everything follows from the seed: each dictionary's first weights, and the text of every step, which depends on the step
alone. So each comes out the same whichever others are trained with it. Those of a layer share the model's passes. A
dictionary is written at once when it is finished; with `--resume` finished ones are kept, and those that were
interrupted begin again, to the same result. Runs on the CPU.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparse_circuits.model.load import load_model
from sparse_circuits.zoo.dictionary_sites import Shape, Site, Text, batches, information, sites
from sparse_circuits.zoo.dictionary_trainers import Learner, Settings, learner, metadata
from sparse_circuits.zoo.train import write_json

CONFIG, RECORD = "cfg.json", "training.json"


def is_finished(folder: Path, site: Site, settings: Settings, context: int) -> bool:
    """Whether `folder` has this dictionary; ValueError if it has one of other settings."""
    if not (folder / CONFIG).exists():
        return False
    found = json.loads((folder / CONFIG).read_text())["metadata"].get("training")
    wanted = metadata(site, settings, context).training
    if found != wanted:
        raise ValueError(
            f"the dictionary in {folder} was trained with other settings: {found}; this run's are {wanted}. "
            "Use another --out folder, or remove it."
        )
    return True


def save(one: Learner, folder: Path) -> None:
    """Write a dictionary's folder, all of it or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        ready = Path(scratch) / folder.name
        one.save(ready)
        for file in ready.iterdir():
            file.chmod(0o644)
        shutil.rmtree(folder, ignore_errors=True)  # what is left of one that has no configuration
        os.replace(ready, folder)


def train_layer(model: Any, places: Sequence[Site], settings: Settings, out: Path, progress: Progress) -> None:
    """Train dictionaries of one layer side by side, and save them."""
    width, context = model.cfg.d_model, model.cfg.n_ctx
    hooks = sorted({hook for place in places for hook in (place.reads, place.writes)})
    text = Text(model.tokenizer, context, f"dictionaries/{settings.seed}")
    stop, shape = places[0].layer + 1, Shape(settings.batch, settings.rows, settings.bos)
    learners = [learner(place, width, settings, context) for place in places]
    # Steps before the first one are text that no step is trained on.
    early = list(batches(model, text, hooks, first=-settings.early_batches, last=0, stop=stop, shape=shape))
    written = sorted({place.writes for place in places})
    fishers = [
        information(model, text.rows(step, settings.rows), written, step % 2**31)
        for step in range(-settings.early_batches, 0)
    ]
    for one in learners:
        fisher = torch.stack([found[one.site.writes] for found in fishers]).mean(0)
        one.prepare(early, fisher)
    names = ", ".join(place.name for place in places)
    bar = progress.add_task(names, total=settings.steps)
    start = time.perf_counter()
    for step, batch in enumerate(batches(model, text, hooks, first=0, last=settings.steps, stop=stop, shape=shape), 1):
        left = {one.site.name: one.step(batch) for one in learners}
        progress.update(bar, completed=step)
        if step % 250 == 0 or step == settings.steps:
            shares = ", ".join(f"{name} {1 - value:.4f}" for name, value in left.items())
            spent = (time.perf_counter() - start) / 60
            progress.console.log(f"step {step}: variance explained: {shares}; {spent:.1f} minutes")
    for one in learners:
        save(one, out / one.site.name)
    # Beside the dictionaries, not in them: the same seed gives the same files.
    took = {"minutes": round((time.perf_counter() - start) / 60, 1), "threads": torch.get_num_threads()}
    record = json.loads((out / RECORD).read_text()) if (out / RECORD).exists() else {}
    write_json(out / RECORD, {**record, names: took})


def train(settings: Settings, out: Path, only: Sequence[str] | None = None, *, resume: bool = False) -> None:
    """Train the dictionaries, or those that `only` names, and save each to a folder of its name in `out`.

    Raises:
        ValueError: if a name in `only` is unknown, or `out` has one of the dictionaries already and `resume` is off, or
            has one of other settings.
    """
    model = load_model("toy", device="cpu")
    places = sites(model.cfg.n_layers)
    known = [place.name for place in places]
    if unknown := sorted(set(only or ()) - set(known)):
        raise ValueError(f"no dictionary is called {', '.join(unknown)}; there are {', '.join(known)}.")
    wanted = [place for place in places if only is None or place.name in only]
    finished = [place for place in wanted if is_finished(out / place.name, place, settings, model.cfg.n_ctx)]
    if finished and not resume:
        names = ", ".join(place.name for place in finished)
        raise ValueError(f"{out} has {names} already: keep them with --resume, or use another --out folder.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        for layer in range(model.cfg.n_layers):
            if left := [place for place in wanted if place.layer == layer and place not in finished]:
                train_layer(model, left, settings, out, progress)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.zoo.train_dictionaries", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write a folder per dictionary to")
    parser.add_argument("--resume", action="store_true", help="keep the dictionaries that are finished")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="dictionaries to train, such as resid_2 (default: all)"
    )
    parser.add_argument("--tokens", type=int, default=Settings.tokens, help="per dictionary (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    arguments = parser.parse_args()
    if arguments.tokens < Settings.batch:
        parser.error(f"--tokens must be at least a batch, {Settings.batch}, but is {arguments.tokens}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        settings = Settings(seed=arguments.seed, tokens=arguments.tokens)
        train(settings, arguments.out, arguments.only, resume=arguments.resume)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
