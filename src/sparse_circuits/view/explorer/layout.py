"""Where everything is on the page: pixels at full size, the origin at the upper left, computation running upwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.view.feature_layout import place_features
from sparse_circuits.view.layout import Box, Layout
from sparse_circuits.view.routes import route

_PER_INCH = 96
_PER_INCH_UP = 76  # screens are wide: less air between rows leaves more for the text
_WIDER = 1.5  # deep models are tall: so much wider, at most, their boxes and columns are drawn
_KINDS = {"q": 1, "k": 2, "v": 3}
KINDS = ("plain", "q", "k", "v")
"""What an edge is read as, by the number that the page's data has."""


@dataclass(frozen=True, eq=False)
class Place:
    """A circuit laid out.

    Attributes:
        layout: in inches, upwards.
        roles: of nodes: head, mlp, input, logits, feature, error, whole.
        lanes: names of sites and their height, of feature circuits.
    """

    layout: Layout
    roles: dict[str, str]
    lanes: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, circuit: Circuit | FeatureCircuit) -> Place:
        if isinstance(circuit, Circuit):
            layout = Layout.of(circuit)
            return cls(layout, {name: _role(name) for name in layout.nodes})
        placed = place_features(circuit)
        roles = {name: str(placed.roles.get(name, "logits")) for name in placed.layout.nodes}
        return cls(placed.layout, roles, tuple((lane.name, lane.y) for lane in placed.lanes if not lane.empty))

    @cached_property
    def per_inch(self) -> float:
        tall = self.layout.height * _PER_INCH_UP / (self.layout.width * _PER_INCH)
        return _PER_INCH * min(_WIDER, max(1.0, 1.2 * tall))

    def across(self, x: float) -> float:
        return round(x * self.per_inch, 1)

    def down(self, y: float) -> float:
        return round((self.layout.height - y) * _PER_INCH_UP, 1)

    def frame(self) -> dict[str, Any]:
        """All that is not part of the circuit: sizes, and names of layers, columns and lanes."""
        layout, across, down = self.layout, self.across, self.down
        return {
            "width": across(layout.width),
            "height": down(0.0),
            "layers": [{"name": name, "top": down(high), "bottom": down(low)} for name, low, high in layout.layers],
            "columns": [{"name": name, "x": across(x)} for name, x in layout.columns],
            "borders": [across(x) for x in layout.borders],
            "lanes": [{"name": name, "y": down(y)} for name, y in self.lanes],
            "rails": [
                [across(rail.left), across(rail.right), down(rail.y), across(rail.port_x)] for rail in layout.rails
            ],
        }

    def box(self, box: Box) -> dict[str, float]:
        """Its centre and size."""
        return {
            "x": self.across(box.x),
            "y": self.down(box.y),
            "w": self.across(box.width),
            "h": round(box.height * _PER_INCH_UP, 1),
        }

    def course(self, source: str, destination: str) -> list[int]:
        """Start, then two control points and an end per piece, as one list of x and y; tenths of a pixel are left out."""
        points = route(self.layout, source, destination).beziers()
        xy = [(round(self.across(x)), round(self.down(y))) for x, y in points]
        course = xy[:1]
        for i in range(1, len(xy), 3):
            piece = xy[i : i + 3]
            straight = len({x for x, _ in (*course[-4:], *piece)}) == 1 and len(course) > 1
            if straight:  # on and on straight upwards: one piece
                del course[-3:]
                (x, low), (_, high) = course[-1], piece[-1]
                piece = [(x, low + (high - low) // 3), (x, low + 2 * (high - low) // 3), piece[-1]]
            course += piece
        return [number for point in course for number in point]

    def ports(self) -> dict[str, tuple[int, str, Box]]:
        """Destinations by name: the number of their kind, what stands in them, and where."""
        found = {}
        for name, box in self.layout.ports.items():
            found[name] = (_KINDS.get(_read(name), 0), box.label, box)
        for name, box in self.layout.nodes.items():
            if self.roles[name] == "logits":
                found[name] = (0, "", Box("", box.x, box.bottom, 0, 0))
        return found


def _read(destination: str) -> str:
    """ "q", "k" or "v" for an input of a head."""
    return destination.partition("<")[2][:1]


def _role(name: str) -> str:
    return {"a": "head", "m": "mlp"}.get(name[0], name.partition("@")[0])
