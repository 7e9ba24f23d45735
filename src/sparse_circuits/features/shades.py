"""The colours of tokens by a feature's value, the same wherever a context is shown."""

from __future__ import annotations

# Above 0 and, underlined, below: hues that no edge has, so that a token's colour is not read as an effect.
ABOVE, BELOW = "#6D3F9C", "#8A6D00"
_FAINTEST, _DARK = 0.02, 0.9


def depth(share: float) -> float:
    """How full the colour is, 0 to 1, for a value as a share (-1 to 1) of the largest; 0 for what is about 0."""
    size = min(1.0, abs(share))
    return 0.12 + 0.75 * size if size > _FAINTEST else 0.0


def hue(share: float) -> str:
    return BELOW if share < 0 else ABOVE


def dark(share: float) -> bool:
    """Whether text on that colour, on white, had better be white: on the fullest purple, while ochre is never so dark."""
    return share > _DARK


def style(share: float, peak: bool = False) -> str:
    """CSS of a token: its colour, underlined below 0, bold where the context is about it. Readable on light and on dark."""
    parts = ["font-weight:600"] if peak else []
    if depth(share):
        red, green, blue = (int(hue(share)[i : i + 2], 16) for i in (1, 3, 5))
        parts.append(f"background:rgba({red},{green},{blue},{depth(share):.2f})")
        if dark(share):
            parts.append("color:#FFFFFF")
        if share < 0:
            parts.append("text-decoration:underline")
    return ";".join(parts)
