"""Feature graphs and their scores: what holds of all of them, names, files, choosing a circuit, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import token_task
from feature_oracle import Runs, gradients, patched, random_dictionary
from safetensors.torch import load_file, save_file
from test_feature_oracle import LIGHT, close, dense, dense_edges, each_light, make_graph
from test_methods import assert_same_state, state

import sparse_circuits as sc
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.circuit.influence import influential
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.graph.places import Place
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site

METHODS = {
    "eap": sc.EAP(),
    "eap-frozen": sc.EAP(rule="frozen"),
    "eap-ig": sc.EAPIG(steps=2),
    "eap-ig-activations": sc.EAPIG(steps=3, path="activations"),
    "clean-corrupted": sc.CleanCorrupted(),
    "relp": sc.RelP(),
    "exact": sc.Exact(),
}
each_method = pytest.mark.parametrize("name", METHODS)


def above(name: str) -> float | None:
    return None if name == "exact" else 0.02


def both(scores: sc.FeatureScores) -> torch.Tensor:
    """Nodes and edges as one vector, to compare."""
    return dense(scores) if scores.edge_list is None else torch.cat([dense(scores), dense_edges(scores).flatten()])


# --- what holds of every method ---


@each_light
@each_method
def test_batches_and_padding_do_not_matter(zoo, family: str, recipe: str, name: str) -> None:
    model, task = zoo(family), token_task(4, 6, varied=True)
    graph, method = make_graph(model, recipe), METHODS[name]
    together = sc.attribute(model, graph, task, method, nodes_above=above(name), per_example=True)
    by_two = sc.attribute(model, graph, task, method, nodes_above=above(name), batch_size=3)
    alone = [sc.attribute(model, graph, task[i : i + 1], method, nodes_above=above(name)) for i in range(4)]
    close(both(by_two), both(together), 1e-4)
    close(torch.stack([both(one) for one in alone]).mean(0), both(together), 1e-4)
    rows, nodes, values = together.per_example
    table = torch.zeros(4, graph.size)
    table[rows, nodes] = values
    close(table, torch.stack([dense(one) for one in alone]), 1e-4)
    close(table.mean(0), dense(together), 1e-5)
    torch.testing.assert_close(together.clean, torch.cat([one.clean for one in alone]), atol=1e-5, rtol=1e-5)


@each_light
@pytest.mark.parametrize("name", [name for name in METHODS if name != "exact"])
def test_positions_add_up(zoo, family: str, recipe: str, name: str) -> None:
    """Kept apart, or by spans, and then added: the same nodes and edges, also with prompts of several lengths."""
    model, task = zoo(family), token_task(3, 6, varied=True)
    spans = [{"start": (0, 2), "end": -1} for _ in range(3)]
    task = replace(task, spans=spans)
    graph, method = make_graph(model, recipe), METHODS[name]
    options: dict[str, Any] = {"nodes_above": above(name)}
    whole = sc.attribute(model, graph, task, method, **options)
    for positions, names in (("keep", tuple("012345")), ("spans", ("start", "end", "other"))):
        apart = sc.attribute(model, graph, task, method, positions=positions, **options)
        n = len(names)
        assert apart.graph.positions == names
        close(dense(apart).view(-1, n).sum(1), dense(whole), 1e-4)
        table = dense_edges(apart)
        into = table[:, :-1].view(graph.size, n, graph.size, n).sum((1, 3))
        close(into, dense_edges(whole)[:, :-1], 1e-4)
        close(table[:, -1].view(-1, n).sum(1), dense_edges(whole)[:, -1], 1e-4)


@each_light
def test_a_site_moves_as_a_whole(zoo, family: str, recipe: str) -> None:
    """Features and error of a site together are <g, a' - a>: no part is lost, none counted twice."""
    model, task = zoo(family), token_task(3, 6)
    graph = make_graph(model, recipe)
    scores = dense(sc.attribute(model, graph, task, sc.EAP()))
    runs = Runs(model, graph, task)
    changes = patched(runs)
    at = gradients(runs)
    for i, spot in enumerate(graph.places):
        moved = (
            changes.rest[i]
            if spot.dictionary is None
            else changes.rest[i] + changes.features[i] @ spot.dictionary.W_dec
        )
        expected = (moved * at[i]).sum() / 3
        assert float(scores[graph.nodes_of(i)].sum()) == pytest.approx(
            float(expected), abs=1e-4 * float(scores.abs().max())
        )


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "gemma2"])
@pytest.mark.parametrize("ablation", [sc.Ablation.PATCH, sc.Ablation.ZERO, sc.Ablation.MEAN], ids=str)
def test_integrated_effects_are_complete(zoo, family: str, ablation: sc.Ablation) -> None:
    """Over a full cut, one place with all its features and error: m(ablated there) - m(clean). Under PATCH, all of it."""
    model, task = zoo(family), token_task(6, 6)
    anatomy = anatomy_of(model)
    site = Site("resid", 0)
    graph = FeatureGraph.of_anatomy(anatomy, {site.name: random_dictionary(site, anatomy.d_model, 12)})
    # Where a norm is all that tells how long the stream is, a path to nearly nothing bends hard at its end.
    steps = 20 if ablation.kind == "patch" else 160
    scores, coarse = (
        sc.attribute(model, graph, task, sc.EAPIG(steps=n, path="activations"), ablation=ablation) for n in (steps, 1)
    )
    found, whole = scores.convergence["resid_0"]
    assert found == pytest.approx(float(dense(scores).sum()), abs=1e-4)
    assert scores.convergence_gaps == {"resid_0": found - whole}
    assert scores.convergence_gap == found - whole
    assert abs(found - whole) < 0.01 * abs(whole)
    assert abs(coarse.convergence_gap) > abs(scores.convergence_gap)
    if ablation.kind == "patch":
        assert whole == pytest.approx(float((scores.corrupted - scores.clean).mean()), abs=1e-4)
    assert sc.attribute(model, graph, task, sc.EAP(), ablation=ablation).convergence_gap is None


