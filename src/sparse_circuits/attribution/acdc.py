"""ACDC: edges are removed one after the other, as long as the metric hardly suffers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.changes import Changes
from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.attribution.pruned import PrunedRuns, Trials
from sparse_circuits.attribution.restart import Restart
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph
from sparse_circuits.task.measure import measure

_MOST_TRIALS = 64


@dataclass(frozen=True)
class ACDC(Method):
    """Removes every edge whose removal costs less than a threshold, from the logits down.

    Destinations are visited from the logits back to the first layer, and each one's sources from the last to the first. An edge
    u -> v goes (v reads c_u' instead of c_u from then on) if

        m(without it) - m(with it) > -threshold,

    m being the metric averaged over all examples, with all edges removed that went before; otherwise it stays. That difference is
    its score: in units of the metric, negative for an edge that carries the behaviour. A destination of nodes that nothing reads
    any more loses its edges untested, with score 0. ``Scores.selected`` is what stayed, less what dangles.

    Cost: up to a forward pass per edge, from the destination's layer, over the nodes that are still read; those before it are
    as in the clean run, which is kept for all batches, as is what every source changes at the tokens that differ: memory for
    ``sources * tokens * d_model`` floats. While edges keep going (or staying), the next few are tried in one pass, which
    changes nothing in the result.

    Args:
        threshold: in units of the metric, at least 0. The larger, the fewer edges stay.

    Conmy et al. 2023, "Towards automated circuit discovery" (arXiv:2304.14997); they measure the divergence from the whole model,
    which is ``NegativeKL`` as a metric.
    """

    takes_gradients: ClassVar[bool] = False
    levels: ClassVar[tuple[str, ...]] = ("edges",)
    tells_positions: ClassVar[bool] = False

    threshold: float = 0.01

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not math.isfinite(self.threshold) or self.threshold < 0:
            raise InputError(f"ACDC(threshold={self.threshold!r}): expected a finite number of at least 0.")

    @torch.no_grad()
    def run(self, problem: Problem) -> Raw:
        graph, tally = problem.graph, Tally(problem)
        if graph.positions:
            raise InputError("ACDC does not tell positions apart; leave positions=... out.")
        batches, rows = [], []
        for at, batch in problem.batches():
            restart = Restart(problem.anatomy, problem.prompts.metric, batch)
            ablated, corrupted = problem.ablated(batch)
            end = None if corrupted is None else measure(restart.anatomy, restart.metric, corrupted, restart.batch)
            tally.measured(at, restart.value, end)
            batches.append(PrunedRuns(restart, Changes(restart, graph, ablated, tally.patched), graph))
            rows.append(at)
        search = _Search(graph, batches, self.threshold)
        for destination in problem.track(iter(reversed(range(graph.n_destinations))), graph.n_destinations):
            search.visit(destination)
        for at, scores in zip(rows, search.scores, strict=True):
            tally.scored(at, scores if problem.per_example else scores.sum(0, keepdim=True))
        return tally.raw(1 + tally.patched + search.passes, 0, graph.mask & ~search.removed)


class _Search:
    """What has been decided so far.

    Attributes:
        removed: bool ``[n_sources, n_destinations]``.
        scores: of each batch, ``[examples, n_sources, n_destinations]``.
        current: of each batch, the effect of all that was removed, ``[examples]``.
        passes: whole forward passes made.
    """

    def __init__(self, graph: Graph, batches: Sequence[PrunedRuns], threshold: float) -> None:
        self.graph, self.batches, self.threshold = graph, batches, threshold
        self.removed = torch.zeros(graph.shape, dtype=torch.bool)
        self.scores = [torch.zeros(len(runs.restart.batch), *graph.shape) for runs in batches]
        self.current = [torch.zeros(len(runs.restart.batch)) for runs in batches]
        self.passes = 0.0

    def visit(self, destination: int) -> None:
        """Decide on all edges into a destination, when all into later ones are decided."""
        sources = list(reversed(range(int(self.graph.readable[destination]))))
        alive = (self.graph.mask & ~self.removed).any(1)
        if not bool(self.graph.to_owned(alive)[destination]):
            self.removed[sources, destination] = True
            if self._matters_dead(destination):
                self.current = [effect[0] for effect in self._effects(destination, self.removed[None, :, destination])]
            return
        together, going = 1, True
        while sources:
            decided = self._decide(destination, sources[:together], going)
            all_alike = len(decided) == together and all(gone == going for gone in decided)
            together = min(2 * together, _MOST_TRIALS) if all_alike else 1
            sources, going = sources[len(decided) :], decided[-1]

    def _decide(self, destination: int, sources: list[int], going: bool) -> list[bool]:
        """Whether the next edges go: of as many as all the earlier ones turned out as expected.

        Args:
            going: whether they are expected to go, all tried with the ones before gone; or to stay, tried one by one.
        """
        choices = self.removed[:, destination].repeat(len(sources), 1)
        for i, u in enumerate(sources):
            choices[i:, u] = True
            if not going:
                choices[i + 1 :, u] = False
        effects, decided = self._effects(destination, choices), []
        for i, u in enumerate(sources):
            changes = [effect[i] - current for effect, current in zip(effects, self.current, strict=True)]
            for scores, change in zip(self.scores, changes, strict=True):
                scores[:, u, destination] = change
            gone = self._mean(changes) > -self.threshold
            decided.append(gone)
            if gone:
                self.removed[u, destination] = True
                self.current = [effect[i] for effect in effects]
            if gone != going:
                break
        return decided

    def _effects(self, destination: int, choices: Tensor) -> list[Tensor]:
        trials = Trials(self.removed, destination, choices)
        layers = self.graph.n_layers - destination // self.graph.destinations_per_layer
        self.passes += len(choices) * layers / self.graph.n_layers
        return [runs.effects(trials).cpu() for runs in self.batches]

    def _mean(self, per_example: list[Tensor]) -> float:
        return float(torch.cat(per_example).mean())

    def _matters_dead(self, destination: int) -> bool:
        """Whether what a head reads matters to others, though nothing reads the head: where a norm spans all of them."""
        if destination == self.graph.n_destinations - 1:
            return False
        layer = destination // self.graph.destinations_per_layer
        normed = range(self.graph.reads_at(layer, "q").start, self.graph.reads_at(layer, "k").stop)
        return destination in normed and self.batches[0].restart.anatomy.blocks[layer].attention.joint_norm
