"""Plots: the numbers that are drawn against those of the results, both drawings against each other, files, bad input."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import subprocess
import sys
import warnings
import xml.dom.minidom
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.style
import pytest
import torch
from browsing import Opened
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.text import Text

import sparse_circuits as sc
from sparse_circuits.attribution import Contributions
from sparse_circuits.circuit import FeatureCircuit, FeatureScores, Scores
from sparse_circuits.circuit.comparison import pearson, ranks, spearman
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.features import Feature, HeadReport, Similar
from sparse_circuits.features.heads import HeadPrompt
from sparse_circuits.graph import FeatureGraph, Graph
from sparse_circuits.graph.places import Place
from sparse_circuits.model.sites import Site
from sparse_circuits.tracing import TraceComparison, Validation
from sparse_circuits.tracing.validation import Moved
from sparse_circuits.view.figures import Picture
from sparse_circuits.view.naming import method_name
from sparse_circuits.view.plots import Plot, plot_interventions, plot_script, plot_similar
from sparse_circuits.view.plots.frame import Frame
from sparse_circuits.view.plots.histogram import counted
from sparse_circuits.view.plots.parts import Axis, Bars, Cells, Panel, Series, shown, ticks_of
from sparse_circuits.zoo.shift_result import Accuracy, Row, ShiftResult

GRAPH = Graph(n_layers=3, n_heads=4, n_kv=4)
GRAPHS = {
    "plain": GRAPH,
    "one of each": Graph(1, 1, 1),
    "attention-only": Graph(2, 4, 4, has_mlp=False),
    "grouped": Graph(3, 6, 2),
    "parallel": Graph(2, 4, 4, parallel=True),
    "wide": Graph(2, 40, 8),
    "spans": GRAPH.at(("subject", "verb", "last")),
    "kept": Graph(2, 4, 2).at(tuple(map(str, range(30))), causal=True),
    "nodes": Graph(2, 4, 2, level="nodes"),
    "neurons": Graph(2, 4, 2, level="neurons", d_head=3, d_mlp=7),
    "outputs": Graph(2, 4, 2, level="outputs", d_model=5),
    "neurons at spans": Graph(2, 4, 2, level="neurons", d_head=3, d_mlp=7).at(("a", "b")),
}
KNOWN = {"task": "ioi", "model": "toy", "method": "EAP()"}
PLACES = (Place(Site("resid", 0), 30, 1, "a"), Place(Site("resid", 1), 30, 1, "b"))


def scores_on(graph: Graph, examples: int = 0, **options: Any) -> Scores:
    generator = torch.Generator().manual_seed(3)
    kept = torch.randn(max(1, examples), graph.size, generator=generator) ** 3
    values = torch.zeros(graph.shape)
    values[graph.mask] = kept.mean(0)
    clean = torch.randn(12, generator=generator)
    return Scores(
        graph, values, clean, clean - 4, per_example=kept if examples else None, provenance=dict(KNOWN), **options
    )


def feature_scores(examples: int = 8, positions: tuple[str, ...] = (), **options: Any) -> FeatureScores:
    """Half of the nodes have scores, some examples lack some of them."""
    graph = FeatureGraph(PLACES, 2, 8, positions=positions)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randperm(graph.size, generator=generator)[: graph.size // 2].sort().values
    table = torch.randn(examples, len(ids), generator=generator) * (torch.rand(examples, len(ids)) > 0.3)
    rows, columns = table.nonzero(as_tuple=True)
    edges = EdgeList(ids[:5], torch.full((5,), graph.logits), torch.randn(5, generator=generator))
    per_example = (rows, ids[columns], table[rows, columns])
    fields = {"per_example": per_example, "provenance": dict(KNOWN), **options}
    return FeatureScores(graph, ids, table.mean(0), edges, torch.zeros(examples), None, **fields)


def evaluation(share: float = 0.8, complement: bool = True, n: int = 12, **provenance: str) -> Evaluation:
    noise = torch.randn(3, n, generator=torch.Generator().manual_seed(1)) * 0.3
    clean, empty = 3 + noise[0], -1 + noise[1]
    circuit = replace(scores_on(GRAPH).greedy(40), provenance={**KNOWN, **provenance})
    other = empty + 0.1 * noise[2] if complement else None
    return Evaluation(circuit, empty + (clean - empty) * share + 0.1 * noise[2], clean, empty, other, "patch")


def undefined() -> Evaluation:
    same = torch.zeros(6)
    return Evaluation(sc.Circuit.of(GRAPH, []), same, same, same, same, "zero")


def contributions() -> Contributions:
    graph = FeatureGraph(PLACES, 2, 8)
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(5))
    bias = torch.linspace(0.5, 1.5, 5)
    return Contributions(graph, "resid_1.f3", values.sum(1) + bias, torch.arange(40), values, bias)


def feature(**options: Any) -> Feature:
    edges = tuple(2 ** (i / 4) for i in range(9))
    fields = {"promoted": ((" he", 1.5), (" they", 0.5)), "suppressed": (("\n", -2.0),), **options}
    return Feature("resid_0.f1", 1000, 36, 1.0, 3.0, 0.0, edges, tuple(range(1, 9)), **fields)


def head(n: int = 2, tokens: tuple[str, ...] = ("<bos>", " a", " b", " a")) -> HeadReport:
    size = len(tokens)
    pattern = torch.softmax(torch.randn(size, size, generator=torch.Generator().manual_seed(6)), -1).tril()
    return HeadReport("a1.h2", (HeadPrompt(tokens, pattern, (), ()),) * n, (), (), ((" a", 0.6),))


def shift() -> ShiftResult:
    rows = [
        Row(name, 3, Accuracy(0.9, (0.8, 0.95), ()), Accuracy(x, (x - 0.1, x + 0.1), ()), Accuracy(0.5, (0.4, 0.6), ()))
        for name, x in (("biased", 0.8), ("shift", 0.55))
    ]
    return ShiftResult(tuple(rows), {}, {})


def validation() -> Validation:
    separate = torch.randn(4, 6, generator=torch.Generator().manual_seed(7))
    moved = (Moved("resid_1.f9", -3.0, -4.0, 5.0), Moved("resid_1.f2", 1.0, 0.5, 0.0))
    names = ("resid_0.f1", "resid_0.f2", "resid_0.f3", "resid_0.f4")
    ends = (torch.zeros(6), separate.sum(0) * 0.5)
    return Validation(
        names, *ends, separate, None, None, None, None, moved, (Moved(" he", 1.0, 2.0),), "zero", "m", "t"
    )


def trace_comparison() -> TraceComparison:
    both = feature_scores().compare(feature_scores())
    return TraceComparison(both, both, both, {"nodes": (31, 31), "edges": (31, 40), "logits": (31, 31)})


def spoilt() -> Scores:
    """Two edges of a0.h0 and one of m2 have no finite score."""
    scores = scores_on(GRAPH)
    values = scores.values.clone()
    for edge, value in (("a0.h0->m0", math.nan), ("a0.h0->logits", math.inf), ("m2->logits", -math.inf)):
        values[GRAPH.edge_index(edge)] = value
    return replace(scores, values=values)


# Every public class of results by name, with one to draw: a new one must come here, and so have `plot` and a display.
RESULTS: dict[str, Callable[[], Any]] = {
    "Scores": lambda: scores_on(GRAPH),
    "FeatureScores": feature_scores,
    "Comparison": lambda: scores_on(GRAPH, 8).compare(scores_on(GRAPH)),
    "Stability": lambda: scores_on(GRAPH, 8).stability(20),
    "Evaluation": evaluation,
    "Curve": lambda: Curve((10, 40), (evaluation(0.5), evaluation(0.9))),
    "Baseline": lambda: Baseline(40, tuple(evaluation(0.01 * i) for i in range(20))),
    "Contributions": contributions,
    "Feature": feature,
    "HeadReport": head,
    "Validation": validation,
    "TraceComparison": trace_comparison,
}
# Drawn as circuits are, by modules of their own.
CIRCUITS = {"Circuit", "FeatureCircuit", "Trace"}
# Parts of results, inputs, and things to do.
NO_RESULTS = {
    "Ablation", "AttributionGraph", "Batch", "Context", "Dictionaries", "Dictionary", "FeatureGraph", "FeatureStore", "Graph",
    "Labels", "MIBEntry", "Page",
    "Plot", "Similar", "Task", "TracedEdge", "TracedNode",
    "ByAblation", "ByGradient", "CrossEntropy", "LogProb", "LogitDiff", "NegativeKL", "ProbDiff",
}  # fmt: skip
MORE: dict[str, Callable[[], Plot]] = {
    **{f"scores, {name}": lambda graph=graph: scores_on(graph).plot() for name, graph in GRAPHS.items()},
    "strongest": lambda: scores_on(GRAPH, 8).plot(kind="strongest"),
    "unsigned": lambda: scores_on(GRAPH, signed=False).plot(),
    "zero": lambda: replace(scores_on(GRAPH), values=torch.zeros(GRAPH.shape)).plot(),
    "not finite": lambda: replace(scores_on(GRAPH), values=torch.full(GRAPH.shape, math.nan)).plot(),
    "prompts": lambda: feature_scores().plot(kind="prompts", prompts=[f"prompt ${i}$ <b>" for i in range(8)]),
    "positions": lambda: feature_scores(positions=("subject", "verb")).plot(kind="positions"),
    "no features": lambda: replace(
        feature_scores(), node_ids=torch.empty(0, dtype=torch.int64), node_values=torch.empty(0), per_example=None
    ).plot(),
    "several circuits": lambda: plot_interventions({"one": evaluation(), "two": evaluation(0.4), "three": [1.0, 2.0]}),
    "many examples": lambda: evaluation(n=3000).plot(),
    "one example": lambda: plot_interventions({"one": torch.tensor([1.0])}),
    "undefined": lambda: undefined().plot(),
    "undefined curve": lambda: Curve((0,), (undefined(),)).plot(baseline=Baseline(3, (undefined(),) * 20)),
    "undefined baseline": lambda: Baseline(3, (undefined(),) * 20).plot(circuit=undefined()),
    "nothing stable": lambda: scores_on(GRAPH, 8).stability(0).plot(),
    "unknown feature": lambda: Feature("m0.n1").plot(),
    "strange tokens": lambda: head(3, ("<|end|>", "long" * 40, "\n", "\x00", "$x$", "\t")).plot(),
    "long prompt": lambda: head(1, tuple(f"t{i}" for i in range(150))).plot(),
    "similar": lambda: plot_similar([Similar("resid_0.f2", 0.9, -0.1), Similar("resid_0.f7", 0.5, 0.2)]),
    "shift": lambda: shift().plot(),
    "48 layers of 32 heads": lambda: scores_on(Graph(48, 32, 8, level="nodes")).plot(),
    "some not finite": lambda: spoilt().plot(),
    "strongest, some not finite": lambda: spoilt().plot(kind="strongest"),
    "several curves": lambda: Curve((10,), (evaluation(),)).plot(
        baseline=RESULTS["Baseline"](), beside={f"{'a long name ' * 6}{i}": Curve((20,), (evaluation(),)) for i in "ab"}
    ),
}
EVERY: dict[str, Callable[[], Plot]] = {
    **{name: lambda make=make: make().plot() for name, make in RESULTS.items()},
    **MORE,
}


@pytest.fixture(scope="module")
def drawn() -> Callable[[str], Plot]:
    """Plots by name, each made once."""
    made: dict[str, Plot] = {}

    def get(name: str) -> Plot:
        if name not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that faithfulness is undefined
                made[name] = EVERY[name]()
        return made[name]

    return get


def marks(plot: Plot, kind: type) -> list[Any]:
    return [mark for panel in plot.panels for mark in panel.marks if isinstance(mark, kind)]


def cells(plot: Plot) -> dict[str, float]:
    """What a heatmap's cells say under the pointer: names, and values as drawn."""
    (mark,) = marks(plot, Cells)
    said = [text.rpartition("\n")[0] for row in mark.texts for text in row]
    return dict(zip(said, (value for row in mark.values for value in row), strict=True))