@pytest.mark.parametrize("name", ["ioi", "sva-simple"])
def test_integrated_effects_of_the_bundled_dictionaries_are_complete(name: str) -> None:
    pytest.importorskip("sae_lens", reason="SAELens is not installed beside this TransformerLens")
    model = sc.load_model("toy", device="cpu")
    graph = sc.Graph.of(model, sc.load_dictionaries("toy", model, sites=["resid"]))
    task = sc.load_task(name, model, n=8)
    scores = sc.attribute(model, graph, task, sc.EAPIG(steps=20, path="activations"))
    total = float((scores.corrupted - scores.clean).mean())
    effects = dense(scores)
    assert len(graph.places) == 4
    for i, place in enumerate(graph.places):
        assert float(effects[graph.nodes_of(i)].sum()) == pytest.approx(total, rel=0.01)
        assert abs(scores.convergence_gaps[place.name]) < 0.01 * abs(total)


@each_light
@each_method
def test_effects_are_0_where_nothing_changes_and_linear_in_the_metric(zoo, family: str, recipe: str, name: str) -> None:
    model, task = zoo(family), token_task(2, 5)
    graph, method = make_graph(model, recipe), METHODS[name]
    same = sc.attribute(model, graph, sc.Task(task.clean, task.clean, metric=task.metric), method)
    assert float(dense(same).abs().max()) < 1e-5
    half = sc.Task(task.clean, task.corrupted, metric=lambda logits, batch: 0.5 * task.metric(logits, batch))
    whole, scaled = (sc.attribute(model, graph, t, method) for t in (task, half))
    close(dense(scaled), 0.5 * dense(whole), 1e-4)
    found = dense_edges(sc.attribute(model, graph, half, method, nodes_above=0.01)) if above(name) else None
    if found is not None:
        close(found, 0.5 * dense_edges(sc.attribute(model, graph, task, method, nodes_above=0.02)), 1e-4)


class Stop(BaseException):
    """Like an interrupt: not an Exception."""


