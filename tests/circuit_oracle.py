"""Slow and obvious: circuits run through TransformerLens's own hooks, one reading place at a time.

What a layer's queries, keys and values, its MLP or the logits read is set outright, and what comes out is read off; only the
sums that they read are added up here. Prompts of one length. Circuits of one graph run together: a batch holds a copy of the
prompts for each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from oracles import post_norm, run_hooked, split_inputs
from torch import Tensor

import sparse_circuits as sc


class Parts:
    """A model's parts, each run alone by setting what it reads in a run of the whole model."""

    def __init__(self, model, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self.n_heads = model.cfg.n_heads
        self.has_mlp = not model.cfg.attn_only
        self.points = dict(model.hook_dict)  # a bridge puts it together anew every time
        # GPT-J's attention in TransformerLens has no inputs of its own for q, k and v
        self.split = type(model.blocks[0].attn).__name__ != "AttentionBridge"

    def run(self, sets: dict[str, Tensor], reads: tuple[str, ...]) -> list[Tensor]:
        """What stands at some hooks of a run in which others are set."""
        found: dict[str, Tensor] = {}

        def put(x: Tensor, hook: object, value: Tensor) -> Tensor:
            return value.reshape(x.shape)

        def keep(x: Tensor, hook: object, name: str) -> None:
            found[name] = x

        hooks: list = [(name, partial(put, value=value)) for name, value in sets.items()]
        hooks += [(name, partial(keep, name=name)) for name in reads]
        with torch.no_grad(), split_inputs(self.model) if self.split else nullcontext():
            found["logits"] = run_hooked(self.model, self.points, self.tokens, hooks)
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

    def each(self, change: Callable[[Tensor], Tensor]) -> Values:
        """The same with every value changed, and the learned positions as they are."""
        out = object.__new__(Values)
        out.embedding, out.positions = change(self.embedding), self.positions
        out.z, out.hidden, out.mlp = ([change(x) for x in xs] for xs in (self.z, self.hidden, self.mlp))
        return out

    def ablated(self, ablation: str) -> Values:
        """Constants of a kind of ablation made from these values."""
        if ablation == "ZERO":
            return self.each(torch.zeros_like)
        over = (0, 1) if ablation == "MEAN" else 0
        return self.each(lambda x: x.mean(over, keepdim=True).expand_as(x))

    def repeated(self, copies: int) -> Values:
        out = self.each(lambda x: x.repeat(copies, *[1] * (x.dim() - 1)))
        out.positions = self.positions.repeat(copies, 1, 1)
        return out


class CircuitOracle:
    """The metric (a LogitDiff of ids) of a task's prompts with only a circuit.

    Args:
        groups: every token's position, ``[batch, pos]``, where the graph has positions.
    """

    def __init__(self, model, task: sc.Task, ablation: str, groups: Tensor | None = None) -> None:
        self.model, self.tokens = model, torch.tensor(task.clean)
        self.clean = Values(model, self.tokens)
        patch = ablation == "PATCH"
        self.ablated = Values(model, torch.tensor(task.corrupted)) if patch else self.clean.ablated(ablation)
        self.groups = torch.zeros_like(self.tokens) if groups is None else groups
        assert isinstance(task.metric, sc.LogitDiff)
        self.right, self.wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)

    def metrics(self, circuits: list[sc.Circuit]) -> Tensor:
        """``[circuits, examples]``."""
        graph, copies = circuits[0].graph, len(circuits)
        assert all(circuit.graph == graph for circuit in circuits)
        parts = Parts(self.model, self.tokens.repeat(copies, 1))
        run, masks = _edges if graph.level == "edges" else _units, [circuit.mask.float() for circuit in circuits]
        final = run(parts, graph, masks, self.clean.repeated(copies), self.ablated.repeated(copies), self.groups)
        logits = parts.run({f"blocks.{graph.n_layers - 1}.hook_resid_post": final}, ())[-1][:, -1]
        rows = torch.arange(len(logits))
        right, wrong = (logits[rows, answers.repeat(copies)] for answers in (self.right, self.wrong))
        return (right - wrong).view(copies, -1)


def _edges(
    parts: Parts, graph: sc.Graph, masks: list[Tensor], clean: Values, ablated: Values, groups: Tensor
) -> Tensor:
    n = graph.n_positions
    masks = [mask.view(graph.n_sources, n, graph.n_destinations, n) for mask in masks]
    here = groups.repeat(len(masks), 1)
    z, mlp = list(ablated.z), list(ablated.mlp)

    def reads(destination: int, layers: int, query: int | None, heads_too: bool = False) -> Tensor:
        """The stream: after ``layers`` layers (and one more layer's heads); for a query at another position, or one's own."""
        weights = [mask[:, :, destination] for mask in masks]
        gate = torch.cat(
            [w[:, groups, groups if query is None else query] for w in weights], 1
        )  # [sources, batch, pos]

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
            found = torch.where((here == p)[..., None, None], parts.heads(layer, queries, keys, values), found)
        z[layer] = found
        if graph.has_mlp:
            stream = reads(graph.reads_at(layer, "mlp").start, layer, None, heads_too=not graph.parallel)
            mlp[layer], _ = parts.mlp(layer, stream)
    return reads(graph.n_destinations - 1, graph.n_layers, None)


def _units(
    parts: Parts, graph: sc.Graph, masks: list[Tensor], clean: Values, ablated: Values, groups: Tensor
) -> Tensor:
    masks = [mask.view(graph.n_units, -1) for mask in masks]

    def mixed(units: slice, now: Tensor, then: Tensor, shape: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        gate = torch.cat([mask[units][:, groups].movedim(0, -1) for mask in masks])
        return then + shape(gate) * (now - then)

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
