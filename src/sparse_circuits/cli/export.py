"""``sparse-circuits export``: a circuit, or a run's scores, in other tools' files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparse_circuits.cli import output
from sparse_circuits.cli.feature_evaluate import attached
from sparse_circuits.cli.load import Opened, load_model_on, open_circuit
from sparse_circuits.cli.meanings import read_pages
from sparse_circuits.cli.options import Device, RunOrCircuit, SelectName, option
from sparse_circuits.cli.record import SCORES
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
    from sparse_circuits.circuit.formats.attribution_graph import AttributionGraph

FormatName = Literal["attribution-graph", "graphml", "networkx", "dot", "eap-ig", "mib"]
_ENDINGS: dict[FormatName, tuple[str, ...]] = {
    "graphml": (".graphml",),
    "networkx": (".json",),
    "dot": (".dot",),
    "eap-ig": (".pt", ".json"),
}
_GRAPH, _EAP_IG, _MIB = "Attribution graphs", "EAP-IG's files", "Submissions to MIB"

EXAMPLES = (
    "export runs/rc --to attribution-graph --out graphs",
    "export runs/rc --to attribution-graph --out rc.json --example 3 --scan gemma-2-2b",
    "export runs/ioi --to graphml --out ioi.graphml",
    "export runs/ioi --to eap-ig --out ioi.json --negate",
    "export runs/gpt2 --to mib --out submission --mib-model gpt2",
)


def export(
    circuit: RunOrCircuit,
    to: Annotated[
        FormatName,
        typer.Option("--to", help="What to write; networkx is its node-link JSON.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The file; of a submission to MIB its folder; of an attribution graph a .json file for Neuronpedia, or a "
            "folder that circuit-tracer's page serves.",
            show_default=False,
            metavar="PATH",
        ),
    ],
    example: Annotated[
        int | None,
        option("--example", "The prompt to draw it over: which of the task's.", 0, panel=_GRAPH, metavar="N", min=0),
    ] = None,
    model: Annotated[
        str | None, option("--model", "Another name of the model.", "the circuit's", panel=_GRAPH, metavar="MODEL")
    ] = None,
    task: Annotated[
        str | None, option("--task", "Other prompts.", "the circuit's", panel=_GRAPH, metavar="TASK")
    ] = None,
    dictionaries: Annotated[
        str | None,
        option("--dictionaries", "Of a circuit file, for activations.", "the run's", panel=_GRAPH, metavar="NAME"),
    ] = None,
    slug: Annotated[
        str | None,
        option("--slug", "Its name in files and addresses.", "task, model, example", panel=_GRAPH, metavar="NAME"),
    ] = None,
    scan: Annotated[
        str | None,
        option(
            "--scan",
            "Where its features are looked up, such as Neuronpedia's name of the model.",
            "the model",
            panel=_GRAPH,
            metavar="NAME",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        option("--state", "Pins, groups and notes that the explorer saved.", panel=_GRAPH, metavar="FILE"),
    ] = None,
    features: Annotated[
        Path | None,
        option(
            "--features", "Of a .json file, a folder for the pages of its features.", panel=_GRAPH, metavar="FOLDER"
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="All of the run's scores instead of its circuit.", rich_help_panel=_EAP_IG)
    ] = False,
    negate: Annotated[
        bool,
        typer.Option(
            "--negate", help="Turn signs around: EAP-IG's scripts have those of a loss.", rich_help_panel=_EAP_IG
        ),
    ] = False,
    mib_task: Annotated[
        str | None,
        option("--mib-task", "MIB's name of the task.", "the run's, where MIB has it", panel=_MIB, metavar="NAME"),
    ] = None,
    mib_model: Annotated[
        str | None,
        option("--mib-model", "MIB's name of the model.", "known for its own models", panel=_MIB, metavar="NAME"),
    ] = None,
    select: Annotated[
        SelectName | None,
        option("--select", "Write nine circuits so chosen, and not the scores.", panel=_MIB),
    ] = None,
    device: Device = None,
) -> None:
    """Write a circuit, or a run's scores, for another tool.

    An attribution graph has the pages of what 'features' found beside the circuit. docs/formats.md says what each format holds.
    """  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "attribution-graph": {"--example": example, "--model": model, "--task": task, "--dictionaries": dictionaries,
                              "--slug": slug, "--scan": scan, "--state": state, "--features": features,
                              "--device": device},
        "eap-ig": {"--scores": scores or None, "--negate": negate or None},
        "mib": {"--mib-task": mib_task, "--mib-model": mib_model, "--select": select},
    }  # fmt: skip
    for name, given in own.items():
        wrong = [flag for flag, value in given.items() if value is not None]
        if name != to and wrong:
            raise InputError(f"{wrong[0]} is for --to {name}, and this is {to}; leave it out.")
    _check_out(out, to)
    opened = open_circuit(circuit)
    if to == "attribution-graph":
        _check_drawing(opened, out, example or 0, task, slug, state, features)
        options = {"slug": slug, "scan": scan, "state": state}
        graph = _attribution_graph(opened, example or 0, model, task, dictionaries, device, options)
        written = graph.save(out, features=features)
    elif to == "mib":
        written = _mib(opened, out, mib_task, mib_model, select)
    else:
        written = _file(opened, out, to, scores, negate)
    output.pairs([(to, str(written))])


def _check_out(out: Path, to: FormatName) -> None:
    endings = _ENDINGS.get(to)
    if endings is not None and out.suffix.lower() not in endings:
        raise InputError(f"--out {out}: expected a file that ends in {' or '.join(endings)}.")
    if not (endings is not None or _alone(out, to)):
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file; expected a folder.")
    elif not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}.")
    elif out.is_dir():
        raise InputError(f"--out {out} is a folder; expected a file.")


def _alone(out: Path, to: FormatName) -> bool:
    """Whether an attribution graph is a file, and not a folder."""
    return to == "attribution-graph" and out.suffix.lower() == ".json"


def _check_drawing(
    opened: Opened, out: Path, example: int, task: str | None, slug: str | None, state: Path | None, pages: Path | None
) -> None:
    """Refuse, before the model is loaded, what an attribution graph cannot be made of."""
    from sparse_circuits.circuit.formats.attribution_graph.graph import check_slug
    from sparse_circuits.circuit.formats.attribution_graph.state import first_sight

    if slug is not None:
        check_slug(slug)
    first_sight(state, {})
    if pages is not None and not _alone(out, "attribution-graph"):
        raise InputError("--features is for a .json file; a folder has its pages under features/. Leave it out.")
    if pages is not None and read_pages(opened.path.parent) is None:
        raise InputError(
            f"--features: there are no pages beside {opened.path}; 'sparse-circuits features' writes them."
        )
    n = opened.origin.examples if opened.origin is not None and task is None else None
    if n is not None and example >= n:
        raise InputError(f"--example {example}: expected the number of one of the task's {n} examples, from 0.")


def _file(opened: Opened, out: Path, to: FormatName, scores: bool, negate: bool) -> Path:
    from sparse_circuits.circuit.files import write_atomically
    from sparse_circuits.circuit.formats.networks import write_node_link

    circuit = opened.circuit
    if to == "graphml":
        return circuit.to_graphml(out)
    if to == "networkx":
        return write_node_link(circuit, out)
    if to == "dot":
        text = circuit.to_dot()
        return write_atomically(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    _refuse_features(opened, to)
    return (_scores(opened) if scores else circuit).to_eap_ig(out, negate=negate)  # pyright: ignore[reportAttributeAccessIssue]


def _mib(opened: Opened, out: Path, task: str | None, model: str | None, select: SelectName | None) -> Path:
    from sparse_circuits.circuit.formats.mib import write_mib

    _refuse_features(opened, "mib")
    return write_mib(out, _scores(opened), task=task, model=model, select=select)  # pyright: ignore[reportArgumentType]


def _scores(opened: Opened) -> Scores | FeatureScores:
    from sparse_circuits.circuit import Scores

    path = opened.path.parent / SCORES
    if opened.record is None or not path.is_file():
        raise InputError(f"This needs the scores of a run, and there is no {SCORES} beside {opened.path}.")
    return Scores.load(path)


def _refuse_features(opened: Opened, to: str) -> None:
    if opened.of_features:
        raise InputError(f"--to {to} is for circuits of components, and {opened.path} is one of features.")


def _attribution_graph(
    opened: Opened,
    example: int,
    model: str | None,
    task: str | None,
    dictionaries: str | None,
    device: str | None,
    options: dict[str, Any],
) -> AttributionGraph:
    names = {"--model": model or opened.model, "--task": task or opened.task}
    for flag, value in names.items():
        if value is None:
            raise InputError(f"{opened.path} does not say which {flag.removeprefix('--')} it is of; give {flag}.")
    if dictionaries is not None and not opened.of_features:
        raise InputError("--dictionaries is for circuits of features, and this is one of components; leave it out.")
    pages = read_pages(opened.path.parent)

    import sparse_circuits as sc

    loaded = load_model_on(str(names["--model"]), device)
    origin = opened.origin if task is None else None
    prompts = sc.load_task(str(names["--task"]), loaded, n=origin.examples if origin else None, seed=opened.seed)
    circuit: Circuit | FeatureCircuit = opened.circuit
    if opened.of_features and (dictionaries is not None or opened.origin is not None):
        circuit = attached({"": opened}, loaded, dictionaries)[""].circuit
    with output.working("writing the graph"):
        found = None if pages is None else pages["features"]
        return sc.AttributionGraph.of(circuit, loaded, prompts, example=example, pages=found, **options)