@pytest.mark.parametrize("failure", [None, ValueError("broken metric"), Stop()], ids=lambda f: type(f).__name__)
@each_method
def test_leaves_everything_as_it_was(zoo, name: str, failure: BaseException | None) -> None:
    model = zoo("llama")
    calls = 0

    def metric(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if failure is not None and calls == 3:
            raise failure
        return logits[torch.arange(len(batch.index)), batch.lengths - 1, 3]

    task, graph = token_task(4, 5, metric=metric), make_graph(model, "transcoders-normed-skip")
    clean_before, before, graph_before = [list(p) for p in task.clean], state(model), replace(graph)
    weights = [(d.W_enc, d.W_enc.clone(), d.W_dec, d.W_dec.clone()) for d in (p.dictionary for p in graph.places) if d]
    if failure is None:
        sc.attribute(model, graph, task, METHODS[name], batch_size=2, nodes_above=above(name))
    else:
        with pytest.raises(type(failure)):
            sc.attribute(model, graph, task, METHODS[name], batch_size=2, nodes_above=above(name))
    assert_same_state(before, state(model))
    assert task.clean == clean_before
    assert graph == graph_before
    assert graph.positions == ()
    for a, b, c, d in weights:
        assert torch.equal(a, b)
        assert torch.equal(c, d)
        assert a.grad is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("family", "recipe"), LIGHT[:3])
@each_method
def test_other_dtypes(zoo, family: str, recipe: str, name: str) -> None:
    """Model and dictionaries may differ in it; float64 agrees closely, bfloat16 in all that matters. Scores are float32."""
    task, method = token_task(3, 6), METHODS[name]
    full = sc.attribute(zoo(family), make_graph(zoo(family), recipe), task, method, nodes_above=above(name))
    for of_model, of_dictionaries, alike in (
        (torch.float32, torch.float64, 0.99999),
        (torch.float32, torch.bfloat16, 0.95),
        (torch.bfloat16, torch.float32, 0.9),
        (torch.bfloat16, torch.bfloat16, 0.9),
    ):
        model = zoo(family, of_model)
        graph = make_graph(model, recipe)
        graph = replace(graph, places=tuple(_cast(place, of_dictionaries) for place in graph.places))
        found = sc.attribute(model, graph, task, method, nodes_above=above(name))
        assert found.node_values.dtype == torch.float32
        assert torch.corrcoef(torch.stack([dense(full), dense(found)]))[0, 1] > alike
        if found.edge_list is not None:
            assert found.edges.values.dtype == torch.float32
            pairs = torch.stack([dense_edges(full).flatten(), dense_edges(found).flatten()])
            assert torch.corrcoef(pairs)[0, 1] > min(alike, 0.999)


def _cast(place: Place, dtype: torch.dtype) -> Place:
    d = place.dictionary
    if d is None:
        return place
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip")
    cast = {name: None if (w := getattr(d, name)) is None else w.to(dtype) for name in names}
    W_enc, b_enc = cast["W_enc"], cast["b_enc"]
    return replace(place, dictionary=replace(d, **cast, code=lambda x: (x @ W_enc + b_enc).relu()))


