"""Tracing by ablation: features ablated one at a time, and what that does to the features next in line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.exact import resumed
from sparse_circuits.attribution.feature.gradients import held_clean
from sparse_circuits.attribution.feature.problem import FeatureProblem, Situation
from sparse_circuits.circuit.feature_scores import check_count
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import LOGITS, FeatureGraph
from sparse_circuits.model.sites import Site
from sparse_circuits.tracing.choose import strongest
from sparse_circuits.tracing.method import (
    Found,
    Start,
    TracingMethod,
    before,
    by_place,
    features_of,
    split_places,
)
from sparse_circuits.tracing.separate import ROUNDING, Readings, each, effect_of, largest, last_logits
from sparse_circuits.tracing.trace import TracedEdge, TracedNode

_MOST = 1000  # of a threshold's log2: 2^1000 is still finite


@dataclass(frozen=True)
class ByAblation(TracingMethod):
    """Ablate features of one site, each on its own at all of its tokens, and see what changes.

    With f ablated, recorded are, averaged over examples,

    - its effect: m(f ablated) - m(clean), everything after it computed again;
    - an edge to every feature g that f reaches directly: sum over tokens of z_g(f ablated) - z_g(clean), what the other
      sites in between write held at its clean value. It is kept where |change| >= 2^threshold;
    - an edge into the logits, where f reaches these directly: m(f ablated, sites in between clean) - m(clean), in units of the
      metric, and so kept whatever its size;
    - the change of every logit at the last token, less the mean change, of which ``tokens`` are kept.

    Features reached and not yet ablated are the trace's frontier, from which the next run goes on.

    A run starts from the features that are pinned, or else from the ``top`` with the largest effect on the metric: of all
    features of the site, or of the frontier where an earlier trace is extended. They are looked for among four times as many:
    those that stand highest by gradients averaged while the site is ablated, by the clean run's gradient, or by how much of
    the activation they are. The first alone misses what only matters as long as the rest is there.

    Args:
        threshold: log2 of the smallest change that makes an edge: -3 for 1/8.
        top: how many features to ablate where none are pinned; None for all, the frontier's or the site's.
        tokens: how many logits are kept for each.

    Cost per batch: a clean pass (under PATCH a corrupted one too), and for each feature a pass from the site on; where it
    reaches more than the next site or the logits alone, a second one as far as it reaches. To find the strongest, two clean
    passes more, 6 forward and backward passes and ``4 * top`` forward passes from the site on.

    As sparse_circuit_discovery (D. Udell) traces circuits.
    """

    form: ClassVar[str] = "ablation"

    threshold: float = -3.0
    top: int | None = 10
    tokens: int = 10

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
        if not number or not abs(self.threshold) <= _MOST:
            raise InputError(f"ByAblation(threshold={self.threshold!r}): expected a finite power of two, such as -3.")
        object.__setattr__(self, "threshold", float(self.threshold))
        if self.top is not None:
            check_count("ByAblation(top=...)", self.top)
        if self.top == 0:
            raise InputError("ByAblation(top=0) starts from nothing; pass at least 1, or None for all.")
        check_count("ByAblation(tokens=...)", self.tokens)

    def run(self, problem: FeatureProblem, start: Start) -> Found:
        graph = problem.graph
        ranking = (0.0, 0.0)
        if start.features is not None:
            groups = by_place(graph, start.features)
        else:
            place, among = _where(graph, start)
            if among is None or (self.top is not None and len(among) > self.top):
                among, ranking = strongest(problem, place, self.top, among)
            if not len(among):
                raise InputError(
                    f"No feature of {graph.places[place].name} changes under this ablation on these prompts, so there is none "
                    "to start from; pass at=... with another site."
                )
            groups = {place: among}
        found, reached, passes = Found(), set[int](), 0.0
        for place, ids in groups.items():
            alone = _Alone(problem, place, ids)
            passes += alone.run()
            found.nodes.extend(self._nodes(alone, start.tokenizer))
            edges = list(self._edges(alone))
            found.edges.extend(edges)
            reached |= {graph.index(edge.target) for edge in edges if edge.target != LOGITS}
        reached -= {i for ids in groups.values() for i in ids.tolist()}
        found.nodes.extend(TracedNode(graph.name_of(i), None) for i in sorted(reached))
        found.record.update(
            at=[graph.places[place].name for place in groups],
            pinned=start.features is not None,
            features=[graph.name_of(i) for ids in groups.values() for i in ids.tolist()],
            edges=len(found.edges),
            passes=[round(before(problem) + ranking[0] + passes, 3), round(ranking[1], 3)],
        )
        return found

    def _nodes(self, alone: _Alone, tokenizer: Any) -> Iterator[TracedNode]:
        graph, logits = alone.problem.graph, alone.mean(alone.logits)
        for i, (node, effect) in enumerate(zip(alone.nodes.tolist(), alone.mean(alone.effect).tolist(), strict=True)):
            yield TracedNode(graph.name_of(node), effect, largest(logits[i], self.tokens, tokenizer))

    def _edges(self, alone: _Alone) -> Iterator[TracedEdge]:
        graph = alone.problem.graph
        names = list(map(graph.name_of, alone.nodes.tolist()))
        for place, changes in alone.changes.items():
            changes, first = alone.mean(changes), graph.nodes_of(place).start
            for i, j in ((changes.abs() >= 2.0**self.threshold) & (changes != 0)).nonzero().tolist():
                yield TracedEdge(names[i], graph.name_of(first + j), float(changes[i, j]))
        if alone.direct is not None:
            for name, effect in zip(names, alone.mean(alone.direct).tolist(), strict=True):
                if abs(effect) > ROUNDING:
                    yield TracedEdge(name, LOGITS, effect, contribution=effect)


def _where(graph: FeatureGraph, start: Start) -> tuple[int, Tensor | None]:
    """The site of a run without pinned features, and the features that it may start from; None for all of the site.

    Raises:
        InputError: if the frontier of the earlier trace is empty there.
    """
    places = split_places(graph)
    if start.earlier is None:
        return (places[0] if start.at is None else start.at), None
    frontier = by_place(graph, map(graph.index, start.earlier.frontier))
    if start.at is None:
        last = [place.name for place in graph.places].index(start.earlier.runs[-1]["at"][-1])
        ahead = [place for place in frontier if place > last]
        if not ahead:
            left = ", ".join(f"{len(ids)} at {graph.places[place].name}" for place, ids in frontier.items())
            others = f" (reached and not ablated: {left})" if left else ""
            raise InputError(
                f"The trace has reached no feature after {graph.places[last].name} that is not yet ablated, so it ends there"
                f"{others}; go on with others by at= or features= (--at, --features), or with a lower threshold."
            )
        return ahead[0], frontier[ahead[0]]
    if start.at in frontier:
        return start.at, frontier[start.at]
    mine = features_of(graph, start.at)
    if any(mine.start <= graph.index(edge.target) < mine.stop for edge in start.earlier.edges):
        raise InputError(
            f"All features of {graph.places[start.at].name} that the trace has reached are ablated already; give "
            "others with features= (--features)."
        )
    return start.at, None


class _Alone:
    """Features of one place, each ablated on its own: sums over examples, on the CPU.

    Attributes:
        effect: of the metric, ``[features]``; ``logits``: at the last token, ``[features, vocabulary]``.
        changes: per place that is read directly, of its features, ``[features, features there]``.
        direct: of the metric with every site in between held, or None where the logits are not read directly.
    """

    def __init__(self, problem: FeatureProblem, place: int, nodes: Tensor) -> None:
        graph, n = problem.graph, len(nodes)
        self.problem, self.place, self.nodes = problem, place, nodes
        self.effect = torch.zeros(n, dtype=torch.float64)
        self.logits = torch.zeros(n, problem.anatomy.d_vocab_out)
        readers = [i for i, reach in enumerate(graph.reach) if place in reach.parents]
        self._into_logits = readers[-1:] == [len(graph.places)]
        self.changes = {
            i: torch.zeros(n, (mine := features_of(graph, i)).stop - mine.start)
            for i in readers
            if i < len(graph.places) and graph.places[i].split
        }
        self.direct = self.effect if self._into_logits and len(readers) == 1 else None
        # nothing lies between a place and the first that reads it, so that the free run shows what that one makes of it
        self._first = readers[0]
        self._held = len(readers) > 1
        if self._into_logits and self._held:
            self.direct = torch.zeros(n, dtype=torch.float64)
        self._until = None if self._into_logits else graph.places[readers[-1]].site.layer

    def mean(self, sums: Tensor) -> Tensor:
        return sums / len(self.problem.prompts)

    @torch.no_grad()
    def run(self) -> float:
        """Fill in everything. Returns passes per batch."""
        problem, count = self.problem, 0
        for _, situation in problem.situations():
            readings = Readings(situation)
            end = last_logits(situation, situation.run.final)
            for which, moved in each(situation, self.place, self.nodes):
                count += len(which)
                self._free(situation, readings, end, which, moved)
                if self._held:
                    self._hold(situation, readings, which, moved)
        share = problem.share_after(self.place)
        if self._held:
            left = 0 if self._until is None else len(problem.anatomy.blocks) - 1 - self._until
            share += share - left / len(problem.anatomy.blocks)
        return count * share / -(-len(problem.prompts) // problem.batch_size)

    def _free(self, situation: Situation, readings: Readings, end: Tensor, which: Tensor, moved: Tensor) -> None:
        """Everything after the feature computed again."""
        places = situation.graph.places
        first = [places[self._first].site] if self._first in self.changes else []

        def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
            self.changes[self._first][which] += readings.change(self._first, read)
            return written

        final = resumed(situation, self.place, moved, visit, first)
        self.effect[which] += effect_of(situation, final).sum(1).double().cpu()
        self.logits[which] += (last_logits(situation, final) - end).sum(1).cpu()

    def _hold(self, situation: Situation, readings: Readings, which: Tensor, moved: Tensor) -> None:
        """The sites that come after held at their clean values."""
        places = situation.graph.places
        number = {place.site: i for i, place in enumerate(places)}
        back = held_clean(situation, len(which))

        def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
            place = number[site]
            if place != self._first and place in self.changes:
                self.changes[place][which] += readings.change(place, read)
            return back(site, read, written)

        final = resumed(situation, self.place, moved, visit, list(number), self._until)
        if self._into_logits and self.direct is not None:
            self.direct[which] += effect_of(situation, final).sum(1).double().cpu()
