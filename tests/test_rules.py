"""RelP, AtP*, information flow routes and direct effects, each against a slow version of its own definition."""

from __future__ import annotations

import pytest
import torch
from conftest import token_task
from oracles import patched_effects, source_values, split_inputs

import sparse_circuits as sc
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.forward import run_layer


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((a - b).abs().max() < tolerance * b.abs().max())


# --- RelP ---


def relevance_model(model, tokens: torch.Tensor):
    """The model with everything nonlinear replaced by the constants that it had in its clean run, product halves apart.

    Returns a function of (changes of the stream as each destination reads it) to the last stream's logits: linear by
    construction, so that its differences are what RelP's backward pass computes.
    """
    anatomy = anatomy_of(model)
    with torch.no_grad():
        stream, traces = anatomy.stream(anatomy.embed(tokens)), []
        for block in anatomy.blocks:
            trace, stream = run_layer(block, stream, None, units=True)
            traces.append(trace)
    final = stream

    def frozen(norm, at: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        if norm is None or norm.kind == "none":
            return change
        centred = change - change.mean(-1, keepdim=True) if norm.kind == "layer" else change
        return centred * norm.inverse_scale(at) * norm.weight

    def logits_change(read: dict[str, torch.Tensor]) -> torch.Tensor:
        """``read``: by destination name, what it reads more: ``[batch, pos, d_model]``."""
        moved = torch.zeros_like(final)  # what the stream has more by now
        for layer, (block, trace) in enumerate(zip(anatomy.blocks, traces, strict=True)):
            attention = block.attention
            pattern = attention.pattern(trace.q, trace.k, None)
            groups = attention.n_heads // attention.n_groups
            z = torch.zeros_like(trace.z)
            for head in range(attention.n_heads):
                name = f"a{layer}.h{head}<v>" if groups == 1 else f"a{layer}.g{head // groups}<v>"
                here = frozen(block.attn_norm, trace.attn_read, moved + read.get(name, 0.0))
                z[:, :, head] = pattern[:, head] @ (here @ attention.W_V[head // groups])
            written = torch.einsum("bphd,hdm->bpm", z, attention.W_O)
            attn_change = frozen(block.attn_post_norm, trace.attn_sum, written)
            mlp, at = block.mlp, trace.mlp_read
            here = frozen(
                block.mlp_norm, at, (moved if block.parallel else moved + attn_change) + read.get(f"m{layer}", 0.0)
            )
            normed = block.mlp_norm(at)
            zero = torch.zeros_like(normed)
            up, up_change = mlp.up(normed), mlp.up(here) - mlp.up(zero)
            if mlp.gate is None:
                hidden = mlp.act(up) / up * up_change
            else:
                gate, gate_change = mlp.gate(normed), mlp.gate(here) - mlp.gate(zero)
                hidden = 0.5 * (mlp.act(gate) * up_change + mlp.act(gate) / gate * gate_change * up)
            out = hidden @ mlp.W_out
            if mlp.post_norm is not None:
                out = frozen(mlp.post_norm, mlp.hidden(normed) @ mlp.W_out, out)
            moved = moved + attn_change + out
        here = frozen(anatomy.final_norm, final, moved + read.get("logits", 0.0))
        return anatomy.unembed(here) - anatomy.unembed(torch.zeros_like(here))

    return logits_change


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "qwen3", "gemma", "olmo2"])
def test_relp_is_the_linear_model_of_its_coefficients(zoo, family: str) -> None:
    model, task = zoo(family), token_task(3)
    graph = sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, sc.RelP()).values
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    linear = relevance_model(model, clean)
    rows = torch.arange(3)
    expected = torch.zeros(graph.shape)
    with torch.no_grad():
        delta = source_values(model, graph, corrupted) - source_values(model, graph, clean)
        if family == "olmo2":  # its heads' changes go through the post-norm, at its own scale
            delta = _through_frozen_post_norm(model, graph, clean, corrupted, delta)
        for u, v in graph.mask.nonzero().tolist():
            logits = linear({graph.destinations[v]: delta[u]})[:, -1]
            change = logits[rows, torch.tensor(task.metric.correct)] - logits[rows, torch.tensor(task.metric.incorrect)]
            expected[u, v] = change.mean()
    assert close(scores, expected)
    for layer in range(graph.n_layers):
        for which in "qk":
            assert not scores[:, graph.reads_at(layer, which)].any()


