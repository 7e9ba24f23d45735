"""Slow and obvious: edges patched one at a time through TransformerLens's own hooks, not the library's forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor

import sparse_circuits as sc


@contextmanager
def split_inputs(model):
    """The model with separate q, k, v and MLP inputs, as it was afterwards."""
    has_mlp = not model.cfg.attn_only
    model.set_use_split_qkv_input(True)
    if has_mlp:
        model.set_use_hook_mlp_in(True)
    try:
        yield
    finally:
        model.set_use_split_qkv_input(False)
        if has_mlp:
            model.set_use_hook_mlp_in(False)


@torch.no_grad()
def source_values(model, graph: sc.Graph, tokens: Tensor) -> Tensor:
    """What every source writes: ``[n_sources, batch, pos, d_model]``."""
    _, cache = model.run_with_cache(tokens)
    values = [cache["hook_embed"]]
    for layer in range(graph.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"]
        z = z.unflatten(-1, (graph.n_heads, -1)) if z.dim() == 3 else z
        W_O = model.blocks[layer].attn.W_O
        values += [z[:, :, h] @ W_O[h] for h in range(graph.n_heads)]
        if graph.has_mlp:
            values.append(cache[f"blocks.{layer}.hook_mlp_out"])
    return torch.stack(values)


def read_hook(graph: sc.Graph, destination: int, change: Tensor) -> tuple[str, Callable]:
    """A hook that adds to what one destination reads."""
    name = graph.destinations[destination]
    if name == "logits":
        return f"blocks.{graph.n_layers - 1}.hook_resid_post", lambda x, hook: x + change
    layer = destination // graph.destinations_per_layer
    if name.startswith("m"):
        return f"blocks.{layer}.hook_mlp_in", lambda x, hook: x + change
    which = name[-2]
    place = destination - graph.reads_at(layer, which).start

    def add(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[:, :, place] += change
        return x

    return f"blocks.{layer}.hook_{which}_input", add


@torch.no_grad()
def patched_effects(model, graph: sc.Graph, task: sc.Task, share: float = 1.0, values: Tensor | None = None) -> Tensor:
    """m(clean, v reads c_u + share (c_u' - c_u)) - m(clean), averaged: ``[n_sources, n_destinations]``. Prompts of one length.

    ``values``: the ablated value of every source; the corrupted run's by default.
    """
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    right, wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
    rows = torch.arange(len(clean))

    def metric(hooks: list) -> Tensor:
        logits = model.run_with_hooks(clean, fwd_hooks=hooks, return_type="logits")[:, -1]
        return (logits[rows, right] - logits[rows, wrong]).mean()

    ablated = source_values(model, graph, corrupted) if values is None else values
    delta = share * (ablated - source_values(model, graph, clean))
    effects = torch.zeros(graph.n_sources, graph.n_destinations)
    with split_inputs(model):
        base = metric([])
        for u, v in graph.mask.nonzero().tolist():
            effects[u, v] = metric([read_hook(graph, v, delta[u])]) - base
    return effects


@torch.no_grad()
def interpolated_effects(model, graph: sc.Graph, task: sc.Task, group: slice, moved: Tensor, change: Tensor) -> Tensor:
    """m when a group of sources is moved and, besides, v reads ``change[u]`` more: for all edges u -> v that leave the group.

    Moving a source is done by adding to what it wrote, where it wrote it.
    """
    clean = torch.tensor(task.clean)
    right, wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
    rows = torch.arange(len(clean))
    if group.start == 0:
        site = "hook_embed"
    else:
        layer, i = divmod(group.start - 1, graph.sources_per_layer)
        site = f"blocks.{layer}.hook_{'mlp' if i == graph.n_heads else 'attn'}_out"
    move = (site, lambda x, hook: x + moved.sum(0))
    out = torch.zeros(graph.n_sources, graph.n_destinations)
    with split_inputs(model):
        for u in range(group.start, group.stop):
            for v in graph.mask[u].nonzero().flatten().tolist():
                logits = model.run_with_hooks(
                    clean, fwd_hooks=[move, read_hook(graph, v, change[u])], return_type="logits"
                )
                out[u, v] = (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()
    return out


@torch.no_grad()
def circuit_metric(model, circuit: sc.Circuit, task: sc.Task, ablated: Tensor) -> Tensor:
    """The metric per example when destinations read the ablated values of all sources outside a circuit, by hooks."""
    graph, clean = circuit.graph, torch.tensor(task.clean)
    right, wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
    current: dict[int, Tensor] = {}
    out = (~circuit.mask & graph.mask).float()

    def change(destination: int) -> Tensor:
        total = 0.0
        for u in out[:, destination].nonzero().flatten().tolist():
            total = total + ablated[u] - current[u]
        return total

    def remember(u: int, value: Tensor) -> None:
        current[u] = value

    hooks: list = [("hook_embed", lambda x, hook: remember(0, x))]
    for layer in range(graph.n_layers):
        for which in "qkv":
            columns = graph.reads_at(layer, which)

            def rewire(x: Tensor, hook: object, columns: slice = columns) -> Tensor:
                x = x.clone()
                for place, destination in enumerate(range(columns.start, columns.stop)):
                    x[:, :, place] += change(destination)
                return x

            hooks.append((f"blocks.{layer}.hook_{which}_input", rewire))

        def collect(z: Tensor, hook: object, layer: int = layer) -> None:
            z = z.unflatten(-1, (graph.n_heads, -1)) if z.dim() == 3 else z
            for h in range(graph.n_heads):
                remember(graph.heads_at(layer).start + h, z[:, :, h] @ model.blocks[layer].attn.W_O[h])

        hooks.append((f"blocks.{layer}.attn.hook_z", collect))
        if graph.has_mlp:
            column = graph.reads_at(layer, "mlp").start
            hooks.append((f"blocks.{layer}.hook_mlp_in", lambda x, hook, column=column: x + change(column)))
            row = graph.mlp_at(layer)
            hooks.append((f"blocks.{layer}.hook_mlp_out", lambda x, hook, row=row: remember(row, x)))
    last = graph.n_destinations - 1
    hooks.append((f"blocks.{graph.n_layers - 1}.hook_resid_post", lambda x, hook: x + change(last)))
    with split_inputs(model):
        logits = model.run_with_hooks(clean, fwd_hooks=hooks, return_type="logits")[:, -1]
    rows = torch.arange(len(clean))
    return logits[rows, right] - logits[rows, wrong]
