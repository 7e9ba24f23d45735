"""What notebooks show of circuits, scores and results: a small table, readable in light and in dark, without scripts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_circuits.circuit import Circuit, Comparison, FeatureCircuit, FeatureScores, Scores, Stability
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.features.answers import means
from sparse_circuits.view.caption import interval, percent, size
from sparse_circuits.view.naming import about, asked_for
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

if TYPE_CHECKING:
    from sparse_circuits.attribution import Contributions
    from sparse_circuits.features import Context, Feature, HeadReport
    from sparse_circuits.graph import FeatureGraph
    from sparse_circuits.tracing import Trace, TraceComparison, Validation

_SHOWN = 8  # parts that are listed
_CONTEXTS, _BEFORE, _AFTER = 5, 14, 6  # of a feature, and tokens around its peak
_LONGEST = 120  # characters of a name or value
_BAR = 70  # pixels
_TABLE = "border-collapse:collapse;border:0;margin:2px 0;font:inherit;color:inherit"
_CELL = "text-align:left;padding:1px 14px 1px 0;border:0;background:none;vertical-align:top;color:inherit"

Facts = Iterable[tuple[str, str | None]]
Listed = Sequence[tuple[str, float]]


def card(title: str, facts: Facts, *tables: str) -> str:
    """A title, rows of a name and a value (escaped; those without a value left out), and tables below."""
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};opacity:.7">{_cut(name)}</td>'
        f'<td style="{_CELL}">{_cut(value)}</td></tr>'
        for name, value in facts
        if value
    )
    return (
        '<div style="font:13px/1.5 system-ui,sans-serif;margin:4px 0">'
        f'<div style="font-weight:600">{_cut(title)}</div>'
        f'<table style="{_TABLE}">{rows}</table>{"".join(tables)}</div>'
    )


def ranked(title: str, parts: Listed, signed: bool = True, of: int | None = None) -> str:
    """The strongest parts, each with its number and a bar: blue below 0, orange above."""
    if not parts:
        return ""
    strongest = max((abs(value) for _, value in parts if value - value == 0), default=0.0) or 1.0
    rows = []
    for name, value in parts:
        share = min(1.0, abs(value) / strongest) if value - value == 0 else 0.0
        colour = NEUTRAL if not signed else CARRIES if value < 0 else OPPOSES
        bar = f'<span style="display:inline-block;height:.65em;width:{_BAR * share:.0f}px;background:{colour}"></span>'
        rows.append(
            f'<tr style="background:none"><td style="{_CELL};font-family:ui-monospace,monospace">{_cut(name)}</td>'
            f'<td style="{_CELL};text-align:right;font-variant-numeric:tabular-nums">{value:.4g}</td>'
            f'<td style="{_CELL}">{bar}</td></tr>'
        )
    more = f" ({len(parts)} of {of:,})" if of is not None and of > len(parts) else ""
    return (
        f'<div style="opacity:.7;margin-top:4px">{_cut(title)}{more}</div>'
        f'<table style="{_TABLE}">{"".join(rows)}</table>'
    )


def grid(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with headings; all cells escaped."""
    head = "".join(f'<th style="{_CELL};font-weight:400;opacity:.7">{_cut(cell)}</th>' for cell in headings)
    body = "".join(
        f'<tr style="background:none">{"".join(f"""<td style="{_CELL}">{_cut(cell)}</td>""" for cell in row)}</tr>'
        for row in rows
    )
    return f'<table style="{_TABLE}"><tr>{head}</tr>{body}</table>'


# --- circuits and scores ---


def of_circuit(circuit: Circuit) -> str:
    graph = circuit.graph
    facts = [*_about(circuit.provenance), ("size", size(circuit))]
    if circuit.values is None:
        names = ", ".join(graph.names_of(circuit.mask, torch.arange(min(_SHOWN, circuit.size))))
        more = f" and {circuit.size - _SHOWN:,} more" if circuit.size > _SHOWN else ""
        return card("Circuit", [*facts, (f"{graph.thing}s", names + more)])
    values = circuit.values[circuit.mask]
    order = _strongest(values)
    listed = list(zip(graph.names_of(circuit.mask, order), values[order].tolist(), strict=True))
    return card(
        "Circuit", facts, ranked(f"strongest {graph.thing}s", listed, _signed(circuit.provenance), circuit.size)
    )


