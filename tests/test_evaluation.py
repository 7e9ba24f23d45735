"""Circuits run by the library and by hooks, source by source; what faithfulness means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from circuit_oracle import CircuitOracle
from conftest import FAMILIES, POST_NORM, token_task

import sparse_circuits as sc
from sparse_circuits.attribution.ablation import prepare
from sparse_circuits.circuit.run import CircuitRunner
from sparse_circuits.evaluation.baseline import random_circuit
from sparse_circuits.evaluation.bootstrap import interval, ratio, resamples
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.model import anatomy_of
from sparse_circuits.task.measure import measure

pytestmark = pytest.mark.filterwarnings("ignore:Faithfulness is undefined")


LEVELS = ("edges", "nodes", "outputs", "neurons")
UNITS = LEVELS[1:]
NAMES = tuple(map(str, range(7)))


def graph_of(model, level: str = "edges", positions: bool = False) -> sc.Graph:
    """A graph; with positions, one of each of the 7 tokens of a prompt."""
    graph = sc.Graph.of(model, level=level)  # pyright: ignore[reportArgumentType]
    return graph.at(NAMES, getattr(model.cfg, "attention_dir", "causal") == "causal") if positions else graph


def random_mask(graph: sc.Graph, share: float, seed: int = 1) -> torch.Tensor:
    return graph.mask & (torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed)) < share)


def positions_of(task: sc.Task, positions: bool) -> torch.Tensor | None:
    return torch.arange(7).expand(len(task.clean), 7) if positions else None


def assert_agrees(model, circuits: list[sc.Circuit], task: sc.Task, ablation: str) -> None:
    oracle = CircuitOracle(model, task, ablation, positions_of(task, bool(circuits[0].graph.positions)))
    results = sc.evaluate_many(model, circuits, task, ablation=getattr(sc.Ablation, ablation), batch_size=3)
    for expected, result in zip(oracle.metrics(circuits), results, strict=True):
        assert (result.per_example - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ablation", ["PATCH", "ZERO", "MEAN", "MEAN_POSITIONAL"])
def test_agrees_with_hooks(zoo, family: str, ablation: str) -> None:
    model, task = zoo(family), token_task()
    graph = graph_of(model)
    circuits = [sc.Circuit(graph, random_mask(graph, p)) for p in (0.1, 0.5, 0.9)]
    grown = random_circuit(graph, graph.n_edges // 4, torch.Generator().manual_seed(1))
    assert_agrees(model, [*circuits, grown, sc.Circuit.full(graph), sc.Circuit.of(graph, [])], task, ablation)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", UNITS)
def test_nodes_and_units_agree_with_hooks(zoo, family: str, level: str) -> None:
    model, task = zoo(family), token_task()
    graph = graph_of(model, level)
    circuits = [sc.Circuit(graph, random_mask(graph, p)) for p in (0.2, 0.7)]
    for ablation in ("PATCH", "ZERO", "MEAN"):
        assert_agrees(model, circuits, task, ablation)


@pytest.mark.parametrize(
    "family", ["gpt2", "neox", "llama", "hooked-bidirectional", "hooked-local-softcap", *POST_NORM]
)
@pytest.mark.parametrize("level", LEVELS)
def test_positions_agree_with_hooks(zoo, family: str, level: str) -> None:
    model, task = zoo(family), token_task()
    graph = graph_of(model, level, positions=True)
    circuits = [sc.Circuit(graph, random_mask(graph, p)) for p in (0.02, 0.6)]
    for ablation in ("PATCH", "MEAN"):
        assert_agrees(model, circuits, task, ablation)


def test_spans_of_other_lengths_agree_with_hooks_example_by_example(zoo) -> None:
    model = zoo("llama")
    graph = sc.Graph.of(model).at(("other", "first", "rest"))
    circuit = sc.Circuit(graph, random_mask(graph, 0.5))
    tasks = [token_task(3, length, seed=length) for length in (6, 8)]
    spans = [{"first": (1 + i, 3), "rest": (3, 5 + i)} for i in (0, 1) for _ in range(3)]
    together = sc.Task(
        [p for t in tasks for p in t.clean],
        [p for t in tasks for p in t.corrupted or ()],
        metric=sc.LogitDiff([3, 4, 5] * 2, [10, 11, 12] * 2),
        spans=spans,
    )
    values = sc.evaluate(model, circuit, together).per_example
    for i, task in enumerate(tasks):
        groups = torch.zeros(3, len(task.clean[0]), dtype=torch.long)
        groups[:, 1 + i : 3], groups[:, 3 : 5 + i] = 1, 2
        (expected,) = CircuitOracle(model, task, "PATCH", groups).metrics([circuit])
        torch.testing.assert_close(values[3 * i : 3 * i + 3], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "hooked-attn-only", *POST_NORM])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("positions", [False, True])
def test_everything_is_the_model_and_nothing_the_ablated_run(zoo, family: str, level: str, positions: bool) -> None:
    model, task = zoo(family), token_task()
    graph = graph_of(model, level, positions)
    for ablation in (sc.Ablation.PATCH, sc.Ablation.ZERO, sc.Ablation.MEAN):
        both = [sc.Circuit.full(graph), sc.Circuit.of(graph, [])]
        full, empty = sc.evaluate_many(model, both, task, ablation=ablation, completeness=True)
        torch.testing.assert_close(full.per_example, full.clean, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(empty.per_example, empty.empty, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(full.complement, full.empty, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(empty.complement, full.clean, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "hooked-rotary-parallel-gqa", *POST_NORM])
@pytest.mark.parametrize("level", LEVELS)
def test_same_at_every_position_is_the_circuit_without_positions(zoo, family: str, level: str) -> None:
    model, task = zoo(family), token_task(6, varied=True)
    graph, placed = graph_of(model, level), graph_of(model, level, positions=True)
    mask = random_mask(graph, 0.4)
    spread = mask.repeat_interleave(7, 0)
    if level == "edges":
        spread = spread.repeat_interleave(7, 1) & placed.mask
    for ablation in (sc.Ablation.PATCH, sc.Ablation.ZERO):
        circuits = [sc.Circuit(graph, mask), sc.Circuit(placed, spread)]
        a, b = sc.evaluate_many(model, circuits, task, ablation=ablation, completeness=True, batch_size=4)
        torch.testing.assert_close(a.per_example, b.per_example, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(a.complement, b.complement, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", [False, True])
def test_a_node_is_all_edges_that_leave_it(zoo, family: str, positions: bool) -> None:
    """Edges from a circuit's nodes into anything make the circuit of nodes; those between its nodes do, but for heads
    outside that share a norm of queries and keys with heads inside, and see what these see only in the circuit of nodes.
    """
    model, task = zoo(family), token_task()
    nodes, edges = graph_of(model, "nodes", positions), graph_of(model, "edges", positions)
    circuit = sc.Circuit(nodes, random_mask(nodes, 0.5))
    leaving = sc.Circuit(edges, edges.mask & circuit.mask[:, None])
    between = sc.Circuit.of(edges, circuit.edges)
    for ablation in (sc.Ablation.PATCH, sc.Ablation.ZERO):
        a, b, c = (r.per_example for r in sc.evaluate_many(model, [circuit, leaving, between], task, ablation=ablation))
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
        if family != "olmo2":
            torch.testing.assert_close(a, c, atol=2e-5, rtol=1e-4)


def test_dimensions_and_neurons_of_a_whole_node_are_the_node(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    nodes = graph_of(model, "nodes")
    mask = random_mask(nodes, 0.5)
    circuits = [sc.Circuit(nodes, mask)]
    for level in ("outputs", "neurons"):
        graph = graph_of(model, level)
        circuits.append(sc.Circuit(graph, mask[graph.owner]))
    node, outputs, neurons = (r.per_example for r in sc.evaluate_many(model, circuits, task))
    torch.testing.assert_close(node, outputs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(node, neurons, atol=1e-5, rtol=1e-4)


def gated(model, graph: sc.Graph, task: sc.Task, gates: torch.Tensor) -> torch.Tensor:
    """The metric per example under PATCH with real gates."""
    anatomy = anatomy_of(model)
    prompts = task.tokenized(model, anatomy, corrupted=True)
    positions = prompts.positions_named(graph.positions) if graph.positions else None
    ablation = prepare(sc.Ablation.PATCH, model, anatomy, task, prompts, 32, units=graph.level == "neurons")
    runner, out = CircuitRunner(anatomy, graph), torch.empty(len(prompts))
    for rows, batch in prompts.batches(32, positions=positions):
        ablated, _ = ablation(batch)
        embedding = anatomy.embed(batch.tokens).detach()
        streams = runner.streams(ablated, batch.tokens.shape[1])
        final = runner.gated(gates, embedding, batch.padding, ablated, streams, batch.groups)
        out = out.index_put((rows,), measure(anatomy, prompts.metric, final, batch))
    return out


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "hooked-rotary-parallel-gqa", *POST_NORM])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("positions", [False, True])
def test_gates(zoo, family: str, level: str, positions: bool) -> None:
    """Gates of 0 and 1 make a circuit, and their gradient is that of finite differences."""
    model, task = zoo(family), token_task(5, varied=True)
    graph = graph_of(model, level, positions)
    for mask in (graph.mask, torch.zeros_like(graph.mask), random_mask(graph, 0.5)):
        expected = sc.evaluate(model, sc.Circuit(graph, mask), task).per_example
        found = gated(model, graph, task, mask.float())
        torch.testing.assert_close(found.detach(), expected, atol=2e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(0)
    gates = torch.rand(graph.shape, generator=generator).requires_grad_()
    (gradient,) = torch.autograd.grad(gated(model, graph, task, gates).sum(), gates)
    assert not gradient[~graph.mask].any()
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        step = 1e-2 * gradient / gradient.norm()  # the direction that changes it most
        ends = [gated(model, graph, task, gates + sign * step).double().sum() for sign in (1, -1)]
    slope = float(ends[0] - ends[1]) / 2e-2
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


@pytest.mark.parametrize("family", ["llama", "hooked-rotary-parallel-gqa", "mistral-window"])
def test_ungrouped_circuit_with_all_copies_is_the_grouped_one(zoo, family: str) -> None:
    model, task = zoo(family), token_task()
    grouped, ungrouped = sc.Graph.of(model), sc.Graph.of(model, kv="per_query_head")
    circuit = random_circuit(grouped, grouped.n_edges // 3, torch.Generator().manual_seed(0))
    share = grouped.n_heads // grouped.n_kv
    mask = torch.zeros_like(ungrouped.mask)
    for layer in range(grouped.n_layers):
        for which in ("q", "k", "v", "mlp"):
            part = circuit.mask[:, grouped.reads_at(layer, which)]
            mask[:, ungrouped.reads_at(layer, which)] = part.repeat_interleave(share, 1) if which in "kv" else part
    mask[:, -1] = circuit.mask[:, -1]
    a, b = (sc.evaluate(model, c, task).per_example for c in (circuit, sc.Circuit(ungrouped, mask)))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "neox", "hooked-bidirectional"])
def test_batches_padding_and_slices_do_not_matter(zoo, family: str) -> None:
    model, task = zoo(family), token_task(6, varied=True)
    graph = sc.Graph.of(model)
    circuit = random_circuit(graph, graph.n_edges // 3, torch.Generator().manual_seed(0))
    for ablation in (sc.Ablation.PATCH, sc.Ablation.ZERO, sc.Ablation.MEAN):
        whole = sc.evaluate(model, circuit, task, ablation=ablation).per_example
        parts = sc.evaluate(model, circuit, task, ablation=ablation, batch_size=1).per_example
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)
    backwards = sc.evaluate(model, circuit, task[::-1]).per_example
    torch.testing.assert_close(backwards.flip(0), sc.evaluate(model, circuit, task).per_example, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ablation", ["PATCH", "ZERO", "MEAN"])
def test_memory_chunks_do_not_matter(zoo, ablation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = zoo("llama"), token_task(5, varied=True)
    graph = sc.Graph.of(model)
    circuit = random_circuit(graph, graph.n_edges // 3, torch.Generator().manual_seed(0))
    how = getattr(sc.Ablation, ablation)
    whole = sc.evaluate(model, circuit, task, ablation=how).per_example
    monkeypatch.setattr("sparse_circuits.circuit.run._BUFFER_ELEMENTS", 1)
    torch.testing.assert_close(whole, sc.evaluate(model, circuit, task, ablation=how).per_example, atol=1e-5, rtol=1e-4)


def test_whole_model_is_faithful_and_its_complement_is_empty(zoo) -> None:
    model, task = zoo("gpt2"), token_task(12)
    graph = sc.Graph.of(model)
    result = sc.evaluate(model, sc.Circuit.full(graph), task, ablation=sc.Ablation.ZERO, completeness=True)
    torch.testing.assert_close(result.per_example, result.clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.complement, result.empty, atol=1e-5, rtol=1e-5)
    if not math.isnan(result.faithfulness):
        assert result.faithfulness == pytest.approx(1, abs=1e-4)
        assert result.completeness == pytest.approx(0, abs=1e-4)


def test_empty_circuit_under_patching_is_the_corrupted_run(zoo) -> None:
    model, task = zoo("llama"), token_task()
    graph = sc.Graph.of(model)
    result = sc.evaluate(model, sc.Circuit.of(graph, []), task)
    swapped = sc.Task(task.corrupted or (), task.clean, metric=task.metric)
    torch.testing.assert_close(
        result.per_example, sc.evaluate(model, sc.Circuit.full(graph), swapped).clean, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "hooked-rotary-parallel-gqa"])
def test_the_metric_of_the_whole_model(zoo, family: str) -> None:
    model, task = zoo(family), token_task(5, varied=True)
    for corrupted, prompts in ((False, task.clean), (True, task.corrupted)):
        values = sc.evaluate_baseline(model, task, corrupted=corrupted, batch_size=2)
        with torch.no_grad():
            last = [model(torch.tensor([ids]))[0, -1] for ids in prompts]
        metric = zip(last, task.metric.correct, task.metric.incorrect, strict=True)
        expected = torch.stack([logits[right] - logits[wrong] for logits, right, wrong in metric])
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4)
        part = sc.evaluate_baseline(model, task[[3, 0]], corrupted=corrupted, batch_size="auto")
        torch.testing.assert_close(part, values[[3, 0]])
    # against the clean run, also of the corrupted prompts
    distant = replace(task, metric=sc.NegativeKL())
    assert sc.evaluate_baseline(model, distant).abs().max() < 1e-6
    scores = sc.attribute(model, sc.Graph.of(model), distant, sc.EAPIG(steps=1))
    torch.testing.assert_close(sc.evaluate_baseline(model, distant, corrupted=True), scores.corrupted)


def test_the_metric_of_the_whole_model_refuses(zoo) -> None:
    model, task = zoo("gpt2"), token_task(2)
    alone = sc.Task(task.clean, metric=task.metric)
    assert len(sc.evaluate_baseline(model, alone)) == 2
    with pytest.raises(sc.InputError, match="has no corrupted prompts"):
        sc.evaluate_baseline(model, alone, corrupted=True)
    with pytest.raises(sc.InputError, match="batch_size=0"):
        sc.evaluate_baseline(model, task, batch_size=0)


def test_faithfulness_is_a_ratio_of_means_with_a_joint_bootstrap() -> None:
    clean, empty = torch.tensor([4.0, 2.0, 3.0, 5.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    value, (low, high) = ratio((clean + empty) / 2, clean, empty)
    assert value == pytest.approx(0.5)
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))  # resampled jointly, half is half in every draw
    value, (low, high) = ratio(torch.tensor([4.0, 0.0, 3.0, 0.0]), clean, empty)
    assert value == pytest.approx((7 / 4 - 0.5) / (3.5 - 0.5))
    assert low < value < high


def test_faithfulness_to_nothing_is_nan_with_a_warning(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    same = sc.Task(task.clean, task.clean, metric=task.metric)
    result = sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model)), same)
    with pytest.warns(UserWarning, match="Faithfulness is undefined"):
        assert math.isnan(result.faithfulness)


def test_random_circuits_are_connected_and_of_the_size_asked_for(zoo) -> None:
    graph = sc.Graph.of(zoo("gpt2"))
    for n in (4, 17, 60, graph.n_edges - 3):
        for seed in range(5):
            circuit = random_circuit(graph, n, torch.Generator().manual_seed(seed))
            assert circuit.n_edges == n
            assert torch.equal(graph.prune(circuit.mask), circuit.mask)


def test_random_baseline(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    circuit = sc.attribute(model, sc.Graph.of(model), task).greedy(30)
    baseline = sc.random_baseline(model, circuit, task, ablation=sc.Ablation.ZERO, draws=20)
    assert len(baseline.evaluations) == 20
    assert {e.circuit.n_edges for e in baseline.evaluations} == {circuit.n_edges}
    again = sc.random_baseline(model, circuit, task, ablation=sc.Ablation.ZERO, draws=20)
    assert torch.equal(baseline.faithfulness.nan_to_num(), again.faithfulness.nan_to_num())
    with pytest.raises(sc.InputError, match="at least 20"):
        sc.random_baseline(model, circuit, task, draws=3)


@pytest.mark.parametrize("level", UNITS)
def test_random_baseline_of_units_keeps_the_input(zoo, level: str) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = graph_of(model, level, positions=True)
    circuit = sc.Circuit(graph, random_mask(graph, 0.3))
    baseline = sc.random_baseline(model, circuit, task, ablation=sc.Ablation.ZERO)
    n = graph.units_of_input * 7
    assert {e.circuit.size for e in baseline.evaluations} == {circuit.size} == {baseline.size}
    assert all(torch.equal(e.circuit.mask[:n], circuit.mask[:n]) for e in baseline.evaluations)
    assert len({tuple(e.circuit.mask.tolist()) for e in baseline.evaluations}) == 20
    assert graph.thing in repr(baseline)


def test_random_baseline_of_positional_edges(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = graph_of(model, positions=True)
    circuit = random_circuit(graph, 40, torch.Generator().manual_seed(5))
    baseline = sc.random_baseline(model, circuit, task, ablation=sc.Ablation.ZERO)
    assert all(abs(e.circuit.size - circuit.size) < 5 for e in baseline.evaluations)


def made_curve(requested: tuple[int, ...], values: torch.Tensor) -> tuple[sc.Curve, sc.Graph]:
    """A curve through given metrics ``[sizes, examples]``, of a model that has 2 and an ablated run that has 0."""
    graph = sc.Graph(n_layers=1, n_heads=1, n_kv=1)
    clean = torch.full(values.shape[1:], 2.0) + torch.linspace(-0.5, 0.5, values.shape[1])
    circuits = [sc.Circuit.full(graph)] * len(requested)
    made = [
        Evaluation(c, row, clean, torch.zeros_like(clean), None, "patch")
        for c, row in zip(circuits, values, strict=True)
    ]
    return sc.Curve(requested, tuple(made)), graph


def test_area_and_distance_of_a_curve_by_hand() -> None:
    curve, graph = made_curve((2, 4), torch.tensor([[1.0] * 10, [3.0] * 10]))  # faithfulness 0.5 and 1.5
    n = graph.n_edges
    x = [0, 2 / n, 4 / n, 1]

    def area(y: list[float]) -> float:
        return sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(3))

    assert curve.area == pytest.approx(area([0, 0.5, 1.5, 1]))
    assert curve.distance == pytest.approx(area([1, 0.5, 0.5, 0]))
    generator = torch.Generator().manual_seed(0)
    curve, _ = made_curve((2, 4), 1 + torch.rand(2, 30, generator=generator))
    for value, (low, high) in ((curve.area, curve.area_interval), (curve.distance, curve.distance_interval)):
        assert low < value < high


def test_curve_intervals_are_joint() -> None:
    values = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) + 1
    curve, graph = made_curve((2, 4), values)
    clean = curve.evaluations[0].clean.double()
    shares = torch.tensor([0, 2 / graph.n_edges, 4 / graph.n_edges, 1], dtype=torch.float64)
    areas = []
    for rows in resamples(30, 1000, 0):
        y = [0.0, *(float(v.double()[rows].mean() / clean[rows].mean()) for v in values), 1.0]
        areas.append(torch.trapezoid(torch.tensor(y, dtype=torch.float64), shares))
    assert curve.area_interval == pytest.approx(interval(torch.stack(areas)))


def test_curve_without_anything_to_be_faithful_to_is_nan(zoo) -> None:
    curve, _ = made_curve((2,), torch.zeros(1, 10))
    flat = sc.Curve(curve.requested, (replace(curve.evaluations[0], clean=torch.zeros(10)),))
    assert all(math.isnan(x) for x in (flat.area, flat.distance, *flat.area_interval, *flat.distance_interval))


@pytest.mark.parametrize("level", UNITS)
def test_curve_of_units(zoo, level: str) -> None:
    model, task = zoo("gpt2"), token_task(12)
    scores = sc.attribute(model, graph_of(model, level), task, ablation=sc.Ablation.ZERO)
    curve = sc.faithfulness_curve(model, scores, task, ablation=sc.Ablation.ZERO, batch_size="auto")
    assert curve.sizes == curve.requested
    assert curve.sizes[-1] == scores.graph.size
    torch.testing.assert_close(curve.evaluations[-1].per_example, curve.evaluations[-1].clean, atol=1e-5, rtol=1e-5)


def test_circuits_of_several_levels_share_a_call(zoo) -> None:
    model, task = zoo("llama"), token_task(5, varied=True)
    circuits = []
    for level in LEVELS:
        for positions in (False, True):
            graph = graph_of(model, level, positions)
            circuits.append(sc.Circuit(graph, random_mask(graph, 0.5)))
    for ablation in (sc.Ablation.PATCH, sc.Ablation.ZERO):
        together = sc.evaluate_many(model, circuits, task, ablation=ablation, batch_size=2)
        for circuit, result in zip(circuits, together, strict=True):
            alone = sc.evaluate(model, circuit, task, ablation=ablation)
            torch.testing.assert_close(result.per_example, alone.per_example, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(result.empty, alone.empty, atol=1e-5, rtol=1e-4)


def test_positions_that_a_task_lacks_are_refused(zoo) -> None:
    model = zoo("gpt2")
    graph = graph_of(model, positions=True)
    with pytest.raises(sc.InputError, match="8 tokens"):
        sc.evaluate(model, sc.Circuit.full(graph), token_task(length=8))
    with pytest.raises(sc.InputError, match="subject"):
        sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model).at(("subject", "other"))), token_task())


def test_curve(zoo) -> None:
    model, task = zoo("gpt2"), token_task(12)
    scores = sc.attribute(model, sc.Graph.of(model), task, ablation=sc.Ablation.ZERO)
    curve = sc.faithfulness_curve(model, scores, task, [5, 50, scores.graph.n_edges], ablation=sc.Ablation.ZERO)
    assert curve.requested == (5, 50, scores.graph.n_edges)
    alone = sc.evaluate(model, scores.greedy(50), task, ablation=sc.Ablation.ZERO)
    torch.testing.assert_close(curve.evaluations[1].per_example, alone.per_example)
    torch.testing.assert_close(curve.evaluations[2].per_example, curve.evaluations[2].clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_half_precision(zoo, family: str) -> None:
    task = token_task()
    graph = sc.Graph.of(zoo(family))
    circuit = random_circuit(graph, graph.n_edges // 2, torch.Generator().manual_seed(0))
    full = sc.evaluate(zoo(family), circuit, task).per_example
    half = sc.evaluate(zoo(family, torch.bfloat16), circuit, task).per_example
    assert half.dtype == torch.float32
    assert (full - half).abs().max() < 0.1 * full.abs().max() + 0.1
