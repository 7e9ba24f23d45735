"""ACDC against the same search made slowly, one edge and one whole run of the model at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from circuit_oracle import CircuitOracle
from conftest import token_task

import sparse_circuits as sc
from sparse_circuits.attribution.acdc import ACDC


@dataclass
class Search:
    """What a search found."""

    removed: torch.Tensor
    scores: torch.Tensor
    tested: list[tuple[int, int]]


def slow_search(model, graph: sc.Graph, task: sc.Task, threshold: float, ablation: str = "PATCH") -> Search:
    """ACDC, word for word, through TransformerLens's hooks."""
    oracle = CircuitOracle(model, task, ablation)
    found = Search(torch.zeros(graph.shape, dtype=torch.bool), torch.zeros(graph.shape), [])

    def metric() -> float:
        circuit = sc.Circuit(graph, graph.mask & ~found.removed)
        return float(oracle.metrics([circuit]).mean())

    def read_by_anyone(destination: int) -> bool:
        if graph.destinations[destination] == "logits":
            return True
        kept = graph.mask & ~found.removed
        return any(destination in graph.owned(u) and bool(kept[u].any()) for u in range(graph.n_sources))

    current = metric()
    for v in reversed(range(graph.n_destinations)):
        sources = graph.mask[:, v].nonzero().flatten().tolist()
        if not read_by_anyone(v):
            found.removed[sources, v] = True
            current = metric()
            continue
        for u in reversed(sources):
            found.removed[u, v] = True
            without = metric()
            found.tested.append((u, v))
            found.scores[u, v] = without - current
            if current - without < threshold:
                current = without
            else:
                found.removed[u, v] = False
    return found


def fast_search(model, graph: sc.Graph, task: sc.Task, threshold: float, **options) -> sc.Scores:
    return sc.attribute(model, graph, task, ACDC(threshold=threshold), **options)


@pytest.mark.parametrize(
    ("family", "threshold"),
    [
        ("neox", 0.02), ("neox-sequential", 0.02), ("neox-sequential", 0.3), ("llama", 0.01), ("hooked-attn-only", 0.05),
        ("hooked-bidirectional", 0.1), ("gptj", 0.05), ("gemma2", 0.1), ("olmo2", 0.1), ("qwen3", 0.05),
    ],
)  # fmt: skip
def test_decides_as_one_edge_at_a_time(zoo, family: str, threshold: float) -> None:
    model, task = zoo(family), token_task(3, length=5)
    graph = sc.Graph.of(model)
    slow = slow_search(model, graph, task, threshold)
    fast = fast_search(model, graph, task, threshold)
    assert 0 < int(slow.removed.sum()) < graph.n_edges
    assert torch.equal(fast.chosen, graph.mask & ~slow.removed)
    assert (fast.values - slow.scores).abs().max() < 1e-4 * slow.scores.abs().max()


def test_decides_as_one_edge_at_a_time_under_zero(zoo) -> None:
    model, task = zoo("neox"), token_task(3, length=5)
    graph = sc.Graph.of(model)
    slow = slow_search(model, graph, task, 0.03, "ZERO")
    fast = fast_search(model, graph, sc.Task(task.clean, metric=task.metric), 0.03, ablation=sc.Ablation.ZERO)
    assert torch.equal(fast.chosen, graph.mask & ~slow.removed)
    assert (fast.values - slow.scores).abs().max() < 1e-4 * slow.scores.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2"])
def test_a_decision_takes_all_examples(zoo, family: str) -> None:
    """However they are batched and padded, and however many edges are tried at once."""
    model, task = zoo(family), token_task(5, varied=True)
    graph = sc.Graph.of(model)
    together = fast_search(model, graph, task, 0.02, per_example=True)
    for size in (1, 2):
        apart = fast_search(model, graph, task, 0.02, batch_size=size)
        assert torch.equal(apart.chosen, together.chosen)
        assert (apart.values - together.values).abs().max() < 1e-5
    assert (together.per_example.mean(0) - together.values[graph.mask]).abs().max() < 1e-6


@pytest.mark.parametrize(("most", "elements"), [(1, 1 << 22), (3, 1 << 22), (64, 1)])
@pytest.mark.parametrize("threshold", [0.002, 0.03])
def test_what_is_tried_at_once_does_not_matter(
    zoo, most: int, elements: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = zoo("llama"), token_task(3, varied=True)
    graph = sc.Graph.of(model)
    usual = fast_search(model, graph, task, threshold)
    monkeypatch.setattr("sparse_circuits.attribution.acdc._MOST_TRIALS", most)
    monkeypatch.setattr("sparse_circuits.attribution.pruned._CHUNK_ELEMENTS", elements)
    other = fast_search(model, graph, task, threshold)
    assert torch.equal(usual.chosen, other.chosen)
    assert (usual.values - other.values).abs().max() < 1e-5


def test_what_stays_is_worth_what_it_scored(zoo) -> None:
    """The circuit's metric is the model's plus the scores of all that went: decisions add up."""
    model, task = zoo("gpt2"), token_task(4)
    graph = sc.Graph.of(model)
    scores = fast_search(model, graph, task, 0.05)
    gone = scores.values[graph.mask & ~scores.chosen].sum()
    circuit = sc.Circuit(graph, scores.chosen)
    assert 10 < circuit.size < graph.n_edges - 10
    assert sc.evaluate(model, circuit, task).mean == pytest.approx(float(scores.clean.mean() + gone), abs=1e-4)
    assert scores.values[scores.chosen].max() <= -0.05
    assert scores.values[graph.mask & ~scores.chosen].min() > -0.05
    assert set(scores.selected.edges) <= set(circuit.edges)


def contributions(model, graph: sc.Graph, task: sc.Task) -> torch.Tensor:
    """Without a norm in front of the logits, what each source adds to a logit if it is ablated: ``[n_sources, examples]``."""
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), per_example=True)
    matrix = torch.zeros(len(task), *graph.shape)
    matrix[:, graph.mask] = scores.per_example
    return matrix[:, :, -1].T


