"""Scores per example, and what holds up when other examples had been drawn."""

from __future__ import annotations

import pytest
import torch
from conftest import token_task

import sparse_circuits as sc
from sparse_circuits.circuit import Scores


def made(per_example: list[list[float]]) -> Scores:
    """Scores of a graph of one attention-only layer with one head: input->q, k, v, logits and head->logits."""
    graph = sc.Graph(n_layers=1, n_heads=1, n_kv=1, has_mlp=False)
    kept = torch.tensor(per_example)
    values = torch.zeros(graph.shape)
    values[graph.mask] = kept.mean(0)
    clean = torch.zeros(len(kept))
    return Scores(graph, values, clean, clean, per_example=kept)


@pytest.mark.parametrize(
    "method", [sc.EAP(), sc.EAPIG(steps=2, direct="mean"), sc.Exact(), sc.InformationFlowRoutes()], ids=str
)
def test_scores_per_example_are_those_of_each_alone(zoo, method: sc.Method) -> None:
    model, task = zoo("llama"), token_task(4, varied=True)
    graph = sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, method, per_example=True, batch_size=3)
    scale = scores.values.abs().max()
    for i in range(4):
        alone = sc.attribute(model, graph, task[i], method).values[graph.mask]
        assert (scores.per_example[i] - alone).abs().max() < 1e-5 * scale
    assert (scores.per_example.mean(0) - scores.values[graph.mask]).abs().max() < 1e-5 * scale
    assert sc.attribute(model, graph, task, method).per_example is None


def test_what_varies_over_examples_is_not_stable() -> None:
    # input->q: always -1. input->k: +-3, mean 0.5. input->v: 0.1. input->logits: 0. head->logits: -5 once, else 0.
    rows = [[-1.0, 3.0 if i % 2 else -2.0, 0.1, 0.0, -5.0 if i == 0 else 0.0] for i in range(20)]
    scores = made(rows)
    stability = scores.stability(2, draws=500)
    names = list(scores.graph.names)
    assert names[:2] == ["input->a0.h0<q>", "input->a0.h0<k>"]
    q, k, logits = (scores.graph.index(name) for name in (names[0], names[1], "input->logits"))
    assert (stability.negative[q], stability.positive[q], stability.sign_kept[q]) == (1, 0, 1)
    assert stability.among_top[q] == 1
    assert 0.5 < stability.positive[k] < 0.95
    assert stability.negative[k] + stability.positive[k] == pytest.approx(1, abs=0.02)
    assert (float(stability.low[q]), float(stability.high[q])) == pytest.approx((-1, -1))
    assert stability.low[k] < 0 < stability.high[k]
    assert stability.negative[logits] == stability.positive[logits] == 0
    assert scores.stable(2, confidence=0.99).mask.sum() == 0  # the q edge alone leads nowhere
    chosen = stability.holds(0.99)
    assert chosen[q]
    assert int(chosen.sum()) == 1
    assert stability.interval(names[0]) == pytest.approx((-1.0, -1.0))
    # by hand: a resample's mean of k is normal around 0.5 with deviation 2.5 / sqrt(20)
    low, high = stability.interval(names[1])
    assert low == pytest.approx(0.5 - 1.96 * 2.5 / 20**0.5, abs=0.2)
    assert high == pytest.approx(0.5 + 1.96 * 2.5 / 20**0.5, abs=0.2)


def test_identical_examples_are_perfectly_stable(zoo) -> None:
    model, task = zoo("gpt2"), token_task(1)
    same = sc.Task(list(task.clean) * 5, list(task.corrupted) * 5, metric=sc.LogitDiff([3] * 5, [10] * 5))
    scores = sc.attribute(model, sc.Graph.of(model), same, sc.EAP(), per_example=True)
    assert scores.stable(40).names == scores.top(40).names
    stability = scores.stability(40)
    assert torch.allclose(stability.low, stability.high, atol=1e-6)


def test_saved_with_the_scores(zoo, tmp_path) -> None:
    model, task = zoo("gpt2"), token_task()
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), per_example=True)
    loaded = sc.Scores.load(scores.save(tmp_path / "s.safetensors"))
    assert torch.equal(loaded.per_example, scores.per_example)
    assert loaded.stable(50).names == scores.stable(50).names


def test_bad_requests(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP())
    with pytest.raises(sc.InputError, match="per_example=True"):
        scores.stable(10)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), per_example=True)
    with pytest.raises(sc.InputError, match=r"confidence=1\.5"):
        scores.stable(10, confidence=1.5)
    with pytest.raises(sc.InputError, match="at least 20"):
        scores.stable(10, draws=5)
    with pytest.raises(sc.InputError, match="only scores"):
        _ = scores.selected
