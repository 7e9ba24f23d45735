"""What a run holds at the places of a feature graph, and how far the ablated values are from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.graph.places import Place
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Streams, Walk
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.task import Prompts, Task

# features times tokens that are held dense at a time
_DENSE_ELEMENTS = 1 << 21


@dataclass(frozen=True, eq=False)
class Held:
    """What is read and written at one place, ``[batch, pos, width]``; the same tensor but for transcoders.

    ``written`` is what features, base and error write together (y less a skip connection).
    """

    read: Tensor
    written: Tensor


@dataclass(frozen=True, eq=False)
class Captured:
    """A run as far as the places see it: one :class:`Held` each, the last residual stream, and what restarts need."""

    held: tuple[Held, ...]
    final: Tensor
    streams: Streams


@torch.no_grad()
def capture(anatomy: Anatomy, graph: FeatureGraph, embedding: Tensor, real: Tensor | None) -> Captured:
    """A plain run, kept at the graph's places."""
    found: dict[Site, Held] = {}
    dictionaries = {place.site: place.dictionary for place in graph.places}

    def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
        dictionary = dictionaries[site]
        found[site] = Held(read, written if dictionary is None else dictionary.written(read, written))
        return written

    streams = Streams()
    final = Walk(anatomy, dictionaries, real).run(embedding, visit, streams)
    return Captured(tuple(found[place.site] for place in graph.places), final, streams)


