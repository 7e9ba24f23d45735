"""The page to explore a run's circuit in, with circuits of other sizes from the same scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.curves import CURVE
from sparse_circuits.cli.load import Opened, ablation_named
from sparse_circuits.cli.record import RECORD, SCORES, Record
from sparse_circuits.errors import FileFormatError

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
    from sparse_circuits.evaluation import Curve, Evaluation
    from sparse_circuits.view.explorer import Page
    from sparse_circuits.view.explorer.quality import Quality

PAGE = "explorer.html"
_SMALLER = (8, 4, 2)
_LARGER = {"features": (2,)}  # a feature circuit has far more edges for its size
_LARGER_OTHERS = (2, 4)
_LARGEST = 5000


def other_circuits(scores: Scores | FeatureScores, circuit: Circuit | FeatureCircuit) -> dict[int, Any]:
    """Circuits from an eighth to a few times the size of one, by the sizes asked for, as that one was chosen.

    None, where it was not chosen by its size alone: then other sizes are no part of the same series.
    """
    chosen = circuit.provenance["selection"]
    if chosen["rule"] not in ("greedy", "top") or chosen.get("edges") is not None or chosen.get("prune"):
        return {}
    n, features = chosen["n"], circuit.graph.level == "features"
    total = len(scores.node_ids) if features else scores.graph.size  # pyright: ignore[reportAttributeAccessIssue]
    larger = (times * n for times in _LARGER.get(circuit.graph.level, _LARGER_OTHERS))
    sizes = {*(n // part for part in _SMALLER), *(min(size, total) for size in larger if size <= _LARGEST)}
    choose = getattr(scores, chosen["rule"])
    return {size: choose(size, signed=chosen["signed"]) for size in sorted(sizes - {0, n})}


def curve_through(
    circuit: Circuit | FeatureCircuit, others: dict[int, Any], evaluations: Sequence[Evaluation]
) -> Curve | None:
    """A curve of a circuit and others, in the order in which they were evaluated: the circuit first."""
    from sparse_circuits.evaluation import Curve

    if not others:
        return None
    found = sorted(
        zip([circuit.provenance["selection"]["n"], *others], evaluations, strict=True), key=lambda one: one[0]
    )
    return Curve(tuple(n for n, _ in found), tuple(evaluation for _, evaluation in found))


@dataclass(frozen=True, eq=False)
class RunPage:
    """What is shown of a circuit, and of circuits of other sizes from the same scores where its size stands for it.

    Attributes:
        scores: None for a circuit alone.
        measured: how good they are, as records have it; empty for a circuit that no record is of.
        select, signed: how they are taken from the scores.
        max_size: the slider's end, of scores.
    """

    circuit: Circuit | FeatureCircuit
    scores: Scores | FeatureScores | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    select: str = "greedy"
    signed: bool = False
    max_size: int | None = None

    @classmethod
    def of_run(
        cls, circuit: Circuit | FeatureCircuit, scores: Scores | FeatureScores | None, record: Record
    ) -> RunPage:
        """With what the run itself measured."""
        results, selection = record.results, circuit.provenance["selection"]
        measured = {
            "ablation": ablation_named(record.arguments.ablation).kind,
            "size": results["size"]["circuit"],
            "metric": results["metric"]["circuit"],
            **{key: results[key] for key in ("faithfulness", "faithfulness_interval", "random")},
            "curve": results.get("curve"),
        }
        if scores is None or measured["curve"] is None:
            return cls(circuit, measured=measured)
        return cls(
            circuit, scores, measured, selection["rule"], selection["signed"], measured["curve"]["requested"][-1]
        )

    @classmethod
    def opened(cls, opened: Opened) -> RunPage:
        """With what ``evaluate --curve`` measured since, where it did, in place of what the run measured.

        Raises:
            FileFormatError: for records or scores that are damaged.
        """
        from sparse_circuits.circuit import Scores
        from sparse_circuits.view.explorer.side import largest_size

        circuit, record, folder = opened.circuit, opened.record, opened.path.parent
        selection = circuit.provenance.get("selection")
        if record is None or selection is None or record.provenance.get("selection") != selection:
            return cls(circuit)
        scores = Scores.load(folder / SCORES) if (folder / SCORES).is_file() else None
        with _read(folder / RECORD):
            found = cls.of_run(circuit, scores, record)
            found.quality(found.scores is not None)
        if found.scores is None or not (folder / CURVE).is_file():
            return found
        with _read(folder / CURVE):
            since = json.loads((folder / CURVE).read_text(encoding="utf-8"))
            curve = {key: since[key] for key in ("requested", "sizes", "faithfulness", "intervals")}
            measured = {**since["circuit"], "ablation": since["ablation"], "curve": curve}
            end = max(found.max_size or 0, largest_size(found.scores, None))
            found = replace(found, measured=measured, max_size=end)
            found.quality(True)
        return found

    def quality(self, by_asked: bool) -> Quality:
        """How good they are, for a slider over what is asked of scores or over a circuit's own parts."""
        from sparse_circuits.view.explorer.quality import Quality, curve_data, evaluation_data, random_data

        known = self.measured
        if not known:
            return Quality()
        ablation, size, curve, random = known["ablation"], known["size"], known["curve"], known["random"]
        x = self.circuit.provenance["selection"]["n"] if by_asked else size
        value, interval = known["faithfulness"], known["faithfulness_interval"]
        return Quality(
            None if curve is None else curve_data(**curve, ablation=ablation, by_asked=by_asked),
            evaluation_data(x, size, value, interval, known.get("completeness"), known["metric"], ablation),
            random_data(size, random["median"], random["interval"], len(random["faithfulness"])),
        )

    def page(self, other: RunPage | None = None, **options: Any) -> Page:
        """The page, with a second circuit beside this one if there is one; ``options`` are those of :func:`explore`.

        Two are shown by what is asked for where both are taken from scores in the same way, or else each by its own parts.
        """
        from sparse_circuits.view.explorer.page import page_of

        both = [self] if other is None else [self, other]
        by_asked = all(one.scores is not None for one in both) and len({(one.select, one.signed) for one in both}) == 1
        if by_asked:
            end = max(one.max_size or 0 for one in both)
            options = {"max_size": end, "select": self.select, "signed": self.signed, **options}
        sides: list[Any] = [one.scores if by_asked else one.circuit for one in both]
        return page_of(sides, [one.quality(by_asked) for one in both], **options)


@contextmanager
def _read(path: Path) -> Iterator[None]:
    """What is missing from a record, or of another kind, is said of its file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}); make it again, or move it away."
        ) from None
