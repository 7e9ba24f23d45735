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
    from sparse_circuits.evaluation import Curve, Evaluation

_LARGEST_OF_CURVE = 1000  # a curve goes up to the whole model; the slider does not follow it there by itself


@dataclass(frozen=True)
class Quality:
    """What is known of one of the page's circuits, as JSON; each has its place on the slider under "x"."""

    curve: dict[str, Any] | None
    evaluation: dict[str, Any] | None


def asked_of(
    sides: Sequence[Shown], curves: Sequence[Curve | None], evaluations: Sequence[Evaluation | None]
) -> list[list[int]]:
    """Of each side, the sizes that the slider must have for what is known of it."""
    found = []
    for shown, curve, evaluation in zip(sides, curves, evaluations, strict=True):
        asked = [] if curve is None else [n for n in _places(shown, curve) if n <= _LARGEST_OF_CURVE]
        found.append(asked if evaluation is None else [*asked, _place(shown, evaluation)])
    return found


def quality_of(shown: Shown, own: Mapping[int, int], curve: Curve | None, evaluation: Evaluation | None) -> Quality:
    """
    Args:
        own: of the circuits on the slider, their own sizes by those asked for.

    Raises:
        InputError: where these are not the circuits that the curve or the evaluation is of.
    """
    if isinstance(shown, Scores | FeatureScores):
        if curve is not None:
            _check("curve", own, zip(curve.requested, curve.sizes, strict=True))
        if evaluation is not None:
            _check("evaluation", own, [(_place(shown, evaluation), evaluation.circuit.size)])
    elif evaluation is not None and evaluation.circuit.size != shown.size:
        raise InputError(
            f"explore(evaluation=...) is of a circuit of {evaluation.circuit.size}, and this one has {shown.size}; pass the "
            "circuit that was evaluated, or the scores that it was taken from."
        )
    return Quality(
        None if curve is None else _curve_data(shown, curve),
        None if evaluation is None else _evaluation_data(shown, evaluation),
    )


def _check(name: str, own: Mapping[int, int], pairs: Any) -> None:
    for asked, size in pairs:
        if asked in own and own[asked] != size:
            raise InputError(
                f"explore({name}=...) is of other circuits: {asked} parts asked for gave one of {size} there, and {own[asked]} "
                "here. Pass the scores it was found with, and the same select= and signed=."
            )


def _places(shown: Shown, curve: Curve) -> tuple[int, ...]:
    """Of scores the sizes asked for, as the slider has them; of a circuit the curve's own."""
    return curve.requested if isinstance(shown, Scores | FeatureScores) else curve.sizes


def _place(shown: Shown, evaluation: Evaluation) -> int:
    size = evaluation.circuit.size
    if not isinstance(shown, Scores | FeatureScores):
        return size
    return int((evaluation.circuit.provenance.get("selection") or {}).get("n") or size)


def _curve_data(shown: Shown, curve: Curve) -> dict[str, Any]:
    points = [
        {"asked": n, "size": e.circuit.size, "x": x, **_faithfulness(e)}
        for n, x, e in zip(curve.requested, _places(shown, curve), curve.evaluations, strict=True)
    ]
    return {"points": points, "ablation": curve.evaluations[0].ablation}


def _evaluation_data(shown: Shown, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "x": _place(shown, evaluation), "size": evaluation.circuit.size, **_faithfulness(evaluation),
        "completeness": number(evaluation.completeness), "ablation": evaluation.ablation, "mean": number(evaluation.mean),
    }  # fmt: skip


def _faithfulness(evaluation: Evaluation) -> dict[str, float | None]:
    low, high = evaluation.faithfulness_interval
    return {"value": number(evaluation.faithfulness), "low": number(low), "high": number(high)}


def number(value: float | None) -> float | None:
    """In four digits; None for what is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
