"""``sparse-circuits shift``: a spurious correlation edited out of a classifier."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

from sparse_circuits.cli import output
from sparse_circuits.cli.options import option
from sparse_circuits.errors import InputError

EXAMPLES = ("shift", "shift --seeds 2 --out shift.json")
SEEDS, CANDIDATES = 3, 200


def shift(
    seeds: Annotated[
        int, option("--seeds", "How often, each time with other texts and probes.", SEEDS, metavar="N", min=1)
    ] = SEEDS,
    candidates: Annotated[
        int, option("--candidates", "Features of the largest effect to judge.", CANDIDATES, metavar="N", min=1)
    ] = CANDIDATES,
    out: Annotated[
        Path | None, option("--out", "File for the table, .json (with all settings) or .csv.", metavar="FILE")
    ] = None,
) -> None:
    """Show SHIFT on the bundled model: ablate the features by which a classifier goes wrong.

    A probe learns to tell singular from plural subjects on texts in which plurals come with women. The table has its
    accuracy on texts in which they do not: before, after ablating features that are about gender, and for comparison.
    Takes one to two minutes on two CPU cores.
    """
    if out is not None:
        check(out)
    with output.working("training probes, and looking for what they use"):
        from sparse_circuits.zoo.shift import Shift
        from sparse_circuits.zoo.shift_result import HEADINGS

        result = Shift(seeds=tuple(range(1, seeds + 1)), candidates=candidates).run()
    output.line(
        "Accuracy in % [95% interval] on texts in which number (intended) and gender (unintended) are independent."
    )
    output.table(*HEADINGS, rows=[row.cells() for row in result.rows], text=("",))
    if out is None:
        return
    temporary = out.with_name(f".{out.name}.new")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        if out.suffix == ".json":
            json.dump(result.to_dict(), file, indent=2)
            file.write("\n")
        else:
            csv.writer(file).writerows(result.records())
    temporary.replace(out)
    output.line(f"Written to {out}")


def check(out: Path) -> None:
    """
    Raises:
        InputError: before any long work, for a file that could not be written.
    """
    if out.suffix not in (".json", ".csv"):
        raise InputError(f"--out {out}: expected a name that ends in .json or .csv.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: expected a file in a folder that exists.")
