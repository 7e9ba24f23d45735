"""What notebooks show: the numbers in it, escaped, small, without scripts, readable in light and dark."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.circuit import Circuit, FeatureCircuit, Scores
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.features import Context, Feature, FeatureStore
from sparse_circuits.features.shades import ABOVE, BELOW
from sparse_circuits.features.store import Options
from sparse_circuits.graph import FeatureGraph, Graph
from sparse_circuits.graph.places import Place
from sparse_circuits.model.sites import Site
from sparse_circuits.tracing import Trace, TracedEdge, TracedNode
from sparse_circuits.view.contents import tint
from sparse_circuits.view.display import card, grid, ranked
from sparse_circuits.view.trace_card import Token

GRAPH = Graph(n_layers=2, n_heads=4, n_kv=2)
NASTY = '<script>alert("x")</script> & "quotes" \'too\''
LARGE = 20_000  # bytes
VOID = {"br", "hr"}


def scores_on(graph: Graph = GRAPH, **options: Any) -> Scores:
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.mask
    fields = {"provenance": {"task": NASTY, "model": "toy", "method": "EAP()"}, **options}
    return Scores(graph, values, torch.full((4,), 2.5), torch.full((4,), -1.0), **fields)


def evaluation(circuit: Any = None, share: float = 0.8) -> Evaluation:
    clean, empty = torch.linspace(2, 3, 10), torch.zeros(10)
    circuit = scores_on().top(20) if circuit is None else circuit
    return Evaluation(circuit, empty + share * clean, clean, empty, 0.1 * clean, "patch")


def undefined() -> Evaluation:
    same = torch.ones(6)
    return Evaluation(Circuit.of(GRAPH, []), same, same, same, None, "zero")


def feature_circuit(n: int = 40, edges: int = 30) -> FeatureCircuit:
    graph = FeatureGraph((Place(Site("resid", 0), 400, 1, "a"), Place(Site("resid", 1), 400, 1, "b")), 2, 8)
    ids = torch.arange(0, 20 * n, 20)
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randperm(401 * 401, generator=generator)[:edges]
    links = EdgeList(pairs // 401, 401 + pairs % 401, torch.randn(edges, generator=generator))
    return FeatureCircuit(graph, ids, torch.randn(n, generator=generator), links, {"task": NASTY})


def feature() -> Feature:
    tokens = tuple(f"token{i}" for i in range(300))
    context = Context((*tokens[:299], NASTY), (*((0.0,) * 299), 2.0), 299, 2.0)
    return Feature(
        "resid_0.f1", 1000, 40, 1.0, 2.0, 0.0, (1, 2), (3,), (context,) * 20, promoted=((NASTY, 1.0),), label=NASTY,
        link="https://example.org/?a=1&b=2",
    )  # fmt: skip


def trace() -> Trace:
    nodes = (TracedNode("resid_0.f1", -0.5), TracedNode("resid_0.f2", 2.0), TracedNode("resid_1.f3", None))
    edges = (TracedEdge("resid_0.f1", "resid_1.f3", -4.0), TracedEdge("resid_0.f1", "logits", 0.25))
    return Trace(feature_circuit().graph, nodes, edges, ({},), {"task": NASTY})


SHOWN: dict[str, Callable[[], Any]] = {
    "scores": scores_on,
    "unsigned": lambda: scores_on(signed=False),
    "positions": lambda: scores_on(GRAPH.at((NASTY, "last"))),
    "neurons": lambda: scores_on(Graph(2, 4, 2, level="neurons", d_head=3, d_mlp=5)),
    "not finite": lambda: replace(scores_on(), values=torch.full(GRAPH.shape, float("nan"))),
    "circuit": lambda: scores_on().top(20),
    "nodes": lambda: scores_on(Graph(2, 4, 2, level="nodes")).top(5),
    "names only": lambda: Circuit.of(GRAPH, [*GRAPH.names][:30]),
    "empty circuit": lambda: Circuit.of(GRAPH, []),
    "empty with scores": lambda: scores_on().top(0),
    "feature circuit": feature_circuit,
    "empty feature circuit": lambda: FeatureCircuit(feature_circuit().graph, torch.empty(0, dtype=torch.int64)),
    "comparison": lambda: scores_on().compare(scores_on(signed=False)),
    "evaluation": evaluation,
    "undefined": undefined,
    "of features": lambda: evaluation(feature_circuit()),
    "curve": lambda: Curve(tuple(range(60)), (evaluation(),) * 60),
    "no curve": lambda: Curve((), ()),
    "baseline": lambda: Baseline(20, tuple(evaluation(share=i / 20) for i in range(20))),
    "undefined baseline": lambda: Baseline(20, (undefined(),) * 20),
    "trace": trace,
    "feature": feature,
    "unknown feature": lambda: Feature("m0.n1"),
}


class Checker(HTMLParser):
    """Tags opened and closed in order, and the words between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name in ("style", "title", "href"), name
            if name == "style":
                own = re.search(r"(^|;)\s*color:\s*(?!inherit)", value or "")
                assert not own or "background:rgb" in (value or ""), "text has the reader's own colour"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(shown: Any) -> str:
    """The words of a display, checked on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is undefined is said in the table
        text = shown._repr_html_()
    assert len(text.encode()) < LARGE
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    assert not checker.tags & {"script", "style", "link", "img"}
    return " ".join(checker.words)


@pytest.mark.parametrize("name", SHOWN)
def test_displays_are_small_well_formed_and_escaped(name: str) -> None:
    assert read(SHOWN[name]())


def test_a_circuits_display_has_its_strongest_parts() -> None:
    circuit = scores_on().top(50)
    words = read(circuit)
    assert f"{circuit.size} of {GRAPH.size} edges" in words
    assert NASTY in words
    strongest = list(circuit.to_dict().items())
    for name, value in strongest[:8]:
        assert f"{name} {value:.4g}" in words
    assert strongest[8][0] not in words
    assert f"(8 of {circuit.size})" in words
    of_names = read(Circuit.of(GRAPH, [*GRAPH.names][:30]))
    assert ", ".join([*GRAPH.names][:3]) in of_names


def test_a_feature_circuits_display() -> None:
    circuit = feature_circuit()
    words = read(circuit)
    for kind in ("nodes", "edges"):
        for name, value in list(circuit.to_dict(kind).items())[:8]:
            assert f"{name} {value:.4g}" in words
    assert "40 of 802 nodes" in words
    errors = sum(name.endswith(".error") for name in circuit.nodes)
    assert f"error terms {errors}" in words


def test_a_traces_display() -> None:
    words = read(trace())
    assert "2 features in 1 run; 1 more reached" in words
    assert "resid_0.f2 2 " in words.replace("  ", " ")
    assert words.index("resid_0.f2") < words.index("resid_0.f1")  # strongest first
    assert "resid_0.f1->resid_1.f3 -4" in words


def test_scores_displays() -> None:
    words = read(scores_on())
    strongest = sorted(scores_on().to_dict().items(), key=lambda pair: -abs(pair[1]))
    for name, value in strongest[:8]:
        assert f"{name} {value:.4g}" in words
    assert "2.5, mean of 4 examples; corrupted -1" in words
    assert "sizes only" in read(scores_on(signed=False))
    assert "sizes only" not in words


def test_results_displays() -> None:
    one = evaluation()
    words = read(one)
    low, high = one.faithfulness_interval
    assert f"faithfulness {one.faithfulness:.2f} [{low:.2f}, {high:.2f}]" in words
    assert one.completeness is not None
    assert f"completeness {one.completeness:.2f}" in words
    for name, values in (("whole model", one.clean), ("circuit", one.per_example), ("empty circuit", one.empty)):
        assert f"{name} {float(values.mean()):.4g}" in words
    assert "undefined" in read(undefined())
    baseline = SHOWN["baseline"]()
    assert f"median {baseline.median:.2f}" in read(baseline)
    curve = Curve((5, 20), (evaluation(scores_on().top(5), 0.5), evaluation()))
    words = read(curve)
    assert f"{curve.sizes[0]} 0.50" in words
    assert f"{curve.sizes[1]} 0.80" in words
    assert f"{one.completeness:.2f} [" in words
    comparison = scores_on().compare(scores_on())
    assert "Pearson 1.000" in read(comparison)
    single = replace(scores_on(), clean=torch.full((1,), 2.5))
    assert "2.5, one example; corrupted -1" in read(single)


def test_a_features_display_shows_the_part_around_the_peak() -> None:
    words = read(feature())
    assert NASTY in words
    assert "token298" in words
    assert "token200" not in words
    assert "4.000% of 1,000 tokens" in words


def test_parts_are_shown_in_a_line() -> None:
    context = feature().top[0]
    assert context._repr_html_() == context.to_html()
    model = sc.load_model("toy", device="cpu")
    sae = sc.load_dictionaries("toy", model, sites=["resid"])["resid_3"]
    assert repr(sae) == f"Dictionary(resid_3: {sae.n_features} features, toy/resid_3)"
    assert repr(scores_on(Graph(2, 4, 2, level="nodes")).top(5)).startswith("Circuit(5 of 11 nodes, task=")


def test_a_display_of_a_large_circuit_is_as_small() -> None:
    graph = Graph(16, 20, 20)
    assert graph.size > 100_000
    circuit = Circuit(graph, graph.mask, scores_on(graph).values)
    assert read(circuit)
    assert read(scores_on(graph))
    assert read(feature_circuit(40, 100_000))


def test_parts_of_displays() -> None:
    assert "<b>" not in card("<b>", [("<b>", "<b>"), ("gone", None), ("gone too", "")])
    assert "gone" not in card("title", [("gone", None), ("gone too", "")])
    assert ranked("nothing", []) == ""
    bars = ranked("parts", [("a", -2.0), ("b", 1.0), ("c", float("nan"))])
    assert re.findall(r"width:(\d+)px;background:(#\w+)", bars)[:2] == [("70", "#0072B2"), ("35", "#D55E00")]
    assert "#0072B2" not in ranked("parts", [("a", -2.0)], signed=False)
    assert "&lt;" in grid(["<"], [["<"]])
    assert repr(scores_on()) == f"Scores({GRAPH.size:,} edges, 4 examples, task={NASTY!r}, method='EAP()')"


def test_on_a_model() -> None:
    model = sc.load_model("toy", device="cpu")
    task = sc.load_task("ioi", model, n=8)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), per_example=True)
    assert "convergence gap" in read(scores)
    words = read(scores.stability(10))
    assert "chosen 10 edges" in words
    report = sc.head_report(model, task, "a2.h7", prompts=2)
    assert f"{report.looks_at[0][0]!r}" in read(report)
    saes = sc.load_dictionaries("toy", model, sites=["resid"])
    made = sc.contributions(model, sc.Graph.of(model, saes), task, "resid_2.f5")
    words = read(made)
    name, value = next(iter(made.to_dict().items()))
    assert f"{name} {value:.4g}" in words


def test_what_results_are_made_from_is_shown_in_short(tmp_path: Path) -> None:
    task = sc.Task(clean=[NASTY] * 5, corrupted=None, metric=lambda logits, batch: logits[:, 0, 0], name=NASTY)
    shown = {
        "2 of 4 heads": GRAPH,
        "2 groups": Graph(2, 4, 2, has_mlp=False, level="neurons", d_head=3).at((NASTY, "b")),
        "resid_0": feature_circuit().graph,
        "and 2 more": task,
        "a note": sc.Labels({NASTY: "a note"}),
        "none yet": FeatureStore.new(tmp_path, "toy", Options(context=4)),
        "sites 0": sc.Dictionaries(()),
    }
    for words, one in shown.items():
        assert words in read(one)
        assert "\n" not in repr(one)
        assert len(repr(one)) < 320


def test_a_circuit_says_how_many_parts_were_asked_for() -> None:
    scores = scores_on(Graph(2, 2, 2))
    few = scores.top(5)
    assert few.size < 5
    assert ", 5 asked for" in repr(few)
    assert "5 asked for" in read(few)
    for other in (scores.top(scores.graph.size), scores.threshold(0.5), few.complement()):
        assert "asked for" not in repr(other)


def test_tokens_have_one_colour_above_0_and_another_below_everywhere() -> None:
    text = Context(("a", "b", "c"), (2.0, -1.0, 0.0), 0, 2.0).to_html()
    above, below, none = re.findall(r'style="([^"]*)"', text)
    red, green, blue = (int(ABOVE[i : i + 2], 16) for i in (1, 3, 5))
    assert above == f"font-weight:600;background:rgba({red},{green},{blue},0.87);color:#FFFFFF"
    assert "underline" in below
    assert none == ""
    page = sc.Circuit.of(GRAPH, ["input->logits"]).explore().html
    assert f"--above: {ABOVE}; --below: {BELOW};" in page
    assert Token("b", -1.0).fill == tint(BELOW, 0.87)
