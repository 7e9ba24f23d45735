"""Ablating features one at a time: the runs behind exact effects."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparse_circuits.attribution.feature.exact import moves, resumed
from sparse_circuits.attribution.feature.problem import FeatureProblem, Situation
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.features.logits import Tokens
from sparse_circuits.task.measure import measure
from sparse_circuits.task.tokens import token_text

ROUNDING = 1e-5
"""What the logits, or the metric, of two runs may differ by although nothing that they read was changed."""
# values of features that are held dense at a time
_ELEMENTS, _ELEMENTS_GPU = 1 << 22, 1 << 26


def each(situation: Situation, place: int, nodes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of a place, as many at a time as run together, and what ablating each adds to what is written there.

    Those that ablation leaves as they are on these examples do not come up.

    Args:
        nodes: their numbers in the graph, ascending.

    Yields:
        Which of ``nodes``, int64 ``[n]``; and ``[n, tokens, d]``.
    """
    graph = situation.graph
    first = graph.nodes_of(place).start
    for found, moved in moves(situation, place, situation.change(place), nodes - first):
        keys = first + found[:, 0] * graph.n_positions + found[:, 1]
        yield torch.searchsorted(nodes, keys.cpu()), moved


class Readings:
    """What features are in changed runs of one batch, less what they are in the clean run."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._clean: dict[int, Tensor] = {}
        groups = situation.groups
        self._groups = torch.nn.functional.one_hot(groups.clamp(min=0), situation.graph.n_positions)
        self._groups = self._groups.float() * (groups >= 0)[:, None]

    @torch.no_grad()
    def change(self, place: int, read: Tensor) -> Tensor:
        """Per run and feature, summed over examples and tokens (of each position of the graph): float32 ``[runs, features]``.

        Args:
            read: what is read at the place in several runs of the batch, ``[runs * examples, pos, d]``.
        """
        dictionary, n = self._dictionary(place), len(read) // len(self._situation.batch)
        clean = self._of(place)
        groups = self._groups.to(clean.device)
        elements = _ELEMENTS if clean.device.type == "cpu" else _ELEMENTS_GPU
        out = []
        for part in read.unflatten(0, (n, -1)).split(max(1, elements // max(1, clean.numel()))):
            change = (dictionary.features(part).flatten(1, 2) - clean).float()
            out.append((change.transpose(1, 2) @ groups).flatten(1))
        return torch.cat(out).cpu()

    @torch.no_grad()
    def clean(self, place: int) -> Tensor:
        """What features are in the clean run, summed likewise: float32 ``[features]``."""
        values = self._of(place).float()
        return (values.T @ self._groups.to(values.device)).flatten().cpu()

    def _of(self, place: int) -> Tensor:
        if place not in self._clean:
            read = self._situation.run.held[place].read
            self._clean[place] = self._dictionary(place).features(read).flatten(0, 1)
        return self._clean[place]

    def _dictionary(self, place: int) -> Dictionary:
        dictionary = self._situation.graph.places[place].dictionary
        if dictionary is None:
            raise RuntimeError("a place without a dictionary has no features")
        return dictionary


@torch.no_grad()
def effects(problem: FeatureProblem, place: int, nodes: Tensor) -> Tensor:
    """m(feature ablated) - m(clean), averaged over examples: float64 ``[nodes]``. Cost: for each a pass from the place on."""
    total = torch.zeros(len(nodes), dtype=torch.float64)
    for _, situation in problem.situations():
        for which, moved in each(situation, place, nodes):
            total[which] += effect_of(situation, resumed(situation, place, moved)).sum(1).double().cpu()
    return total / len(problem.prompts)


@torch.no_grad()
def effect_of(situation: Situation, final: Tensor) -> Tensor:
    """The metric of every run, from its last residual stream, less that of the clean run: ``[runs, examples]``."""
    many = situation.batch.repeat(len(final) // len(situation.batch))
    value = measure(situation.anatomy, situation.metric, final, many)
    return check_finite(value.view(-1, len(situation.batch)) - situation.clean)


def check_finite(values: Tensor) -> Tensor:
    """
    Raises:
        InputError: if a metric, or what it changes by, is no number.
    """
    if not bool(values.isfinite().all()):
        raise InputError(
            "The metric, or its change under ablation, is not finite on some prompt; check the model's outputs and the metric."
        )
    return values


@torch.no_grad()
def last_logits(situation: Situation, final: Tensor) -> Tensor:
    """Logits at the last real token of every run, less their mean over the vocabulary: ``[runs, examples, vocabulary]``."""
    n = len(final) // len(situation.batch)
    rows = (situation.batch.lengths - 1).to(final.device).repeat(n)
    streams = final[torch.arange(len(final), device=final.device), rows]
    logits = situation.anatomy.logits(streams[:, None])[:, 0].float()
    return (logits - logits.mean(-1, keepdim=True)).unflatten(0, (n, -1))


def largest(changes: Tensor, k: int, tokenizer: object) -> Tokens:
    """The tokens with the largest |change| of ``[vocabulary]``, and the changes; none of those that are only rounding."""
    top = changes.abs().topk(min(k, len(changes))).indices.tolist()
    found = ((token, float(changes[token])) for token in top)
    return tuple((token_text(tokenizer, token), change) for token, change in found if abs(change) > ROUNDING)
