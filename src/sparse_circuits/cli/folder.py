"""A folder written in one step: it appears whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_circuits.cli.record import RECORD
from sparse_circuits.errors import InputError


def check_out(out: Path, force: bool, record: str = RECORD) -> None:
    """Refuse, before any long work, a folder that could not be written at its end.

    Args:
        record: the file by which a folder that an earlier run wrote is known.

    Raises:
        InputError: if something else is there, or the place cannot be written to. With ``force`` a folder is replaced,
            but only one that an earlier run wrote: a slip such as ``--out ~ --force`` must not cost a home directory.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; expected a folder.")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise InputError(
                f"--out {out} exists and is not empty; choose another folder, or add --force to replace it."
            )
        if not (out / record).is_file():
            raise InputError(f"--out {out} holds no {record}, so no run wrote it, and --force does not replace it.")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write {out}: {parent} is not a folder that can be written to.")


@contextmanager
def new_folder(out: Path, force: bool, record: str = RECORD) -> Iterator[Path]:
    """A temporary folder beside ``out``, which takes its place if all goes well and is removed otherwise."""
    check_out(out, force, record)
    out = out.resolve()
    made = [folder for folder in out.parents if not folder.exists()]
    temporary, old = (out.with_name(f".{out.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:  # innermost first
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
