"""The norms of a transformer, with the derivative in the form that attribution uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm, RMSNorm or no norm over the last dimension.

    With ``x̂ = (x - mean(x)) r``, ``r = (var(x) + eps)^-1/2`` (RMSNorm: no mean, mean square instead of variance):

        norm(x) = weight * x̂ + bias,        J^T g = r (C (weight * g) - x̂ <x̂, weight * g> / d)

    where ``C`` removes the mean (RMSNorm: the identity) and ``d`` is the width. J is exact, ``eps`` included. A ``frozen``
    norm treats ``r`` as a constant in the backward pass, so that the rank-one part of J is gone; its values are the same.

    ``weight`` is the factor as it is used (Gemma's is 1 + the parameter). RMSNorm multiplies in the weight's dtype, then
    casts to the input's: a float32 weight beside a bfloat16 stream is applied before the rounding.
    """

    kind: Literal["layer", "rms", "none"]
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 0.0
    frozen: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        width = (x.shape[-1],)
        if self.kind == "layer" and not self.frozen:
            return F.layer_norm(x, width, self.weight, self.bias, self.eps)
        if self.frozen:
            out = self.normalize(x, self.inverse_scale(x).detach())
        else:
            out = F.rms_norm(x.float(), width, None, self.eps)
        if self.weight is not None:
            # Llama's RMSNorm casts to the weight's dtype first, Gemma's multiplies in float32
            out = (out.to(self.weight.dtype) if self.kind == "rms" else out) * self.weight
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def inverse_scale(self, x: Tensor) -> Tensor:
        """``r``, shape ``[..., 1]``, in float32."""
        x = x.float()
        if self.kind == "none":
            return torch.ones_like(x[..., :1])
        if self.kind == "layer":
            return (x.var(-1, keepdim=True, correction=0) + self.eps).rsqrt()
        return (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def normalize(self, x: Tensor, inverse_scale: Tensor) -> Tensor:
        """``x̂`` in float32, given ``r``: what the norm yields before its weight and bias."""
        x = x.float()
        return (x - x.mean(-1, keepdim=True)) * inverse_scale if self.kind == "layer" else x * inverse_scale

    def normalized(self, x: Tensor) -> Tensor:
        """``x̂`` in the input's dtype, under the norm's own backward rule."""
        if self.kind == "none":
            return x
        scale = self.inverse_scale(x)
        return self.normalize(x, scale.detach() if self.frozen else scale).to(x.dtype)

    def fold(self, weight: Tensor) -> Tensor:
        """``C diag(norm weight) W`` in float32, for ``W`` of shape ``[..., d, d_out]`` that reads the norm's output.

        Then ``norm(x) W = r (x @ fold(W)) + bias @ W``, and ``J^T W g = r (fold(W) g - x̂ <x̂, fold(W) g> / d)``.
        """
        folded = weight.detach().float()
        if self.weight is not None:
            folded = folded * self.weight.detach().float()[:, None]
        return folded - folded.mean(-2, keepdim=True) if self.kind == "layer" else folded

    def derivative(self, at: Tensor, change: Tensor) -> Tensor:
        """J change, in float32: what the norm's output changes by, to first order, around an input.

        Args:
            at: where the derivative is taken, ``[rows, d]``.
            change: ``[..., rows, d]``.
        """
        change = change.float()
        if self.kind == "none":
            return change
        scale = self.inverse_scale(at)
        if self.kind == "layer":
            change = change - change.mean(-1, keepdim=True)
        out = change * scale
        if not self.frozen:
            normalized = self.normalize(at, scale)
            along = (change * normalized).mean(-1, keepdim=True)
            out -= along * normalized * scale
        return out if self.weight is None else out * self.weight.detach().float()

    def shift(self, weight: Tensor) -> Tensor | float:
        """``bias @ W`` in float32, the part of ``norm(x) W`` that does not depend on ``x``."""
        return 0.0 if self.bias is None else self.bias.detach().float() @ weight.detach().float()


@dataclass(frozen=True, eq=False)
class JointNorm:
    """A norm over all heads at once: ``[..., heads, d_head]``, normalised over the last two dimensions together.

    The input may hold each head several times over (keys that were copied for each query head): the weight is repeated
    likewise, and copies that are equal yield what the norm of one of each yields.
    """

    norm: Norm

    def __call__(self, x: Tensor) -> Tensor:
        norm, (n_heads, d_head) = self.norm, x.shape[-2:]
        if norm.weight is not None:
            weight = norm.weight.unflatten(0, (-1, d_head))
            if n_heads % len(weight):
                raise RuntimeError(f"a norm over {len(weight)} heads was given {n_heads}: it needs all of them")
            norm = replace(norm, weight=weight.repeat_interleave(n_heads // len(weight), dim=0).flatten())
        return norm(x.flatten(-2)).unflatten(-1, (n_heads, d_head))
