"""``sparse-circuits features``: what the nodes of a circuit mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparse_circuits.cli import output
from sparse_circuits.cli.feature_evaluate import attached
from sparse_circuits.cli.json_record import finite
from sparse_circuits.cli.load import Opened, load_model_on, open_circuit
from sparse_circuits.cli.options import FEATURES, Device, RunOrCircuit, option
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.features import Feature, FeatureStore, HeadReport, Labels
    from sparse_circuits.task import Task

EXAMPLES = (
    "features runs/rc",
    "features runs/rc --text book.txt --tokens 1000000",
    "features runs/gpt2 --text hf:monology/pile-uncopyrighted --tokens 5000000 --labels notes.json",
)
STORE, PAGES = "features", "features.json"
_TOKENS = 100_000
_HEADS = 50


def features(
    circuit: RunOrCircuit,
    text: Annotated[
        str | None,
        option(
            "--text",
            "Where to look: 'toy', the bundled language; a .txt or .jsonl file; hf: and a Hugging Face dataset's name.",
            "toy, for the bundled model",
            metavar="TEXT",
        ),
    ] = None,
    tokens: Annotated[
        int | None, option("--tokens", "Stop after so many.", f"{_TOKENS:,}; all of a file", metavar="N", min=1)
    ] = None,
    labels: Annotated[
        list[Path] | None,
        option(
            "--labels",
            "Notes: a .json of notes by name, feature-circuits' .jsonl, or an export of Neuronpedia. May be repeated.",
            metavar="FILE",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", "The store, and beside it the pages.", f"{STORE}, beside the circuit", metavar="FOLDER"),
    ] = None,
    show: Annotated[int, typer.Option("--show", help="Print so many of the strongest.", metavar="N", min=1)] = 15,
    model: Annotated[
        str | None, option("--model", "Another name of the model.", "the circuit's", metavar="MODEL")
    ] = None,
    dictionaries: Annotated[
        str | None, option("--dictionaries", "Of a circuit file.", "the run's", panel=FEATURES, metavar="NAME")
    ] = None,
    batch_size: Annotated[int | None, option("--batch-size", "Rows at a time.", 32, metavar="N", min=1)] = None,
    device: Device = None,
) -> None:
    """Say what the features, neurons and heads of a circuit mean: where they fire, and what they promote.

    One pass over a text for all of them, into a store. Interrupted, the same command goes on; with more tokens or another
    text it adds to the store. Writes features.json, a page for each.
    """
    opened = open_circuit(circuit)
    if opened.model is None and model is None:
        raise InputError(f"{opened.path} does not say which model it is of; give --model.")
    if opened.of_features and dictionaries is None and opened.arguments is None:
        raise InputError(f"{opened.path} does not say where its dictionaries are; give --dictionaries.")
    if dictionaries is not None and not opened.of_features:
        raise InputError("--dictionaries is for circuits of features, and this is one of components; leave it out.")
    if text is None:
        if str(model or opened.model) != "toy":
            raise InputError(
                f"Where to look for what {model or opened.model} does is missing; give --text FILE or hf:NAME."
            )
        text = "toy"
    folder = opened.path.parent / STORE if out is None else out

    import sparse_circuits.features as library

    loaded = load_model_on(str(model or opened.model), device)
    runs = attached({"this circuit": opened}, loaded, dictionaries)
    nodes: Any = runs["this circuit"].circuit if runs else opened.circuit
    known = runs["this circuit"].dictionaries if runs else None
    notes = labels_in(labels or [], known)
    if tokens is None and not Path(text).is_file():
        tokens = _TOKENS
    try:
        store = library.collect_contexts(
            loaded, nodes, text, store=folder, tokens=tokens, batch_size=batch_size or 32, progress=True
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {folder} has what was counted; the same command goes on from there", err=True)
        raise SystemExit(130) from None
    pages = library.feature_pages(loaded, nodes, store, dictionaries=known, labels=notes)
    heads = _heads(loaded, opened, pages)
    written = write_pages(folder, store, pages, heads)
    scores = _scores(opened)
    _report(pages, heads, scores, show)
    output.line()
    output.pairs(
        [
            *((name, f"{n:,} tokens") for name, n in store.tokens.items()),
            ("store", str(folder)),
            ("pages", str(written)),
        ]
    )


def labels_in(files: list[Path], dictionaries: Any) -> Labels:
    """Notes from files of any kind; where several have one on a feature, the last file's."""
    from sparse_circuits.features import Labels

    notes = Labels()
    for file in files:
        notes = notes | _labels_in(file, dictionaries)
    return notes


