"""Running a model layer by layer, keeping what attribution and evaluation need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.model.anatomy import Anatomy, Block


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What happened in one layer of a run.

    ``attn_read``, ``mlp_read`` are the residual stream as attention and MLP read it, before their norms; ``q, k, v`` the
    projections' outputs, before q-norm and rotation; ``z`` what each head collected; ``mlp_out`` what the MLP wrote. Under
    autograd, ``q, k, v`` and ``mlp_read`` are nodes of their own: the gradient there is the gradient with respect to the
    stream *as that destination alone reads it* (for q, k, v: after its norm and projection).
    """

    attn_read: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    z: Tensor
    mlp_read: Tensor | None
    mlp_out: Tensor | None


@dataclass(frozen=True, eq=False)
class MLPTrace:
    """A layer of which only the MLP was run again."""

    mlp_read: Tensor
    q: None = None
    k: None = None
    v: None = None


def run_layer(block: Block, stream: Tensor, real: Tensor | None, ungroup: bool = False) -> tuple[LayerTrace, Tensor]:
    """One layer: its trace and the stream after it.

    Args:
        ungroup: give each query head its own copy of its group's keys and values, so that each has its own gradient.
    """
    attention = block.attention
    normed = block.attn_norm(stream)
    q, k, v = (attention.project(normed, which) for which in "qkv")
    if ungroup and attention.n_groups != attention.n_heads:
        k, v = (x.repeat_interleave(attention.n_heads // attention.n_groups, dim=2) for x in (k, v))
    z = attention.mix(q, k, v, real)
    after_attention = stream + attention.write(z)
    if block.mlp is None or block.mlp_norm is None:
        return LayerTrace(stream, q, k, v, z, None, None), after_attention
    mlp_read = (stream if block.parallel else after_attention).view_as(stream)
    mlp_out = block.mlp(block.mlp_norm(mlp_read))
    return LayerTrace(stream, q, k, v, z, mlp_read, mlp_out), after_attention + mlp_out


@dataclass(frozen=True, eq=False)
class Sources:
    """What every source wrote in a run, each in its most compact form.

    ``embedding``: ``[batch, pos, d_model]``; per layer ``z``: ``[batch, pos, heads, d_head]`` and ``mlp``:
    ``[batch, pos, d_model]`` or None. Constants that stand for a run (zero, means) broadcast over batch and position.
    """

    embedding: Tensor
    z: tuple[Tensor, ...]
    mlp: tuple[Tensor | None, ...]

    def minus(self, other: Sources) -> Sources:
        """Difference source by source, detached."""
        return Sources(
            (self.embedding - other.embedding).detach(),
            tuple((a - b).detach() for a, b in zip(self.z, other.z, strict=True)),
            tuple(
                None if a is None or b is None else (a - b).detach() for a, b in zip(self.mlp, other.mlp, strict=True)
            ),
        )


@dataclass(frozen=True, eq=False)
class Run:
    """A whole run: its traces, layer by layer, and the residual stream at the end."""

    embedding: Tensor
    layers: tuple[LayerTrace, ...]
    final: Tensor

    @property
    def sources(self) -> Sources:
        return Sources(self.embedding, tuple(t.z for t in self.layers), tuple(t.mlp_out for t in self.layers))


@dataclass(frozen=True, eq=False)
class Rerun:
    """A run restarted part-way: None for the layers that were not run again."""

    layers: tuple[LayerTrace | MLPTrace | None, ...]
    final: Tensor


def rerun_from_heads(anatomy: Anatomy, clean: Run, layer: int, z: Tensor, real: Tensor | None, ungroup: bool) -> Rerun:
    """Everything after a layer's heads again, with another ``z``; what ran before or beside them stays as it was."""
    block, trace = anatomy.blocks[layer], clean.layers[layer]
    stream = trace.attn_read + block.attention.write(z)
    here = None
    if block.mlp is not None and block.mlp_norm is not None and trace.mlp_out is not None:
        if block.parallel:
            stream = stream + trace.mlp_out
        else:
            here = MLPTrace(stream.view_as(stream))
            stream = stream + block.mlp(block.mlp_norm(here.mlp_read))
    return _rest(anatomy, stream, layer, here, real, ungroup)


def rerun_from_mlp(
    anatomy: Anatomy, clean: Run, layer: int, mlp_out: Tensor, real: Tensor | None, ungroup: bool
) -> Rerun:
    """Everything after a layer's MLP again, with another output of it."""
    trace = clean.layers[layer]
    stream = trace.attn_read + anatomy.blocks[layer].attention.write(trace.z) + mlp_out
    return _rest(anatomy, stream, layer, None, real, ungroup)


def _rest(
    anatomy: Anatomy, stream: Tensor, layer: int, here: MLPTrace | None, real: Tensor | None, ungroup: bool
) -> Rerun:
    layers: list[LayerTrace | MLPTrace | None] = [*(None,) * layer, here]
    for block in anatomy.blocks[layer + 1 :]:
        trace, stream = run_layer(block, stream, real, ungroup)
        layers.append(trace)
    return Rerun(tuple(layers), stream)


def run(anatomy: Anatomy, embedding: Tensor, real: Tensor | None, ungroup: bool = False) -> Run:
    """The plain forward pass from a token embedding, up to the last residual stream."""
    stream = anatomy.stream(embedding)
    layers = []
    for block in anatomy.blocks:
        trace, stream = run_layer(block, stream, real, ungroup)
        layers.append(trace)
    return Run(embedding, tuple(layers), stream)


@torch.no_grad()
def run_sources(anatomy: Anatomy, embedding: Tensor, real: Tensor | None) -> tuple[Sources, Tensor]:
    """The plain forward pass without autograd: only what the sources wrote, and the last residual stream."""
    stream = anatomy.stream(embedding)
    z, mlp = [], []
    for block in anatomy.blocks:
        trace, stream = run_layer(block, stream, real)
        z.append(trace.z)
        mlp.append(trace.mlp_out)
    return Sources(embedding, tuple(z), tuple(mlp)), stream
