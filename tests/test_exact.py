"""Exact patching at every level, with and without positions, against brute force; and its shortcuts against the long way."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from conftest import POST_NORM, token_task
from oracles import patched_effects, unit_effects

import sparse_circuits as sc
from sparse_circuits.model import anatomy_of

REPRESENTATIVE = (
    "gpt2", "gptj", "neox", "llama", "qwen3", "hooked-attn-only", "hooked-local-softcap", *POST_NORM,
)  # fmt: skip
each_family = pytest.mark.parametrize("family", REPRESENTATIVE)
SPANS = [{"subject": (1, 3), "verb": (4, 6)}] * 3  # what is left, "other", lies before, between and behind these


def same_as(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def with_spans(task: sc.Task) -> sc.Task:
    return sc.Task(task.clean, task.corrupted, metric=task.metric, spans=SPANS[: len(task)])


def grouped(model, task: sc.Task, positions: str) -> torch.Tensor:
    prompts = task.tokenized(model, anatomy_of(model), corrupted=True)
    return prompts.positions(positions).groups


@each_family
@pytest.mark.parametrize("level", ["nodes", "outputs", "neurons"])
def test_nodes_and_units_against_brute_force(zoo, family: str, level: str) -> None:
    model, task = zoo(family), token_task(2, length=6)
    graph = sc.Graph.of(model, level=level)
    same_as(sc.attribute(model, graph, task, sc.Exact()).values, unit_effects(model, graph, task).mean(0))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2"])
@pytest.mark.parametrize("level", ["nodes", "outputs", "neurons"])
def test_units_under_zero_against_brute_force(zoo, family: str, level: str) -> None:
    model, task = zoo(family), token_task(2, length=6)
    graph = sc.Graph.of(model, level=level)
    uncorrupted = sc.Task(task.clean, metric=task.metric)
    scores = sc.attribute(model, graph, uncorrupted, sc.Exact(), ablation=sc.Ablation.ZERO).values
    same_as(scores, unit_effects(model, graph, task, zero=True).mean(0))


@pytest.mark.parametrize("family", ["gptj", "llama", "mistral-window", "hooked-bidirectional", "olmo2"])
@pytest.mark.parametrize("positions", ["keep", "spans"])
def test_edges_between_positions_against_brute_force(zoo, family: str, positions: str) -> None:
    model, task = zoo(family), token_task(2, length=4) if positions == "keep" else with_spans(token_task(2, length=6))
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.Exact(), positions=positions)
    assert scores.graph.n_positions > 2
    same_as(scores.values, patched_effects(model, scores.graph, task, groups=grouped(model, task, positions)))


@pytest.mark.parametrize(
    ("family", "level", "positions"),
    [
        ("llama", "nodes", "keep"), ("gemma2", "nodes", "spans"), ("neox", "neurons", "spans"),
        ("hooked-bidirectional", "nodes", "spans"), ("olmo2", "neurons", "spans"),
    ],
)  # fmt: skip
def test_units_at_positions_against_brute_force(zoo, family: str, level: str, positions: str) -> None:
    model, task = zoo(family), with_spans(token_task(2, length=6))
    scores = sc.attribute(model, sc.Graph.of(model, level=level), task, sc.Exact(), positions=positions)
    same_as(scores.values, unit_effects(model, scores.graph, task, grouped(model, task, positions)).mean(0))


@pytest.mark.parametrize("family", ["llama", "gemma2", "hooked-rotary-parallel-gqa"])
def test_ungrouped_edges_against_brute_force(zoo, family: str) -> None:
    model, task = zoo(family), token_task(3)
    graph = sc.Graph.of(model, kv="per_query_head")
    same_as(sc.attribute(model, graph, task, sc.Exact()).values, patched_effects(model, graph, task))


def test_a_copied_key_is_normed_with_the_others(zoo) -> None:
    """Where a norm spans all heads, a query head's own copy of a key moves every copy that is normed with it."""
    model, task = zoo("olmo2"), token_task(3)
    grouped, copied = sc.Graph.of(model), sc.Graph.of(model, kv="per_query_head")
    g, c = (sc.attribute(model, graph, task, sc.Exact()).values for graph in (grouped, copied))
    same_as(c[:, copied.reads_at(1, "q")], g[:, grouped.reads_at(1, "q")], 1e-5)
    same_as(c[:, -1], g[:, -1], 1e-5)
    assert torch.isfinite(c).all()
    keys = c[:, copied.reads_at(1, "k")].unflatten(1, (grouped.n_kv, -1)).sum(-1)
    assert torch.corrcoef(torch.stack([keys.flatten(), g[:, grouped.reads_at(1, "k")].flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("family", ["gpt2", "llama", "hooked-bidirectional", "olmo2"])
@pytest.mark.parametrize(
    ("level", "positions"),
    [("outputs", "sum"), *itertools.product(["edges", "nodes", "neurons"], ["sum", "keep", "spans"])],
)
def test_batches_and_padding_do_not_matter(zoo, family: str, level: str, positions: str) -> None:
    model, task = zoo(family), token_task(3, length=5 if positions == "keep" else 7, varied=True)
    if positions == "spans":
        spans = [{"subject": (1, 2), "verb": (2, 4)}] * 3
        task = sc.Task(task.clean, task.corrupted, metric=task.metric, spans=spans)
    graph = sc.Graph.of(model, level=level)
    together = sc.attribute(model, graph, task, sc.Exact(), positions=positions, per_example=True)
    apart = sc.attribute(model, graph, task, sc.Exact(), positions=positions, batch_size=1)
    same_as(apart.values, together.values, 1e-5)
    same_as(together.per_example.mean(0), together.values[together.graph.mask], 1e-5)
    alone = sc.attribute(model, graph, task[1:2], sc.Exact(), positions=positions)
    if alone.graph == together.graph:
        same_as(together.per_example[1], alone.values[alone.graph.mask], 1e-5)


def at_the_end(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
    rows = torch.arange(len(batch))
    right, wrong = 3 + batch.index % 5, 10 + batch.index % 7
    last = logits[rows, batch.lengths - 1]
    return last[rows, right] - last[rows, wrong]


@pytest.mark.parametrize(
    "family", ["gpt2", "neox", "llama", "mistral-window", "hooked-bidirectional", "gemma3", "olmo2"]
)
@pytest.mark.parametrize("level", ["edges", "nodes", "neurons"])
def test_a_metric_that_reads_one_position_saves_nothing_but_work(zoo, family: str, level: str) -> None:
    """The same metric as a plain function, which may look everywhere."""
    model, task = zoo(family), token_task(4, varied=True)
    graph = sc.Graph.of(model, level=level)
    plain = sc.Task(task.clean, task.corrupted, metric=at_the_end)
    fast, slow = (sc.attribute(model, graph, t, sc.Exact()).values for t in (task, plain))
    same_as(fast, slow, 1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "hooked-bidirectional"])
@pytest.mark.parametrize("position", [0, 3, -2])
def test_a_metric_in_the_middle(zoo, family: str, position: int) -> None:
    """Tokens behind the one that is read play no part in a causal model, and do in another."""
    metric = sc.LogitDiff([3, 4, 5, 6], [10, 11, 12, 13], position=position)
    model, task = zoo(family), token_task(4, varied=True, metric=metric)

    def plain(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        rows = torch.arange(len(batch))
        read = logits[rows, position if position >= 0 else batch.lengths + position]
        return read[rows, 3 + batch.index] - read[rows, 10 + batch.index]

    graph = sc.Graph.of(model)
    fast = sc.attribute(model, graph, task, sc.Exact()).values
    slow = sc.attribute(model, graph, sc.Task(task.clean, task.corrupted, metric=plain), sc.Exact()).values
    if position == 0 and family != "hooked-bidirectional":
        assert torch.equal(fast, torch.zeros_like(fast))  # before the first token that differs
        assert slow.abs().max() < 1e-5
    else:
        same_as(fast, slow, 1e-5)


def test_a_metric_of_all_positions(zoo) -> None:
    """Every real token counts, padding never."""

    def mean_logit(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        return (logits[..., 3] * batch.real).sum(1) / batch.lengths

    model, task = zoo("gpt2"), token_task(4, varied=True, metric=mean_logit)
    graph = sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, sc.Exact(), per_example=True)
    for i in range(4):
        alone = sc.attribute(model, graph, task[i : i + 1], sc.Exact())
        same_as(scores.per_example[i], alone.values[graph.mask], 1e-5)
    logits_edges = scores.values[:, -1]
    assert (logits_edges.abs() > 1e-4).all()


def test_the_effect_of_the_input_is_the_whole_effect(zoo) -> None:
    """With the input patched everywhere, a model without learned positions runs as on the corrupted prompt."""
    for family in ("gpt2", "llama", "gemma2"):
        model, task = zoo(family), token_task()
        scores = sc.attribute(model, sc.Graph.of(model, level="nodes"), task, sc.Exact())
        assert float(scores.values[0]) == pytest.approx(float((scores.corrupted - scores.clean).mean()), abs=1e-5)


@pytest.mark.parametrize("level", ["edges", "nodes"])
def test_edges_into_the_logits_of_the_last_layer_are_its_nodes(zoo, level: str) -> None:
    """What the last MLP writes is read by the logits alone."""
    model, task = zoo("gpt2"), token_task()
    graph, nodes = sc.Graph.of(model), sc.Graph.of(model, level="nodes")
    edges = sc.attribute(model, graph, task, sc.Exact()).to_dict()
    scores = sc.attribute(model, nodes, task, sc.Exact()).to_dict()
    assert edges["m2->logits"] == pytest.approx(scores["m2"], abs=1e-6)


def test_prompts_that_do_not_differ_have_no_effect(zoo) -> None:
    task = token_task(3)
    mixed = sc.Task(task.clean, [task.corrupted[0], *task.clean[1:]], metric=task.metric)
    scores = sc.attribute(zoo("llama"), sc.Graph.of(zoo("llama")), mixed, sc.Exact(), per_example=True)
    assert scores.per_example[0].abs().max() > 1e-2
    assert scores.per_example[1:].abs().max() < 1e-5


@pytest.mark.parametrize("elements", [1, 3000])
@pytest.mark.parametrize("level", ["edges", "nodes", "neurons"])
@pytest.mark.parametrize("positions", ["sum", "keep"])
def test_what_runs_together_does_not_matter(
    zoo, level: str, positions: str, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = zoo("llama"), token_task(3, length=5, varied=True)
    graph = sc.Graph.of(model, level=level)

    def scores() -> torch.Tensor:
        return sc.attribute(model, graph, task, sc.Exact(), positions=positions).values

    whole = scores()
    monkeypatch.setattr("sparse_circuits.attribution.exact._CHUNK_ELEMENTS", elements)
    same_as(scores(), whole, 1e-5)


def test_clean_logits_reach_the_metric(zoo) -> None:
    """A divergence from the clean run is worst where patching changes most, and never positive."""
    model = zoo("llama")
    task, graph = token_task(4, varied=True, metric=sc.NegativeKL()), sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, sc.Exact()).values
    assert scores.min() < -1e-2
    assert scores.max() < 1e-5


def test_half_precision_takes_differences_in_full(zoo) -> None:
    for family in ("llama", "gemma2", "olmo2"):
        task = token_task()
        for level in ("edges", "nodes", "neurons"):
            graph = sc.Graph.of(zoo(family), level=level)
            full = sc.attribute(zoo(family), graph, task, sc.Exact()).values
            half = sc.attribute(zoo(family, torch.bfloat16), graph, task, sc.Exact()).values
            assert half.dtype == torch.float32
            assert torch.corrcoef(torch.stack([full[graph.mask], half[graph.mask]]))[0, 1] > 0.97


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        # two runs; what is in layer 0 counts whole, what is in layer 1 half
        (
            "edges",
            lambda g: (
                2 + sum((2 - d // g.destinations_per_layer) * int(g.readable[d]) for d in range(g.n_destinations)) / 2
            ),
        ),
        ("nodes", lambda g: 2 + (1 * 2 + 4 * 2 + 4 * 1) / 2),
    ],
)
def test_passes_count_the_layers_that_run_again(zoo, level: str, expected: Callable) -> None:
    graph = sc.Graph.of(zoo("neox"), level=level)
    scores = sc.attribute(zoo("neox"), graph, token_task(), sc.Exact())
    assert scores.passes == (pytest.approx(expected(graph)), 0)
