"""The report: its numbers are the results', its text is escaped, it says what is missing, and a browser has no complaint."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import close_keys
from conftest import token_task

import sparse_circuits as sc
from sparse_circuits.features import mlp_report
from sparse_circuits.view.explorer import explore
from sparse_circuits.view.report import report
from sparse_circuits.view.report.markup import anchor, join, link, number, share, tag

HEADINGS = ("question", "verdict", "model", "circuit", "curve", "meaning", "unexplained", "made")
EVIL = "</script><img src=x onerror=alert(1)>&\"'<b>"
SIZES = [5, 20, 60]
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "rect"}


class Read(HTMLParser):
    """A page as a reader of its markup sees it: tables by caption, ids, links, and whether all that opens is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.names.add(name)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if name == "a":
            self.links.append(str(given["href"]))
        if name == "table":
            self._rows, self._caption = [], ""
        elif name == "tr":
            self._rows.append([])
        elif name in ("td", "th"):
            self._rows[-1].append("")
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name: str) -> None:
        if name in VOID:
            return
        assert self.open.pop() == name
        if name == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text += data
        if "caption" in self.open:
            self._caption += data
        elif self.open and {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data

    def table(self, start: str) -> dict[str, list[str]]:
        """A table's rows by their headings, the one whose caption starts so."""
        (rows,) = (rows for caption, rows in self.tables.items() if caption.startswith(start))
        return {row[0]: row[1:] for row in rows[1:]}


def read(page: Any) -> Read:
    found = Read(page.html)
    assert len(found.ids) == len(set(found.ids))
    assert set(HEADINGS) <= set(found.ids)
    assert {to[1:] for to in found.links if to.startswith("#")} <= set(found.ids)
    return found


def shown(value: float, bounds: tuple[float, float], digits: int = 2) -> str:
    value, low, high = (round(x, digits) + 0.0 for x in (value, *bounds))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@dataclass
class Made:
    """A circuit with everything that a report can be told of it."""

    evaluation: sc.Evaluation
    everything: dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Any:
    return sc.load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def made(model: Any) -> Made:
    task, new = sc.load_task("ioi", model, n=8), sc.load_task("ioi", model, n=8, seed=1)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAPIG(steps=2))
    circuit = scores.greedy(30)
    curve = sc.faithfulness_curve(model, scores, new, SIZES)
    other = sc.faithfulness_curve(model, sc.attribute(model, scores.graph, task, sc.EAP()), new, SIZES)
    heads = [name for name in circuit.nodes if ".h" in name][:2]
    pages = sc.feature_pages(model, heads, labels={heads[0]: "moves names"})
    told = {
        name: page.to_dict() | sc.head_report(model, new, name, prompts=2).to_dict() for name, page in pages.items()
    }
    everything = {
        "task": new,
        "found_on": task,
        "model": model,
        "question": "who gets it",
        "corrupted": sc.evaluate(model, sc.Circuit.of(circuit.graph, []), new).empty,
        "baseline": sc.random_baseline(model, circuit, new),
        "curve": curve,
        "random": [sc.random_baseline(model, e.circuit, new, seed=i) for i, e in enumerate(curve.evaluations)],
        "beside": {"eap": other},
        "scores": scores,
        "meanings": told,
        "explorer": explore(circuit),
        "commands": [("Find it", "sparse-circuits find --task ioi --edges 30")],
        "recorded": {"seed": 0},
    }
    return Made(sc.evaluate(model, circuit, new, completeness=True), everything)


def test_the_numbers_are_those_of_the_results(made: Made, model: Any) -> None:
    page = read(report(made.evaluation, **made.everything))
    new, circuit = made.everything["task"], made.evaluation.circuit
    again = sc.evaluate(model, circuit, new, completeness=True)
    faithful = shown(again.faithfulness, again.faithfulness_interval)
    assert page.text.count(faithful) >= 2  # where the model is measured, and in the verdict
    values = page.table("How well the model does")
    assert values["only the circuit"] == [
        number(again.mean),
        share(float((again.per_example > 0).float().mean())),
        faithful,
    ]
    for row, side in (("whole model, clean prompts", again.clean), ("none of the circuit", again.empty)):
        assert values[row][:2] == [number(float(side.mean())), share(float((side > 0).float().mean()))]
    assert values["whole model, corrupted prompts"][0] == number(
        float(again.empty.mean())
    )  # of an edge circuit under PATCH
    assert f"{circuit.size} of {circuit.graph.size:,} edges" in page.text
    assert f"reach {made.everything['baseline'].median:z.2f} (median of 20)" in page.text
    assert again.completeness is not None
    assert again.completeness_interval is not None
    assert shown(again.completeness, again.completeness_interval) in page.text
    assert "8 prompts that were not used to find it" in page.text
    assert "EAPIG(steps=2" in page.text


