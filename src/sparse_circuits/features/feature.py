"""A feature as it is read: where it fires, how often, what it promotes, what people call it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from sparse_circuits.features.shades import style

_BANDS = ((0.8, 1.0), (0.6, 0.8), (0.4, 0.6), (0.2, 0.4), (0.0, 0.2))


@dataclass(frozen=True)
class Context:
    """Some tokens of a text around one on which a feature fires.

    Attributes:
        tokens: as text. values: the feature's at each of them.
        peak: which of them it is about. value: the feature's value there.
        text, row, position: where it stands: the text's name, the row in it, the token's position in the row.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    peak: int
    value: float
    text: str = ""
    row: int = 0
    position: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "values": [round(value, 5) for value in self.values],
            "peak": self.peak,
            "value": round(self.value, 5),
            "text": self.text,
            "row": self.row,
            "position": self.position,
        }

    def to_html(self, scale: float | None = None) -> str:
        """The tokens, shaded by the feature's value: purple above 0, ochre and underlined below; that of the peak is bold."""
        scale = scale or max(map(abs, self.values), default=0.0) or 1.0
        parts = []
        for i, (token, value) in enumerate(zip(self.tokens, self.values, strict=True)):
            shown = escape(token).replace("\n", "\u21b5")
            parts.append(f'<span style="{style(value / scale, i == self.peak)}" title="{value:.3g}">{shown}</span>')
        return self._gap.join(parts)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        shown = (token.replace("\n", "\u21b5") for token in self.tokens)
        return self._gap.join(f"[{token}]" if i == self.peak else token for i, token in enumerate(shown))

    @property
    def _gap(self) -> str:
        """What stands between tokens: nothing, unless they are whole words that come without the spaces around them."""
        return "" if any(character.isspace() for token in self.tokens for character in token) else " "


@dataclass(frozen=True)
class Feature:
    """What is known of a feature, neuron or head.

    It fires on a token where its value is not 0. A head's value is the size of what it writes there.

    Attributes:
        name: of the node. source: its dictionary's id, "neurons" or "heads".
        tokens: on how many it was looked at. fired: on how many it fires. mean, highest, lowest: of its values there (highest
            and lowest 0 where there is none on that side).
        bin_edges, bin_counts: histogram of |value| where it fires, bins a factor of 2^(1/4) wide.
        top: contexts where it is strongest, at most one of each row, the strongest first.
        sample: contexts drawn from all tokens where it fires; :attr:`quantiles` puts them in order.
        promoted, suppressed: tokens with what one unit of it adds to their logits, see :func:`promoted`.
        similar: features of the same dictionary with the cosine of the decoder directions, see :func:`similar`; of a neuron
            those of its layer, with the cosine of what they write; of a head none.
        label, link: what people call it, and its page on Neuronpedia.
    """

    name: str
    tokens: int = 0
    fired: int = 0
    mean: float = 0.0
    highest: float = 0.0
    lowest: float = 0.0
    bin_edges: tuple[float, ...] = ()
    bin_counts: tuple[int, ...] = ()
    top: tuple[Context, ...] = ()
    sample: tuple[Context, ...] = field(default=(), repr=False)
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()
    similar: tuple[tuple[str, float], ...] = ()
    label: str | None = None
    link: str | None = None
    source: str = ""

    @property
    def density(self) -> float:
        """The share of tokens on which it fires."""
        return self.fired / self.tokens if self.tokens else 0.0

    @property
    def quantiles(self) -> dict[tuple[float, float], tuple[Context, ...]]:
        """Contexts by how strongly it fires among all tokens where it does: the strongest fifth (0.8 to 1), the next...

        They come from a sample, so that the bounds are those of the sample; up to five of each fifth, in the order of the
        draw.
        """
        order = sorted(range(len(self.sample)), key=lambda i: abs(self.sample[i].value))
        found = {}
        for low, high in _BANDS:
            chosen = sorted(order[int(low * len(order) + 0.5) : int(high * len(order) + 0.5)])[:5]
            found[low, high] = tuple(self.sample[i] for i in chosen)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "name": self.name,
            "source": self.source,
            "label": self.label,
            "link": self.link,
            "tokens": self.tokens,
            "fired": self.fired,
            "density": self.density,
            "mean": self.mean,
            "highest": self.highest,
            "lowest": self.lowest,
            "histogram": {"edges": [round(e, 6) for e in self.bin_edges], "counts": list(self.bin_counts)},
            "top": [context.to_dict() for context in self.top],
            "quantiles": [
                {"from": low, "to": high, "contexts": [context.to_dict() for context in contexts]}
                for (low, high), contexts in self.quantiles.items()
            ],
            "promoted": [[token, round(value, 5)] for token, value in self.promoted],
            "suppressed": [[token, round(value, 5)] for token, value in self.suppressed],
            "similar": [[name, round(value, 5)] for name, value in self.similar],
        }

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """A histogram of its values, and the tokens it moves; see :func:`sparse_circuits.view.plots.features.plot_feature`."""
        from sparse_circuits.view.plots.features import plot_feature

        return plot_feature(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_feature

        return of_feature(self)

    def __repr__(self) -> str:
        label = f", {self.label!r}" if self.label else ""
        fires = f", fires on {self.density:.3%} of {self.tokens:,} tokens" if self.tokens else ""
        highest = f", highest {self.highest:.3g}" if self.fired else ""
        promotes = f", promotes {', '.join(repr(token) for token, _ in self.promoted[:3])}" if self.promoted else ""
        return f"Feature({self.name}{label}{fires}{highest}{promotes})"