def _through_frozen_post_norm(model, graph, clean, corrupted, delta):
    anatomy = anatomy_of(model)
    streams = [anatomy.stream(anatomy.embed(tokens)) for tokens in (clean, corrupted)]
    for layer, block in enumerate(anatomy.blocks):
        (a, first), (b, second) = (run_layer(block, stream, None, units=True) for stream in streams)
        streams = [first, second]
        norm = block.attn_post_norm
        change = torch.einsum("bphd,hdm->hbpm", b.z - a.z, block.attention.W_O)
        delta[graph.heads_at(layer)] = change * norm.inverse_scale(a.attn_sum) * norm.weight
    return delta


def test_relp_is_a_rule_that_combines_with_any_points(zoo) -> None:
    model, task = zoo("llama"), token_task()
    graph = sc.Graph.of(model)
    relp = sc.attribute(model, graph, task, sc.RelP()).values
    assert torch.equal(relp, sc.attribute(model, graph, task, sc.EAP(rule="relp")).values)
    both = sc.attribute(model, graph, task, sc.CleanCorrupted(rule="relp")).values
    two = sc.attribute(model, graph, task, sc.EAPIG(steps=2, quadrature="trapezoid", rule="relp")).values
    assert close(both, two, 1e-5)
    assert not close(both, relp, 1e-2)
    with pytest.raises(sc.InputError, match="expected one of plain, frozen, relp"):
        sc.EAP(rule="lrp")


# --- information flow ---


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "hooked-attn-only"])
def test_information_flow_by_its_definition(zoo, family: str) -> None:
    model, task = zoo(family), token_task(3, varied=True)
    graph = sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, sc.InformationFlowRoutes()).values
    expected = torch.zeros(graph.shape)
    for prompt in task.clean:
        tokens = torch.tensor([prompt])
        written = source_values(model, graph, tokens)[:, 0]
        _, cache = model.run_with_cache(tokens)
        for v in range(graph.n_destinations):
            layer, name = v // graph.destinations_per_layer, graph.destinations[v]
            if name == "logits":
                read = cache[f"blocks.{graph.n_layers - 1}.hook_resid_post"][0]
            elif name[0] == "m" and not graph.parallel:
                read = cache[f"blocks.{layer}.hook_resid_mid"][0]
            else:
                read = cache[f"blocks.{layer}.hook_resid_pre"][0]
            for t in range(len(prompt)):
                close_by = [
                    max(0.0, float(read[t].abs().sum() - (read[t] - written[u, t]).abs().sum()))
                    for u in range(int(graph.readable[v]))
                ]
                for u, proximity in enumerate(close_by):
                    expected[u, v] += proximity / sum(close_by) / len(prompt) if sum(close_by) else 0.0
    assert close(scores, expected / 3)
    assert bool((scores >= 0).all())
    assert bool((scores.sum(0) <= 1 + 1e-5).all())


def test_information_flow_is_finite_where_nothing_is_close(zoo) -> None:
    """All that was written cancels: the stream is 0, and no source is closer to it than nothing."""
    from sparse_circuits.attribution.information_flow import _shares

    c = torch.tensor([[[1.0, -2.0]], [[-1.0, 2.0]]])
    assert torch.equal(_shares(c, c.sum(0)), torch.zeros(2, 1))
    # by hand: x = (3, 1); c1 = (2, 1) leaves (1, 0): 4 - 1 = 3; c2 = (1, 0) leaves (2, 1): 4 - 3 = 1; c3 = (-3, 0): 4 - 7 < 0
    shares = _shares(torch.tensor([[[2.0, 1.0]], [[1.0, 0.0]], [[-3.0, 0.0]]]), torch.tensor([[3.0, 1.0]]))
    assert shares.flatten().tolist() == [0.75, 0.25, 0.0]


