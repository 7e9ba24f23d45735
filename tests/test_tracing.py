"""Tracing against brute force: one feature at a time through TransformerLens's hooks, and gradients through autograd."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HAS_HOOKED, token_task
from feature_oracle import Changes, CutRun, Runs, Split, along_activations, gradients, zeroed
from test_feature_oracle import ABLATIONS, make_graph

import sparse_circuits as sc
from sparse_circuits.attribution.quadrature import points
from sparse_circuits.errors import FileFormatError, InputError

LEAST = -40.0  # a threshold that keeps whatever is not 0
CASES = [
    ("gpt2", "resid"),
    ("gpt2", "all"),
    ("gpt2", "normalised"),
    ("gpt2", "z"),
    ("gpt2", "neurons"),
    ("llama", "transcoders-normed-skip"),
    ("neox", "outputs"),
    ("gemma2", "heads"),
    ("qwen3", "mixed"),
    *([("hooked-gpt2", "resid_mid"), ("hooked-bidirectional", "all")] if HAS_HOOKED else []),
]


# --- oracles ---


def moved_by(runs: Runs, changes: Changes, place: int, feature: int, at: int | None = None) -> torch.Tensor:
    """What ablating a feature adds to what is written at its place, at all positions or at one."""
    change = changes.features[place][..., feature, None]
    if at is not None:
        change = change * (torch.arange(change.shape[1]) == at)[:, None]
    return change * runs.places[place].dictionary.W_dec[feature]


@torch.no_grad()
def alone(runs: Runs, place: int, moved: torch.Tensor, hold: bool) -> tuple[torch.Tensor, list[Split]]:
    """A run with one place moved, the later ones held at what they write in the clean run or not."""
    clean = runs.values(runs.clean)

    def put(i: int, s: Split) -> torch.Tensor | None:
        if i == place:
            return s.written + moved
        return clean[i].written - clean[i].skip + s.skip if hold and i > place else None

    return runs.run(runs.clean, put)


@torch.no_grad()
def expected_edges(runs: Runs, changes: Changes, names: list[str], keep: bool = False) -> dict[str, float]:
    """Direct effects of some features on every feature of every later place, and on the metric."""
    found: dict[str, float] = {}
    clean, (base, _) = runs.values(runs.clean), runs.run(runs.clean)
    for name in names:
        bare, _, position = name.partition("@")
        place = next(i for i, p in enumerate(runs.places) if p.name == bare.split(".")[0])
        moved = moved_by(runs, changes, place, int(bare.split(".f")[1]), int(position) if position else None)
        value, splits = alone(runs, place, moved, hold=True)
        found[f"{name}->logits"] = float((value - base).mean())
        for q in range(place + 1, len(runs.places)):
            if splits[q].features is None:
                continue
            change = (splits[q].features - clean[q].features).mean(0)
            for f in range(change.shape[1]):
                if keep:
                    for p, at in enumerate(change[:, f].tolist()):
                        found[f"{name}->{runs.places[q].name}.f{f}@{p}"] = at
                else:
                    found[f"{name}->{runs.places[q].name}.f{f}"] = float(change[:, f].sum())
    return found


def same(found: dict[str, float], expected: dict[str, float], tolerance: float = 1e-4) -> None:
    scale = max(map(abs, expected.values()))
    assert scale > 1e-3, "nothing to compare"
    wrong = {
        name: (found.get(name, 0.0), expected.get(name, 0.0))
        for name in found.keys() | expected.keys()
        if abs(found.get(name, 0.0) - expected.get(name, 0.0)) > tolerance * scale
    }
    assert not wrong


def some_features(graph: Any, runs: Runs, changes: Changes, n: int = 2) -> list[str]:
    """A few features that ablation changes, at the first site with features, a middle one and the last."""
    split = [i for i, place in enumerate(graph.places) if place.split]
    names = []
    for place in dict.fromkeys((split[0], split[len(split) // 2], split[-1])):
        size = changes.features[place].abs().sum((0, 1))
        names += [f"{graph.places[place].name}.f{i}" for i in size.topk(n).indices.tolist()]
    return names


# --- by ablation ---


@pytest.mark.parametrize(
    ("family", "recipe", "name"),
    [*((*case, "zero") for case in CASES), *((*case, name) for case in CASES[1:3] for name in ("patch", "mean"))],
)
def test_by_ablation_is_brute_force(zoo, family: str, recipe: str, name: str) -> None:
    """Effects on the metric and the logits, and direct effects on all features of all later sites."""
    model, task = zoo(family), token_task(3, 5)
    graph, (ablation, change) = make_graph(model, recipe), ABLATIONS[name]
    runs = Runs(model, graph, task)
    changes = change(runs)
    names = some_features(graph, runs, changes, 1)
    trace = sc.trace(model, graph, task, sc.ByAblation(LEAST), features=names, ablation=ablation, batch_size=2)
    assert sorted(node.name for node in trace.traced) == sorted(names)
    expected = expected_edges(runs, changes, names)
    if recipe == "z":  # its features are read by whole sites alone
        assert not trace.edges
        assert max(map(abs, expected.values())) < 1e-5
    else:
        same(trace.to_dict("edges"), expected)

    reads_logits = Runs(model, graph, task, metric=lambda logits: logits[:, -1])
    with torch.no_grad():
        (base, _), (before, _) = runs.run(runs.clean), reads_logits.run(runs.clean)
    for node in trace.traced:
        place = graph.place_of(graph.index(node.name))
        moved = moved_by(runs, changes, place, int(node.name.split(".f")[1]))
        assert node.effect == pytest.approx(float((alone(runs, place, moved, hold=False)[0] - base).mean()), abs=2e-5)
        logits = alone(reads_logits, place, moved, hold=False)[0] - before
        centred = (logits - logits.mean(-1, keepdim=True)).mean(0)
        assert len(node.logits) == (10 if float(centred.abs().max()) > 1e-4 else 0)
        assert [c for _, c in node.logits] == pytest.approx([float(centred[int(t)]) for t, _ in node.logits], abs=1e-4)
        if node.logits:
            assert abs(node.logits[0][1]) == pytest.approx(float(centred.abs().max()), abs=1e-4)
            sizes = [abs(change) for _, change in node.logits]
            assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("family", "recipe"), [("gpt2", "all"), ("llama", "transcoders-normed-skip")])
def test_positions_are_told_apart(zoo, family: str, recipe: str) -> None:
    model, task = zoo(family), token_task(2, 4)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    changes = zeroed(runs)
    names = [f"{name}@{p}" for name in some_features(graph, runs, changes, 1) for p in (1, 3)]
    trace = sc.trace(model, graph, task, sc.ByAblation(LEAST), features=names, positions="keep")
    same(trace.to_dict("edges"), expected_edges(runs, changes, names, keep=True))
    assert {node.name for node in trace.traced} <= set(names)


@pytest.mark.parametrize(
    ("method", "ablation"),
    [
        *((sc.ByAblation(LEAST, top=4), how) for how in (sc.Ablation.ZERO, sc.Ablation.PATCH, sc.Ablation.MEAN)),
        (sc.ByGradient(2, 2, steps=2), sc.Ablation.PATCH),
        (sc.ByGradient(2, 2, steps=None), sc.Ablation.ZERO),
    ],
)
def test_neither_batches_nor_padding_matter(zoo, method: Any, ablation: sc.Ablation) -> None:
    model, task = zoo("llama"), token_task(4, 6, varied=True)
    graph = make_graph(model, "outputs")
    one, all_at_once = (sc.trace(model, graph, task, method, ablation=ablation, batch_size=size) for size in (1, 4))
    assert [node.name for node in one.nodes] == [node.name for node in all_at_once.nodes]
    same(one.to_dict("edges"), all_at_once.to_dict("edges"))
    known = [(a.effect, b.effect) for a, b in zip(one.traced, all_at_once.traced, strict=True)]
    assert known
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in known)
    checks = [sc.validate_trace(model, one, task, ablation=ablation, batch_size=size) for size in (1, 4)]
    assert torch.allclose(checks[0].ablated, checks[1].ablated, atol=1e-4)
    assert torch.allclose(checks[0].separate, checks[1].separate, atol=1e-4)
    for a, b in zip(*(sorted(check.features, key=lambda moved: moved.name) for check in checks), strict=True):
        assert (a.together, a.separate, a.clean) == pytest.approx((b.together, b.separate, b.clean), abs=1e-3)


def test_a_run_starts_from_the_strongest(zoo) -> None:
    model, task = zoo("gpt2"), token_task(4, 6)
    graph = make_graph(model, "all")
    scores = sc.attribute(model, graph, task, sc.Exact(), ablation=sc.Ablation.ZERO).to_dict()
    at = [name for name in scores if name.startswith("mlp_1.f")]
    expected = sorted(at, key=lambda name: -abs(scores[name]))
    trace = sc.trace(model, graph, task, sc.ByAblation(top=3), at="mlp_1")
    assert {node.name for node in trace.traced} == set(expected[:3])
    every = sc.trace(model, graph, task, sc.ByAblation(top=None), at="mlp_1")
    assert {node.name for node in every.traced} == set(at)
    first = sc.trace(model, graph, task, sc.ByAblation(top=1))
    assert first.traced[0].name.startswith(next(place.name for place in graph.places if place.split))


def test_the_strongest_of_many_are_found(toy, saes, task: sc.Task) -> None:
    """An estimate says which to try, and what ablating does decides."""
    graph, method = sc.Graph.of(toy, saes.only(["resid_1"])), sc.EAPIG(steps=5, path="activations")
    exact, estimate = (
        sc.attribute(toy, graph, task, how, ablation=sc.Ablation.ZERO).to_dict() for how in (sc.Exact(), method)
    )
    best = [name for name in sorted(exact, key=lambda name: -abs(exact[name])) if ".f" in name]
    for n in (2, 10):
        found = {node.name for node in sc.trace(toy, graph, task, sc.ByAblation(9, top=n)).traced}
        assert set(best[: n // 2 + 1]) <= found
        assert sum(abs(exact[name]) for name in found) > 0.95 * sum(abs(exact[name]) for name in best[:n])
    # the strongest of all is one that gradients averaged while the whole site goes think little of
    assert sum(abs(value) > abs(estimate[best[0]]) for name, value in estimate.items() if ".f" in name) > 4 * 2


def test_the_threshold_is_a_power_of_two(zoo) -> None:
    model, task = zoo("gpt2"), token_task(3, 5)
    graph = make_graph(model, "resid")
    every = sc.trace(model, graph, task, sc.ByAblation(LEAST, top=4)).to_dict("edges")
    some = sc.trace(model, graph, task, sc.ByAblation(-1, top=4)).to_dict("edges")
    between = {name: effect for name, effect in every.items() if not name.endswith("->logits")}
    assert some.items() >= {name: e for name, e in between.items() if abs(e) >= 0.5 + 1e-5}.items()
    assert all(abs(effect) >= 0.5 for effect in some.values())
    assert 0 < len(some) < len(between)


def test_metrics_without_answers_and_prompts_without_pairs(zoo) -> None:
    """Cross-entropy of plain text, and a metric of one's own."""
    model, prompts = zoo("gpt2"), token_task(3, 6).clean
    graph = make_graph(model, "resid")
    text = sc.Task(prompts, metric=sc.CrossEntropy())

    def own(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        found = logits.log_softmax(-1)[:, :-1].gather(-1, batch.tokens[:, 1:, None])[..., 0]
        return found.mean(1)

    for method in (sc.ByAblation(top=3), sc.ByGradient(2, 2, steps=2), sc.ByGradient(2, 2, steps=None)):
        a, b = (sc.trace(model, graph, task, method) for task in (text, sc.Task(prompts, metric=own)))
        same(a.to_dict("edges"), b.to_dict("edges"), 1e-3)
        check = sc.validate_trace(model, a, text)
        assert check.loss == "next token"
        assert torch.allclose(check.loss_ablated, -check.ablated, atol=1e-5)
        assert check.loss_change == pytest.approx(-check.change, abs=1e-5)
    kl = sc.Task(prompts, metric=sc.NegativeKL())
    assert sc.trace(model, graph, kl, sc.ByAblation(top=2)).traced
    assert sc.trace(model, graph, kl, sc.ByGradient(2, 2)).traced
    with pytest.raises(InputError, match="gradient zero"):
        sc.trace(model, graph, kl, sc.ByGradient(steps=None))


@pytest.mark.parametrize("method", [sc.ByAblation(top=1), sc.ByGradient(1, 1), sc.ByGradient(1, 1, steps=None)])
def test_a_metric_that_is_no_number_has_no_effects(zoo, method: Any) -> None:
    model, prompts = zoo("gpt2"), token_task(3, 5).clean
    graph = make_graph(model, "resid")

    def some(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        return torch.where(batch.index == 1, torch.nan, logits[:, -1, 3])

    task = sc.Task(prompts, metric=some)
    with pytest.raises(InputError, match="not finite on some prompt"):
        sc.trace(model, graph, task, method)
    trace = sc.trace(model, graph, sc.Task(prompts, metric=lambda logits, batch: logits[:, -1, 3]), method)
    with pytest.raises(InputError, match="not finite on some prompt"):
        sc.validate_trace(model, trace, task)


# --- by gradient ---


def expected_gradients(
    runs: Runs, changes: Changes, at: list[torch.Tensor], direct: list[torch.Tensor]
) -> tuple[dict[str, float], dict[tuple[str, str], tuple[float, float]]]:
    """Every feature's effect, and every edge's contribution and effect, from autograd over all features that fire."""
    cut, n = CutRun(runs), len(runs.clean)
    clean = runs.values(runs.clean)
    effects, edges = {}, {}
    for p, spot in enumerate(runs.places):
        if spot.dictionary is None:
            continue
        weights = at[p] @ spot.dictionary.W_dec.T
        into = changes.features[p] * (direct[p] @ spot.dictionary.W_dec.T)
        for f in range(spot.n_features):
            name = f"{spot.name}.f{f}"
            effects[name] = float((changes.features[p] * weights)[..., f].sum() / n)
            edges[name, "logits"] = (float(into[..., f].sum() / n),) * 2
        fires = clean[p].features != 0
        for f in range(spot.n_features):
            for weighted in (True, False):
                value = (cut.computed[p].features * fires)[..., f]
                value = (value * weights[..., f].detach()).sum() if weighted else value.sum()
                leaves = [cut.features[q] for q in range(p) if cut.features[q] is not None]
                if not leaves or not value.requires_grad:
                    continue
                found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
                ups = [q for q in range(p) if cut.features[q] is not None]
                for q, gradient in zip(ups, found, strict=True):
                    if gradient is None:
                        continue
                    parts = (gradient * changes.features[q]).sum((0, 1)) / n
                    for u, part in enumerate(parts.tolist()):
                        key = f"{runs.places[q].name}.f{u}", f"{spot.name}.f{f}"
                        contribution, effect = edges.get(key, (0.0, 0.0))
                        edges[key] = (part, effect) if weighted else (contribution, part)
    return effects, edges


def direct_gradients(runs: Runs) -> list[torch.Tensor]:
    cut = CutRun(runs)
    leaves = cut.rest
    found = torch.autograd.grad(cut.metric.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def chosen_by_hand(
    graph: Any, edges: dict, effects: dict, top: int, bottom: int, pinned: tuple[str, ...] = ()
) -> set[str]:
    """The rule in words: from the last site up, by the sum of contributions to what is chosen."""
    below = set() if pinned else {"logits"}
    places = [place.name for place in graph.places if place.split]
    if pinned:
        places = places[: 1 + max(places.index(name.split(".")[0]) for name in pinned)]
    taken: set[str] = set()
    for place in reversed(places):
        mine = [name for name in effects if name.split(".")[0] == place]
        sums = {u: sum(part for (a, d), (part, _) in edges.items() if a == u and d in below) for u in mine}
        order = sorted(mine, key=lambda u: sums[u])
        took = {u for u in order[::-1][:top] if sums[u] > 1e-9} | {u for u in order[:bottom] if sums[u] < -1e-9}
        here = {name for name in pinned if name.split(".")[0] == place}
        took = here if here and place == places[-1] else took | here
        taken |= took
        below |= took
    return taken


@pytest.mark.parametrize(("family", "recipe"), [case for case in CASES if case[1] not in ("neurons", "z")])
def test_by_gradient_is_autograd(zoo, family: str, recipe: str) -> None:
    model, task = zoo(family), token_task(2, 5)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    changes = zeroed(runs)
    effects, edges = expected_gradients(runs, changes, gradients(runs), direct_gradients(runs))
    for pinned in ((), tuple(some_features(graph, runs, changes, 1)[:2])):
        trace = sc.trace(
            model, graph, task, sc.ByGradient(2, 2, steps=None), features=pinned or None, batch_size=1 if pinned else 2
        )
        assert {node.name for node in trace.nodes} == chosen_by_hand(graph, edges, effects, 2, 2, pinned)
        assert {node.name: node.effect for node in trace.nodes} == pytest.approx(
            {node.name: effects[node.name] for node in trace.nodes}, abs=1e-4
        )
        ends = {node.name for node in trace.nodes} | {"logits"}
        inside = {key: value for key, value in edges.items() if set(key) <= ends}
        same({e.name: e.effect for e in trace.edges}, {f"{u}->{d}": effect for (u, d), (_, effect) in inside.items()})
        same({e.name: e.contribution for e in trace.edges}, {f"{u}->{d}": part for (u, d), (part, _) in inside.items()})


def test_gradients_along_activations(zoo) -> None:
    model, task = zoo("gpt2"), token_task(2, 5)
    graph = make_graph(model, "resid")
    runs = Runs(model, graph, task)
    changes = zeroed(runs)
    at = along_activations(runs, changes, points("midpoint", 3))
    effects, edges = expected_gradients(runs, changes, at, direct_gradients(runs))
    trace = sc.trace(model, graph, task, sc.ByGradient(3, 3, steps=3))
    assert {n.name: n.effect for n in trace.nodes} == pytest.approx(
        {n.name: effects[n.name] for n in trace.nodes}, abs=1e-4
    )
    found = {e.name: e for e in trace.edges if e.target != "logits"}
    same(
        {name: e.contribution for name, e in found.items()},
        {name: edges[e.source, e.target][0] for name, e in found.items()},
    )
    same(
        {name: e.effect for name, e in found.items()}, {name: edges[e.source, e.target][1] for name, e in found.items()}
    )


def test_gradients_are_slopes_of_ablations(zoo) -> None:
    """What is ablated by a small part changes its readers by that part of the gradient form's edge."""
    model, task, h = zoo("llama"), token_task(2, 5), 1e-3
    graph = make_graph(model, "normalised")
    runs = Runs(model, graph, task)
    changes = zeroed(runs)
    trace = sc.trace(model, graph, task, sc.ByGradient(1, 1, steps=None))
    names = [node.name for node in trace.nodes]
    ends = [
        expected_edges(runs, Changes([None if f is None else share * f for f in changes.features], changes.rest), names)
        for share in (h, -h)
    ]
    slopes = {name: (ends[0][name] - ends[1][name]) / (2 * h) for name in trace.to_dict("edges")}
    same(trace.to_dict("edges"), slopes, 3e-2)


def test_gradients_start_where_they_are_told(zoo) -> None:
    model, task = zoo("gpt2"), token_task(3, 5)
    graph = make_graph(model, "resid")
    trace = sc.trace(model, graph, task, sc.ByGradient(1, 1), at="resid_1")
    assert {node.name.split(".")[0] for node in trace.nodes} == {"resid_0", "resid_1"}
    scores = sc.attribute(
        model, graph, task, sc.EAPIG(steps=10, path="activations"), ablation=sc.Ablation.ZERO
    ).to_dict()
    here = sorted((name for name in scores if name.startswith("resid_1.f")), key=scores.__getitem__)
    assert {n.name for n in trace.nodes if n.name.startswith("resid_1")} == {here[0], here[-1]}
    assert all(edge.target != "logits" for edge in trace.edges)


# --- a trace over three layers of the bundled model, and what becomes of it ---


@pytest.fixture(scope="module")
def toy() -> Any:
    return sc.load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def saes(toy) -> Any:
    pytest.importorskip("sae_lens", reason="SAELens is not installed beside this TransformerLens")
    return sc.load_dictionaries("toy", toy, sites="resid")


@pytest.fixture(scope="module")
def task(toy) -> sc.Task:
    return sc.load_task("sva-across-rc", toy, n=12)


@pytest.fixture(scope="module")
def runs(toy, saes, task) -> list[sc.Trace]:
    """Three runs, each extending the last."""
    graph, method, made = sc.Graph.of(toy, saes), sc.ByAblation(threshold=0, top=8), []
    made.append(sc.trace(toy, graph, task, method, at="resid_1"))
    for _ in range(2):
        made.append(sc.trace(toy, graph, task, method, extend=made[-1]))
    return made


def test_three_runs_each_extending_the_last(runs: list[sc.Trace]) -> None:
    assert [run["at"] for run in runs[-1].runs] == [["resid_1"], ["resid_2"], ["resid_3"]]
    for before, after in itertools.pairwise(runs):
        assert set(before.edges) <= set(after.edges)
        assert set(before.traced) <= set(after.traced)
        assert {node.name for node in before.nodes} <= {node.name for node in after.nodes}
        new = {node.name for node in after.traced} - {node.name for node in before.traced}
        assert new <= set(before.frontier)
        assert len(new) == 8
        assert not new & set(after.frontier)
        assert {node.run for node in after.traced if node.name in new} == {len(before.runs)}
    last = runs[-1]
    assert list(last.to_dict("edges").values()) == sorted(last.to_dict("edges").values(), key=abs, reverse=True)
    order = [last.graph.index(node.name) for node in last.nodes]
    assert order == sorted(order)
    # the last site's edges into the logits are whole effects
    into = {edge.source: edge.effect for edge in last.edges if edge.target == "logits"}
    assert into == {node.name: node.effect for node in last.traced if node.name.startswith("resid_3")}


def test_a_run_is_what_plain_splicing_finds(toy, saes, task: sc.Task, runs: list[sc.Trace]) -> None:
    """Slow and obvious: one feature of a spliced model set to 0, the next site's features read off."""
    site, names = "blocks.{}.hook_resid_post.hook_sae_acts_post".format, [node.name for node in runs[0].traced[:3]]
    change = torch.zeros(len(names), 512)
    with sc.splice(toy, saes.only(["resid_1", "resid_2"]), errors=True) as spliced, torch.no_grad():
        prompts = [toy.to_tokens(prompt) for prompt in task.clean]
        for length in {tokens.shape[1] for tokens in prompts}:
            tokens = torch.cat([tokens for tokens in prompts if tokens.shape[1] == length])
            _, clean = spliced.run_with_cache(tokens)
            for i, name in enumerate(names):

                def without(acts: torch.Tensor, hook: Any, number: int = int(name.split(".f")[1])) -> torch.Tensor:
                    acts = acts.clone()
                    acts[..., number] = 0
                    return acts

                with spliced.hooks(fwd_hooks=[(site(1), without)]):
                    _, cache = spliced.run_with_cache(tokens)
                change[i, : clean[site(2)].shape[-1]] += (cache[site(2)] - clean[site(2)]).sum((0, 1)) / len(task)
    expected = {
        f"{name}->resid_2.f{j}": e for name, row in zip(names, change.tolist(), strict=True) for j, e in enumerate(row)
    }
    expected = {name: effect for name, effect in expected.items() if abs(effect) >= 1}
    assert len(expected) > 20
    same({edge.name: edge.effect for edge in runs[0].edges if edge.source in names}, expected)


def test_a_repeated_run_adds_nothing(toy, task: sc.Task, runs: list[sc.Trace], tmp_path: Path) -> None:
    first, last = runs[0], runs[-1]
    again = sc.trace(toy, last.graph, task, sc.ByAblation(threshold=0, top=8), at="resid_1", extend=last)
    assert (again.runs, len(again.edges)) == (last.runs, len(last.edges))
    assert [(n.name, n.run) for n in again.nodes] == [(n.name, n.run) for n in last.nodes]
    # in batches of another size it costs something else
    costlier = replace(last, runs=({**last.runs[0], "passes": [99.0, 9.0]}, *last.runs[1:]))
    again = sc.trace(toy, last.graph, task, sc.ByAblation(threshold=0, top=8), at="resid_1", extend=costlier)
    assert len(again.runs) == 3
    path = first.save(tmp_path / "trace.safetensors")
    wider = sc.trace(
        toy, last.graph, task, sc.ByAblation(threshold=-2), features=[n.name for n in first.traced], extend=path
    )
    assert len(wider.runs) == 2
    assert wider.runs[1]["pinned"]
    assert wider.to_dict("edges").items() >= first.to_dict("edges").items()
    assert {edge.run for edge in wider.edges if edge.name in first.to_dict("edges")} == {0}
    assert {edge.run for edge in wider.edges if edge.name not in first.to_dict("edges")} == {1}


def test_what_is_found_again_stays_as_it_was(zoo) -> None:
    """Also where another estimate gives another number: effect and number of the run belong together."""
    model, task = zoo("gpt2"), token_task(2, 5)
    graph = make_graph(model, "resid")
    first = sc.trace(model, graph, task, sc.ByGradient(1, 1, steps=2))
    both = sc.trace(model, graph, task, sc.ByGradient(2, 2, steps=None), extend=first)
    assert {n for n in both.nodes if n.run == 0} == set(first.nodes)
    assert {e for e in both.edges if e.run == 0} == set(first.edges)
    alone = sc.trace(model, graph, task, sc.ByGradient(2, 2, steps=None))
    new = {node.name: node.effect for node in both.nodes if node.run == 1}
    assert new
    assert new.items() <= {node.name: node.effect for node in alone.nodes}.items()


def test_what_cannot_be_extended(toy, saes, task: sc.Task, runs: list[sc.Trace]) -> None:
    first, last, graph = runs[0], runs[-1], runs[0].graph
    other = sc.load_task("sva-across-rc", toy, n=12, seed=1)
    smaller = sc.Graph.of(toy, saes.only(["resid_1", "resid_2"]))
    with pytest.raises(InputError, match="another task"):
        sc.trace(toy, graph, other, extend=first)
    with pytest.raises(InputError, match="other sites"):
        sc.trace(toy, smaller, task, extend=first)
    with pytest.raises(InputError, match="another ablation: 'zero', and this run 'mean'"):
        sc.trace(toy, graph, task, extend=first, ablation=sc.Ablation.MEAN)
    first_half, other_half = (sc.Ablation.MEAN.over(list(task.clean)[half]) for half in (slice(6), slice(6, 12)))
    mean = sc.trace(toy, graph, task, sc.ByAblation(9, top=1), features=["resid_3.f344"], ablation=first_half)
    with pytest.raises(InputError, match="another set of prompts that its mean is over"):
        sc.trace(toy, graph, task, extend=mean, ablation=other_half)
    with pytest.raises(InputError, match="another form of tracing"):
        sc.trace(toy, graph, task, sc.ByGradient(), extend=first)
    with pytest.raises(InputError, match="another choice of positions"):
        sc.trace(toy, graph, task, extend=first, positions="spans")
    with pytest.raises(InputError, match=r"no feature after resid_3.*\d+ at resid_2"):
        sc.trace(toy, graph, task, extend=last)
    with pytest.raises(InputError, match="expected a Trace"):
        sc.trace(toy, graph, task, extend=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="No file"):
        sc.trace(toy, graph, task, extend="nowhere.safetensors")


def test_a_trace_comes_back_from_its_file(saes, runs: list[sc.Trace], tmp_path: Path) -> None:
    last = runs[-1]
    path = last.save(tmp_path / "trace.safetensors")
    back = sc.Trace.load(path, saes)
    assert (back.nodes, back.edges, back.runs, back.provenance) == (last.nodes, last.edges, last.runs, last.provenance)
    assert back.graph == last.graph
    assert back.graph.places[1].dictionary is saes["resid_1"]
    assert sc.Trace.load(path).graph.places[1].dictionary is None
    with pytest.raises(InputError, match="needs the dictionary"):
        sc.Trace.load(path, saes.only(["resid_0"]))
    with pytest.raises(FileFormatError, match="holds 'feature_circuit'"):
        sc.Trace.load(last.circuit().save(tmp_path / "circuit.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:300])
    with pytest.raises(FileFormatError, match="damaged"):
        sc.Trace.load(tmp_path / "cut.safetensors")
    for wrong in (
        replace(last, runs=last.runs[:1]),  # nodes of runs that are not recorded
        replace(last, graph=replace(last.graph, places=last.graph.places[:2])),
    ):
        with pytest.raises((FileFormatError, InputError)):
            sc.Trace.load(wrong.save(tmp_path / "wrong.safetensors"))


def test_a_trace_is_a_feature_circuit(toy, task: sc.Task, runs: list[sc.Trace]) -> None:
    last = runs[-1]
    circuit = last.circuit()
    assert circuit.to_dict() == pytest.approx({node.name: node.effect for node in last.traced})
    traced = {node.name for node in last.traced} | {"logits"}
    assert set(circuit.edges) == {e.name for e in last.edges if {e.source, e.target} <= traced}
    assert sc.evaluate(toy, circuit, task, errors="keep", ablation=sc.Ablation.MEAN).per_example.shape == (12,)
    nodes = last.to_dict()
    assert list(nodes.values())[-len(last.frontier) :] == [None] * len(last.frontier)
    assert str(last).startswith("Trace(24 + ")


def test_exact_and_gradient_form_agree(toy, task: sc.Task, runs: list[sc.Trace]) -> None:
    exact = runs[-1]
    gradient = sc.trace(toy, exact.graph, task, sc.ByGradient(10, 10))
    both = exact.compare(gradient)
    assert both.edges.pearson > 0.9
    assert both.edges.spearman > 0.75
    assert len(both.edges.names) > 40
    assert both.nodes.pearson > 0.6
    assert len(both.nodes.names) > 12
    assert both.to_dict()["edges"]["same_sign"] > 0.9
    last = {node.name for node in gradient.nodes if node.name.startswith("resid_3")}
    for edge in gradient.edges:  # the last site's features reach the logits alone
        if edge.source in last:
            assert (edge.target, edge.effect) == ("logits", edge.contribution)
    with pytest.raises(InputError, match="expected a Trace"):
        exact.compare(exact.circuit())  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="under zero ablation, the other under mean"):
        exact.compare(replace(gradient, provenance={**gradient.provenance, "ablation": "mean"}))


def test_comparison_by_hand(runs: list[sc.Trace]) -> None:
    graph, node, edge = runs[0].graph, sc.TracedNode, sc.TracedEdge

    def made(nodes: dict[str, float | None], edges: dict[str, float]) -> sc.Trace:
        ends = [(name.split("->"), effect) for name, effect in edges.items()]
        return sc.Trace(
            graph,
            tuple(node(f"resid_1.f{name}", effect) for name, effect in nodes.items()),
            tuple(edge(f"resid_1.f{u}", "logits" if d == "l" else f"resid_2.f{d}", e) for (u, d), e in ends),
        )

    a = made({"0": 1.0, "1": 2.0, "2": 3.0, "3": 9.0, "4": None}, {"0->0": 1.0, "0->1": -1.0, "0->l": 5.0})
    b = made({"0": -1.0, "1": 4.0, "2": 3.0, "4": 7.0}, {"0->0": 2.0})
    both = a.compare(b)
    assert both.nodes.names == ("resid_1.f0", "resid_1.f1", "resid_1.f2")
    assert both.nodes.pearson == pytest.approx(4 / math.sqrt(2 * 14))  # (-1, 0, 1) with (-3, 2, 1)
    assert both.nodes.spearman == pytest.approx(0.5)
    assert both.sizes == {"nodes": (4, 4), "edges": (2, 1), "logits": (1, 0)}
    assert (both.overlap("nodes"), both.overlap("edges"), both.overlap("logits")) == (3 / 5, 1 / 2, 0.0)
    assert math.isnan(both.edges.pearson)
    assert both.to_dict()["nodes"]["same_sign"] == pytest.approx(2 / 3)


# --- validation ---


@torch.no_grad()
def all_at_once(runs: Runs, changes: Changes | None, names: list[str]) -> tuple[torch.Tensor, list[Split]]:
    """Every feature set to its ablated value, whatever it was by then; ``changes`` None for 0."""
    clean = runs.values(runs.clean)
    wanted: dict[int, list[int]] = {}
    for name in names:
        place = next(i for i, p in enumerate(runs.places) if p.name == name.split(".")[0])
        wanted.setdefault(place, []).append(int(name.split(".f")[1]))

    def put(i: int, s: Split) -> torch.Tensor | None:
        if i not in wanted:
            return None
        target = torch.zeros_like(s.features) if changes is None else clean[i].features + changes.features[i]
        change = (target - s.features)[..., wanted[i]]
        return s.written + change @ runs.places[i].dictionary.W_dec[wanted[i]]

    return runs.run(runs.clean, put)


@pytest.mark.parametrize(
    ("family", "recipe", "name"),
    [
        ("gpt2", "all", "patch"),
        ("llama", "transcoders-normed-skip", "zero"),
        ("llama", "transcoders-normed-skip", "patch"),
        ("gpt2", "normalised", "zero"),
    ],
)
def test_validation_is_brute_force(zoo, family: str, recipe: str, name: str) -> None:
    model, task = zoo(family), token_task(3, 5)
    graph, (ablation, change) = make_graph(model, recipe), ABLATIONS[name]
    runs = Runs(model, graph, task)
    changes = change(runs)
    names = some_features(graph, runs, changes)
    trace = sc.trace(model, graph, task, sc.ByAblation(LEAST), features=names, ablation=ablation)
    check = sc.validate_trace(model, trace, task, tokens=5)
    base, _ = runs.run(runs.clean)
    together, splits = all_at_once(runs, None if name == "zero" else changes, names)
    assert torch.allclose(check.clean, base.detach(), atol=1e-4)
    assert torch.allclose(check.ablated, together, atol=1e-4)
    assert check.change == pytest.approx(float((together - base.detach()).mean()), abs=1e-4)
    assert check.effects == pytest.approx({node.name: node.effect for node in trace.traced}, abs=1e-5)
    assert check.separate_sum == pytest.approx(sum(node.effect for node in trace.traced), abs=1e-4)
    assert check.interaction == pytest.approx(check.change - check.separate_sum, abs=1e-5)
    low, high = check.change_interval
    assert low <= check.change <= high

    clean, moved = runs.values(runs.clean), {one.name: one for one in check.features}
    first = graph.place_of(graph.index(names[0]))
    downstream = [node.name for node in trace.nodes if graph.place_of(graph.index(node.name)) > first]
    assert sorted(moved) == sorted(downstream)
    each = {}
    for u in names:
        up = graph.place_of(graph.index(u))
        each[u] = up, alone(runs, up, moved_by(runs, changes, up, int(u.split(".f")[1])), hold=False)[1]
    for one in downstream[:: max(1, len(downstream) // 8)]:
        place, number = graph.place_of(graph.index(one)), int(one.split(".f")[1])
        before = clean[place].features[..., number]
        assert moved[one].clean == pytest.approx(float(before.sum(1).mean()), abs=1e-4)
        after = splits[place].features[..., number]
        assert moved[one].together == pytest.approx(float((after - before).sum(1).mean()), abs=1e-3)
        apart = 0.0
        for up, found in each.values():
            if up < place:
                apart += float((found[place].features[..., number] - before).sum(1).mean())
        assert moved[one].separate == pytest.approx(apart, abs=1e-3)

    rows = torch.arange(3)
    loss = Runs(model, graph, task, metric=lambda x: -x[:, -1].log_softmax(-1)[rows, torch.tensor(task.metric.correct)])
    assert check.loss == "answer"
    assert torch.allclose(check.loss_clean, loss.run(loss.clean)[0].detach(), atol=1e-4)
    worse = all_at_once(loss, None if name == "zero" else changes, names)[0]
    assert torch.allclose(check.loss_ablated, worse, atol=1e-4)
    logits = Runs(model, graph, task, metric=lambda x: x[:, -1] - x[:, -1].mean(-1, keepdim=True))
    shift = (all_at_once(logits, None if name == "zero" else changes, names)[0] - logits.run(logits.clean)[0]).mean(0)
    shift = shift.detach()
    assert len(check.tokens) == 5
    for one in check.tokens:
        assert one.together == pytest.approx(float(shift[int(one.name)]), abs=1e-4)
    assert abs(check.tokens[0].together) == pytest.approx(float(shift.abs().max()), abs=1e-4)


def test_validation_of_one_feature_is_its_effect(zoo) -> None:
    model, task = zoo("gpt2"), token_task(4, 6)
    graph = make_graph(model, "all")
    trace = sc.trace(model, graph, task, sc.ByAblation(top=1), at="attn_1")
    check = sc.validate_trace(model, trace, task)
    assert check.change == pytest.approx(trace.traced[0].effect, abs=1e-5)
    assert check.interaction == pytest.approx(0, abs=1e-5)
    assert all(moved.together == pytest.approx(moved.separate, abs=1e-3) for moved in check.features)
    assert all(moved.together == pytest.approx(moved.separate, abs=1e-4) for moved in check.tokens)


def test_the_traced_circuit_is_validated(toy, saes, task: sc.Task, runs: list[sc.Trace], tmp_path: Path) -> None:
    path = runs[-1].save(tmp_path / "trace.safetensors")
    check = sc.validate_trace(toy, sc.Trace.load(path), task, dictionaries=saes)
    assert check.change < -2
    assert check.loss_change > 1
    assert check.separate_sum < check.change  # features behind one another are counted more than once
    found = check.to_dict()
    assert found["change"] == check.change
    assert len(found["features"]) == len(check.features)
    assert str(check).startswith("Validation(24 features ablated at once, zero: LogitDiff ")
    with pytest.raises(InputError, match="lacks its dictionaries"):
        sc.validate_trace(toy, sc.Trace.load(path), task)
    for options, message in (({"ablation": "zero"}, "expected one of Ablation"), ({"task": "x"}, "expected a Task")):
        with pytest.raises(InputError, match=message):
            sc.validate_trace(toy, runs[0], **({"task": task} | options))
    nothing = replace(runs[0], nodes=tuple(n for n in runs[0].nodes if n.effect is None))
    with pytest.raises(InputError, match="nothing to ablate"):
        sc.validate_trace(toy, nothing, task)
    held_out = sc.load_task("sva-across-rc", toy, n=12, seed=1)
    assert sc.validate_trace(toy, runs[-1], held_out).change < -2


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "resid_9"}, "expected one of the graph's sites"),
        ({"features": []}, "expected a list of names"),
        ({"features": "resid_0.f1"}, "expected a list of names"),
        ({"features": 3}, "expected a list of names"),
        ({"features": [3]}, "expected a list of names"),
        ({"features": ["resid_0.f99"]}, "no node 'resid_0.f99'"),
        ({"features": ["resid_0.error"]}, "is no feature"),
        ({"features": ["logits"]}, "is no feature"),
        ({"features": ["a1.h0"]}, "is no feature"),
        ({"features": ["resid_0.f1"], "at": "resid_1"}, "at another site"),
        ({"method": sc.EAP()}, "expected ByAblation"),
        ({"ablation": "zero"}, "expected one of Ablation"),
        ({"positions": "all"}, "expected 'sum', 'keep' or 'spans'"),
        ({"positions": "spans"}, "no named spans"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_input(zoo, options: dict[str, Any], message: str) -> None:
    model = zoo("gpt2")
    graph = make_graph(model, "heads")
    with pytest.raises(InputError, match=message):
        sc.trace(model, graph, token_task(2, 4), **options)


def test_bad_options_and_graphs(zoo) -> None:
    model, task = zoo("gpt2"), token_task(2, 4)
    for make, message in (
        *((lambda x=x: sc.ByAblation(threshold=x), "finite power of two") for x in (math.inf, 2000, "3", None, True)),
        (lambda: sc.ByAblation(top=0), "starts from nothing"),
        (lambda: sc.ByAblation(tokens=-1), "whole number of at least 0"),
        (lambda: sc.ByGradient(0, 0), "chooses nothing"),
        (lambda: sc.ByGradient(steps=0), "points, got 0"),
        (lambda: sc.trace(model, sc.Graph.of(model), task), "expected a graph of features"),
        (lambda: sc.trace(model, sc.Graph.of(model, whole=("attn",)), task), "no features to trace"),
        (lambda: sc.trace(zoo("llama"), make_graph(model, "resid"), task), "of another model"),
        (lambda: sc.validate_trace(model, "x", task), "expected a Trace"),  # pyright: ignore[reportArgumentType]
        (lambda: sc.trace(model, make_graph(model, "resid"), "ioi"), "expected a Task"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(InputError, match=message):
            make()
    silent = make_graph(model, "resid").places[0]
    dead = replace(silent.dictionary, code=lambda x: 0 * (x @ silent.dictionary.W_enc))
    graph = replace(make_graph(model, "resid"), places=(replace(silent, dictionary=dead),))
    with pytest.raises(InputError, match="No feature of resid_0 changes"):
        sc.trace(model, graph, task)
    with pytest.raises(InputError, match="nothing to trace"):
        sc.trace(model, graph, task, sc.ByGradient())


def test_nothing_passed_in_is_changed(zoo) -> None:
    model, task = zoo("gpt2"), token_task(2, 4)
    graph = make_graph(model, "all")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    first = sc.trace(model, graph, task, sc.ByAblation(top=2))
    kept = (first.nodes, first.edges, first.runs, dict(first.provenance))
    sc.trace(model, graph, task, sc.ByAblation(top=2), extend=first)
    sc.trace(model, graph, task, sc.ByGradient(1, 1))
    sc.validate_trace(model, first, task)
    assert (first.nodes, first.edges, first.runs, first.provenance) == kept
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert hooks == {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    assert all(parameter.grad is None for parameter in model.parameters())
