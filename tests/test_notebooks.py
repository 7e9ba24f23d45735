"""The notebooks of examples/: saved with all outputs, none of them an error or from one machine only, and they still run and
show the same numbers."""

import copy
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (requirements/tools.txt)")
pytest.importorskip("nbclient", reason="nbclient is not installed (requirements/tools.txt)")

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SECONDS_PER_CELL = 180
LARGEST = 1_500_000  # bytes
# A number that is no part of a name such as a2.h4 or resid_3.f344.
NUMBER = re.compile(r"(?<![\w.@])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# Cells whose numbers depend on a training run in the notebook, which amplifies rounding: they differ from machine to machine.
TRAINED = "trained"
NEEDS_SAELENS = re.compile(r"\bsae_lens\b|\bload_dictionaries\(")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A home, a temporary or an installation folder, on Linux, macOS or Windows.
MACHINE_PATH = re.compile(r"/home/|/root/|/tmp/|/Users/|/usr/|/opt/|/work/|/var/|/private/|site-packages|[A-Z]:\\\\?\w")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> set[str]:
    """What kinds of output a cell has: "stdout", "image/png" and so on."""
    return {kind for output in cell.outputs for kind in (output.get("data") or {output.get("name"): None})}


def texts(cell: Any) -> list[str]:
    """A cell's outputs as far as they are text."""
    found = []
    for output in cell.outputs:
        kinds = (output.get("data") or {}).items()
        found += [output.get("text", ""), *(text for kind, text in kinds if kind.startswith("text/"))]
    return found


def numbers(cell: Any) -> list[str]:
    """The numbers that a cell shows as text, in the order of their size: near ties may change places."""
    found = []
    for output in cell.outputs:
        data = output.get("data") or {}
        text = output.get("text", "") if not data else data.get("text/plain", "")
        if set(data) <= {"text/plain"}:  # of pictures and pages the text is only what stands in for them
            found += NUMBER.findall(ADDRESS.sub("", text))
    return sorted(found, key=value)


def value(number: str) -> float:
    return float(number.replace(",", ""))


def close(before: str, after: str) -> bool:
    """The same but for what rounding may do elsewhere: two units of the last digit that is shown, and 3%."""
    old, new = value(before), value(after)
    if "e" in before or "e" in after:  # what is left of a difference that should be 0
        return max(abs(old), abs(new)) < 1e-3
    unit = 10.0 ** -len(before.partition(".")[2])
    return abs(new - old) <= 2 * unit + 0.03 * abs(old)


def headings(notebook: Any) -> set[str]:
    """Targets of links within a notebook."""
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return {line.lstrip("# ").replace(" ", "-") for line in texts.splitlines() if line.startswith("#")}


def run(notebook: Any) -> None:
    """Execute a notebook with the script that executes them for good."""
    spec = importlib.util.spec_from_file_location("examples_execute", EXAMPLES / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.execute(notebook, SECONDS_PER_CELL)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_saved_as_executed(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "execute it from top to bottom"
    kinds = set().union(*map(shown, cells))
    assert {"stdout", "image/png"} <= kinds
    assert "stderr" not in kinds, "warnings are not part of an example"
    assert not [cell.id for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_no_machine(path: Path) -> None:
    notebook = read(path)
    places = [str(Path.home()), os.getcwd(), tempfile.gettempdir()]
    for cell in notebook.cells:
        for text in [cell.source, *(texts(cell) if cell.cell_type == "code" else [])]:
            found = MACHINE_PATH.search(text)
            assert found is None, f"{found.group()} in cell {cell.id}"
            assert not [place for place in places if len(place) > 2 and place in text]
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_still_runs(path: Path) -> None:
    saved = read(path)
    if NEEDS_SAELENS.search("\n".join(cell.source for cell in code_cells(saved))):
        pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    again = copy.deepcopy(saved)
    run(again)
    for before, after in zip(code_cells(saved), code_cells(again), strict=True):
        assert shown(after) == shown(before), f"cell {before.id} shows something else now; execute the notebook again"
        if TRAINED in before.metadata.get("tags", ()):
            continue
        old, new = numbers(before), numbers(after)
        assert len(new) == len(old), f"cell {before.id} shows {len(new)} numbers and not {len(old)}; execute it again"
        off = [pair for pair in zip(old, new, strict=True) if not close(*pair)]
        assert not off, f"cell {before.id} shows other numbers now (before, after): {off}; execute the notebook again"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    notebook = read(path)
    links = {link for cell in notebook.cells if cell.cell_type == "markdown" for link in LINK.findall(cell.source)}
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= headings(notebook)
    outside = {link.partition("#")[0] for link in links if not link.startswith(("#", "http"))}
    assert not [link for link in outside if not (path.parent / link).is_file()]


def test_the_index_names_every_notebook() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = {link for link in LINK.findall(index) if link.endswith(".ipynb")}
    assert named == {path.name for path in NOTEBOOKS}


def test_numbers_are_compared_up_to_rounding() -> None:
    def cell(text: str) -> Any:
        return nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("stream", text=text)])

    assert numbers(cell("a2.h4->logits -3.89, resid_3.f7@2 1,519 of 0.5% at <X at 0x7f3>")) == ["-3.89", "0.5", "1,519"]
    assert close("-3.89", "-3.91")
    assert close("2e-07", "9e-06")
    assert close("45", "47")
    assert not close("0.98", "0.92")
    assert not close("-3.89", "3.89")
    assert not close("2e-07", "0.1")


def test_a_failing_cell_fails() -> None:
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys\nprint(sys.executable)\n1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(notebook)
    import sys

    assert texts(notebook.cells[0])[0].strip() == sys.executable, "the kernel is another Python"
