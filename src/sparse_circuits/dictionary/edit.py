"""Features taken out of a model for good: an edited model that runs wherever the original does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from sparse_circuits.dictionary.check import check_widths
from sparse_circuits.dictionary.dictionaries import Dictionaries
from sparse_circuits.dictionary.edited import EDITS, Edit, copied, install, points_of
from sparse_circuits.dictionary.load import load_dictionaries
from sparse_circuits.dictionary.place import refuse_missing
from sparse_circuits.errors import InputError
from sparse_circuits.model import anatomy_of


def ablate_features(model: Any, dictionaries: Any, features: Any) -> Any:
    """A model without some features, at every token: an edit that stays (SHIFT; Marks et al. 2024, arXiv:2403.19647).

    >>> edited = sc.ablate_features(model, saes, ["resid_3.f217", "mlp_0.f3"])
    >>> edited.generate("Then Mary went to the park because")

    At every site the chosen features are subtracted from what is written there, ``y - sum_f s z_f d_f``: zero ablation, with
    the base, all other features and the error term as they are. Features are encoded from the stream as edited so far: at
    later sites they are what is left of them. A transcoder's are encoded from the MLP's input and subtracted from its
    output.

    What comes back is another model of the same class, in which the subtraction is part of the hook point where the feature is
    written. So it runs, caches, generates and takes hooks as the original does; ``reset_hooks`` does not undo it, copies
    have it too, and gradients flow through it. Hooks at the same hook point see, and may change, the edited activation. The
    library's own functions know of edits: feature graphs, their attribution and evaluation, ``load_dictionaries`` and this
    function itself, which adds further edits to those there are. Graphs of heads, MLPs and neurons refuse an edited
    model, whose stream is no longer the sum of what these write. Results of an edited model are recorded under its
    ``sparse_circuits_revision``, which names the edits.

    The original is not changed. Both share the memory of their weights until one of the two is moved or cast, so training
    one in place would train the other; ``copy.deepcopy(edited)`` has weights of its own. The dictionaries stay where they are:
    load them on the device on which the edited model is to run, or activations travel there and back.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``; an edited one too.
        dictionaries: what ``load_dictionaries`` returns, or anything that it takes.
        features: names as graphs have them, ``"resid_3.f217"``; or ``{"resid_3": [217, 4], ...}`` with site or hook names; or
            a :class:`FeatureCircuit`, whose features are taken and whose error terms are left. None of them: a plain copy.

    Raises:
        InputError: before anything is done: for a feature that no dictionary has, one that is named twice, the error term or a
            whole site or head, a feature at one position only, or a dictionary of another model.
        UnsupportedModelError: if the edited model, run on random tokens, does not compute what it should.

    Cost of a run: an encoding at each edited site.
    """
    anatomy = anatomy_of(model)
    loaded = dictionaries if isinstance(dictionaries, Dictionaries) else load_dictionaries(dictionaries, model)
    chosen = _chosen(features, loaded)
    for site in chosen:
        refuse_missing(anatomy, loaded[site].site, loaded[site].id)
        check_widths(loaded[site], anatomy)
    new = (Edit(loaded[site], tuple(found)) for site, found in chosen.items())
    before: tuple[Edit, ...] = getattr(model, EDITS, ())
    # in the model's order; of one site, those that were there come first
    edits = tuple(sorted((*before, *new), key=lambda edit: edit.site.order))
    for edit in edits:
        points_of(model, edit)  # refuses what the model lacks
    edited = copied(model)
    install(edited, edits)
    setattr(edited, EDITS, edits)
    if edits:
        edited.sparse_circuits_revision = _revision(edits)
    anatomy_of(edited)
    return edited


def _chosen(features: Any, dictionaries: Dictionaries) -> dict[str, list[int]]:
    """Features by site name, as asked for and checked."""
    found: dict[str, list[int]] = {}
    for name, site, feature in _asked(features):
        dictionary = dictionaries.get(site)
        if dictionary is None:
            raise InputError(
                f"No dictionary is at {site!r}, for {name!r}; there are {', '.join(dictionaries) or 'none'}."
            )
        if not 0 <= feature < dictionary.n_features:
            raise InputError(
                f"{dictionary.site.name} has {dictionary.n_features} features, f0 to f{dictionary.n_features - 1}; got {name!r}."
            )
        chosen = found.setdefault(dictionary.site.name, [])
        if feature in chosen:
            raise InputError(f"ablate_features(features=...): {name!r} is named twice; name each feature once.")
        chosen.append(feature)
    return found


def _asked(features: Any) -> Iterable[tuple[str, str, int]]:
    """Each feature as it was asked for, with its site and number."""
    if isinstance(features, str):
        raise InputError(f"ablate_features(features={features!r}): expected a list of names; write [{features!r}].")
    if isinstance(features, Mapping):
        for site, numbers in features.items():
            for number in numbers.tolist() if isinstance(numbers, Tensor) else numbers:
                if isinstance(number, bool) or not isinstance(number, int):
                    raise InputError(
                        f"ablate_features(features={{{site!r}: ...}}): expected feature numbers, got {number!r}."
                    )
                yield f"{site}.f{number}", str(site), number
        return
    of_circuit = hasattr(features, "graph") and hasattr(features, "nodes")
    for name in features.nodes if of_circuit else features:
        site, _, part = str(name).rpartition(".")
        if of_circuit and part == "error":
            continue
        if not (part[:1] == "f" and part[1:].isdecimal()):
            raise InputError(
                f"ablate_features(features=...): expected features such as 'resid_3.f217', at all positions, got {name!r}; error "
                "terms, whole sites and heads stay in the model."
            )
        yield str(name), site, int(part[1:])


def _revision(edits: tuple[Edit, ...], most: int = 8) -> str:
    """The edits in words, for provenance: of many the first, and by which digest all of them are known."""
    names = [f"{name} of {edit.dictionary.id}" for edit in edits for name in edit.names]
    known_by = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:8]
    more = f" and {len(names) - most} more ({known_by})" if len(names) > most else ""
    return f"edited: without {', '.join(names[:most])}{more}"
