"""Obvious: every edge patched by itself through TransformerLens's own hooks, not the library's forward pass.

What is tried runs side by side in one batch; nothing else is done to be quick.
"""

from __future__ import annotations

from collections.abc import Callable
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


def run_hooked(model, points: dict, tokens: Tensor, hooks: list) -> Tensor:
    """Logits of a run with hooks at some of the hook points: ``run_with_hooks``, where a bridge looks them up for every hook."""
    try:
        for name, hook in hooks:
            points[name].add_hook(hook)
        return model(tokens, return_type="logits")
    finally:
        for name, _ in hooks:
            points[name].remove_hooks("fwd")


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
    """Runs of a model on a task's prompts of one length, with hooks; the metric is the logit difference at the end.

    A batch holds as many copies of the prompts, one after the other, as there are things to try, each to its own copy.
    """

    def __init__(self, model, graph: sc.Graph, task: sc.Task, groups: Tensor | None = None) -> None:
        self.model, self.graph, self.groups = model, graph, groups
        self.points = dict(model.hook_dict)  # a bridge puts it together anew every time
        self.clean = torch.tensor(task.clean)
        self.right, self.wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
        self.base = self.metric([])

    def metric(self, hooks: list, copies: int = 1) -> Tensor:
        """``[copies, examples]``."""
        tokens, rows = self.clean.repeat(copies, 1), torch.arange(copies * len(self.clean))
        logits = run_hooked(self.model, self.points, tokens, hooks)[:, -1]
        right, wrong = (logits[rows, answers.repeat(copies)] for answers in (self.right, self.wrong))
        return (right - wrong).view(copies, -1)

    def effect(self, *hooks: tuple, copies: int = 1) -> Tensor:
        """``[copies, examples]``."""
        return self.metric(list(hooks), copies) - self.base

    def capture(self, names: list[str], *hooks: tuple, copies: int = 1) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: object, name: str) -> None:
            found[name] = x.clone()

        self.metric([*hooks, *((name, partial(keep, name=name)) for name in names)], copies)
        return found

    def here(self, positions: Tensor) -> Tensor:
        """1 at the tokens of each of some positions of the graph, else 0: ``[positions, batch, pos, 1]``."""
        groups = torch.zeros_like(self.clean) if self.groups is None else self.groups
        return (groups == positions[:, None, None])[..., None].float()


def add(name: str, change: Tensor) -> tuple:
    return name, lambda x, hook: x + change


