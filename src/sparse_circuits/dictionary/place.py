"""Where a dictionary goes on a model, and what speaks against it: site, width, model, the way the model was loaded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sparse_circuits.dictionary.candidate import Candidate
from sparse_circuits.dictionary.saelens import is_transcoder
from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site
from sparse_circuits.provenance import model_id

_NO_MIDDLE = (
    "{} is at the stream between attention and MLP of layer {}, which the model does not have: the two run in parallel, or "
    "there is no MLP."
)


@dataclass(frozen=True)
class Place:
    """A site, and TransformerLens's names of what is read and written there."""

    site: Site
    hook_name: str
    hook_name_out: str


@dataclass
class Notes:
    """What only metadata speak against: warned of once for all dictionaries that it concerns."""

    concerned: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, text: str, where: str) -> None:
        if where not in self.concerned[text]:
            self.concerned[text].append(where)

    @property
    def texts(self) -> list[str]:
        return [f"{shortened(names, 4)}: {text}" for text, names in self.concerned.items()]


def shortened(names: Sequence[str], most: int = 8) -> str:
    """A list of names that fits in a message."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def device_at(anatomy: Anatomy, site: Site) -> torch.device:
    """Where a site's activations live."""
    return anatomy.device if site.kind in ("embed", "resid_pre") else anatomy.blocks[site.layer].device


def width_at(anatomy: Anatomy, site: Site) -> int:
    """The width of what is written at a site."""
    if site.kind != "z":
        return anatomy.d_model
    heads, d_head, _ = anatomy.blocks[site.layer].attention.W_O.shape
    return heads * d_head


def refuse_missing(anatomy: Anatomy, site: Site, name: str) -> None:
    """Raises InputError for a site that a model does not have."""
    layers = len(anatomy.blocks)
    if site.layer >= layers:
        raise InputError(f"{name} is at {site.name}, but the model has {layers} layers (0 to {layers - 1}).")
    block = anatomy.blocks[site.layer]
    if site.kind in ("mlp", "transcoder") and block.mlp is None:
        raise InputError(f"{name} is at {site.name}, but the model has attention only.")
    if site.kind == "resid_mid" and (block.parallel or block.mlp is None):
        raise InputError(_NO_MIDDLE.format(name, site.layer))


def place(candidate: Candidate, model: Any, anatomy: Anatomy, notes: Notes) -> Place:
    """Where a dictionary goes: where its key says, otherwise where its metadata say.

    Raises:
        InputError: if there is no such place, the widths disagree, or nothing says where.
    """
    if candidate.metadata.get("hook_head_index") is not None:
        raise InputError(
            f"{candidate.id} was trained on head {candidate.metadata['hook_head_index']} alone (hook_head_index); a site has "
            "all heads."
        )
    hook_name = candidate.metadata.get("hook_name")
    try:
        trained = _trained_at(candidate, model, anatomy)
    except InputError:
        if candidate.key is None:
            raise
        trained = None
    if candidate.key is None:
        if trained is None:
            raise InputError(
                f"{candidate.id} does not say where it was trained (metadata.hook_name is missing); say it: "
                'load_dictionaries({"resid_3": ...}, model).'
            )
        chosen = trained
    else:
        chosen = _keyed(candidate, candidate.key, trained, model, anatomy)
        if hook_name and (trained is None or trained.site != chosen.site):
            at = hook_name if trained is None else f"{trained.site.name} (hook_name {hook_name})"
            notes.add(f"trained at {at}, put at {chosen.site.name} ({chosen.hook_name}).", candidate.id)
    if is_transcoder(candidate.architecture) != (chosen.site.kind == "transcoder"):
        raise InputError(
            f"{candidate.id} is a {candidate.architecture} dictionary, which cannot be put at {chosen.site.name}; a "
            "transcoder goes from an MLP's input to its output, anything else to one place."
        )
    refuse_missing(anatomy, chosen.site, candidate.id)
    _refuse_width(candidate, anatomy, chosen.site)
    _note_model(candidate, model, notes)
    return chosen if chosen.site.kind != "transcoder" else _present(candidate, chosen, model, anatomy)


def _present(candidate: Candidate, chosen: Place, model: Any, anatomy: Anatomy) -> Place:
    """A transcoder's place under names that the model has: another one of the same tensor where the given one is missing."""
    site, known = chosen.site, getattr(model, "hook_dict", {})
    block = anatomy.blocks[site.layer]
    if block.parallel and chosen.hook_name.endswith("hook_resid_mid"):
        raise InputError(_NO_MIDDLE.format(candidate.id, site.layer))
    if chosen.hook_name in known:
        return chosen
    same = {"resid_mid": ["ln2.hook_in"], "normed": ["mlp.hook_in", "ln2.hook_out"]}.get(site.reads, [])
    norm = block.mlp_norm
    if site.reads == "normed" and norm is not None and norm.weight is None and norm.bias is None:
        same.append("ln2.hook_normalized")  # a norm whose weight and bias are folded into the MLP
    names = [name for name in (f"blocks.{site.layer}.{part}" for part in same) if name in known]
    return replace(chosen, hook_name=names[0]) if names else chosen


