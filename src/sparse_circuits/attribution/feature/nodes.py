"""Scores of a feature graph from gradients: node effects, and the edges between them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.edges import Edges
from sparse_circuits.attribution.feature.gradients import (
    Points,
    ablated_value,
    along_activations,
    along_inputs,
    direct_along_inputs,
)
from sparse_circuits.attribution.feature.problem import FeatureProblem, FeatureTally, Situation
from sparse_circuits.attribution.feature.splits import Change

Path = Literal["inputs", "activations"]


def score_by_gradients(problem: FeatureProblem, points: Points, path: Path) -> FeatureTally:
    """Effects of all nodes, to first order along a path, and edges into those above the threshold.

    A feature's effect at a token is (z' - z) <g, d_f>, the error term's <e' - e, g>, with g the gradient of the metric with
    respect to what is written at the site, averaged along the path.
    """
    tally = FeatureTally(problem)
    tally.integrated, tally.passes = path == "activations", _passes(problem, points, path)
    for rows, situation in problem.situations():
        tally.measured(rows, situation)
        places = range(len(problem.graph.places))
        if path == "inputs":
            gradients = along_inputs(situation, points)
        else:
            gradients = [along_activations(situation, place, points) for place in places]
        changes, effects = [], []
        for place in places:
            change = situation.change(place)
            found = node_effects(situation, place, change, gradients[place])
            n_features = problem.graph.places[place].n_features
            tally.scored(rows, situation, place, change.listed(n_features), found[0])
            blocks = torch.arange(found[1].shape[1], device=found[1].device) + n_features
            tally.scored(rows, situation, place, blocks.expand(len(found[1]), -1), found[1])
            if path == "activations":
                tally.sums[place] += float(found[0].double().sum() + found[1].double().sum())
                tally.whole[place] += float((ablated_value(situation, place) - situation.clean).double().sum())
            if problem.nodes_above is not None:
                changes.append(change)
                effects.append(found)
        if problem.nodes_above is not None:
            edges = Edges(situation, changes)
            edges.into_logits(_direct(situation, points, path), tally.edges)
            for place in places:
                targets = edges.targets(place, gradients[place], effects[place], problem.nodes_above)
                edges.into(place, targets, tally.edges)
    return tally


def node_effects(situation: Situation, place: int, change: Change, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Effects at each token of the listed features, ``[tokens, listed]``, and of the other nodes, ``[tokens, blocks]``."""
    gradient = gradient.flatten(0, 1).to(change.rest)
    rest = (situation.blocks(place, gradient) * situation.blocks(place, change.rest)).sum(-1)
    dictionary = situation.graph.places[place].dictionary
    if dictionary is None:
        return change.change, rest
    return change.project(gradient[:, None], dictionary.W_dec)[:, 0] * change.change, rest


def _passes(problem: FeatureProblem, points: Points, path: Path) -> tuple[float, float]:
    """Forward and backward passes per batch; those of edges are not counted."""
    before = 1 + (problem.ablated.constants is None)
    if path == "inputs":
        return before + len(points), len(points)
    whole = sum(map(problem.share_after, range(len(problem.graph.places))))
    return before + whole * (len(points) + 1), whole * len(points)


def _direct(situation: Situation, points: Points, path: Path) -> list[Tensor | None]:
    """Gradients over paths into the logits that cross no other place; None where there are none."""
    graph = situation.graph
    reads = graph.reach[-1].parents
    if path == "inputs":
        found = direct_along_inputs(situation, points)
        return [gradient if place in reads else None for place, gradient in enumerate(found)]
    return [
        along_activations(situation, place, points, direct=True) if place in reads else None
        for place in range(len(graph.places))
    ]