def of_feature_circuit(circuit: FeatureCircuit) -> str:
    tables, signed = [], _signed(circuit.provenance)
    if circuit.node_values is not None:
        listed = _nodes(circuit.graph, circuit.node_ids, circuit.node_values)
        tables.append(ranked("strongest nodes", listed, signed, circuit.size))
    edges = circuit.edge_list
    strongest = edges[_strongest(edges.values)]
    listed = list(zip(strongest.names(circuit.graph), strongest.values.tolist(), strict=True))
    tables.append(ranked("strongest edges", listed, signed, len(edges)))
    of_all = f"{circuit.size:,} of {circuit.graph.size:,} nodes ({percent(circuit.size, circuit.graph.size)})"
    errors = int(torch.isin(circuit.node_ids, circuit.graph.errors).sum())
    facts = [("size", f"{of_all}{asked_for(circuit)}, {circuit.n_edges:,} edges"), ("error terms", f"{errors:,}")]
    return card("FeatureCircuit", [*_about(circuit.provenance), *facts], *tables)


def of_scores(scores: Scores) -> str:
    graph, values = scores.graph, scores.values[scores.graph.mask]
    order = _strongest(values)
    listed = list(zip(graph.names_of(graph.mask, order), values[order].tolist(), strict=True))
    table = ranked(f"strongest {graph.thing}s", listed, scores.signed, len(values))
    return card("Scores", [*_scored(scores), ("of", f"{len(values):,} {graph.thing}s")], table)


def of_feature_scores(scores: FeatureScores) -> str:
    listed = _nodes(scores.graph, scores.node_ids, scores.node_values)
    table = ranked("strongest nodes", listed, scores.signed, len(scores.node_ids))
    edges = "" if scores.edge_list is None else f", {len(scores.edge_list):,} edges"
    of_all = f"{len(scores.node_ids):,} of {scores.graph.size:,} nodes{edges}"
    return card("FeatureScores", [*_scored(scores), ("of", of_all)], table)


def of_stability(stability: Stability) -> str:
    there = stability.candidates
    values = stability.values[there]
    order = _strongest(values)
    names = stability.graph.names_of(there, order) if len(order) else []
    columns = (stability.low, stability.high, stability.both)
    low, high, both = (column[there][order].tolist() for column in columns)
    rows = [
        (name, f"{value:.4g} [{a:.4g}, {b:.4g}]", f"{share:.0%}")
        for name, value, a, b, share in zip(names, values[order].tolist(), low, high, both, strict=True)
    ]
    n, holds = int(there.sum()), int(stability.holds(0.95).sum())
    facts = [("chosen", f"{n:,} {stability.graph.thing}s"), ("rank and sign hold in 95%", f"{holds:,}")]
    return card("Stability", facts, grid(("", "score", "held in"), rows) if rows else "")


def of_comparison(comparison: Comparison) -> str:
    pearson, spearman = _agreement(comparison)
    facts = [
        ("scores", comparison.label),
        ("against", comparison.other_label + (" (sizes: one of them has no sign)" if comparison.absolute else "")),
        ("over", f"{len(comparison.names):,} {comparison.thing}s"),
        ("Pearson", pearson),
        ("Spearman", spearman),
    ]
    return card("Comparison", facts)


def of_trace(trace: Trace) -> str:
    effects = [(node.name, node.effect) for node in trace.nodes if node.effect is not None]
    effects.sort(key=lambda pair: -abs(pair[1]))
    edges = [(f"{edge.source}->{edge.target}", edge.effect) for edge in trace.edges]
    runs = f"{len(trace.runs):,} run" + "s" * (len(trace.runs) != 1)
    known = f"{len(effects):,} feature{'s' * (len(effects) != 1)} in {runs}; {len(trace.nodes) - len(effects):,} more reached"
    tables = (
        ranked(f"strongest {what}", parts[:_SHOWN], of=len(parts))
        for what, parts in (("features", effects), ("edges", edges))
    )
    return card("Trace", [*_about(trace.provenance), ("traced", known)], *tables)


