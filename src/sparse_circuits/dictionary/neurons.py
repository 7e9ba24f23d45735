"""The identity as a dictionary: every coordinate of a site is a feature, and nothing is left over."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import get_args

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.place import device_at, refuse_missing, width_at
from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Kind, Site


def neurons(
    anatomy: Anatomy, sites: Iterable[str] | None, device: torch.device | None, dtype: torch.dtype | None
) -> list[Dictionary]:
    """The identity at each of some sites: ``z = x``, so features have signs, base and error are 0.

    Args:
        sites: kinds ("mlp"), names ("mlp_2") or hook names; by default what attention and MLPs write and the stream after
            every block.

    Raises:
        InputError: for a site that the model does not have, or one with an input of its own (transcoders).
    """
    chosen: dict[str, Site] = {}
    for name in ("attn", "mlp", "resid") if sites is None else sites:
        for site in _sites(name, anatomy):
            missing = site.kind == "mlp" and anatomy.blocks[min(site.layer, len(anatomy.blocks) - 1)].mlp is None
            if sites is None and missing:
                continue
            refuse_missing(anatomy, site, "'neurons'")
            chosen[site.name] = site

    @cache
    def eye(width: int, at: torch.device) -> tuple[Tensor, Tensor]:
        kind = dtype or anatomy.dtype
        return torch.eye(width, device=at, dtype=kind), torch.zeros(width, device=at, dtype=kind)

    made = []
    for site in chosen.values():
        at = device or device_at(anatomy, site)
        weight, zero = eye(width_at(anatomy, site), at)
        made.append(
            Dictionary(site, "neurons", site.hook_name, site.hook_name, weight, zero, weight, zero, code=lambda x: x)
        )
    return made


def _sites(name: str, anatomy: Anatomy) -> list[Site]:
    if name == "transcoder" or name.startswith("transcoder_"):
        raise InputError("A transcoder's input and output differ, so no identity goes between them; take 'mlp'.")
    if name in ("embed", "resid_pre"):
        return [Site(name)]
    if name in get_args(Kind):
        return [Site(name, layer) for layer in range(len(anatomy.blocks))]  # pyright: ignore[reportArgumentType]
    return [Site.hooked(name) if "hook_" in name else Site.named(name)]
