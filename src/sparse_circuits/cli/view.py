"""``sparse-circuits view``: pictures of a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.load import Opened, open_circuit
from sparse_circuits.cli.options import MAX_EDGES, MAX_NODES, RunOrCircuit, option
from sparse_circuits.cli.page import RunPage, meanings_in
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit

EXAMPLES = (
    "view runs/ioi --max-edges 50",
    "view runs/rc --max-nodes 40 --max-edges 100 --out pictures",
    "view runs/ioi --explore ioi.html --max-edges 1000",
    "view runs/eap --compare runs/eap-ig --explore both.html",
    "view ioi.safetensors --out pictures/ioi.pdf --title 'Who gets the ring'",
)
ENDINGS = (".svg", ".png", ".dot")


def view(
    circuit: RunOrCircuit,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "A file (.svg, .png, .pdf, .dot), or a folder for a .svg, a .png and a .dot.",
            "beside the circuit",
            metavar="PATH",
        ),
    ] = None,
    title: Annotated[
        str | None, option("--title", "Of the picture.", "task, model and a run's faithfulness", metavar="TEXT")
    ] = None,
    max_edges: Annotated[
        int | None,
        option(
            "--max-edges",
            "Draw only the strongest edges.",
            f"all; {MAX_EDGES} of a feature circuit, 5000 on a page",
            metavar="N",
            min=1,
        ),
    ] = None,
    max_size: Annotated[
        int | None, option("--max-size", "The same at any level: edges, nodes or units.", "all", metavar="N", min=1)
    ] = None,
    max_nodes: Annotated[
        int | None,
        option("--max-nodes", "Of a feature circuit, draw only the strongest nodes.", MAX_NODES, metavar="N", min=1),
    ] = None,
    explore: Annotated[
        Path | None,
        option("--explore", "Write instead a page to explore it in (.html).", metavar="FILE"),
    ] = None,
    compare: Annotated[
        Path | None,
        option("--compare", "On the page, a second circuit beside this one.", metavar="RUN_OR_CIRCUIT"),
    ] = None,
) -> None:
    """Draw a circuit.

    As a picture (.svg, .png, .pdf), and as text for Graphviz (.dot), which always has everything; or as one page to explore it
    in (.html), at other sizes too, with how good it is and what 'features' found of its nodes.
    """
    opened = open_circuit(circuit)
    if explore is not None:
        if out is not None or max_size is not None or max_nodes is not None:
            raise InputError(
                "--explore writes a page with a slider over the circuit's size; leave --out, --max-size and --max-nodes out."
            )
        if max_edges is not None and opened.circuit.graph.level not in ("edges", "features"):
            raise InputError(
                f"--max-edges {max_edges}: a circuit of {opened.circuit.graph.level} has no edges; leave it out."
            )
        _limits(opened.circuit, max_edges, None, None)
        other = None if compare is None else open_circuit(compare)
        if other is not None:
            _check_compared(opened, other)
        _explore(opened, other, explore, title, max_edges)
        return
    if compare is not None:
        raise InputError("--compare goes with --explore, which writes a page with both circuits.")
    limits = _limits(opened.circuit, max_edges, max_size, max_nodes)
    files = _files(opened, out)
    with output.working("drawing"):
        for file in files:
            _draw(opened, file, title, limits)
    output.pairs(("picture" if file.suffix != ".dot" else "Graphviz", str(file)) for file in files)


def _explore(opened: Opened, other: Opened | None, path: Path, title: str | None, max_edges: int | None) -> None:
    """The page, with what the command ``features`` wrote beside the circuits."""
    from sparse_circuits.view.explorer.page import checked
    from sparse_circuits.view.explorer.side import MOST_EDGES

    path = checked(path)
    both = [opened] if other is None else [opened, other]
    meanings = {name: one for each in reversed(both) for name, one in meanings_in(each.path.parent).items()}
    options: dict[str, Any] = {"title": title, "meanings": meanings, "max_edges": max_edges or MOST_EDGES}
    if other is not None:
        options["labels"] = _labels(opened, other)
    with output.working("writing the page"):
        shown = [RunPage.opened(one) for one in both]
        try:
            page = shown[0].page(*shown[1:], **options)
        except InputError as error:
            raise InputError(_said(str(error), opened, other)) from None
        page.save(path)
    output.pairs([("page", str(path))])


def _said(message: str, opened: Opened, other: Opened | None) -> str:
    """What :func:`explore` refuses, in this command's words."""
    if other is not None and message.startswith("explore(compare="):
        return f"--compare {other.path}{message[message.index(')') + 1 :]}"
    folders = " and ".join(str(one.path.parent) for one in (opened, other) if one is not None)
    return f"The scores and the records in {folders} are not of the same run. {message}"


