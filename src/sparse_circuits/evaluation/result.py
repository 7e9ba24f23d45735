"""What evaluation returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.evaluation.bootstrap import ratio


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a model behaves with only a circuit.

    Attributes:
        circuit: what was run.
        per_example: the metric of each example, in the task's order: ``[examples]``.
        clean, empty: the same of the whole model, and of the empty circuit under the same ablation.
        complement: the same of the circuit's complement, where ``completeness=True`` asked for it.
        ablation: by name.
        errors, start_layer: of a feature circuit, what became of error terms, and the layer from which sites were ablated.
    """

    circuit: Circuit | FeatureCircuit
    per_example: Tensor
    clean: Tensor
    empty: Tensor
    complement: Tensor | None
    ablation: str
    errors: str | None = None
    start_layer: int = 0

    @property
    def mean(self) -> float:
        """The metric, averaged over examples."""
        return float(self.per_example.double().mean())

    @property
    def faithfulness(self) -> float:
        """(m(C) - m(none)) / (m(M) - m(none)): 1 for the whole model, 0 for the empty circuit.

        NaN, with a warning, where m(M) - m(none) cannot be told from 0.
        """
        return self._faithfulness[0]

    @property
    def faithfulness_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval, examples resampled jointly in all three means."""
        return self._faithfulness[1]

    @property
    def completeness(self) -> float | None:
        """Faithfulness of the complement, lower is better; None unless ``evaluate(completeness=True)``."""
        return None if self._completeness is None else self._completeness[0]

    @property
    def completeness_interval(self) -> tuple[float, float] | None:
        """95% percentile bootstrap interval of :attr:`completeness`, or None."""
        return None if self._completeness is None else self._completeness[1]

    @cached_property
    def _faithfulness(self) -> tuple[float, tuple[float, float]]:
        value, bounds = ratio(self.per_example, self.clean, self.empty)
        if value != value:
            warnings.warn(
                f"Faithfulness is undefined: under {self.ablation} ablation the metric of the whole model "
                f"({float(self.clean.mean()):.3g}) cannot be told from that of the empty circuit "
                f"({float(self.empty.mean()):.3g}).",
                stacklevel=4,
            )
        return value, bounds

    @cached_property
    def _completeness(self) -> tuple[float, tuple[float, float]] | None:
        return None if self.complement is None else ratio(self.complement, self.clean, self.empty)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """The metric per intervention with error bars; see :func:`sparse_circuits.view.plots.interventions.plot_evaluation`."""
        from sparse_circuits.view.plots.interventions import plot_evaluation

        return plot_evaluation(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_evaluation

        return of_evaluation(self)

    def __repr__(self) -> str:
        low, high = self.faithfulness_interval
        return (
            f"Evaluation({self.circuit.size} {self.circuit.graph.thing}s, {self.ablation}: mean={self.mean:.4g}, "
            f"faithfulness={self.faithfulness:.3f} [{low:.3f}, {high:.3f}])"
        )
