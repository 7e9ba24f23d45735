"""What a feature's pre-activation is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import check_batch_size
from sparse_circuits.attribution.feature.edges import Edges
from sparse_circuits.attribution.feature.problem import FeatureProblem, Situation, Sparse
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.graph.places import Place
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.rules import BackwardRule, with_rule
from sparse_circuits.model.sites import Site
from sparse_circuits.task.task import Task


@dataclass(frozen=True, eq=False)
class Contributions:
    """What one feature's pre-activation, at one token of each example, is made of.

    Attributes:
        graph: the graph, with the embedding as a whole node where it had no place.
        node: the feature.
        preactivation: ``[examples]``.
        sources: numbers in the graph of the nodes that contribute, int64 ``[n]``.
        values: their contributions z_f d(pre)/d(z_f), ``[examples, n]``.
        bias: what all biases contribute together (of attention, norms, dictionaries and learned positions), ``[examples]``.
    """

    graph: FeatureGraph
    node: str
    preactivation: Tensor
    sources: Tensor
    values: Tensor
    bias: Tensor

    def to_dict(self) -> dict[str, float]:
        """Contributions by name, averaged over examples, strongest first; ``"bias"`` among them."""
        names = [*map(self.graph.name_of, self.sources.tolist()), "bias"]
        values = torch.cat([self.values.mean(0), self.bias.mean()[None]])
        order = values.abs().argsort(descending=True, stable=True).tolist()
        return {names[i]: float(values[i]) for i in order}

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """The largest contributions as bars; see :func:`sparse_circuits.view.plots.others.plot_contributions`."""
        from sparse_circuits.view.plots.others import plot_contributions

        return plot_contributions(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_contributions

        return of_contributions(self)

    def __repr__(self) -> str:
        return f"Contributions({self.node}: {float(self.preactivation.mean()):.3f} from {len(self.sources)} nodes and biases)"


def contributions(
    model: Any,
    graph: FeatureGraph,
    task: Task,
    node: str,
    *,
    position: int = -1,
    rule: BackwardRule = "frozen",
    positions: Literal["sum", "keep", "spans"] = "sum",
    batch_size: int = 32,
) -> Contributions:
    """Take a feature's pre-activation on the clean prompts apart into what the nodes before it contribute.

    A node u contributes u dpre/du: a feature z_f d(pre)/d(z_f), an error term or a whole node <a, d(pre)/da>, over the paths
    that cross no other site of the graph. Under ``rule="frozen"`` (attention patterns and the scales of norms constant)
    the pre-activation is an affine function of these where every MLP between is a site of the graph (a transcoder, or a
    whole node), so that they and the biases sum to it (Dunefsky et al. 2024, arXiv:2406.11944).

    Args:
        graph: ``Graph.of(model, dictionaries)``. The embedding counts as a whole node, in the graph or not.
        node: a feature, ``"transcoder_2.f17"``.
        position: the token of each prompt; negative ones count back from the last real token.
        rule: the backward rule; under another one they need not sum to anything, and ``bias`` is what is missing.
        positions: whether contributions are summed over the tokens they come from, or kept apart.

    Raises:
        InputError: for a node that is no feature of the graph, or a position outside a prompt.

    Cost: two forward passes and one backward pass.
    """
    check_batch_size(batch_size)
    anatomy = with_rule(anatomy_of(model), rule)
    graph.check(anatomy)
    if not any(place.site.kind in ("embed", "resid_pre") for place in graph.places):
        graph = replace(graph, places=(Place(Site("embed")), *graph.places))
    number = graph.index(node)
    place = graph.place_of(number)
    which = number - graph.offsets[place]
    if graph.places[place].dictionary is None or which >= graph.places[place].n_features:
        raise InputError(f"contributions(node={node!r}): expected a feature, such as {graph.places[-1].node(0)!r}.")
    prompts = task.tokenized(model, anatomy, corrupted=False)
    kept = None if positions == "sum" else prompts.positions(positions)
    graph = graph.at(() if kept is None else kept.names)
    ablated = prepare_places(Ablation.ZERO, model, anatomy, graph, task, prompts, batch_size)

    def silent(items: Iterator[Any], total: int) -> Iterator[Any]:
        return items

    problem = FeatureProblem(anatomy, graph, prompts, ablated, batch_size, silent, kept)
    found, value = Sparse(), torch.empty(len(prompts))
    for rows, situation in problem.situations():
        at = _tokens(situation, position)
        dictionary = graph.places[place].dictionary
        read = situation.run.held[place].read.flatten(0, 1)[at]
        if dictionary is not None:
            value[rows] = dictionary.at(read, torch.full_like(at, which)).float().cpu()
        # ablated to zero, a node changes by minus its value
        edges = Edges(situation, [situation.change(i) for i in range(len(graph.places))])
        targets = edges.features(place, at, torch.full_like(at, which), None)
        for _, gradients in edges.backward(place, targets):
            for parent, gradient in zip(graph.reach[place].parents, gradients, strict=True):
                if gradient is not None:
                    values = -edges.upstream_of(parent, gradient)[:, 0]
                    examples = rows.repeat_interleave(situation.n_pos)[:, None].to(values.device)
                    ids = edges.upstream[parent]
                    found.add((examples * (graph.size + 1) + ids).clamp(min=0), values * (ids >= 0))
    keys, values = found.collect()
    sources, column = (keys % (graph.size + 1)).unique(return_inverse=True)
    table = torch.zeros(len(prompts), len(sources))
    table[torch.div(keys, graph.size + 1, rounding_mode="floor"), column] = values
    return Contributions(graph, node, value, sources, table, value - table.sum(1))


def _tokens(situation: Situation, position: int) -> Tensor:
    """Where each example is looked at, in the flattened tokens.

    Raises:
        InputError: for a position outside a prompt.
    """
    lengths = situation.batch.lengths
    rows = torch.full_like(lengths, position) if position >= 0 else lengths + position
    if bool((rows < 0).any()) or bool((rows >= lengths).any()):
        raise InputError(f"contributions(position={position}) lies outside a prompt of {int(lengths.min())} tokens.")
    return rows + torch.arange(len(rows), device=rows.device) * situation.n_pos
