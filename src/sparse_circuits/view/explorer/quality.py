"""How good a circuit is, at the sizes of the slider: its curve and its evaluation as the page is told them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_circuits.circuit import FeatureScores, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.view.explorer.side import Shown

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation

Interval = Sequence[float | None]


@dataclass(frozen=True)
class Quality:
    """What is known of one of the page's circuits, as JSON; each has its place on the slider under "x".

    Attributes:
        random: circuits of its size, drawn at random.
    """

    curve: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    random: dict[str, Any] | None = None

    def asked(self, largest: int) -> list[int]:
        """The sizes that the slider must have for it: of a curve, which may go up to the whole model, those up to ``largest``."""
        points = self.curve["points"] if self.curve else ()
        found = [point["x"] for point in points if point["x"] <= largest]
        return found if self.evaluation is None else [*found, self.evaluation["x"]]

    def step_in(self, steps: Sequence[int]) -> int:
        """Where the evaluated circuit is among the slider's steps; the last one where none was."""
        return (
            steps.index(self.evaluation["x"]) if self.evaluation and self.evaluation["x"] in steps else len(steps) - 1
        )

    def check(self, shown: Shown, own: Mapping[int, int]) -> None:
        """
        Args:
            own: of the circuits on the slider, their own sizes by those asked for.

        Raises:
            InputError: where these are not the circuits that the curve or the evaluation is of.
        """
        if isinstance(shown, Scores | FeatureScores):
            if self.curve is not None:
                _check("curve", own, [(point["asked"], point["size"]) for point in self.curve["points"]])
            if self.evaluation is not None:
                _check("evaluation", own, [(self.evaluation["x"], self.evaluation["size"])])
        elif self.evaluation is not None and self.evaluation["size"] != shown.size:
            raise InputError(
                f"explore(evaluation=...) is of a circuit of {self.evaluation['size']}, and this one has {shown.size}; pass "
                "the circuit that was evaluated, or the scores that it was taken from."
            )


def _check(name: str, own: Mapping[int, int], pairs: Sequence[tuple[int, int]]) -> None:
    for asked, size in pairs:
        if asked in own and own[asked] != size:
            raise InputError(
                f"explore({name}=...) is of other circuits: {asked} parts asked for gave one of {size} there, and {own[asked]} "
                "here. Pass the scores it was found with, and the same select= and signed=."
            )


def quality_of(shown: Shown, curve: Curve | None, evaluation: Evaluation | None, baseline: Baseline | None) -> Quality:
    """What results know of a circuit, or of the circuits that are taken from scores."""
    by_asked = isinstance(shown, Scores | FeatureScores)
    return Quality(
        None if curve is None else _curve_of(curve, by_asked),
        None if evaluation is None else _evaluation_of(evaluation, by_asked),
        None if baseline is None else random_data(
            baseline.size, baseline.median, baseline.interval, len(baseline.evaluations)
        ),
    )  # fmt: skip


def _curve_of(curve: Curve, by_asked: bool) -> dict[str, Any]:
    ablation = curve.evaluations[0].ablation
    return curve_data(curve.requested, curve.sizes, curve.faithfulness, curve.intervals, ablation, by_asked)


def _evaluation_of(evaluation: Evaluation, by_asked: bool) -> dict[str, Any]:
    size = evaluation.circuit.size
    asked = (evaluation.circuit.provenance.get("selection") or {}).get("n") if by_asked else None
    return evaluation_data(
        int(asked or size), size, evaluation.faithfulness, evaluation.faithfulness_interval,
        evaluation.completeness, evaluation.mean, evaluation.ablation,
    )  # fmt: skip


def curve_data(
    requested: Sequence[int],
    sizes: Sequence[int],
    faithfulness: Sequence[float | None],
    intervals: Sequence[Interval],
    ablation: str,
    by_asked: bool,
) -> dict[str, Any]:
    """
    Args:
        by_asked: the slider counts what is asked for, as it does of scores; otherwise the circuits' own sizes.
    """
    points = [
        {"asked": n, "size": size, "x": n if by_asked else size, **_faithfulness(value, interval)}
        for n, size, value, interval in zip(requested, sizes, faithfulness, intervals, strict=True)
    ]
    return {"points": points, "ablation": ablation}


def evaluation_data(
    x: int,
    size: int,
    faithfulness: float | None,
    interval: Interval,
    completeness: float | None,
    mean: float | None,
    ablation: str,
) -> dict[str, Any]:
    """Of one circuit, at ``x`` on the slider."""
    return {
        "x": x, "size": size, **_faithfulness(faithfulness, interval),
        "completeness": number(completeness), "ablation": ablation, "mean": number(mean),
    }  # fmt: skip


def random_data(size: int, median: float | None, interval: Interval, draws: int) -> dict[str, Any]:
    """Of random circuits of one size."""
    return {**_faithfulness(median, interval), "draws": draws, "size": size}


def _faithfulness(value: float | None, interval: Interval) -> dict[str, float | None]:
    low, high = interval
    return {"value": number(value), "low": number(low), "high": number(high)}


def number(value: float | None) -> float | None:
    """In so many digits that it is rounded once, where it is shown; None for what is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")
