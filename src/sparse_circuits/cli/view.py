"""``sparse-circuits view``: pictures of a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sparse_circuits.cli import output
from sparse_circuits.cli.load import Opened, open_circuit
from sparse_circuits.cli.options import RunOrCircuit, option
from sparse_circuits.errors import InputError

EXAMPLES = ("view runs/ioi --max-edges 50", "view ioi.safetensors --out pictures/ioi.pdf --title 'Who gets the ring'")
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
        int | None, option("--max-edges", "Draw only the strongest edges.", "all", metavar="N", min=1)
    ] = None,
    max_size: Annotated[
        int | None, option("--max-size", "The same at any level: edges, nodes or units.", "all", metavar="N", min=1)
    ] = None,
) -> None:
    """Draw a circuit.

    As a picture (.svg, .png, .pdf), and as text for Graphviz (.dot), which always has everything.
    """
    opened = open_circuit(circuit)
    limit = _limit(opened, max_edges, max_size)
    files = _files(opened, out)
    with output.working("drawing"):
        for file in files:
            _draw(opened, file, title, limit)
    output.pairs(("picture" if file.suffix != ".dot" else "Graphviz", str(file)) for file in files)


def _limit(opened: Opened, max_edges: int | None, max_size: int | None) -> int | None:
    """How much to draw, checked before any file is written."""
    level = opened.circuit.graph.level
    if max_edges is not None and max_size is not None:
        raise InputError("Expected --max-edges or --max-size, got both.")
    if max_edges is not None and level != "edges":
        raise InputError(f"--max-edges counts edges, and this circuit is one of {level}; give --max-size.")
    limit = max_edges if max_size is None else max_size
    if limit is not None and limit < opened.circuit.size and opened.circuit.values is None:
        given = "--max-edges" if max_size is None else "--max-size"
        raise InputError(f"{given} {limit}: this circuit has no scores, so none of its {level} are the strongest.")
    return limit


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


def _draw(opened: Opened, file: Path, title: str | None, limit: int | None) -> None:
    from sparse_circuits.circuit.files import write_atomically
    from sparse_circuits.view.dot import to_dot
    from sparse_circuits.view.picture import draw_circuit

    if file.suffix == ".dot":
        text = to_dot(opened.circuit)
        write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    else:
        draw_circuit(opened.circuit, file, title=title or _title(opened), max_size=limit)


def _title(opened: Opened) -> str | None:
    """A run's title says how good its circuit is; the library's own title does for other circuits."""
    if opened.record is None:
        return None
    results = opened.record.results
    value, interval = results.get("faithfulness"), results.get("faithfulness_interval")
    if value is None or interval is None:
        return None
    random = results["random"]["median"]
    quality = f"faithfulness {output.with_interval(value, interval)}, random circuits {random:.2f}"
    return f"{opened.task}, {opened.model}: {quality}"