@pytest.mark.parametrize("elements", [1, 300])
@each_method
def test_memory_chunks_do_not_matter(zoo, name: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, rows and tables are worked through in pieces, one at a time if need be."""
    model, task = zoo("gpt2"), token_task(3, 6, varied=True)
    graph = make_graph(model, "all")
    whole = {
        p: sc.attribute(model, graph, task, METHODS[name], nodes_above=above(name), positions=p)
        for p in ("sum", "keep")
    }
    for module, names in {
        "splits": ["_DENSE_ELEMENTS"],
        "edges": ["_ROW_ELEMENTS", "_SUM_ELEMENTS"],
        "exact": ["_CHUNK_ELEMENTS"],
        "gradients": ["_ELEMENTS_AT_ONCE"],
    }.items():
        for constant in names:
            monkeypatch.setattr(f"sparse_circuits.attribution.feature.{module}.{constant}", elements)
    for positions, expected in whole.items():
        pieces = sc.attribute(model, graph, task, METHODS[name], nodes_above=above(name), positions=positions)
        close(both(pieces), both(expected), 1e-4)


# --- names and numbers ---


@pytest.mark.parametrize("recipe", ["all", "heads", "z", "transcoders-normed", "mixed"])
@pytest.mark.parametrize("positions", [(), ("0", "1", "2"), ("subject", "other")])
def test_every_node_has_its_name(zoo, recipe: str, positions: tuple[str, ...]) -> None:
    graph = make_graph(zoo("gpt2"), recipe).at(positions)
    names = list(graph.nodes)
    assert len(set(names)) == len(names) == graph.size + 1
    assert [graph.index(name) for name in names] == list(range(graph.size + 1))
    assert names[-1] == "logits"
    places = graph.places_of(torch.arange(graph.size + 1)).tolist()
    assert places[-1] == len(graph.places)
    assert places[:-1] == [graph.place_of(node) for node in range(graph.size)]
    for i in range(len(graph.places)):
        assert places[graph.nodes_of(i)] == [i] * (graph.places[i].size * graph.n_positions)
    assert {graph.name_of(i) for i in graph.errors.tolist()} == {name for name in names if ".error" in name}


def test_names_are_those_of_the_field(zoo) -> None:
    model = zoo("gpt2")
    assert list(make_graph(model, "heads").nodes)[:4] == ["a0.h0", "a0.h1", "a0.h2", "mlp_0.f0"]
    kept = make_graph(model, "resid").at(tuple("0123"))
    assert kept.name_of(0) == "resid_0.f0@0"
    assert kept.name_of(kept.index("resid_2.error@3")) == "resid_2.error@3"
    assert make_graph(model, "mixed").index("attn_1") > make_graph(model, "mixed").index("attn_0")


@pytest.mark.parametrize(
    "name",
    [
        "resid_0.f10",
        "resid_0.f-1",
        "resid_0.f",
        "resid_9.f0",
        "resid_0",
        "resid_0.f0@0",
        "attn_0.f0",
        "",
        "resid_0.f1.f1",
    ],
)
def test_unknown_names_are_refused(zoo, name: str) -> None:
    with pytest.raises(sc.InputError, match="has no node"):
        make_graph(zoo("gpt2"), "resid").index(name)


# --- choosing a circuit, by hand ---


def small_graph(positions: tuple[str, ...] = ()) -> FeatureGraph:
    """Three places one after the other, each of which reads all before it: 2 + 1, 2 + 1 and 1 + 1 nodes."""
    places = tuple(
        Place(Site.named(name), n, 1, f"by hand/{name}") for name, n in (("attn_0", 2), ("mlp_0", 2), ("attn_1", 1))
    )
    return FeatureGraph(places, 2, 8, positions=positions)


NODES = {
    "attn_0.f0": -3.0, "attn_0.f1": 1.0, "attn_0.error": 0.5, "mlp_0.f0": -2.0, "mlp_0.error": -0.25, "attn_1.f0": 4.0,
}  # fmt: skip
EDGES = {
    ("attn_0.f0", "mlp_0.f0"): -1.0, ("attn_0.f1", "mlp_0.f0"): 3.0, ("attn_0.f0", "attn_1.f0"): 0.5,
    ("mlp_0.f0", "attn_1.f0"): 1.5, ("attn_0.error", "mlp_0.error"): 2.0, ("mlp_0.error", "attn_1.f0"): 0.25,
    ("attn_1.f0", "logits"): 4.0, ("mlp_0.f0", "logits"): -1.0, ("attn_0.f1", "logits"): 0.5,
}  # fmt: skip


def by_hand(signed: bool = True) -> sc.FeatureScores:
    graph = small_graph()
    nodes = {graph.index(name): value for name, value in NODES.items()}
    ends = torch.tensor([[graph.index(u), graph.index(d)] for u, d in EDGES])
    edges = EdgeList(*ends.T.contiguous(), torch.tensor(list(EDGES.values())))
    return sc.FeatureScores(
        graph, torch.tensor(list(nodes)), torch.tensor(list(nodes.values())), edges, torch.ones(2), None, signed=signed
    )


def test_scores_by_name() -> None:
    scores = by_hand()
    assert scores.to_dict() == scores.to_dict("nodes") == NODES
    assert scores.to_dict("edges") == {f"{u}->{d}": value for (u, d), value in EDGES.items()}
    with pytest.raises(sc.InputError, match=r"expected 'nodes' or 'edges'"):
        scores.to_dict("faces")


def test_top() -> None:
    scores = by_hand()
    circuit = scores.top(3)
    assert circuit.nodes == ("attn_0.f0", "mlp_0.f0", "attn_1.f0")
    assert circuit.names == ("attn_1.f0", "attn_0.f0", "mlp_0.f0")
    assert set(circuit.edges) == {
        "attn_0.f0->mlp_0.f0", "attn_0.f0->attn_1.f0", "mlp_0.f0->attn_1.f0", "attn_1.f0->logits", "mlp_0.f0->logits",
    }  # fmt: skip
    assert circuit.edges[0] == "attn_1.f0->logits"
    assert scores.top(2, signed=True).names == ("attn_0.f0", "mlp_0.f0")
    assert scores.top(0).nodes == ()
    assert scores.top(99).size == len(NODES)
    assert scores.top(3, edges=2).nodes == ("mlp_0.f0", "attn_1.f0")  # attn_0.f0 leads nowhere any more
    assert scores.top(3, edges=0).nodes == ()
    assert scores.top(3, edges=2, prune=False).nodes == circuit.nodes
    assert set(scores.top(3, edges=3, prune=False).edges) == {
        "attn_1.f0->logits", "mlp_0.f0->attn_1.f0", "attn_0.f0->mlp_0.f0"
    }  # fmt: skip
    assert scores.top(3, edges=3).nodes == circuit.nodes


def test_threshold() -> None:
    scores = by_hand()
    assert set(scores.threshold(nodes=1.0).nodes) == {"attn_0.f0", "mlp_0.f0", "attn_1.f0"}  # strictly above
    assert set(scores.threshold(nodes=0.9, signed=True).nodes) == {"attn_0.f0", "mlp_0.f0"}
    loose = scores.threshold(nodes=0.4, edges=0.9)  # attn_0.error's only edge is to a node that is out
    assert set(loose.nodes) == {"attn_0.f0", "attn_0.f1", "mlp_0.f0", "attn_1.f0"}
    assert set(loose.edges) == {
        "attn_0.f0->mlp_0.f0", "attn_0.f1->mlp_0.f0", "mlp_0.f0->attn_1.f0", "attn_1.f0->logits", "mlp_0.f0->logits"
    }  # fmt: skip
    assert "attn_0.error" in scores.threshold(nodes=0.4, edges=0.9, prune=False).nodes


def influence_by_inverse(scores: sc.FeatureScores, kept: list[str] | None = None) -> dict[str, float]:
    """The logits' row of (I - A)^-1 with A_du the share of d's incoming edges that u has."""
    names = [name for name in scores.graph.nodes if kept is None or name in kept or name == "logits"]
    A = torch.zeros(len(names), len(names), dtype=torch.float64)
    for edge, value in scores.to_dict("edges").items():
        u, d = edge.split("->")
        if u in names and d in names:
            A[names.index(d), names.index(u)] = abs(value)
    A = A / A.sum(1, keepdim=True).clamp(min=1e-30)
    inverse = torch.linalg.inv(torch.eye(len(names), dtype=torch.float64) - A)
    return dict(zip(names, inverse[-1].tolist(), strict=True))


@pytest.mark.parametrize(("share", "edge_share"), [(0.5, 0.5), (0.8, 0.98), (0.95, 0.9), (1.0, 1.0)])
def test_cumulative_is_influence_over_all_paths(share: float, edge_share: float) -> None:
    scores = by_hand()
    influence = influence_by_inverse(scores)
    del influence["logits"]
    total, kept, so_far = sum(influence.values()), [], 0.0
    for name, value in sorted(influence.items(), key=lambda item: -item[1]):
        if so_far < share * total and value > 0:
            kept.append(name)
        so_far += value
    again = influence_by_inverse(scores, kept)
    inside = {(u, d): abs(v) for (u, d), v in EDGES.items() if u in kept and d in (*kept, "logits")}
    weights = {
        edge: v / sum(w for (_, d), w in inside.items() if d == edge[1]) * again[edge[1]] for edge, v in inside.items()
    }
    chosen, so_far = set(), 0.0
    for edge, value in sorted(weights.items(), key=lambda item: -item[1]):
        if so_far < edge_share * sum(weights.values()) and value > 0:
            chosen.add("->".join(edge))
        so_far += value
    graph = scores.graph
    nodes, edges = influential(graph, scores.edges, share, edge_share)
    assert {graph.name_of(i) for i in nodes.tolist()} == set(kept)
    assert set(scores.edges[edges].names(graph)) == chosen
    circuit = scores.cumulative(share, edge_share)
    assert set(circuit.nodes) <= set(kept)
    assert set(circuit.edges) <= chosen
    if share == 1.0:
        assert set(circuit.nodes) == {"attn_0.f0", "attn_0.f1", "mlp_0.f0", "attn_1.f0", "attn_0.error", "mlp_0.error"}


def pruned_by_hand(circuit: sc.FeatureCircuit) -> set[str]:
    """Nodes from which a path leads to the logits, one by one."""
    nodes = set(circuit.nodes)
    edges = [tuple(edge.split("->")) for edge in circuit.edges]
    edges = [(u, d) for u, d in edges if u in nodes and d in nodes | {"logits"}]

    def reaches(name: str) -> bool:
        return name == "logits" or any(reaches(d) for u, d in edges if u == name)

    return set(filter(reaches, nodes))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("positions", [(), ("0", "1")])
def test_pruning(seed: int, positions: tuple[str, ...]) -> None:
    graph, generator = small_graph(positions), torch.Generator().manual_seed(seed)
    pairs = [
        (u, d)
        for d in range(graph.size + 1)
        for u in range(graph.size)
        if graph.place_of(u) in graph.reach[graph.place_of(d) if d < graph.size else -1].parents
    ]
    chosen = torch.tensor(pairs)[torch.randperm(len(pairs), generator=generator)[: 3 + seed]]
    nodes = torch.randperm(graph.size, generator=generator)[: graph.size - seed % 4].sort().values
    circuit = sc.FeatureCircuit(
        graph, nodes, torch.rand(len(nodes)), EdgeList(*chosen.T.contiguous(), torch.rand(len(chosen)))
    )
    pruned = circuit.pruned()
    assert set(pruned.nodes) == pruned_by_hand(circuit)
    inside = set(pruned.nodes)
    assert set(pruned.edges) == {
        e for e in circuit.edges if e.split("->")[0] in inside and e.split("->")[1] in inside | {"logits"}
    }
    for name, value in pruned.to_dict().items():
        assert value == circuit.to_dict()[name]
    assert set(pruned.pruned().nodes) == inside


def test_a_circuit_from_names() -> None:
    graph = small_graph()
    circuit = sc.FeatureCircuit.of(graph, ["mlp_0.f1", "attn_0.f0", "attn_0.f0"])
    assert circuit.nodes == ("attn_0.f0", "mlp_0.f1")
    assert circuit.n_edges == 0
    scored = sc.FeatureCircuit.of(graph, {"mlp_0.f1": -1.0, "attn_0.f0": 3.0})
    assert scored.to_dict() == {"attn_0.f0": 3.0, "mlp_0.f1": -1.0}
    assert scored.signs == (0.5, 0.5)
    with pytest.raises(sc.InputError, match="leave 'logits' out"):
        sc.FeatureCircuit.of(graph, ["logits"])
    with pytest.raises(sc.InputError, match="no scores"):
        circuit.to_dict()


# --- files ---


@pytest.fixture
def found(zoo) -> tuple[Any, sc.FeatureScores]:
    model, task = zoo("gpt2"), token_task(3, 5)
    graph = make_graph(model, "transcoders-normed-skip")
    scores = sc.attribute(
        model, graph, task, sc.EAPIG(steps=2, path="activations"), nodes_above=0.02, positions="keep", per_example=True
    )
    return {place.name: place.dictionary for place in graph.places if place.split}, scores


def test_scores_survive_their_file(found, tmp_path: Path) -> None:
    dictionaries, scores = found
    scores.save(tmp_path / "s.safetensors")
    back = sc.FeatureScores.load(tmp_path / "s.safetensors", dictionaries)
    assert back.graph == scores.graph
    assert all(a.dictionary is b.dictionary for a, b in zip(back.graph.places, scores.graph.places, strict=True))
    assert back.to_dict() == scores.to_dict()
    assert back.to_dict("edges") == scores.to_dict("edges")
    assert (back.signed, back.passes, back.convergence) == (scores.signed, scores.passes, scores.convergence)
    assert back.provenance == scores.provenance
    for a, b in (
        (back.clean, scores.clean),
        (back.corrupted, scores.corrupted),
        *zip(back.per_example, scores.per_example, strict=True),
    ):
        assert torch.equal(a, b)
    assert sc.FeatureScores.load(tmp_path / "s.safetensors").graph.places[1].dictionary is None


def test_a_circuit_survives_its_file(found, tmp_path: Path) -> None:
    dictionaries, scores = found
    circuit = scores.threshold(nodes=0.02, edges=0.001)
    assert circuit.n_edges
    circuit.save(tmp_path / "c.safetensors")
    for given in (None, dictionaries):
        back = sc.FeatureCircuit.load(tmp_path / "c.safetensors", dictionaries=given)
        assert back.graph == circuit.graph
        assert back.names == circuit.names
        assert back.to_dict() == circuit.to_dict()
        assert back.to_dict("edges") == circuit.to_dict("edges")
        assert back.provenance == circuit.provenance
    scores.save(tmp_path / "s.safetensors")
    with pytest.raises(sc.FileFormatError, match="holds 'feature_scores'"):
        sc.FeatureCircuit.load(tmp_path / "s.safetensors")
    with pytest.raises(sc.FileFormatError, match="holds 'feature_circuit'"):
        sc.FeatureScores.load(tmp_path / "c.safetensors")


def _resave(path: Path, change: Any) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("kind", ["circuit", "scores"])
@pytest.mark.parametrize("damage", ["cut", "nodes", "negative", "targets", "lengths", "missing", "scores"])
def test_damaged_files_are_refused(found, tmp_path: Path, kind: str, damage: str) -> None:
    _, scores = found
    path = tmp_path / "f.safetensors"
    thing = scores if kind == "scores" else scores.threshold(nodes=0.02, edges=0.001)
    thing.save(path)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        if damage == "nodes":
            tensors["nodes"] = tensors["nodes"] + 10**6
        elif damage == "negative":
            tensors["nodes"] = tensors["nodes"] - 10**6
        elif damage == "targets":
            tensors["targets"] = tensors["targets"] + 10**6
        elif damage == "lengths":
            tensors["targets"] = tensors["targets"][:-1].clone()
        elif damage == "missing":
            del tensors["nodes"]
        else:
            name = "values" if kind == "scores" else "scores"
            tensors[name] = tensors[name][:-1].clone()

    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        _resave(path, change)
    with pytest.raises(sc.FileFormatError):
        type(thing).load(path)


def test_other_dictionaries_are_refused(found, tmp_path: Path) -> None:
    dictionaries, scores = found
    path = scores.top(5).save(tmp_path / "c.safetensors")
    name, own = next(iter(dictionaries.items()))
    for wrong in (
        {key: value for key, value in dictionaries.items() if key != name},
        {**dictionaries, name: replace(own, id="another")},
        {**dictionaries, name: random_dictionary(own.site, own.d_in, 3)},
    ):
        with pytest.raises(sc.InputError, match=rf"needs the dictionary .* at {name}"):
            sc.FeatureCircuit.load(path, dictionaries=wrong)


# --- what is refused ---


@pytest.mark.parametrize(
    "method",
    [sc.ACDC(threshold=0.1), sc.AtPStar(), sc.InformationFlowRoutes(), sc.EdgePruning()],
    ids=lambda m: type(m).__name__,
)
def test_methods_without_features_say_so(zoo, method: sc.Method) -> None:
    with pytest.raises(sc.InputError, match=r"does not score features; use EAP"):
        sc.attribute(zoo("gpt2"), make_graph(zoo("gpt2"), "resid"), token_task(), method)


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_threshold_is_no_negative_number(zoo, value: float) -> None:
    with pytest.raises(sc.InputError, match=r"nodes_above=.*expected a number of at least 0"):
        sc.attribute(zoo("gpt2"), make_graph(zoo("gpt2"), "resid"), token_task(), nodes_above=value)


def test_bad_input(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = make_graph(model, "resid")
    with pytest.raises(sc.InputError, match="graph is of another model"):
        sc.attribute(zoo("llama"), graph, task)
    with pytest.raises(sc.InputError, match="finds no edges between features"):
        sc.attribute(model, graph, task, sc.Exact(), nodes_above=0.1)
    with pytest.raises(sc.InputError, match="is for feature graphs"):
        sc.attribute(model, sc.Graph.of(model), task, nodes_above=0.1)
    with pytest.raises(sc.InputError, match="without positions"):
        sc.attribute(model, graph.at(tuple("0123456")), task)
    with pytest.raises(sc.InputError, match="lacks its dictionaries"):
        sc.attribute(model, replace(graph, places=tuple(replace(p, dictionary=None) for p in graph.places)), task)
    with pytest.raises(sc.InputError, match="corrupted"):
        sc.attribute(model, graph, sc.Task(task.clean, metric=task.metric))
    with pytest.raises(sc.InputError, match="is for edges between components"):
        sc.attribute(model, graph, task, sc.EAPIG(direct="mean"))
    with pytest.raises(sc.InputError, match="one number per example"):
        sc.attribute(model, graph, replace(task, metric=lambda logits, batch: logits.mean()))


def test_bad_selection(zoo) -> None:
    scores = by_hand()
    for call in (lambda: scores.top(-1), lambda: scores.top(1.5), lambda: scores.top(2, edges=-1)):  # pyright: ignore[reportArgumentType]
        with pytest.raises(sc.InputError, match="whole number of at least 0"):
            call()
    for call in (lambda: scores.threshold(nodes=-1), lambda: scores.threshold(nodes=1, edges=float("nan"))):
        with pytest.raises(sc.InputError, match="expected a number of at least 0"):
            call()
    for call in (lambda: scores.cumulative(0.0), lambda: scores.cumulative(0.5, 1.1)):
        with pytest.raises(sc.InputError, match="share above 0 and at most 1"):
            call()
    without = replace(scores, edge_list=None)
    assert without.top(2).n_edges == 0
    for call in (
        lambda: without.edges,
        lambda: without.cumulative(),
        lambda: without.top(2, edges=3),
        lambda: without.threshold(nodes=0, prune=True),
        lambda: without.threshold(nodes=0, edges=0.1),
    ):
        with pytest.raises(sc.InputError, match="nodes_above="):
            call()
    with pytest.raises(sc.InputError, match="no sign"):
        by_hand(signed=False).top(2, signed=True)
    with pytest.raises(sc.InputError, match="not finite"):
        replace(scores, node_values=scores.node_values * float("nan")).top(2)


def test_bad_graphs(zoo) -> None:
    model = zoo("gpt2")
    d = anatomy_of(model).d_model
    sae, other = random_dictionary(Site("mlp", 1), d), random_dictionary(Site.named("transcoder_1"), d)
    with pytest.raises(sc.InputError, match="both split what one MLP writes"):
        sc.Graph.of(model, {"mlp_1": sae, "transcoder_1": other})
    with pytest.raises(sc.InputError, match="would split the same activation"):
        sc.Graph.of(model, {"mlp_1": sae}, whole="mlp_1")
    with pytest.raises(sc.InputError, match="no such site"):
        sc.Graph.of(model, {"mlp_1": sae}, whole="attn_7")
    with pytest.raises(sc.InputError, match="no such site"):
        sc.Graph.of(zoo("neox"), {"resid_0": random_dictionary(Site("resid", 0), 24)}, whole="resid_mid")
    with pytest.raises(sc.InputError, match="leave them out"):
        sc.Graph.of(model, {"mlp_1": sae}, level="nodes")  # pyright: ignore[reportCallIssue]
    with pytest.raises(sc.InputError, match="no site"):
        sc.FeatureGraph.of_anatomy(anatomy_of(model), {})
    graph = sc.Graph.of(model, {"mlp_1": sae}, whole=("z_0", "resid_2"))
    assert [place.name for place in graph.places] == ["z_0", "mlp_1", "resid_2"]
    assert (
        sc.Graph.of(model, {"resid_0": random_dictionary(Site("resid", 0), d)}, whole="embed").places[0].name == "embed"
    )
