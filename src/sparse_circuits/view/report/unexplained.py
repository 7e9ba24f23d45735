"""What the circuit leaves unexplained."""

from __future__ import annotations

from torch import Tensor

from sparse_circuits.circuit import FeatureCircuit, FeatureScores, Scores
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.markup import Html, Piece, bounded, counted, join, number, pairs, share, table, tag
from sparse_circuits.view.report.question import words

_WORST = 5


def unexplained(g: Given) -> Html:
    return join(pairs(_shares(g)), _policies(g), _worst(g), _left_out(g))


def _shares(g: Given) -> list[tuple[str, Piece]]:
    e = g.evaluation
    gap, (low, high) = 1 - e.faithfulness, e.faithfulness_interval
    rows: list[tuple[str, Piece]] = [("faithfulness missing", bounded(gap, (1 - high, 1 - low)))]
    rows.append(("in units of the metric", number(_mean(e.clean - e.per_example)) if gap == gap else None))
    if e.completeness is not None and e.completeness_interval is not None:
        rows.append(("completeness (everything but the circuit)", bounded(e.completeness, e.completeness_interval)))
    if g.left_out_share is not None:
        rows.append(("share of the sum of all |scores| outside the circuit", share(g.left_out_share)))
    rows += _errors(g)
    rows.append(("convergence gap of the attribution", _convergence(g)))
    return rows


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _errors(g: Given) -> list[tuple[str, Piece]]:
    """What error terms, which no feature explains, have of all effects."""
    circuit, scores = g.circuit, g.scores
    if not isinstance(circuit, FeatureCircuit):
        return []
    n = sum(name.partition("@")[0].endswith(".error") for name in circuit.nodes)
    rows: list[tuple[str, Piece]] = [("error terms in the circuit", f"{n:,} of {counted(circuit.size, 'node')}")]
    if isinstance(scores, FeatureScores):
        effects = scores.to_dict("nodes")
        total = sum(map(abs, effects.values()))
        errors = sum(abs(value) for name, value in effects.items() if name.partition("@")[0].endswith(".error"))
        rows.append(("share of the sum of all |scores| that is error terms'", share(errors / total) if total else None))
    return rows


def _convergence(g: Given) -> str | None:
    """How far an integral of gradients is from the whole effect, for the methods that promise that it is near."""
    scores = g.scores
    method = str(g.known.get("method", ""))
    if isinstance(scores, FeatureScores) and scores.convergence:
        site = max(scores.convergence_gaps, key=lambda name: abs(scores.convergence_gaps[name]))
        gap, whole = scores.convergence_gaps[site], scores.convergence[site][1]
        return f"{number(gap)} at worst, at {site}, whose effect is {number(whole)}{_part(gap, whole)}"
    if isinstance(scores, Scores) and method.startswith("EAPIG") and "'inputs'" in method:
        gap = scores.convergence_gap
        if gap is not None and scores.corrupted is not None:
            whole = _mean(scores.corrupted - scores.clean)
            return f"{number(gap)}, where the whole effect is {number(whole)}{_part(gap, whole)}"
    return None


def _part(gap: float, whole: float) -> str:
    return f" ({share(abs(gap / whole))})" if whole else ""


def _policies(g: Given) -> Html | None:
    """The same circuit with other rules, beside others of its size."""
    if not g.policies:
        return None
    words = {
        "neurons": "as many neurons of the same sites",
        "keep": "the circuit, all error terms kept",
        "remove": "the circuit, all error terms ablated",
    }
    rows = [("the circuit", number(g.evaluation.mean), _faithfulness(g.evaluation))]
    rows += [(words.get(name, name), number(e.mean), _faithfulness(e)) for name, e in g.policies.items()]
    return table(
        "What no feature explains treated otherwise, and neurons instead of features",
        ["", "metric", "faithfulness"],
        rows,
    )


def _faithfulness(evaluation: object) -> str:
    return bounded(evaluation.faithfulness, evaluation.faithfulness_interval)  # pyright: ignore[reportAttributeAccessIssue]


def _worst(g: Given) -> Html:
    e, task = g.evaluation, g.task
    rows: list[list[Piece]] = []
    for i in g.misfits[:_WORST]:
        prompt: Piece = f"prompt {i + 1}" if task is None else tag("div", *words(g, task.clean[i]), class_="prompt")
        values = (e.clean[i], e.per_example[i], e.empty[i])
        rows.append([prompt, *(number(float(value)) for value in values)])
    caption = f"The {counted(len(rows), 'prompt')} that the circuit fits worst, by how far its metric is from the whole model's"
    return table(caption, ["prompt", "whole model", "circuit", "none of it"], rows)


def _left_out(g: Given) -> Html | None:
    if g.scores is None:
        return tag("p", "What was left out is not known: the scores of all parts were not given.", class_="missing")
    if not g.left_out:
        return tag("p", f"No {g.thing} was left out.")
    rows = [(name, number(score)) for name, score in g.left_out.items()]
    return table(f"The strongest {g.thing}s that are not in the circuit", ["", "score"], rows)
