"""``sparse-circuits features``: what the nodes of a circuit mean."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparse_circuits.cli import output
from sparse_circuits.cli.feature_evaluate import attached
from sparse_circuits.cli.json_record import finite
from sparse_circuits.cli.load import Opened, load_model_on, open_circuit
from sparse_circuits.cli.options import FEATURES, Device, RunOrCircuit, option
from sparse_circuits.cli.record import PAGE
from sparse_circuits.errors import FileFormatError, InputError, SparseCircuitsError

if TYPE_CHECKING:
    from sparse_circuits.features import Feature, HeadReport, Labels, MLPReport
    from sparse_circuits.task import Task

EXAMPLES = (
    "features runs/rc",
    "features runs/rc --text book.txt --tokens 1000000",
    "features runs/gpt2 --text hf:monology/pile-uncopyrighted --tokens 5000000 --labels notes.json",
)
STORE, PAGES = "features", "features.json"
_TOKENS = 100_000
_SAVE_EVERY = 8  # batches: a run that is interrupted loses little
_COMPONENTS = 50  # heads and MLPs, the strongest, that are looked at on prompts
_COMPONENT = re.compile(r"a\d+\.h\d+|m\d+")


def features(
    circuit: RunOrCircuit,
    text: Annotated[
        str | None,
        option(
            "--text",
            "Where to look: 'toy', the bundled language; a .txt or .jsonl file; hf:NAME or hf:NAME:CONFIGURATION, a Hugging "
            "Face dataset.",
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
    text it adds to the store. Writes features.json, a page for each, and puts them into the run's explorer.html.
    """
    opened = open_circuit(circuit)
    if opened.model is None and model is None:
        raise InputError(f"{opened.path} does not say which model it is of; give --model.")
    if opened.of_features and dictionaries is None and opened.origin is None:
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
    for file in labels or ():
        if not file.is_file():
            raise InputError(f"--labels {file}: there is no such file.")

    import sparse_circuits.features as library
    from sparse_circuits.features.texts import documents_of
    from sparse_circuits.view.report.given import nodes_of

    if not text.startswith(("toy", "hf:")):
        documents_of(text)  # refuses what is no text before the model is loaded

    loaded = load_model_on(str(model or opened.model), device)
    runs = attached({"this circuit": opened}, loaded, dictionaries)
    nodes: Any = runs["this circuit"].circuit if runs else opened.circuit
    known = runs["this circuit"].dictionaries if runs else None
    notes = labels_in(labels or [], known)
    scores = nodes_of(opened.circuit)
    components = [name for name in scores if _COMPONENT.fullmatch(name)][:_COMPONENTS]
    task = _task(opened, loaded) if components else None
    if tokens is None and not Path(text).is_file():
        tokens = _TOKENS
    before = _tokens_in(folder)
    try:
        store = library.collect_contexts(
            loaded,
            nodes,
            text,
            store=folder,
            tokens=tokens,
            batch_size=batch_size or 32,
            save_every=_SAVE_EVERY,
            progress=True,
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {_so_far(folder)}", err=True)
        raise SystemExit(130) from None
    except SparseCircuitsError as error:
        if _tokens_in(folder) <= before:
            raise
        raise type(error)(f"{error} By now {_so_far(folder)}.") from error
    pages = library.feature_pages(loaded, nodes, store, dictionaries=known, labels=notes)
    reports = {} if task is None else component_reports(loaded, task, components)
    written = write_pages(folder, store.model, pages, reports)
    page = _explorer(opened.path.parent / PAGE, pages, reports) if out is None and opened.record is not None else None
    _report(pages, reports, scores, show)
    output.line()
    output.pairs(
        [
            *((name, f"{n:,} tokens") for name, n in store.tokens.items()),
            ("store", str(folder)),
            ("pages", str(written)),
            *([] if page is None else [("page", str(page))]),
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

    with open_text(file) as lines:
        start = lines.read(4096)
    if '"modelId"' in start:
        return Labels.from_neuronpedia(file, dictionaries or {})
    return Labels.from_feature_circuits(file) if ".jsonl" in file.suffixes else Labels.load(file)


def _task(opened: Opened, model: Any) -> Task | None:
    """The prompts that a circuit was found on, where that can be told: of a run, or of a bundled task."""
    from sparse_circuits import load_task
    from sparse_circuits.task.bundled import BUNDLED

    if opened.origin is None and opened.task not in BUNDLED:
        return None
    n = None if opened.origin is None else opened.origin.examples
    return load_task(str(opened.task), model, n=n, seed=opened.seed)


def _tokens_in(folder: Path) -> int:
    """How many a store has; 0 where there is none."""
    from sparse_circuits.features import FeatureStore

    try:
        return sum(FeatureStore.load(folder).tokens.values())
    except SparseCircuitsError:
        return 0


def _so_far(folder: Path) -> str:
    """What an interrupted run leaves."""
    tokens = _tokens_in(folder)
    return (
        f"{folder} has {tokens:,} tokens, and the same command goes on from there" if tokens else "nothing is saved yet"
    )


def component_reports(model: Any, task: Task, names: Iterable[str]) -> dict[str, HeadReport | MLPReport]:
    """What heads and MLPs do on prompts, a few of which are shown whole for heads."""
    from sparse_circuits.features import head_report, mlp_report

    with output.working("looking at heads and MLPs"):
        return {
            name: head_report(model, task, name, prompts=4) if ".h" in name else mlp_report(model, task, name)
            for name in names
        }


def by_node(features: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All that is known of each node: of a head where it fires, and what it does on prompts."""
    return {name: {**features.get(name, {}), **components.get(name, {})} for name in {**features, **components}}


def _explorer(path: Path, pages: Mapping[str, Feature], reports: Mapping[str, Any]) -> Path | None:
    """Tell the run's page, if it is still there, what was found."""
    from sparse_circuits.view.explorer.known import add_meanings

    if not path.is_file():
        return None
    try:
        return add_meanings(
            path, by_node(*({name: of.to_dict() for name, of in part.items()} for part in (pages, reports)))
        )
    except FileFormatError as error:
        warnings.warn(f"{error} What nodes mean was not put into it.", stacklevel=2)
        return None


def write_pages(
    folder: Path, model: str, pages: Mapping[str, Feature], reports: Mapping[str, HeadReport | MLPReport]
) -> Path:
    """Write what a model's nodes mean beside the store that has it, or would."""
    from sparse_circuits.circuit.files import write_atomically

    content = {
        "format": "sparse-circuits feature pages",
        "version": 1,
        "model": model,
        "features": {name: page.to_dict() for name, page in pages.items()},
        "heads": {name: report.to_dict() for name, report in reports.items() if ".h" in name},
        "mlps": {name: report.to_dict() for name, report in reports.items() if ".h" not in name},
    }
    text = json.dumps(finite(content), ensure_ascii=False) + "\n"
    # beside the store, not in it: a store holds only what later runs extend
    folder = folder.resolve() if folder.name in ("", "..") else folder
    path = folder.parent / (PAGES if folder.name == STORE else f"{folder.name}.json")
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _report(
    pages: Mapping[str, Feature], reports: Mapping[str, Any], scores: Mapping[str, float | None], show: int
) -> None:
    rows = []
    for name in [name for name in scores if name in pages][:show]:
        page, score = pages[name], scores[name]
        promotes = reports[name].promoted if name in reports else page.promoted
        density = "never" if page.fired == 0 else f"{page.density:.2%}"
        rows.append(
            (
                name,
                "" if score is None else output.number(score),
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
