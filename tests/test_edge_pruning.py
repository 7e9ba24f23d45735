"""Learned gates: they find a known circuit, are reproducible, and survive an interrupt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import HAS_HOOKED, token_task

import sparse_circuits as sc
from sparse_circuits.attribution.edge_pruning import EdgePruning
from sparse_circuits.attribution.gates import Gates
from sparse_circuits.circuit.run import CircuitRunner
from sparse_circuits.errors import FileFormatError
from sparse_circuits.zoo.planted import planted_induction

QUICK = EdgePruning(size=20, steps=12, learning_rate=0.3)


@pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")
@pytest.mark.parametrize("options", [{"size": 5}, {"sparsity": 0.9, "objective": "metric", "seed": 1}])
def test_finds_exactly_the_planted_circuit(options: dict) -> None:
    planted = planted_induction()
    graph = sc.Graph.of(planted.model)
    scores = sc.attribute(planted.model, graph, planted.task, EdgePruning(steps=300, **options))
    assert scores.chosen is not None
    assert set(graph.names_of(scores.chosen)) == set(planted.edges)
    values = scores.to_dict()
    assert all(values[name] > 0.9 for name in planted.edges)
    assert all(value < 0.1 for name, value in values.items() if name not in planted.edges)
    result = sc.evaluate(planted.model, scores.top(5), planted.task)
    assert result.faithfulness == pytest.approx(1, abs=1e-5)


@pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_finds_the_planted_nodes_and_positions() -> None:
    planted = planted_induction()
    task = planted.task
    scores = sc.attribute(
        planted.model, sc.Graph.of(planted.model, level="nodes"), task, EdgePruning(size=3, steps=200)
    )
    assert {name for name, value in scores.to_dict().items() if value > 0.5} == {"input", "a0.h1", "a1.h2"}
    placed = sc.attribute(
        planted.model,
        sc.Graph.of(planted.model, level="nodes"),
        task,
        EdgePruning(size=12, steps=200),
        positions="keep",
    )
    assert {name for name, value in placed.to_dict().items() if value > 0.5} >= {"a1.h2@8", "input@8"}


@pytest.mark.parametrize("level", ["edges", "nodes", "outputs", "neurons"])
@pytest.mark.parametrize("ablation", ["PATCH", "ZERO", "MEAN"])
def test_every_level_and_ablation(zoo, level: str, ablation: str) -> None:
    model, task = zoo("gpt2"), token_task(5, varied=True)
    graph = sc.Graph.of(model, level=level)  # pyright: ignore[reportArgumentType]
    method = replace(QUICK, size=None, sparsity=0.5)
    scores = sc.attribute(model, graph, task, method, ablation=getattr(sc.Ablation, ablation), batch_size=3)
    assert scores.values.shape == graph.shape
    inside = scores.values[graph.mask]
    assert 0 < inside.min() <= inside.max() < 1
    assert not scores.values[~graph.mask].any()
    assert scores.chosen is not None
    assert torch.equal(scores.chosen, scores.values > 0.5)
    assert not scores.signed
    assert (scores.corrupted is not None) == (ablation == "PATCH")


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "hooked-bidirectional"])
@pytest.mark.parametrize("positions", ["sum", "keep"])
def test_families_positions_and_metrics_of_ones_own(zoo, family: str, positions: str) -> None:
    model = zoo(family)
    task = token_task(3, 5, metric=lambda logits, batch: logits[:, -1, 3] - logits[:, -1, 4])
    for objective in ("kl", "metric"):
        method = replace(QUICK, objective=objective, steps=4)
        scores = sc.attribute(model, sc.Graph.of(model), task, method, positions=positions)  # pyright: ignore[reportArgumentType]
        assert torch.isfinite(scores.values).all()
        assert scores.values.shape == scores.graph.shape
        assert scores.values[scores.graph.mask].std() > 0


def test_sparsity_comes_near_the_target(zoo) -> None:
    model, task = zoo("gpt2"), token_task(8)
    graph = sc.Graph.of(model)
    method = EdgePruning(size=40, steps=300, learning_rate=0.2, multiplier_rate=0.3)
    scores = sc.attribute(model, graph, task, method)
    assert scores.chosen is not None
    assert 15 <= int(scores.chosen.sum()) <= 60


def test_deterministic_and_clean(zoo) -> None:
    model, task = zoo("llama"), token_task(6, varied=True)
    graph = sc.Graph.of(model)
    before = torch.random.get_rng_state()
    first = sc.attribute(model, graph, task, QUICK, batch_size=2)
    torch.rand(3)
    with torch.no_grad():
        second = sc.attribute(model, graph, task, QUICK, batch_size=2)
    torch.random.set_rng_state(before)
    third = sc.attribute(model, graph, task, replace(QUICK, seed=1), batch_size=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.values, second.values)
    assert not torch.equal(first.values, third.values)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_kept_between_steps_does_not_matter(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = zoo("llama"), token_task(6, varied=True)
    graph = sc.Graph.of(model)
    kept = sc.attribute(model, graph, task, QUICK, batch_size=2)
    monkeypatch.setattr("sparse_circuits.attribution.edge_pruning._KEPT_ELEMENTS", 0)
    made = sc.attribute(model, graph, task, QUICK, batch_size=2)
    assert torch.equal(kept.values, made.values)
    assert made.passes[0] > kept.passes[0]


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_interrupted_run_ends_as_an_uninterrupted_one(
    zoo, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = zoo("gpt2"), token_task(5, varied=True)
    graph = sc.Graph.of(model)
    whole = sc.attribute(model, graph, task, QUICK, batch_size=2)
    method = replace(QUICK, checkpoint=tmp_path / "run.safetensors", checkpoint_every=4)
    gated, calls = CircuitRunner.gated, []

    def interrupted(self: CircuitRunner, *args: object, **more: object) -> torch.Tensor:
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(1)
        return gated(self, *args, **more)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(CircuitRunner, "gated", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sc.attribute(model, graph, task, method, batch_size=2)
    assert [p.name for p in tmp_path.iterdir()] == (["run.safetensors"] if stop >= 4 else [])
    resumed = []
    monkeypatch.setattr(CircuitRunner, "gated", lambda *args, **more: resumed.append(1) or gated(*args, **more))
    again = sc.attribute(model, graph, task, method, batch_size=2)
    assert len(resumed) == 12 - stop // 4 * 4
    assert torch.equal(again.values, whole.values)
    finished = sc.attribute(model, graph, task, method, batch_size=2)
    assert len(resumed) == 12 - stop // 4 * 4
    assert torch.equal(finished.values, whole.values)
    assert finished.provenance["method"] == whole.provenance["method"]


def test_checkpoint_of_another_run_is_refused(zoo, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model, task = zoo("gpt2"), token_task(5)
    graph, method = sc.Graph.of(model), replace(QUICK, steps=3, checkpoint=path)
    sc.attribute(model, graph, task, method)

    def refused(match: str, *, model=model, graph=graph, task=task, method=method, **more: object) -> None:
        with pytest.raises(sc.InputError, match=match):
            sc.attribute(model, graph, task, method, **more)  # pyright: ignore[reportArgumentType]

    refused("another run: seed differs .seed: 0 there, 1 here", method=replace(method, seed=1))
    refused("steps", method=replace(method, steps=4))
    refused("prompts", task=token_task(5, seed=1))
    refused("metric", task=token_task(5, metric=sc.LogProb([3, 4, 5, 6, 7])))
    refused("graph", graph=sc.Graph.of(model, level="nodes"), method=replace(method, size=3))
    refused("graph", positions="keep")
    refused("batch_size", batch_size=2)
    refused("metric of the ablated run", ablation=sc.Ablation.ZERO)
    refused("metric of the model", model=zoo("gpt2-scaled"))
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="damaged"):
        sc.attribute(model, graph, task, method)
    sc.Circuit.full(graph).save(path)
    with pytest.raises(FileFormatError, match="not a checkpoint"):
        sc.attribute(model, graph, task, method)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0.*between 0 and 1"),
        ({"size": 0}, "size=0.*whole number"),
        ({"steps": 0}, "steps=0"),
        ({"warmup": 2}, "warmup=2"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"multiplier_rate": -1}, "multiplier_rate=-1"),
        ({"objective": "mse"}, "objective='mse'.*'kl' or 'metric'"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, match: str) -> None:
    with pytest.raises(sc.InputError, match=match):
        EdgePruning(**options)


def test_bad_requests_are_refused_before_any_work(zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CircuitRunner, "streams", lambda *args: pytest.fail("work was done"))
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    with pytest.raises(sc.InputError, match="fewer than the graph's"):
        sc.attribute(model, graph, task, EdgePruning(size=graph.size))
    with pytest.raises(sc.InputError, match="one set of gates"):
        sc.attribute(model, graph, task, QUICK, per_example=True)
    with pytest.raises(sc.InputError, match="no folder"):
        sc.attribute(model, graph, task, replace(QUICK, checkpoint=tmp_path / "nowhere" / "run.safetensors"))


def test_a_checkpoint_in_a_folder_that_does_not_exist_is_refused_before_training(zoo, tmp_path: Path) -> None:
    model = zoo("gpt2")
    method = sc.EdgePruning(steps=3, checkpoint=tmp_path / "nowhere" / "state.safetensors")
    with pytest.raises(sc.InputError, match="there is no folder"):
        sc.attribute(model, sc.Graph.of(model), token_task(), method)


def test_gates_follow_their_distribution() -> None:
    """Shares of draws above 0 and above 1/2 are what the formulas say."""
    gates = Gates(200_000, torch.device("cpu"), 0.1, 0.1)
    for logit in (-2.0, 0.0, 1.0):
        gates.restore({**gates.state(), "values": torch.cat([torch.full((200_000,), logit), torch.zeros(2)])})
        drawn, shut = (x.detach() for x in gates.draw(torch.Generator().manual_seed(0)))
        assert float(gates.open()[0]) == pytest.approx(torch.tensor(logit).sigmoid().item())
        assert float((drawn > 0.5).float().mean()) == pytest.approx(float(gates.open()[0]), abs=5e-3)
        assert float((drawn == 0).float().mean()) == pytest.approx(float(shut), abs=5e-3)
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_adam_is_torchs() -> None:
    """Descending in the gates and ascending in the multipliers, as torch's own optimiser does it."""
    gates = Gates(6, torch.device("cpu"), 0.1, 0.05)
    logits, multipliers = torch.full((6,), 3.0, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam(
        [{"params": [logits], "lr": 0.1}, {"params": [multipliers], "lr": 0.05, "maximize": True}]
    )
    weights = torch.linspace(-1, 1, 6)
    for _ in range(20):
        at = gates.state()["values"]
        gates._values.requires_grad_()
        own = gates._values[:-2]
        gates.descend((own * weights).square().sum(), 0.5 - own.sigmoid().mean())
        torch.testing.assert_close(at[:-2], logits.detach())
        lacking = 0.5 - logits.sigmoid().mean()
        loss = (logits * weights).square().sum() + multipliers[0] * lacking + multipliers[1] * lacking.square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(gates.state()["values"], torch.cat([logits, multipliers]).detach())
