"""What stands in a node's box where a circuit is chosen by nodes or their units, and how that is coloured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES, largest

N_NAMED = 3  # units that a box names


@dataclass(frozen=True)
class Content:
    """What of a node is in a circuit.

    Attributes:
        score: the sum of its units' scores, or None where there are none.
        n, total: how many of its units are in, and how many it has.
        strongest: its strongest units, named without the node: "n17".
    """

    score: float | None
    n: int
    total: int
    strongest: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shades:
    """Colours of boxes by their scores, relative to the strongest: blue or orange by sign, the fuller the stronger."""

    strongest: float
    signed: bool
    opposes: str = OPPOSES

    def depth(self, score: float | None) -> float:
        """How full the colour is, 0 to 1."""
        if score is None or not self.strongest or score != score:
            return 0.0
        return 0.06 + 0.84 * min(1.0, abs(score) / self.strongest) ** 0.7

    def dark(self, score: float | None) -> bool:
        """Whether text on that colour had better be white."""
        return self.depth(score) > 0.55

    def colour(self, score: float | None) -> str:
        """The colour of a box: white mixed with a hue."""
        hue = NEUTRAL if not self.signed else CARRIES if (score or 0) < 0 else self.opposes
        return tint(hue, self.depth(score))


@dataclass(frozen=True, eq=False)
class Contents:
    """Contents and colours of the nodes in a circuit of nodes or units, relative to the strongest node.

    As in :class:`sparse_circuits.view.strokes.Strokes`, a circuit without scores, or whose scores carry no sign, has one
    neutral colour.
    """

    circuit: Circuit

    @cached_property
    def of(self) -> dict[str, Content]:
        """By the node's name, in the model's order; a node without a unit in the circuit is not there."""
        circuit, graph = self.circuit, self.circuit.graph
        at = circuit.mask.nonzero().flatten()
        values = None if circuit.values is None else circuit.values[at]
        if values is not None:
            order = values.abs().argsort(descending=True, stable=True)
            at, values = at[order], values[order]
        width = graph.n_positions
        sizes = graph.owner.bincount().tolist()
        owners = (graph.owner[at // width] * width + at % width).tolist()
        found: dict[int, list[int]] = {}
        for i, owner in enumerate(owners):
            found.setdefault(owner, []).append(i)
        out = {}
        for owner, units in sorted(found.items()):
            names = [graph.rows[at[i]].partition("@")[0].partition(".")[2] for i in units[:N_NAMED]]
            out[graph.nodes[owner]] = Content(
                score=None if values is None else float(values[units].sum()),
                n=len(units),
                total=sizes[owner // width],
                strongest=tuple(name.rpartition(".")[2] for name in names) if self.in_parts else (),
            )
        return out

    @property
    def in_parts(self) -> bool:
        """Whether nodes are chosen unit by unit."""
        return self.circuit.graph.level != "nodes"

    @property
    def scored(self) -> bool:
        return self.circuit.values is not None

    @property
    def signed(self) -> bool:
        """Whether the hue says something: there are scores, and the method did not declare them unsigned."""
        return self.scored and self.circuit.provenance.get("signed", True) is not False

    @cached_property
    def strongest(self) -> float:
        """The largest finite |score| of a node, 0 where there is none."""
        return largest(torch.tensor([one.score for one in self.of.values() if one.score is not None]))

    @cached_property
    def shades(self) -> Shades:
        return Shades(self.strongest, self.signed)

    def depth(self, score: float | None) -> float:
        """How full the colour is, 0 to 1."""
        return self.shades.depth(score)

    def dark(self, score: float | None) -> bool:
        """Whether text on that colour had better be white."""
        return self.shades.dark(score)

    def colour(self, score: float | None) -> str:
        """The colour of a box: white mixed with a hue."""
        return self.shades.colour(score)


def tint(hue: str, depth: float) -> str:
    """White mixed with a hue, of which there is more the deeper it is: 0 to 1."""
    parts = (int(hue[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + depth * (part - 255)):02X}" for part in parts)


def brief(value: float, digits: int) -> str:
    """A score in a few digits, without an exponent where it has none to save."""
    return f"{value:,.0f}" if 1e2 <= abs(value) < 1e6 else f"{value:.{digits}g}"
