"""Loading dictionaries: the bundled ones, SAELens's releases, folders, objects, or the identity."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparse_circuits.dictionary.check import check, check_widths
from sparse_circuits.dictionary.dictionaries import Dictionaries, at_site, refuse_double
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.neurons import neurons
from sparse_circuits.dictionary.place import Notes, Place, device_at, place, refuse_missing, shortened
from sparse_circuits.dictionary.saelens import require_saelens, wrap
from sparse_circuits.errors import InputError
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site


def load_dictionaries(
    source: Any,
    model: Any,
    *,
    sites: str | Iterable[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> Dictionaries:
    """SAEs, transcoders or neurons at sites of a model, each checked on what the model has there.

    >>> saes = sc.load_dictionaries("gpt2-small-res-jb", model, sites=["blocks.8.hook_resid_pre"])
    >>> saes = sc.load_dictionaries({"blocks.3.hook_resid_post": sae, "mlp_2": "my-saes/mlp_2"}, model)
    >>> saes["resid_3"].features(x)

    Args:
        source: "toy", those of the bundled model; "neurons", the identity; a SAELens release, or ``release/id`` for one of
            it; a folder of SAELens's or dictionary_learning's, or a folder of such folders; a mapping from hook names,
            site names or a transcoder's two hook names to SAELens or dictionary_learning objects, dictionaries,
            folders or ``release/id``; or a list of objects that know their hook names, or one.
        sites: which of the source's: kinds ("resid"), site names ("mlp_2"), hook names or ids. By default all, but the
            transcoders for "toy", and attn, mlp and resid for "neurons".
        device: where to put them; by default where the layer is, which is where they can be used.
        dtype: of their weights; by default the model's. An object that is elsewhere is copied, and never changed.

    Raises:
        InputError: if a dictionary cannot be read, has no place in the model, was made for another width, or is not a
            feed-forward map of one position; the message names the reason.
    """
    anatomy, notes = anatomy_of(model), Notes()
    wanted = None if sites is None else ([sites] if isinstance(sites, str) else list(sites))
    dtype, device = _dtype(dtype), _device(device)
    made: list[Dictionary]
    if isinstance(source, str) and source == "neurons":
        made = neurons(anatomy, wanted, device, dtype)
    else:
        made = _loaded(source, model, anatomy, wanted, device, dtype, notes)
    dictionaries = Dictionaries(made)
    check(dictionaries.entries, model, anatomy, notes)
    for text in notes.texts:
        warnings.warn(text, UserWarning, stacklevel=2)
    return dictionaries


def _loaded(
    source: Any,
    model: Any,
    anatomy: Anatomy,
    wanted: list[str] | None,
    device: torch.device | None,
    dtype: torch.dtype | None,
    notes: Notes,
) -> list[Dictionary]:
    ready, rest = _ready(source)
    found = [(d, Place(d.site, d.hook_name, d.hook_name_out)) for d in ready]
    for dictionary in ready:
        refuse_missing(anatomy, dictionary.site, dictionary.id)
        check_widths(dictionary, anatomy)
    if rest is not None:
        require_saelens()
        found += [(c, place(c, model, anatomy, notes)) for c in _candidates(rest, wanted)]
    if wanted is not None:
        found = _matching(found, wanted)
    elif source == "toy":
        found = [(c, p) for c, p in found if p.site.kind != "transcoder"]
    pairs = [(item.id, where.site) for item, where in found]
    _refuse_several(pairs)
    refuse_double(pairs)
    made = []
    for item, where in found:
        if isinstance(item, Dictionary):
            made.append(item)
            continue
        at = device or device_at(anatomy, where.site)
        sae = item.read(at, dtype or anatomy.dtype)
        made.append(wrap(sae, where.site, item.id, where.hook_name, where.hook_name_out))
    return made


def _ready(source: Any) -> tuple[list[Dictionary], Any]:
    """Dictionaries that a source holds ready-made, and the rest of it, None for nothing."""
    if isinstance(source, Dictionary):
        return [source], None
    if isinstance(source, Mapping):
        ready = {key: value for key, value in source.items() if isinstance(value, Dictionary)}
        for key, value in ready.items():
            named = isinstance(key, str) and at_site(value, key)
            if not named and key != (value.hook_name, value.hook_name_out):
                raise InputError(f"{value.id} is a dictionary at {value.site.name}; it cannot be put at {key!r}.")
        rest = {key: value for key, value in source.items() if key not in ready}
        return list(ready.values()), rest or None
    if isinstance(source, Sequence) and not isinstance(source, str):
        rest = [item for item in source if not isinstance(item, Dictionary)]
        return [item for item in source if isinstance(item, Dictionary)], rest or None
    return [], source


def _candidates(source: Any, wanted: list[str] | None) -> list[Any]:
    """What a source offers, without reading weights where that can be helped."""
    from sparse_circuits.dictionary.candidate import folders_below, of_folder, of_object
    from sparse_circuits.dictionary.releases import of_release

    if isinstance(source, Mapping):
        return [_of_value(key, value) for key, value in source.items()]
    if isinstance(source, str) and source == "toy":
        root = _toy_folder()
        return [of_folder(folder, f"toy/{folder.name}") for folder in folders_below(root)]
    if isinstance(source, (str, Path)):
        root = Path(source).expanduser()
        if root.is_dir():
            folders = folders_below(root)
            if not folders:
                of_folder(root, str(source))  # says what is missing
            return [of_folder(f, str(source) if f == root else f"{source}/{f.relative_to(root)}") for f in folders]
        if isinstance(source, Path) or root.is_absolute() or source.startswith((".", "~")):
            raise InputError(f"No folder of dictionaries at {source}.")
        return of_release(source, wanted)
    if isinstance(source, Sequence):
        return [of_object(obj) for obj in source]
    return [of_object(source)]


def _of_value(key: Any, value: Any) -> Any:
    """What a mapping holds under a key: an object, a folder or ``release/id``."""
    from sparse_circuits.dictionary.candidate import of_folder, of_object
    from sparse_circuits.dictionary.releases import of_release

    paired = isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)
    if not (isinstance(key, str) or paired):
        raise InputError(
            f"{key!r} names no site; expected a hook name, a site's name, or a transcoder's two hook names."
        )
    if not isinstance(value, (str, Path)):
        return of_object(value, key)
    folder = Path(value).expanduser()
    if folder.is_dir() or isinstance(value, Path) or folder.is_absolute() or value.startswith((".", "~")):
        return of_folder(folder, str(value), key)
    found = of_release(value, [key] if isinstance(key, str) else None)
    if len(found) != 1:
        ids = shortened([candidate.id for candidate in found])
        raise InputError(f"{len(found)} dictionaries could be meant for {key}: {ids}. Name one: {{{key!r}: '<id>'}}.")
    return replace(found[0], key=key)


def _toy_folder() -> Path:
    from sparse_circuits.zoo import toy_path

    root = toy_path() / "dictionaries"
    if not root.is_dir():
        raise InputError("The bundled dictionaries are missing from this installation; install sparse-circuits again.")
    return root


def _matching(found: list[tuple[Any, Place]], wanted: list[str]) -> list[tuple[Any, Place]]:
    def means(name: str, item: Any, where: Place) -> bool:
        names = (where.site.kind, where.site.name, where.site.hook_name, where.hook_name, where.hook_name_out, item.id)
        return name in names or item.id.endswith(f"/{name}")

    missing = [name for name in wanted if not any(means(name, *pair) for pair in found)]
    if missing:
        there = ", ".join(dict.fromkeys(where.site.name for _, where in found)) or "none"
        raise InputError(f"sites={missing}: no such dictionary; there are some at {there}.")
    return [pair for pair in found if any(means(name, *pair) for name in wanted)]


def _refuse_several(found: list[tuple[str, Site]]) -> None:
    """Several of one site, as a release with several widths has: which one is meant must be said."""
    by_site: dict[str, list[str]] = {}
    for id, site in found:
        by_site.setdefault(site.name, []).append(id)
    for name, ids in by_site.items():
        if len(ids) > 1:
            raise InputError(
                f"{len(ids)} dictionaries are at {name}: {shortened(ids)}. Say which: sites=['<id>', ...]."
            )


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if named is not None and (not isinstance(named, torch.dtype) or not named.is_floating_point):
        raise InputError(f"load_dictionaries(dtype={dtype!r}): expected float32, bfloat16 or float16.")
    if isinstance(dtype, str) and named is None:
        raise InputError(f"load_dictionaries(dtype={dtype!r}): expected float32, bfloat16 or float16.")
    return named


def _device(device: str | torch.device | None) -> torch.device | None:
    """A device with its number, as tensors on it say it."""
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that a device is there
        raise InputError(f"load_dictionaries(device={str(device)!r}): there is no such device.") from error