def test_the_curve_is_the_librarys(made: Made, model: Any) -> None:
    page = read(report(made.evaluation, **made.everything))
    curve = sc.faithfulness_curve(model, made.everything["scores"], made.everything["task"], SIZES)
    other, random = made.everything["beside"]["eap"], made.everything["random"]
    rows = page.table("Faithfulness, with its 95% interval")
    assert list(rows) == [str(n) for n in SIZES]
    for i, n in enumerate(SIZES):
        mine, its, drawn = curve.evaluations[i], other.evaluations[i], random[i]
        assert rows[str(n)] == [
            str(mine.circuit.size),
            shown(mine.faithfulness, mine.faithfulness_interval),
            shown(its.faithfulness, its.faithfulness_interval),
            shown(drawn.median, drawn.interval),
        ]
    areas = page.table("Area under the curve")
    assert areas["EAPIG"] == [
        shown(curve.area, curve.area_interval, 3),
        shown(curve.distance, curve.distance_interval, 3),
    ]
    assert areas["eap"][0] == shown(other.area, other.area_interval, 3)
    # of random circuits by hand: trapezoids over the shares of the graph, draw by draw
    total = made.evaluation.circuit.graph.size
    shares = torch.tensor([0.0, *(n / total for n in SIZES), 1.0], dtype=torch.float64)
    by_draw = []
    for draw in range(20):
        heights = [0.0]
        for baseline in random:
            e = baseline.evaluations[draw]
            heights.append(float((e.per_example - e.empty).double().mean() / (e.clean - e.empty).double().mean()))
        by_draw.append(float(torch.trapezoid(torch.tensor([*heights, 1.0], dtype=torch.float64), shares)))
    middle = float(areas["random, median of draws"][0].split(" ")[0])
    assert sorted(by_draw)[9] - 6e-4 <= middle <= sorted(by_draw)[10] + 6e-4


def test_what_was_not_explained(made: Made) -> None:
    page = read(report(made.evaluation, **made.everything))
    e, task, scores = made.evaluation, made.everything["task"], made.everything["scores"]
    misfits = sorted(range(8), key=lambda i: -abs(float(e.clean[i]) - float(e.per_example[i])))
    worst = page.table("The 5 prompts that the circuit fits worst")
    assert list(worst) == [task.clean[i] for i in misfits[:5]]
    assert list(worst.values()) == [
        [number(float(values[i])) for values in (e.clean, e.per_example, e.empty)] for i in misfits[:5]
    ]
    inside = set(e.circuit.names)
    out = {name: value for name, value in scores.to_dict().items() if name not in inside}
    strongest = sorted(out.items(), key=lambda item: -abs(item[1]))[:10]
    assert list(page.table("The strongest edges that are not in").items()) == [
        (name, [number(v)]) for name, v in strongest
    ]
    everything = sum(map(abs, scores.to_dict().values()))
    assert f"outside the circuit{share(sum(abs(v) for v in out.values()) / everything)}" in page.text
    assert number(scores.convergence_gap) in page.text
    low, high = e.faithfulness_interval
    assert f"faithfulness missing{shown(1 - e.faithfulness, (1 - high, 1 - low))}" in page.text


def test_the_question_and_the_nodes(made: Made) -> None:
    page = read(report(made.evaluation, **made.everything))
    task, circuit = made.everything["task"], made.evaluation.circuit
    pairs = page.table("The first 5 of 8 prompts")
    assert list(pairs) == list(task.clean[:5])
    assert [row[0] for row in pairs.values()] == list(task.corrupted[:5])
    assert [row[1] for row in pairs.values()] == [answer[0].strip() for answer in task.metric.correct[:5]]
    assert "mark" in page.names
    assert "who gets it" in page.text
    sums: dict[str, float] = {}
    for edge, score in circuit.to_dict().items():
        source = edge.split("->")[0]
        sums[source] = sums.get(source, 0.0) + score
    strongest = sorted(sums, key=lambda name: -abs(sums[name]))[:15]
    caption = f"The 15 strongest of {len(sums)}" if len(sums) > 15 else f"All of {len(sums)}"
    ranked = page.table(f"{caption} nodes, by the sum of their outgoing edges")
    assert [(name, row[0]) for name, row in ranked.items()] == [(name, number(sums[name])) for name in strongest]
    for name, known in made.everything["meanings"].items():
        assert anchor(name) in page.ids
        assert "".join(known["prompts"][0]["tokens"][:3]) in page.text.replace(" ", "")
    assert "moves names" in page.text


