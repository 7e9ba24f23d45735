"""The page that a run leaves to explore its circuit in, with circuits of other sizes from the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
    from sparse_circuits.cli.feature_search import FoundFeatures
    from sparse_circuits.cli.search import Found
    from sparse_circuits.evaluation import Curve, Evaluation

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


def write_page(found: Found | FoundFeatures, folder: Path, **options: Any) -> None:
    """Write the page: the scores with a slider over the circuit's size, or a circuit that no size stands for by itself.

    Args:
        options: of :func:`explore`: a title, what nodes mean.
    """
    from sparse_circuits.view.explorer import explore

    known: dict[str, Any] = {"evaluation": found.evaluation, "baseline": found.baseline, **options}
    if found.curve is None:
        explore(found.circuit, folder / PAGE, **known)
        return
    selection = found.circuit.provenance["selection"]
    explore(
        found.scores,
        folder / PAGE,
        curve=found.curve,
        select=selection["rule"],
        signed=selection["signed"],
        max_size=found.curve.requested[-1],
        **known,
    )