def _labels_in(file: Path, dictionaries: Any) -> Labels:
    from sparse_circuits.features import Labels
    from sparse_circuits.features.texts import open_text

    if not file.is_file():
        raise InputError(f"--labels {file}: there is no such file.")
    with open_text(file) as lines:
        start = lines.read(4096)
    if '"modelId"' in start:
        return Labels.from_neuronpedia(file, dictionaries or {})
    return Labels.from_feature_circuits(file) if ".jsonl" in file.suffixes else Labels.load(file)


def _heads(model: Any, opened: Opened, pages: dict[str, Feature]) -> dict[str, HeadReport]:
    """What the heads do on the run's task, where there are any and it is known."""
    from sparse_circuits import load_task

    names = [name for name, page in pages.items() if page.source == "heads"][:_HEADS]
    if not names or opened.record is None:
        return {}
    task = load_task(str(opened.task), model, n=opened.record.arguments.examples, seed=opened.seed)
    return head_reports(model, task, names)


def head_reports(model: Any, task: Task, names: Iterable[str]) -> dict[str, HeadReport]:
    """What heads do on prompts, a few of which are shown whole."""
    from sparse_circuits.features import head_report

    with output.working("looking at heads"):
        return {name: head_report(model, task, name, prompts=4) for name in names}


def write_pages(folder: Path, store: FeatureStore, pages: dict[str, Feature], heads: dict[str, HeadReport]) -> Path:
    from sparse_circuits.circuit.files import write_atomically

    content = {
        "format": "sparse-circuits feature pages",
        "version": 1,
        "model": store.model,
        "features": {name: page.to_dict() for name, page in pages.items()},
        "heads": {name: report.to_dict() for name, report in heads.items()},
    }
    text = json.dumps(finite(content), ensure_ascii=False) + "\n"
    # beside the store, not in it: a store holds only what later runs extend
    folder = folder.resolve() if folder.name in ("", "..") else folder
    path = folder.parent / (PAGES if folder.name == STORE else f"{folder.name}.json")
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _scores(opened: Opened) -> dict[str, float]:
    """The nodes' scores by name without position: where positions are told apart, the largest."""
    try:
        scores = opened.circuit.to_dict()
    except InputError:
        return {}
    found: dict[str, float] = {}
    for name, value in scores.items():
        found.setdefault(name.partition("@")[0], value)
    return found


def _report(pages: dict[str, Feature], heads: dict[str, HeadReport], scores: dict[str, float], show: int) -> None:
    order = sorted(pages, key=lambda name: -abs(scores.get(name, 0.0)))
    rows = []
    for name in order[:show]:
        page = pages[name]
        promotes = heads[name].promoted if name in heads else page.promoted
        density = "never" if page.fired == 0 else f"{page.density:.2%}"
        score = output.number(scores[name]) if name in scores else ""
        rows.append(
            (
                name,
                score,
                density,
                _fires_on(page),
                " ".join(token.strip() for token, _ in promotes[:5]),
                page.label or "",
            )
        )
    columns = ["strongest", "score", "fires", "most on", "promotes"]
    if any(row[-1] for row in rows):
        columns.append("label")
    output.table(
        *columns, rows=[row[: len(columns)] for row in rows], text=("strongest", "most on", "promotes", "label")
    )


def _fires_on(page: Feature, n: int = 5) -> str:
    """The tokens that its strongest contexts are about, the most frequent first."""
    found = Counter(context.tokens[context.peak].strip() for context in page.top)
    return " ".join(token for token, _ in found.most_common(n))