def _trained_at(candidate: Candidate, model: Any, anatomy: Anatomy) -> Place | None:
    metadata = candidate.metadata
    hook_name, hook_name_out = metadata.get("hook_name"), metadata.get("hook_name_out")
    if not hook_name:
        return None
    if not is_transcoder(candidate.architecture):
        return _between(candidate, hook_name, None, model, anatomy)
    known = re.fullmatch(r"blocks\.(\d+)\.hook_mlp_in", hook_name)
    if known and str(metadata.get("hf_hook_name", "")).endswith("layernorm.output"):
        hook_name = f"blocks.{known[1]}.mlp.hook_in"  # what hook_mlp_in stands for there
    return _between(candidate, hook_name, hook_name_out, model, anatomy)


def _keyed(
    candidate: Candidate, key: str | tuple[str, str], trained: Place | None, model: Any, anatomy: Anatomy
) -> Place:
    if isinstance(key, tuple):
        return _between(candidate, *key, model, anatomy)
    written = re.fullmatch(r"blocks\.(\d+)\.(?:hook_mlp_out|mlp\.hook_out)", key)
    if written and is_transcoder(candidate.architecture):
        key = f"transcoder_{written[1]}"
    site = site_of_name(key)
    if site is None:
        return _between(candidate, key, None, model, anatomy)
    if trained is not None and site.name == trained.site.name:
        return trained
    if site.kind != "transcoder":
        return Place(site, site.hook_name, site.hook_name)
    return Place(site, f"blocks.{site.layer}.mlp.hook_in", site.hook_name)


def site_of_name(name: Any) -> Site | None:
    """The site that a name is the name of, None for hook names and other words."""
    try:
        return Site.named(str(name))
    except InputError:
        return None


def _between(candidate: Candidate, hook_name: str, out: str | None, model: Any, anatomy: Anatomy) -> Place:
    """The place of a hook name, or of a transcoder's two."""
    name = re.sub(r"^(blocks\.\d+)\.hook_z$", r"\1.attn.hook_z", hook_name)
    if is_transcoder(candidate.architecture):
        if re.fullmatch(r"blocks\.\d+\.hook_mlp_in", name):
            block = name.removesuffix("hook_mlp_in")
            raise InputError(
                f"{candidate.id} reads {name}, which is the stream before the norm on a HookedTransformer and nothing on a "
                f"TransformerBridge; say what it reads by a key of two names: ('{block}mlp.hook_in', '{block}hook_mlp_out'), "
                "or ln2.hook_normalized or hook_resid_mid in the place of mlp.hook_in."
            )
        layer = re.match(r"blocks\.(\d+)\.", name)
        out = out or (f"blocks.{layer[1]}.hook_mlp_out" if layer else None)
    written, renamed = _written(candidate, out or name, anatomy)
    site = Site.hooked(name, written) if out and out != name else Site.hooked(written)
    if out and out != name:
        return Place(site, name, written)
    shown = written if renamed or name not in getattr(model, "hook_dict", ()) else name
    return Place(site, shown, shown)


def _written(candidate: Candidate, hook_name: str, anatomy: Anatomy) -> tuple[str, bool]:
    """A bridge's name of a module's output, as the name of what joins the stream: the same where no norm follows."""
    match = re.fullmatch(r"blocks\.(\d+)\.(attn|mlp)\.hook_out", hook_name)
    if match is None or int(match[1]) >= len(anatomy.blocks):
        return hook_name, False
    block = anatomy.blocks[int(match[1])]
    mlp_norm = None if block.mlp is None else block.mlp.post_norm
    if (block.attn_post_norm if match[2] == "attn" else mlp_norm) is not None:
        raise InputError(
            f"{candidate.id} is at {hook_name}, before the norm of what joins the stream; expected "
            f"blocks.{match[1]}.hook_{match[2]}_out, which is after it."
        )
    return f"blocks.{match[1]}.hook_{match[2]}_out", True


def _refuse_width(candidate: Candidate, anatomy: Anatomy, site: Site) -> None:
    width = width_at(anatomy, site)
    d_in, d_out = candidate.config["d_in"], candidate.config.get("d_out")
    d_out = d_out if is_transcoder(candidate.architecture) else d_in
    for what, arrived in (("reads", d_in), ("writes", d_out)):
        if arrived != width:
            raise InputError(
                f"{candidate.id} {what} {arrived} numbers, but the model has {width} at {site.name}: it was trained on another "
                f"model or site (its metadata: model {candidate.metadata.get('model_name')}, hook "
                f"{candidate.metadata.get('hook_name')})."
            )


def _note_model(candidate: Candidate, model: Any, notes: Notes) -> None:
    trained, here = candidate.metadata.get("model_name"), model_id(model)
    if not trained or here in ("unnamed", "custom") or _plain(str(trained)) == _plain(here):
        return
    notes.add(f"trained on {trained}, but the model is {here}.", candidate.id)


def _plain(name: str) -> str:
    """A model's name without its owner, as the field's several names of one model agree on it."""
    name = name.rstrip("/").lower()
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name

        name = get_official_model_name(name).lower()
    except (ImportError, ValueError):
        pass
    return {"gpt2-small": "gpt2"}.get(base := name.rsplit("/", 1)[-1], base)
