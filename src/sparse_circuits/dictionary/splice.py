"""Dictionaries in place of what they stand for: what SAELens's model classes do, on a model that stays as it is."""

from __future__ import annotations

from typing import Any, NamedTuple

from sparse_circuits.dictionary.saelens import refuse_architecture, require_saelens
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Site


class Place(NamedTuple):
    """A dictionary, and the hook points that it reads and writes, by name."""

    sae: Any
    reads: str
    writes: str


def splice(model: Any, saes: Any, errors: bool = True) -> Any:
    """A model with dictionaries in place.

    Use it as a context manager::

        with sc.splice(model, saes) as spliced:
            logits, cache = spliced.run_with_cache(tokens)
            cache["blocks.5.hook_mlp_out.hook_sae_acts_post"]

    ``spliced`` is the same model seen through SAELens's ``SAETransformerBridge`` or ``HookedSAETransformer``: it runs, caches,
    hooks and generates as these do, with ``add_sae``, ``reset_saes``, ``run_with_saes``, ``run_with_cache_with_saes`` and
    ``run_with_hooks_with_saes`` for other dictionaries. ``model`` itself is not changed at any time: it runs unspliced inside
    the block too, and nothing is left of the dictionaries, nor of hooks added through ``spliced``, when the block is left,
    by an error or not. Without a block, ``spliced`` works until ``spliced.remove()``. After either it refuses to run.

    At a site with a dictionary, hooks on the site's own name see and may change what goes into it, and run before it.
    Inside, by SAELens's names after the site's (under all of a bridge's names for it): ``hook_sae_input``,
    ``hook_sae_acts_pre``, ``hook_sae_acts_post`` (the features), ``hook_sae_recons``, ``hook_sae_error`` and
    ``hook_sae_output``, which is what goes on. A transcoder's are at the site that it writes. The last two have the site's
    shape, by heads at ``attn.hook_z``.

    What goes on is ``SAE(x) + e`` with ``e = y - SAE(x)``, where x is read and y stands there in the model (SAEs: y = x). The
    error term is that of the encoding without hooks, so it does not undo an intervention on features; and it carries
    gradient, so that gradients upstream are the unspliced model's. To send them through the features alone, as SAELens
    does, hook ``hook_sae_error`` with ``lambda e, hook: e.detach()``.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` (TransformerLens 3, for SAELens), or a spliced one.
        saes: what ``load_dictionaries`` returns; SAELens objects in a list, whose metadata says where they belong; or
            ``{hook name: SAE}``, where a site's name, "resid_3", does too. On a ``HookedTransformer`` the MLPs' inputs,
            ``blocks.0.mlp.hook_in``, can be read as well.
        errors: whether to keep the error terms. Without them the model runs on reconstructions alone.

    Raises:
        InputError: if SAELens is missing; for a model or dictionary of another kind; for a hook point that does not exist or
            is switched off, a dictionary of another width, or two that write the same hook point; when a hook is put on a
            name that does not exist; and by a run in which a dictionary was passed by.

    Cost: an encoding and decoding for each dictionary and run, two where its inside is hooked or cached. Weights are shared
    with the SAE that was passed in, and keep its dtype; where the model is on another device, they are copied there once.
    """
    if not isinstance(errors, bool):
        raise InputError(f"splice(errors={errors!r}): expected True, to keep the error terms, or False.")
    require_saelens()
    from sparse_circuits.dictionary.shared import view_of

    places = placed(saes)
    spliced = view_of(model)
    spliced._put(places, use_error_term=errors)
    return spliced


def placed(saes: Any) -> list[Place]:
    """Dictionaries and where they go, from all that :func:`splice` takes.

    Raises:
        InputError: for anything else, for an architecture that cannot be spliced, and where no hook name is known.
    """
    if _is_sae(saes) or hasattr(saes, "hook_name"):
        return [_place(saes)]
    if hasattr(saes, "items"):
        return [_place(sae, str(name)) for name, sae in saes.items()]
    if isinstance(saes, (list, tuple)):
        return [_place(sae) for sae in saes]
    raise InputError(
        f"Expected dictionaries: SAELens objects in a list, or {{hook name: SAE}}; got {type(saes).__name__}."
    )


def _is_sae(value: Any) -> bool:
    return isinstance(value, require_saelens().SAE)


def _place(sae: Any, name: str | None = None) -> Place:
    if hasattr(sae, "hook_name") and hasattr(sae, "sae"):  # of load_dictionaries, whose own names are of sites
        from sparse_circuits.dictionary.insert import Split

        inner = Split(sae) if sae.sae is None else _accepted(sae.sae)
        return Place(inner, sae.hook_name, getattr(sae, "hook_name_out", None) or sae.hook_name)
    if not _is_sae(sae):
        raise InputError(f"Expected an SAELens SAE or transcoder, got {type(sae).__name__}.")
    _accepted(sae)
    metadata = sae.cfg.metadata
    reads = metadata.hook_name
    writes = metadata.hook_name_out or reads
    if getattr(sae.cfg, "d_out", None) is None:
        reads = writes = _hook_name(name) if name else reads
    elif name is not None and not {name, _hook_name(name)} & {reads, writes}:
        raise InputError(
            f"The transcoder under {name!r} reads {reads!r} and writes {writes!r}, by its metadata; use one of these names, or "
            "set sae.cfg.metadata.hook_name and hook_name_out."
        )
    elif metadata.hook_name_out is None:
        raise InputError(
            f"The transcoder at {reads!r} does not say what it writes; set sae.cfg.metadata.hook_name_out to a hook name."
        )
    if reads is None:
        raise InputError(
            "The SAE does not say where it belongs; pass {hook name: SAE}, or set sae.cfg.metadata.hook_name."
        )
    return Place(sae, reads, writes)


def _hook_name(name: str) -> str:
    """The hook name of a site such as "resid_3"; any other name as it is."""
    try:
        return Site.named(name).hook_name
    except InputError:
        return name


def _accepted(sae: Any) -> Any:
    sae_lens = require_saelens()
    if isinstance(sae, sae_lens.TrainingSAE):
        raise InputError(
            f"{type(sae).__name__} is for training (top-k over a batch mixes its tokens); splice what it saves: "
            "sae.save_inference_model(folder), then SAE.load_from_disk(folder)."
        )
    refuse_architecture(sae.cfg.architecture(), f"The dictionary at {sae.cfg.metadata.hook_name!r}")
    if sae.cfg.metadata.hook_head_index is not None:
        raise InputError(
            f"The SAE at {sae.cfg.metadata.hook_name!r} reads head {sae.cfg.metadata.hook_head_index} alone; only "
            "dictionaries of a whole activation can be spliced."
        )
    return sae
