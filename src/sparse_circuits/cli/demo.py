"""``sparse-circuits demo``: a first circuit, from nothing but what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sparse_circuits.cli import output
from sparse_circuits.cli.folder import check_out
from sparse_circuits.cli.options import Device, option
from sparse_circuits.cli.record import Arguments
from sparse_circuits.cli.search import search
from sparse_circuits.cli.summary import report, write

EXAMPLES = ("demo", "demo --out ioi-demo")


def demo(
    out: Annotated[
        Path, option("--out", "Folder to write; replaced if an earlier run wrote it.", "runs/demo", metavar="FOLDER")
    ] = Path("runs/demo"),
    device: Device = None,
) -> None:
    """Find and draw the indirect-object circuit of the bundled model.

    Takes less than a minute and a half on two CPU cores.
    """
    check_out(out, force=True)
    output.line('"Then, Amy and Erica went to the park. Erica gave a ring to ...": to whom?')
    output.line("Looking for the parts of the bundled model that carry the answer.")
    output.line()
    found = search(Arguments(model="toy", task="ioi", size=60), device)
    write(found, out, force=True)
    report(found, out)
    output.line()
    output.line(f"Open the picture, then go on: sparse-circuits evaluate {out} --curve")
