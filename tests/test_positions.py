"""Scores per position and per span: what a positional edge means, and what must sum."""

from __future__ import annotations

import pytest
import torch
from conftest import token_task
from oracles import source_values

import sparse_circuits as sc

FAMILIES = (
    "gpt2",
    "neox",
    "llama",
    "mistral-window",
    "gemma2",
    "olmo2",
    "hooked-bidirectional",
    "hooked-local-softcap",
)
METHODS = {
    "eap": sc.EAP(),
    "eap-ig": sc.EAPIG(steps=2),
    "eap-ig-activations": sc.EAPIG(steps=2, path="activations"),
    "relp": sc.RelP(),
}


def spanned(**options) -> sc.Task:
    task = token_task(4, varied=True, **options)
    spans = [{"subject": (1, 3), "last": -1} for _ in task.clean]
    return sc.Task(task.clean, task.corrupted, metric=task.metric, spans=spans)


def by_position(scores: sc.Scores) -> torch.Tensor:
    """``[sources, from, destinations, to]``, or ``[units, at]``."""
    n, graph = scores.graph.n_positions, scores.graph
    return (
        scores.values.view(graph.n_sources, n, graph.n_destinations, n)
        if graph.level == "edges"
        else scores.values.view(-1, n)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_positions_sum_to_the_whole(zoo, family: str, method: sc.Method) -> None:
    model, task = zoo(family), spanned()
    for level in ("edges", "nodes", "neurons"):
        graph = sc.Graph.of(model, level=level)
        whole = sc.attribute(model, graph, task, method)
        for kind, positions in (("keep", tuple("0123456")), ("spans", ("subject", "last", "other"))):
            apart = sc.attribute(model, graph, task, method, positions=kind, batch_size=3)
            assert apart.graph.positions == positions
            summed = by_position(apart).sum((1, 3)) if level == "edges" else by_position(apart).sum(1)
            assert (summed - whole.values).abs().max() < 1e-5 * whole.values.abs().max()
            assert not apart.values[~apart.graph.mask].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_mlps_and_logits_read_their_own_position(zoo, family: str) -> None:
    """The gradient at a key is split by the query through which it flows; everything else stays at its position."""
    model, task = zoo(family), token_task(3)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), positions="keep")
    graph, values = scores.graph, by_position(scores)
    off_diagonal = ~torch.eye(7, dtype=torch.bool)
    for v in range(graph.n_destinations):
        across = values[:, :, v][:, off_diagonal]
        assert bool(across.any()) <= bool(graph.across[v])
    ahead = torch.ones(7, 7, dtype=torch.bool).tril(-1)  # a key after its query
    assert bool(values[:, :, graph.across].permute(0, 2, 1, 3)[..., ahead].any()) == (family == "hooked-bidirectional")
    assert not bool(values[:, :6, -1].any())  # the metric reads the last position
    assert "m0@2->a1.h0<q>@2" in scores.to_dict()
    assert "m0@2->a1.h0<q>@3" not in scores.to_dict()


@pytest.mark.parametrize("family", ["gpt2", "neox", "hooked-rms"])
def test_a_positional_edge_is_the_derivative_of_patching_it(zoo, family: str) -> None:
    """u@i -> h<k>@j: the keys at position i change, and only the query at position j sees it. By hand through hook_z."""
    model, task = zoo(family), token_task(2)
    graph = sc.Graph.of(model)
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    delta = source_values(model, graph, corrupted) - source_values(model, graph, clean)
    scores = sc.attribute(model, graph, task, sc.EAP(), positions="keep")
    positional, scale = by_position(scores), scores.values.abs().max()
    layer, head, source, h = 1, 0, 0, 1e-2
    rows = torch.arange(2)

    def measured(which: str, i: int, j: int, share: float) -> float:
        """m with head 1.0's keys (values) at i changed, seen by the query at j only."""
        seen: list[torch.Tensor] = []

        def shift(x: torch.Tensor, hook: object) -> torch.Tensor:
            x = x.clone()
            x[:, i, head] += share * delta[source][:, i]
            return x

        def remember(z: torch.Tensor, hook: object) -> None:
            seen.append(z.clone())

        def insert(z: torch.Tensor, hook: object) -> torch.Tensor:
            z = z.clone()
            flat = z.unflatten(-1, (graph.n_heads, -1)) if z.dim() == 3 else z
            moved = seen[0].unflatten(-1, (graph.n_heads, -1)) if z.dim() == 3 else seen[0]
            flat[:, j, head] = moved[:, j, head]
            return z

        z_name = f"blocks.{layer}.attn.hook_z"
        model.set_use_split_qkv_input(True)
        try:
            with torch.no_grad():
                model.run_with_hooks(
                    clean, fwd_hooks=[(f"blocks.{layer}.hook_{which}_input", shift), (z_name, remember)]
                )
        finally:
            model.set_use_split_qkv_input(False)
        with torch.no_grad():
            logits = model.run_with_hooks(clean, fwd_hooks=[(z_name, insert)], return_type="logits")[:, -1]
        return float(
            (logits[rows, torch.tensor(task.metric.correct)] - logits[rows, torch.tensor(task.metric.incorrect)]).mean()
        )

    for which in "kv":
        column = graph.reads_at(layer, which).start
        for i, j in ((1, 1), (1, 4), (1, 6), (4, 6)):
            slope = (measured(which, i, j, h) - measured(which, i, j, -h)) / (2 * h)
            assert float(positional[source, i, column, j]) == pytest.approx(slope, abs=2e-3 * float(scale) + 1e-5)


