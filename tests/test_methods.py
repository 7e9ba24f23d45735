"""Every method on every family: against brute force through TransformerLens's hooks, and the promises that all methods make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from conftest import BRIDGES, FAMILIES, token_task
from oracles import interpolated_slopes, patched_effects, source_values

import sparse_circuits as sc
from sparse_circuits.attribution.quadrature import points

Ablation = sc.Ablation


@dataclass(frozen=True)
class Row:
    """A method and what holds of it.

    Attributes:
        linear: scores are linear in single gradients, so that a group's keys are the sum of its heads'.
        estimates: scores grow with the metric, and are 0 where the prompts are the same.
        alone: an example's scores do not depend on the other examples.
        close: how alike bfloat16 scores are, in correlation; None where a rounding can change a choice.
        oracle: brute force, where there is one.
    """

    method: sc.Method
    linear: bool
    oracle: Callable | None = None
    estimates: bool = True
    alone: bool = True
    close: float | None = 0.97


def slope(model, graph, task):
    """The derivative of exact patching at no patching, by a central difference: what EAP is."""
    h = 1e-2
    return (patched_effects(model, graph, task, h) - patched_effects(model, graph, task, -h)) / (2 * h)


# A new method is a new row.
METHODS = {
    "eap": Row(sc.EAP(), linear=True, oracle=slope),
    "eap-ig": Row(sc.EAPIG(steps=3), linear=True),
    "eap-ig-gauss": Row(sc.EAPIG(steps=2, quadrature="gauss-legendre"), linear=True),
    "eap-ig-activations": Row(sc.EAPIG(steps=2, path="activations"), linear=True),
    "clean-corrupted": Row(sc.CleanCorrupted(), linear=True),
    "eap-ig-direct": Row(sc.EAPIG(steps=2, quadrature="right", direct="mean"), linear=True),
    "eap-frozen": Row(sc.EAP(rule="frozen"), linear=True),
    "relp": Row(sc.RelP(), linear=True),
    "eap-ig-relp": Row(sc.EAPIG(steps=2, rule="relp"), linear=True),
    "atp-star": Row(sc.AtPStar(), linear=False, close=0.9),
    "information-flow-routes": Row(sc.InformationFlowRoutes(), linear=False, estimates=False, close=0.9),
    "exact": Row(sc.Exact(), linear=False, oracle=patched_effects),
    "acdc": Row(sc.ACDC(threshold=0.05), linear=False, estimates=False, alone=False, close=None),
    "edge-pruning": Row(sc.EdgePruning(steps=4, sparsity=0.5), linear=False, estimates=False, alone=False, close=None),
}
GROUPED = ("llama", "qwen3", "mistral-window", "hooked-rotary-parallel-gqa")

each_method = pytest.mark.parametrize("row", METHODS.values(), ids=METHODS.keys())
each_family = pytest.mark.parametrize("family", FAMILIES)
# Every method on a family of each kind, and on all families the two that the others build upon.
REPRESENTATIVE = ("gpt2", "neox", "qwen3", "gemma2", "olmo2", "hooked-bidirectional")
CASES = [
    pytest.param(family, row, id=f"{family}-{name}")
    for family in FAMILIES
    for name, row in METHODS.items()
    if family in REPRESENTATIVE or name in ("eap", "exact")
]


def each_case(holds: Callable[[str, Row], bool]) -> pytest.MarkDecorator:
    """Those of the cases of which a promise holds."""
    return pytest.mark.parametrize(("family", "row"), [case for case in CASES if holds(*case.values)])


@each_family
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.oracle])
def test_agrees_with_brute_force(zoo, family: str, name: str) -> None:
    model, task, row = zoo(family), token_task(), METHODS[name]
    graph = sc.Graph.of(model)
    expected = row.oracle(model, graph, task)
    scores = sc.attribute(model, graph, task, row.method).values
    scale = expected.abs().max()
    tolerance = 1e-4 if name == "exact" else 1e-2
    assert scale > 0.05
    assert (scores - expected).abs().max() < tolerance * scale
    for part in (slice(0, 1), graph.heads_at(1), slice(graph.mlp_at(0), graph.mlp_at(0) + graph.has_mlp)):
        if (expected[part].abs() > 0.05 * scale).any():
            big = expected[part].abs() > 0.05 * scale
            assert (scores[part][big] / expected[part][big] - 1).abs().median() < 1e-2


@each_case(lambda family, row: not isinstance(row.method, sc.EdgePruning))  # it learns from one batch at a time
def test_batches_do_not_matter(zoo, family: str, row: Row) -> None:
    model, task = zoo(family), token_task(5, varied=True)
    graph = sc.Graph.of(model)
    together = sc.attribute(model, graph, task, row.method, batch_size=5)
    apart = sc.attribute(model, graph, task, row.method, batch_size=2)
    scale = together.values.abs().max()
    assert (together.values - apart.values).abs().max() < 1e-5 * scale
    torch.testing.assert_close(together.clean, apart.clean, atol=1e-5, rtol=1e-5)


@each_case(lambda family, row: row.alone)
def test_padding_does_not_matter(zoo, family: str, row: Row) -> None:
    model, task = zoo(family), token_task(4, varied=True)
    graph = sc.Graph.of(model)
    padded = sc.attribute(model, graph, task, row.method).values
    alone = torch.stack([sc.attribute(model, graph, task[i : i + 1], row.method).values for i in range(4)]).mean(0)
    assert (padded - alone).abs().max() < 1e-5 * padded.abs().max()


@pytest.mark.parametrize("family", ["llama", "hooked-attn-only"])
@each_method
@pytest.mark.parametrize("elements", [1, 2000])
def test_memory_chunks_do_not_matter(
    zoo, family: str, row: Row, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are worked through in pieces, one at a time if need be."""
    model, task = zoo(family), token_task(3, varied=True)
    graph = sc.Graph.of(model)
    whole = sc.attribute(model, graph, task, row.method).values
    for module in ("edges", "units", "exact", "pruned", "queries_keys", "information_flow"):
        monkeypatch.setattr(f"sparse_circuits.attribution.{module}._CHUNK_ELEMENTS", elements)
    monkeypatch.setattr("sparse_circuits.attribution.direct._AT_ONCE", elements)
    pieces = sc.attribute(model, graph, task, row.method).values
    assert (whole - pieces).abs().max() < 1e-5 * whole.abs().max()


