"""How an edge's score looks: colour by sign, width and opacity by size. Shared by all views of a circuit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparse_circuits.circuit import Circuit

# Two hues that people with any of the common colour blindnesses tell apart (Okabe and Ito 2008).
CARRIES = "#0072B2"
OPPOSES = "#D55E00"
NEUTRAL = "#5A6068"


@dataclass(frozen=True)
class Pens:
    """Widths, opacities and colours of edges, relative to the strongest edge.

    Attributes:
        strongest: the largest finite |score|, 0 where there is none.
        scored, signed: whether edges have scores, and whether the colour says something.
        n: number of edges.
        opposes: the colour of positive scores.
    """

    strongest: float
    scored: bool
    signed: bool
    n: int
    opposes: str = OPPOSES

    def share(self, score: float | None) -> float:
        """|score| as a share of the strongest edge's, 0 to 1."""
        if score is None or not self.strongest or score != score:
            return 0.0
        return min(1.0, abs(score) / self.strongest)

    def width(self, score: float | None) -> float:
        """In points; grows linearly with |score|."""
        return 0.9 if not self.scored else self._thinnest + 3.6 * self.share(score)

    def opacity(self, score: float | None) -> float:
        """Weak edges recede, the more so the more edges there are."""
        faintest = 0.5 * self._crowding**0.36
        return (
            0.3 + 0.4 * self._crowding if not self.scored else faintest + (0.92 - faintest) * self.share(score) ** 0.5
        )

    def colour(self, score: float | None) -> str:
        if not self.signed or not score:
            return NEUTRAL
        return CARRIES if score < 0 else self.opposes

    @property
    def _crowding(self) -> float:
        """1 for a small circuit, towards 0 for a large one."""
        return 60 / max(60, self.n)

    @property
    def _thinnest(self) -> float:
        return 0.4 + 0.4 * self._crowding


@dataclass(frozen=True, eq=False)
class Strokes:
    """Widths, opacities and colours of a circuit's edges, relative to its strongest edge.

    A circuit without scores, or whose scores carry no sign, is drawn in one neutral colour.
    """

    circuit: Circuit

    @property
    def scored(self) -> bool:
        return self.circuit.values is not None

    @property
    def signed(self) -> bool:
        """Whether the colour says something: there are scores, and the method did not declare them unsigned."""
        return self.scored and self.circuit.provenance.get("signed", True) is not False

    @cached_property
    def strongest(self) -> float:
        """The largest finite |score|, 0 where there is none."""
        if self.circuit.values is None:
            return 0.0
        return largest(self.circuit.values[self.circuit.mask])

    @cached_property
    def pens(self) -> Pens:
        return Pens(self.strongest, self.scored, self.signed, self.circuit.n_edges)

    def score(self, edge: tuple[int, int]) -> float | None:
        return None if self.circuit.values is None else float(self.circuit.values[edge])

    def share(self, score: float | None) -> float:
        """|score| as a share of the strongest edge's, 0 to 1."""
        return self.pens.share(score)

    def width(self, score: float | None) -> float:
        """In points; grows linearly with |score|."""
        return self.pens.width(score)

    def opacity(self, score: float | None) -> float:
        """Weak edges recede, the more so the more edges there are."""
        return self.pens.opacity(score)

    def colour(self, score: float | None) -> str:
        return self.pens.colour(score)


def largest(values: Tensor) -> float:
    """The largest finite |value|, 0 where there is none."""
    sizes = values.abs()
    sizes = sizes[torch.isfinite(sizes)]
    return float(sizes.max()) if len(sizes) else 0.0
