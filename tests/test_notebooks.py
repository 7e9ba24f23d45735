"""The notebooks of examples/: saved with all outputs, none of them an error or from one machine only, and they still run."""

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
    pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    saved = read(path)
    again = copy.deepcopy(saved)
    run(again)
    for before, after in zip(code_cells(saved), code_cells(again), strict=True):
        assert shown(after) == shown(before), f"cell {before.id} shows something else now; execute the notebook again"


def test_a_failing_cell_fails() -> None:
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys\nprint(sys.executable)\n1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(notebook)
    import sys

    assert texts(notebook.cells[0])[0].strip() == sys.executable, "the kernel is another Python"