def state(model) -> dict:
    """Everything of a model that a run could leave changed."""
    return {
        "parameters": {name: (p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "hooks": {name: (len(p.fwd_hooks), len(p.bwd_hooks)) for name, p in model.hook_dict.items()},
        "torch hooks": [
            (len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
        ],
        "training": [m.training for m in model.modules()],
        "config": {k: v for k, v in vars(model.cfg).items() if isinstance(v, (bool, int, float, str))},
    }


def assert_same_state(before: dict, after: dict) -> None:
    for key in ("hooks", "torch hooks", "training", "config"):
        assert before[key] == after[key], key
    for name, (value, requires_grad, grad) in before["parameters"].items():
        now = after["parameters"][name]
        assert torch.equal(value, now[0])
        assert (requires_grad, grad) == now[1:]


class Stop(BaseException):
    """Like an interrupt: not an Exception."""


@pytest.mark.parametrize("family", ["llama", "hooked-gpt2"])
@each_method
@pytest.mark.parametrize(
    "failure", [None, ValueError("broken metric"), Stop(), KeyboardInterrupt()], ids=lambda f: type(f).__name__
)
def test_leaves_everything_as_it_was(zoo, family: str, row: Row, failure: BaseException | None) -> None:
    model = zoo(family)
    calls = 0

    def metric(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if failure is not None and calls == 2:
            raise failure
        return logits[torch.arange(len(batch.index)), batch.lengths - 1, 3]

    task, graph = token_task(4, metric=metric), sc.Graph.of(model)
    clean_before, before, mask_before = [list(p) for p in task.clean], state(model), graph.mask.clone()
    if failure is None:
        sc.attribute(model, graph, task, row.method, batch_size=2)
    else:
        with pytest.raises(type(failure)):
            sc.attribute(model, graph, task, row.method, batch_size=2)
    assert_same_state(before, state(model))
    assert task.clean == clean_before
    assert torch.equal(graph.mask, mask_before)
    assert torch.is_grad_enabled()


@each_case(lambda family, row: family in BRIDGES and row.close is not None)  # HookedTransformer casts by itself
def test_half_precision(zoo, family: str, row: Row) -> None:
    task = token_task()
    graph = sc.Graph.of(zoo(family))
    full = sc.attribute(zoo(family), graph, task, row.method).values
    half = sc.attribute(zoo(family, torch.bfloat16), graph, task, row.method).values
    assert half.dtype == torch.float32
    assert torch.corrcoef(torch.stack([full[graph.mask], half[graph.mask]]))[0, 1] > row.close


@pytest.mark.parametrize("family", GROUPED)
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.linear])
def test_ungrouped_keys_and_values_sum_to_the_groups(zoo, family: str, name: str) -> None:
    model, task, method = zoo(family), token_task(), METHODS[name].method
    grouped, ungrouped = sc.Graph.of(model), sc.Graph.of(model, kv="per_query_head")
    g, u = (sc.attribute(model, graph, task, method).values for graph in (grouped, ungrouped))
    for layer in range(grouped.n_layers):
        assert torch.allclose(g[:, grouped.reads_at(layer, "q")], u[:, ungrouped.reads_at(layer, "q")], atol=1e-5)
        for which in "kv":
            summed = u[:, ungrouped.reads_at(layer, which)].unflatten(1, (grouped.n_kv, -1)).sum(-1)
            assert (g[:, grouped.reads_at(layer, which)] - summed).abs().max() < 1e-5 * g.abs().max()


@pytest.mark.parametrize("level", ["edges", "neurons"])
@each_method
def test_gradients_may_be_turned_off_around_it(zoo, level: str, row: Row) -> None:
    """Under no_grad, as many notebooks have it throughout, nothing changes; under inference_mode there is one clear error."""
    if level not in row.method.levels or (level != "edges" and getattr(row.method, "direct", "path") != "path"):
        pytest.skip("it scores edges only")
    model, task = zoo("gpt2"), token_task(2)
    graph = sc.Graph.of(model, level=level)
    plain = sc.attribute(model, graph, task, row.method).values
    with torch.no_grad():
        assert torch.equal(sc.attribute(model, graph, task, row.method).values, plain)
    with torch.inference_mode():
        if row.method.takes_gradients:
            said = rf"{type(row.method).__name__} takes gradients, and torch.inference_mode\(\) .* torch.no_grad\(\) instead"
            with pytest.raises(sc.InputError, match=said):
                sc.attribute(model, graph, task, row.method)
        else:
            assert torch.equal(sc.attribute(model, graph, task, row.method).values, plain)
    # what inference mode left behind in the model must not be in the way later
    assert torch.equal(sc.attribute(model, graph, task, row.method).values, plain)


@pytest.mark.parametrize("family", GROUPED)
def test_exact_tells_ungrouped_keys_apart(zoo, family: str) -> None:
    """Patching one query head's copy of a group's key differs from patching the group's."""
    model, task = zoo(family), token_task()
    graph = sc.Graph.of(model, kv="per_query_head")
    exact = sc.attribute(model, graph, task, sc.Exact()).values
    grouped = sc.Graph.of(model)
    joint = sc.attribute(model, grouped, task, sc.Exact()).values
    keys, group = graph.reads_at(1, "k"), grouped.reads_at(1, "k").start
    a, b = exact[0, keys.start], exact[0, keys.start + 1]
    assert not torch.isclose(a, b)
    assert not torch.isclose(a + b, joint[0, group], rtol=1e-6)  # exact effects do not add up


def test_scores_are_linear_in_the_metric(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    half = sc.Task(task.clean, task.corrupted, metric=lambda logits, batch: 0.5 * task.metric(logits, batch))
    for row in (row for row in METHODS.values() if row.estimates):
        whole, scaled = (sc.attribute(model, graph, t, row.method).values for t in (task, half))
        assert (scaled - 0.5 * whole).abs().max() < 1e-5 * whole.abs().max()


@each_family
def test_input_edges_sum_to_the_total_effect(zoo, family: str) -> None:
    model, task = zoo(family), token_task()
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAPIG(steps=40, quadrature="gauss-legendre"))
    total = float((scores.corrupted - scores.clean).mean())
    # without norms or attention between two embeddings, the integrand is smooth; 40 points leave next to nothing
    assert abs(scores.convergence_gap) < max(2e-3, 0.02 * abs(total))
    assert float(scores.values[0].sum()) == pytest.approx(total, abs=max(2e-3, 0.02 * abs(total)))


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "hooked-attn-only"])
@pytest.mark.parametrize("steps", [1, 3])
def test_activations_path_against_plain_loops(zoo, family: str, steps: int) -> None:
    """Each group interpolated on its own, gradients by differences: u -> v patched by a little in the interpolated run."""
    model, task = zoo(family), token_task(3)
    graph = sc.Graph.of(model)
    clean, corrupted = (source_values(model, graph, torch.tensor(p)) for p in (task.clean, task.corrupted))
    groups = [slice(0, 1)] + [graph.heads_at(layer) for layer in range(graph.n_layers)]
    groups += [slice(graph.mlp_at(layer), graph.mlp_at(layer) + 1) for layer in range(graph.n_layers) if graph.has_mlp]
    expected = torch.zeros(graph.n_sources, graph.n_destinations)
    for group in groups:
        for t, weight in points("midpoint", steps):
            moved = (1 - t) * (corrupted - clean)[group]
            slopes = interpolated_slopes(model, graph, task, group, moved, corrupted - clean)
            expected[group] += weight * slopes[group]
    scores = sc.attribute(model, graph, task, sc.EAPIG(steps=steps, path="activations")).values
    assert (scores - expected).abs().max() < 1e-2 * expected.abs().max()


