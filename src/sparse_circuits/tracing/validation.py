"""What validating a trace returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sparse_circuits.evaluation.bootstrap import interval, resamples


@dataclass(frozen=True)
class Moved:
    """What ablating all traced features at once changes of one thing, beside the sum of what each changes by itself.

    Attributes:
        name: a feature, or a token of which it is the logit.
        together, separate: the change under all ablations at once, and the sum of the changes under each alone; averages
            over examples. Of a feature, activation summed over tokens; of a logit, less the mean change of all logits.
        clean: of a feature, its activation in the clean run, summed over tokens; None of a logit.
    """

    name: str
    together: float
    separate: float
    clean: float | None = None


@dataclass(frozen=True, eq=False)
class Validation:
    """What happens when all features of a trace are ablated at once; see :func:`validate_trace`.

    Attributes:
        names: of the features, in the model's order.
        clean, ablated: the metric per example, ``[examples]``.
        separate: by how much each feature alone changes it, ``[features, examples]``.
        loss: what the losses are: of the task's "answer", of every "next token" of the prompts, or None for none.
        loss_clean, loss_ablated, loss_separate: the same three of the cross-entropy loss, in nats; lower is better.
        features: traced features, and reached ones, that lie after others: what they are before they are ablated themselves.
            Largest change first.
        tokens: logits at the last token that change most, largest first.
        ablation, metric, task: by name.
    """

    names: tuple[str, ...]
    clean: Tensor
    ablated: Tensor
    separate: Tensor
    loss: Literal["answer", "next token"] | None
    loss_clean: Tensor | None
    loss_ablated: Tensor | None
    loss_separate: Tensor | None
    features: tuple[Moved, ...]
    tokens: tuple[Moved, ...]
    ablation: str
    metric: str
    task: str

    @property
    def change(self) -> float:
        """m(all ablated) - m(clean), averaged over examples: below 0 where the features carry the behaviour."""
        return _mean(self.ablated - self.clean)

    @property
    def change_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval over examples."""
        return _interval(self.ablated - self.clean)

    @property
    def separate_sum(self) -> float:
        """The sum over features of m(feature ablated) - m(clean), averaged over examples."""
        return _mean(self.separate.sum(0))

    @property
    def separate_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of :attr:`separate_sum` over examples."""
        return _interval(self.separate.sum(0))

    @property
    def interaction(self) -> float:
        """:attr:`change` less :attr:`separate_sum`: 0 where effects add up.

        Of the opposite sign to both where features do the same work or lie behind one another, so that the sum counts it
        several times; of the same sign where one stands in for another that is gone.
        """
        return _mean(self.ablated - self.clean - self.separate.sum(0))

    @property
    def interaction_interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of :attr:`interaction` over examples."""
        return _interval(self.ablated - self.clean - self.separate.sum(0))

    @property
    def effects(self) -> dict[str, float]:
        """What each feature alone does to the metric, by name, in the model's order."""
        return dict(zip(self.names, self.separate.double().mean(1).tolist(), strict=True))

    @property
    def loss_change(self) -> float | None:
        """By how much the loss rises, averaged over examples."""
        if self.loss_ablated is None or self.loss_clean is None:
            return None
        return _mean(self.loss_ablated - self.loss_clean)

    @property
    def loss_interval(self) -> tuple[float, float] | None:
        """95% percentile bootstrap interval of the loss's change over examples; None where there is no loss."""
        if self.loss_ablated is None or self.loss_clean is None:
            return None
        return _interval(self.loss_ablated - self.loss_clean)

    @property
    def loss_separate_sum(self) -> float | None:
        """The changes of the loss under each feature's own ablation, added up; None where there is no loss."""
        return None if self.loss_separate is None else _mean(self.loss_separate.sum(0))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values."""
        found: dict[str, Any] = {
            "task": self.task,
            "metric": self.metric,
            "ablation": self.ablation,
            "n_examples": len(self.clean),
            "names": list(self.names),
            "clean": _mean(self.clean),
            "ablated": _mean(self.ablated),
            "change": self.change,
            "change_interval": list(self.change_interval),
            "separate_sum": self.separate_sum,
            "separate_interval": list(self.separate_interval),
            "interaction": self.interaction,
            "interaction_interval": list(self.interaction_interval),
            "effects": self.effects,
            "per_example": {"clean": self.clean.tolist(), "ablated": self.ablated.tolist()},
            "loss": None,
            "features": [asdict(moved) for moved in self.features],
            "tokens": [asdict(moved) for moved in self.tokens],
        }
        if self.loss_clean is not None and self.loss_ablated is not None and self.loss_interval is not None:
            found["loss"] = {
                "of": self.loss,
                "clean": _mean(self.loss_clean),
                "ablated": _mean(self.loss_ablated),
                "change": self.loss_change,
                "change_interval": list(self.loss_interval),
                "separate_sum": self.loss_separate_sum,
            }
        return found

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """All at once beside the sum of the separate effects; see
        :func:`sparse_circuits.view.plots.tracing.plot_validation`.
        """
        from sparse_circuits.view.plots.tracing import plot_validation

        return plot_validation(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_validation

        return of_validation(self)

    def __repr__(self) -> str:
        low, high = self.change_interval
        features = f"{len(self.names)} feature{'s' * (len(self.names) != 1)}"
        return (
            f"Validation({features} ablated at once, {self.ablation}: {self.metric} {_mean(self.clean):.4g} -> "
            f"{_mean(self.ablated):.4g}, change {self.change:.3f} [{low:.3f}, {high:.3f}], sum of separate effects "
            f"{self.separate_sum:.3f})"
        )


def by_size(moved: Sequence[Moved]) -> tuple[Moved, ...]:
    return tuple(sorted(moved, key=lambda one: abs(one.together), reverse=True))


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _interval(values: Tensor) -> tuple[float, float]:
    return interval(values.double()[resamples(len(values), 1000, 0)].mean(1))
