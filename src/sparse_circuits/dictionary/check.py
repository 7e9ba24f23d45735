"""Making sure, when dictionaries are loaded, that each is what it says: against its own object and against the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.place import Notes, width_at
from sparse_circuits.dictionary.saelens import twin
from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.autograd import check_gradients
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk

# reconstructions whose size is this many times off were made for inputs of another size
_OTHER_SCALE = 20.0


def check(dictionaries: Sequence[Dictionary], model: Any, anatomy: Anatomy, notes: Notes) -> None:
    """Run the model once on random tokens, and every dictionary on what it meets there.

    Raises:
        InputError: if a site is not what the dictionary's hook names are in this model, if features, base and skip do not
            add up to what the dictionary's own object computes, or if the value or the gradient of single features is not
            what the encoder gives; or under ``torch.inference_mode()``, where the gradient cannot be seen.
    """
    met = _met(dictionaries, model, anatomy)
    for dictionary in dictionaries:
        read, written = (x.flatten(0, -2).to(dictionary.W_dec.device) for x in met[dictionary.site])
        if dictionary.sae is not None:
            x = _more(read)
            _check_sum(dictionary, x, anatomy)
            _check_single(dictionary, x, anatomy)
            _note_scale(dictionary, read, written, notes)
            _note_centring(dictionary, written, anatomy, notes)


@torch.no_grad()
def _met(dictionaries: Sequence[Dictionary], model: Any, anatomy: Anatomy) -> dict[Site, tuple[Tensor, Tensor]]:
    """What is read and written at every site on random tokens; refused where the model's own hooks say otherwise."""
    n_pos = min(8, anatomy.max_positions or 8)
    tokens = torch.randint(anatomy.d_vocab, (2, n_pos), generator=torch.Generator().manual_seed(0)).to(anatomy.device)
    met: dict[Site, tuple[Tensor, Tensor]] = {}

    def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
        met[site] = (read, written)
        return written

    Walk(anatomy, [dictionary.site for dictionary in dictionaries], None).run(anatomy.embed(tokens), visit)
    known = getattr(model, "hook_dict", {})
    wanted = {name for d in dictionaries for name in (d.hook_name, d.hook_name_out) if name in known}
    _, cache = model.run_with_cache(tokens, names_filter=sorted(wanted))
    tolerance = _tolerance(anatomy, 1e-3)
    for dictionary in dictionaries:
        for name, ours in zip((dictionary.hook_name, dictionary.hook_name_out), met[dictionary.site], strict=True):
            if name not in cache:
                continue
            theirs = cache[name].reshape(ours.shape) if cache[name].numel() == ours.numel() else cache[name]
            if theirs.shape != ours.shape or not _difference(ours, theirs) <= tolerance:
                raise InputError(
                    f"{dictionary.id}: what the model has at {name} is not what the library reads at {dictionary.site.name}; "
                    "the hook stands for something else in this model. Give the site by its name."
                )
    return met


def _more(x: Tensor) -> Tensor:
    """Rows ``[rows, width]`` and as many random ones of the same mean and spread: features fire that tokens leave silent."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(x.shape, generator=generator).to(x)
    return torch.cat([x, x.mean(0) + x.std(0) * noise])


@torch.no_grad()
def _check_sum(dictionary: Dictionary, x: Tensor, anatomy: Anatomy) -> None:
    """Features times decoder rows, base and skip against the object's own forward pass."""
    ours = _reconstructed(dictionary, x)
    theirs = _own(dictionary, anatomy)[1](x)
    _compare(dictionary, "its reconstruction", ours, theirs, anatomy)


def _check_single(dictionary: Dictionary, x: Tensor, anatomy: Anatomy) -> None:
    """Values and gradients of single features that fire against the object's own encoder."""
    check_gradients("load_dictionaries(...)")
    encode = _own(dictionary, anatomy)[0]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        theirs = encode(x)
        if dictionary.normalize is not None:
            theirs = theirs * dictionary.normalize(x).scale
        rows, which = _firing(theirs)
        if not len(rows):
            return
        picked, single = theirs[rows, which], dictionary.at(x[rows], which)
        ours = dictionary.features(x)[rows, which]
        expected = torch.autograd.grad(picked.sum(), x, retain_graph=True)[0]
        gradients = [torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (single, ours)]
    _compare(dictionary, "the value of its features", ours, picked, anatomy)
    _compare(dictionary, "the gradient of its features", gradients[1], expected, anatomy)
    _compare(dictionary, "the gradient of single features", gradients[0], expected, anatomy)
    if _tolerance(anatomy, 0.0, dictionary.W_dec.dtype) == 0:  # what the offset folds is lost in half precision
        _compare(dictionary, "the value of single features", single, picked, anatomy, 1e-3)


