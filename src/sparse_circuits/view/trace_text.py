"""Cards set in type: pieces of text with their places, measured with the font, so that none leaves its box."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from matplotlib.font_manager import FontProperties, findfont, get_font

from sparse_circuits.view.contents import Shades, brief
from sparse_circuits.view.marks import FAINT, INK
from sparse_circuits.view.trace_card import Card, Strip, Token
from sparse_circuits.view.trace_look import LOWERS, RAISES

Style = Literal["normal", "italic"]
Anchor = Literal["left", "center", "right"]
WIDEST = 3.1  # of a box, in inches
_NARROWEST = 0.85
_MARGIN = 0.07
_NAME, _SMALL, _TOKEN, _FAINT = 7.5, 6.6, 6.8, 6.0  # sizes of text, in points
_HEADER, _LINE = 0.21, 0.158  # heights of lines, in inches
_PAD = 0.012  # of a token's background, on each side
_ROUNDING = 1.05  # glyphs are set on pixels, which makes a line longer by up to so much
_NOT_ABLATED = "not ablated"


@dataclass(frozen=True)
class Piece:
    """Some words in a box.

    Attributes:
        x, y: of its left end and its middle, from the box's upper left corner, y downwards.
        width: as measured. anchor: which part of it is sure to be in its place, whatever the size of a pixel.
        fill: the colour behind it, or None. marked: whether it is underlined.
    """

    text: str
    x: float
    y: float
    width: float
    size: float
    colour: str = INK
    weight: str = "normal"
    style: Style = "normal"
    anchor: Anchor = "left"
    fill: str | None = None
    marked: bool = False


@dataclass(frozen=True)
class Sheet:
    """A card set in type: inches. ``header`` is the height of its first line, which has a colour of its own."""

    width: float
    height: float
    header: float
    pieces: tuple[Piece, ...]


def set_card(card: Card, shades: Shades) -> Sheet:
    """As wide as its lines need, up to :data:`WIDEST`; what does not fit even then is shortened."""
    width = min(WIDEST, max(_NARROWEST, 2 * _MARGIN + max(_needed(card))))
    inner = width - 2 * _MARGIN
    pieces = _header(card, shades, inner)
    y = _HEADER
    if card.label:
        text = shortened(card.label, inner, _SMALL, style="italic")
        pieces.append(_piece(text, 0, y + _LINE / 2, _SMALL, style="italic"))
        y += _LINE
    if card.contexts:
        y += 0.02
    for strip in card.contexts:
        pieces += _strip(strip, y + _LINE / 2, inner)
        y += _LINE + 0.012
    for verb, tokens in card.moves:
        pieces += _move(verb, tokens, y + _LINE / 2, inner)
        y += _LINE
    return Sheet(width, y + (0.05 if y > _HEADER else 0), _HEADER, tuple(_shifted(pieces)))


def width_of(text: str, size: float, weight: str = "normal", style: Style = "normal") -> float:
    """In inches, spaces at the ends included."""
    font = findfont(FontProperties(weight=weight, style=style))
    return _ROUNDING * size / 72 * sum(_advance(c, font) for c in text)


def shortened(text: str, width: float, size: float, weight: str = "normal", style: Style = "normal") -> str:
    """As much of a text as fits, with an ellipsis where that is not all of it."""
    if width_of(text, size, weight, style) <= width:
        return text
    room = width - width_of("…", size, weight, style)
    for n in range(len(text) - 1, 0, -1):
        if width_of(text[:n], size, weight, style) <= room:
            return text[:n].rstrip() + "…"
    return "…"


@lru_cache(maxsize=4096)
def _advance(character: str, path: str) -> float:
    """How far a character moves the pen, relative to the size of the text."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0.0
    font = get_font(path)
    if not font.get_char_index(ord(character)):  # a viewer finds it in some other font
        return 1.4 if unicodedata.category(character) == "So" else 1.0  # emoji are wider than all letters
    font.set_size(100, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


def _needed(card: Card) -> list[float]:
    """The widths that its lines would like to have."""
    effect = width_of(_effect(card), _NAME)
    lines = [width_of(card.name, _NAME, "bold") + 0.12 + effect, width_of(card.label, _SMALL, style="italic")]
    lines += [sum(_widths(strip)) for strip in card.contexts]
    lines += [_line_of(verb, tokens[:3])[1] for verb, tokens in card.moves]
    return lines


def _effect(card: Card) -> str:
    return _NOT_ABLATED if card.effect is None else brief(card.effect, 2)


def _header(card: Card, shades: Shades, inner: float) -> list[Piece]:
    ink = "white" if shades.dark(card.effect) else INK
    effect, known = _effect(card), card.effect is not None
    size: float = _NAME if known else _FAINT
    style: Style = "normal" if known else "italic"
    width = width_of(effect, size, style=style)
    name = shortened(card.name, inner - width - 0.1, _NAME, "bold")
    return [
        _piece(name, 0, _HEADER / 2, _NAME, ink, "bold"),
        _piece(effect, inner - width, _HEADER / 2, size, ink if known else FAINT, style=style, anchor="right"),
    ]


def _strip(strip: Strip, y: float, inner: float) -> list[Piece]:
    """A context: its own token, and as many around it as there is room for, of those before it twice as many."""
    widths, last = _widths(strip), len(strip.tokens) - 1
    lo = hi = strip.peak
    growing = True
    while growing:
        growing = False
        for step in (-1, -1, 1):
            wider = (max(0, lo - 1), hi) if step < 0 else (lo, min(last, hi + 1))
            if wider != (lo, hi) and sum(widths[wider[0] : wider[1] + 1]) <= inner:
                (lo, hi), growing = wider, True
    tokens = strip.tokens[lo : hi + 1]
    if widths[strip.peak] > inner:  # on its own it may be wider than the box
        (token,) = tokens
        tokens = (replace(token, text=shortened(token.text, inner - 2 * _PAD, _TOKEN, "bold")),)
    pieces, x = [], 0.0
    for token, width in zip(tokens, widths[lo : hi + 1], strict=True):
        pieces += _token(token, x, y)
        x += width
    return pieces


def _token(token: Token, x: float, y: float) -> list[Piece]:
    """Its text without the spaces at its ends, on a background that has them."""
    weight = "bold" if token.peak else "normal"
    bare = token.text.strip()
    before = width_of(token.text[: len(token.text) - len(token.text.lstrip())], _TOKEN, weight)
    ink = "white" if token.dark else INK
    said = [_piece(bare, x + _PAD + before, y, _TOKEN, ink, weight, anchor="center")] if bare else []
    if token.fill is None:
        return said
    return [Piece("", x, y, _width(token), _TOKEN, ink, fill=token.fill, marked=token.share < 0), *said]


def _width(token: Token) -> float:
    return width_of(token.text, _TOKEN, "bold" if token.peak else "normal") + 2 * _PAD


def _widths(strip: Strip) -> list[float]:
    """Of its tokens, with the gap after each."""
    gap = width_of(strip.gap, _TOKEN)
    return [_width(token) + gap for token in strip.tokens]


def _move(verb: str, tokens: Sequence[tuple[str, float | None]], y: float, inner: float) -> list[Piece]:
    """As many of a list of tokens as there is room for; at least the first, shortened."""
    n = len(tokens)
    while n > 1 and _line_of(verb, tokens[:n])[1] > inner:
        n -= 1
    pieces, width = _line_of(verb, tokens[:n])
    if width > inner:
        token, change = tokens[0]
        room = inner - (width - width_of(token, _TOKEN))
        pieces, _ = _line_of(verb, [(shortened(token, room, _TOKEN), change)])
    return [replace(piece, y=y) for piece in pieces]


def _line_of(verb: str, tokens: Sequence[tuple[str, float | None]]) -> tuple[list[Piece], float]:
    """The pieces of such a line at a height of 0, and its width."""
    x = max(width_of(name, _FAINT) for name in ("raises", "lowers", verb)) + 0.06
    pieces = [_piece(verb, 0, 0, _FAINT, FAINT)]
    for i, (token, change) in enumerate(tokens):
        x += 0.09 if i else 0
        pieces.append(_piece(token, x, 0, _TOKEN, anchor="center"))
        x += pieces[-1].width
        if change is not None:
            colour = LOWERS if change < 0 else RAISES
            sign = "+" if change > 0 else ""
            pieces.append(_piece(f"{sign}{brief(change, 2)}", x + 0.035, 0, _FAINT, colour, anchor="center"))
            x += 0.035 + pieces[-1].width
    return pieces, x


def _piece(
    text: str,
    x: float,
    y: float,
    size: float,
    colour: str = INK,
    weight: str = "normal",
    style: Style = "normal",
    anchor: Anchor = "left",
) -> Piece:
    return Piece(text, x, y, width_of(text, size, weight, style), size, colour, weight, style, anchor)


def _shifted(pieces: Sequence[Piece]) -> list[Piece]:
    """Away from the box's left border."""
    return [replace(piece, x=piece.x + _MARGIN) for piece in pieces]
