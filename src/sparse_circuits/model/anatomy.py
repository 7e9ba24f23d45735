"""What the library needs to know of a model, whatever class it comes from.

An :class:`Anatomy` is a model taken apart into what writes into the residual stream and what reads from it. It holds
references to the model's own weights and calls the model's own embedding, MLPs and unembedding; only the wiring
between them is ours, because a circuit rewires it. :func:`sparse_circuits.model.anatomy_of` builds one and checks it
against the model's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_circuits.model.norm import Norm


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one layer, as per-head weights.

    Attributes:
        W_Q, W_K, W_V: ``[heads, d_model, d_head]``; K and V have one entry per key-value group.
        b_Q, b_K, b_V: ``[heads, d_head]`` or None.
        W_O: ``[heads, d_head, d_model]``; ``b_O``: ``[d_model]`` or None.
        scale: what the products of queries and keys are multiplied by.
        rotate: rotary embedding of ``[batch, pos, heads, d_head]``, or None.
        q_norm, k_norm: norms of queries and keys ``[batch, pos, heads, d_head]``, before the rotation, or None.
        joint_norm: whether these normalise over all heads together, so that patching one head's query or key changes every
            head's: :meth:`mix` and :meth:`pattern` then need all heads at once, and refuse fewer.
        clip: queries, keys and values are cut to ``[-clip, clip]`` before anything else, None for no bound.
        causal: whether position i sees only positions up to i; ``window``: how many of these, None for all.
        softcap: scores become ``softcap * tanh(scores / softcap)``, None for plain scores.
        frozen: treat the attention pattern as a constant in the backward pass.
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor | None
    b_K: Tensor | None
    b_V: Tensor | None
    b_O: Tensor | None
    scale: float
    rotate: Callable[[Tensor], Tensor] | None = None
    q_norm: Callable[[Tensor], Tensor] | None = None
    k_norm: Callable[[Tensor], Tensor] | None = None
    joint_norm: bool = False
    clip: float | None = None
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    frozen: bool = False

    @property
    def n_heads(self) -> int:
        return self.W_Q.shape[0]

    @property
    def n_groups(self) -> int:
        return self.W_K.shape[0]

    def project(self, x: Tensor, which: str, heads: slice | list[int] = slice(None)) -> Tensor:
        """Queries, keys or values ("q", "k" or "v") of a normed stream, of some heads: ``[batch, pos, heads, d_head]``."""
        weight: Tensor = {"q": self.W_Q, "k": self.W_K, "v": self.W_V}[which]
        bias: Tensor | None = {"q": self.b_Q, "k": self.b_K, "v": self.b_V}[which]
        if heads != slice(None):
            weight, bias = weight[heads], None if bias is None else bias[heads]
        flat = F.linear(x, weight.transpose(1, 2).flatten(0, 1), None if bias is None else bias.flatten())
        return flat.unflatten(-1, weight.shape[::2])

    def mix(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, at: Tensor | None = None) -> Tensor:
        """What each head collects: z, ``[batch, pos, heads, d_head]``, from the projections' outputs.

        Args:
            q, k, v: ``[batch, pos, heads, d_head]``; k and v may have fewer heads, each serving a run of queries' heads.
                Any heads will do together, all of them where :attr:`joint_norm`.
            real: ``[batch, pos]``, False at padding, or None. Only attention that looks right needs it: a real position
                never looks at padding on its right under a causal mask.
            at: ``[batch, queries]``, the positions that look, where not all do: z is then ``[batch, queries, heads, d_head]``.
        """
        if self.frozen or self.softcap is not None:
            pattern = self.pattern(q, k, real, at)
            return self.collect(pattern.detach() if self.frozen else pattern, v)
        v = self._values(v, q.shape[2])
        q, k = self._positioned(q, k)
        mask = self._mask(k.shape[2], real, q.device, at, explicit=at is not None)
        q = self._looking(q, at)
        plain = mask is None and self.causal
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=plain, scale=self.scale).transpose(1, 2)

    def pattern(self, q: Tensor, k: Tensor, real: Tensor | None, at: Tensor | None = None) -> Tensor:
        """Where each query looks: ``[batch, heads, query, key]``, rows summing to 1. Arguments as of :meth:`mix`."""
        q, k = self._positioned(q, k)
        scores = self._looking(q, at) @ k.transpose(-1, -2) * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        seen = self._mask(k.shape[2], real, q.device, at, explicit=True)
        scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
        return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)

    def collect(self, pattern: Tensor, v: Tensor) -> Tensor:
        """z, ``[batch, pos, heads, d_head]``, from a :meth:`pattern` and the values' projection as in :meth:`mix`."""
        return (pattern @ self._values(v, pattern.shape[1])).transpose(1, 2)

    def _values(self, v: Tensor, n_heads: int) -> Tensor:
        """Values clipped, one for every query head: ``[batch, heads, pos, d_head]``."""
        return self._shared(self._clipped(v), n_heads).transpose(1, 2)

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def _positioned(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys clipped, normed and rotated, a key for every query head: ``[batch, heads, pos, d_head]``."""
        q, k = self._clipped(q), self._clipped(k)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.k_norm is not None:
            k = self.k_norm(k)
        if self.rotate is not None:
            q, k = self.rotate(q), self.rotate(k)
        return q.transpose(1, 2), self._shared(k, q.shape[2]).transpose(1, 2)

    @staticmethod
    def _shared(x: Tensor, n_heads: int) -> Tensor:
        """Keys or values, one for each query head."""
        return x if x.shape[2] == n_heads else x.repeat_interleave(n_heads // x.shape[2], dim=2)

    @staticmethod
    def _looking(q: Tensor, at: Tensor | None) -> Tensor:
        """The queries ``[batch, heads, pos, d_head]`` at some positions ``[batch, queries]``, or all."""
        if at is None:
            return q
        return q.gather(2, at[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))

    def _mask(
        self, n_pos: int, real: Tensor | None, device: torch.device, at: Tensor | None, explicit: bool
    ) -> Tensor | None:
        """Which keys each query sees (True), broadcastable to ``[batch, heads, query, key]``; None where plain."""
        if not self.causal:
            return None if real is None else real[:, None, None, :]
        windowed = self.window is not None and self.window < n_pos
        if not windowed and not explicit:
            return None
        seen = torch.ones(n_pos, n_pos, dtype=torch.bool, device=device).tril()
        if windowed and self.window is not None:
            seen = seen.triu(1 - self.window)
        return seen if at is None else seen[at][:, None]

    def write(self, z: Tensor) -> Tensor:
        """The sum of all heads, ``b_O`` included, before any post-norm: ``[batch, pos, d_model]``."""
        return F.linear(z.flatten(-2), self.W_O.flatten(0, 1).T, self.b_O)


@dataclass(frozen=True, eq=False)
class MLP:
    """An MLP, taken apart at its hidden units: ``write(hidden(x))``.

    ``hidden(x) = act(up(x))``, or ``act(gate(x)) * up(x) + b_hidden`` where there is a gate: ``[..., d_mlp]``.

    Attributes:
        up, gate: linear, from ``d_model`` to ``d_mlp``; ``gate`` is None in an MLP without one.
        act: the activation function, elementwise.
        W_out: ``[d_mlp, d_model]``; ``b_out``: ``[d_model]`` or None.
        b_hidden: ``[d_mlp]``, or None.
        post_norm: a norm of what the MLP writes, or None.
        relevance: use the rules of layer-wise relevance propagation in the backward pass: the ratio act(x) / x is a
            constant, and each factor of a product gets half of what the product's derivative gives it.
    """

    up: Callable[[Tensor], Tensor]
    act: Callable[[Tensor], Tensor]
    W_out: Tensor
    b_out: Tensor | None
    gate: Callable[[Tensor], Tensor] | None = None
    b_hidden: Tensor | None = None
    post_norm: Norm | None = None
    relevance: bool = False

    @property
    def d_mlp(self) -> int:
        return self.W_out.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        return self.write(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What the hidden units hold for a normed stream."""
        up = self.up(x)
        if self.gate is None:
            return self._activated(up)
        gate = self._activated(self.gate(x))
        product = 0.5 * (gate * up.detach() + gate.detach() * up) if self.relevance else gate * up
        return product if self.b_hidden is None else product + self.b_hidden

    def write(self, hidden: Tensor) -> Tensor:
        """What the MLP adds to the stream, ``b_out`` included, after its post-norm."""
        out = F.linear(hidden, self.W_out.T, self.b_out)
        return out if self.post_norm is None else self.post_norm(out)

    def _activated(self, x: Tensor) -> Tensor:
        if not self.relevance:
            return self.act(x)
        with torch.no_grad():
            # every activation in use is 0 at 0, where the ratio has the derivative for its limit
            small = x.abs() < 1e-6
            ratio = self.act(torch.where(small, 1e-6, x)) / torch.where(small, 1e-6, x)
        return x * ratio


@dataclass(frozen=True, eq=False)
class Block:
    """One layer: attention and MLP with the norms in front of them. ``mlp`` is None in attention-only models.

    All parts of a layer live on one device. A norm of kind "none" stands in front of what reads the stream as it is.
    In a parallel block both read the block's input; otherwise the MLP reads the stream after attention. Where
    ``attn_post_norm`` is not None, the layer's heads write through it together: P(sum of heads + b_O).
    """

    attn_norm: Norm
    attention: Attention
    mlp_norm: Norm | None
    mlp: MLP | None
    parallel: bool = False
    attn_post_norm: Norm | None = None

    @property
    def device(self) -> torch.device:
        """Where the layer's weights live; :func:`~sparse_circuits.model.forward.run_layer` moves the stream there."""
        return self.attention.W_Q.device

    def write_heads(self, z: Tensor) -> Tensor:
        """What a layer's heads add to the stream together: ``[batch, pos, d_model]``."""
        return self.posted(self.attention.write(z))

    def posted(self, written: Tensor) -> Tensor:
        """The sum of heads and ``b_O``, after the post-norm."""
        return written if self.attn_post_norm is None else self.attn_post_norm(written)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A whole model in parts.

    Attributes:
        embed: token ids ``[batch, pos]`` to the token embedding ``[batch, pos, d_model]`` (the "input" node).
        positions: number of positions to what is added at each: ``[pos, d_model]``, or None (rotary, or none).
        blocks: the layers, bottom up.
        final_norm, unembed: from the last residual stream to logits.
        d_vocab, d_vocab_out: number of tokens that go in and, usually the same, that come out.
        max_positions: the longest prompt that the model can run, None where it has no limit.
        device: where tokens, embeddings, the last residual stream and logits live. Layers may live elsewhere
            (:attr:`Block.device`), and with them what a run keeps of them.
        unembed_device: where the unembedding's weights live.
        edits: of an edited model (:func:`sparse_circuits.ablate_features`), by kind of site and layer, what is done in turn to
            what is written there: ``edit(written, read)``. :class:`~sparse_circuits.model.walk.Walk` does them; runs
            that take the stream for a sum of heads and MLPs refuse them.
    """

    embed: Callable[[Tensor], Tensor]
    positions: Callable[[int], Tensor] | None
    blocks: tuple[Block, ...]
    final_norm: Norm
    unembed: Callable[[Tensor], Tensor]
    d_model: int
    d_vocab: int
    d_vocab_out: int
    max_positions: int | None
    dtype: torch.dtype
    device: torch.device
    unembed_device: torch.device
    edits: Mapping[tuple[str, int], Sequence[Any]] = field(default_factory=dict)

    def stream(self, embedding: Tensor, n_pos: int | None = None) -> Tensor:
        """The residual stream before the first block; ``n_pos`` where the embedding is one vector for all positions."""
        if self.positions is None:
            return embedding
        return embedding + self.positions(n_pos or embedding.shape[1]).to(embedding.device)

    def logits(self, stream: Tensor) -> Tensor:
        """Logits of a last residual stream, on :attr:`device`."""
        weight = self.final_norm.weight
        normed = self.final_norm(stream if weight is None else stream.to(weight.device))
        return self.unembed(normed.to(self.unembed_device)).to(self.device)
