"""Nodes, output dimensions and neurons: how their scores sum, and choosing and saving at each level."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, POST_NORM, token_task

import sparse_circuits as sc

LEVELS = ("nodes", "outputs", "neurons")
GRADIENTS = {
    "eap": sc.EAP(),
    "eap-ig": sc.EAPIG(steps=2),
    "eap-ig-activations": sc.EAPIG(steps=2, path="activations"),
    "clean-corrupted": sc.CleanCorrupted(),
    "relp": sc.RelP(),
    "eap-ig-frozen": sc.EAPIG(steps=2, rule="frozen"),
}
each_gradient = pytest.mark.parametrize("method", GRADIENTS.values(), ids=GRADIENTS.keys())


def scored(model, task, method, level: str, **options) -> sc.Scores:
    return sc.attribute(model, sc.Graph.of(model, level=level), task, method, **options)


def by_source(scores: sc.Scores) -> torch.Tensor:
    """Units added up to their sources."""
    graph = scores.graph
    return torch.zeros(graph.n_sources).index_add_(0, graph.owner, scores.values)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-5 * b.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@each_gradient
def test_units_sum_to_nodes_and_edges_to_nodes(zoo, family: str, method: sc.Method) -> None:
    model, task = zoo(family), token_task()
    nodes = scored(model, task, method, "nodes").values
    edges = scored(model, task, method, "edges").values
    assert close(edges.sum(1), nodes)
    assert close(by_source(scored(model, task, method, "outputs")), nodes)
    neurons = by_source(scored(model, task, method, "neurons"))
    # an MLP's post-norm sees its neurons together, as a node it is differenced after the norm
    of_mlp = torch.tensor([name[0] == "m" for name in sc.Graph.of(model).sources])
    same = ~of_mlp if family in POST_NORM else torch.ones_like(of_mlp)
    assert (neurons - nodes)[same].abs().max() < 1e-5 * nodes.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_neurons_lack_the_output_bias_under_zero(zoo, family: str) -> None:
    """Under ZERO an MLP as a node loses its output bias too, its neurons do not: the difference is <-b_out, gradient>."""
    model, task = zoo(family), token_task()
    nodes, neurons = (scored(model, task, sc.EAP(), level, ablation=sc.Ablation.ZERO) for level in ("nodes", "neurons"))
    bias = model.blocks[0].mlp.original_component.c_proj.bias if family == "gpt2" else torch.zeros(24)
    n = len(task)
    added = torch.zeros(n, 7, 24, requires_grad=True)
    logits = model.run_with_hooks(
        torch.tensor(task.clean), fwd_hooks=[("blocks.0.hook_mlp_out", lambda x, hook: x + added)], return_type="logits"
    )
    value = (
        logits[torch.arange(n), -1, task.metric.correct] - logits[torch.arange(n), -1, task.metric.incorrect]
    ).sum()
    gradient = torch.autograd.grad(value, added)[0]
    expected = -(gradient.sum((0, 1)) * bias.detach()).sum() / n
    graph = nodes.graph
    row = graph.mlp_at(0)
    difference = nodes.values[row] - by_source(neurons)[row]
    assert float(difference) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("family", POST_NORM)
def test_heads_under_a_post_norm_sum_to_about_zero_under_zero_ablation(zoo, family: str) -> None:
    """An RMSNorm does not see the length of its input: taking all heads away together changes nothing to first order."""
    model, task = zoo(family), token_task()
    values = scored(model, task, sc.EAP(), "nodes", ablation=sc.Ablation.ZERO).values
    graph = sc.Graph.of(model)
    for layer in range(graph.n_layers):
        heads = values[graph.heads_at(layer)]
        assert heads.sum().abs() < 0.01 * heads.abs().sum()


@pytest.mark.parametrize("level", LEVELS)
def test_names_sizes_and_choosing(zoo, level: str, tmp_path) -> None:
    model, task = zoo("gpt2"), token_task()
    scores = scored(model, task, sc.EAP(), level)
    graph = scores.graph
    expected = {
        "nodes": 1 + 3 * (3 + 1),
        "outputs": (1 + 3 * (3 + 1)) * 24,
        "neurons": 1 + 3 * (24 + 96),
    }
    assert graph.size == expected[level] == len(graph.names) == len(set(graph.names))
    named = {"nodes": "a1.h2", "outputs": "a1.h2.d5", "neurons": "a1.h2.n5"}[level]
    offset = {"nodes": 1 + 4 + 2, "outputs": (1 + 4 + 2) * 24 + 5, "neurons": 1 + 120 + 2 * 8 + 5}[level]
    assert graph.index(named) == (offset,)
    assert graph.names[offset] == named
    assert graph.edges[0] == "input->a0.h0<q>"
    assert scores.to_dict()[named] == pytest.approx(float(scores.values[offset]))
    circuit = scores.top(5)
    strongest = sorted(scores.to_dict().items(), key=lambda item: -abs(item[1]))[:5]
    assert circuit.names == tuple(name for name, _ in strongest)
    assert circuit.to_dict() == pytest.approx(dict(strongest))
    assert scores.greedy(5).names == circuit.names  # nothing to grow along
    assert circuit.size == 5
    whole = {name if level == "nodes" or name == "input" else name.rsplit(".", 1)[0] for name in circuit.names}
    assert set(circuit.nodes) == whole | {"logits"}
    assert sum(circuit.signs) == pytest.approx(1.0)
    loaded = sc.Circuit.load(circuit.save(tmp_path / "c.safetensors"))
    assert (loaded.graph, loaded.names, loaded.to_dict()) == (graph, circuit.names, circuit.to_dict())
    again = sc.Scores.load(scores.save(tmp_path / "s.safetensors"))
    assert again.graph == graph
    assert torch.equal(again.values, scores.values)
    assert sc.Circuit.of(graph, circuit.to_dict()).to_dict() == circuit.to_dict()
    with pytest.raises(sc.InputError, match="are named like"):
        sc.Circuit.of(graph, ["a9.h9"])


def test_edges_between_the_nodes_of_a_circuit(zoo) -> None:
    graph = sc.Graph.of(zoo("gpt2"), level="nodes")
    circuit = sc.Circuit.of(graph, ["input", "a0.h1", "m1"])
    assert circuit.nodes == ("input", "a0.h1", "m1", "logits")
    assert set(circuit.edges) == {
        "input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>", "input->m1", "input->logits",
        "a0.h1->m1", "a0.h1->logits", "m1->logits",
    }  # fmt: skip
    assert circuit.n_edges == 8
    assert circuit.size == 3


def test_a_method_refuses_a_level_that_it_cannot_score(zoo) -> None:
    model = zoo("gpt2")
    with pytest.raises(sc.InputError, match="InformationFlowRoutes scores edges, not neurons"):
        sc.attribute(model, sc.Graph.of(model, level="neurons"), token_task(), sc.InformationFlowRoutes())
    with pytest.raises(sc.InputError, match="expected one of 'edges', 'nodes', 'outputs', 'neurons'"):
        sc.Graph.of(model, level="features")


def test_a_graph_of_80_layers_is_cheap_and_its_circuit_saves_and_loads(tmp_path) -> None:
    graph = sc.Graph(n_layers=80, n_heads=64, n_kv=8)
    assert graph.n_edges == graph.size == sum(int(n) for n in graph.readable)
    values = torch.zeros(graph.shape)
    values[0, -1], values[graph.heads_at(79).start, -1] = 1.0, -2.0
    circuit = sc.Circuit(graph, values != 0, values)
    loaded = sc.Circuit.load(circuit.save(tmp_path / "big.safetensors"))
    assert loaded.to_dict() == {"a79.h0->logits": -2.0, "input->logits": 1.0}