def test_activations_path_needs_no_corrupted_prompts_under_zero(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    method = sc.EAPIG(steps=2, path="activations")
    with_corrupted = sc.attribute(model, graph, task, method, ablation=Ablation.ZERO).values
    without = sc.attribute(model, graph, sc.Task(task.clean, metric=task.metric), method, ablation=Ablation.ZERO).values
    assert torch.equal(with_corrupted, without)


def test_clean_corrupted_is_the_trapezoid_of_two_points(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    a = sc.attribute(model, graph, task, sc.CleanCorrupted()).values
    b = sc.attribute(model, graph, task, sc.EAPIG(steps=2, quadrature="trapezoid")).values
    torch.testing.assert_close(a, b)


def test_integrated_gradients_of_a_linear_metric_of_identical_prompts_are_zero(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    same = sc.Task(task.clean, task.clean, metric=task.metric)
    graph = sc.Graph.of(model)
    for row in (row for row in METHODS.values() if row.estimates):
        assert sc.attribute(model, graph, same, row.method).values.abs().max() < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "hooked-rms"])
@pytest.mark.parametrize("ablation", ["ZERO", "MEAN", "MEAN_POSITIONAL"])
def test_exact_under_constant_ablations(zoo, family: str, ablation: str) -> None:
    model, task = zoo(family), token_task()
    graph = sc.Graph.of(model)
    values = source_values(model, graph, torch.tensor(task.clean))
    constant = {
        "ZERO": torch.zeros_like(values),
        "MEAN": values.mean((1, 2), keepdim=True).expand_as(values),
        "MEAN_POSITIONAL": values.mean(1, keepdim=True).expand_as(values),
    }[ablation]
    expected = patched_effects(model, graph, task, values=constant)
    uncorrupted = sc.Task(task.clean, metric=task.metric)  # corrupted prompts are not needed
    scores = sc.attribute(model, graph, uncorrupted, sc.Exact(), ablation=getattr(Ablation, ablation)).values
    assert (scores - expected).abs().max() < 1e-4 * expected.abs().max()
    h = 1e-2
    derivative = (
        patched_effects(model, graph, task, h, values=constant)
        - patched_effects(model, graph, task, -h, values=constant)
    ) / (2 * h)
    eap = sc.attribute(model, graph, uncorrupted, sc.EAP(), ablation=getattr(Ablation, ablation)).values
    assert (eap - derivative).abs().max() < 1e-2 * derivative.abs().max()


def test_mean_over_other_prompts_leaves_padding_out(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    others = [[5, 6, 7], [8, 9, 10, 11, 12]]
    per_prompt = [source_values(model, graph, torch.tensor([p]))[:, 0] for p in others]
    mean = torch.cat(per_prompt, 1).mean(1)[:, None, None]
    expected = patched_effects(model, graph, task, values=mean)
    scores = sc.attribute(model, graph, task, sc.Exact(), ablation=Ablation.MEAN.over(others)).values
    assert (scores - expected).abs().max() < 1e-4 * expected.abs().max()


def test_kl_is_refused_where_its_gradient_is_zero(zoo) -> None:
    model = zoo("gpt2")
    task, graph = token_task(metric=sc.NegativeKL()), sc.Graph.of(model)
    with pytest.raises(sc.InputError, match="gradient zero"):
        sc.attribute(model, graph, task, sc.EAP())
    scores = sc.attribute(model, graph, task, sc.EAPIG(steps=4))
    assert scores.values.abs().max() > 1e-3
    assert scores.clean.abs().max() < 1e-6  # the divergence of the clean run from itself
    exact = sc.attribute(model, graph, task, sc.Exact())
    assert exact.values.max() < 1e-5  # no edge can raise it above its maximum
