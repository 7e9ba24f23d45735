"""Restarting a clean run where something in it was changed, on the tokens that the change can reach.

Everything but attention works token by token, so what runs again is a flat list of tokens, ``[changes, tokens, d_model]``:
none before the first change, which a causal model cannot tell, no padding, and none after the one token that a metric
reads. The last layer runs only where the metric reads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import run
from sparse_circuits.model.norm import Norm
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits
from sparse_circuits.task.metrics import Metric, PositionMetric


class Restart:
    """The clean run of a batch, and what follows from a change of it.

    *Tokens* are ascending places in the flattened ``[examples * pos]``. A *change* is what the residual stream gets besides
    at each of them, float32 ``[changes, tokens, d_model]``; an *effect* is what that does to the metric, float32
    ``[changes, examples]``.

    Attributes:
        batch: with the clean logits, where the metric needs them.
        value: the metric of the clean run, ``[examples]``.
        read: the tokens whose last stream the metric reads.
    """

    def __init__(self, anatomy: Anatomy, metric: Metric, batch: Batch, units: bool = False) -> None:
        self.anatomy, self.metric, self.shape = anatomy, metric, batch.tokens.shape
        self.clean = run(anatomy, anatomy.embed(batch.tokens), batch.padding, units=units)
        self.batch = with_clean_logits(anatomy, metric, self.clean.final, batch)
        self.value = measure(anatomy, metric, self.clean.final, self.batch)
        self._padding = batch.padding
        self._causal = all(block.attention.causal for block in anatomy.blocks)
        self._seen = batch.real
        if isinstance(metric, PositionMetric):
            rows = metric.rows(batch.lengths)
            self.read = rows + torch.arange(len(rows), device=rows.device) * self.shape[1]
            if self._causal:
                self._seen = torch.arange(self.shape[1], device=rows.device)[None] <= rows[:, None]
        else:
            self.read = self._seen.flatten().nonzero()[:, 0]

    # --- tokens ---

    def reached(self, changed: Tensor) -> Tensor:
        """The tokens that a change of some tokens can reach, as far as the metric sees them.

        Args:
            changed: bool ``[examples, pos]``.
        """
        after = changed.cumsum(1) > 0 if self._causal else changed.any(1, keepdim=True)
        return (after & self._seen).flatten().nonzero()[:, 0]

    def looking(self, layer: int, tokens: Tensor) -> Tensor:
        """Those tokens that need what a layer adds to them: all, but in the last layer the ones that the metric reads."""
        return tokens if layer + 1 < len(self.anatomy.blocks) else tokens[torch.isin(tokens, self.read)]

    def at(self, values: Tensor, tokens: Tensor) -> Tensor:
        """Values ``[examples, pos, ...]`` at some tokens; a constant that stands for all of them is repeated."""
        return values.expand(*self.shape, *values.shape[2:]).flatten(0, 1)[tokens.to(values.device)]

    # --- from a change of the stream to the effect ---

    def layer_changed(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """The effect of a change of the stream after a layer (before the first one: -1).

        Args:
            tokens: of the last layer, only those that the metric reads.
        """
        layers, last = self.clean.layers, len(self.anatomy.blocks) - 1
        after = self.clean.final if layer == last else layers[layer + 1].attn_read
        stream = self.moved(after, change, tokens)
        for above in range(layer + 1, last + 1):
            stream, tokens = self._layer(above, stream, tokens)
        return self.effect(stream, tokens)

    def heads_changed(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """The effect of a change of what a layer's heads wrote, after any post-norm. Arguments as above."""
        if self.anatomy.blocks[layer].mlp is not None and not self.anatomy.blocks[layer].parallel:
            change = change + self.mlp_change(layer, change, tokens)
        return self.layer_changed(layer, change, tokens)

    def mlp_change(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """What a layer's MLP writes besides if the stream that it reads changes: as ``change``."""
        block, trace = self.anatomy.blocks[layer], self.clean.layers[layer]
        if block.mlp is None or block.mlp_norm is None or trace.mlp_read is None or trace.mlp_out is None:
            raise RuntimeError("a layer without an MLP")
        written = block.mlp(block.mlp_norm(self.moved(trace.mlp_read, change, tokens)))
        return written.float() - self.at(trace.mlp_out, tokens).float()

    def posted(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """What a change of the sum of a layer's heads comes to after their post-norm, if they have one."""
        norm, attn_sum = self.anatomy.blocks[layer].attn_post_norm, self.clean.layers[layer].attn_sum
        return change if norm is None or attn_sum is None else _through(norm, self.at(attn_sum, tokens), change)

    def mlp_posted(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """What a change of what an MLP's hidden units write comes to after its post-norm, if it has one."""
        mlp, hidden = self.anatomy.blocks[layer].mlp, self.clean.layers[layer].hidden
        if mlp is None or mlp.post_norm is None or hidden is None:
            return change
        return _through(mlp.post_norm, F.linear(self.at(hidden, tokens), mlp.W_out.T, mlp.b_out), change)

    # --- attention ---

    def read_by_heads(self, layer: int, change: Tensor, tokens: Tensor) -> Tensor:
        """What a layer's q, k and v project, the stream changed: ``[changes, tokens, d_model]``."""
        return self.anatomy.blocks[layer].attn_norm(self.moved(self.clean.layers[layer].attn_read, change, tokens))

    def mix(
        self, layer: int, projected: dict[str, Tensor], tokens: Tensor, queries: Tensor, heads: list[int] | None = None
    ) -> Tensor:
        """z at some tokens, all clean but what is given: ``[changes, queries, heads, d_head]``.

        Args:
            projected: new outputs of "q" (at ``queries``), "k" or "v" (at ``tokens``): ``[changes, tokens, heads, d_head]``;
                k and v may have a copy for each query head.
            heads: the only ones to run, with a copy of k and v for each.
        """
        trace, n = self.clean.layers[layer], len(next(iter(projected.values())))
        parts = []
        for which, clean in (("q", trace.q), ("k", trace.k), ("v", trace.v)):
            if heads is not None:
                clean = clean[:, :, [h * clean.shape[2] // trace.q.shape[2] for h in heads]]
            elif which in projected and projected[which].shape[2] > clean.shape[2]:
                clean = clean.repeat_interleave(projected[which].shape[2] // clean.shape[2], dim=2)
            part = clean.repeat(n, 1, 1, 1)
            if which in projected:
                places = (queries if which == "q" else tokens).to(part.device)
                part.unflatten(0, (n, -1)).flatten(1, 2).index_copy_(1, places, projected[which])
            parts.append(part)
        at, back = self._table(queries, trace.z.device)
        real = None if self._padding is None else self._padding.to(at.device).repeat(n, 1)
        z = self.anatomy.blocks[layer].attention.mix(parts[0], parts[1], parts[2], real, at.repeat(n, 1))
        return z.unflatten(0, (n, -1)).flatten(1, 2)[:, back]

    def _table(self, tokens: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Each example's positions among some tokens, ``[examples, most in one]``, and where in that every token stands."""
        example, position = tokens // self.shape[1], tokens % self.shape[1]
        counts = example.bincount(minlength=self.shape[0])
        width = int(counts.max())
        back = example * width + torch.arange(len(tokens), device=tokens.device) - (counts.cumsum(0) - counts)[example]
        table = tokens.new_zeros(self.shape[0] * width).index_copy_(0, back, position)
        return table.view(-1, width).to(device), back.to(device)

    def _layer(self, layer: int, stream: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """One layer: from the streams of some tokens to those of the ones that look."""
        block, queries = self.anatomy.blocks[layer], self.looking(layer, tokens)
        stream = stream.to(block.device)
        normed = block.attn_norm(stream)
        projected = {which: block.attention.project(normed, which) for which in "kv"}
        if len(queries) < len(tokens):
            among = torch.searchsorted(tokens, queries).to(block.device)
            stream, normed = stream[:, among], normed[:, among]
        projected["q"] = block.attention.project(normed, "q")
        after = stream + block.write_heads(self.mix(layer, projected, tokens, queries))
        if block.mlp is not None and block.mlp_norm is not None:
            after = after + block.mlp(block.mlp_norm(stream if block.parallel else after))
        return after, queries

    # --- ends ---

    def moved(self, clean: Tensor, change: Tensor, tokens: Tensor) -> Tensor:
        """A clean stream at some tokens and what it gets besides, added in float32."""
        return (self.at(clean, tokens) + change.to(clean.device)).to(clean.dtype)

    def effect(self, final: Tensor, tokens: Tensor) -> Tensor:
        """The metric from the last streams of some tokens, the others being clean, less its clean value."""
        n, clean = len(final), self.clean.final
        many, final = self.batch.repeat(n), final.to(clean.device)
        if isinstance(self.metric, PositionMetric):
            streams = clean.flatten(0, 1)[self.read].repeat(n, 1, 1)
            streams[:, torch.searchsorted(self.read, tokens)] = final
            value = self.metric.at(self.anatomy.logits(streams.flatten(0, 1)[:, None])[:, 0].float(), many)
        else:
            streams = clean.repeat(n, 1, 1)
            streams.unflatten(0, (n, -1)).flatten(1, 2)[:, tokens] = final
            value = measure(self.anatomy, self.metric, streams, many)
        return value.view(n, -1).float() - self.value.float()


def _through(norm: Norm, clean: Tensor, change: Tensor) -> Tensor:
    """What a norm's output changes by: ``change`` is of its input."""
    return norm((clean + change.to(clean.device)).to(clean.dtype)).float() - norm(clean).float()
