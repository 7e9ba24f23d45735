"""Markup that cannot be broken by what it holds: text is escaped where it enters, never by whoever remembers to."""

from __future__ import annotations

import html
import math
from collections.abc import Container, Iterable, Sequence


class Html(str):
    """Markup, as against text that is yet to be escaped."""

    __slots__ = ()


Piece = str | None
"""Text, markup (:class:`Html`), or nothing."""


def join(*pieces: Piece, by: str = "") -> Html:
    """Pieces one after the other; text is escaped, None left out."""
    return Html(by.join(p if isinstance(p, Html) else html.escape(p) for p in pieces if p is not None))


def tag(name: str, *inside: Piece, **attributes: str | int | None) -> Html:
    """An element. ``class_`` and ``for_`` stand for attributes that Python has no names for, ``_`` for a hyphen."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    return Html(f"<{' '.join(words)}>{join(*inside)}</{name}>")


def listed(items: Iterable[Piece], ordered: bool = False, **attributes: str | None) -> Html:
    return tag("ol" if ordered else "ul", *(tag("li", item) for item in items), **attributes)


def pairs(rows: Iterable[tuple[str, Piece]]) -> Html:
    """Names with what they stand for; rows without are left out."""
    cells = ((tag("dt", name), tag("dd", value)) for name, value in rows if value is not None)
    return tag("dl", *(cell for row in cells for cell in row))


def table(
    caption: str, columns: Sequence[Piece], rows: Iterable[Sequence[Piece]], *, text: Container[int] = (0,)
) -> Html:
    """A table with headings for columns and, first in every row, for rows. Numbers are set to the right, but for ``text``."""

    def cells(row: Sequence[Piece]) -> Iterable[Html]:
        for i, cell in enumerate(row):
            class_ = None if i in text else "number"
            yield tag("th", cell, scope="row", class_=class_) if i == 0 else tag("td", cell, class_=class_)

    head = tag(
        "tr", *(tag("th", c, scope="col", class_=None if i in text else "number") for i, c in enumerate(columns))
    )
    body = tag("tbody", *(tag("tr", *cells(row)) for row in rows))
    whole = tag("table", tag("caption", caption), tag("thead", head), body)
    # a table that is too wide scrolls by itself, and so must be reached by keyboard
    return tag("div", whole, class_="table", tabindex=0, role="region", aria_label=caption)


def more(summary: Piece, *inside: Piece, opened: bool = False) -> Html:
    """What is only shown when asked for, and printed in any case."""
    made = tag("details", tag("summary", summary), *inside)
    return Html(made.replace("<details>", "<details open>", 1)) if opened else made


def anchor(name: str) -> str:
    """A node's name as an id: letters, digits, dots and hyphens, different for different names."""
    return "node-" + "".join(c if (c.isalnum() and c.isascii()) or c in ".-" else f"_{ord(c):x}_" for c in name)


def link(to: str, *inside: Piece) -> Html:
    """A link; as plain text where it leads neither to a place in the page nor to a web page."""
    if not to.startswith(("#", "https://", "http://")):
        return join(*inside)
    return tag("a", *inside, href=to, rel=None if to.startswith("#") else "noopener noreferrer")


# --- numbers ---


def number(value: float | None) -> str:
    """Three significant digits; nothing of what is no number."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:#.3g}".rstrip(".") if 0 < abs(value) < 999.5 else f"{value:,.0f}"


def share(value: float) -> str:
    """A share of 1 in percent."""
    if not math.isfinite(value):
        return ""
    return f"{value:.1%}" if abs(value) < 0.0995 else f"{value:.0%}"


def bounded(value: float, bounds: tuple[float, float], digits: int = 2) -> str:
    """A value with its 95% interval."""
    if value != value:
        return "undefined"
    return f"{value:z.{digits}f} [{bounds[0]:z.{digits}f}, {bounds[1]:z.{digits}f}]"


def counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
