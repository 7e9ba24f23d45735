"""Figures without global state, saved in one step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import InputError

ENDINGS = (".svg", ".png", ".pdf")
_LARGEST = 12_000  # pixels on the longer side of a PNG where nobody says how many
_WRITABLE = 2**16
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and restyled
    "svg.hashsalt": "sparse-circuits",  # the same picture gives the same file
    "pdf.fonttype": 42,
}


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's defaults instead of the style that the user has set: what is drawn goes together in its own colours."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


class Picture(Figure):
    """A matplotlib figure that notebooks show, whether or not pyplot was ever imported."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As a figure's, in the library's own style, without a warning for each character that matplotlib's font lacks."""
        with warnings.catch_warnings(), own_style():
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


def check_path(path: str | Path | None, dpi: float | None = None) -> Path | None:
    """The path to save to; checked before anything is drawn.

    Raises:
        InputError: for an ending that is not one of ``ENDINGS``, or a ``dpi`` that is no number above 0.
    """
    number = isinstance(dpi, int | float) and not isinstance(dpi, bool)
    if dpi is not None and not (number and 0 < dpi < math.inf):
        raise InputError(f"dpi={dpi!r}: expected pixels per inch, such as 300, or None for 150.")
    if path is None:
        return None
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"Cannot save a picture as {path.name!r}: expected a name that ends in {', '.join(ENDINGS)}.")
    return path


def save(figure: Picture, path: Path | None, dpi: float | None = None) -> Picture:
    """Save by the path's ending; a reader sees the old file or the new one, never half of it.

    Args:
        dpi: pixels per inch of a PNG; by default 150, or fewer for figures so large that no viewer would open them.

    Raises:
        InputError: for a PNG of more pixels than the format's writer takes, or of none.
    """
    if path is None:
        return figure
    ending, longer = path.suffix.lower()[1:], max(figure.get_size_inches())
    if dpi is not None and ending == "png" and not 10 <= dpi * longer < _WRITABLE:
        raise InputError(
            f"dpi={dpi!r}: this picture is {longer:.0f} inches long, which makes {dpi * longer:,.0f} pixels; expected from 10 to "
            f"{_WRITABLE:,}. An .svg can be enlarged at will."
        )
    write_atomically(path, lambda to: _write(figure, to, ending, dpi))
    return figure


def svg_of(figure: Picture) -> str:
    """The picture as the text of a ``.svg`` file."""
    buffer = BytesIO()
    _write(figure, buffer, "svg")
    return buffer.getvalue().decode("utf-8")


def _write(figure: Picture, to: Path | BytesIO, ending: str, dpi: float | None = None) -> None:
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    figure.savefig(to, format=ending, dpi=dpi or figure.fitting_dpi, metadata=undated)
