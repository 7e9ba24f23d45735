"""Figures without global state, saved in one step."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import InputError

ENDINGS = (".svg", ".png", ".pdf")
_LARGEST = 12_000  # pixels on the longer side of a PNG
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and restyled
    "svg.hashsalt": "sparse-circuits",  # the same picture gives the same file
    "pdf.fonttype": 42,
}


class Picture(Figure):
    """A matplotlib figure that notebooks show, whether or not pyplot was ever imported."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As a figure's, without a warning for each character of a token that matplotlib's font lacks."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=self.fitting_dpi)
        return buffer.getvalue()

    @property
    def fitting_dpi(self) -> float:
        """150, less for figures so large that no viewer would open them."""
        return min(150.0, _LARGEST / max(self.get_size_inches()))


def check_path(path: str | Path | None) -> Path | None:
    """The path to save to; checked before anything is drawn.

    Raises:
        InputError: for an ending that is not one of ``ENDINGS``.
    """
    if path is None:
        return None
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"Cannot save a picture as {path.name!r}: expected a name that ends in {', '.join(ENDINGS)}.")
    return path


def save(figure: Picture, path: Path | None) -> Picture:
    """Save by the path's ending; a reader sees the old file or the new one, never half of it."""
    if path is not None:
        write_atomically(path, lambda to: _write(figure, to, path.suffix.lower()[1:]))
    return figure


def svg_of(figure: Picture) -> str:
    """The picture as the text of a ``.svg`` file."""
    buffer = BytesIO()
    _write(figure, buffer, "svg")
    return buffer.getvalue().decode("utf-8")


def _write(figure: Picture, to: Path | BytesIO, ending: str) -> None:
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    with matplotlib.rc_context(_STYLE):
        figure.savefig(to, format=ending, dpi=figure.fitting_dpi, metadata=undated)
