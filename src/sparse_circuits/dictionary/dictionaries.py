"""The dictionaries of a feature graph: one for each site that is split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class Dictionaries(Mapping[str, Dictionary]):
    """Dictionaries by site name (``"resid_3"``), in the order in which a forward pass meets them.

    They may also be asked for by hook name (``"blocks.3.hook_resid_post"``). ``a | b`` is both; where both split a site, b.

    Raises:
        InputError: for two of one site, or a transcoder and an SAE of one MLP's output, which would split it twice.
    """

    entries: tuple[Dictionary, ...]

    def __init__(self, dictionaries: Iterable[Dictionary]) -> None:
        ordered = tuple(sorted(dictionaries, key=lambda dictionary: dictionary.site.order))
        refuse_double((dictionary.id, dictionary.site) for dictionary in ordered)
        object.__setattr__(self, "entries", ordered)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where they stand, in the model's order."""
        return tuple(dictionary.site for dictionary in self.entries)

    @property
    def ids(self) -> dict[str, str]:
        """What each was loaded as, by site name: recorded with circuits."""
        return {dictionary.site.name: dictionary.id for dictionary in self.entries}

    def __getitem__(self, name: str) -> Dictionary:
        named = [d for d in self.entries if d.site.name == name]
        hooked = [d for d in self.entries if name in (d.hook_name, d.hook_name_out, d.site.hook_name)]
        found = named or hooked
        if not found:
            raise KeyError(f"No dictionary at {name!r}; there are {', '.join(self) or 'none'}.")
        return found[0]

    def __iter__(self) -> Iterator[str]:
        return (dictionary.site.name for dictionary in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __or__(self, other: Dictionaries) -> Dictionaries:
        if not isinstance(other, Dictionaries):
            return NotImplemented
        replaced = set(other.ids)
        return Dictionaries([*(d for d in self.entries if d.site.name not in replaced), *other.entries])

    def only(self, sites: str | Iterable[str]) -> Dictionaries:
        """Those at some sites, by kind, site name or hook name: ``only("resid")``, ``only(["mlp_2", "attn_3"])``.

        Raises:
            InputError: for a name that none of them has.
        """
        wanted = (sites,) if isinstance(sites, str) else tuple(sites)
        missing = [name for name in wanted if not any(at_site(d, name) for d in self.entries)]
        if missing:
            raise InputError(f"No dictionary is at {', '.join(missing)}; there are {', '.join(self) or 'none'}.")
        return Dictionaries(d for d in self.entries if any(at_site(d, name) for name in wanted))

    def describe(self) -> list[dict[str, Any]]:
        """One row for each: site, hook, architecture, features, normalisation, id."""
        return [
            {
                "site": d.site.name,
                "hook": d.hook_name if d.hook_name == d.hook_name_out else f"{d.hook_name} -> {d.hook_name_out}",
                "architecture": "neurons" if d.sae is None else d.sae.cfg.architecture(),
                "features": d.n_features,
                "normalisation": "none" if d.sae is None else d.sae.cfg.normalize_activations,
                "id": d.id,
            }
            for d in self.entries
        ]

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_dictionaries

        return of_dictionaries(self)

    def __repr__(self) -> str:
        rows = (f"{r['site']}: {r['architecture']}, {r['features']} features, {r['id']}" for r in self.describe())
        return "Dictionaries(\n  " + "\n  ".join(rows) + "\n)" if self.entries else "Dictionaries()"


def at_site(dictionary: Dictionary, name: str) -> bool:
    """Whether a kind of site, a site's name or a hook name means where a dictionary is."""
    return name in (dictionary.site.kind, dictionary.site.name, dictionary.hook_name, dictionary.hook_name_out)


def refuse_double(found: Iterable[tuple[str, Site]]) -> None:
    """Raises InputError where two of some dictionaries, as (id, site), split the same output."""
    seen: dict[str, str] = {}
    for id, site in found:
        if site.name in seen:
            raise InputError(
                f"Two dictionaries are at {site.name}: {seen[site.name]} and {id}; a site is split by one. Choose with "
                "sites=[...]."
            )
        seen[site.name] = id
    for name in seen:
        mlp = name.replace("transcoder", "mlp")
        if name.startswith("transcoder") and mlp in seen:
            raise InputError(
                f"{name} and {mlp} ({seen[name]} and {seen[mlp]}) both split what one MLP writes; keep one of them: "
                "dictionaries.only([...]), or sites=[...] when loading."
            )
