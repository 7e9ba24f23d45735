"""What an attribution method works on in a feature graph, and what it adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.splits import AblatedPlaces, Captured, Change, Reference, capture, change_at
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits
from sparse_circuits.task.metrics import Metric
from sparse_circuits.task.positions import Positions
from sparse_circuits.task.task import Prompts


@dataclass(frozen=True, eq=False)
class FeatureProblem:
    """One model, its feature graph, a task in tokens, and the ablation; see :class:`Problem`.

    Attributes:
        nodes_above: the size of the effect, per example and position, above which edges into a node are wanted; None for no
            edges.
    """

    anatomy: Anatomy
    graph: FeatureGraph
    prompts: Prompts
    ablated: AblatedPlaces
    batch_size: int
    track: Callable[[Iterator[Any], int], Iterator[Any]]
    positions: Positions | None = None
    per_example: bool = False
    nodes_above: float | None = None

    def share_after(self, place: int) -> float:
        """The share of the model's layers that run again when a run is taken up at a place."""
        site, n_layers = self.graph.places[place].site, len(self.anatomy.blocks)
        return (n_layers - max(0, site.order[0] + (site.kind == "resid"))) / n_layers

    def situations(self) -> Iterator[tuple[Tensor, Situation]]:
        """Each batch run clean and ablated, with the rows that it holds."""
        n = -(-len(self.prompts) // self.batch_size)
        for rows, batch in self.track(self.prompts.batches(self.batch_size, positions=self.positions), n):
            yield rows, Situation.of(self, batch)


@dataclass(frozen=True, eq=False)
class Situation:
    """One batch: its clean run, and the ablated values at every place.

    Attributes:
        batch: with the clean logits, where the metric needs them.
        clean, corrupted: the metric per example, of the clean and (under PATCH) of the corrupted run.
        groups: the position of the graph that every token belongs to, int64 ``[tokens]``, -1 at padding.
    """

    anatomy: Anatomy
    graph: FeatureGraph
    metric: Metric
    batch: Batch
    embedding: Tensor
    run: Captured
    references: tuple[Reference, ...]
    clean: Tensor
    corrupted: Tensor | None
    groups: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, problem: FeatureProblem, batch: Batch) -> Situation:
        anatomy, graph, metric = problem.anatomy, problem.graph, problem.prompts.metric
        embedding = anatomy.embed(batch.tokens)
        run = capture(anatomy, graph, embedding, batch.padding)
        batch = with_clean_logits(anatomy, metric, run.final, batch)
        references, corrupted = problem.ablated(batch)
        end = None if corrupted is None else measure(anatomy, metric, corrupted, batch)
        groups = torch.where(batch.real, 0, -1) if batch.groups is None else batch.groups
        value = measure(anatomy, metric, run.final, batch)
        return cls(anatomy, graph, metric, batch, embedding, run, references, value, end, groups.flatten())

    def change(self, place: int) -> Change:
        """What ablation changes at a place. Cost: the place's dictionary over clean and ablated activations."""
        return change_at(self.graph.places[place], self.run.held[place], self.references[place], self.batch.real)

    @property
    def n_pos(self) -> int:
        return self.batch.tokens.shape[1]

    def blocks(self, place: int, values: Tensor) -> Tensor:
        """What a place's error or whole nodes write, or its gradient, apart: ``[..., d]`` to ``[..., blocks, d / blocks]``."""
        return values.unflatten(-1, (self.graph.places[place].n_blocks, -1))


class Sparse:
    """Numbers added up under integer keys; what was never added is not stored."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._waiting = 0

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Add values to the sums of their keys; keys may repeat."""
        keys, values = keys.flatten(), values.flatten().float()
        there = values != 0
        self._keys.append(keys[there].cpu())
        self._values.append(values[there].cpu())
        self._waiting += len(self._keys[-1])
        if self._waiting > 1 << 22:
            self.collect()

    def collect(self) -> tuple[Tensor, Tensor]:
        """The keys in ascending order and their sums."""
        if not self._keys:
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        if len(self._keys) > 1 or self._waiting:
            keys, where = torch.cat(self._keys).unique(return_inverse=True)
            sums = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, where, torch.cat(self._values).double())
            self._keys, self._values, self._waiting = [keys], [sums.float()], 0
        return self._keys[0], self._values[0]


class FeatureTally:
    """Adds up what a method finds, batch by batch, on the CPU."""

    def __init__(self, problem: FeatureProblem) -> None:
        n = len(problem.prompts)
        self.problem, self.graph = problem, problem.graph
        self.nodes, self.edges = Sparse(), Sparse()
        self.per_example = Sparse() if problem.per_example else None
        self.clean, self._corrupted = torch.empty(n), torch.full((n,), torch.nan)
        self.sums = torch.zeros(len(self.graph.places), dtype=torch.float64)
        self.whole = torch.zeros(len(self.graph.places), dtype=torch.float64)
        self.integrated = False
        self.passes = (0.0, 0.0)

    def measured(self, rows: Tensor, situation: Situation) -> None:
        self.clean[rows] = situation.clean.cpu().float()
        if situation.corrupted is not None:
            self._corrupted[rows] = situation.corrupted.cpu().float()

    @property
    def corrupted(self) -> Tensor | None:
        return self._corrupted if self.problem.ablated.constants is None else None

    def convergence(self, n: int) -> dict[str, tuple[float, float]]:
        """Per place, averaged over ``n`` examples: the sum of its nodes' effects, and the effect of all of them together."""
        if not self.integrated:
            return {}
        pairs = zip(self.graph.places, self.sums.tolist(), self.whole.tolist(), strict=True)
        return {place.name: (found / n, whole / n) for place, found, whole in pairs}

    def scored(self, rows: Tensor, situation: Situation, place: int, nodes: Tensor, effects: Tensor) -> None:
        """Effects of some of a place's nodes, token by token: both ``[tokens, n]``; ``nodes`` counts within the place."""
        groups = situation.groups.to(nodes.device)[:, None]
        keys = (self.graph.offsets[place] + nodes) * self.graph.n_positions + groups
        effects = effects * (groups >= 0)
        self.nodes.add(keys, effects)
        if self.per_example is not None:
            examples = rows.to(nodes.device).repeat_interleave(situation.n_pos)[:, None]
            self.per_example.add(examples * (self.graph.size + 1) + keys, effects)