def put(name: str, value: Tensor, at: object = ..., where: Tensor | None = None) -> tuple:
    """A hook that replaces a part of an activation, ``x[:, :, at]``; where ``where`` is 1, not where it is 0."""

    def replace(x: Tensor, hook: object) -> Tensor:
        x, new = x.clone(), value[:, :, at]
        x[:, :, at] = new if where is None else x[:, :, at] * (1 - where) + new * where
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
    kinds = [(layer, kind) for layer in range(graph.n_layers) for kind in ("q", "k", "v", *["mlp"] * graph.has_mlp)]
    for layer, kind in [*kinds, (graph.n_layers - 1, "logits")]:
        reads = (
            graph.reads_at(layer, kind) if kind != "logits" else slice(graph.n_destinations - 1, graph.n_destinations)
        )
        columns = slice(reads.start * n, reads.stop * n)
        rows = graph.mask[:, columns].any(1).nonzero().flatten()
        found = into(patcher, layer, kind, changes[rows // n] * patcher.here(rows % n))
        effects[:, rows, columns] = found.permute(3, 1, 0, 2).flatten(2) * graph.mask[rows, columns]
    return effects if per_example else effects.mean(0)


def into(patcher: Patcher, layer: int, kind: str, changes: Tensor) -> Tensor:
    """Effects of changes of what the destinations of a kind read, each alone, of which the node at some position takes notice.

    Args:
        changes: ``[changes, batch, pos, d_model]``.

    Returns:
        ``[destinations, changes, positions, batch]``.
    """
    graph, copies, change = patcher.graph, len(changes), changes.flatten(0, 1)
    attn, mlp_out = f"blocks.{layer}.attn.", f"blocks.{layer}.hook_mlp_out"
    if kind in ("mlp", "logits"):
        if kind == "logits":
            hook = add(f"blocks.{layer}.hook_resid_post", change)
        else:
            read = f"blocks.{layer}.hook_resid_pre" if graph.parallel else f"blocks.{layer}.hook_attn_out"
            hook = put(mlp_out, patcher.capture([mlp_out], add(read, change), copies=copies)[mlp_out])
        return patcher.effect(hook, copies=copies)[None, :, None].expand(1, -1, graph.n_positions, -1)

    at, z_at = f"{attn}hook_{kind}", f"{attn}hook_z"
    reads, n_groups = graph.reads_at(layer, kind), graph.n_heads if kind == "q" else graph.n_kv
    n = reads.stop - reads.start
    projected = patcher.capture([at], add(f"blocks.{layer}.hook_resid_pre", change), copies=copies)[at]
    own = torch.eye(projected.shape[2])[torch.arange(n) * projected.shape[2] // n_groups]
    # a query head with its own copy of a key or value is the only one to see it
    seeing = torch.eye(n) if kind != "q" and graph.n_kv > projected.shape[2] else torch.ones(n, graph.n_heads)

    def of_each(heads: Tensor) -> Tensor:
        return heads.repeat_interleave(len(change), 0)[:, None, :, None]

    put_in = put(at, projected.repeat(n, 1, 1, 1), where=of_each(own))
    z = patcher.capture([z_at], put_in, copies=n * copies)[z_at]
    effects = []
    for here in patcher.here(torch.arange(graph.n_positions)):
        where = of_each(seeing) * here.repeat(n * copies, 1, 1)[..., None]
        effects.append(patcher.effect(put(z_at, z, where=where), copies=n * copies).view(n, copies, -1))
    return torch.stack(effects, 2)


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
    for source in range(graph.n_sources):
        units = (graph.owner == source).nonzero().flatten()
        rows = torch.arange(int(units[0]) * n, (int(units[-1]) + 1) * n)
        where = patcher.here(rows % n)
        if len(units) > 1:  # each unit its own entry of what the source holds
            where = where * torch.eye(len(units))[rows // n - units[0]][:, None, None]
        where, layer, head = where.flatten(0, 1), *divmod(source - 1, graph.sources_per_layer)
        held = {name: x.repeat(len(rows), *[1] * (x.dim() - 1)) for name, x in ablated.items()}
        z = f"blocks.{layer}.attn.hook_z"
        if source == 0:
            hook = put("hook_embed", held["hook_embed"], where=where)
        elif head == graph.n_heads:
            site = f"blocks.{layer}.mlp.hook_post" if graph.level == "neurons" else f"blocks.{layer}.hook_mlp_out"
            hook = put(site, held[site], where=where)
        elif graph.level == "outputs":
            W_O = model.blocks[layer].attn.W_O
            change = ((ablated[z] - clean[z])[:, :, head] @ W_O[head]).repeat(len(rows), 1, 1) * where
            norm, attn_sum = post_norm(model, layer), torch.einsum("bphd,hdm->bpm", clean[z], W_O)
            attn_sum = attn_sum.repeat(len(rows), 1, 1)
            change = change if norm is None else norm(attn_sum + change) - norm(attn_sum)
            hook = add(f"blocks.{layer}.hook_attn_out", change)
        else:
            hook = put(z, held[z], head, where)
        effects[:, rows] = patcher.effect(hook, copies=len(rows)).T
    return effects


@torch.no_grad()
def interpolated_slopes(
    model, graph: sc.Graph, task: sc.Task, group: slice, moved: Tensor, change: Tensor, h: float = 1e-2
) -> Tensor:
    """How m changes, where a group of sources is moved, as v reads a little of ``change[u]`` more: for all edges u -> v that
    leave the group, by a central difference.

    Moving a source is done by adding to what it wrote, where it wrote it.
    """
    patcher = Patcher(model, graph, task)
    if group.start == 0:
        site = "hook_embed"
    else:
        layer, i = divmod(group.start - 1, graph.sources_per_layer)
        site = f"blocks.{layer}.hook_{'mlp' if i == graph.n_heads else 'attn'}_out"
    out = torch.zeros(graph.n_sources, graph.n_destinations)
    with split_inputs(model):
        for v in range(graph.n_destinations):
            sources = group.start + graph.mask[group, v].nonzero().flatten()
            if len(sources):
                both = torch.cat([h * change[sources], -h * change[sources]])
                hooks = [add(site, moved.sum(0).repeat(len(both), 1, 1)), read_hook(graph, v, both.flatten(0, 1))]
                more, less = patcher.metric(hooks, len(both)).mean(1).chunk(2)
                out[sources, v] = (more - less) / (2 * h)
    return out
