"""The page to explore a run's circuit in, with circuits of other sizes from the same scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.contexts import STORE, write_pages
from sparse_circuits.cli.load import Opened
from sparse_circuits.cli.meanings import from_pages, read_pages
from sparse_circuits.cli.measured import Measured, reading
from sparse_circuits.cli.record import PAGE, RECORD, SCORES, Record

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
    from sparse_circuits.evaluation import Curve, Evaluation
    from sparse_circuits.features import Feature, HeadReport, MLPReport
    from sparse_circuits.view.explorer import Page
    from sparse_circuits.view.explorer.quality import Quality

Told = tuple[Mapping[str, "Feature"], Mapping[str, "HeadReport | MLPReport"]]
"""What nodes mean: features by name, and what heads and MLPs do."""
_SMALLER = (8, 4, 2)
_LARGER = {"features": (2,)}  # a feature circuit has far more edges for its size
_LARGER_OTHERS = (2, 4)
_LARGEST = 5000


def chosen_by_size(circuit: Circuit | FeatureCircuit) -> bool:
    """Whether a circuit was chosen by its size alone: otherwise other sizes are no part of the same series."""
    chosen = circuit.provenance.get("selection") or {}
    return chosen.get("rule") in ("greedy", "top") and chosen.get("edges") is None and not chosen.get("prune")


def other_circuits(scores: Scores | FeatureScores, circuit: Circuit | FeatureCircuit) -> dict[int, Any]:
    """Circuits from an eighth to a few times the size of one, by the sizes asked for, as that one was chosen.

    None, where it was not chosen by its size alone.
    """
    if not chosen_by_size(circuit):
        return {}
    chosen = circuit.provenance["selection"]
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
    """What is shown of a circuit: alone, or with circuits of other sizes from the scores that it was chosen from.

    Attributes:
        scores: None for a circuit alone.
        measured: how good they are; None for a circuit that no record is of.
        max_size: the slider's end, of scores.
        title: as it was recorded; None for the page's own.
    """

    circuit: Circuit | FeatureCircuit
    scores: Scores | FeatureScores | None = None
    measured: Measured | None = None
    max_size: int = 0
    title: str | None = None

    @classmethod
    def of_run(
        cls, circuit: Circuit | FeatureCircuit, scores: Scores | FeatureScores | None, record: Record
    ) -> RunPage:
        """With what the run itself measured."""
        measured, title = Measured.by_run(record), record.results.get("title")
        if scores is None or not chosen_by_size(circuit):
            return cls(circuit, None, measured, title=title)
        end = circuit.provenance["selection"]["n"] if measured.curve is None else measured.curve.requested[-1]
        return cls(circuit, scores, measured, end, title)

    @classmethod
    def opened(cls, opened: Opened) -> RunPage:
        """With what ``evaluate --curve`` measured since on the run's task, where it did, in place of what the run measured.

        Raises:
            FileFormatError: for records or scores that are damaged.
        """
        from sparse_circuits.circuit import Scores
        from sparse_circuits.view.explorer.side import largest_size

        circuit, record, folder = opened.circuit, opened.record, opened.path.parent
        if record is None or not record.results or record.provenance != circuit.provenance:
            return cls(circuit)
        by_size = chosen_by_size(circuit) and (folder / SCORES).is_file()
        scores = Scores.load(folder / SCORES) if by_size else None
        with reading(folder / RECORD):
            found = cls.of_run(circuit, scores, record)
        since = Measured.since(folder, record)
        if since is None:
            return found
        end = 0 if scores is None else max(found.max_size, largest_size(scores, None))
        return replace(found, measured=since, max_size=end)

    @property
    def quality(self) -> Quality:
        """As the page is told it. A circuit alone has no curve: of its own sizes nothing was measured."""
        from sparse_circuits.view.explorer.quality import Quality, curve_data, evaluation_data, random_data

        known = self.measured
        if known is None:
            return Quality()
        curve = None if self.scores is None else known.curve
        x = known.size if self.scores is None else self.circuit.provenance["selection"]["n"]
        return Quality(
            None
            if curve is None
            else curve_data(
                curve.requested, curve.sizes, curve.faithfulness, curve.intervals, known.ablation, by_asked=True
            ),
            evaluation_data(
                x, known.size, known.faithfulness, known.interval, known.completeness, known.metric, known.ablation
            ),
            random_data(known.size, known.random, known.random_interval, known.draws),
        )

    @property
    def how(self) -> tuple[str, bool]:
        """How circuits are taken from the scores: by which rule, and by sign or not."""
        chosen = self.circuit.provenance["selection"] if self.scores is not None else {}
        return chosen.get("rule", "greedy"), bool(chosen.get("signed", False))

    def page(self, other: RunPage | None = None, **options: Any) -> Page:
        """The page, with a second circuit beside this one if there is one; ``options`` are those of :func:`explore`."""
        from sparse_circuits.view.explorer.page import page_of

        both = [self] if other is None else [self, other]
        if other is None and options.get("title") is None:
            options["title"] = self.title
        return page_of(
            [one.circuit if one.scores is None else one.scores for one in both],
            [one.quality for one in both],
            how=[one.how for one in both],
            max_size=max(one.circuit.size if one.scores is None else one.max_size for one in both) or None,
            **options,
        )

    def save(self, folder: Path, told: Told | None) -> None:
        """Write the page into a run's folder, and beside it what its nodes mean, where that is known."""
        if told is not None:
            write_pages(folder / STORE, self.circuit.provenance["model"], *told)
        self.page(meanings=meanings_in(folder)).save(folder / PAGE)


def meanings_in(folder: Path) -> dict[str, Any]:
    """What ``features`` wrote of a circuit's nodes, where it did, as :func:`explore` takes it."""
    pages = read_pages(folder)
    return {} if pages is None else from_pages(pages, (), None).nodes
