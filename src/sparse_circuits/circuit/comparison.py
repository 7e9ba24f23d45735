"""Scores beside other scores of the same graph, such as attribution beside exact effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.circuit.feature_scores import FeatureScores
    from sparse_circuits.circuit.scores import Scores

_CHUNK_ELEMENTS = 1 << 24  # resampled scores at a time


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far two methods' scores agree, part by part.

    Attributes:
        names: of the parts. thing: what one is called.
        x, y: the other method's scores, ``[parts]``, and this one's; both as absolute values where ``absolute``.
        absolute: whether one of the methods' scores carry no sign, so that sizes are compared.
        pearson, spearman: correlations over all parts; NaN where either has the same score everywhere.
        pearson_interval, spearman_interval: their 95% percentile bootstrap intervals, examples resampled alike in both; None
            unless scores were kept per example, of as many examples where they were for both methods.
        label, other_label: names of the two, by default what sets them apart.
    """

    names: tuple[str, ...]
    x: Tensor
    y: Tensor
    absolute: bool
    pearson: float
    spearman: float
    pearson_interval: tuple[float, float] | None
    spearman_interval: tuple[float, float] | None
    label: str
    other_label: str
    thing: str = "part"

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Each part as a point; see :func:`sparse_circuits.view.plots.comparison.plot_comparison`."""
        from sparse_circuits.view.plots.comparison import plot_comparison

        return plot_comparison(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_comparison

        return of_comparison(self)

    def __repr__(self) -> str:
        return (
            f"Comparison({self.label} with {self.other_label}, {len(self.names)} {self.thing}s: "
            f"pearson={self.pearson:.3f}, spearman={self.spearman:.3f})"
        )


def compare_scores(scores: Scores, other: Scores, draws: int, labels: Sequence[str] | None) -> Comparison:
    """See :meth:`Scores.compare`."""
    _check(scores, other, draws, labels)
    mask = scores.graph.mask
    pair = scores.values[mask], other.values[mask]
    samples = scores.per_example, other.per_example
    return _made(scores, other, tuple(scores.graph.names_of(mask)), pair, samples, draws, labels, scores.graph.thing)


def compare_feature_scores(
    scores: FeatureScores, other: FeatureScores, kind: str, draws: int, labels: Sequence[str] | None
) -> Comparison:
    """See :meth:`FeatureScores.compare`."""
    _check(scores, other, draws, labels)
    graph = scores.graph
    if kind == "edges":
        keys = [one.edges.sources * (graph.size + 1) + one.edges.targets for one in (scores, other)]
        values = [one.edges.values for one in (scores, other)]
    elif kind == "nodes":
        keys, values = [scores.node_ids, other.node_ids], [scores.node_values, other.node_values]
    else:
        raise InputError(f"compare(kind={kind!r}): expected 'nodes' or 'edges'.")
    union = torch.cat(keys).unique()
    found = [torch.zeros(len(union)) for _ in keys]
    for into, key, value in zip(found, keys, values, strict=True):
        into[torch.searchsorted(union, key)] = value.float()
    samples: tuple[Tensor | None, Tensor | None] = (None, None)
    if kind == "edges":
        ends = (divmod(key, graph.size + 1) for key in union.tolist())
        names = tuple(f"{graph.name_of(u)}->{graph.name_of(d)}" for u, d in ends)
    else:
        names = tuple(map(graph.name_of, union.tolist()))
        samples = (scores.of_examples(union), other.of_examples(union))
    thing = "edge" if kind == "edges" else "node"
    return _made(scores, other, names, (found[0], found[1]), samples, draws, labels, thing)


def labels_of(one: Mapping[str, Any], other: Mapping[str, Any], default: str) -> tuple[str, str]:
    """What sets two results apart, by their provenance; where nothing does, their method, the second as the "other" one."""
    from sparse_circuits.view.naming import about, differences

    apart = differences(one, other)
    if apart is None:
        same = ", ".join(about(one, "method")) or default
        return same, f"other {same}"
    return apart


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along the last dimension, float64; NaN where either is constant."""
    a, b = (x.double() - x.double().mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, from 1; ties share their mean rank."""
    out = []
    for row in values.reshape(-1, values.shape[-1]):
        _, place, counts = row.unique(return_inverse=True, return_counts=True)
        out.append((counts.cumsum(0) - (counts - 1) / 2)[place])
    return torch.stack(out).view(values.shape)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of ranks along the last dimension, float64."""
    return pearson(ranks(a), ranks(b))


def _check(scores: Scores | FeatureScores, other: Any, draws: int, labels: Any) -> None:
    if type(other) is not type(scores):
        raise InputError(f"compare({type(other).__name__}): expected {type(scores).__name__} of the same graph.")
    if scores.graph != other.graph:
        raise InputError(f"compare(...): the scores are of two graphs, {scores.graph} and {other.graph}.")
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < 20:
        raise InputError(f"compare(draws={draws!r}): expected a whole number of at least 20.")
    pair = isinstance(labels, Sequence) and not isinstance(labels, str) and len(labels) == 2
    if labels is not None and not (pair and all(isinstance(label, str) and label for label in labels)):
        raise InputError(f"compare(labels={labels!r}): expected a name for these scores and one for the other's.")


def _made(
    scores: Scores | FeatureScores,
    other: Scores | FeatureScores,
    names: tuple[str, ...],
    pair: tuple[Tensor, Tensor],
    samples: tuple[Tensor | None, Tensor | None],
    draws: int,
    labels: Sequence[str] | None,
    thing: str,
) -> Comparison:
    y, x = pair
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise InputError("compare(...): scores are not finite; check the model's outputs and the metric.")
    absolute = not (scores.signed and other.signed)
    if absolute:
        x, y = x.abs(), y.abs()
    bounds = _intervals((y, x), samples, draws, absolute) if len(names) else (None, None)
    label, other_label = labels or labels_of(scores.provenance, other.provenance, "scores")
    return Comparison(
        names,
        x,
        y,
        absolute,
        float(pearson(y, x)) if len(names) else float("nan"),
        float(spearman(y, x)) if len(names) else float("nan"),
        *bounds,
        label,
        other_label,
        thing,
    )


def _intervals(
    pair: tuple[Tensor, Tensor], samples: tuple[Tensor | None, Tensor | None], draws: int, absolute: bool
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Intervals of both correlations over resampled examples, the same for both methods; what has no examples stays."""
    counts = {len(sample) for sample in samples if sample is not None}
    if len(counts) != 1 or counts == {0}:
        return None, None
    (n,) = counts
    drawn = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(draws, n).scatter_add_(1, drawn, torch.ones(drawn.shape)) / n
    found: list[tuple[Tensor, Tensor]] = []
    for part in weights.split(max(1, _CHUNK_ELEMENTS // max(1, len(pair[0])))):
        y, x = (
            value[None] if sample is None else part @ sample.float()
            for value, sample in zip(pair, samples, strict=True)
        )
        if absolute:
            x, y = x.abs(), y.abs()
        found.append((pearson(y, x), spearman(y, x)))
    return tuple(_central(torch.cat(values)) for values in zip(*found, strict=True))  # pyright: ignore[reportReturnType]


def _central(sample: Tensor) -> tuple[float, float]:
    sample = sample[torch.isfinite(sample)]
    if not len(sample):
        return float("nan"), float("nan")
    low, high = torch.quantile(sample, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
