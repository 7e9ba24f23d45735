"""Run the notebooks here and save them with their outputs: `python examples/execute.py [NOTEBOOK ...]` (default: all)."""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(notebook: Any, timeout: int) -> None:
    """Run a notebook's cells in a fresh kernel of this Python, in an empty folder; its outputs are replaced.

    Raises:
        nbclient.exceptions.CellExecutionError: for the first cell that fails.
        nbclient.exceptions.CellTimeoutError: for a cell that takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        # The reader's own IPython settings stay out of it, and so does the debugger's warning.
        client.execute(env={**os.environ, "IPYTHONDIR": folder, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    notebook.metadata.language_info = {"name": "python"}  # not the version, which would change with every machine


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all beside this script")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one cell (default: %(default)s)")
    arguments = parser.parse_args()
    for path in arguments.notebooks or sorted(HERE.glob("*.ipynb")):
        notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
        execute(notebook, arguments.timeout)
        scratch = path.with_suffix(".new")
        nbformat.write(notebook, scratch)
        os.replace(scratch, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
