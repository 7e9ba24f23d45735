"""What came out of the SHIFT experiment: accuracies with intervals, and which features were ablated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.evaluation.bootstrap import interval
from sparse_circuits.zoo.shift_data import Texts

_DRAWS, _AT_ONCE = 1000, 100
HEADINGS = ("", "ablated", "intended", "unintended", "worst group")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One seed.

    Attributes:
        test: the texts.
        predictions: by row, a prediction for every test text, ``[texts]``, once for each random draw where there are several.
        removed: by row, likewise, the features that were ablated.
    """

    seed: int
    test: Texts
    predictions: Mapping[str, list[Tensor]]
    removed: Mapping[str, list[list[str]]]


@dataclass(frozen=True)
class Accuracy:
    """A share of test texts, averaged over seeds and draws, with its 95% bootstrap interval, and each seed's own."""

    value: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]

    @classmethod
    def of(cls, right: Tensor, worst: bool = False) -> Accuracy:
        """
        Args:
            right: bool ``[seeds, draws, groups, texts]``.
            worst: of the worst group of each seed and draw instead of all.
        """

        def value(right: Tensor) -> Tensor:
            groups = right.double().mean(-1)
            return (groups.amin(-1) if worst else groups.mean(-1)).mean(-1)

        (n_seeds, _, *rest), generator = right.shape, torch.Generator().manual_seed(0)
        drawn = []
        for _ in range(_DRAWS // _AT_ONCE):  # texts are resampled within their group and seed, the same for all draws
            rows = torch.randint(rest[-1], (_AT_ONCE, n_seeds, 1, *rest), generator=generator)
            drawn.append(value(right.expand(_AT_ONCE, *right.shape).gather(-1, rows.expand(-1, *right.shape))).mean(-1))
        seeds = value(right)
        return cls(float(seeds.mean()), interval(torch.cat(drawn)), tuple(seeds.tolist()))


@dataclass(frozen=True)
class Row:
    """One way of making the classifier.

    Attributes:
        ablated: how many features, neurons or words are ablated, averaged over seeds.
        intended: accuracy on the attribute that it should tell; ``unintended``: agreement with the one that it should not,
            0.5 where it does not depend on it; ``worst_group``: accuracy in the worst of the four groups.
    """

    name: str
    ablated: float
    intended: Accuracy
    unintended: Accuracy
    worst_group: Accuracy

    def cells(self) -> tuple[str, ...]:
        """As the table has it."""
        parts = (self.intended, self.unintended, self.worst_group)
        shown = (f"{100 * p.value:.1f} [{100 * p.interval[0]:.0f}, {100 * p.interval[1]:.0f}]" for p in parts)
        return (self.name, f"{self.ablated:.0f}" if self.ablated else "", *shown)


@dataclass(frozen=True)
class ShiftResult:
    """The table.

    Attributes:
        rows: one for each way of making the classifier, all on the same test texts.
        removed: by seed, the features that SHIFT ablated.
        settings: what the run depended on.
    """

    rows: tuple[Row, ...]
    removed: Mapping[int, tuple[str, ...]]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, outcomes: tuple[Outcome, ...], settings: Mapping[str, Any]) -> ShiftResult:
        """The table of some seeds."""
        rows = []
        for name in outcomes[0].predictions:
            right = [torch.stack([_grouped(o, p == o.test.intended) for p in o.predictions[name]]) for o in outcomes]
            other = [torch.stack([_grouped(o, p == o.test.unintended) for p in o.predictions[name]]) for o in outcomes]
            intended, unintended = torch.stack(right), torch.stack(other)
            sizes = [len(names) for o in outcomes for names in o.removed.get(name, ())]
            rows.append(
                Row(
                    name,
                    sum(sizes) / max(1, len(sizes)),
                    Accuracy.of(intended),
                    Accuracy.of(unintended),
                    Accuracy.of(intended, worst=True),
                )
            )
        return cls(tuple(rows), {o.seed: tuple(o.removed["shift"][0]) for o in outcomes}, settings)

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def table(self) -> str:
        """Rows and columns as text, accuracies in percent."""
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
        padded = ("  ".join((line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:]))) for line in lines)
        return "\n".join(line.rstrip() for line in padded)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Accuracies with their intervals; see :func:`sparse_circuits.zoo.shift_plot.plot_shift`."""
        from sparse_circuits.zoo.shift_plot import plot_shift

        return plot_shift(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import card, grid

        return card("ShiftResult", [], grid(HEADINGS, (row.cells() for row in self.rows)))

    def records(self) -> list[list[Any]]:
        """A heading and a line for each row, as CSV has it: values and the ends of their intervals, as shares."""
        measures = ("intended", "unintended", "worst_group")
        heading = ["row", "ablated", *(f"{m}{end}" for m in measures for end in ("", "_low", "_high"))]
        lines = []
        for row in self.rows:
            found = (getattr(row, measure) for measure in measures)
            lines.append([row.name, row.ablated, *(x for a in found for x in (a.value, *a.interval))])
        return [heading, *lines]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "rows": {row.name: {k: v for k, v in asdict(row).items() if k != "name"} for row in self.rows},
            "removed": {str(seed): list(names) for seed, names in self.removed.items()},
            "settings": dict(self.settings),
        }


def _grouped(outcome: Outcome, right: Tensor) -> Tensor:
    """``[texts]`` to ``[groups, texts]``."""
    groups = outcome.test.groups
    return torch.stack([right[groups == group] for group in range(4)])
