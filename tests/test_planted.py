"""The planted model: its circuit is complete, minimal, and what methods find."""

from __future__ import annotations

import pytest
import torch
from conftest import HAS_HOOKED

import sparse_circuits as sc
from sparse_circuits.attribution.acdc import ACDC
from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.zoo.planted import Planted, planted_induction

needs_hooked = pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_induction()


def without(graph: sc.Graph, edges: list[str] | tuple[str, ...], names: list[str] | tuple[str, ...]) -> Circuit:
    return Circuit.of(graph, [edge for edge in edges if edge not in names])


@needs_hooked
def test_it_completes_the_pair_and_not_the_corrupted_prompt(planted: Planted) -> None:
    clean, corrupted = (torch.tensor(side) for side in (planted.task.clean, planted.task.corrupted))
    assert isinstance(planted.task.metric, sc.LogitDiff)
    right = torch.tensor(planted.task.metric.correct)
    found = planted.model(clean)[:, -1].softmax(-1)
    assert torch.equal(found.argmax(-1), right)
    assert float(found.max(-1).values.min()) > 0.95
    assert float(planted.model(corrupted)[:, -1].softmax(-1)[torch.arange(len(right)), right].max()) < 0.2
    assert (clean != corrupted).sum(1).eq(3).all()


@needs_hooked
def test_edges_of_the_circuit_have_effects_and_others_have_none(planted: Planted) -> None:
    """Every edge ablated alone, in the circuit run."""
    graph = sc.Graph.of(planted.model)
    names = list(graph.edges)
    circuits = [without(graph, names, [name]) for name in names]
    for name, result in zip(names, sc.evaluate_many(planted.model, circuits, planted.task), strict=True):
        effect = result.per_example - result.clean
        if name in planted.edges:
            assert effect.max() < -7
        else:
            assert effect.abs().max() < 1e-5


@needs_hooked
def test_exact_effects(planted: Planted) -> None:
    scores = sc.attribute(planted.model, sc.Graph.of(planted.model), planted.task, sc.Exact())
    strongest = sorted(scores.to_dict().items(), key=lambda item: item[1])
    assert {name for name, _ in strongest[:5]} == set(planted.edges)
    assert all(abs(value) < 1e-5 for _, value in strongest[5:])
    assert set(scores.top(5).edges) == set(planted.edges)


@needs_hooked
def test_the_circuit_is_complete_and_minimal(planted: Planted) -> None:
    graph = sc.Graph.of(planted.model)
    circuit = Circuit.of(graph, planted.edges)
    assert circuit.pruned().edges == circuit.edges
    whole = sc.evaluate(planted.model, circuit, planted.task, completeness=True)
    assert whole.faithfulness == pytest.approx(1, abs=1e-5)
    assert whole.completeness == pytest.approx(0, abs=1e-5)
    smaller = [without(graph, planted.edges, [name]) for name in planted.edges]
    assert all(r.faithfulness < 0.05 for r in sc.evaluate_many(planted.model, smaller, planted.task))


@needs_hooked
@pytest.mark.parametrize("decoy", ["a0.h0", "a0.h2", "a0.h3", "a1.h0", "a1.h1", "a1.h3"])
def test_decoys_are_at_work(planted: Planted, decoy: str) -> None:
    """Each attends and writes, and but for the finders of full stops writes something else on corrupted prompts."""
    layer, head = int(decoy[1]), int(decoy[-1])

    def written(prompts: object) -> torch.Tensor:
        _, cache = planted.model.run_with_cache(torch.tensor(prompts))
        return cache[f"blocks.{layer}.attn.hook_z"][:, :, head] @ planted.model.W_O[layer, head]

    clean, corrupted = written(planted.task.clean), written(planted.task.corrupted)
    assert clean.norm(dim=-1).mean() > 0.1
    if decoy in ("a0.h2", "a1.h3"):
        torch.testing.assert_close(clean[:, -1], corrupted[:, -1])
    else:
        assert (clean - corrupted).norm(dim=-1).mean() > 0.02
    # ablated to nothing, it shows somewhere in the model: what it writes reaches others
    hook = (f"blocks.{layer}.attn.hook_z", lambda z, hook: z.index_fill(2, torch.tensor([head]), 0.0))
    _, plain = planted.model.run_with_cache(torch.tensor(planted.task.clean))
    with planted.model.hooks(fwd_hooks=[hook]):
        _, changed = planted.model.run_with_cache(torch.tensor(planted.task.clean))
    assert any(
        not torch.allclose(plain[name], changed[name]) for name in plain if name.startswith("blocks.1.hook_resid")
    )


@needs_hooked
def test_it_is_made_without_touching_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    first, second = planted_induction(8, seed=3), planted_induction(8, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.task.clean == second.task.clean
    assert first.task.clean != planted_induction(8, seed=4).task.clean


@needs_hooked
def test_acdc_finds_exactly_the_circuit(planted: Planted) -> None:
    graph = sc.Graph.of(planted.model)
    scores = sc.attribute(planted.model, graph, planted.task, ACDC(threshold=0.01))
    assert scores.chosen is not None
    assert set(graph.names_of(graph.prune(scores.chosen))) == set(planted.edges)
