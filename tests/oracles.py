"""Slow and obvious: edges patched one at a time through TransformerLens's own hooks, not the library's forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

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


def post_norm(model, layer: int) -> Callable | None:
    """The norm through which a layer's heads write together, as the model's own module."""
    if getattr(model, "original_model", None) is None:
        return None
    # Only in some of them is this a norm of what attention wrote; bridges give it other names, not always the same one.
    if model.original_model.config.model_type not in ("gemma2", "gemma3_text", "olmo2"):
        return None
    return model.blocks[layer].original_component.post_attention_layernorm


@torch.no_grad()
def source_changes(model, graph: sc.Graph, clean: Tensor, ablated: Tensor, share: float = 1.0) -> Tensor:
    """What the stream changes by if a source goes ``share`` of the way to another value: like ``clean``, for each source."""
    changes = share * (ablated - clean)
    for layer in range(graph.n_layers):
        norm, heads = post_norm(model, layer), graph.heads_at(layer)
        if norm is not None:
            attn_sum = clean[heads].sum(0)
            for u in range(heads.start, heads.stop):
                changes[u] = norm(attn_sum + changes[u]) - norm(attn_sum)
    return changes


class Patcher:
    """Runs of a model on a task's prompts of one length, with hooks; the metric is the logit difference at the end."""

    def __init__(self, model, graph: sc.Graph, task: sc.Task, groups: Tensor | None = None) -> None:
        self.model, self.graph, self.groups = model, graph, groups
        self.clean, self.rows = torch.tensor(task.clean), torch.arange(len(task.clean))
        self.right, self.wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
        self.base = self.metric([])

    def metric(self, hooks: list) -> Tensor:
        logits = self.model.run_with_hooks(self.clean, fwd_hooks=hooks, return_type="logits")[:, -1]
        return logits[self.rows, self.right] - logits[self.rows, self.wrong]

    def effect(self, *hooks: tuple) -> Tensor:
        """Per example."""
        return self.metric(list(hooks)) - self.base

    def capture(self, names: list[str], *hooks: tuple) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: object, name: str) -> None:
            found[name] = x.clone()

        self.metric([*hooks, *((name, partial(keep, name=name)) for name in names)])
        return found

    def here(self, position: int) -> Tensor:
        """1 at the tokens of a position of the graph, else 0: ``[batch, pos, 1]``."""
        return (torch.ones_like(self.clean) if self.groups is None else self.groups == position)[..., None].float()


def add(name: str, change: Tensor) -> tuple:
    return name, lambda x, hook: x + change


