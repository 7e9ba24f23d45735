"""Running a model layer by layer, keeping what attribution and evaluation need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy, Block


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What happened in one layer of a run.

    ``attn_read``, ``mlp_read`` are the residual stream as attention and MLP read it, before their norms; ``q, k, v`` the
    projections' outputs, before q-norm and rotation; ``z`` what each head collected; ``mlp_out`` what the MLP wrote. Kept
    where a post-norm follows, or where asked for: ``attn_sum``, the sum of the heads and ``b_O`` before the post-norm, and
    ``hidden``, what the MLP's units held. Under autograd, ``q, k, v`` and ``mlp_read`` are nodes of their own: the gradient
    there is the gradient with respect to the stream *as that destination alone reads it* (for q, k, v: after its norm and
    projection). All of it lives on the layer's device.
    """

    attn_read: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    z: Tensor
    attn_sum: Tensor | None
    mlp_read: Tensor | None
    mlp_out: Tensor | None
    hidden: Tensor | None = None


@dataclass(frozen=True, eq=False)
class MLPTrace:
    """A layer of which only the MLP was run again."""

    mlp_read: Tensor
    q: None = None
    k: None = None
    v: None = None


def run_layer(
    block: Block, stream: Tensor, real: Tensor | None, ungroup: bool = False, units: bool = False
) -> tuple[LayerTrace, Tensor]:
    """One layer: its trace and the stream after it, both on the layer's device.

    Args:
        units: keep what single units need: ``attn_sum`` and ``hidden``.
        ungroup: give each query head its own copy of its group's keys and values, so that each has its own gradient.
    """
    attention = block.attention
    stream, real = stream.to(block.device), None if real is None else real.to(block.device)
    normed = block.attn_norm(stream)
    q, k, v = (attention.project(normed, which) for which in "qkv")
    if ungroup and attention.n_groups != attention.n_heads:
        k, v = (x.repeat_interleave(attention.n_heads // attention.n_groups, dim=2) for x in (k, v))
    z = attention.mix(q, k, v, real)
    attn_sum = attention.write(z)
    after_attention = stream + block.posted(attn_sum)
    kept = attn_sum if units or block.attn_post_norm is not None else None
    if block.mlp is None or block.mlp_norm is None:
        return LayerTrace(stream, q, k, v, z, kept, None, None), after_attention
    mlp_read = (stream if block.parallel else after_attention).view_as(stream)
    hidden = block.mlp.hidden(block.mlp_norm(mlp_read))
    mlp_out = block.mlp.write(hidden)
    trace = LayerTrace(stream, q, k, v, z, kept, mlp_read, mlp_out, hidden if units else None)
    return trace, after_attention + mlp_out


@dataclass(frozen=True, eq=False)
class Sources:
    """What every source wrote in a run, each in its most compact form.

    ``embedding``: ``[batch, pos, d_model]``; per layer ``z``: ``[batch, pos, heads, d_head]`` and ``mlp``:
    ``[batch, pos, d_model]`` or None; where single units are looked at, ``hidden``: ``[batch, pos, d_mlp]`` or None.
    Constants that stand for a run (zero, means) broadcast over batch and position.
    """

    embedding: Tensor
    z: tuple[Tensor, ...]
    mlp: tuple[Tensor | None, ...]
    hidden: tuple[Tensor | None, ...]

    def minus(self, other: Sources, *, in_place: bool = False) -> Sources:
        """Difference source by source, detached; ``in_place`` where this run is not needed any more."""

        def less(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            if a is None or b is None:
                return None
            return a.sub_(b.detach()) if in_place else (a - b).detach()

        embedding, z = less(self.embedding, other.embedding), tuple(map(less, self.z, other.z))
        if embedding is None or any(part is None for part in z):
            raise RuntimeError("a run without embedding or heads")
        return Sources(
            embedding,
            tuple(part for part in z if part is not None),
            tuple(map(less, self.mlp, other.mlp)),
            tuple(map(less, self.hidden, other.hidden)),
        )


@dataclass(frozen=True, eq=False)
class Run:
    """A whole run: its traces, layer by layer, and the residual stream at the end."""

    embedding: Tensor
    layers: tuple[LayerTrace, ...]
    final: Tensor

    @property
    def sources(self) -> Sources:
        layers = self.layers
        return Sources(
            self.embedding,
            tuple(t.z for t in layers),
            tuple(t.mlp_out for t in layers),
            tuple(t.hidden for t in layers),
        )

    @property
    def attn_sums(self) -> tuple[Tensor | None, ...]:
        """Per layer, the sum of its heads before the post-norm, where kept."""
        return tuple(t.attn_sum for t in self.layers)


@dataclass(frozen=True, eq=False)
class Rerun:
    """A run restarted part-way: None for the layers that were not run again.

    ``start`` is the value that it was restarted from. ``attn_sums`` are those of :class:`Run`, and of the layer whose heads
    were changed.
    """

    start: Tensor
    layers: tuple[LayerTrace | MLPTrace | None, ...]
    attn_sums: tuple[Tensor | None, ...]
    final: Tensor


def rerun_from_heads(anatomy: Anatomy, clean: Run, layer: int, z: Tensor, real: Tensor | None, ungroup: bool) -> Rerun:
    """Everything after a layer's heads again, with another ``z``; what ran before or beside them stays as it was."""
    block, trace = anatomy.blocks[layer], clean.layers[layer]
    attn_sum = block.attention.write(z)
    stream = trace.attn_read + block.posted(attn_sum)
    here = None
    if block.mlp is not None and block.mlp_norm is not None and trace.mlp_out is not None:
        if block.parallel:
            stream = stream + trace.mlp_out
        else:
            here = MLPTrace(stream.view_as(stream))
            stream = stream + block.mlp(block.mlp_norm(here.mlp_read))
    return _rest(anatomy, z, stream, layer, here, attn_sum, real, ungroup)


def rerun_from_mlp(
    anatomy: Anatomy, clean: Run, layer: int, mlp_out: Tensor, real: Tensor | None, ungroup: bool
) -> Rerun:
    """Everything after a layer's MLP again, with another output of it."""
    trace = clean.layers[layer]
    stream = trace.attn_read + anatomy.blocks[layer].write_heads(trace.z) + mlp_out
    return _rest(anatomy, mlp_out, stream, layer, None, None, real, ungroup)


def _rest(
    anatomy: Anatomy,
    start: Tensor,
    stream: Tensor,
    layer: int,
    here: MLPTrace | None,
    attn_sum: Tensor | None,
    real: Tensor | None,
    ungroup: bool,
) -> Rerun:
    layers: list[LayerTrace | MLPTrace | None] = [*(None,) * layer, here]
    attn_sums = [*(None,) * layer, attn_sum]
    for block in anatomy.blocks[layer + 1 :]:
        trace, stream = run_layer(block, stream, real, ungroup)
        layers.append(trace)
        attn_sums.append(trace.attn_sum)
    return Rerun(start, tuple(layers), tuple(attn_sums), stream.to(anatomy.device))


def run(anatomy: Anatomy, embedding: Tensor, real: Tensor | None, ungroup: bool = False, units: bool = False) -> Run:
    """The plain forward pass from a token embedding, up to the last residual stream."""
    _refuse_edits(anatomy)
    stream = anatomy.stream(embedding)
    layers = []
    for block in anatomy.blocks:
        trace, stream = run_layer(block, stream, real, ungroup, units)
        layers.append(trace)
    return Run(embedding, tuple(layers), stream.to(anatomy.device))


@torch.no_grad()
def run_sources(
    anatomy: Anatomy, embedding: Tensor, real: Tensor | None, units: bool = False
) -> tuple[Sources, Tensor]:
    """The plain forward pass without autograd: only what the sources wrote, and the last residual stream."""
    _refuse_edits(anatomy)
    stream = anatomy.stream(embedding)
    z, mlp, hidden = [], [], []
    for block in anatomy.blocks:
        trace, stream = run_layer(block, stream, real, units=units)
        z.append(trace.z)
        mlp.append(trace.mlp_out)
        hidden.append(trace.hidden)
    return Sources(embedding, tuple(z), tuple(mlp), tuple(hidden)), stream.to(anatomy.device)


def _refuse_edits(anatomy: Anatomy) -> None:
    if anatomy.edits:
        sites = ", ".join(edit.site.name for edits in anatomy.edits.values() for edit in edits)
        raise InputError(
            f"Features were ablated from this model for good (at {sites}), so its stream is no longer the sum of what heads and "
            "MLPs write, which graphs of these take it for. Use the original model, or a feature graph: Graph.of(model, "
            "dictionaries)."
        )
