"""What every attribution method declares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from sparse_circuits.attribution.ablation import Ablated
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.task import Prompts


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a method works on: one model, its graph, a task in tokens, and the ablation."""

    anatomy: Anatomy
    graph: Graph
    prompts: Prompts
    ablated: Ablated
    batch_size: int
    track: Callable[[Iterator[Any], int], Iterator[Any]]


@dataclass(frozen=True, eq=False)
class Raw:
    """What a method returns: score sums over examples, and what it measured on the way.

    Attributes:
        total: edge scores summed over examples: float32 ``[n_sources, n_destinations]``.
        clean, corrupted: the metric per example, of the clean run and (where one was made) the corrupted run.
        forwards, backwards: passes per batch.
    """

    total: Tensor
    clean: Tensor
    corrupted: Tensor | None
    forwards: float
    backwards: float


class Method(ABC):
    """An attribution method: a frozen dataclass whose fields are its options.

    Attributes:
        signed: whether scores estimate a signed indirect effect.
        needs_corrupted: whether the method itself takes a path from corrupted prompts (PATCH needs them in any case).
        only_clean_gradient: whether the only gradient is taken at the clean run, where NegativeKL is flat.
    """

    signed: ClassVar[bool] = True
    only_clean_gradient: ClassVar[bool] = False

    @property
    def needs_corrupted(self) -> bool:
        return False

    @abstractmethod
    def run(self, problem: Problem) -> Raw:
        """Score every edge of the graph."""

    @property
    def options(self) -> dict[str, Any]:
        """The method's fields, for provenance."""
        return asdict(self)  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"