def test_text_is_escaped_wherever_it_enters(made: Made, model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words that the vocabulary lacks
        task = sc.Task(
            [f"the park {EVIL} one"] * 2, [f"the store {EVIL} one"] * 2, metric=sc.LogitDiff([5, 6], [7, 8]), name=EVIL
        )
        scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP())
        circuit = scores.greedy(20)
        circuit.provenance["model"] = circuit.provenance["revision"] = EVIL
        evaluation = sc.evaluate(model, circuit, task, completeness=True)
        curve = sc.faithfulness_curve(model, scores, task, [5])
    head = next(name for name in circuit.nodes if ".h" in name)
    context = {"tokens": [EVIL, "b"], "values": [1.0, 0.5], "peak": 0, "value": 1.0, "text": EVIL}
    told = {
        head: {
            "label": EVIL, "link": "javascript:alert(1)", "tokens": 10, "fired": 3, "density": 0.3, "mean": 1.0, "top": [context],
            "promoted": [[EVIL, 1.0]], "suppressed": [[EVIL, -1.0]], "similar": [[EVIL, 0.5]], "looks_at": [[EVIL, 0.5]],
            "prompts": [{"tokens": [EVIL, "b"], "pattern": [[1.0, 0.0], [0.5, 0.5]]}],
            "quantiles": [{"from": 0.8, "to": 1.0, "contexts": [context]}, {"from": 0.6, "to": 0.8, "contexts": [context]}],
        }
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = report(
            evaluation, task=task, model=model, question=EVIL, title=EVIL, meanings=told, curve=curve, beside={EVIL: curve},
            scores=scores, commands=[(EVIL, EVIL)], recorded={EVIL: EVIL}, missing={"explorer": EVIL}, looked_at=EVIL,
            policies={EVIL: evaluation}, explorer=f"<p>{EVIL}</p>", name=EVIL,
        )  # fmt: skip
    found = read(page)
    assert "img" not in found.names
    assert "<img" not in page.html
    assert page.html.count("<script") == 2  # the explorer's page as data, and the one that opens it
    assert not any("javascript" in to for to in found.links)
    assert found.text.count(EVIL) >= 20


def test_tokens_are_shown_whole_and_move_nothing(made: Made) -> None:
    """Spaces and controls are visible, and the direction of a token's writing ends with the token."""
    tokens = [" שלום", "\n", "\t", "\x1d", " <b> ", "", "a\u202eb", "  "]
    visible = ["·שלום", "↵", "⇥", "\\x1d", "·&lt;b&gt;·", "∅", "a\\u202eb", "··"]
    strong, weak = made.evaluation.circuit.nodes[1:3]
    context = {"tokens": ["a\n", "\x1d", "b c"], "values": [1.0, 0.5, 0.0], "peak": 0}
    told = {"promoted": [[token, 1.0] for token in tokens], "contexts": [context]}
    prompt = {"tokens": ["\n", "\x00"], "pattern": [[1.0, 0.0], [0.5, 0.5]]}
    page = report(made.evaluation, meanings={strong: {**told, "prompts": [prompt]}}).html
    listed = ", ".join(f"<b><bdi>{token}</bdi></b> +1.00" for token in visible)
    assert f"<dt>promotes</dt><dd>{listed}</dd>" in page
    strip = re.sub("<[^>]+>", "", page.partition("Fires most on</h4>")[2].partition("</li>")[0])
    assert strip == "1.00 a↵\\x1db c"
    assert '<th scope="row"><bdi>\\x00</bdi></th>' in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    page = report(made.evaluation, meanings={weak: told}, described=0).html
    assert "<td><bdi>a↵</bdi></td><td>" + " ".join(f"<bdi>{token}</bdi>" for token in visible[:5]) in page


@pytest.mark.filterwarnings("ignore:Faithfulness is undefined")
@pytest.mark.parametrize("positions", ["sum", "keep"])
def test_what_a_head_reads_through_shared_keys_and_values(zoo: Any, positions: Any) -> None:
    model, task = zoo("llama"), token_task(4)
    graph = sc.Graph.of(model)
    circuit = sc.attribute(model, graph, task, sc.EAP(), positions=positions).greedy(60)
    evaluation = sc.evaluate(model, circuit, task)
    each = graph.n_heads // graph.n_kv
    assert each > 1
    heads = sorted({node for name in circuit.nodes if (node := name.partition("@")[0]).startswith("a1.h")})
    page = report(evaluation, meanings={name: {"label": "a head"} for name in heads}, described=1000).html
    shared = 0
    for name in heads:
        group = f"a1.g{int(name.partition('h')[2]) // each}"
        sums: dict[str, float] = {}
        for edge, score in circuit.to_dict().items():
            source, _, target = edge.partition("->")
            source, target = source.partition("@")[0], target.partition("@")[0]
            for end, more in ((f"{name}<q>", ""), (f"{group}<k>", group), (f"{group}<v>", group)):
                if target == end:
                    said = f"{source} ({end[-2]}{', shared by ' + more if more else ''})"
                    sums[said] = sums.get(said, 0.0) + score
        strongest = sorted(sums, key=lambda said: -abs(sums[said]))[:5]
        shared += sum("shared" in said for said in strongest)
        card = page.partition(f'id="{anchor(name)}"')[2].partition("</section>")[0]
        reads = ", ".join(f"{said} {sums[said]:+.2f}" for said in strongest)
        assert f"<dt>reads</dt><dd>{reads}</dd>" in card
    assert shared


LEVELS = (
    ("nodes", "sum"),
    ("outputs", "sum"),
    ("neurons", "sum"),
    ("edges", "keep"),
    ("edges", "spans"),
    ("neurons", "spans"),
)


@pytest.mark.parametrize(("level", "positions"), LEVELS)
def test_every_level(level: Any, positions: Any, model: Any) -> None:
    task = sc.load_task("ioi", model, n=4)
    scores = sc.attribute(model, sc.Graph.of(model, level=level), task, sc.EAP(), positions=positions)
    circuit = scores.top(30 if level != "nodes" else 12)
    evaluation = sc.evaluate(model, circuit, task, completeness=True)
    curve = sc.faithfulness_curve(model, scores, task, [5, 12], select="greedy" if level == "edges" else "top")
    heads = [name.partition("@")[0] for name in circuit.nodes if ".h" in name][:1]
    told: dict[str, Any] = {name: sc.head_report(model, task, name, prompts=1) for name in heads}
    strongest, value = next(iter(circuit.to_dict().items()))
    told.setdefault(strongest.partition("->")[0].partition("@")[0], {"label": "what its strongest edge leaves"})
    made = report(evaluation, task=task, scores=scores, curve=curve, meanings=told, baseline=None)
    page = read(made)
    assert not re.search(r"<a [^>]*>[^<]*-&gt;", made.html)  # an edge is not the node that it leaves
    assert f"{circuit.size} of {circuit.graph.size:,} {circuit.graph.thing}s" in page.text
    assert "All of these prompts are those that the circuit was found on" in page.text
    title = "The 15 strongest of" if circuit.size > 15 else "All of"
    tables = [
        rows
        for caption, rows in page.tables.items()
        if caption.startswith(title) and f"{circuit.graph.thing}s" in caption
    ]
    assert tables[0][1][:2] == [strongest, number(value)]
    assert "Where its last token" in page.text or not heads or level == "neurons"


def test_a_feature_circuit(model: Any) -> None:
    pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    task, new = (sc.load_task("sva-across-rc", model, n=8, seed=seed) for seed in (0, 1))
    saes = sc.load_dictionaries("toy", model, sites=["resid_1", "resid_2"])
    scores = sc.attribute(model, sc.Graph.of(model, saes), task, sc.EAPIG(steps=2, path="activations"), nodes_above=0.2)
    circuit = scores.top(30)
    result = sc.evaluate(model, circuit, new, completeness=True)
    removed = sc.evaluate(model, circuit, new, errors="remove")
    pages = sc.feature_pages(model, circuit)
    given = {"meanings": pages, "described": 5, "scores": scores, "policies": {"remove": removed}}
    page = read(report(result, task=new, found_on=task, model=model, **given))
    assert f"30 of {circuit.graph.size:,} nodes" in page.text
    assert f"{len(scores.node_ids):,} have a score" in page.text
    assert page.table("What no feature explains")["the circuit, all error terms ablated"][1] == shown(
        removed.faithfulness, removed.faithfulness_interval
    )
    effects = scores.to_dict("nodes")
    errors = sum(abs(value) for name, value in effects.items() if name.endswith(".error"))
    assert f"is error terms'{share(errors / sum(map(abs, effects.values())))}" in page.text
    assert page.table("Where the model is cut")["resid_1"][0] == saes["resid_1"].id
    told = [name for name in circuit.names if name in pages][:5]
    assert [name for name in page.ids if name.startswith("node-")] == [anchor(name) for name in told]
    rest = page.table("The other nodes")
    assert set(rest) == set(pages) - set(told)
    gap = scores.convergence_gap
    assert gap is not None
    assert f"{number(gap)} at worst" in page.text
    edge, value = next(iter(circuit.to_dict("edges").items()))
    assert page.table("The 15 strongest of 30 nodes")
    assert page.table(f"The 15 strongest of {circuit.n_edges:,} edges")[edge][0] == number(value)


def test_a_report_says_what_it_was_not_told(made: Made) -> None:
    page = read(report(made.evaluation))
    for words in (
        "The prompts were not given",
        "Other sizes were not evaluated",
        "What the nodes mean was not looked at",
        "What was left out is not known",
        "The commands that made it were not recorded",
        "A page to explore the circuit in was not given",
    ):
        assert words in page.text
    assert page.table("The 5 prompts")
    unscored = sc.Circuit.of(made.evaluation.circuit.graph, made.evaluation.circuit.names)
    e = made.evaluation
    page = read(report(sc.Evaluation(unscored, e.per_example, e.clean, e.empty, None, "patch")))
    assert "has no scores" in page.text


def test_a_circuit_that_cannot_be_judged_or_is_no_better_than_chance(made: Made) -> None:
    e = made.evaluation
    nothing = sc.Evaluation(e.circuit, e.clean, e.clean, e.clean, None, "zero")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chance = sc.Baseline(e.circuit.size, (nothing,) * 20)
        curve = sc.Curve((e.circuit.size,), (nothing,))
        same = {"task": made.everything["task"], "found_on": made.everything["task"]}
        page = read(report(nothing, baseline=chance, curve=curve, random=[chance], **same))
    text = page.text
    assert "How faithful it is cannot be said" in text
    assert "replacing everything by zero" in text
    # nor are there random circuits to compare with, an empty plot, or prompts on which it may be less
    assert "Faithfulness is undefined at every size" in text
    assert not re.search(r"Random circuits|\bnan\b|an undefined value|Area under|may be lower", text)
    chance = sc.Baseline(e.circuit.size, (e,) * 20)
    assert "Some random circuits of the same size do as well" in read(report(e, baseline=chance)).text
    spare = sc.Evaluation(e.circuit, e.clean, e.clean, e.empty, e.clean, "patch")
    text = read(report(spare)).text
    assert "Most of the behaviour survives without the circuit" in text
    assert "Less than 1% of the behaviour is not explained" in text
    better = sc.Evaluation(e.circuit, e.clean + 0.2 * (e.clean - e.empty), e.clean, e.empty, None, "patch")
    assert "It does 20% more than the whole model" in read(report(better)).text


def test_some_prompts_may_be_shared(made: Made, model: Any) -> None:
    task = made.everything["task"]
    both = sc.Task(
        [*made.everything["found_on"].clean[:3], *task.clean[3:]], metric=sc.LogitDiff([1] * 8, [2] * 8), name="mixed"
    )
    text = read(report(made.evaluation, task=both, found_on=made.everything["found_on"])).text
    assert "8 prompts, 3 of which it was found on" in text
    assert "3 of these prompts are those" in text


@pytest.mark.parametrize(
    ("reached", "said", "doubt"),
    [
        (0.2, "Not explained: 80%", "Most of the behaviour is missing"),
        (-0.5, "Nothing of the behaviour is explained: with the circuit alone it lacks 9.00 of 6.00", "works against"),
        (1.5, "It does 50% more than the whole model (3.00 beyond 6.00)", "more than the whole model"),
        (0.9, "Not explained: 10%", None),
    ],
)
def test_the_verdict_on_a_bad_circuit(made: Made, reached: float, said: str, doubt: str | None) -> None:
    """By hand: the whole model has 4, none of the circuit -2, and the circuit a share of the way between them."""
    whole = torch.full((8,), 4.0)
    found = dataclasses.replace(
        made.evaluation, clean=whole, empty=whole - 6, per_example=whole - 6 + 6 * reached, complement=None
    )
    page = read(report(found)).text
    assert f"faithfulness is {reached:.2f} [{reached:.2f}, {reached:.2f}]" in page
    assert said in page
    doubts = ("Most of the behaviour is missing", "works against the behaviour", "parts that hold the behaviour back")
    assert sum(one in page for one in doubts) == (doubt is not None)
    assert doubt is None or doubt in page


def test_the_same_gives_the_same_and_nothing_is_changed(made: Made, tmp_path: Path) -> None:
    known, values = dict(made.evaluation.circuit.provenance), made.evaluation.per_example.clone()
    page = report(made.evaluation, tmp_path / "page.html", **made.everything)
    assert report(made.evaluation, **made.everything).html == page.html == (tmp_path / "page.html").read_text()
    assert made.evaluation.circuit.provenance == known
    assert torch.equal(made.evaluation.per_example, values)
    assert sc.report is report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "page.txt"}, "page.txt.*ends in .html"),
        ({"task": "short"}, "task=.*4 examples, but the evaluation 8"),
        ({"corrupted": (0.0,) * 3}, "corrupted=.*3 examples"),
        ({"baseline": "other"}, "baseline=.*circuits of 5 edges"),
        ({"curve": "other"}, "curve=.*other prompts"),
        ({"scores": "other"}, "another graph"),
        ({"meanings": {"m0": {1, 2}}}, "expected a mapping"),
        ({"meanings": {"m0": {"promoted": [1]}}}, "what is known of 'm0' cannot be shown"),
        ({"meanings": {"m0": {"top": [{}]}}, "described": 0}, "what is known of 'm0' cannot be shown"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], said: str, made: Made, model: Any) -> None:
    e, short = made.evaluation, made.everything["task"][:4]
    scores = made.everything["scores"]
    others: dict[str, Any] = {
        "task": lambda: short,
        "baseline": lambda: sc.Baseline(5, (e,)),
        "curve": lambda: sc.faithfulness_curve(model, scores, short, [5]),
        "scores": lambda: sc.attribute(model, sc.Graph.of(model, level="nodes"), short, sc.EAP()),
    }
    given = {name: others[name]() if value in ("short", "other") else value for name, value in change.items()}
    with pytest.raises(sc.InputError, match=said):
        report(e, **given)
    with pytest.raises(sc.InputError, match="expected what evaluate"):
        report(e.circuit)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "ioi"}, "task=str): expected a Task"),
        ({"found_on": "ioi"}, "found_on=str): expected a Task"),
        ({"baseline": {}}, "baseline=dict): expected what random_baseline"),
        ({"curve": "an evaluation"}, "curve=str): expected what faithfulness_curve"),
        ({"random": "xy"}, "random=str): expected a list of what random_baseline"),
        ({"random": {1: 2}}, "random=dict): expected a list of what random_baseline"),
        ({"random": [1]}, "random[0]=int): expected what random_baseline"),
        ({"beside": [1]}, "beside=list): expected a mapping from names to what faithfulness_curve"),
        ({"beside": {"eap": 1}}, "beside['eap']=int): expected what faithfulness_curve"),
        ({"policies": [1]}, "policies=list): expected a mapping from names to what evaluate"),
        ({"policies": {"keep": 1}}, "policies['keep']=int): expected what evaluate"),
        ({"scores": {"m0->m1": 0.5}}, "scores=dict): expected what attribute"),
        ({"meanings": [1]}, "meanings=list): expected a mapping"),
    ],
)
def test_what_is_something_else_is_refused(change: dict[str, Any], said: str, made: Made) -> None:
    with pytest.raises(sc.InputError, match=re.escape(f"report({said}")):
        report(made.evaluation, **change)