def _own(dictionary: Dictionary, anatomy: Anatomy) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The object's encoder and forward pass, on flat input, run on a second object so that the first keeps its state."""
    sae = twin(dictionary.sae)
    heads = None
    if getattr(sae.cfg, "reshape_activations", "none") == "hook_z":
        site = dictionary.site
        heads = anatomy.blocks[site.layer].attention.n_heads if site.kind == "z" else 1

    def shaped(x: Tensor) -> Tensor:
        return x if heads is None else x.unflatten(-1, (heads, -1))

    return lambda x: sae.encode(shaped(x)), lambda x: sae(shaped(x)).reshape(*x.shape[:-1], -1)


def _firing(features: Tensor, most: int = 256) -> tuple[Tensor, Tensor]:
    """Rows and features of some that fire, spread over all that do."""
    rows, which = features.detach().nonzero(as_tuple=True)
    step = max(1, len(rows) // most)
    return rows[::step], which[::step]


def _reconstructed(dictionary: Dictionary, x: Tensor) -> Tensor:
    out = dictionary.features(x) @ dictionary.W_dec + dictionary.base(x)
    skip = dictionary.skip(x)
    return out if skip is None else out + skip


def _compare(
    dictionary: Dictionary, what: str, ours: Tensor, theirs: Tensor, anatomy: Anatomy, full: float = 1e-4
) -> None:
    difference = _difference(ours.detach(), theirs.detach())
    if not difference <= _tolerance(anatomy, full, dictionary.W_dec.dtype):
        raise InputError(
            f"{dictionary.id}: {what}, as the library computes it, differs from the {type(dictionary.sae).__name__}'s own by "
            f"{difference:.2g} of its size: the object computes something that the library does not know of (a changed "
            "activation function or encoder)."
        )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.float(), theirs.float().to(ours.device)
    return ((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)).item()


def _tolerance(anatomy: Anatomy, full: float, dtype: torch.dtype | None = None) -> float:
    precise = (torch.float32, torch.float64)
    return full if anatomy.dtype in precise and (dtype or anatomy.dtype) in precise else 0.05


@torch.no_grad()
def _note_scale(dictionary: Dictionary, x: Tensor, y: Tensor, notes: Notes) -> None:
    """Reconstructions of a size that has nothing to do with what they stand for: trained on inputs of another scale."""
    size = y.float().norm(dim=-1).median().item()
    made = _reconstructed(dictionary, x).float().norm(dim=-1).median().item()
    if dictionary.sae.cfg.normalize_activations == "expected_average_only_in":
        expected, arrived = dictionary.d_in**0.5, x.float().norm(dim=-1).mean().item()
        notes.add(
            "normalize_activations='expected_average_only_in' has a factor that is not part of a dictionary; as in SAELens, "
            f"nothing is scaled at run time. Trained on inputs of mean norm {expected:.3g}; at {dictionary.site.name} they "
            f"have {arrived:.3g} on random tokens. Fold the factor in first, if it is not folded in yet: "
            f"sae.fold_activation_norm_scaling_factor({expected / max(arrived, 1e-12):.3g}) or so.",
            dictionary.id,
        )
    elif size and not size / _OTHER_SCALE < made < size * _OTHER_SCALE:
        notes.add(
            f"reconstructs vectors of norm {made:.3g} where the model has {size:.3g} (medians on random tokens, at "
            f"{dictionary.site.name}): trained on another model, site or normalisation?",
            dictionary.id,
        )


def _note_centring(dictionary: Dictionary, y: Tensor, anatomy: Anatomy, notes: Notes) -> None:
    """Weights that write without a mean, in the model of the training, or in this one only."""
    options = dictionary.sae.cfg.metadata.get("model_from_pretrained_kwargs") or {}
    if "center_writing_weights" not in options or dictionary.site.kind == "z":
        return
    y = y.float()
    share = (y.mean(-1).abs() / y.square().mean(-1).sqrt().clamp_min(1e-12)).median().item()
    centred = share < 1e-3
    if centred != bool(options["center_writing_weights"]):
        was, to_do = ("with", "center them") if not centred else ("without", "load it unprocessed")
        notes.add(
            f"trained on a model {was} center_writing_weights, where vectors at its site have "
            f"{'no mean' if not centred else 'a mean'}; here the mean is {share:.2g} of their size (median on random tokens). "
            f"Reconstructions are worse for it: {to_do}, or expect a larger error term.",
            dictionary.id,
        )


def check_widths(dictionary: Dictionary, anatomy: Anatomy) -> None:
    """Raises InputError for a ready-made dictionary whose widths are not those of its site in this model."""
    width = width_at(anatomy, dictionary.site)
    if (dictionary.d_in, dictionary.d_out) != (width, width):
        raise InputError(
            f"{dictionary.id} goes from {dictionary.d_in} to {dictionary.d_out} numbers, but the model has {width} at "
            f"{dictionary.site.name}: it belongs to another model."
        )