def test_information_flow_needs_no_corrupted_prompts_and_ranks_without_sign(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    alone = sc.Task(task.clean, metric=task.metric)
    scores = sc.attribute(model, sc.Graph.of(model), alone, sc.InformationFlowRoutes())
    assert scores.convergence_gap is None
    assert scores.provenance["ablation"] is None
    with pytest.raises(sc.InputError, match="carry no sign"):
        scores.top(10, signed=True)


# --- AtP* ---


def linear_scores(model, graph: sc.Graph, task: sc.Task, dropped: int | None) -> torch.Tensor:
    """EAP per example through TransformerLens's split inputs, no gradient flowing back through what a layer writes."""
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    delta = source_values(model, graph, corrupted) - source_values(model, graph, clean)
    held: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(x: torch.Tensor, hook) -> torch.Tensor:
            held[name] = x + torch.zeros_like(x, requires_grad=True)
            return held[name]

        return name, hook

    hooks = []
    for layer in range(graph.n_layers):
        hooks += [keep(f"blocks.{layer}.hook_{which}_input") for which in "qkv"]
        hooks += [keep(f"blocks.{layer}.hook_mlp_in")]
        if layer == dropped:
            hooks += [(f"blocks.{layer}.hook_{part}_out", lambda x, hook: x.detach()) for part in ("attn", "mlp")]
    last = f"blocks.{graph.n_layers - 1}.hook_resid_post"
    hooks.append(keep(last))
    rows = torch.arange(len(clean))
    with split_inputs(model), torch.enable_grad():
        logits = model.run_with_hooks(clean, fwd_hooks=hooks, return_type="logits")[:, -1]
        value = logits[rows, torch.tensor(task.metric.correct)] - logits[rows, torch.tensor(task.metric.incorrect)]
        found = torch.autograd.grad(value.sum(), list(held.values()), allow_unused=True)
    gradients = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(held.items(), found, strict=True)}
    scores = torch.zeros(len(clean), *graph.shape)
    for u, v in graph.mask.nonzero().tolist():
        layer, name = v // graph.destinations_per_layer, graph.destinations[v]
        if name == "logits":
            g = gradients[last]
        elif name[0] == "m":
            g = gradients[f"blocks.{layer}.hook_mlp_in"]
        else:
            g = gradients[f"blocks.{layer}.hook_{name[-2]}_input"][:, :, v - graph.reads_at(layer, name[-2]).start]
        scores[:, u, v] = (delta[u] * g).sum((1, 2)).detach()
    return scores


def recomputed_scores(model, graph: sc.Graph, task: sc.Task, dropped: int | None, scores: torch.Tensor) -> torch.Tensor:
    """The same, with edges into queries and keys by running the head with the patched input and taking the rest as linear."""
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    delta = source_values(model, graph, corrupted) - source_values(model, graph, clean)
    rows, scores = torch.arange(len(clean)), scores.clone()
    held: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(z: torch.Tensor, hook) -> torch.Tensor:
            held[layer] = z + torch.zeros_like(z, requires_grad=True)
            return held[layer]

        return hook

    hooks = [(f"blocks.{layer}.attn.hook_z", keep(layer)) for layer in range(graph.n_layers)]
    if dropped is not None:
        hooks += [(f"blocks.{dropped}.hook_{part}_out", lambda x, hook: x.detach()) for part in ("attn", "mlp")]
    with torch.enable_grad():
        logits = model.run_with_hooks(clean, fwd_hooks=hooks, return_type="logits")[:, -1]
        value = logits[rows, torch.tensor(task.metric.correct)] - logits[rows, torch.tensor(task.metric.incorrect)]
        found = torch.autograd.grad(value.sum(), list(held.values()), allow_unused=True)
    dz = {n: torch.zeros_like(z) if g is None else g for (n, z), g in zip(held.items(), found, strict=True)}
    with split_inputs(model), torch.no_grad():
        for layer in range(graph.n_layers):
            for which in "qk":
                for place, v in enumerate(range(graph.reads_at(layer, which).start, graph.reads_at(layer, which).stop)):
                    n = int(graph.readable[v])  # sources, side by side in one batch

                    def add(x: torch.Tensor, hook, place: int = place, n: int = n) -> torch.Tensor:
                        x = x.clone()
                        x[:, :, place] += delta[:n].flatten(0, 1)
                        return x

                    new: list[torch.Tensor] = []
                    model.run_with_hooks(
                        clean.repeat(n, 1),
                        fwd_hooks=[
                            (f"blocks.{layer}.hook_{which}_input", add),
                            (f"blocks.{layer}.attn.hook_z", lambda z, hook, new=new: new.append(z.clone())),
                        ],
                    )
                    moved = new[0].unflatten(0, (n, -1)) - held[layer].detach()
                    scores[:, :n, v] = (moved * dz[layer]).flatten(2).sum(2).T
    return scores


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama"])
@pytest.mark.parametrize("qk_fix", [False, True])
@pytest.mark.parametrize("grad_drop", [False, True])
def test_atp_star_by_hooks(zoo, family: str, qk_fix: bool, grad_drop: bool) -> None:
    model, task = zoo(family), token_task(3)
    graph = sc.Graph.of(model)
    drops = list(range(graph.n_layers)) if grad_drop else [None]
    total = torch.zeros(graph.shape)
    for dropped in drops:
        scores = linear_scores(model, graph, task, dropped)
        if qk_fix:
            scores = recomputed_scores(model, graph, task, dropped, scores)
        total += scores.abs().mean(0)
    expected = total / (len(drops) - 1 if grad_drop else 1)
    if grad_drop:  # a dropped layer always hides its own destinations, but never the logits
        expected[:, -1] *= (len(drops) - 1) / len(drops)
    found = sc.attribute(model, graph, task, sc.AtPStar(qk_fix=qk_fix, grad_drop=grad_drop)).values
    assert close(found, expected)


