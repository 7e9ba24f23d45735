"""Names, edges, pruning and selection, by hand and against plain rewrites."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch

import sparse_circuits as sc
from sparse_circuits.circuit.select import greedy, top

GRAPHS = {
    "sequential": sc.Graph(2, 2, 2),
    "parallel": sc.Graph(2, 2, 2, parallel=True),
    "attention only": sc.Graph(2, 3, 3, has_mlp=False),
    "grouped": sc.Graph(2, 4, 2),
}
each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def test_names_of_a_small_graph() -> None:
    graph = sc.Graph(1, 2, 1)
    assert graph.sources == ("input", "a0.h0", "a0.h1", "m0")
    assert graph.destinations == ("a0.h0<q>", "a0.h1<q>", "a0.g0<k>", "a0.g0<v>", "m0", "logits")
    assert list(graph.edges) == [
        "input->a0.h0<q>", "input->a0.h1<q>", "input->a0.g0<k>", "input->a0.g0<v>", "input->m0", "input->logits",
        "a0.h0->m0", "a0.h0->logits", "a0.h1->m0", "a0.h1->logits", "m0->logits",
    ]  # fmt: skip


def writes_before(graph: sc.Graph, source: str, destination: str) -> bool:
    """The rule in words: earlier layers, and within a layer heads before the MLP unless both run in parallel."""
    if source == "input" or destination == "logits":
        return True
    layer_of = {name: int("".join(itertools.takewhile(str.isdigit, name[1:]))) for name in (source, destination)}
    if layer_of[source] != layer_of[destination]:
        return layer_of[source] < layer_of[destination]
    return source.startswith("a") and destination.startswith("m") and not graph.parallel


@each_graph
def test_edges_follow_the_order_of_writing(graph: sc.Graph) -> None:
    for u, source in enumerate(graph.sources):
        for v, destination in enumerate(graph.destinations):
            assert bool(graph.mask[u, v]) == writes_before(graph, source, destination), (source, destination)
    assert graph.n_edges == int(graph.mask.sum()) == len(list(graph.edges))
    assert all(graph.edge_name(*graph.edge_index(name)) == name for name in graph.edges)


def owner(graph: sc.Graph, destination: str) -> set[str]:
    """Nodes that read through a destination."""
    if "<" not in destination:
        return {destination}
    node = destination.split("<")[0]
    layer, kind, number = node.split(".")[0], node.split(".")[1][0], int(node.split(".")[1][1:])
    if kind == "h":
        return {node}
    share = graph.n_heads // graph.n_kv
    return {f"{layer}.h{h}" for h in range(number * share, (number + 1) * share)}


def prune_by_names(graph: sc.Graph, edges: set[str]) -> set[str]:
    while True:
        writers = {e.split("->")[0] for e in edges}
        readers = {node for e in edges for node in owner(graph, e.split("->")[1])} | {"input"}
        alive = writers & readers | {"logits"}
        kept = {e for e in edges if e.split("->")[0] in alive and owner(graph, e.split("->")[1]) & alive}
        if kept == edges:
            return edges
        edges = kept


@each_graph
def test_pruning(graph: sc.Graph) -> None:
    generator = torch.Generator().manual_seed(0)
    names = list(graph.edges)
    for share in (0.1, 0.2, 0.3, 0.5, 0.8):
        chosen = {n for n in names if torch.rand(1, generator=generator) < share}
        circuit = sc.Circuit.of(graph, chosen)
        assert set(circuit.pruned().edges) == prune_by_names(graph, chosen)
    assert sc.Circuit.full(graph).pruned().n_edges == graph.n_edges


@each_graph
def test_greedy_selection_step_by_step(graph: sc.Graph) -> None:
    ranking = torch.rand(graph.n_sources, graph.n_destinations, generator=torch.Generator().manual_seed(0))
    scores = {n: float(ranking[graph.edge_index(n)]) for n in graph.edges}
    chosen: list[str] = []
    inside = {"logits"}
    for n in range(1, 16):
        reachable = [e for e in scores if e not in chosen and owner(graph, e.split("->")[1]) & inside]
        if not reachable:
            break
        best = max(reachable, key=scores.__getitem__)
        chosen.append(best)
        inside.add(best.split("->")[0])
        assert set(sc.Circuit(graph, greedy(graph, ranking, n)).edges) == set(chosen)


def scored(graph: sc.Graph, signed: bool = True) -> sc.Scores:
    values = torch.randn(graph.n_sources, graph.n_destinations, generator=torch.Generator().manual_seed(3)) * graph.mask
    return sc.Scores(graph, values, clean=torch.zeros(2), corrupted=torch.ones(2), signed=signed)


@each_graph
def test_top_and_threshold(graph: sc.Graph) -> None:
    scores = scored(graph)
    by_size = sorted(scores.to_dict().items(), key=lambda item: -abs(item[1]))
    damaging = sorted(scores.to_dict().items(), key=lambda item: item[1])
    for n in (0, 3, 10, graph.n_edges):
        assert set(sc.Circuit(graph, top(graph, scores.values.abs(), n)).edges) == {e for e, _ in by_size[:n]}
        assert set(scores.top(n).edges) == prune_by_names(graph, {e for e, _ in by_size[:n]})
        assert set(scores.top(n, signed=True).edges) == prune_by_names(graph, {e for e, _ in damaging[:n]})
    assert set(scores.threshold(0.7).edges) == prune_by_names(graph, {e for e, s in by_size if abs(s) >= 0.7})
    assert set(scores.threshold(0.7, signed=True).edges) == prune_by_names(graph, {e for e, s in by_size if s <= -0.7})


def test_zero_is_not_an_edge() -> None:
    """Choosing all edges chooses edges, never pairs that are none."""
    graph = GRAPHS["sequential"]
    flat = sc.Scores(graph, torch.zeros(graph.n_sources, graph.n_destinations), torch.zeros(1), None)
    assert flat.top(graph.n_edges).n_edges == graph.n_edges
    assert flat.greedy(graph.n_edges).n_edges == graph.n_edges
    assert flat.threshold(0).n_edges == graph.n_edges


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.top(-1), "at least 0"),
        (lambda s: s.top(2.5), "whole number"),
        (lambda s: s.top(10**6), "the graph has"),
        (lambda s: s.threshold(-0.1), "at least 0"),
        (lambda s: s.threshold(float("nan")), "at least 0"),
        (lambda s: s.graph.edge_index("m9->logits"), "no edge 'm9->logits'"),
        (lambda s: s.graph.edge_index("m1->a0.h0<q>"), "written after"),
        (lambda s: sc.Circuit.of(s.graph, ["m0"]), "named like"),
    ],
)
def test_bad_selections(call, message: str) -> None:
    with pytest.raises(sc.InputError, match=message):
        call(scored(GRAPHS["sequential"]))


def test_unsigned_scores_cannot_be_ranked_by_sign() -> None:
    with pytest.raises(sc.InputError, match="no sign"):
        scored(GRAPHS["sequential"], signed=False).top(3, signed=True)


def test_scores_that_are_not_finite_cannot_be_ranked() -> None:
    graph = GRAPHS["sequential"]
    values = torch.full((graph.n_sources, graph.n_destinations), torch.nan)
    with pytest.raises(sc.InputError, match="not finite"):
        sc.Scores(graph, values, torch.zeros(1), None).top(3)


def test_convergence_gap() -> None:
    scores = scored(GRAPHS["sequential"])
    assert scores.convergence_gap == pytest.approx(float(scores.values[0].sum()) - 1.0)


@each_graph
def test_circuit_views(graph: sc.Graph) -> None:
    circuit = scored(graph).greedy(8)
    listed = [abs(s) for s in circuit.to_dict().values()]
    assert listed == sorted(listed, reverse=True)
    assert set(circuit.complement().edges) == set(graph.edges) - set(circuit.edges)
    writers_and_readers = {e.split("->")[0] for e in circuit.edges}
    assert {"logits", *writers_and_readers} <= set(circuit.nodes)
    assert str(circuit.n_edges) in repr(circuit)


def test_nodes_of_a_group() -> None:
    graph = GRAPHS["grouped"]
    assert sc.Circuit.of(graph, ["input->a0.g1<k>", "a0.h3->logits"]).nodes == ("input", "a0.h3", "logits")
    assert sc.Circuit.of(graph, ["input->a0.g1<k>"]).nodes == ("input", "a0.h2", "a0.h3")
    assert sc.Circuit.of(graph, ["input->a0.h2<q>", "input->a0.g1<k>"]).nodes == ("input", "a0.h2")


# --- files ---


@each_graph
def test_files_round_trip(graph: sc.Graph, tmp_path) -> None:
    scores = scored(graph)
    circuit = scores.greedy(9)
    loaded = sc.Circuit.load(circuit.save(tmp_path / "c.safetensors"))
    assert loaded.graph == graph
    assert torch.equal(loaded.mask, circuit.mask)
    assert torch.equal(loaded.values, circuit.values)
    assert loaded.provenance == circuit.provenance
    bare = sc.Circuit.load(sc.Circuit.of(graph, circuit.edges).save(tmp_path / "b.safetensors"))
    assert bare.values is None
    assert set(bare.edges) == set(circuit.edges)
    again = sc.Scores.load(scores.save(tmp_path / "s.safetensors"))
    assert torch.equal(again.values, scores.values)
    assert again.convergence_gap == scores.convergence_gap
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.safetensors", "c.safetensors", "s.safetensors"]


def test_damaged_and_foreign_files_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    circuit = scored(GRAPHS["sequential"]).greedy(9)
    path = circuit.save(tmp_path / "c.safetensors")
    whole = path.read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "text": b"not a circuit",
        "empty": b"",
        "edges": whole[:-40] + b"\x7f" * 40,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(sc.FileFormatError, match=name):
            sc.Circuit.load(tmp_path / name)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(sc.FileFormatError, match="not one of sparse-circuits"):
        sc.Circuit.load(tmp_path / "foreign.safetensors")
    scores = scored(GRAPHS["sequential"]).save(tmp_path / "s.safetensors")
    with pytest.raises(sc.FileFormatError, match="'scores'; expected 'circuit'"):
        sc.Circuit.load(scores)
    for saved, load in ((path, sc.Circuit.load), (scores, sc.Scores.load)):
        for old, new in ((b'n_heads\\": ', b'n_beads\\": '), (b'n_layers\\": ', b'n_layers\\":-')):
            data = saved.read_bytes()
            assert old in data
            (tmp_path / "graph.safetensors").write_bytes(data.replace(old, new))
            with pytest.raises(sc.FileFormatError, match="its graph cannot be"):
                load(tmp_path / "graph.safetensors")
    with pytest.raises(sc.InputError, match="No file"):
        sc.Circuit.load(tmp_path / "nothing.safetensors")
    with pytest.raises(sc.InputError, match="no folder"):
        circuit.save(tmp_path / "missing" / "c.safetensors")


def test_large_graph_is_cheap(tmp_path) -> None:
    before = sys.getallocatedblocks()
    graph = sc.Graph(80, 64, 8)
    edges = graph.mask
    assert sys.getallocatedblocks() - before < 10_000  # 16 million edges are not as many Python objects
    assert graph.n_edges == int(edges.sum())
    keep = torch.zeros_like(edges)
    keep[0, -1] = True
    assert sc.Circuit.load(sc.Circuit(graph, keep).save(tmp_path / "big.safetensors")).edges == ("input->logits",)