def bars(plot: Plot, panel: int = 0) -> dict[str, float]:
    """Bars by the names along the axis."""
    (mark,) = [mark for mark in plot.panels[panel].marks if isinstance(mark, Bars)]
    return dict(zip(plot.panels[panel].y.names or (), mark.values, strict=True))


def intervals(plot: Plot, panel: int = 0) -> list[tuple[float, float]]:
    (mark,) = [mark for mark in plot.panels[panel].marks if isinstance(mark, Series)]
    return list(zip(mark.low, mark.high, strict=True))


# --- what is plotted ---


def test_every_public_result_has_a_plot_and_a_display() -> None:
    classes = {
        name: value
        for name in sc.__all__
        if inspect.isclass(value := getattr(sc, name)) and not issubclass(value, Exception | sc.Method)
    }
    results = set(classes) - NO_RESULTS
    assert results == set(RESULTS) | CIRCUITS
    for name in (*results, "ShiftResult"):
        one = classes.get(name, ShiftResult)
        assert callable(one.plot), name
        assert callable(one._repr_html_), name
    for name, make in RESULTS.items():
        assert type(make()).__name__ == name
        assert isinstance(make().plot(), Plot)


@pytest.mark.parametrize("name", [name for name, graph in GRAPHS.items() if not graph.positions])
def test_heads_by_layers_are_the_sums_of_their_edges_or_units(name: str) -> None:
    scores = scores_on(GRAPHS[name])
    expected: dict[str, float] = {}
    for part, value in scores.to_dict().items():
        node = part.partition("->")[0]
        node = ".".join(node.split(".")[:2]) if node[0] == "a" else node.split(".")[0]
        expected[node] = expected.get(node, 0.0) + value
    plot = scores.plot()
    of_input = expected.pop("input")
    assert cells(plot) == pytest.approx(expected, abs=1e-5)
    assert f"input: {of_input:.3g} in all" in plot.note
    assert list(plot.panels[0].y.names or ()) == [str(i) for i in reversed(range(scores.graph.n_layers))]
    assert ("MLP" in (plot.panels[0].x.names or ())) == scores.graph.has_mlp


