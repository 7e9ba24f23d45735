"""Scores of nodes and of their parts, from one gradient: a difference times the gradient at the same place.

At a node the gradient is the sum of those of all its destinations, so a node's score is the sum of its outgoing edges'.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Problem
from sparse_circuits.attribution.scorer import Group, Scorer, rows_of
from sparse_circuits.model.forward import LayerTrace, Rerun, Run, Sources
from sparse_circuits.task.batch import Batch

_CHUNK_ELEMENTS = 1 << 24  # 64 MB of float32 products at a time


class UnitScorer(Scorer):
    """Scores of nodes, of the dimensions of what they write, or of neurons, added up over the gradients of one batch."""

    def __init__(self, problem: Problem) -> None:
        self.anatomy, self.graph = problem.anatomy, problem.graph
        self._per_example = problem.per_example

    def start(self, batch: Batch) -> None:
        self._segments = self.segments(batch, self.graph.n_positions, self._per_example)
        examples = len(batch) if self._per_example else 1
        # [examples, positions, units]
        shape = (examples, self.graph.n_positions, self.graph.n_units)
        self._total = torch.zeros(shape, device=self.anatomy.device)

    def collect(self) -> Tensor:
        return self._total.transpose(1, 2).reshape(-1, *self.graph.shape)

    def add(
        self,
        metric_sum: Tensor,
        delta: Sources,
        run: Run | Rerun,
        weight: float = 1.0,
        group: Group | None = None,
        retain: bool = False,
    ) -> None:
        places = list(self._places(delta, run, group))
        gradients = torch.autograd.grad(
            metric_sum, [at for _, at, _, _ in places], materialize_grads=True, retain_graph=retain
        )
        with torch.no_grad():
            for (units, _, change, W_O), gradient in zip(places, gradients, strict=True):
                self._add(units, change, gradient, W_O, weight)

    def _places(
        self, delta: Sources, run: Run | Rerun, group: Group | None
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
        """Where gradients are taken: the units there, the value, its change, and the weights that take it into the stream
        where the units are dimensions of the stream but the change is not.
        """
        graph = self.graph
        if isinstance(run, Run) and (group is None or group[0] == 0):
            yield slice(0, graph.units_of_input), run.embedding, delta.embedding, None
        if group == (0, 1):
            return
        for layer, trace in enumerate(run.layers):
            heads, mlp = graph.heads_at(layer), graph.mlp_at(layer) if graph.has_mlp else -1
            if group in (None, (heads.start, heads.stop)):
                units, change = graph.units_at(layer, "heads"), delta.z[layer]
                if graph.level == "outputs":
                    yield units, _known(run.attn_sums[layer]), change, self.anatomy.blocks[layer].attention.W_O
                else:
                    yield units, _known(trace.z if isinstance(trace, LayerTrace) else _start(run)), change, None
            if graph.has_mlp and group in (None, (mlp, mlp + 1)):
                hidden = graph.level == "neurons"
                change = _known((delta.hidden if hidden else delta.mlp)[layer])
                at = (trace.hidden if hidden else trace.mlp_out) if isinstance(trace, LayerTrace) else _start(run)
                yield graph.units_at(layer, "mlp"), _known(at), change, None

    def _add(self, units: slice, change: Tensor, gradient: Tensor, W_O: Tensor | None, weight: float) -> None:
        rows = gradient.shape[0] * gradient.shape[1]
        flat = rows_of(change.expand(*gradient.shape[:2], *change.shape[2:]), rows)
        gradient = gradient.flatten(0, 1)
        n_units = units.stop - units.start
        size = max(1, _CHUNK_ELEMENTS // max(n_units, gradient[0].numel()))
        for start in range(0, rows, size):
            chunk = slice(start, min(start + size, rows))
            here, there = gradient[chunk].float(), _known(flat)[chunk].float()
            if W_O is not None:
                there = torch.einsum("rhd,hdm->rhm", there, W_O.detach().float())
                here = here[:, None]
            products = (there * here).flatten(1)
            if products.shape[1] != n_units:  # a whole node: its dimensions together
                products = products.unflatten(1, (n_units, -1)).sum(-1)
            self._total[:, :, units] += weight * self._by_segment(products, chunk)

    def _by_segment(self, products: Tensor, chunk: slice) -> Tensor:
        """Rows added up, ``[rows, units]`` to ``[examples, positions, units]``."""
        products = products.to(self._total.device)
        if self._segments is None:
            return products.sum(0)[None, None]
        out = products.new_zeros(self._total.shape[0] * self._total.shape[1], products.shape[1])
        segments = self._segments[chunk]
        real = segments >= 0
        return out.index_add_(0, segments[real], products[real]).view(*self._total.shape[:2], -1)


def _start(run: Run | Rerun) -> Tensor:
    """The value that a run was restarted from."""
    if isinstance(run, Run):
        raise RuntimeError("a whole run has a trace of every layer")
    return run.start


def _known(value: Tensor | None) -> Tensor:
    if value is None:
        raise RuntimeError("a run that did not keep its units")
    return value
