"""Colours of plots: the hues of the whole library, and the two scales of heatmaps."""

from __future__ import annotations

from sparse_circuits.view.contents import tint
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

INK = "#1B1F24"
FAINT = "#5A6068"
GRID = "#E4E7EB"
MUTED = "#A9AFB7"  # cells without a number, parts that do not hold
UNSIGNED = "#4B3A7A"
# of the same palette as the colours of signs (Okabe and Ito 2008)
BESIDE = ("#009E73", "#CC79A7", "#E69F00")

_STEPS = 20


def _towards(hue: str) -> list[str]:
    """From white to a hue, small values lifted so that they can be told from none."""
    return [tint(hue, (i / _STEPS) ** 0.7) for i in range(_STEPS + 1)]


def scale(signed: bool) -> list[tuple[float, str]]:
    """Stops of a colour scale from 0 to 1: blue over white to orange, or white to violet."""
    colours = [*reversed(_towards(CARRIES)), *_towards(OPPOSES)[1:]] if signed else _towards(UNSIGNED)
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def sign_colour(value: float, signed: bool = True) -> str:
    """Blue for what carries the behaviour (below 0), orange for what works against it."""
    if not signed or value != value or value == 0:
        return NEUTRAL
    return CARRIES if value < 0 else OPPOSES
