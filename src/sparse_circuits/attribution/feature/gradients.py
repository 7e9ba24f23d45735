"""Gradients of the metric at every place of a feature graph, averaged along a path."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.problem import Situation
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Visit, Walk, unchanged
from sparse_circuits.task.measure import measure

Points = tuple[tuple[float, float], ...]

# tokens * layers * width that gradients are taken of together: where a batch is more, its examples take turns, and where it
# is less, points of a path share a pass
_ELEMENTS_AT_ONCE, _ELEMENTS_AT_ONCE_GPU = 1 << 20, 1 << 25


def along_inputs(situation: Situation, points: Points) -> list[Tensor]:
    """The average gradient at each place along the line from corrupted to clean embeddings: ``[batch, pos, d]`` each.

    Cost: a forward and a backward pass per point; all places share them.
    """
    corrupted = _corrupted_embedding(situation, points)
    totals = [torch.zeros_like(held.written, dtype=torch.float32) for held in situation.run.held]
    n_rows = min(len(situation.batch), _examples_at_once(situation))
    for first in range(0, len(situation.batch), n_rows):
        rows = slice(first, first + n_rows)
        part = situation.batch.some(rows)
        for t, weight in points:
            found: dict[Site, Tensor] = {}

            def visit(site: Site, read: Tensor, written: Tensor, found: dict[Site, Tensor] = found) -> Tensor:
                found[site] = written
                return written

            with torch.enable_grad():
                embedding = torch.lerp(corrupted[rows], situation.embedding[rows], t).requires_grad_()
                final = Walk(situation.anatomy, _sites(situation), part.padding).run(embedding, visit)
                value = measure(situation.anatomy, situation.metric, final, part).sum()
            _add([total[rows] for total in totals], value, [found[p.site] for p in situation.graph.places], weight)
    return totals


def along_activations(situation: Situation, place: int, points: Points, *, direct: bool = False) -> Tensor:
    """The average gradient at one place while all that is written there goes from ablated to clean: ``[batch, pos, d]``.

    Everything before it is clean; what follows is computed again.

    Args:
        direct: hold what every other place writes at its clean value, so that only paths that cross none of them count.

    Cost: a forward and a backward pass per point, from the place on.
    """
    anatomy, batch, held = situation.anatomy, situation.batch, situation.run.held[place]
    site, dictionary = situation.graph.places[place].site, situation.graph.places[place].dictionary
    ablated = ablated_at(situation, place)
    skip = None if dictionary is None else dictionary.skip(held.read)
    total = torch.zeros_like(held.written, dtype=torch.float32)
    at_once = _examples_at_once(situation)
    n_rows, n_points = min(len(batch), at_once), max(1, at_once // len(batch))
    for first in range(0, len(batch), n_rows):
        rows = slice(first, first + n_rows)
        for start in range(0, len(points), n_points):
            part = points[start : start + n_points]
            n = len(part)
            values = torch.stack([torch.lerp(ablated[rows], held.written[rows], t) for t, _ in part])
            values = values.detach().requires_grad_()
            many, kept = batch.some(rows).repeat(n), situation.run.streams.some(rows).repeat(n)
            walk = Walk(anatomy, _sites(situation) if direct else (), many.padding)
            with torch.enable_grad():
                entering = values.flatten(0, 1)
                entering = entering if skip is None else entering + skip[rows].repeat(n, 1, 1)
                final = walk.resume(site, entering, kept, held_clean(situation, n, rows))
                value = measure(anatomy, situation.metric, final, many).sum()
            (found,) = torch.autograd.grad(value, values, allow_unused=True) if value.requires_grad else (None,)
            if found is not None:
                weights = torch.tensor([weight for _, weight in part], device=found.device)
                total[rows] += torch.einsum("n,nbpd->bpd", weights, found.float())
    return total


def direct_along_inputs(situation: Situation, points: Points) -> list[Tensor]:
    """The average of each place's direct gradient along the inputs: over paths to the logits that cross no other place.

    Cost: a forward and a backward pass per point.
    """
    corrupted = _corrupted_embedding(situation, points)
    totals = [torch.zeros_like(held.written, dtype=torch.float32) for held in situation.run.held]
    for t, weight in points:
        cut = Cut(situation)
        with torch.enable_grad():
            final = cut.run(torch.lerp(corrupted, situation.embedding, t))
            value = measure(situation.anatomy, situation.metric, final, situation.batch).sum()
        _add(totals, value, cut.leaves, weight)
    return totals


class Cut:
    """A run in which every place's output is a leaf of its own, so that gradients stop there (docs/features.md, edges).

    Attributes:
        leaves: what every place writes (less a skip connection, which carries gradient): ``[batch, pos, d]``.
        read, written: what is read and written there as computed from the leaves before it.
    """

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._dictionaries = {place.site: place.dictionary for place in situation.graph.places}
        self.leaves: list[Tensor] = []
        self.read: list[Tensor] = []
        self.written: list[Tensor] = []

    def run(self, embedding: Tensor) -> Tensor:
        """The last residual stream, with autograd on."""
        situation = self._situation
        with torch.enable_grad():
            return Walk(situation.anatomy, _sites(situation), situation.batch.padding).run(
                embedding.detach(), self._visit
            )

    def _visit(self, site: Site, read: Tensor, written: Tensor) -> Tensor:
        dictionary = self._dictionaries[site]
        skip = None if dictionary is None else dictionary.skip(read)
        leaf = (written if skip is None else written - skip).detach().requires_grad_()
        self.read.append(read)
        self.written.append(written)
        self.leaves.append(leaf)
        return leaf if skip is None else leaf + skip


def ablated_at(situation: Situation, place: int) -> Tensor:
    """All that is written at one place when all of it is ablated: ``[batch, pos, d]``."""
    held, reference = situation.run.held[place], situation.references[place]
    if reference.written is not None:
        return reference.written.to(held.written.dtype).expand_as(held.written)
    dictionary = situation.graph.places[place].dictionary
    nothing = torch.zeros_like(held.written)
    return nothing if dictionary is None else nothing + dictionary.base(held.read).to(nothing.dtype)


@torch.no_grad()
def ablated_value(situation: Situation, place: int) -> Tensor:
    """The metric per example when all that one place writes is ablated. Cost: a forward pass from the place on."""
    held, dictionary = situation.run.held[place], situation.graph.places[place].dictionary
    value, skip = ablated_at(situation, place), None if dictionary is None else dictionary.skip(held.read)
    walk = Walk(situation.anatomy, (), situation.batch.padding)
    site = situation.graph.places[place].site
    final = walk.resume(site, value if skip is None else value + skip, situation.run.streams, unchanged)
    return measure(situation.anatomy, situation.metric, final, situation.batch)


def held_clean(situation: Situation, n: int, rows: slice = slice(None)) -> Visit:
    """Puts back what the places wrote in the clean run, of some examples ``n`` times over; skip connections stay as computed."""
    clean = {place.site: (place, held) for place, held in zip(situation.graph.places, situation.run.held, strict=True)}

    def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
        place, held = clean[site]
        value = held.written[rows].repeat(n, 1, 1)
        skip = None if place.dictionary is None else place.dictionary.skip(read)
        return value if skip is None else value + skip

    return visit


def _examples_at_once(situation: Situation) -> int:
    elements = _ELEMENTS_AT_ONCE if situation.embedding.device.type == "cpu" else _ELEMENTS_AT_ONCE_GPU
    return max(1, elements // (situation.n_pos * len(situation.anatomy.blocks) * situation.anatomy.d_model))


def _corrupted_embedding(situation: Situation, points: Points) -> Tensor:
    if all(t == 1.0 for t, _ in points):
        return situation.embedding
    if situation.batch.corrupted is None:
        raise InputError("A path along the inputs needs corrupted prompts; pass Task(corrupted=...).")
    return situation.anatomy.embed(situation.batch.corrupted).detach()


def _sites(situation: Situation) -> list[Site]:
    return [place.site for place in situation.graph.places]


def _add(totals: list[Tensor], value: Tensor, at: list[Tensor], weight: float) -> None:
    wanted = [tensor for tensor in at if tensor.requires_grad]
    found = iter(torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else [None] * len(wanted))
    for total, tensor in zip(totals, at, strict=True):
        gradient = next(found) if tensor.requires_grad else None
        if gradient is not None:
            total.add_(gradient.float(), alpha=weight)
