"""Tracing by gradient: from the last site up, the features with the largest part in what was chosen below them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.edges import Edges
from sparse_circuits.attribution.feature.gradients import Points, along_activations, along_inputs
from sparse_circuits.attribution.feature.nodes import Path, score_by_gradients
from sparse_circuits.attribution.feature.problem import FeatureProblem, Situation, Sparse
from sparse_circuits.attribution.quadrature import points
from sparse_circuits.circuit.feature_scores import check_count
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.tracing.method import Found, Start, TracingMethod, by_place, features_of, split_places
from sparse_circuits.tracing.separate import check_finite
from sparse_circuits.tracing.trace import TracedEdge, TracedNode


@dataclass(frozen=True)
class ByGradient(TracingMethod):
    """Choose features site by site from the last one up, by gradients.

    The contribution of an edge u -> d is (u' - u) dm/dd dd/du, summed over tokens and averaged over examples, in units of
    the metric: u' - u what ablation changes u by, dm/dd the metric's whole derivative, dd/du the derivative along paths that
    cross no other site of the graph. Into the logits it is (u' - u) dm/du along such paths.

    At every site, from the last one up, those features are chosen whose contributions to what was chosen below them (at
    first, the logits) add up to the most: the ``top`` most positive and the ``bottom`` most negative sums. A negative one
    carries the behaviour: ablating it takes from the metric. Their edges to what was chosen are kept, so that whatever
    leads to nothing chosen is left out. With pinned features, or a site to begin at, the chain begins with these instead of
    the logits: with the pinned ones, or with the site's ``top`` and ``bottom`` by effect on the metric. Pinned features
    further up are kept as well.

    A node's effect is its first-order effect on the metric; an edge's effect is (u' - u) dd/du, the first-order change of
    the target, which is what :class:`ByAblation` measures.

    Args:
        top, bottom: how many features a site, of contributions above and below 0.
        steps: dm/dd is the mean over so many points (midpoint) while all that is written at the site goes from its ablated to
            its clean value, as in ``EAPIG(path="activations")``. None for dm/dd at the clean run alone, which costs a
            fraction, but says little of features that are ablated altogether.

    Cost per batch: ``steps`` forward and backward passes from each site on (one of each in all with ``steps=None``), as much
    again for edges into the logits; then, for all features chosen at a site together, two batched backward passes up to the
    sites that they read. Where the examples are more than one batch, the clean pass and a site's gradients are done again for
    each site.

    As sparse_circuit_discovery (D. Udell) traces gradients; edges as in Marks et al. 2024 (arXiv:2403.19647).
    """

    form: ClassVar[str] = "gradient"

    top: int = 5
    bottom: int = 5
    steps: int | None = 10

    def __post_init__(self) -> None:
        check_count("ByGradient(top=...)", self.top)
        check_count("ByGradient(bottom=...)", self.bottom)
        if self.top + self.bottom == 0:
            raise InputError("ByGradient(top=0, bottom=0) chooses nothing; pass at least 1 of either.")
        if self.steps is not None:
            points("midpoint", self.steps)

    @property
    def only_clean_gradient(self) -> bool:
        return self.steps is None

    def run(self, problem: FeatureProblem, start: Start) -> Found:
        graph, n = problem.graph, len(problem.prompts)
        places = split_places(graph)
        pinned = {} if start.features is None else by_place(graph, start.features)
        last = max(pinned) if pinned else start.at if start.at is not None else places[-1]
        along = _Along(problem, self.steps)
        tally = score_by_gradients(replace(problem, nodes_above=math.inf), along.points, along.path)
        check_finite(tally.clean)
        ids, effects = tally.nodes.collect()
        check_finite(effects)
        effect = dict(zip(ids.tolist(), (effects / n).tolist(), strict=True))
        known = _Known(graph)
        known.add(tally.edges, tally.edges, n)  # into the logits, where both are the same
        chosen: dict[int, Tensor] = {}
        below = [graph.logits] if start.at is None and not pinned else []
        for place in (p for p in reversed(places) if p <= last):
            if place == last and not below:
                mine = torch.tensor(sorted(i for i in effect if _in(i, features_of(graph, place))), dtype=torch.int64)
                sums = torch.tensor([effect[i] for i in mine.tolist()], dtype=torch.float64)
            else:
                mine, sums = known.into(features_of(graph, place), below)
            took = self._chosen(mine, sums) if place != last or place not in pinned else mine[:0]
            took = torch.cat([took, pinned.get(place, took[:0])]).unique()
            if not len(took):
                continue
            chosen[place] = took
            below += took.tolist()
            if graph.reach[place].parents and place != places[0]:
                known.add(*along.edges_into(place, took), n)
        traced = [TracedNode(graph.name_of(i), effect.get(i, 0.0)) for ids in chosen.values() for i in ids.tolist()]
        if not traced:
            raise InputError(
                "No feature has a direct effect on the logits to first order, so there is nothing to trace; pass features=[...] "
                "or at=... to trace what leads to others."
            )
        edges = list(known.between(below))
        record = {
            "at": [graph.places[place].name for place in sorted(chosen)],
            "pinned": bool(pinned),
            "features": [node.name for node in traced],
            "edges": len(edges),
            "passes": [round(x, 3) for x in tally.passes],
        }
        return Found(traced, edges, record)

    def _chosen(self, nodes: Tensor, sums: Tensor) -> Tensor:
        order = sums.argsort(stable=True)
        most = order.flip(0)[: self.top]
        least = order[: self.bottom]
        return torch.cat([nodes[most[sums[most] > 0]], nodes[least[sums[least] < 0]]])


class _Along:
    """Where gradients are taken, and the edges that they give."""

    def __init__(self, problem: FeatureProblem, steps: int | None) -> None:
        self._problem = problem
        self.points: Points = ((1.0, 1.0),) if steps is None else points("midpoint", steps)
        self.path: Path = "inputs" if steps is None else "activations"
        self._only: tuple[Situation, Edges] | None = None  # of the one batch, where there is but one
        self._gradients: list[Tensor] | None = None

    def edges_into(self, place: int, nodes: Tensor) -> tuple[Sparse, Sparse]:
        """Contributions and effects of all edges into some features of a place, summed over examples."""
        contributions, effects = Sparse(), Sparse()
        for situation, edges in self._batches():
            tokens, which = _firing(situation, edges, place, nodes)
            gradient = self._gradient(situation, place).flatten(0, 1)
            edges.into(place, edges.features(place, tokens, which, gradient), contributions)
            edges.into(place, edges.features(place, tokens, which, None), effects)
        return contributions, effects

    def _batches(self) -> Iterator[tuple[Situation, Edges]]:
        if self._only is not None:
            yield self._only
            return
        for _, situation in self._problem.situations():
            self._gradients = None
            changes = [situation.change(place) for place in range(len(situation.graph.places))]
            made = situation, Edges(situation, changes)
            if len(situation.batch) == len(self._problem.prompts):
                self._only = made
            yield made

    def _gradient(self, situation: Situation, place: int) -> Tensor:
        if self.path == "activations":
            return along_activations(situation, place, self.points)
        if self._gradients is None:
            self._gradients = along_inputs(situation, self.points)
        return self._gradients[place]


def _firing(situation: Situation, edges: Edges, place: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Where some features fire in the clean run: tokens, and features by their number within the place."""
    change, spot = edges.amounts[place], situation.graph.places[place]
    listed = change.listed(spot.n_features)
    wanted = torch.isin(edges.numbers(place, listed), nodes.to(listed.device))
    tokens, i = (wanted & (change.clean != 0)).nonzero(as_tuple=True)
    return tokens, listed[tokens, i]


class _Known:
    """Edges found so far, with both of their numbers."""

    def __init__(self, graph: FeatureGraph) -> None:
        self._graph = graph
        self._sources = self._targets = torch.empty(0, dtype=torch.int64)
        self._contributions = self._effects = torch.empty(0, dtype=torch.float64)

    def add(self, contributions: Sparse, effects: Sparse, n: int) -> None:
        """Take edges summed over ``n`` examples."""
        (keys, values), (others, moved) = contributions.collect(), effects.collect()
        every = torch.cat([keys, others]).unique()
        for name, mine, of in (("_contributions", keys, values), ("_effects", others, moved)):
            whole = torch.zeros(len(every), dtype=torch.float64)
            whole[torch.searchsorted(every, mine)] = of.double() / n
            setattr(self, name, torch.cat([getattr(self, name), whole]))
        width = self._graph.size + 1
        self._sources = torch.cat([self._sources, torch.div(every, width, rounding_mode="floor")])
        self._targets = torch.cat([self._targets, every % width])

    def into(self, sources: slice, targets: list[int]) -> tuple[Tensor, Tensor]:
        """Nodes of a range with edges into some others, ascending, and the sums of their contributions to these."""
        there = (self._sources >= sources.start) & (self._sources < sources.stop)
        there &= torch.isin(self._targets, torch.tensor(targets, dtype=torch.int64))
        nodes, where = self._sources[there].unique(return_inverse=True)
        return nodes, torch.zeros(len(nodes), dtype=torch.float64).index_add_(0, where, self._contributions[there])

    def between(self, nodes: list[int]) -> Iterator[TracedEdge]:
        """The edges between some nodes, and from them into the logits."""
        ends = torch.tensor([*nodes, self._graph.logits], dtype=torch.int64)
        there = torch.isin(self._sources, ends) & torch.isin(self._targets, ends)
        names = self._graph.name_of
        columns = (self._sources, self._targets, self._effects, self._contributions)
        for source, target, effect, contribution in zip(*(c[there].tolist() for c in columns), strict=True):
            yield TracedEdge(names(source), names(target), effect, contribution=contribution)


def _in(number: int, numbers: slice) -> bool:
    return numbers.start <= number < numbers.stop
