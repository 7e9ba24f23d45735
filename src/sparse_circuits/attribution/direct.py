"""Edges into the logits, measured instead of estimated: only the final norm and the unembedding lie behind them."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparse_circuits.attribution.changes import Changes
from sparse_circuits.attribution.method import Problem, Raw
from sparse_circuits.attribution.restart import Restart

_AT_ONCE = 64  # sources


@torch.no_grad()
def with_direct_effects(problem: Problem, raw: Raw, share: float) -> Raw:
    """The scores with those of edges into the logits moved by ``share`` (1: all the way) to the edges' exact effects.

    Cost: a clean and (under PATCH) a corrupted forward pass, and per source the final norm and unembedding at the positions
    that the metric reads.
    """
    graph, total = problem.graph, raw.total.clone()
    exact = torch.zeros(len(problem.prompts), graph.n_sources, graph.n_positions)
    for rows, batch in problem.batches():
        restart = Restart(problem.anatomy, problem.prompts.metric, batch)
        changes = Changes(restart, graph, problem.ablated(batch)[0], problem.ablated.constant is None)
        for position in range(graph.n_positions):
            tokens, here = changes.at(position)
            if not bool(here.any()):
                continue
            looking = restart.looking(graph.n_layers - 1, tokens)
            here = here[torch.isin(tokens, looking)][None, :, None]
            for first in range(0, graph.n_sources, _AT_ONCE):
                stop = min(first + _AT_ONCE, graph.n_sources)
                change = changes.of_sources(first, stop, looking) * here
                effect = restart.layer_changed(graph.n_layers - 1, change, looking)
                exact[rows, first:stop, position] = effect.T.cpu()
    # the columns are the logits at each position, and every one of them reads its own position only
    width = graph.n_positions
    at = torch.arange(graph.n_sources * width), graph.shape[1] - width + torch.arange(width).repeat(graph.n_sources)
    total[at] = torch.lerp(total[at], exact.sum(0).flatten(), share)
    per_example = raw.per_example
    if per_example is not None:
        places = torch.full(graph.shape, -1)
        places[graph.mask] = torch.arange(graph.size)
        per_example = per_example.clone()
        per_example[:, places[at]] = torch.lerp(per_example[:, places[at]], exact.flatten(1), share)
    anatomy = problem.anatomy
    n_tokens = max(problem.prompts.n_positions)
    whole = n_tokens * sum(
        4 * b.attention.W_O.numel() + (3 if b.mlp and b.mlp.gate else 2) * (b.mlp.W_out.numel() if b.mlp else 0)
        for b in anatomy.blocks
    )
    unembedding = graph.n_sources * width * anatomy.d_model * anatomy.d_vocab_out
    forwards = raw.forwards + 1 + (problem.ablated.constant is None) + unembedding / whole
    return replace(raw, total=total, per_example=per_example, forwards=forwards)
