"""What every form of tracing declares, and what one run of it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.problem import FeatureProblem
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.tracing.trace import TracedEdge, TracedNode

if TYPE_CHECKING:
    from sparse_circuits.tracing.trace import Trace


@dataclass(frozen=True, eq=False)
class Start:
    """What a run was told to start from.

    Attributes:
        at: a site's place in the graph, or None.
        features: numbers of pinned features in the graph, ascending; None where none were pinned.
        earlier: the trace that is extended.
        tokenizer: the model's, for the names of tokens, or None.
    """

    at: int | None = None
    features: tuple[int, ...] | None = None
    earlier: Trace | None = None
    tokenizer: Any = None


@dataclass(frozen=True, eq=False)
class Found:
    """What one run found. ``record`` is what it says of itself: its sites, what it started from, passes per batch."""

    nodes: list[TracedNode] = field(default_factory=list)
    edges: list[TracedEdge] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)


class TracingMethod(ABC):
    """A form of tracing: a frozen dataclass whose fields are its options.

    Attributes:
        form: "ablation" or "gradient". A trace holds effects of one form only.
        only_clean_gradient: whether all it knows of the metric is its gradient at the clean run.
    """

    form: ClassVar[str]

    @property
    def only_clean_gradient(self) -> bool:
        return False

    @abstractmethod
    def run(self, problem: FeatureProblem, start: Start) -> Found:
        """Trace from where ``start`` says.

        Raises:
            InputError: before any pass, if there is nothing to start from.
        """

    def __str__(self) -> str:
        options = asdict(self)  # pyright: ignore[reportArgumentType]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


def by_place(graph: FeatureGraph, nodes: Iterable[int]) -> dict[int, Tensor]:
    """Numbers of nodes by the place that they are of, in the model's order: int64, ascending."""
    ids = torch.tensor(sorted(set(nodes)), dtype=torch.int64)
    places = graph.places_of(ids)
    return {place: ids[places == place] for place in places.unique().tolist()}


def features_of(graph: FeatureGraph, place: int) -> slice:
    """The numbers of a place's features, its error term left out."""
    start = graph.nodes_of(place).start
    return slice(start, start + graph.places[place].n_features * graph.n_positions)


def before(problem: FeatureProblem) -> int:
    """Passes that come before all others: clean, and under PATCH corrupted."""
    return 1 + (problem.ablated.constants is None)


def split_places(graph: FeatureGraph) -> list[int]:
    """The places that have features.

    Raises:
        InputError: if there are none.
    """
    places = [i for i, place in enumerate(graph.places) if place.split]
    if not places:
        raise InputError("The graph has no features to trace; make it with Graph.of(model, dictionaries).")
    return places
