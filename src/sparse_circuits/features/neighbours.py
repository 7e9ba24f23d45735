"""Features of one dictionary, and neurons of one layer, that point the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.features.store import check_whole

_ELEMENTS = 1 << 24  # cosines that are held at a time


@dataclass(frozen=True)
class Similar:
    """A feature beside another one: cosine of the two decoder directions, and of the two encoder directions."""

    name: str
    decoder: float
    encoder: float


@torch.no_grad()
def similar(dictionary: Dictionary, feature: int | str, k: int = 10) -> tuple[Similar, ...]:
    """The features of a dictionary whose decoder directions are closest to a feature's, by cosine, closest first.

    >>> sc.similar(saes["resid_3"], 217)

    Decoder directions say what features write, encoder directions what they read; features close in one and not in the other
    are of note. Cost: one product with the decoder.

    Args:
        feature: its number, or its name.

    Raises:
        InputError: for a feature that the dictionary does not have, or a k that is no number of features.
    """
    check_whole("k", k, 0)
    number = _number(dictionary, feature)
    return of_many(dictionary, [number], k)[0]


@torch.no_grad()
def of_many(dictionary: Dictionary, numbers: list[int], k: int) -> list[tuple[Similar, ...]]:
    """The same for several features at once."""
    W_enc = dictionary.W_enc.float()
    sizes = W_enc.norm(dim=0).clamp(min=1e-12)
    found = []
    for number, (cosines, at) in zip(numbers, closest(dictionary.W_dec.float(), numbers, k), strict=True):
        encoder: Tensor = (W_enc[:, at].T @ W_enc[:, number]) / (sizes[at] * sizes[number])
        names = (f"{dictionary.site.name}.f{j}" for j in at.tolist())
        found.append(tuple(map(Similar, names, cosines.tolist(), encoder.tolist())))
    return found


@torch.no_grad()
def closest(directions: Tensor, numbers: list[int], k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For some rows of ``[n, width]`` the cosines with the k closest other rows, closest first, and which these are."""
    sizes = directions.norm(dim=-1).clamp(min=1e-12)
    k = min(k, len(directions) - 1)
    for part in torch.tensor(numbers, device=directions.device).split(max(1, _ELEMENTS // len(directions))):
        cosines = (directions[part] / sizes[part, None]) @ directions.T / sizes
        yield from zip(*cosines.scatter_(1, part[:, None], -torch.inf).topk(k, dim=-1), strict=True)


def _number(dictionary: Dictionary, feature: int | str) -> int:
    site, _, part = str(feature).partition("@")[0].rpartition(".f")
    named = isinstance(feature, str)
    if (named and site != dictionary.site.name) or not part.isdecimal() or int(part) >= dictionary.n_features:
        raise InputError(
            f"{dictionary.site.name} has the features 0 to {dictionary.n_features - 1}; there is no {feature!r} among them."
        )
    return int(part)