def _labels(opened: Opened, other: Opened) -> tuple[str, str] | None:
    """What the two are called: by what sets them apart, or by their places."""
    from sparse_circuits.view.naming import differences

    if differences(opened.circuit.provenance, other.circuit.provenance):
        return None
    one, two = (str(each.path if each.origin is None else each.path.parent) for each in (opened, other))
    return None if one == two else (one, two)


def _check_compared(opened: Opened, other: Opened) -> None:
    """
    Raises:
        InputError: for circuits that have no parts in common.
    """
    one, two = opened.circuit.graph, other.circuit.graph
    if opened.of_features != other.of_features or (not opened.of_features and one != two):
        raise InputError(
            f"--compare {other.path}: that circuit is of another graph, {two}; expected one of {one}, as {opened.path} is."
        )


def _limits(
    circuit: Circuit | FeatureCircuit, max_edges: int | None, max_size: int | None, max_nodes: int | None
) -> dict[str, Any]:
    """How much to draw, as arguments of what draws it; checked before any file is written."""
    from sparse_circuits.circuit import FeatureCircuit

    if isinstance(circuit, FeatureCircuit):
        if max_size is not None:
            raise InputError(
                "--max-size is for circuits of components; of a feature circuit give --max-nodes or --max-edges."
            )
        if max_nodes is not None and max_nodes < circuit.size and circuit.node_values is None:
            raise InputError(
                f"--max-nodes {max_nodes}: this circuit has no scores, so none of its nodes are the strongest."
            )
        given = {"max_nodes": max_nodes, "max_edges": max_edges}
        return {name: n for name, n in given.items() if n is not None}
    level = circuit.graph.level
    if max_nodes is not None:
        raise InputError(f"--max-nodes is for feature circuits, and this is one of {level}; give --max-size.")
    if max_edges is not None and max_size is not None:
        raise InputError("Expected --max-edges or --max-size, got both.")
    if max_edges is not None and level != "edges":
        raise InputError(f"--max-edges counts edges, and this circuit is one of {level}; give --max-size.")
    limit = max_edges if max_size is None else max_size
    if limit is not None and limit < circuit.size and circuit.values is None:
        given = "--max-edges" if max_size is None else "--max-size"
        raise InputError(f"{given} {limit}: this circuit has no scores, so none of its {level} are the strongest.")
    return {} if limit is None else {"max_size": limit}


def _files(opened: Opened, out: Path | None) -> list[Path]:
    if out is not None and out.suffix and not out.is_dir():
        if out.suffix not in (*ENDINGS, ".pdf"):
            raise InputError(f"--out {out}: expected a folder, or a file that ends in .svg, .png, .pdf or .dot.")
        if not out.parent.is_dir():
            raise InputError(f"--out {out}: there is no folder {out.parent}.")
        return [out]
    folder = opened.path.parent if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"--out {folder} is a file; expected a folder, or a file that ends in .svg, .png, .pdf or .dot."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / f"{opened.path.stem}{ending}" for ending in ENDINGS]


def _draw(opened: Opened, file: Path, title: str | None, limits: dict[str, Any]) -> None:
    from sparse_circuits.circuit import FeatureCircuit
    from sparse_circuits.circuit.files import write_atomically
    from sparse_circuits.view.feature_picture import draw_feature_circuit
    from sparse_circuits.view.picture import draw_circuit

    circuit, title = opened.circuit, title or _title(opened)
    if file.suffix == ".dot":
        text = circuit.to_dot()
        write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    elif isinstance(circuit, FeatureCircuit):
        draw_feature_circuit(circuit, file, title=title, **limits)
    else:
        draw_circuit(circuit, file, title=title, **limits)


def _title(opened: Opened) -> str | None:
    """A run's title says how good its circuit is; the library's own title does for other circuits."""
    if opened.record is None:
        return None
    results = opened.record.results
    value, interval = results.get("faithfulness"), results.get("faithfulness_interval")
    if value is None or interval is None:
        return None
    random = results["random"]["median"]
    others = "random features" if opened.of_features else "random circuits"
    quality = f"faithfulness {output.with_interval(value, interval)}, {others} {random:z.2f}"
    return f"{opened.task}, {opened.model}: {quality}"