@pytest.mark.parametrize("name", [name for name, graph in GRAPHS.items() if graph.positions])
def test_nodes_by_positions(name: str) -> None:
    scores = scores_on(GRAPHS[name])
    expected = dict.fromkeys((f"{s}@{p}" for s in scores.graph.sources for p in scores.graph.positions), 0.0)
    for part, value in scores.to_dict().items():
        node, _, position = part.partition("->")[0].partition("@")
        node = ".".join(node.split(".")[:2]) if node[0] == "a" else node.split(".")[0]
        expected[f"{node}@{position}"] += value
    assert cells(scores.plot()) == pytest.approx(expected, abs=1e-5)
    together = cells(scores.plot(kind="heads"))
    for node in together:
        whole = sum(value for at, value in expected.items() if at.partition("@")[0] == node)
        assert together[node] == pytest.approx(whole, abs=1e-5)
    some = scores.plot(n=3)
    assert len(some.panels[0].y.names or ()) == 3
    assert f"the 3 strongest of {scores.graph.n_sources} nodes" in some.note


def test_the_scale_is_symmetric_about_zero_and_without_sign_starts_there() -> None:
    for signed in (True, False):
        plot = scores_on(GRAPH, signed=signed).plot()
        (mark,) = marks(plot, Cells)
        assert mark.signed == signed
        assert mark.largest == max(abs(value) for row in mark.values for value in row)
        trace = plot.figure().data[0]
        assert (trace.zmin, trace.zmax) == (-mark.largest if signed else 0, mark.largest)
    first, middle, last = (plot_scale(True)[i][1].upper() for i in (0, 20, 40))
    assert (first, middle, last) == ("#0072B2", "#FFFFFF", "#D55E00")  # carries, nothing, opposes


def plot_scale(signed: bool) -> list[tuple[float, str]]:
    from sparse_circuits.view.plots.colours import scale

    return scale(signed)