def by_hand(added: torch.Tensor, total: torch.Tensor, threshold: float, order: list[int], most: float) -> list[int]:
    """Sources kept where the metric is a number cut at ``most``, to which each source adds its part."""
    kept = []
    for u in order:
        drop = total.clamp(max=most).mean() - (total + added[u]).clamp(max=most).mean()
        if drop < threshold:
            total = total + added[u]
        else:
            kept.append(u)
    return kept


def test_of_two_that_can_replace_each_other_the_first_stays(zoo) -> None:
    """A metric that one of several sources suffices for: the order matters, and so does what went before."""
    model = zoo("hooked-no-norm")

    def logit(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        return -logits[torch.arange(len(batch)), batch.lengths - 1, 3]

    graph, linear = sc.Graph.of(model), token_task(1, metric=logit)
    added = contributions(model, graph, linear)
    clean = sc.attribute(model, graph, linear, sc.EAP()).clean
    most = float(clean + added.min())  # any one part can go
    task = sc.Task(linear.clean, linear.corrupted, metric=lambda logits, batch: logit(logits, batch).clamp(max=most))
    threshold = 0.05 * float(added.abs().max())
    forwards = list(range(graph.n_sources))
    expected = by_hand(added, clean, threshold, forwards[::-1], most)
    scores = fast_search(model, graph, task, threshold)
    assert scores.chosen[:, -1].nonzero().flatten().tolist() == sorted(expected)
    # neither the other order nor testing each alone comes to the same
    assert sorted(expected) != sorted(by_hand(added, clean, threshold, forwards, most))
    assert not any(by_hand(added, clean, threshold, [u], most) for u in forwards)
    assert expected


def test_a_part_that_nothing_reads_is_not_tested(zoo) -> None:
    model, task = zoo("gpt2"), token_task(3)
    graph = sc.Graph.of(model)
    scores = fast_search(model, graph, task, 1e6)
    assert not scores.chosen.any()
    assert (scores.values[1:, -1] != 0).all()  # the last token is the same, and so is its embedding
    assert torch.equal(scores.values[:, :-1], torch.zeros_like(scores.values[:, :-1]))
    assert scores.passes[0] < 3  # the clean and the corrupted run, and the logits
    assert scores.selected.size == 0


def test_no_threshold_keeps_all_that_helps(zoo) -> None:
    model, task = zoo("gpt2"), token_task(3)
    graph = sc.Graph.of(model)
    scores = fast_search(model, graph, task, 0)
    assert scores.values[scores.chosen].max() <= 0
    assert scores.values[graph.mask & ~scores.chosen].min() >= 0


def test_any_metric_will_do(zoo) -> None:
    """The original's divergence from the whole model, and a metric of all positions."""
    model = zoo("llama")
    for metric in (sc.NegativeKL(), lambda logits, batch: (logits[..., 3] * batch.real).sum(1)):
        task, graph = token_task(3, varied=True, metric=metric), sc.Graph.of(model, kv="per_query_head")
        scores = fast_search(model, graph, task, 0.05)
        assert 0 < int(scores.chosen.sum()) < graph.n_edges
        gone = scores.values[graph.mask & ~scores.chosen].sum()
        found = sc.evaluate(model, sc.Circuit(graph, scores.chosen), task).mean
        assert found == pytest.approx(float(scores.clean.mean() + gone), abs=1e-4)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), "0.1", True, None])
def test_a_threshold_that_is_none(threshold: object) -> None:
    with pytest.raises(sc.InputError, match=r"ACDC\(threshold=.*finite number of at least 0"):
        ACDC(threshold=threshold)  # pyright: ignore[reportArgumentType]


def test_what_it_cannot_do_is_refused(zoo) -> None:
    model, task = zoo("gpt2"), token_task(2)
    with pytest.raises(sc.InputError, match="ACDC scores edges, not nodes"):
        fast_search(model, sc.Graph.of(model, level="nodes"), task, 0.1)
    with pytest.raises(sc.InputError, match="does not tell positions apart"):
        fast_search(model, sc.Graph.of(model), task, 0.1, positions="keep")
