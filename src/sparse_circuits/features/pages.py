"""Everything that is known of some features, put together: from texts, from weights, from people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.features.feature import Feature
from sparse_circuits.features.labels import Labels, neuronpedia_url
from sparse_circuits.features.logits import promoted, units_of
from sparse_circuits.features.neighbours import closest, of_many
from sparse_circuits.features.nodes import dictionaries_of, names_in
from sparse_circuits.features.store import FeatureStore, check_whole, folder_of
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy


def feature_pages(
    model: Any,
    nodes: Any,
    store: FeatureStore | str | Path | None = None,
    *,
    dictionaries: Any = None,
    labels: Mapping[str, str] | None = None,
    k: int = 10,
) -> dict[str, Feature]:
    """One :class:`Feature` for every feature, neuron and head among some nodes, by name without position.

    >>> pages = sc.feature_pages(model, circuit, store, labels=sc.Labels.load("labels.json"))
    >>> pages["resid_3.f217"]                       # in a notebook: its contexts, shaded
    >>> json.dumps({name: page.to_dict() for name, page in pages.items()})

    Cost: no pass; a product with the unembedding, and one with each decoder.

    Args:
        nodes, dictionaries: as in :func:`collect_contexts`.
        store: contexts that were collected, or their folder; features that it does not have, or all without it, come without
            contexts.
        labels: notes by name.
        k: how many promoted, suppressed and similar ones.

    Raises:
        InputError: for names without a dictionary, or a store of another model (an edited one too).
    """
    check_whole("k", k, 0)
    names, _ = names_in(nodes)
    known = dictionaries_of(nodes, dictionaries)
    if store is not None:
        store = store if isinstance(store, FeatureStore) else FeatureStore.load(folder_of(store))
        store.check_model(model)
    labels = labels if isinstance(labels, Labels) else Labels({} if labels is None else labels)
    directed = [name for name in names if "." in name and not _is_head(name)]
    up_and_down = promoted(model, directed, k, dictionaries=known) if directed else {}
    alike = _similar(anatomy_of(model), names, known, k)
    pages = {}
    for name in names:
        page = store[name] if store is not None and name in store else Feature(name)
        up, down = up_and_down.get(name, ((), ()))
        site, _, part = name.partition(".f")
        dictionary = known.get(site) if part else None
        pages[name] = replace(
            page,
            promoted=up,
            suppressed=down,
            similar=alike.get(name, ()),
            label=labels.get(name),
            link=neuronpedia_url(dictionary, int(part)) if dictionary is not None else None,
            source=page.source
            or (dictionary.id if dictionary is not None else "heads" if _is_head(name) else "neurons"),
        )
    return pages


def _similar(
    anatomy: Anatomy, names: list[str], dictionaries: Mapping[str, Dictionary], k: int
) -> dict[str, tuple[tuple[str, float], ...]]:
    """By name. Coordinates of a site ("neurons" as a dictionary) are orthogonal and heads have no one direction: none."""
    by_site: dict[str, list[int]] = {}
    by_layer: dict[str, list[str]] = {}
    for name in names:
        site, _, part = name.partition(".f")
        if part and dictionaries[site].id != "neurons":
            by_site.setdefault(site, []).append(int(part))
        elif not part and not _is_head(name):
            by_layer.setdefault(name.partition(".")[0], []).append(name)
    found = {}
    for site, numbers in by_site.items():
        for number, others in zip(numbers, of_many(dictionaries[site], numbers, k), strict=True):
            found[f"{site}.f{number}"] = tuple((other.name, other.decoder) for other in others)
    for layer, neurons in by_layer.items():
        units, written = units_of(anatomy, layer)
        numbers = [units.index(name) for name in neurons]
        for name, (cosines, at) in zip(neurons, closest(written, numbers, k), strict=True):
            found[name] = tuple(zip((units[i] for i in at.tolist()), cosines.tolist(), strict=True))
    return found


def _is_head(name: str) -> bool:
    return ".h" in name and ".n" not in name
