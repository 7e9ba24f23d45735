"""Which features a run by ablation starts from, where none are pinned."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.gradients import Points, along_activations
from sparse_circuits.attribution.feature.nodes import node_effects
from sparse_circuits.attribution.feature.problem import FeatureProblem, Sparse
from sparse_circuits.attribution.quadrature import points
from sparse_circuits.tracing.method import before, features_of
from sparse_circuits.tracing.separate import effects

_STEPS, _CANDIDATES = 5, 4  # gradients of an average, and how many times as many features are tried as are wanted
_CLEAN: Points = ((1.0, 1.0),)


def strongest(
    problem: FeatureProblem, place: int, n: int | None, among: Tensor | None = None
) -> tuple[Tensor, tuple[float, float]]:
    """The features of a place with the largest effect on the metric, and the forward and backward passes per batch that took.

    No estimate finds them all: a gradient at the clean run misses what saturates, one averaged while everything at the place
    goes misses what only matters as long as the rest is there. So several times as many as are wanted are tried, those that
    stand highest in any of three rankings, and what ablating them does decides:

    - |sum over tokens (z' - z) <g, d_f>|, g averaged over ``_STEPS`` points as by ``EAPIG(path="activations")``; of this
      ranking twice as many as of the others;
    - the same with g at the clean run;
    - the square root of the sum over tokens of |z' - z|^2 |d_f|^2, what ablation takes from the stream.

    Args:
        n: how many; None for all that ablation changes.
        among: features to choose from; None for all.

    Returns:
        Their numbers in the graph, ascending.
    """
    share, again = problem.share_after(place), before(problem)
    ids, rankings = _ranked(problem, place, among, n is not None)
    if n is None:
        return ids, (again, 0.0)
    cost = again + (_STEPS + 1) * share, (_STEPS + 1) * share
    if len(ids) <= n:
        return ids, cost
    best = torch.stack([rankings[0] / 2, *rankings[1:]]).min(0).values
    ids = ids[best.argsort(stable=True)[: _CANDIDATES * n]].sort().values
    order = effects(problem, place, ids).abs().argsort(descending=True, stable=True)[:n]
    return ids[order].sort().values, (cost[0] + again + len(ids) * share, cost[1])


def _ranked(
    problem: FeatureProblem, place: int, among: Tensor | None, by_gradient: bool
) -> tuple[Tensor, list[Tensor]]:
    """Features that ablation changes, ascending, and where each stands in the three rankings, from 0."""
    graph, mine = problem.graph, features_of(problem.graph, place)
    dictionary = graph.places[place].dictionary
    if dictionary is None:
        raise RuntimeError("a place without a dictionary has no features")
    scales = dictionary.W_dec.float().norm(dim=-1)
    found = [Sparse() for _ in range(3)]
    for _, situation in problem.situations():
        change = situation.change(place)
        listed = change.listed(graph.places[place].n_features)
        groups = situation.groups.to(listed.device)[:, None]
        keys, real = mine.start + listed * graph.n_positions + groups, groups >= 0
        if by_gradient:
            for sums, at in zip(found, (points("midpoint", _STEPS), _CLEAN), strict=False):
                gradient = along_activations(situation, place, at)
                sums.add(keys, node_effects(situation, place, change, gradient)[0] * real)
        found[2].add(keys, (change.change.float() * scales[listed] * real) ** 2)
    ids = found[2].collect()[0]
    ids = ids if among is None else ids[torch.isin(ids, among)]
    return ids, [_places(ids, *sums.collect()) for sums in found]


def _places(ids: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Where each stands by |value|: float64 ``[ids]``; infinity where the value is 0."""
    there = torch.isin(keys, ids)
    keys, order = keys[there], values[there].abs().argsort(descending=True, stable=True)
    standing = torch.full((len(ids),), torch.inf, dtype=torch.float64)
    standing[torch.searchsorted(ids, keys[order])] = torch.arange(len(order), dtype=torch.float64)
    return standing
