"""Running a batch with edges removed, from a layer on; several choices for one destination at once.

With d_u = c_u' - c_u of the clean run, and e_u what source u writes besides in this run, destination v reads its clean stream
and the sum of d_u over the edges removed and of e_u over those kept. Under a post-norm P both are added up before P, layer by
layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.attribution.changes import Changes
from sparse_circuits.attribution.restart import Restart
from sparse_circuits.graph import Graph

_CHUNK_ELEMENTS = 1 << 22  # of all that a run keeps, at a time


@dataclass(frozen=True)
class Trials:
    """Choices for one destination: of each, the edges removed.

    Attributes:
        removed: of all other destinations, bool ``[n_sources, n_destinations]``.
        choices: of this one, bool ``[trials, n_sources]``.
    """

    removed: Tensor
    destination: int
    choices: Tensor


class PrunedRuns:
    """Runs of one batch with edges removed."""

    def __init__(self, restart: Restart, changes: Changes, graph: Graph) -> None:
        self.restart, self.graph = restart, graph
        self.tokens, _ = changes.at(0)
        self.queries = restart.looking(graph.n_layers - 1, self.tokens)
        self.among = torch.searchsorted(self.tokens, self.queries)
        self.ablated = changes.of_sources(0, graph.n_sources, self.tokens, posted=False)

    def effects(self, trials: Trials) -> Tensor:
        """m(run) - m(clean run), ``[trials, examples]``, where the destination's layer and all below have only clean sources."""
        if len(self.queries) == 0:
            return self.restart.value.new_zeros(len(trials.choices), len(self.restart.batch), dtype=torch.float32)
        graph, anatomy = self.graph, self.restart.anatomy
        layer = trials.destination // graph.destinations_per_layer
        kept = (
            graph.n_sources - graph.written_before(min(layer, graph.n_layers - 1), "q") + graph.destinations_per_layer
        )
        mlp = anatomy.blocks[0].mlp
        width = kept * anatomy.d_model + (0 if mlp is None else mlp.d_mlp)
        size = max(1, _CHUNK_ELEMENTS // (width * len(self.tokens)))
        return torch.cat([_Run(self, trials, choices).effect() for choices in trials.choices.split(size)])


class _Run:
    """One run of several choices side by side.

    Attributes:
        written: by source, what it writes besides, ``[choices, tokens, d_model]``; of heads, before their post-norm.
    """

    def __init__(self, runs: PrunedRuns, trials: Trials, choices: Tensor) -> None:
        self.runs, self.restart, self.graph = runs, runs.restart, runs.graph
        self.tokens, self.ablated = runs.tokens, runs.ablated
        self.removed, self.destination, self.choices = trials.removed, trials.destination, choices
        self.kept = self.graph.mask & ~trials.removed
        self.alive = self.kept.any(1)
        self.written: dict[int, Tensor] = {}

    def effect(self) -> Tensor:
        graph, last = self.graph, self.graph.n_destinations - 1
        for layer in range(self.destination // graph.destinations_per_layer, graph.n_layers):
            self._heads(layer)
            self._mlp(layer)
        if self.destination == last:
            self._cut()
        final = self.restart.moved(self.restart.clean.final, self._changes([last])[last], self.tokens)
        return self.restart.effect(final.expand(len(self.choices), -1, -1), self.tokens)

    def _heads(self, layer: int) -> None:
        restart, attention, first = (
            self.restart,
            self.restart.anatomy.blocks[layer].attention,
            self.graph.heads_at(layer).start,
        )
        heads, before = self._running(layer), self.tokens
        keys = {which: self._projected(layer, heads, which) for which in "kv" if heads}
        if layer == self.graph.n_layers - 1:
            self._cut()
        if heads:
            projected = keys | {"q": self._projected(layer, heads, "q")}
            z = restart.mix(layer, projected, before, self.tokens, heads).float()
            z = z - restart.at(restart.clean.layers[layer].z, self.tokens)[:, heads].float()
            self.written |= {first + h: z[:, :, i] @ attention.W_O[h].float() for i, h in enumerate(heads)}

    def _running(self, layer: int) -> list[int]:
        """The heads of a layer that may write something else than in the clean run."""
        first, n = self.graph.heads_at(layer).start, self.graph.n_heads
        if self.destination in range(self.graph.n_destinations)[self.graph.reads_at(layer, "mlp")]:
            return []
        owned = [self.graph.owned(first + h) for h in range(n)]
        heads = [h for h in range(n) if self.written or any(self._touched(column) for column in owned[h])]
        if heads and self.restart.anatomy.blocks[layer].attention.joint_norm:
            return list(range(n))
        return [h for h in heads if bool(self.alive[first + h])]

    def _mlp(self, layer: int) -> None:
        if self.graph.has_mlp and bool(self.alive[self.graph.mlp_at(layer)]):
            column = self.graph.reads_at(layer, "mlp").start
            if self.written or self._touched(column):
                change = self.restart.mlp_change(layer, self._changes([column])[column], self.tokens)
                self.written[self.graph.mlp_at(layer)] = change

    def _touched(self, column: int) -> bool:
        return column == self.destination or bool(self.removed[:, column].any())

    def _projected(self, layer: int, heads: list[int], which: str) -> Tensor:
        """What q, k or v of some heads yield: ``[choices, tokens, heads, d_head]``."""
        columns, attention = self.graph.reads_at(layer, which), self.restart.anatomy.blocks[layer].attention
        count, weights = columns.stop - columns.start, attention.n_heads if which == "q" else attention.n_groups
        wanted = {h: columns.start + h * count // self.graph.n_heads for h in heads}
        changes = self._changes(sorted(set(wanted.values())))
        normed = {id(change): self.restart.read_by_heads(layer, change, self.tokens) for change in changes.values()}
        found = []
        for h, column in wanted.items():
            own = attention.project(normed[id(changes[column])], which, [h * weights // self.graph.n_heads])
            found.append(own.expand(len(self.choices), -1, -1, -1))
        return torch.cat(found, 2)

    def _changes(self, columns: list[int]) -> dict[int, Tensor]:
        """What destinations of one kind read besides the clean stream, each ``[1 or choices, tokens, d_model]``."""
        others = [column for column in columns if column != self.destination]
        found = {}
        if self.destination in columns:  # all before it is clean
            found[self.destination] = self._sum(self.choices, torch.zeros_like(self.choices))[:, 0]
        if others:
            gone, which = torch.unique(self.removed[:, others].T, dim=0, return_inverse=True)
            streams = list(self._sum(gone, self.graph.mask[:, others[0]] & ~gone))
            found |= {column: streams[i] for column, i in zip(others, which.tolist(), strict=True)}
        return found

    def _sum(self, gone: Tensor, kept: Tensor) -> Tensor:
        """``[reads, 1 or choices, tokens, d_model]`` from edges that are removed and kept: bool ``[reads, n_sources]``."""
        shape = self.ablated.shape[1:]
        gone, kept = gone.to(self.ablated), kept.to(self.ablated)
        total = self.ablated.new_zeros(len(gone), 1, *shape)
        for sources, layer in self._together():
            moved = [u for u in sources if u in self.written]
            if not moved and not bool(gone[:, sources].any()):
                continue
            part = (gone[:, sources] @ self.ablated[sources].flatten(1)).view(-1, 1, *shape)
            if moved:
                written = torch.stack([self.written[u].expand(len(self.choices), -1, -1) for u in moved])
                part = part + (kept[:, moved] @ written.flatten(1)).view(len(gone), -1, *shape)
            if layer is not None:
                part = self.restart.posted(layer, part.flatten(0, 1), self.tokens).view_as(part)
            total = total + part
        return total

    def _together(self) -> list[tuple[list[int], int | None]]:
        """Sources whose contributions just add up; and the heads of each layer that write through a post-norm."""
        rest, out = list(range(self.graph.n_sources)), []
        for layer, block in enumerate(self.restart.anatomy.blocks):
            if block.attn_post_norm is not None:
                heads = list(range(self.graph.n_sources))[self.graph.heads_at(layer)]
                rest = [u for u in rest if u not in heads]
                out.append((heads, layer))
        return [(rest, None), *out]

    def _cut(self) -> None:
        """From here on, only the tokens that the metric reads."""
        among = self.runs.among
        self.tokens, self.ablated = self.runs.queries, self.ablated[:, among]
        self.written = {u: change[:, among] for u, change in self.written.items()}
