"""How good a circuit is, as records have it: written by ``find`` and ``evaluate --curve``, read for the run's page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.load import ablation_named
from sparse_circuits.cli.record import Record
from sparse_circuits.errors import FileFormatError

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation

CURVE = "curve.json"
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Points:
    """A curve: per circuit what was asked for, its own size, and its faithfulness; None for what is undefined."""

    requested: tuple[int, ...]
    sizes: tuple[int, ...]
    faithfulness: tuple[float | None, ...]
    intervals: tuple[Interval, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Points:
        """
        Raises:
            KeyError, TypeError, ValueError: for what is no curve.
        """
        found = cls(
            tuple(map(_whole, content["requested"])),
            tuple(map(_whole, content["sizes"])),
            tuple(map(_number, content["faithfulness"])),
            tuple(map(_interval, content["intervals"])),
        )
        if len({len(part) for part in vars(found).values()}) != 1 or not found.requested:
            raise ValueError("a curve whose parts differ in length")
        return found


@dataclass(frozen=True)
class Measured:
    """A circuit's evaluation, random circuits of its size, and the curve that it is on, if it is on one.

    Attributes:
        random, draws: the median of so many random circuits.
    """

    ablation: str
    size: int
    metric: float | None
    faithfulness: float | None
    interval: Interval
    completeness: float | None
    random: float | None
    random_interval: Interval
    draws: int
    curve: Points | None

    @classmethod
    def of(cls, content: Mapping[str, Any], curve: Mapping[str, Any] | None, ablation: str) -> Measured:
        """
        Args:
            content: what :func:`numbers_of_circuit` returns. curve: what :func:`numbers_of` returns.

        Raises:
            KeyError, TypeError, ValueError: for what is none of these.
        """
        random = content["random"]
        return cls(
            str(ablation),
            _whole(content["size"]),
            _number(content["metric"]),
            _number(content["faithfulness"]),
            _interval(content["faithfulness_interval"]),
            _number(content.get("completeness")),
            _number(random["median"]),
            _interval(random["interval"]),
            len(random["faithfulness"]),
            None if curve is None else Points.of(curve),
        )

    @classmethod
    def by_run(cls, record: Record) -> Measured:
        """What ``find`` measured; raises as :meth:`of`."""
        results, ablation = record.results, ablation_named(record.arguments.ablation).kind
        content = {**results, "size": results["size"]["circuit"], "metric": results["metric"]["circuit"]}
        return cls.of(content, results.get("curve"), ablation)

    @classmethod
    def since(cls, folder: Path, record: Record) -> Measured | None:
        """What ``evaluate --curve`` measured of a run since, if it did so on the run's task and model, and by its rules.

        Raises:
            FileFormatError: for a file that is damaged.
        """
        path, asked = folder / CURVE, record.arguments
        if not path.exists():
            return None
        with reading(path):
            content = json.loads(path.read_text(encoding="utf-8"))
            of = (content["task"], content["model"], content["errors"] or "nodes", content["start_layer"] or 0)
            found = cls.of(content["circuit"], content, content["ablation"])
        return found if of == (asked.task, asked.model, asked.errors or "nodes", asked.start_layer or 0) else None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What is missing from a record, or of another kind, is said of its file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise FileFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}); make it again, or move it away."
        ) from None


def numbers_of(curve: Curve) -> dict[str, Any]:
    """A curve as records have it."""
    return {
        "requested": curve.requested,
        "sizes": curve.sizes,
        "faithfulness": curve.faithfulness,
        "intervals": curve.intervals,
    }


def numbers_of_circuit(evaluation: Evaluation, baseline: Baseline) -> dict[str, Any]:
    """A circuit and random ones of its size, as records have them."""
    return {
        "size": evaluation.circuit.size,
        "metric": evaluation.mean,
        "faithfulness": evaluation.faithfulness,
        "faithfulness_interval": evaluation.faithfulness_interval,
        "completeness": evaluation.completeness,
        "random": numbers_of_random(baseline),
    }


def numbers_of_random(baseline: Baseline) -> dict[str, Any]:
    """Random circuits of one size, as records have them."""
    return {
        "faithfulness": baseline.faithfulness.tolist(),
        "median": baseline.median,
        "interval": baseline.interval,
    }


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _number(value: Any) -> float | None:
    """Infinity and NaN are null in files."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value if math.isfinite(value) else None


def _interval(value: Any) -> Interval:
    low, high = value
    return _number(low), _number(high)
