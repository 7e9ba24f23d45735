"""A plot: one description of data, drawn as a picture and as a page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import InputError
from sparse_circuits.view.plots.parts import Panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from sparse_circuits.view.figures import Picture

_PICTURES = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Plot:
    """What every ``.plot()`` returns; a notebook shows it, to be pointed at and zoomed, or else as a picture.

    Both drawings show the same numbers, those in ``panels``: :meth:`picture` by matplotlib, which needs no browser, and
    :meth:`figure` by plotly.

    Attributes:
        title: above it all. note: a line below the title.
        panels: what is drawn, row by row.
        columns: panels in a row.
    """

    title: str
    panels: tuple[Panel, ...]
    note: str = ""
    columns: int = 1

    def picture(self) -> Picture:
        """The matplotlib figure."""
        from sparse_circuits.view.plots.static import draw

        return draw(self)

    def figure(self) -> go.Figure:
        """The plotly figure, to be changed at will."""
        from sparse_circuits.view.plots.interactive import figure_of

        return figure_of(self)

    def save(self, path: str | Path, *, dpi: float | None = None) -> Path:
        """Save by the path's ending, atomically: ``.svg`` (text stays text), ``.png`` or ``.pdf``, or ``.html``, a page of its
        own of about 5 MB that needs no network.

        Args:
            dpi: pixels per inch of a ``.png``, by default 150; fewer make it smaller. The other forms are drawn at any size.

        Raises:
            InputError: for another ending, a folder that does not exist, or a ``dpi`` that gives no picture.
        """
        path = check_plot_path(path)
        if path.suffix.lower() == ".html":
            from sparse_circuits.view.plots.interactive import page_of

            return write_atomically(path, lambda to: to.write_text(page_of(self), encoding="utf-8"))
        from sparse_circuits.view.figures import check_path, save

        check_path(path, dpi)
        save(self.picture(), path, dpi)
        return path

    def to_html(self, *, script: bool = False) -> str:
        """A piece of a page, interactive once the page holds :func:`sparse_circuits.view.plots.plot_script`, which it needs
        once however many plots it has.

        Args:
            script: put the script in too.
        """
        from sparse_circuits.view.plots.interactive import fragment_of, plot_script

        return fragment_of(self) + (plot_script() if script else "")

    @cached_property
    def _png(self) -> bytes:
        return self.picture()._repr_png_()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Plotly's own type for front ends that know it, and a PNG for those that do not, or run no scripts."""
        from sparse_circuits.view.plots.interactive import short_spec_of

        return {
            "application/vnd.plotly.v1+json": short_spec_of(self),
            "image/png": base64.b64encode(self._png).decode(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        panels = f", {len(self.panels)} panels" if len(self.panels) != 1 else ""
        return f"Plot({self.title!r}{panels})"


def check_plot_path(path: str | Path) -> Path:
    """
    Raises:
        InputError: for an ending that is not known.
    """
    path = Path(path)
    if path.suffix.lower() not in (*_PICTURES, ".html"):
        endings = ", ".join((*_PICTURES, ".html"))
        raise InputError(f"Cannot save a plot as {path.name!r}: expected a name that ends in {endings}.")
    return path


def finished(plot: Plot, path: str | Path | None) -> Plot:
    """The plot, saved where a path is given."""
    if path is not None:
        plot.save(path)
    return plot
