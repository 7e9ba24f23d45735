"""Pictures inside a page."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from sparse_circuits.view.figures import svg_of
from sparse_circuits.view.report.markup import Html, tag

if TYPE_CHECKING:
    from sparse_circuits.view.figures import Picture
    from sparse_circuits.view.plots import Plot

_ID = re.compile(r'(\bid="|url\(#|href="#)')
_SIZE = re.compile(r'\A<svg\b[^>]*?\bwidth="([\d.]+)pt"', re.DOTALL)


def picture(figure: Picture, key: str, about: str, caption: str | None = None) -> Html:
    """A picture as SVG in the page itself, with words for those who cannot see it.

    Args:
        key: what its ids begin with, so that no two pictures of a page share one.
        about: what it shows, for a reader of the page by ear.
    """
    text = svg_of(figure)
    text = text[text.index("<svg") :]  # neither the XML declaration nor the type of document has a place in a page
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, count=1, flags=re.DOTALL)
    text = _ID.sub(lambda found: f"{found[0]}{key}-", text)
    width = _SIZE.search(text)
    style = f' style="width:min(100%,{float(width[1]) * 4 / 3:.0f}px);height:auto"' if width else ""
    text = text.replace("<svg", f'<svg role="img" aria-label="{html.escape(about)}"{style}', 1)
    inside = tag("div", Html(text.strip()), class_="paper", tabindex=0, role="group", aria_label=about)
    return tag("figure", inside, tag("figcaption", caption) if caption else None)


def plotted(plot: Plot, key: str, about: str, interactive: bool, caption: str | None = None) -> Html:
    """A plot: as a picture, or for plotly, whose script the page must then have."""
    if not interactive:
        return picture(plot.picture(), key, about, caption)
    inside = tag("div", Html(plot.to_html()), class_="paper")
    return tag("figure", inside, tag("figcaption", caption) if caption else None)
