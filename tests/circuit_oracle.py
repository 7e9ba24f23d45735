"""Slow and obvious: circuits run through TransformerLens's own hooks, one reading place at a time.

What a layer's queries, keys and values, its MLP or the logits read is set outright, and what comes out is read off; only the
sums that they read are added up here. Prompts of one length.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from oracles import post_norm, split_inputs
from torch import Tensor

import sparse_circuits as sc


class Parts:
    """A model's parts, each run alone by setting what it reads in a run of the whole model."""

    def __init__(self, model, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self.n_heads = model.cfg.n_heads
        self.has_mlp = not model.cfg.attn_only
        # GPT-J's attention in TransformerLens has no inputs of its own for q, k and v
        self.split = type(model.blocks[0].attn).__name__ != "AttentionBridge"

    def run(self, sets: dict[str, Tensor], reads: tuple[str, ...]) -> list[Tensor]:
        """What stands at some hooks of a run in which others are set."""
        found: dict[str, Tensor] = {}

        def put(x: Tensor, hook: object, value: Tensor) -> Tensor:
            return value.reshape(x.shape)

        def keep(x: Tensor, hook: object, name: str) -> None:
            found[name] = x

        hooks: list = [(name, lambda x, hook, value=value: put(x, hook, value)) for name, value in sets.items()]
        hooks += [(name, lambda x, hook, name=name: keep(x, hook, name)) for name in reads]
        with torch.no_grad(), split_inputs(self.model) if self.split else nullcontext():
            found["logits"] = self.model.run_with_hooks(self.tokens, fwd_hooks=hooks, return_type="logits")
        return [found[name] for name in (*reads, "logits")]

    def heads(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z, ``[batch, pos, heads, d_head]``, from streams ``[batch, pos, heads or groups, d_model]``."""
        streams = dict(zip("qkv", (q, k, v), strict=True))
        if self.split:
            sets = {f"blocks.{layer}.hook_{which}_input": x for which, x in streams.items()}
        else:
            block, sets = self.model.blocks[layer], {}
            for which, x in streams.items():
                projected = getattr(block.attn, which)(block.ln1(x)).unflatten(-1, (x.shape[2], -1))
                own = projected.diagonal(dim1=2, dim2=3).movedim(-1, 2)
                sets[f"blocks.{layer}.attn.{which}.hook_out"] = own
        z, _ = self.run(sets, (f"blocks.{layer}.attn.hook_z",))
        return z.unflatten(-1, (self.n_heads, -1)) if z.dim() == 3 else z

    def mlp(self, layer: int, stream: Tensor) -> tuple[Tensor, Tensor]:
        """What the MLP writes, and its hidden units."""
        block = self.model.blocks[layer]
        site, value = f"blocks.{layer}.hook_mlp_in", stream
        one_norm = hasattr(block, "ln1") and not hasattr(block, "ln2")  # of attention and MLP
        if hasattr(block, "original_component") and one_norm:
            site, value = f"blocks.{layer}.mlp.hook_in", block.ln1(stream)
        out, hidden, _ = self.run({site: value}, (f"blocks.{layer}.hook_mlp_out", self.hidden_site(layer)))
        return out, hidden

    def hidden_site(self, layer: int) -> str:
        return f"blocks.{layer}.mlp." + ("out.hook_in" if hasattr(self.model.blocks[layer].mlp, "out") else "hook_post")

    def write_hidden(self, layer: int, hidden: Tensor) -> Tensor:
        return self.run({self.hidden_site(layer): hidden}, (f"blocks.{layer}.hook_mlp_out",))[0]

    def attn_sum(self, layer: int, z: Tensor) -> Tensor:
        """The sum of the heads and ``b_O``."""
        attn = self.model.blocks[layer].attn
        total = torch.einsum("bphd,hdm->bpm", z, attn.W_O)
        return total if attn.b_O is None else total + attn.b_O

    def posted(self, layer: int, attn_sum: Tensor) -> Tensor:
        """The same after a post-norm, if the layer has one."""
        norm = post_norm(self.model, layer)
        return attn_sum if norm is None else norm(attn_sum)


class Values:
    """What every source holds in the plain run on some prompts: embedding, z, hidden units, MLP outputs."""

    def __init__(self, model, tokens: Tensor) -> None:
        parts = Parts(model, tokens)
        reads = ["hook_embed", "blocks.0.hook_resid_pre"]
        for layer in range(model.cfg.n_layers):
            reads.append(f"blocks.{layer}.attn.hook_z")
            if parts.has_mlp:
                reads += [parts.hidden_site(layer), f"blocks.{layer}.hook_mlp_out"]
        found = dict(zip(reads, parts.run({}, tuple(reads)), strict=False))
        self.embedding = found["hook_embed"]
        self.positions = found["blocks.0.hook_resid_pre"] - self.embedding
        layers = range(model.cfg.n_layers)
        z = [found[f"blocks.{layer}.attn.hook_z"] for layer in layers]
        self.z = [x.unflatten(-1, (parts.n_heads, -1)) if x.dim() == 3 else x for x in z]
        self.hidden = [found[parts.hidden_site(layer)] for layer in layers] if parts.has_mlp else []
        self.mlp = [found[f"blocks.{layer}.hook_mlp_out"] for layer in layers] if parts.has_mlp else []

    def ablated(self, ablation: str) -> Values:
        """Constants of a kind of ablation made from these values."""

        def constant(x: Tensor) -> Tensor:
            if ablation == "ZERO":
                return torch.zeros_like(x)
            return x.mean((0, 1) if ablation == "MEAN" else 0, keepdim=True).expand_as(x)

        out = object.__new__(Values)
        out.embedding, out.positions = constant(self.embedding), self.positions
        out.z, out.hidden, out.mlp = ([constant(x) for x in xs] for xs in (self.z, self.hidden, self.mlp))
        return out


def values_of(model, task: sc.Task, ablation: str) -> Values:
    """The ablated values of a task."""
    if ablation == "PATCH":
        return Values(model, torch.tensor(task.corrupted))
    return Values(model, torch.tensor(task.clean)).ablated(ablation)


def circuit_metric(model, circuit: sc.Circuit, task: sc.Task, ablated: Values, groups: Tensor | None = None) -> Tensor:
    """The metric (a LogitDiff of ids) per example with only a circuit.

    Args:
        groups: every token's position, ``[batch, pos]``, where the graph has positions.
    """
    tokens = torch.tensor(task.clean)
    parts, clean = Parts(model, tokens), Values(model, tokens)
    groups = torch.zeros_like(tokens) if groups is None else groups
    run = _edges if circuit.graph.level == "edges" else _units
    final = run(parts, circuit, clean, ablated, groups)
    last = circuit.graph.n_layers - 1
    logits = parts.run({f"blocks.{last}.hook_resid_post": final}, ())[-1][:, -1]
    rows, metric = torch.arange(len(tokens)), task.metric
    assert isinstance(metric, sc.LogitDiff)
    return logits[rows, torch.tensor(metric.correct)] - logits[rows, torch.tensor(metric.incorrect)]


def _edges(parts: Parts, circuit: sc.Circuit, clean: Values, ablated: Values, groups: Tensor) -> Tensor:
    graph, n = circuit.graph, circuit.graph.n_positions
    mask = circuit.mask.view(graph.n_sources, n, graph.n_destinations, n).float()
    z, mlp = list(ablated.z), list(ablated.mlp)

    def reads(destination: int, layers: int, query: int | None, heads_too: bool = False) -> Tensor:
        """The stream: after ``layers`` layers (and one more layer's heads); for a query at another position, or one's own."""
        weights = mask[:, :, destination]
        gate = weights[:, groups, groups] if query is None else weights[:, groups, query]  # [sources, batch, pos]

        def mixed(u: int, now: Tensor, then: Tensor) -> Tensor:
            return then + gate[u][..., None] * (now - then)

        stream = clean.positions + mixed(0, clean.embedding, ablated.embedding)
        for layer in range(layers + heads_too):
            at = graph.heads_at(layer).start
            heads = [mixed(at + h, z[layer][:, :, h], ablated.z[layer][:, :, h]) for h in range(graph.n_heads)]
            stream = stream + parts.posted(layer, parts.attn_sum(layer, torch.stack(heads, 2)))
            if graph.has_mlp and layer < layers:
                stream = stream + mixed(graph.mlp_at(layer), mlp[layer], ablated.mlp[layer])
        return stream

    for layer in range(graph.n_layers):
        q, k, v = (range(graph.n_destinations)[graph.reads_at(layer, which)] for which in "qkv")
        queries = torch.stack([reads(i, layer, None) for i in q], 2)
        found = torch.zeros_like(z[layer])
        for p in range(n):
            keys, values = (torch.stack([reads(i, layer, p) for i in which], 2) for which in (k, v))
            found = torch.where((groups == p)[..., None, None], parts.heads(layer, queries, keys, values), found)
        z[layer] = found
        if graph.has_mlp:
            stream = reads(graph.reads_at(layer, "mlp").start, layer, None, heads_too=not graph.parallel)
            mlp[layer], _ = parts.mlp(layer, stream)
    return reads(graph.n_destinations - 1, graph.n_layers, None)


def _units(parts: Parts, circuit: sc.Circuit, clean: Values, ablated: Values, groups: Tensor) -> Tensor:
    graph = circuit.graph
    mask = circuit.mask.view(graph.n_units, -1).float()

    def mixed(units: slice, now: Tensor, then: Tensor, shape: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        return then + shape(mask[units][:, groups].movedim(0, -1)) * (now - then)

    stream = clean.positions + mixed(slice(0, graph.units_of_input), clean.embedding, ablated.embedding)
    for layer in range(graph.n_layers):
        units, W_O = graph.units_at(layer, "heads"), parts.model.blocks[layer].attn.W_O
        groups_of = parts.model.cfg.n_key_value_heads or graph.n_heads
        q, kv = (stream[:, :, None].expand(-1, -1, n, -1) for n in (graph.n_heads, groups_of))
        z, then = parts.heads(layer, q, kv, kv), ablated.z[layer]

        def per_head(gate: Tensor) -> Tensor:
            return gate.unflatten(-1, (graph.n_heads, -1))

        if graph.level == "outputs":
            now, before = (torch.einsum("bphd,hdm->bphm", x, W_O) for x in (z, then))
            bias = parts.attn_sum(layer, torch.zeros_like(z))
            total = mixed(units, now, before, per_head).sum(2) + bias
        else:
            total = parts.attn_sum(layer, mixed(units, z, then, per_head))
        after = stream + parts.posted(layer, total)
        if graph.has_mlp:
            out, hidden = parts.mlp(layer, stream if graph.parallel else after)
            units = graph.units_at(layer, "mlp")
            if graph.level == "neurons":
                after = after + parts.write_hidden(layer, mixed(units, hidden, ablated.hidden[layer]))
            else:
                after = after + mixed(units, out, ablated.mlp[layer])
        stream = after
    return stream