def test_strongest_parts_with_intervals_of_their_means() -> None:
    scores = scores_on(GRAPH, 8)
    plot = scores.plot(kind="strongest", n=7)
    expected = sorted(scores.to_dict().items(), key=lambda pair: -abs(pair[1]))[:7]
    assert list(bars(plot).items()) == [(name, pytest.approx(value)) for name, value in expected]
    assert scores.per_example is not None
    names = list(scores.graph.names)
    for (name, value), (low, high) in zip(expected, intervals(plot), strict=True):
        sample = scores.per_example[:, names.index(name)].double()
        rows = torch.randint(8, (1000, 8), generator=torch.Generator().manual_seed(0))
        ends = torch.quantile(sample[rows].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        assert [low, high] == pytest.approx(ends)
        assert low <= value <= high
    assert not [mark for mark in scores_on(GRAPH).plot(kind="strongest").panels[0].marks if isinstance(mark, Series)]


def test_what_is_not_finite_is_grey_in_both_drawings_not_ranked_and_said() -> None:
    scores = spoilt()
    plot = scores.plot()
    assert plot.note.endswith("; the scores of 2 nodes are not finite")
    grey, drawn = plot.figure().data
    there = [[value is None for value in row] for row in drawn.z]
    assert there == [[value is not None for value in row] for row in grey.z]
    names = [name for name, value in cells(plot).items() if value - value != 0]
    assert names == ["m2", "a0.h0"]
    (mesh,) = plot.picture().axes[0].collections
    mesh.update_scalarmappable()
    off = [cell for row in there for cell in row]
    colours = {tuple(colour) for colour, is_off in zip(mesh.get_facecolors(), off, strict=True) if is_off}
    assert colours == {to_rgba("#A9AFB7")}
    strongest = scores.plot(kind="strongest", n=5)
    finite = {name: value for name, value in scores.to_dict().items() if value - value == 0}
    assert list(bars(strongest)) == sorted(finite, key=lambda name: -abs(finite[name]))[:5]
    assert strongest.note.endswith("; the scores of 3 edges are not finite")
    one = evaluation()
    one.per_example[3] = -math.inf
    plot = one.plot()
    assert plot.note.startswith("faithfulness undefined; dots: examples; ")
    assert plot.note.endswith("; without a mean where the metric of an example is not finite")


def test_one_example_has_no_interval() -> None:
    features, parts, traced = feature_scores(1), contributions(), validation()
    parts = replace(parts, preactivation=parts.preactivation[:1], values=parts.values[:1], bias=parts.bias[:1])
    traced = replace(traced, clean=traced.clean[:1], ablated=traced.ablated[:1], separate=traced.separate[:, :1])
    plots = (
        scores_on(GRAPH, 1).plot(kind="strongest"),
        features.plot(),
        parts.plot(),
        traced.plot(),
        evaluation(n=1).plot(),
    )
    for plot in plots:
        assert "bootstrap" not in plot.note
        (panel, *_) = plot.panels
        assert not any(low == low for mark in panel.marks if isinstance(mark, Series) for low in mark.low)
        assert not any("[" in text for mark in panel.marks for text in mark.texts)
        for trace in plot.figure().data:
            assert not any(trace.error_x.array or ())
    assert plots[-1].note.startswith("faithfulness 0.8")


def test_error_bars_have_ends() -> None:
    (axes,) = evaluation().plot().picture().axes
    ends = [line for line in axes.lines if line.get_marker() == "|"]
    assert len(ends) == 2
    assert all(line.get_markeredgewidth() == 1 for line in ends)


def test_strongest_features_with_error_terms_marked() -> None:
    scores = feature_scores()
    plot = scores.plot(n=20)
    expected = sorted(scores.to_dict().items(), key=lambda pair: -abs(pair[1]))[:20]
    assert list(bars(plot).items()) == [(name, pytest.approx(value)) for name, value in expected]
    (mark,) = marks(plot, Bars)
    assert mark.hatched == tuple(name.endswith(".error") for name, _ in expected)
    assert len(intervals(plot)) == 20
    shapes = plot.figure().data[0].marker.pattern.shape if any(mark.hatched) else ("",) * 20
    assert [bool(shape) for shape in shapes] == list(mark.hatched)
    colours = {"#0072B2": -1, "#D55E00": 1}
    assert [colours[colour] for colour in mark.colours] == [math.copysign(1, value) for _, value in expected]


def test_features_by_prompts_and_by_positions() -> None:
    scores = feature_scores()
    prompts = [f"this is prompt number {i}" for i in range(8)]
    plot = scores.plot(kind="prompts", n=6, prompts=prompts)
    strongest = sorted(scores.to_dict().items(), key=lambda pair: -abs(pair[1]))[:6]
    (mark,) = marks(plot, Cells)
    assert plot.panels[0].y.names == tuple(name for name, _ in strongest)
    assert scores.per_example is not None
    rows, ids, values = (part.tolist() for part in scores.per_example)
    table = {(row, scores.graph.name_of(i)): value for row, i, value in zip(rows, ids, values, strict=True)}
    for (name, mean), row, texts in zip(strongest, mark.values, mark.texts, strict=True):
        assert row == pytest.approx([table.get((i, name), 0.0) for i in range(8)])
        assert sum(row) / 8 == pytest.approx(mean, abs=1e-6)
        assert texts[3].startswith(f"{name}\nexample 3: this is prompt number 3\n")
    placed = feature_scores(positions=("subject", "verb"))
    found = cells(placed.plot(kind="positions", n=1000))
    assert {name: value for name, value in found.items() if value} == pytest.approx(placed.to_dict())


def test_comparison_with_exact_on_a_model() -> None:
    model = sc.load_model("toy", device="cpu")
    task = sc.load_task("induction", model, n=6)
    graph = sc.Graph.of(model, level="nodes")
    eap, exact = (sc.attribute(model, graph, task, m, per_example=True) for m in (sc.EAP(), sc.Exact()))
    comparison = eap.compare(exact)
    both = torch.stack([torch.tensor(list(one.to_dict().values())) for one in (eap, exact)]).double()
    assert comparison.pearson == pytest.approx(float(torch.corrcoef(both)[0, 1]), abs=1e-6)
    assert comparison.pearson_interval is not None
    assert comparison.pearson_interval[0] < comparison.pearson < comparison.pearson_interval[1]
    plot = comparison.plot()
    (points,) = marks(plot, Series)
    expected = {name: (exact.to_dict()[name], value) for name, value in eap.to_dict().items()}
    drawn = dict(zip((text.split("\n")[0] for text in points.texts), zip(points.x, points.y, strict=True), strict=True))
    assert drawn == {name: pytest.approx(pair, abs=1e-6) for name, pair in expected.items()}
    assert f"Pearson {comparison.pearson:.3f} [" in plot.note
    assert f"Spearman {comparison.spearman:.3f} [" in plot.note
    assert plot.panels[0].x.limits == plot.panels[0].y.limits
    assert any(rule.across == "diagonal" for rule in plot.panels[0].rules)


def test_correlations_by_hand() -> None:
    graph = Graph(1, 1, 1, level="nodes")  # input, a0.h0, m0
    one = Scores(graph, torch.tensor([1.0, -2.0, 3.0]), torch.zeros(4), None)
    other = Scores(graph, torch.tensor([2.0, 1.0, 2.0]), torch.zeros(4), None)
    found = one.compare(other)
    # deviations (1, -8, 7)/3 and (1, -2, 1)/3: 24 / sqrt(114 * 6)
    assert found.pearson == pytest.approx(24 / math.sqrt(114 * 6))
    # ranks 2, 1, 3 and 2.5, 1, 2.5: deviations (0, -1, 1) and (.5, -1, .5)
    assert found.spearman == pytest.approx(1.5 / math.sqrt(2 * 1.5))
    assert found.pearson_interval is None
    assert found.names == ("input", "a0.h0", "m0")
    # a method without sign is compared by size: 1, 2, 3 with 2, 1, 2
    sizes = one.compare(replace(other, signed=False))
    assert sizes.absolute
    assert sizes.x.tolist() == [2, 1, 2]
    assert sizes.y.tolist() == [1, 2, 3]
    assert sizes.pearson == pytest.approx(0.0)
    assert "|" in (sizes.plot().panels[0].x.label)
    assert math.isnan(one.compare(replace(other, values=torch.ones(3))).spearman)
    table = torch.tensor([[3.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    assert ranks(table).tolist() == [[3, 1.5, 1.5], [1, 2, 3]]
    assert pearson(table, table).tolist() == pytest.approx([1, 1])
    assert float(spearman(table[0], -table[0])) == pytest.approx(-1)


def test_what_is_compared_is_named_by_what_differs() -> None:
    def labels(other: dict[str, Any], **options: Any) -> tuple[str, str]:
        made = scores_on(GRAPH).compare(replace(scores_on(GRAPH), provenance={**KNOWN, **other}), **options)
        return made.label, made.other_label

    assert labels({"method": str(sc.EAPIG(path="activations"))}) == ("EAP()", "EAPIG(steps=5, path='activations')")
    assert labels({"method": "EAP(rule='plain')"}) == ("EAP()", "other EAP()")
    assert labels({"task": "sva", "n_examples": 3}) == ("ioi", "sva")
    mine = replace(scores_on(GRAPH), provenance={**KNOWN, "ablation": "patch", "n_examples": 8})
    other = replace(mine, provenance={**mine.provenance, "ablation": "zero", "n_examples": 9})
    assert repr(mine.compare(other)).startswith("Comparison(patch ablation with zero ablation, ")
    plot = mine.compare(other, labels=("these %{x}", "$those$")).plot()
    assert plot.title == "these %{x} against $those$"
    assert plot.figure().data[0].hovertemplate == (
        "%{hovertext}<br>&#36;those&#36;: %{x:.4~g}<br>these &#37;{x}: %{y:.4~g}<extra></extra>"
    )
    for wrong in (["one"], "ab", ("one", 2), ("one", "")):
        with pytest.raises(sc.InputError, match="labels="):
            mine.compare(other, labels=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("full", "short"),
    [
        (sc.EAP(), "EAP()"),
        (sc.EAP(rule="relp"), "EAP(rule='relp')"),
        (sc.EAPIG(), "EAPIG(steps=5)"),
        (sc.EAPIG(7, "activations", direct="path"), "EAPIG(steps=7, path='activations')"),
        (sc.EdgePruning(sparsity=0.9), "EdgePruning(sparsity=0.9)"),
        (sc.ByAblation(), "ByAblation(threshold=-3.0)"),
        ("SomethingElse(steps=5)", "SomethingElse(steps=5)"),
        ("EAP(rule=<object at 0x1>)", "EAP(rule=<object at 0x1>)"),
        ("read from a paper", "read from a paper"),
    ],
)
def test_methods_are_shown_without_what_is_at_its_default(full: Any, short: str) -> None:
    assert method_name(full) == method_name(str(full)) == short


def test_pages_hold_names_once_and_numbers_in_short() -> None:
    many = scores_on(Graph(4, 8, 8))
    plot = many.compare(many).plot()
    assert len(plot.to_html()) < 60 * len(plot.panels[0].marks[0].texts)
    spec = json.loads(plot.to_html().split('<script type="application/json">')[1].split("</script>")[0])
    assert spec["data"][0]["x"] == pytest.approx(list(plot.panels[0].marks[0].x), rel=1e-5)


def test_one_size_of_a_curve_has_its_interval_and_what_is_undefined_is_said() -> None:
    assert not marks(Curve((10,), (evaluation(),)).plot(), Series)[0].band
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = Curve((0, 10), (undefined(), evaluation())).plot()
    assert both.note.startswith("undefined at 1 of 2 sizes")
    assert both.panels[0].x.label == f"edges in the circuit (of {GRAPH.size:,})"
    neurons = replace(evaluation(), circuit=scores_on(GRAPHS["neurons"]).top(5))
    many = Curve((10,), (evaluation(),)).plot(beside={str(i): Curve((10,), (evaluation(),)) for i in range(7)})
    looks = {(mark.colour, mark.mark) for mark in marks(many, Series)}
    assert len(looks) == 9  # with the curve itself, and completeness
    mixed = Curve((10,), (evaluation(),)).plot(beside={"neurons": Curve((5,), (neurons,))})
    assert mixed.panels[0].x.label == "edges or neurons in the circuit"


def test_feature_scores_are_compared_over_what_either_has() -> None:
    one = feature_scores()
    fewer = replace(one, node_ids=one.node_ids[3:], node_values=one.node_values[3:] * 2, per_example=None)
    found = one.compare(fewer)
    assert found.names == tuple(one.to_dict())
    assert found.y.tolist() == pytest.approx(list(one.to_dict().values()))
    assert found.x.tolist() == pytest.approx([0.0] * 3 + [2 * v for v in list(one.to_dict().values())[3:]])
    assert found.pearson_interval is not None
    edges = one.compare(replace(one, edge_list=one.edges[torch.tensor([0, 2])]), kind="edges")
    assert edges.names == tuple(one.to_dict("edges"))
    assert [bool(value) for value in edges.x.tolist()] == [True, False, True, False, False]
    sample = one.of_examples(one.node_ids.flip(0))
    assert sample is not None
    assert sample.mean(0).tolist() == pytest.approx(one.node_values.flip(0).tolist(), abs=1e-6)
    assert fewer.of_examples(one.node_ids) is None


def test_many_parts_are_drawn_by_the_largest() -> None:
    graph = Graph(8, 12, 12)
    scores = scores_on(graph)
    plot = scores.compare(replace(scores, values=scores.values * 0.5)).plot()
    (points,) = marks(plot, Series)
    assert len(points.x) == 5000 < graph.size
    assert min(map(abs, points.y)) >= sorted(map(abs, scores.to_dict().values()))[-5001]
    assert f"over {graph.size:,} edges, the 5,000 largest drawn" in plot.note


def test_interventions_have_means_intervals_and_every_example() -> None:
    one = evaluation()
    assert one.complement is not None
    plot = one.plot()
    (panel,) = plot.panels
    expected = {
        "whole model": one.clean,
        "circuit": one.per_example,
        "everything else": one.complement,
        "empty circuit": one.empty,
    }
    assert panel.y.names == tuple(expected)
    *dots, means = panel.marks
    assert isinstance(means, Series)
    for i, (values, found) in enumerate(zip(expected.values(), dots, strict=True)):
        assert isinstance(found, Series)
        assert sorted(found.x) == pytest.approx(sorted(values.tolist()))
        assert all(abs(y - i) < 0.3 for y in found.y)
        assert means.x[i] == pytest.approx(float(values.mean()))
        assert means.low[i] < means.x[i] < means.high[i]
    assert f"faithfulness {one.faithfulness:.3f} [" in plot.note
    assert "everything else" not in (evaluation(complement=False).plot().panels[0].y.names or ())
    assert len(marks(evaluation(n=3000).plot(), Series)[0].x) <= 400


def test_interventions_share_what_is_alike() -> None:
    one, two = evaluation(complement=False), evaluation(0.4, complement=False)
    names = plot_interventions({"one": one, "two": two, "three": [1.0, 2.0]}).panels[0].y.names
    assert names == ("whole model", "one", "two", "three", "empty circuit")
    other = replace(two, empty=two.empty + 1, ablation="mean")
    plot = plot_interventions({"one": one, "two": other})
    assert plot.panels[0].y.names == ("whole model", "one", "two", "empty circuit (one)", "empty circuit (two)")
    assert "patch, mean ablation" in plot.note
    by_size = plot_interventions({20: [1.0, 2.0]})  # pyright: ignore[reportArgumentType]
    assert by_size.panels[0].y.names == ("20",)


def test_baseline_histogram_counts_every_circuit_and_shows_the_circuit_itself() -> None:
    baseline = RESULTS["Baseline"]()
    plot = baseline.plot(circuit=evaluation())
    (mark,) = marks(plot, Bars)
    assert sum(mark.values) == 20
    values = baseline.faithfulness.tolist()
    width = mark.at[1] - mark.at[0]
    for at, count in zip(mark.at, mark.values, strict=True):
        assert count == pytest.approx(sum(at - width / 2 <= v < at + width / 2 for v in values), abs=1)
    rules = {rule.label: rule.at for rule in plot.panels[0].rules}
    assert rules[f"this circuit: {evaluation().faithfulness:.3f}"] == evaluation().faithfulness
    low, high = plot.panels[0].x.limits or (0, 0)
    assert low < min(0, *values)
    assert high > max(1, *values)
    assert Baseline(40, baseline.evaluations).plot(circuit=0.5).panels[0].rules[-1].at == 0.5


def test_stability_draws_intervals_and_greys_what_does_not_hold() -> None:
    random = scores_on(GRAPH, 8)
    assert random.per_example is not None
    kept = random.per_example[:1] + 0.4 * random.per_example
    values = torch.zeros(GRAPH.shape)
    values[GRAPH.mask] = kept.mean(0)
    scores = replace(random, values=values, per_example=kept)
    stability = scores.stability(12)
    plot = stability.plot()
    strongest = sorted(scores.to_dict().items(), key=lambda pair: -abs(pair[1]))[:12]
    assert plot.panels[0].y.names == tuple(name for name, _ in strongest)
    holds = set(GRAPH.names_of(stability.holds(0.95)))
    for (name, value), mark in zip(strongest, marks(plot, Series), strict=True):
        assert mark.x == (pytest.approx(value),)
        assert (mark.low[0], mark.high[0]) == pytest.approx(stability.interval(name))
        assert (mark.colour == "#A9AFB7") == (name not in holds)
    assert 0 < len(holds) < 12


def test_stability_of_scores_without_sign() -> None:
    scores = scores_on(GRAPH, 8, signed=False)
    plot = replace(scores, values=scores.values.abs(), per_example=scores.per_example).stability(12).plot()
    assert "blue" not in plot.note
    assert {mark.colour for mark in marks(plot, Series)} <= {"#A9AFB7", "#5A6068"}


def test_contributions_add_up_to_the_preactivation() -> None:
    made = contributions()
    plot = made.plot(n=6)
    found = bars(plot)
    assert list(found)[-1] == "35 others together"  # of 40 nodes and the bias
    assert sum(found.values()) == pytest.approx(float(made.preactivation.mean()), abs=1e-5)
    for name, value in list(found.items())[:6]:
        assert value == pytest.approx(made.to_dict()[name], abs=1e-6)


def test_feature_histogram_tokens_and_attention_patterns() -> None:
    plot = feature().plot()
    histogram, _ = plot.panels
    (mark,) = [mark for mark in histogram.marks if isinstance(mark, Bars)]
    assert mark.values == tuple(range(1, 9))
    assert [text for _, text in histogram.x.ticks][:5] == ["1", "1.2", "1.4", "1.7", "2"]
    assert bars(plot, 1) == {" he": 1.5, " they": 0.5, "↵": -2.0}
    report = head()
    patterns = marks(report.plot(), Cells)
    assert len(patterns) == 2
    assert [list(row) for row in patterns[0].values] == [
        pytest.approx(row) for row in report.prompts[0].pattern.tolist()
    ]
    assert patterns[0].texts[3][2].startswith("3:  a\nlooks at 2:  b\n")
    assert patterns[0].largest == 1.0
    assert len(head(9).plot(prompts=3).panels) == 3


def test_validation_sums_shift_and_similar() -> None:
    made = validation()
    found = bars(made.plot())
    assert list(found)[-2:] == ["sum of all 4", "all at once"]
    alone = list(found.values())[:-2]
    assert sum(alone) == pytest.approx(found["sum of all 4"], abs=1e-6)
    assert found["all at once"] == pytest.approx(made.change)
    _, downstream, _ = made.plot().panels
    assert [mark.x for mark in downstream.marks if isinstance(mark, Series)] == [(-3.0, 1.0), (-4.0, 0.5)]
    intended, unintended, worst = marks(shift().plot(), Series)
    assert unintended.x == (0.8, 0.55)
    assert unintended.low == pytest.approx((0.7, 0.45))
    assert intended.x == (0.9, 0.9)
    assert worst.high == (0.6, 0.6)
    decoder, encoder = marks(EVERY["similar"](), Series)
    assert (decoder.x, encoder.x) == ((0.9, 0.5), (-0.1, 0.2))


# --- how it is drawn ---


@pytest.mark.parametrize("name", EVERY)
def test_both_drawings_have_the_same_numbers_and_can_be_read(name: str, drawn: Callable[[str], Plot]) -> None:
    plot = drawn(name)
    picture, figure = plot.picture(), plot.figure()
    interactive = [t for t in figure.data if t.hoverinfo != "skip"]
    described = [mark for panel in plot.panels for mark in panel.marks]
    assert len(interactive) == len(described)
    for mark, trace in zip(described, interactive, strict=True):
        if isinstance(mark, Cells):
            assert trace.type == "heatmap"
            assert [[_number(v) for v in row] for row in trace.z] == [[_number(v) for v in row] for row in mark.values]
        else:
            x, y = (mark.x, mark.y) if isinstance(mark, Series) else (mark.values, mark.at)
            if isinstance(mark, Bars) and not mark.flat:
                x, y = y, x
            assert [_number(v) for v in trace.x] == [_number(v) for v in x]
            assert [_number(v) for v in trace.y] == [_number(v) for v in y]
    by_panel = [axes for axes in picture.axes if axes.get_label() != "<colorbar>"]
    assert len(by_panel) == len(plot.panels)
    for panel, axes in zip(plot.panels, by_panel, strict=True):
        for mark in panel.marks:
            if isinstance(mark, Cells):
                (mesh,) = axes.collections
                flat = [_number(v) for v in torch.tensor(mark.values).flatten().tolist()]
                assert [_number(float(v)) for v in mesh.get_array().filled(math.nan).ravel()] == pytest.approx(flat)
            elif isinstance(mark, Bars):
                assert {round(_length(bar, mark.flat), 9) for bar in axes.patches} == {
                    round(v, 9) if v == v else 0.0 for v in mark.values
                }
            else:
                lines = [line for line in axes.lines if tuple(line.get_xdata()) == mark.x]
                assert any(tuple(line.get_ydata()) == mark.y for line in lines)
    check_readable(picture)


def _number(value: Any) -> float:
    return -9e9 if value is None or value - value != 0 else float(value)


def _length(bar: Any, flat: bool) -> float:
    length = bar.get_width() if flat else bar.get_height()
    return 0.0 if length != length else float(length)


def check_readable(figure: Picture) -> None:
    """No tick leaves the figure or lies on another, and nothing lies on the title."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        canvas.draw()
    renderer, frame = canvas.get_renderer(), figure.bbox
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            labels = [label for at, label in ticks if low <= at <= high and label.get_text()]
            boxes = [label.get_window_extent(renderer) for label in labels]
            assert all(frame.x0 - 1 <= b.x0 and b.x1 <= frame.x1 + 1 and b.y0 >= frame.y0 - 1 for b in boxes)
            if labels and labels[0].get_rotation() == 0:
                for one, other in pairwise(sorted(boxes, key=lambda box: (box.x0 + box.x1, box.y0))):
                    assert one.x1 <= other.x0 + 0.5 or one.y1 <= other.y0 + 0.5 or other.y1 <= one.y0 + 0.5
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert all(box.y1 <= axes.get_tightbbox(renderer).y0 + 1 for axes in figure.axes)
    for text in figure.texts:
        box = Text.get_window_extent(text, renderer)
        assert box.x1 <= frame.x1
        assert all(box.y0 >= axes.get_window_extent(renderer).y1 for axes in figure.axes)


def test_counts_have_ticks_at_whole_numbers_and_tokens_all_have_theirs() -> None:
    for most, step in ((0, 1), (3, 1), (8, 1), (9, 2), (20, 5), (402, 100), (10_000, 2000)):
        axis = counted("n", [0, most])
        assert [at for at, _ in axis.ticks] == list(range(0, most + 1, step))
        assert axis.limits is not None
        assert axis.limits[0] == 0 < most + 1e-9 < axis.limits[1]
    tokens = ("<s>", "a", "to", "the", "of", "is") * 4
    (panel,) = head(1, tokens).plot().panels
    ticks = Frame.of(head(1, tokens).plot()).ticks(panel)
    assert [axis.texts for axis in ticks if axis is not None] == [tokens, tokens]


def test_the_scale_of_a_tall_heatmap_stays_slim(drawn: Callable[[str], Plot]) -> None:
    picture = drawn("48 layers of 32 heads").picture()
    FigureCanvasAgg(picture).draw()
    (bar,) = [axes.get_window_extent() for axes in picture.axes if axes.get_label() == "<colorbar>"]
    assert bar.width < 0.2 * picture.dpi
    assert bar.height < 5.5 * picture.dpi


def test_labels_are_cut_in_the_middle_and_made_visible() -> None:
    assert shown("a\nb\tc\x00") == "a↵b⇥c·"
    assert shown("x" * 30 + "y" * 30, 9) == "xxxx…yyyy"
    names = tuple(f"name {i}" for i in range(200))
    ticks = ticks_of(Axis(names=names), 3.0, "y")
    assert ticks is not None
    assert 10 < len(ticks.at) < 25
    assert ticks.texts[1] == f"name {int(ticks.at[1])}"
    slanted = ticks_of(Axis(names=names[:6]), 2.0, "x")
    assert slanted is not None
    assert slanted.aslant
    flat = ticks_of(Axis(names=("a", "b")), 4.0, "x")
    assert flat is not None
    assert not flat.aslant


def test_names_are_no_markup_and_no_mathematics() -> None:
    name = "</script><b>$x$ & $y$\n"
    plot = plot_interventions({name: [1.0, 2.0, 4.0]}, title=name)
    data = plot.to_html().split('<script type="application/json">')[1].split("</script>")[0]
    assert "$x$" not in data
    assert "<" not in data
    trace = json.loads(data)["data"][0]
    assert trace["hovertext"][0].startswith("&lt;/script&gt;&lt;b&gt;&#36;x&#36; &amp;")
    canvas = FigureCanvasAgg(plot.picture())
    canvas.draw()
    said = {text.get_text().replace("\\$", "$") for text in canvas.figure.findobj(Text)}
    assert "</script><b>$x$ & $y$↵" in said


# --- files and pages ---


@pytest.mark.parametrize("name", ["Scores", "Curve"])
def test_saved_files_are_the_same_every_time_and_well_formed(
    name: str, drawn: Callable[[str], Plot], tmp_path: Path
) -> None:
    for ending in (".svg", ".png", ".pdf", ".html") if name == "Scores" else (".svg",):
        first, second = (drawn(name).save(tmp_path / f"{i}{ending}") for i in range(2))
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size > 1000
    xml.dom.minidom.parse(str(tmp_path / "0.svg"))
    if name != "Scores":
        return
    assert (tmp_path / "0.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{i}{e}" for i in (0, 1) for e in (".svg", ".png", ".pdf", ".html")
    }


def test_pictures_do_not_take_on_the_users_style(tmp_path: Path) -> None:
    def drawn(name: str) -> list[bytes]:
        plot, circuit = scores_on(GRAPH).plot(), scores_on(GRAPH).top(9)
        features = FeatureCircuit(FeatureGraph(PLACES, 2, 8), torch.arange(0, 60, 7))
        for i, save in enumerate((plot.save, circuit.plot, features.plot)):
            save(tmp_path / f"{name}{i}.svg")
        plot.picture().savefig(tmp_path / f"{name}3.svg", metadata={"Date": None})
        return [(tmp_path / f"{name}{i}.svg").read_bytes() for i in range(4)]

    plain = drawn("plain")
    chosen = {"lines.marker": "x", "font.size": 20, "axes.grid": True, "savefig.bbox": "tight", "svg.fonttype": "path"}
    with matplotlib.style.context(["dark_background", chosen]):
        assert drawn("styled") == plain
        assert matplotlib.rcParams["lines.marker"] == "x"


def test_a_plot_is_saved_by_every_method_that_makes_one(tmp_path: Path) -> None:
    for name, make in RESULTS.items():
        path = tmp_path / f"{name}.html"
        assert make().plot(path).to_html() in path.read_text(encoding="utf-8")
        with pytest.raises(sc.InputError, match=r"ends in .*\.html"):
            make().plot(tmp_path / "plot.txt")
    with pytest.raises(sc.InputError, match="no folder"):
        evaluation().plot(tmp_path / "nowhere" / "plot.html")


def test_a_png_has_the_pixels_that_were_asked_for(tmp_path: Path) -> None:
    def width(path: Path) -> int:
        return int.from_bytes(path.read_bytes()[16:20], "big")

    circuit = scores_on(GRAPH).top(3)
    for save in (scores_on(GRAPH).plot().save, circuit.plot):
        widths = []
        for dpi in (None, 75):
            save(tmp_path / "it.png", dpi=dpi)
            widths.append(width(tmp_path / "it.png"))
        assert widths[0] == pytest.approx(2 * widths[1], abs=2)
        for wrong in (0, -1, True, "150", math.nan, 1e6, 0.01):
            with pytest.raises(sc.InputError, match="dpi="):
                save(tmp_path / "wrong.png", dpi=wrong)
    assert not (tmp_path / "wrong.png").exists()


def test_pages_hold_the_script_once_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    plot = evaluation().plot()
    piece = plot.to_html()
    assert len(piece) < 20_000
    assert "http" not in piece
    assert plot.to_html(script=True) == piece + plot_script()
    page = plot.save(tmp_path / "plot.html").read_text(encoding="utf-8")
    assert page.count(plot_script()) == 1
    outside = page.replace(plot_script(), "")
    assert "src=" not in outside
    assert "href=" not in outside


def test_pages_work_from_disk_without_a_network(open_page: Callable[..., Opened], tmp_path: Path) -> None:
    plots = [scores_on(GRAPH).plot(), evaluation().plot(), RESULTS["Curve"]().plot()]
    pieces = "".join(plot.to_html() for plot in plots)
    several = tmp_path / "several.html"
    several.write_text(f"<!DOCTYPE html><meta charset=utf-8>{pieces}{plot_script()}", encoding="utf-8")
    name = "$x$ </script><img src=http://127.0.0.1/x onerror=alert(1)>"
    odd = plot_interventions({name: [1.0, 3.0]}, tmp_path / "odd.html", title=name)
    page = open_page(tmp_path / "odd.html", offline=True).page
    page.wait_for_selector(".main-svg .ytick")
    assert page.locator(".main-svg .ytick text").all_text_contents() == [shown(name)]
    assert odd.title in page.title()
    page = open_page(several, offline=True).page
    page.wait_for_function("document.querySelectorAll('.main-svg .xlines-above').length >= 3")
    page.mouse.move(*page.evaluate(f"({CELL})(0)"))
    page.wait_for_selector(".hoverlayer .hovertext")
    value = cells(plots[0])["a2.h0"]  # the first cell of the top row
    assert page.locator(".hoverlayer .hovertext").text_content() == f"a2.h0{value:.4g}"


# The middle of the first cell of a page's n-th plot, a heatmap.
CELL = """(n) => {
  const plot = document.querySelectorAll(".js-plotly-plot")[n];
  const { _offset: x, p2d: _, d2p: across } = plot._fullLayout.xaxis;
  const { _offset: y, d2p: down } = plot._fullLayout.yaxis;
  const at = plot.getBoundingClientRect(), rows = plot.data[0].y;
  return [at.left + x + across(0), at.top + y + down(0)];
}"""


def test_notebooks_get_the_interactive_form_and_a_picture(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = (
        "import torch, sparse_circuits as sc\n"
        "from sparse_circuits.circuit import Scores\n"
        "graph = sc.Graph(2, 2, 2)\n"
        "scores = Scores(graph, torch.ones(graph.shape) * graph.mask, torch.zeros(3), None)\n"
        "scores.plot()"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("scores.top(3)")])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, second = (cell.outputs[0].data for cell in book.cells)
    assert set(first) == {"application/vnd.plotly.v1+json", "image/png", "text/plain"}
    spec = first["application/vnd.plotly.v1+json"]
    assert spec["data"][0]["type"] == "heatmap"
    assert first["image/png"].startswith("iVBOR")
    assert "<table" in second["text/html"]
    nbformat.validate(book)


def test_importing_and_describing_need_neither_matplotlib_nor_plotly() -> None:
    script = (
        "import sys, torch; from sparse_circuits.circuit import Scores; from sparse_circuits.graph import Graph;"
        "g = Graph(1, 1, 1); s = Scores(g, g.mask.float(), torch.zeros(2), None); p = s.plot(); p.to_html(); s._repr_html_();"
        "s.top(2)._repr_html_(); print({'matplotlib', 'plotly', 'transformer_lens'} & set(sys.modules));"
        "p.picture(); print('plotly' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "False False"]


# --- bad input ---


def test_bad_input_is_refused() -> None:
    scores, features = scores_on(GRAPH), feature_scores()
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: scores.plot(kind="heat"), "expected one of 'heads', 'positions', 'strongest'"),
        (lambda: scores.plot(kind="positions"), "positions='keep'"),
        (lambda: scores.plot(kind="strongest", n=0), "whole number of at least 1"),
        (lambda: scores.plot(n=True), "whole number of at least 1"),
        (lambda: features.plot(kind="positions"), "positions='keep'"),
        (lambda: features.plot(kind="heads"), "expected one of 'strongest', 'prompts', 'positions'"),
        (lambda: replace(features, per_example=None).plot(kind="prompts"), "per_example=True"),
        (lambda: features.plot(kind="prompts", prompts=["one"]), "expected 8 texts, one per example; got 1"),
        (lambda: scores.compare(features), "expected Scores of the same graph"),  # pyright: ignore[reportArgumentType]
        (lambda: scores.compare(scores_on(GRAPHS["grouped"])), "of two graphs"),
        (lambda: scores.compare(scores, draws=3), "at least 20"),
        (lambda: scores.compare(replace(scores, values=scores.values * math.nan)), "not finite"),
        (lambda: features.compare(features, kind="both"), "expected 'nodes' or 'edges'"),
        (lambda: features.compare(replace(features, edge_list=None), kind="edges"), "have no edges"),
        (lambda: plot_interventions({}), r"results=\{\}\): expected at least one evaluation"),
        (lambda: plot_interventions(evaluation()), "results=Evaluation.*by name"),  # pyright: ignore[reportArgumentType]
        (lambda: RESULTS["Curve"]().plot(beside=[RESULTS["Curve"]()]), "expected other curves by name"),
        (lambda: RESULTS["Curve"]().plot(beside={"EAP": evaluation()}), "expected other curves by name"),
        (lambda: RESULTS["Curve"]().plot(baseline=0.1), "what random_baseline returns"),
        (lambda: plot_interventions({"x": torch.zeros(2, 2)}), "'x' is Tensor; expected an Evaluation"),
        (lambda: plot_interventions({"x": []}), "expected an Evaluation"),
        (lambda: plot_interventions({"x": "text"}), "'x' is str"),
        (lambda: head(0).plot(), "no patterns"),
    ]
    for call, message in refused:
        with pytest.raises(sc.InputError, match=message):
            call()


def test_nothing_is_changed() -> None:
    for name, make in RESULTS.items():
        one = make()
        before = {
            f.name: getattr(one, f.name).clone()
            for f in dataclasses.fields(one)
            if isinstance(getattr(one, f.name), torch.Tensor)
        }
        one.plot().picture()
        one._repr_html_()
        for field, value in before.items():
            assert torch.equal(getattr(one, field), value), (name, field)


def test_panels_are_values() -> None:
    plot = scores_on(GRAPH).plot()
    assert plot == scores_on(GRAPH).plot()
    assert hash(plot) == hash(scores_on(GRAPH).plot())
    with pytest.raises(dataclasses.FrozenInstanceError):
        plot.title = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(plot.panels[0], Panel)
    assert repr(plot) == "Plot('Scores by node: ioi, toy, EAP()')"
