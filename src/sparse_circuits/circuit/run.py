"""Running a model with only a circuit.

Destination v reads the sum of what its sources in the circuit wrote in this run and of the ablated values of all other
sources. With A the stream of the fully ablated run and d_u = c_u - c_u', that is A + sum_u gate_uv d_u, where gate_uv is
1 in the circuit and 0 outside it (or anything between, where gates are learned): only sources inside the circuit are
ever computed. Heads that share a post-norm P add P(b_O + sum_h (y_h' + gate_hv (y_h - y_h'))) - P(b_O + sum_h y_h') instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.run_edges import EdgeRun
from sparse_circuits.circuit.run_units import UnitRun
from sparse_circuits.graph import Graph
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Sources

Cut = TypeVar("Cut", Sources, "AblatedStreams")
_BUFFER_ELEMENTS = 1 << 26  # 256 MB of float32 contributions at a time


@dataclass(frozen=True, eq=False)
class AblatedStreams:
    """The residual stream of the fully ablated run, as attention, MLP and logits read it; broadcasts over batch and position."""

    attention: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    final: Tensor

    @classmethod
    def of(cls, anatomy: Anatomy, sources: Sources, n_pos: int, units: bool = False) -> AblatedStreams:
        """Add up ablated contributions with what belongs to no source: attention output biases and learned positions.

        Args:
            units: MLPs are ablated unit by unit, so that their output biases belong to no source either.
        """
        stream = anatomy.stream(sources.embedding, n_pos)
        attention, mlp = [], []
        for block, z, mlp_out, hidden in zip(anatomy.blocks, sources.z, sources.mlp, sources.hidden, strict=True):
            stream = stream.to(block.device)
            attention.append(stream)
            after = stream + block.write_heads(z)
            mlp.append(stream if block.parallel else after)
            if units and block.mlp is not None and hidden is not None:
                mlp_out = block.mlp.write(hidden)
            stream = after if mlp_out is None else after + mlp_out
        return cls(tuple(attention), tuple(mlp), stream.to(anatomy.device))


class CircuitRunner:
    """Runs many circuits of one graph on the same model."""

    def __init__(self, anatomy: Anatomy, graph: Graph) -> None:
        self.anatomy, self.graph = anatomy, graph

    def streams(self, ablated: Sources, n_pos: int) -> AblatedStreams:
        """The fully ablated run: the empty circuit."""
        return AblatedStreams.of(self.anatomy, ablated, n_pos, units=self.graph.level == "neurons")

    @torch.no_grad()
    def final(
        self,
        circuit: Circuit,
        embedding: Tensor,
        real: Tensor | None,
        ablated: Sources,
        streams: AblatedStreams,
        groups: Tensor | None = None,
    ) -> Tensor:
        """The last residual stream of a circuit: ``[examples, pos, d_model]``.

        Args:
            embedding: the clean token embedding, ``[examples, pos, d_model]``.
            real: False at padding, or None.
            ablated, streams: what every source is replaced by, and :meth:`streams` of it.
            groups: every token's position in the graph, where it has positions: int64 ``[examples, pos]``, -1 at padding.
        """
        n_examples, n_pos, d_model = embedding.shape
        width = (len(self._used(circuit.mask)) + self.graph.destinations_per_layer) * n_pos * d_model
        size = max(1, _BUFFER_ELEMENTS // width)
        mask, finals = circuit.mask.cpu().float(), []
        for start in range(0, n_examples, size):
            part = slice(start, start + size)
            finals.append(
                self._run(
                    mask,
                    embedding[part],
                    None if real is None else real[part],
                    _examples(ablated, part, n_examples),
                    _examples(streams, part, n_examples),
                    None if groups is None else groups[part],
                    learned=False,
                )
            )
        return torch.cat(finals)

    def gated(
        self,
        gates: Tensor,
        embedding: Tensor,
        real: Tensor | None,
        ablated: Sources,
        streams: AblatedStreams,
        groups: Tensor | None = None,
    ) -> Tensor:
        """The same with a gate in [0, 1] for every edge (node, unit), differentiable: gates of 0 and 1 make a circuit.

        Args:
            gates: float32, of the graph's shape; entries that stand for nothing are not looked at.

        Every source is computed, and every destination has a stream of its own, whatever the gates.
        """
        gates = gates * self.graph.mask.to(gates.device)
        return self._run(gates, embedding, real, ablated, streams, groups, learned=True)

    def _run(
        self,
        weights: Tensor,
        embedding: Tensor,
        real: Tensor | None,
        ablated: Sources,
        streams: AblatedStreams,
        groups: Tensor | None,
        learned: bool,
    ) -> Tensor:
        kind = EdgeRun if self.graph.level == "edges" else UnitRun
        return kind(self.anatomy, self.graph, weights, embedding, real, ablated, groups, learned).final(
            streams.attention, streams.mlp, streams.final
        )

    def _used(self, mask: Tensor) -> list[int]:
        """Sources with anything in the circuit."""
        graph = self.graph
        if graph.level == "edges":
            return mask.view(graph.n_sources, -1).any(1).nonzero().flatten().tolist()
        return graph.owner[mask.view(graph.n_units, -1).any(1)].unique().tolist()


def _examples(run: Cut, part: slice, n: int) -> Cut:
    """Some examples of a run; constants, which stand for all examples, stay as they are."""

    def cut(x: Tensor | None) -> Tensor | None:
        return x[part] if x is not None and x.shape[0] == n else x

    return replace(run, **{k: tuple(map(cut, v)) if isinstance(v, tuple) else cut(v) for k, v in vars(run).items()})
