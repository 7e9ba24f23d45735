"""Features of one dictionary that point the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError


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
        InputError: for a feature that the dictionary does not have.
    """
    number = _number(dictionary, feature)
    return of_many(dictionary, [number], k)[0]


@torch.no_grad()
def of_many(dictionary: Dictionary, numbers: list[int], k: int) -> list[tuple[Similar, ...]]:
    """The same for several features at once."""
    W_dec, W_enc = dictionary.W_dec.float(), dictionary.W_enc.float()
    sizes = W_dec.norm(dim=-1).clamp(min=1e-12), W_enc.norm(dim=0).clamp(min=1e-12)
    k = min(k, dictionary.n_features - 1)
    found = []
    for part in torch.tensor(numbers, device=W_dec.device).split(max(1, (1 << 24) // dictionary.n_features)):
        decoder = (W_dec[part] / sizes[0][part, None]) @ W_dec.T / sizes[0]
        decoder.scatter_(1, part[:, None], -torch.inf)
        values, at = decoder.topk(k, dim=-1)
        for i, (row, indices) in enumerate(zip(values, at, strict=True)):
            encoder: Tensor = (W_enc[:, indices].T @ W_enc[:, part[i]]) / (sizes[1][indices] * sizes[1][part[i]])
            names = (f"{dictionary.site.name}.f{j}" for j in indices.tolist())
            found.append(tuple(map(Similar, names, row.tolist(), encoder.tolist())))
    return found


def _number(dictionary: Dictionary, feature: int | str) -> int:
    site, _, part = str(feature).partition("@")[0].rpartition(".f")
    named = isinstance(feature, str)
    if (named and site != dictionary.site.name) or not part.isdecimal() or int(part) >= dictionary.n_features:
        raise InputError(
            f"{dictionary.site.name} has the features 0 to {dictionary.n_features - 1}; there is no {feature!r} among them."
        )
    return int(part)
