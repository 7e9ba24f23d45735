"""Patching every edge, node or unit on its own: what the other methods estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_circuits.attribution.changes import Changes
from sparse_circuits.attribution.feature.exact import ablate_each
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally
from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.attribution.restart import Restart
from sparse_circuits.graph import Graph
from sparse_circuits.task.measure import measure

# of the widest activation at a time: more falls out of a processor's cache, less leaves a GPU idle
_CHUNK_ELEMENTS, _CHUNK_ELEMENTS_GPU = 1 << 21, 1 << 26


@dataclass(frozen=True)
class Exact(Method):
    """The indirect effect of every edge, node or unit: m(clean, do(it = its ablated value)) - m(clean).

    For an edge u -> v, v reads c_u' instead of c_u and everything after v is computed again; nothing else reads the
    ablated value. For a node or a unit, everything after it reads the ablated value. Effects are averaged over examples, in
    units of the metric, and negative where the behaviour suffers. Where positions are told apart, only the tokens at
    the source's position are changed; and of a key or value, only what the queries at the destination's position
    collect.

    Of a feature graph every feature, error term and whole node that ablation changes is ablated on its own, at all positions
    together where scores are summed over them; it finds no edges.

    Cost: a forward pass per edge, node or unit, from the layer where it acts, only over the tokens that it can reach and that
    the metric can see: not before the first token that differs from the corrupted prompt, and in the last layer only the
    token that the metric reads. ``Scores.passes`` counts each as the share of the layers that run again.

    Conmy et al. 2023 (arXiv:2304.14997) and Goldowsky-Dill et al. 2023 (arXiv:2304.05969) patch single edges so.
    """

    takes_gradients: ClassVar[bool] = False

    def run_features(self, problem: FeatureProblem) -> FeatureTally:
        return ablate_each(problem)

    @torch.no_grad()
    def run(self, problem: Problem) -> Raw:
        tally, graph = Tally(problem), problem.graph
        steps = range(-1, graph.n_layers)

        def work() -> Iterator[tuple[_Effects, int]]:
            for rows, batch in problem.batches():
                restart = Restart(problem.anatomy, problem.prompts.metric, batch, problem.ablated.units)
                ablated, corrupted = problem.ablated(batch)
                end = None if corrupted is None else measure(restart.anatomy, restart.metric, corrupted, restart.batch)
                tally.measured(rows, restart.value, end)
                effects = _Effects(restart, Changes(restart, graph, ablated, tally.patched), graph, problem.per_example)
                yield from ((effects, step) for step in steps)
                tally.scored(rows, effects.scores)

        for effects, step in problem.track(work(), problem.n_batches * len(steps)):
            effects.of_layer(step)
        return tally.raw(1 + tally.patched + _passes(graph), 0)


def _passes(graph: Graph) -> float:
    """How many whole passes the layers that run again add up to."""
    if graph.level == "edges":
        layer = torch.arange(graph.n_destinations) // graph.destinations_per_layer
        runs = graph.mask.sum(0) * (graph.n_layers - layer).repeat_interleave(graph.n_positions)
    else:
        layer = (graph.owner - 1).clamp(min=0) // graph.sources_per_layer
        runs = (graph.n_layers - layer) * graph.n_positions
    return float(runs.sum()) / graph.n_layers


class _Effects:
    """Effects on one batch, layer by layer.

    Attributes:
        scores: ``[examples, *graph.shape]``, or their sum over examples ``[1, *graph.shape]``.
    """

    def __init__(self, restart: Restart, changes: Changes, graph: Graph, per_example: bool) -> None:
        self.restart, self.changes, self.graph, self.per_example = restart, changes, graph, per_example
        n = len(restart.batch) if per_example else 1
        self.scores = torch.zeros(n, *graph.shape, device=restart.value.device)

    def of_layer(self, layer: int) -> None:
        """All edges into a layer, or everything that it writes; for layer -1, the logits and the input."""
        for position in range(self.graph.n_positions):
            tokens, here = self.changes.at(position)
            if not bool(here.any()):
                continue
            if self.graph.level != "edges":
                self._of_units(layer, position, tokens, here)
            elif layer < 0:
                self._into_logits(position, tokens, here)
            else:
                self._into_heads(layer, position, tokens, here)
                if self.graph.has_mlp:
                    self._into_mlp(layer, position, tokens, here)

    # --- edges ---

    def _into_logits(self, position: int, tokens: Tensor, here: Tensor) -> None:
        last, column = self.graph.n_layers - 1, self.graph.n_destinations - 1
        tokens, here = self._looking(last, tokens, here)
        for rows in self._chunks(self.graph.n_sources, tokens, here):
            change = self._of_sources(rows, tokens, here)
            self._note(self.restart.layer_changed(last, change, tokens), rows, position, column, position)

    def _into_mlp(self, layer: int, position: int, tokens: Tensor, here: Tensor) -> None:
        column = self.graph.reads_at(layer, "mlp").start
        tokens, here = self._looking(layer, tokens, here)
        for rows in self._chunks(self.graph.written_before(layer, "mlp"), tokens, here):
            written = self.restart.mlp_change(layer, self._of_sources(rows, tokens, here), tokens)
            self._note(self.restart.layer_changed(layer, written, tokens), rows, position, column, position)

    def _into_heads(self, layer: int, position: int, tokens: Tensor, here: Tensor) -> None:
        graph, restart = self.graph, self.restart
        queries, _ = self._looking(layer, tokens, here)
        spread = [self._spread(layer, to, queries) for to in range(graph.n_positions)]
        for rows in self._chunks(graph.written_before(layer, "q"), tokens, here):
            read = restart.read_by_heads(layer, self._of_sources(rows, tokens, here), tokens)
            for which in "qkv":
                written = self._written(layer, which, read, tokens, queries)
                for column, change in enumerate(written, graph.reads_at(layer, which).start):
                    for to in [position] if which == "q" else range(graph.n_positions):
                        among, there = spread[to]
                        if len(there):
                            part = _masked(change[:, among], there)
                            self._note(restart.heads_changed(layer, part, queries[among]), rows, position, column, to)

    def _written(self, layer: int, which: str, read: Tensor, tokens: Tensor, queries: Tensor) -> Iterator[Tensor]:
        """What a layer's heads write besides if a q, k or v reads another stream: for each of them in turn."""
        attention, trace = self.restart.anatomy.blocks[layer].attention, self.restart.clean.layers[layer]
        columns = self.graph.reads_at(layer, which)
        count, W_O = columns.stop - columns.start, attention.W_O.float()
        clean_z = self.restart.at(trace.z, queries).float()
        if which == "q":
            read, tokens = read[:, torch.searchsorted(tokens, queries).to(read.device)], queries
        projected = attention.project(read, which)
        if not attention.joint_norm or which == "v":  # until they write, heads do not see each other
            z = self.restart.mix(layer, {which: projected}, tokens, queries).float() - clean_z
            for change, weight in zip(z.chunk(count, 2), W_O.chunk(count), strict=True):
                yield self.restart.posted(layer, change.flatten(-2) @ weight.flatten(0, 1), queries)
            return
        copies = count // projected.shape[2]
        clean = self.restart.at(getattr(trace, which), tokens).repeat_interleave(copies, dim=1)
        for i in range(count):
            one = clean.repeat(len(projected), 1, 1, 1)
            one[:, :, i] = projected[:, :, i // copies]
            z = self.restart.mix(layer, {which: one}, tokens, queries).float() - clean_z
            yield self.restart.posted(layer, z.flatten(-2) @ W_O.flatten(0, 1), queries)

    def _spread(self, layer: int, position: int, queries: Tensor) -> tuple[Tensor | slice, Tensor]:
        """Among some queries, those that a change of the ones at a position can reach, and which of these are at it."""
        groups = self.restart.batch.groups
        if groups is None:
            return slice(None), torch.ones_like(queries, dtype=torch.bool)
        there = groups.flatten()[queries] == position
        changed = torch.zeros_like(groups, dtype=torch.bool).flatten().index_fill_(0, queries[there], True)
        reached = self.restart.looking(layer, self.restart.reached(changed.view(groups.shape)))
        among = torch.searchsorted(queries, reached)
        return among, there[among]

    # --- nodes and units ---

    def _of_units(self, layer: int, position: int, tokens: Tensor, here: Tensor) -> None:
        graph, restart = self.graph, self.restart
        tokens, here = self._looking(layer, tokens, here)
        kinds = {"input": slice(0, graph.units_of_input)} if layer < 0 else {"heads": graph.units_at(layer, "heads")}
        if layer >= 0 and graph.has_mlp:
            kinds["mlp"] = graph.units_at(layer, "mlp")
        for which, units in kinds.items():
            follow = restart.heads_changed if which == "heads" else restart.layer_changed
            for part in self._chunks(units.stop - units.start, tokens, here):
                change = _masked(self.changes.of_units(layer, which, part, tokens), here)
                rows = slice(units.start + part.start, units.start + part.stop)
                self._note(follow(layer, change, tokens), rows, position)

    # --- bookkeeping ---

    def _looking(self, layer: int, tokens: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        looking = self.restart.looking(layer, tokens)
        return looking, here[torch.searchsorted(tokens, looking)]

    def _of_sources(self, rows: slice, tokens: Tensor, here: Tensor) -> Tensor:
        return _masked(self.changes.of_sources(rows.start, rows.stop, tokens), here)

    def _chunks(self, stop: int, tokens: Tensor, here: Tensor) -> Iterator[slice]:
        """Rows whose changes run together; none where no token is here."""
        mlp, d_model = self.restart.anatomy.blocks[0].mlp, self.restart.anatomy.d_model
        width = d_model if mlp is None else max(d_model, mlp.d_mlp)
        elements = _CHUNK_ELEMENTS if tokens.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
        size = max(1, elements // (width * max(1, len(tokens))))
        starts = range(0, stop, size) if bool(here.any()) else ()
        return (slice(start, min(start + size, stop)) for start in starts)

    def _note(self, effect: Tensor, rows: slice, position: int, column: int | None = None, to: int = 0) -> None:
        """Write down effects ``[rows, examples]``: of rows at one position, on a column at another."""
        n = self.graph.n_positions
        found = effect.T if self.per_example else effect.sum(1)[None]
        at = slice(rows.start * n + position, rows.stop * n, n)
        if column is None:
            self.scores[:, at] = found
        else:
            self.scores[:, at, column * n + to] = found


def _masked(change: Tensor, here: Tensor) -> Tensor:
    """A change only at the tokens that are here."""
    return change if bool(here.all()) else change * here[:, None].to(change.device)