def test_choosing_and_saving_a_positional_circuit(zoo, tmp_path) -> None:
    model, task = zoo("gpt2"), spanned()
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), positions="spans", per_example=True)
    circuit = scores.greedy(30)
    graph = circuit.graph
    into = {name.split("->")[1] for name in circuit.edges}
    for name in circuit.nodes:  # every node leads on and is reached, at its own position
        if not name.startswith("logits"):
            assert any(edge.startswith(f"{name}->") for edge in circuit.edges)
        if not name.startswith(("input", "logits")):
            node, position = name.split("@")
            mine = {f"{node}@{position}"} | {f"{node}<{w}>@{position}" for w in "qkv"}
            assert mine & into
    assert scores.stable(30, confidence=0.5).size <= 30
    loaded = sc.Circuit.load(circuit.save(tmp_path / "c.safetensors"))
    assert loaded.graph == graph
    assert loaded.graph.positions == ("subject", "last", "other")
    assert loaded.edges == circuit.edges


def test_bad_positions_are_refused(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    with pytest.raises(sc.InputError, match="expected 'sum', 'keep' or 'spans'"):
        sc.attribute(model, graph, task, positions="each")
    with pytest.raises(sc.InputError, match="spans"):
        sc.attribute(model, graph, task, positions="spans")
    with pytest.raises(sc.InputError, match="does not tell positions apart"):
        sc.attribute(model, graph, task, sc.InformationFlowRoutes(), positions="keep")
    with pytest.raises(sc.InputError, match="expected a graph without positions"):
        sc.attribute(model, graph.at(("0", "1")), task)
    with pytest.raises(sc.InputError, match="does not read that position"):
        graph.at(("0", "1")).edge_index("input@0->m0@1")


@pytest.mark.parametrize("name", ["\x00", "a\x1b", "\x7f", "\x9f", "a\ud800", "\ufffe", "a b", "a@b", ""])
def test_a_name_that_no_node_or_picture_can_hold_is_refused(name: str) -> None:
    task = token_task(1)
    with pytest.raises(sc.InputError, match=r"row 0: .* cannot name a span; .* without whitespace, control characters"):
        sc.Task(task.clean, metric=task.metric, spans=[{name: -1}])
    assert sc.Task(task.clean, metric=task.metric, spans=[{"نام\u200cها": -1}]).spans


@pytest.mark.parametrize("level", ["edges", "nodes", "neurons"])
@pytest.mark.parametrize("family", ["gpt2", "olmo2"])
def test_parts_at_a_position_that_no_prompt_has_change_nothing(zoo, family: str, level: str) -> None:
    """Where the subject is the last token, nothing is at "last"."""
    model, task = zoo(family), token_task()
    spans = [{"subject": -1, "last": -1} for _ in task.clean]
    task = sc.Task(task.clean, task.corrupted, metric=task.metric, spans=spans)
    scores = sc.attribute(model, sc.Graph.of(model, level=level), task, sc.EAP(), positions="spans")
    graph = scores.graph
    at_last = [name for name in graph.names if name.endswith("@last")]
    assert all(scores.to_dict()[name] == 0 for name in at_last)
    for method in (sc.EAPIG(steps=2, direct="exact"), sc.AtPStar(), sc.Exact()):
        found = sc.attribute(model, sc.Graph.of(model, level=level), task, method, positions="spans").to_dict()
        assert all(found[name] == 0 for name in at_last)
    nowhere = sc.Circuit.of(graph, at_last[: len(at_last) // 2])
    result = sc.evaluate(model, nowhere, task)
    torch.testing.assert_close(result.per_example, result.empty)