def of_trace_comparison(comparison: TraceComparison) -> str:
    rows = []
    for kind in ("nodes", "edges", "logits"):
        both, (first, second) = getattr(comparison, kind), comparison.sizes[kind]
        rows.append((kind, f"{len(both.names):,} of {first:,} and {second:,}", *_agreement(both)))
    return card("TraceComparison", [], grid(("", "in both", "Pearson", "Spearman"), rows))


def of_validation(validation: Validation) -> str:
    n = len(validation.names)
    facts = [
        ("task", validation.task),
        ("ablation", validation.ablation),
        ("metric", validation.metric),
        ("all at once", _bounded(validation.change, validation.change_interval)),
        (f"sum of {n:,} separate effects", _bounded(validation.separate_sum, validation.separate_interval)),
        ("the first less the second", _bounded(validation.interaction, validation.interaction_interval)),
    ]
    if validation.loss_change is not None and validation.loss_interval is not None:
        facts.append((f"change of {validation.loss} loss", _bounded(validation.loss_change, validation.loss_interval)))
    rows = [(one.name, f"{one.together:.4g}", f"{one.separate:.4g}") for one in validation.features[:_SHOWN]]
    return card("Validation", facts, grid(("feature", "all at once", "sum of separate"), rows) if rows else "")


# --- results ---


def of_evaluation(evaluation: Evaluation) -> str:
    circuit = evaluation.circuit
    facts: list[tuple[str, str | None]] = [
        *_about(circuit.provenance),
        ("size", f"{circuit.size:,} of {circuit.graph.size:,} {circuit.graph.thing}s"),
        ("ablation", _ablation(evaluation)),
        ("faithfulness", _faithful(evaluation)),
        ("completeness", _complete(evaluation)),
    ]
    means = [("whole model", evaluation.clean), ("circuit", evaluation.per_example)]
    means += [] if evaluation.complement is None else [("everything else", evaluation.complement)]
    means += [("empty circuit", evaluation.empty)]
    rows = [(name, f"{float(values.double().mean()):.4g}") for name, values in means]
    return card("Evaluation", facts, grid(("metric", _mean_of(len(evaluation.clean))), rows))


def of_curve(curve: Curve) -> str:
    if not curve.evaluations:
        return card("Curve", [("sizes", "none")])
    first = curve.evaluations[0]
    total = first.circuit.graph.size if curve.total is None else curve.total
    complete = any(e.complement is not None for e in curve.evaluations)
    headings = (f"{first.circuit.graph.thing}s of {total:,}", "faithfulness", *["completeness"] * complete)
    rows = [(f"{e.circuit.size:,}", _faithful(e), *[_complete(e)] * complete) for e in curve.evaluations[:20]]
    area = interval(curve.area, curve.area_interval)
    facts = [*_about(first.circuit.provenance), ("ablation", first.ablation), ("area under it", area)]
    return card("Curve", facts, grid(headings, rows))


def of_baseline(baseline: Baseline) -> str:
    thing = baseline.evaluations[0].circuit.graph.thing if baseline.evaluations else "edge"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        median, (low, high) = baseline.median, baseline.interval
    says = f"median {median:z.2f}, central 95% [{low:z.2f}, {high:z.2f}]"
    facts = [
        ("circuits", f"{len(baseline.evaluations):,} random ones of {baseline.size:,} {thing}s"),
        ("faithfulness", says if median == median else interval(median, (low, high))),
    ]
    return card("Baseline", facts)


def of_contributions(made: Contributions) -> str:
    values = made.to_dict()
    listed = list(values.items())[:_SHOWN]
    facts = [
        ("feature", made.node),
        ("pre-activation", f"{float(made.preactivation.mean()):.4g}, {_mean_of(len(made.preactivation))}"),
    ]
    return card("Contributions", facts, ranked("largest contributions", listed, False, len(values)))


