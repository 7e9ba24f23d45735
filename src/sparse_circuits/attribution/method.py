"""What every attribution method declares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablated
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally
from sparse_circuits.errors import InputError
from sparse_circuits.graph import LEVELS, Graph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.positions import Positions
from sparse_circuits.task.task import Prompts


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a method works on: one model, its graph, a task in tokens, and the ablation.

    Attributes:
        graph: what is scored; with positions where these are told apart.
        positions: which position of the graph every token belongs to, or None.
        per_example: whether the scores of every example are wanted, beside their sum.
    """

    anatomy: Anatomy
    graph: Graph
    prompts: Prompts
    ablated: Ablated
    batch_size: int
    track: Callable[[Iterator[Any], int], Iterator[Any]]
    positions: Positions | None = None
    per_example: bool = False

    @property
    def n_batches(self) -> int:
        return -(-len(self.prompts) // self.batch_size)

    def batches(self) -> Iterator[tuple[Tensor, Batch]]:
        """Each batch, its tokens' positions in the graph where there are any, with the rows that it holds."""
        return self.prompts.batches(self.batch_size, positions=self.positions)


class Tally:
    """Adds up what a method finds, batch by batch, on the CPU in float32."""

    def __init__(self, problem: Problem) -> None:
        n, graph = len(problem.prompts), problem.graph
        self.patched = problem.ablated.constant is None
        self._mask = graph.mask
        self._total = torch.zeros(graph.shape)
        self._per_example = torch.zeros(n, graph.size) if problem.per_example else None
        self._clean, self._corrupted = torch.empty(n), torch.full((n,), torch.nan)

    def measured(self, rows: Tensor, clean: Tensor, corrupted: Tensor | None) -> None:
        """The metric of a batch's examples, of the clean and (under PATCH) of the corrupted run."""
        self._clean[rows] = clean.detach().cpu()
        if corrupted is not None:
            self._corrupted[rows] = corrupted.detach().cpu()

    def scored(self, rows: Tensor, scores: Tensor) -> None:
        """Scores of a batch: of its examples ``[examples, *graph.shape]`` where these are wanted, or their sum ``[1, ...]``."""
        scores = scores.cpu()
        self._total += scores.sum(0)
        if self._per_example is not None:
            self._per_example[rows] = scores[:, self._mask]

    def raw(self, forwards: float, backwards: float, selected: Tensor | None = None) -> Raw:
        corrupted = self._corrupted if self.patched else None
        return Raw(self._total, self._per_example, self._clean, corrupted, forwards, backwards, selected)


@dataclass(frozen=True, eq=False)
class Raw:
    """What a method returns: score sums over examples, and what it measured on the way.

    Attributes:
        total: scores summed over examples: float32, of the graph's shape.
        per_example: scores of every example, ``[examples, graph.size]``, where wanted.
        clean, corrupted: the metric per example, of the clean run and (where one was made) the corrupted run.
        forwards, backwards: passes per batch.
        selected: what a method that selects by itself chose: bool, of the graph's shape.
    """

    total: Tensor
    per_example: Tensor | None
    clean: Tensor
    corrupted: Tensor | None
    forwards: float
    backwards: float
    selected: Tensor | None = None


class Method(ABC):
    """An attribution method: a frozen dataclass whose fields are its options.

    Attributes:
        signed: whether scores estimate a signed indirect effect.
        levels: the levels of a graph that it can score.
        needs_ablation: whether ablated values play a part.
        tells_positions: whether it can score positions apart.
        needs_corrupted: whether the method itself takes a path from corrupted prompts (PATCH needs them in any case).
        finds_edges: whether it finds edges between features.
        takes_gradients: whether backward passes are made.
        only_clean_gradient: whether the only gradient is taken at the clean run, where NegativeKL is flat.
    """

    signed: ClassVar[bool] = True
    takes_gradients: ClassVar[bool] = True
    only_clean_gradient: ClassVar[bool] = False
    finds_edges: ClassVar[bool] = False
    levels: ClassVar[tuple[str, ...]] = LEVELS
    needs_ablation: ClassVar[bool] = True
    tells_positions: ClassVar[bool] = True

    @property
    def needs_corrupted(self) -> bool:
        return False

    def run_features(self, problem: FeatureProblem) -> FeatureTally:
        """Score the nodes of a feature graph, and edges where the problem asks for them.

        Raises:
            InputError: by default, since not every method can.
        """
        raise InputError(
            f"{type(self).__name__} does not score features; use EAP, EAPIG, CleanCorrupted, RelP or Exact."
        )

    @abstractmethod
    def run(self, problem: Problem) -> Raw:
        """Score everything in the graph."""

    @property
    def options(self) -> dict[str, Any]:
        """The method's fields, for provenance."""
        return asdict(self)  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"
