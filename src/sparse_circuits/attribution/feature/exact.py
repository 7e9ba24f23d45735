"""Ablating every node of a feature graph on its own: what the other methods estimate."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally, Situation
from sparse_circuits.attribution.feature.splits import Change
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Visit, Walk, unchanged
from sparse_circuits.task.measure import measure

# of the widest activation at a time: more falls out of a processor's cache, less leaves a GPU idle
_CHUNK_ELEMENTS, _CHUNK_ELEMENTS_GPU = 1 << 21, 1 << 26


@torch.no_grad()
def ablate_each(problem: FeatureProblem) -> FeatureTally:
    """m(clean, do(node = its ablated value)) - m(clean) for every node that ablation changes.

    Summed over positions, a node is ablated at all of them at once; apart, at each on its own; by spans, at a span's tokens.
    Everything after the node is computed again.
    """
    tally = FeatureTally(problem)
    count = 0.0
    for rows, situation in problem.situations():
        tally.measured(rows, situation)
        for place in range(len(problem.graph.places)):
            change = situation.change(place)
            for nodes, moved in moves(situation, place, change):
                count += problem.share_after(place) * len(nodes)
                _note(tally, rows, situation, place, nodes, _effects(situation, place, moved))
    batches = -(-len(problem.prompts) // problem.batch_size)
    tally.passes = 1 + (problem.ablated.constants is None) + count / batches, 0
    return tally


def moves(
    situation: Situation, place: int, change: Change, only: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Nodes of a place, each with a position of the graph, and what ablating each adds to what is written.

    Args:
        only: features that are wanted, and no other node: their numbers in the graph, counted from the place's first.

    Yields:
        For as many as are run together: int64 ``[nodes, 2]``, number within the place and position; and ``[nodes, tokens, d]``.
    """
    graph, groups = situation.graph, situation.groups.to(change.rest.device)
    spot, n_groups = graph.places[place], graph.n_positions
    at_once = _at_once(situation)
    dictionary = spot.dictionary
    if dictionary is not None:
        listed = change.listed(spot.n_features)
        there = (change.change != 0) & (groups >= 0)[:, None]
        if only is not None:
            there &= torch.isin(listed * n_groups + groups[:, None], only.to(groups.device))
        keys = (listed * n_groups + groups[:, None])[there].unique()
        for part in keys.split(at_once) if len(keys) else ():
            column = torch.searchsorted(part, listed * n_groups + groups[:, None])
            column = column.clamp(max=len(part) - 1)
            hit = there & (part[column] == listed * n_groups + groups[:, None])
            amount = change.change.new_zeros(len(listed), len(part)).scatter_add_(1, column, change.change * hit)
            features = torch.div(part, n_groups, rounding_mode="floor")
            moved = amount.T[:, :, None] * dictionary.W_dec[features][:, None]
            yield torch.stack([features, part % n_groups], 1), moved
    if only is not None:
        return
    apart = situation.blocks(place, change.rest)
    pairs = torch.cartesian_prod(torch.arange(spot.n_blocks), torch.arange(n_groups)).to(groups.device)
    for part in pairs.split(at_once):
        here = groups == part[:, 1:]
        part = part[here.any(1)]
        block = torch.nn.functional.one_hot(part[:, 0], spot.n_blocks).to(apart)
        moved = apart * block[:, None, :, None] * here[here.any(1)][:, :, None, None]
        yield part + torch.tensor([spot.n_features, 0], device=part.device), moved.flatten(2)


def _effects(situation: Situation, place: int, moved: Tensor) -> Tensor:
    """The effect of each change of what is written at a place, ``[nodes, tokens, d]``, on each example: ``[nodes, examples]``."""
    n = len(moved)
    if not n:
        return moved.new_zeros(0, len(situation.batch))
    final = resumed(situation, place, moved)
    return measure(situation.anatomy, situation.metric, final, situation.batch.repeat(n)).view(n, -1) - situation.clean


def resumed(
    situation: Situation,
    place: int,
    moved: Tensor,
    visit: Visit = unchanged,
    sites: Collection[Site] = (),
    until: int | None = None,
) -> Tensor:
    """The last residual stream under each change of what is written at a place: ``[nodes * examples, pos, d_model]``.

    Args:
        moved: ``[nodes, tokens, d]``.
        visit: what is done at ``sites``, all after the place.
        until: stop after that layer, with the stream there.
    """
    held, n = situation.run.held[place], len(moved)
    dictionary, site = situation.graph.places[place].dictionary, situation.graph.places[place].site
    skip = None if dictionary is None else dictionary.skip(held.read)
    clean = held.written if skip is None else held.written + skip
    value = (clean + moved.unflatten(1, clean.shape[:2]).to(clean.dtype)).flatten(0, 1)
    walk = Walk(situation.anatomy, sites, situation.batch.repeat(n).padding)
    return walk.resume(site, value, situation.run.streams.repeat(n), visit, until)


def _note(tally: FeatureTally, rows: Tensor, situation: Situation, place: int, nodes: Tensor, effects: Tensor) -> None:
    numbers = (tally.graph.offsets[place] + nodes[:, 0]) * tally.graph.n_positions + nodes[:, 1]
    tally.nodes.add(numbers, effects.sum(1).to(numbers.device))
    if tally.per_example is not None:
        keys = rows.to(numbers.device)[None] * (tally.graph.size + 1) + numbers[:, None]
        tally.per_example.add(keys, effects.to(numbers.device))


def _at_once(situation: Situation) -> int:
    mlp = situation.anatomy.blocks[0].mlp
    width = max(situation.anatomy.d_model, 0 if mlp is None else mlp.d_mlp)
    elements = _CHUNK_ELEMENTS if situation.embedding.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    return max(1, elements // (width * situation.batch.tokens.numel()))
