"""SAELens's releases: which of a release's dictionaries are meant, before any weights are fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

import torch

from sparse_circuits.dictionary.candidate import Candidate, first_line
from sparse_circuits.dictionary.place import shortened, site_of_name
from sparse_circuits.dictionary.saelens import placed, quiet, refuse_architecture, require_saelens
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Kind, Site

# SAELens's loader of a cross-layer transcoder's layers, each as if it wrote to its own layer only
_CROSS_LAYER = "mntss_clt_layer_transcoder"


def of_release(source: str, sites: Sequence[str] | None) -> list[Candidate]:
    """The dictionaries of a release that ``sites`` could mean, or all of them.

    Args:
        source: a release's name, a Hugging Face repository, or either with the id of one dictionary behind a slash.
        sites: ids, or kinds and names of sites and hook names; these are narrowed down by what ids say, and finally by
            each dictionary's own configuration.

    Raises:
        InputError: for a name that is no release, ids that it does not have, or a configuration that cannot be fetched.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0").lower() in ("1", "y", "yes", "true"):
        raise InputError(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: some releases are pickles, and would run what is in them. Unset it."
        )
    directory = get_pretrained_saes_directory()
    release, ids = _split(source, directory)
    if ids is None:
        known = directory[release].saes_map if release in directory else {}
        ids = _chosen(release, list(known), sites)
    if release in directory and directory[release].conversion_func == _CROSS_LAYER:
        raise InputError(
            f"{release} is a cross-layer transcoder, whose features write to several layers; a feature has one."
        )
    return [_candidate(release, id) for id in ids]


def _split(source: str, directory: Any) -> tuple[str, list[str] | None]:
    if source in directory:
        return source, None
    for release, entry in directory.items():
        if source.startswith(f"{release}/") and source.removeprefix(f"{release}/") in entry.saes_map:
            return release, [source.removeprefix(f"{release}/")]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return source, None
    close = get_close_matches(source, list(directory), 3)
    raise InputError(
        f"No dictionaries called {source!r}: expected 'toy', 'neurons', a folder, a mapping of hook names to SAEs, or one of "
        f"SAELens's releases{f', such as {shortened(close)}' if close else ''}."
    )


def _chosen(release: str, known: list[str], sites: Sequence[str] | None) -> list[str]:
    if sites is None:
        if not known:
            raise InputError(f"{release} is not one of SAELens's releases; name its folders: sites=['...'].")
        return known
    chosen: list[str] = []
    for wanted in sites:
        if not known or wanted in known:
            found = [wanted]
        else:
            found = [id for id in known if _could_be(id, wanted)]
        if not found:
            raise InputError(f"{release} has no dictionary {wanted!r}; its ids are {shortened(known)}.")
        chosen += [id for id in found if id not in chosen]
    return chosen


def _could_be(id: str, wanted: str) -> bool:
    """Whether an id could be of a site: True where it does not tell."""
    site, hooked = _site(wanted), re.match(r"blocks\.(\d+)\.", wanted)
    if site is None and hooked is None and wanted not in get_args(Kind):
        return False
    told = re.match(r"blocks\.\d+\.(?:attn\.)?hook_(?:resid_\w+?|z|attn_out|mlp_out)(?=$|_\d|__)", id)
    if told:
        name = re.sub(r"(\d+)\.hook_z", r"\1.attn.hook_z", told[0])
        there = Site.hooked(name)
        return wanted in (there.kind, there.name, name) or site == there
    layer = re.search(r"(?:layer|blocks|l)[_.]?(\d+)", id)
    asked = site.layer if site is not None else int(hooked[1]) if hooked is not None else None
    return layer is None or asked in (None, int(layer[1]))


def _site(wanted: str) -> Site | None:
    named = site_of_name(wanted)
    if named is not None:
        return named
    try:
        return Site.hooked(wanted)
    except InputError:
        return None


def _candidate(release: str, id: str) -> Candidate:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    name = f"{release}/{id}"
    try:
        config = load_sae_config_from_huggingface(release, id)
    except Exception as error:  # the hub's, the network's, SAELens's: each has its own
        raise InputError(f"Could not fetch the configuration of {name}: {first_line(error)}") from error
    refuse_architecture(config["architecture"], name)

    def read(device: torch.device, dtype: torch.dtype) -> Any:
        sae_lens = require_saelens()
        kind = str(dtype).removeprefix("torch.")
        try:
            with quiet():
                sae = sae_lens.SAE.from_pretrained(release, id, device=str(device), dtype=kind)
        except Exception as error:
            raise InputError(f"Could not fetch {name}: {first_line(error)}") from error
        return placed(sae.requires_grad_(False).eval(), device, dtype)

    return Candidate(name, config, read)
