"""What every form of tracing declares, and what one run of it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.nodes import score_by_gradients
from sparse_circuits.attribution.feature.problem import FeatureProblem
from sparse_circuits.attribution.feature.splits import AblatedPlaces
from sparse_circuits.attribution.quadrature import points
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.tracing.separate import effects
from sparse_circuits.tracing.trace import TracedEdge, TracedNode

if TYPE_CHECKING:
    from sparse_circuits.tracing.trace import Trace

# how the strongest features are found: gradients for an estimate, and how many times as many to ablate
_STEPS, _CANDIDATES = 5, 4


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


def strongest(
    problem: FeatureProblem, place: int, n: int | None, among: Tensor | None = None
) -> tuple[Tensor, tuple[float, float]]:
    """The features of a place with the largest effect on the metric, and the forward and backward passes per batch that took.

    Estimates of ``EAPIG(path="activations")`` at this place alone say which features are worth ablating, several times as many
    as are wanted; ablating these says which are the strongest. An estimate alone misses some of them.

    Args:
        n: how many; None for all on which the estimate is not 0.
        among: features to choose from; None for all.

    Returns:
        Their numbers in the graph, ascending.
    """
    graph, constants, share = problem.graph, problem.ablated.constants, problem.share_after(place)
    alone = replace(graph, places=(graph.places[place],))
    ablated = AblatedPlaces(problem.anatomy, alone, None if constants is None else (constants[place],))
    tally = score_by_gradients(
        replace(problem, graph=alone, ablated=ablated, nodes_above=None),
        points("midpoint", _STEPS),
        "activations",
    )
    ids, estimates = tally.nodes.collect()
    mine = features_of(graph, place)
    ids = ids + mine.start
    there = ids < mine.stop
    if among is not None:
        there &= torch.isin(ids, among)
    ids, estimates = ids[there], estimates[there]
    if n is None or len(ids) <= n:
        return ids, (_STEPS * share, _STEPS * share)
    ids = ids[estimates.abs().argsort(descending=True, stable=True)[: _CANDIDATES * n]].sort().values
    order = effects(problem, place, ids).abs().argsort(descending=True, stable=True)[:n]
    return ids[order].sort().values, ((_STEPS + len(ids)) * share, _STEPS * share)


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