def of_feature(feature: Feature) -> str:
    scale = max(abs(feature.highest), abs(feature.lowest)) or 1.0
    fires = (
        f"{feature.density:.3%} of {feature.tokens:,} tokens, mean {feature.mean:.3g}, highest {feature.highest:.3g}"
    )
    facts: list[tuple[str, str | None]] = [("label", feature.label), ("fires on", fires if feature.tokens else None)]
    for what, pairs in (("promotes", feature.promoted), ("suppresses", feature.suppressed)):
        facts.append((what, ", ".join(f"{token!r} {value:+.2f}" for token, value in pairs[:6])))
    facts.append(("similar", ", ".join(f"{name} {value:+.2f}" for name, value in feature.similar[:5])))
    contexts = "".join(
        f'<div style="margin:1px 0"><span style="opacity:.7">{context.value:.2f}</span> {_around(context).to_html(scale)}</div>'
        for context in feature.top[:_CONTEXTS]
    )
    link = f'<div><a href="{escape(feature.link)}">Neuronpedia</a></div>' if feature.link else ""
    return card(feature.name, facts, link, contexts)


def of_head(report: HeadReport) -> str:
    rows = (("looks at", report.looks_at), ("promotes", report.promoted), ("suppresses", report.suppressed))
    facts = [(what, ", ".join(f"{token!r} {value:.2g}" for token, value in pairs[:6])) for what, pairs in rows]
    answers = means(report.adds_to_correct, report.adds_to_incorrect).items()
    facts += [(f"{name.replace('_', ' ')} answer", f"{value:+.2f} on average over prompts") for name, value in answers]
    return card(report.name, [*facts, ("prompts", f"{len(report.prompts):,} with their patterns")])


# --- words ---


def _about(known: Mapping[str, Any]) -> Facts:
    return [(key, next(iter(about(known, key)), None)) for key in ("model", "task", "method", "imported")]


def _scored(scores: Scores | FeatureScores) -> Facts:
    mean = float(scores.clean.double().mean()) if len(scores.clean) else float("nan")
    metric = f"{mean:.4g}, {_mean_of(len(scores.clean))}"
    if scores.corrupted is not None:
        metric += f"; corrupted {float(scores.corrupted.double().mean()):.4g}"
    gap = None if scores.convergence_gap is None else f"{scores.convergence_gap:.3g}"
    sign = "" if scores.signed else "none: sizes only"
    return [*_about(scores.provenance), ("metric", metric), ("convergence gap", gap), ("sign", sign)]


def _signed(known: Mapping[str, Any]) -> bool:
    return known.get("signed", True) is not False


def _nodes(graph: FeatureGraph, ids: Tensor, values: Tensor) -> Listed:
    order = _strongest(values)
    return [(graph.name_of(i), value) for i, value in zip(ids[order].tolist(), values[order].tolist(), strict=True)]


def _bounded(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"


def _agreement(comparison: Comparison) -> tuple[str, str]:
    """Both correlations."""

    def said(value: float, bounds: tuple[float, float] | None) -> str:
        return "undefined" if value != value else f"{value:.3f}" if bounds is None else _bounded(value, bounds)

    return (
        said(comparison.pearson, comparison.pearson_interval),
        said(comparison.spearman, comparison.spearman_interval),
    )


def _strongest(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, 0.0).abs().argsort(descending=True, stable=True)[:_SHOWN]


def _faithful(evaluation: Evaluation) -> str:
    with warnings.catch_warnings():  # the text says so
        warnings.simplefilter("ignore")
        return interval(evaluation.faithfulness, evaluation.faithfulness_interval)


def _complete(evaluation: Evaluation) -> str:
    value, bounds = evaluation.completeness, evaluation.completeness_interval
    return "" if value is None or bounds is None else interval(value, bounds)


def _mean_of(n: int) -> str:
    return f"mean of {n:,} examples" if n != 1 else "one example"


def _around(context: Context) -> Context:
    """Its part around the peak."""
    start, end = max(0, context.peak - _BEFORE), context.peak + _AFTER + 1
    return replace(
        context, tokens=context.tokens[start:end], values=context.values[start:end], peak=context.peak - start
    )


def _ablation(evaluation: Evaluation) -> str:
    if evaluation.errors is None:
        return evaluation.ablation
    return f"{evaluation.ablation}; error terms: {evaluation.errors}; from layer {evaluation.start_layer}"


def _cut(text: str) -> str:
    """Escaped, and short enough for a cell."""
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026")