@dataclass(frozen=True, eq=False)
class Change:
    """What ablation changes at one place, token by token (``tokens = batch * pos``); 0 at padding.

    Attributes:
        features: the features whose value is not 0 in the clean or the ablated run: int64 ``[tokens, most of a token]``,
            filled up with feature 0; or None where all are listed in order.
        clean: their values in the clean run, like ``features`` (0 where filled up); ``change``: ablated less clean.
        rest: ablated less clean of what the place's other nodes write (error or whole), ``[tokens, d]``.
    """

    features: Tensor | None
    clean: Tensor
    change: Tensor
    rest: Tensor

    def project(self, vectors: Tensor, W_dec: Tensor) -> Tensor:
        """<vector, d_f> for the listed features: ``[tokens, n, d]`` to ``[tokens, n, listed]``."""
        vectors = vectors.to(W_dec.dtype)
        if self.features is None:
            return vectors @ W_dec.T
        out = []
        size = max(1, _DENSE_ELEMENTS // max(1, self.features.shape[1] * W_dec.shape[1]))
        for part in torch.arange(len(vectors), device=vectors.device).split(size):
            out.append(vectors[part] @ W_dec[self.features[part]].transpose(1, 2))
        return torch.cat(out)

    def at(self, tokens: Tensor) -> Change:
        """The same of some tokens."""
        features = None if self.features is None else self.features[tokens]
        return Change(features, self.clean[tokens], self.change[tokens], self.rest[tokens])

    def listed(self, n_features: int) -> Tensor:
        """Feature numbers ``[tokens, listed]``."""
        if self.features is not None:
            return self.features
        return torch.arange(n_features, device=self.clean.device).expand(len(self.clean), -1)


@dataclass(frozen=True, eq=False)
class Reference:
    """Ablated values at one place: of features and of all that is written, broadcastable to ``[batch, pos, ...]``.

    None for the features of a place without any, and where they are those of ``read``; ``zero`` for no value at all.
    """

    features: Tensor | None = None
    written: Tensor | None = None
    read: Tensor | None = None
    zero: bool = False

    def part(
        self, tokens: slice, shape: torch.Size, dictionary: Dictionary | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Features ``[tokens, F]`` and what is written ``[tokens, d]`` for some of the flattened tokens."""

        def at(values: Tensor) -> Tensor:
            return values.expand(*shape, values.shape[-1]).flatten(0, 1)[tokens]

        written = None if self.written is None else at(self.written)
        if dictionary is None or self.zero:
            return None, written
        return (dictionary.features(at(self.read)) if self.read is not None else at(self.features)), written  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def change_at(place: Place, held: Held, reference: Reference, real: Tensor) -> Change:
    """How far one place's ablated values are from a run.

    Features: z' - z. The error term has all the rest, (y' - y) - sum_f (z'_f - z_f) d_f, so that with a normalisation at
    run time it also has the change of the base. Under ZERO features and error are 0 and the base stays as it is.

    Args:
        real: False at padding: bool ``[batch, pos]``.
    """
    shape, dictionary = held.read.shape[:2], place.dictionary
    read, written, keep = (
        held.read.flatten(0, 1),
        held.written.flatten(0, 1),
        real.to(held.read.device).flatten()[:, None],
    )
    if dictionary is None:
        _, there = reference.part(slice(None), shape, None)
        rest = -written if there is None else there - written
        none = written.new_zeros(len(written), 0)
        return Change(None, none, none, rest * keep)
    parts = [
        _part(dictionary, read[part], written[part], *reference.part(part, shape, dictionary), keep[part])
        for part in _slices(len(read), place.n_features)
    ]
    rest = torch.cat([part.rest for part in parts])
    width = max(part.clean.shape[1] for part in parts)
    if any(part.features is None for part in parts):  # lists as long as the dictionary are none
        parts = [_dense(part, place.n_features) for part in parts]
        return Change(None, torch.cat([p.clean for p in parts]), torch.cat([p.change for p in parts]), rest)

    def padded(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        return torch.cat([torch.nn.functional.pad(v, (0, width - v.shape[1])) for v in values])

    return Change(padded("features"), padded("clean"), padded("change"), rest)


def _slices(n_tokens: int, n_features: int) -> Iterator[slice]:
    size = max(1, _DENSE_ELEMENTS // max(1, n_features))
    return (slice(start, min(start + size, n_tokens)) for start in range(0, n_tokens, size))


def _part(
    dictionary: Dictionary, read: Tensor, written: Tensor, ablated: Tensor | None, there: Tensor | None, keep: Tensor
) -> Change:
    clean = dictionary.features(read)
    change = ((-clean if ablated is None else ablated - clean) * keep).to(dictionary.W_dec.dtype)
    if there is None:
        there = dictionary.base(read)
    rest = (there - written) * keep - change @ dictionary.W_dec
    clean = clean * keep
    active = (clean != 0) | (change != 0)
    width = int(active.sum(-1).max()) if len(active) else 0
    if 2 * width >= dictionary.n_features:
        return Change(None, clean, change, rest)
    listed = active.to(torch.uint8).topk(width, dim=-1, sorted=False).indices.sort(-1).values
    there_too = active.gather(-1, listed)
    return Change(
        torch.where(there_too, listed, 0),
        torch.where(there_too, clean.gather(-1, listed), 0),
        torch.where(there_too, change.gather(-1, listed), 0),
        rest,
    )


def _dense(change: Change, n_features: int) -> Change:
    if change.features is None:
        return change

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(len(values), n_features).scatter_add_(1, change.listed(n_features), values)

    return Change(None, spread(change.clean), spread(change.change), change.rest)


@dataclass(frozen=True, eq=False)
class AblatedPlaces:
    """An ablation made ready for the places of one graph. ``constants``: one per place, or None under PATCH."""

    anatomy: Anatomy
    graph: FeatureGraph
    constants: tuple[Reference, ...] | None

    def __call__(self, batch: Batch) -> tuple[tuple[Reference, ...], Tensor | None]:
        """The ablated values of every place, and under PATCH the last residual stream of the corrupted run."""
        if self.constants is not None:
            return self.constants, None
        if batch.corrupted is None:
            raise InputError("Ablation.PATCH needs corrupted prompts; pass Task(corrupted=...).")
        run = capture(self.anatomy, self.graph, self.anatomy.embed(batch.corrupted), batch.padding)
        return tuple(Reference(read=held.read, written=held.written) for held in run.held), run.final


def prepare_places(
    ablation: Ablation,
    model: object,
    anatomy: Anatomy,
    graph: FeatureGraph,
    task: Task,
    prompts: Prompts,
    batch_size: int,
) -> AblatedPlaces:
    """Compute what an ablation needs before the long work starts. Cost: a forward pass over the prompts of a mean.

    Means are taken of every feature's value and of what is written, over real tokens.

    Raises:
        InputError: for unequal lengths under MEAN_POSITIONAL, or prompts to take the mean over that do not tokenise.
    """
    if ablation.kind == "patch":
        return AblatedPlaces(anatomy, graph, None)
    if ablation.kind == "zero":
        return AblatedPlaces(anatomy, graph, tuple(Reference(zero=True) for _ in graph.places))
    over = ablation.prompts_for(model, anatomy, task, prompts)
    return AblatedPlaces(anatomy, graph, _means(anatomy, graph, over, batch_size, ablation.kind == "mean_positional"))


@torch.no_grad()
def _means(
    anatomy: Anatomy, graph: FeatureGraph, prompts: Prompts, batch_size: int, positional: bool
) -> tuple[Reference, ...]:
    totals: list[tuple[Tensor | None, Tensor]] = []
    count = torch.zeros(())
    for _, batch in prompts.batches(batch_size):
        run = capture(anatomy, graph, anatomy.embed(batch.tokens), batch.padding)
        found = [
            _sums(place.dictionary, held, batch.real, positional)
            for place, held in zip(graph.places, run.held, strict=True)
        ]
        if totals:
            found = [
                (a if b is None or a is None else a + b, c + d) for (a, c), (b, d) in zip(found, totals, strict=True)
            ]
        totals, count = found, count.to(batch.real.device) + batch.real.sum((0,) if positional else (0, 1))

    def mean(total: Tensor, like: torch.dtype) -> Tensor:
        return (
            (total / count.to(total.device)[..., None]).to(like)[None]
            if positional
            else (total / count.to(total.device)).to(like)
        )

    return tuple(Reference(None if z is None else mean(z, anatomy.dtype), mean(y, anatomy.dtype)) for z, y in totals)


def _sums(dictionary: Dictionary | None, held: Held, real: Tensor, positional: bool) -> tuple[Tensor | None, Tensor]:
    """Sums over examples, and over positions unless these are told apart: ``[F]`` and ``[d]``, or one each per position."""
    dims = (0,) if positional else (0, 1)
    keep = real.to(held.written.device)[..., None]
    written = (held.written.float() * keep).sum(dims)
    if dictionary is None:
        return None, written
    n = max(1, _DENSE_ELEMENTS // (held.read.shape[1] * dictionary.n_features))
    sums = [
        (dictionary.features(x).float() * k).sum(dims) for x, k in zip(held.read.split(n), keep.split(n), strict=True)
    ]
    return torch.stack(sums).sum(0), written
