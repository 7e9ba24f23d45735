"""Heatmaps with named rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from sparse_circuits.view.plots.parts import CHARACTER, LONGEST_BELOW, Axis, Cells, Panel, shown
from sparse_circuits.view.strokes import largest

_CELL = (0.34, 0.27)  # inches, where there is room
_SMALLEST = 5.4


def heatmap(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    say: Callable[[int, int], str],
    *,
    label: str,
    signed: bool = True,
    x: str = "",
    y: str = "",
    title: str = "",
    full: float | None = None,
    widest: float = 10.0,
    cell: tuple[float, float] = _CELL,
) -> Panel:
    """A panel of cells; those that are not finite are grey.

    Args:
        values: ``[rows, columns]``.
        say: the name of a cell by row and column, shown above its value under the pointer.
        label: of the colour bar. x, y: of the axes.
        full: the size of value at which the colour is full; by default the largest.
        widest: of the panel, in inches. cell: width and height of one, where there is room.
    """
    n_rows, n_columns = values.shape
    names = CHARACTER * max((len(shown(row)) for row in rows), default=0)
    across = min(cell[0], max(0.02, (widest - names - 1.6) / max(1, n_columns)))
    below = 0.68 * CHARACTER * max((len(shown(column, LONGEST_BELOW)) for column in columns), default=0)
    height = min(cell[1], 14.0 / max(1, n_rows)) * max(3, n_rows)
    texts = tuple(tuple(f"{say(i, j)}\n{v:.4g}" for j, v in enumerate(row)) for i, row in enumerate(values.tolist()))
    cells = Cells(
        tuple(map(tuple, values.double().tolist())),
        texts,
        label,
        signed,
        (largest(values) if full is None else full) or 1.0,
    )
    size = (max(_SMALLEST, names + 1.9 + across * n_columns), max(2.6, height + 1.0 + below))
    return Panel(Axis(x, tuple(columns)), Axis(y, tuple(rows)), (cells,), (), title, size)