def test_random_circuits_of_other_sizes_than_the_curves_are_refused(made: Made) -> None:
    curve, other = made.everything["curve"], sc.Baseline(7, (made.evaluation,))
    sizes = ", ".join(str(e.circuit.size) for e in curve.evaluations)
    with pytest.raises(sc.InputError, match=f"random circuits of 7 edges, but the curve's are of {sizes}; make one"):
        report(made.evaluation, curve=curve, random=[*made.everything["random"], other])


def test_what_an_mlp_writes(model: Any) -> None:
    task = sc.load_task("ioi", model, n=3)
    found = mlp_report(model, task, "m3", k=4)
    total = torch.zeros(model.cfg.d_vocab)
    for prompt in task.clean:  # by TransformerLens's cache, one prompt after the other
        with torch.no_grad():
            _, cache = model.run_with_cache(prompt)
            written, stream = (cache[f"blocks.3.hook_{what}"][0, -1] for what in ("mlp_out", "resid_post"))
            weight = model.original_model.transformer.ln_f.weight
            effects = (written - written.mean()) / (stream.var(correction=0) + 1e-5).sqrt() * weight @ model.W_U
            total += (effects - effects.mean()) / 3
    up, down = total.topk(4), total.topk(4, largest=False)
    for tokens, (values, ids) in ((found.promoted, up), (found.suppressed, down)):
        assert [token for token, _ in tokens] == [model.tokenizer.decode([i]) for i in ids.tolist()]
        assert [value for _, value in tokens] == pytest.approx(values.tolist(), abs=1e-3)
    for name in ("m4", "a0.h1", "m"):
        with pytest.raises(sc.InputError, match="is no MLP of the model; expected m0 to m3"):
            mlp_report(model, task, name)