def test_atp_star_at_nodes_is_the_mean_of_absolute_gradients_with_layers_dropped(zoo) -> None:
    """Of two layers: a node of one is seen only with the other dropped, the input with each of both."""
    model, task = zoo("neox"), token_task(3)
    edges, nodes = sc.Graph.of(model), sc.Graph.of(model, level="nodes")
    star = sc.attribute(model, nodes, task, sc.AtPStar()).values
    per_drop = [linear_scores(model, edges, task, dropped).sum(2) for dropped in range(2)]
    for row in range(edges.n_sources):
        layer = None if row == 0 else (row - 1) // edges.sources_per_layer
        seen = [per_drop[d][:, row].abs().mean() for d in range(2) if d != layer]
        assert float(star[row]) == pytest.approx(float(sum(seen)) / len(seen), rel=1e-3, abs=1e-5)


# --- direct effects ---


@pytest.mark.parametrize("family", ["gpt2", "llama", "hooked-attn-only"])
@pytest.mark.parametrize("path", ["inputs", "activations"])
def test_direct_effects_are_exact_in_the_logits_column_only(zoo, family: str, path: str) -> None:
    model, task = zoo(family), token_task(4)
    graph = sc.Graph.of(model)
    along, exact, mean = (
        sc.attribute(model, graph, task, sc.EAPIG(steps=2, path=path, direct=direct)).values
        for direct in ("path", "exact", "mean")
    )
    patched = patched_effects(model, graph, task)
    assert close(exact[:, -1], patched[:, -1])
    assert torch.equal(exact[:, :-1], along[:, :-1])
    assert close(mean[:, -1], (along[:, -1] + patched[:, -1]) / 2)
    assert not close(along[:, -1], patched[:, -1], 1e-3)
    kept = sc.attribute(model, graph, task, sc.EAPIG(steps=2, path=path, direct="exact"), positions="keep")
    values = kept.values.view(graph.n_sources, 7, graph.n_destinations, 7)
    assert not values[:, :6, -1].any()
    assert close(values[:, 6, -1, 6], patched[:, -1])
    with pytest.raises(sc.InputError, match="expected 'path', 'exact' or 'mean'"):
        sc.EAPIG(direct="half")


# --- batch size ---


def test_auto_batch_size_backs_off_and_changes_nothing(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = zoo("gpt2"), token_task(7, varied=True)
    graph, tried = sc.Graph.of(model), []
    expected = sc.attribute(model, graph, task, sc.EAP(), batch_size=7).values
    original = sc.EAP.run

    def run(self, problem):
        tried.append(problem.batch_size)
        if problem.batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, problem)

    monkeypatch.setattr(sc.EAP, "run", run)
    assert close(sc.attribute(model, graph, task, sc.EAP(), batch_size="auto").values, expected, 1e-5)
    assert tried == [7, 4, 2]
    with pytest.raises(torch.OutOfMemoryError):
        sc.attribute(model, graph, task, sc.EAP(), batch_size=7)  # what was asked for is what is done


def test_auto_batch_size_starts_from_the_free_memory(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = zoo("gpt2"), token_task(7)
    sizes, original = [], sc.EAP.run
    monkeypatch.setattr(
        sc.EAP, "run", lambda self, problem: sizes.append(problem.batch_size) or original(self, problem)
    )
    width = 3 * (16 * 24 + 6 * 96 + 3 * 7)  # of one token, as estimated
    monkeypatch.setattr("sparse_circuits.attribution.batch_size._free_bytes", lambda device: 3 * 2 * 4 * 7 * width)
    sc.attribute(model, sc.Graph.of(model), task, sc.EAP(), batch_size="auto")
    assert sizes == [3]


def test_other_errors_are_not_taken_for_memory(zoo) -> None:
    calls = []

    def broken(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("broken metric")

    task = token_task(4, metric=broken)
    with pytest.raises(RuntimeError, match="broken metric"):
        sc.attribute(zoo("gpt2"), sc.Graph.of(zoo("gpt2")), task, sc.EAP(), batch_size="auto")
    assert len(calls) == 1
    with pytest.raises(sc.InputError, match="or 'auto'"):
        sc.attribute(zoo("gpt2"), sc.Graph.of(zoo("gpt2")), task, sc.EAP(), batch_size="all")
