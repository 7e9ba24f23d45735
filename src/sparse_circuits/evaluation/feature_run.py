"""Running a model with only some of its features: every site re-encoded from the stream as ablated so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.splits import AblatedPlaces, Reference
from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.graph.places import Place
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.batch import Batch

Errors = Literal["nodes", "keep", "remove"]
ERRORS: tuple[str, ...] = get_args(Errors)

# ablated feature values of one batch that are kept for all circuits; beyond that they are encoded again for each
_KEPT_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Policy:
    """What is ablated beside the nodes outside a circuit.

    Attributes:
        errors: "nodes": error terms are nodes like all others; "keep": all stay; "remove": all are ablated.
        start_layer: sites of layers before it are left as they are; the embedding counts to layer 0.
        complement: ablate what is in the circuit instead of what is not.
    """

    errors: Errors = "nodes"
    start_layer: int = 0
    complement: bool = False

    def __post_init__(self) -> None:
        if self.errors not in ERRORS:
            raise InputError(f"evaluate(errors={self.errors!r}): expected 'nodes', 'keep' or 'remove'.")

    def touches(self, site: Site) -> bool:
        return max(0, site.order[0]) >= self.start_layer


@dataclass(frozen=True, eq=False)
class FeatureRunner:
    """Runs circuits of one graph on one batch.

    Attributes:
        references: ablated values at every place.
        groups: the position of the graph that every token belongs to: int64 ``[batch, pos]``, -1 at padding.
    """

    anatomy: Anatomy
    graph: FeatureGraph
    batch: Batch
    references: tuple[Reference, ...]
    groups: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, anatomy: Anatomy, graph: FeatureGraph, batch: Batch, ablated: AblatedPlaces, groups: Tensor | None
    ) -> FeatureRunner:
        references, _ = ablated(batch)
        elements = batch.tokens.numel() * sum(place.n_features for place in graph.places)
        if elements <= _KEPT_ELEMENTS:
            references = tuple(map(_encoded, graph.places, references))
        groups = torch.where(batch.real, 0, -1) if groups is None else groups
        return cls(anatomy, graph, batch, references, groups)

    @torch.no_grad()
    def final(
        self, circuit: FeatureCircuit, policy: Policy, see: Callable[[Site, Tensor], None] | None = None
    ) -> Tensor:
        """The last residual stream: ``[examples, pos, d_model]``. Cost: a forward pass, and an encoding at every place.

        Args:
            see: shown what is read at every place, as ablated so far and before its own nodes are.
        """
        embedding = self.anatomy.embed(self.batch.tokens)
        ablates = {
            place.site: (place, self.references[i], self._ablates(i, circuit, policy))
            for i, place in enumerate(self.graph.places)
            if policy.touches(place.site)
        }

        def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
            if see is not None:
                see(site, read)
            place, reference, mask = ablates[site]
            mask = mask.to(written.device)[:, self.groups.to(written.device).clamp(min=0)]  # [nodes, batch, pos]
            return _ablated(place, reference, mask.movedim(0, -1), read, written)

        return Walk(self.anatomy, list(ablates), self.batch.padding).run(embedding, visit)

    def _ablates(self, i: int, circuit: FeatureCircuit, policy: Policy) -> Tensor:
        """Which nodes of a place are ablated, at each position of the graph: bool ``[nodes, positions]``."""
        graph, nodes = self.graph, self.graph.nodes_of(i)
        inside = torch.zeros(nodes.stop - nodes.start, dtype=torch.bool)
        here = circuit.node_ids[(circuit.node_ids >= nodes.start) & (circuit.node_ids < nodes.stop)]
        inside[here - nodes.start] = True
        ablates = inside.view(-1, graph.n_positions) == policy.complement
        if graph.places[i].split and policy.errors != "nodes":
            ablates[graph.places[i].n_features :] = policy.errors == "remove"
        return ablates


def _encoded(place: Place, reference: Reference) -> Reference:
    if place.dictionary is None or reference.read is None:
        return reference
    return replace(reference, features=place.dictionary.features(reference.read), read=None)


def _ablated(place: Place, reference: Reference, mask: Tensor, read: Tensor, written: Tensor) -> Tensor:
    """What is written at a place with some of its nodes ablated: y + sum_f (z'_f - z_f) d_f over these, and the rest.

    Args:
        mask: which nodes are ablated: bool ``[batch, pos, nodes]``.
    """
    dictionary, shape = place.dictionary, read.shape[:2]
    if dictionary is None:
        _, there = reference.part(slice(None), shape, None)
        change = -written if there is None else there.view_as(written) - written
        apart = change.unflatten(-1, (place.n_blocks, -1)) * mask[..., None]
        return written + apart.flatten(-2)
    n = place.n_features
    clean = dictionary.features(read)
    ablated, there = reference.part(slice(None), shape, dictionary)
    change = -clean if ablated is None else ablated.view_as(clean) - clean
    out = written + torch.where(mask[..., :n], change, 0) @ dictionary.W_dec
    error = mask[..., n:]
    if not bool(error.any()):
        return out
    stays = dictionary.written(read, written)
    target = dictionary.base(read) if there is None else there.view_as(stays)
    return out + torch.where(error, target - stays - change @ dictionary.W_dec, 0)