def test_markup() -> None:
    assert tag("p", "a < b", None, tag("b", "&"), class_='x"y') == '<p class="x&quot;y">a &lt; b<b>&amp;</b></p>'
    assert join("<", None, ">", by=", ") == "&lt;, &gt;"
    assert link("javascript:alert(1)", "x") == "x"
    assert link("https://a.b/c", "x") == '<a href="https://a.b/c" rel="noopener noreferrer">x</a>'
    assert len({anchor(name) for name in ("a0.h1", "a0_h1", "a0.h1@2", "a0.h1_2", "a0<k>", "a0>k<")}) == 6
    assert [number(x) for x in (0.0, 1.0, -0.12345, 999.4, 1234.5, math.nan)] == [
        "0",
        "1.00",
        "-0.123",
        "999",
        "1,234",
        "",
    ]
    assert [share(x) for x in (0.0123, 0.5, 1.0)] == ["1.2%", "50%", "100%"]


# --- in a browser ---


def test_a_colleague_reads_it(made: Made, open_page: Any) -> None:
    page = open_page(report(made.evaluation, **made.everything)).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the verdict"
    for i in range(len(HEADINGS)):
        page.locator("nav a").nth(i).click()
        assert page.evaluate("location.hash") == f"#{HEADINGS[i]}"
    assert page.locator("svg[role=img][aria-label]").count() == 2
    # headings go down step by step
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    # the explorer runs inside the page, by keyboard
    page.locator("#explore").focus()
    page.keyboard.press("Enter")
    inside = page.frame_locator("#explorer iframe")
    inside.locator(".node").first.wait_for()
    assert inside.locator("#title").text_content() == "ioi, toy"
    # not wait_for_function: once it has to wait, the page's own policy forbids what it does
    page.evaluate(
        """() => new Promise((done) => {
          const look = () => (document.activeElement.tagName === 'IFRAME' ? done() : requestAnimationFrame(look));
          look();
        })"""
    )
    page.keyboard.press("?")
    close_keys(inside)
    # on paper nothing is folded away
    numbers = page.get_by_role("rowheader", name="20", exact=True)
    assert not numbers.is_visible()
    page.emulate_media(media="print")
    assert numbers.is_visible()
    assert not page.locator("nav").is_visible()


def test_it_fits_a_telephone_and_a_dark_room(made: Made, open_page: Any) -> None:
    page = open_page(report(made.evaluation, **made.everything), width=390, color_scheme="dark").page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 60


def test_plots_to_point_at(made: Made, open_page: Any) -> None:
    made_page = report(made.evaluation, **made.everything, interactive=True)
    page = open_page(made_page).page
    page.locator(".js-plotly-plot .trace").first.wait_for()
    assert page.locator("svg[role=img][aria-label]").count() == 1  # the circuit stays a picture