def put(name: str, value: Tensor, at: object = ..., where: Tensor | float = 1.0) -> tuple:
    """A hook that replaces a part of an activation, ``x[:, :, at]``, at some tokens."""

    def replace(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        # a factor of 0 or 1, with as many dimensions as the part
        factor = where if isinstance(where, float) else where.reshape(where.shape[:2] + (1,) * (x[:, :, at].dim() - 2))
        x[:, :, at] = x[:, :, at] * (1 - factor) + value[:, :, at] * factor
        return x

    return name, replace


@torch.no_grad()
def patched_effects(
    model,
    graph: sc.Graph,
    task: sc.Task,
    share: float = 1.0,
    values: Tensor | None = None,
    groups: Tensor | None = None,
    per_example: bool = False,
) -> Tensor:
    """m(clean, v reads c_u + share (c_u' - c_u)) - m(clean): ``graph.shape``, averaged or with examples in front.

    What v reads is changed for all of its layer in one run, which is only looked at for what v makes of it; that is then put
    into another run. Nothing of the library takes part.

    Args:
        values: the ablated value of every source; the corrupted run's by default.
        groups: which position of the graph every token is at.
    """
    patcher = Patcher(model, graph, task, groups)
    clean = source_values(model, graph, patcher.clean)
    ablated = source_values(model, graph, torch.tensor(task.corrupted)) if values is None else values
    changes = source_changes(model, graph, clean, ablated, share)
    n, effects = graph.n_positions, torch.zeros(len(patcher.clean), *graph.shape)
    for row in range(graph.n_sources * n):
        change = changes[row // n] * patcher.here(row % n)
        for v in range(graph.n_destinations):
            columns = [v * n + to for to in range(n) if graph.mask[row, v * n + to]]
            for column, effect in zip(columns, into(patcher, v, change, [c % n for c in columns]), strict=True):
                effects[:, row, column] = effect
    return effects if per_example else effects.mean(0)


def into(patcher: Patcher, destination: int, change: Tensor, positions: list[int]) -> Iterator[Tensor]:
    """Effects of a change of what one destination reads, of which only the node at some position takes notice."""
    graph = patcher.graph
    name, last = graph.destinations[destination], graph.n_layers - 1
    layer = destination // graph.destinations_per_layer
    attn, mlp_out = f"blocks.{layer}.attn.", f"blocks.{layer}.hook_mlp_out"
    if not positions:
        return
    if name == "logits":
        yield patcher.effect(add(f"blocks.{last}.hook_resid_post", change))
    elif name.startswith("m"):
        read = f"blocks.{layer}.hook_resid_pre" if graph.parallel else f"blocks.{layer}.hook_attn_out"
        written = patcher.capture([mlp_out], add(read, change))[mlp_out]
        yield patcher.effect(put(mlp_out, written))
    else:
        which, at = name[-2], f"{attn}hook_{name[-2]}"
        place = destination - graph.reads_at(layer, which).start
        projected = patcher.capture([at], add(f"blocks.{layer}.hook_resid_pre", change))[at]
        own = place * projected.shape[2] // (graph.n_heads if which == "q" else graph.n_kv)
        z = patcher.capture([f"{attn}hook_z"], put(at, projected, own))[f"{attn}hook_z"]
        # a query head with its own copy of a key or value is the only one to see it
        heads = place if which != "q" and graph.n_kv > projected.shape[2] else slice(None)
        for position in positions:
            yield patcher.effect(put(f"{attn}hook_z", z, heads, patcher.here(position)))


@torch.no_grad()
def unit_effects(model, graph: sc.Graph, task: sc.Task, groups: Tensor | None = None, zero: bool = False) -> Tensor:
    """m(clean, do(node or unit = its corrupted value, or 0)) - m(clean), per example: ``[examples, *graph.shape]``."""
    patcher = Patcher(model, graph, task, groups)
    sites = ["hook_embed"]
    for layer in range(graph.n_layers):
        sites += [f"blocks.{layer}.attn.hook_z"]
        sites += [f"blocks.{layer}.hook_mlp_out", f"blocks.{layer}.mlp.hook_post"] if graph.has_mlp else []
    clean = patcher.capture(sites)
    ablated = Patcher(model, graph, sc.Task(task.corrupted, metric=task.metric)).capture(sites)
    ablated = {name: torch.zeros_like(x) for name, x in ablated.items()} if zero else ablated
    n, effects = graph.n_positions, torch.zeros(len(patcher.clean), *graph.shape)
    for row in range(graph.n_units * n):
        unit, where = row // n, patcher.here(row % n)
        source = int(graph.owner[unit])
        i = unit - int((graph.owner < source).sum())  # which of the source's units
        layer, head = divmod(source - 1, graph.sources_per_layer)
        part = i if graph.level in ("outputs", "neurons") else ...
        z = f"blocks.{layer}.attn.hook_z"
        if source == 0:
            hook = put("hook_embed", ablated["hook_embed"], i if graph.level == "outputs" else ..., where)
        elif head == graph.n_heads:
            site = f"blocks.{layer}.mlp.hook_post" if graph.level == "neurons" else f"blocks.{layer}.hook_mlp_out"
            hook = put(site, ablated[site], part, where)
        elif graph.level == "outputs":
            W_O, change = model.blocks[layer].attn.W_O, torch.zeros(*patcher.clean.shape, graph.d_model)
            change[..., i] = ((ablated[z] - clean[z])[:, :, head] @ W_O[head])[..., i]
            norm, attn_sum = post_norm(model, layer), torch.einsum("bphd,hdm->bpm", clean[z], W_O)
            change = change if norm is None else norm(attn_sum + change) - norm(attn_sum)
            hook = add(f"blocks.{layer}.hook_attn_out", change * where)
        else:
            value = clean[z].clone()
            value[:, :, head] = torch.where(
                torch.ones(value.shape[-1], dtype=torch.bool)
                if graph.level == "nodes"
                else torch.arange(value.shape[-1]) == i,
                ablated[z][:, :, head],
                value[:, :, head],
            )
            hook = put(z, value, head, where)
        effects[:, row] = patcher.effect(hook)
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
