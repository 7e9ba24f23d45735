"""Progress bars for long work: on standard error, and only where asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def tracker(items: Iterable[T], total: int, description: str, show: bool) -> Iterator[T]:
    """The items, with a bar while they are worked through."""
    from rich.console import Console

    console = Console(stderr=True)
    if not show or not console.is_terminal:
        yield from items
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=description)
