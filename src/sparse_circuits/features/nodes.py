"""Which values of a run are looked at: features, neurons and heads by name, and how cheaply each site yields them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionaries import Dictionaries
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.saelens import wrap
from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site

# SAELens's architectures of which a feature's value depends on no other feature
_COLUMNWISE = (
    "standard",
    "gated",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
_FEATURE = re.compile(r"([a-z_]+?(?:_\d+)?)\.f(\d+)")
_HEAD = re.compile(r"a(\d+)\.h(\d+)(?:\.n(\d+))?")
_NEURON = re.compile(r"m(\d+)\.n(\d+)")
# nodes that are no single direction or unit, and so have no contexts
_WHOLE = re.compile(r"input|logits|m\d+|embed|[a-z_]+_\d+|.+\.error|.+\.d\d+")


@dataclass(frozen=True, eq=False)
class Probe:
    """Values that are read off at one site of a walk.

    Attributes:
        site: where.
        names: of the values, one for each column.
        values: what is read there, ``[batch, pos, width]``, to ``[batch, pos, columns]``.
        source: whose they are: a dictionary's id, "heads" or "neurons".
    """

    site: Site
    names: tuple[str, ...]
    values: Callable[[Tensor], Tensor]
    source: str


def names_in(nodes: Any) -> tuple[list[str], list[str]]:
    """Names of the features, neurons and heads among some nodes, positions dropped, and of those that are neither.

    Args:
        nodes: a circuit, names, one name, or feature numbers by site name (``{"resid_3": [217, 4]}``).

    Raises:
        InputError: for something else, for a name that no node has, or where nothing is left.
    """
    level = getattr(getattr(nodes, "graph", None), "level", None)
    listed: list[Any]
    if level is not None and hasattr(nodes, "nodes"):
        listed = list(nodes.names if level == "neurons" else nodes.nodes)
    elif isinstance(nodes, str):
        listed = [nodes]
    elif isinstance(nodes, Mapping) and not all(isinstance(value, (int, float)) for value in nodes.values()):
        listed = [f"{site}.f{int(i)}" for site, numbers in nodes.items() for i in numbers]
    elif isinstance(nodes, Iterable):
        listed = list(nodes)
    else:
        raise InputError(f"Expected a circuit or names of features, got {type(nodes).__name__}.")
    found: dict[str, None] = {}
    skipped: dict[str, None] = {}
    for name in listed:
        bare = str(name).partition("@")[0]
        if any(kind.fullmatch(bare) for kind in (_FEATURE, _HEAD, _NEURON)):
            found[bare] = None
        elif _WHOLE.fullmatch(bare):
            skipped[bare] = None
        else:
            raise InputError(
                f"{name!r} names no feature, neuron or head; expected names such as 'resid_3.f217', 'm2.n40' or 'a1.h3'."
            )
    if not found:
        raise InputError(
            "There is no feature, neuron or head among the nodes"
            + (
                f" ({', '.join(list(skipped)[:3])}...); error terms and whole sites have no contexts."
                if skipped
                else "."
            )
        )
    return list(found), list(skipped)


def dictionaries_of(nodes: Any, dictionaries: Any) -> Mapping[str, Dictionary]:
    """The dictionaries of a circuit's graph, or those that are given, by site name."""
    if dictionaries is None:
        places = getattr(getattr(nodes, "graph", None), "places", ())
        return {place.name: place.dictionary for place in places if place.dictionary is not None}
    if isinstance(dictionaries, Dictionary):
        return {dictionaries.site.name: dictionaries}
    if isinstance(dictionaries, Dictionaries):
        return dictionaries
    if isinstance(dictionaries, Mapping) and all(isinstance(d, Dictionary) for d in dictionaries.values()):
        return {d.site.name: d for d in dictionaries.values()}
    raise InputError(
        f"dictionaries={type(dictionaries).__name__}: expected what load_dictionaries(...) returns, or one of them."
    )


def probes_for(anatomy: Anatomy, names: Iterable[str], dictionaries: Mapping[str, Dictionary]) -> list[Probe]:
    """What to read off where, in the order in which a forward pass meets the sites; names of a site by number.

    Raises:
        InputError: for a feature without a dictionary, or a number that it or the model does not have.
    """
    by_site: dict[str, set[int]] = {}
    heads: dict[int, set[int]] = {}
    dims: dict[int, set[tuple[int, int]]] = {}
    neurons: dict[int, set[int]] = {}
    for name in names:
        if match := _FEATURE.fullmatch(name):
            by_site.setdefault(match[1], set()).add(int(match[2]))
        elif match := _NEURON.fullmatch(name):
            neurons.setdefault(int(match[1]), set()).add(int(match[2]))
        elif match := _HEAD.fullmatch(name):
            layer, head, dim = int(match[1]), int(match[2]), match[3]
            if dim is None:
                heads.setdefault(layer, set()).add(head)
            else:
                dims.setdefault(layer, set()).add((head, int(dim)))
    found = [_features(site, sorted(numbers), dictionaries) for site, numbers in by_site.items()]
    found += [_heads(anatomy, layer, sorted(numbers)) for layer, numbers in heads.items()]
    found += [_dims(anatomy, layer, sorted(numbers)) for layer, numbers in dims.items()]
    found += [_neurons(anatomy, layer, sorted(numbers)) for layer, numbers in neurons.items()]
    return sorted(found, key=lambda probe: (probe.site.order, probe.names))


def _features(site: str, numbers: list[int], dictionaries: Mapping[str, Dictionary]) -> Probe:
    dictionary = dictionaries.get(site)
    if dictionary is None:
        raise InputError(
            f"No dictionary at {site}, which {site}.f{numbers[0]} is a feature of; pass dictionaries=... with one "
            f"(there are {', '.join(dictionaries) or 'none'})."
        )
    if numbers[-1] >= dictionary.n_features:
        raise InputError(f"{site} has {dictionary.n_features} features; there is no {site}.f{numbers[-1]}.")
    names = tuple(f"{site}.f{i}" for i in numbers)
    return Probe(dictionary.site, names, columns_of(dictionary, numbers), dictionary.id)


def columns_of(dictionary: Dictionary, numbers: list[int]) -> Callable[[Tensor], Tensor]:
    """Some of a dictionary's features of what it reads, ``[..., d_in]`` to ``[..., numbers]``.

    Where no feature depends on another (ReLU, JumpReLU, gated), only these features' rows of the encoder are used: the same
    values up to the rounding of a smaller product. TopK and dictionaries of one's own are encoded whole.
    """
    if numbers == list(range(dictionary.n_features)):
        return dictionary.features
    at = torch.tensor(numbers, device=dictionary.W_enc.device)
    some = _sliced(dictionary, at)
    if some is not None:
        return some.features
    return lambda x: dictionary.features(x)[..., at]


def _sliced(dictionary: Dictionary, at: Tensor) -> Dictionary | None:
    sae = dictionary.sae
    if sae is None or sae.cfg.architecture() not in _COLUMNWISE or not isinstance(sae.activation_fn, torch.nn.ReLU):
        return None
    parts = {
        name: getattr(sae, name).detach()[at]
        for name in ("b_enc", "threshold", "b_gate", "b_mag", "r_mag")
        if getattr(sae, name, None) is not None
    }
    few = SimpleNamespace(
        cfg=sae.cfg,
        activation_fn=sae.activation_fn,
        b_dec=sae.b_dec,
        W_enc=sae.W_enc[:, at],
        W_dec=sae.W_dec[at],
        **parts,
    )
    some = wrap(few, dictionary.site, dictionary.id, dictionary.hook_name, dictionary.hook_name_out)
    # a dictionary whose code is not its object's own is encoded whole
    x = torch.randn(8, dictionary.d_in, generator=torch.Generator().manual_seed(0)).to(dictionary.W_enc)
    alike = torch.allclose(some.features(x), dictionary.features(x)[..., at], rtol=1e-2, atol=1e-4)
    return some if alike else None


def _heads(anatomy: Anatomy, layer: int, heads: list[int]) -> Probe:
    """The size of what heads write, ``|z_h W_O[h]|``, from z: a quadratic form in d_head dimensions."""
    attention = _block(anatomy, layer, "head").attention
    _known(f"a{layer} has {attention.n_heads} heads; there is no a{layer}.h{heads[-1]}", heads[-1], attention.n_heads)
    at = torch.tensor(heads, device=attention.W_O.device)
    W_O = attention.W_O.detach()[at].float()
    form = W_O @ W_O.transpose(1, 2)

    def values(z: Tensor) -> Tensor:
        some = z.unflatten(-1, (attention.n_heads, -1))[..., at, :].float()
        return torch.einsum("...hi,hij,...hj->...h", some, form, some).clamp(min=0).sqrt()

    return Probe(Site("z", layer), tuple(f"a{layer}.h{h}" for h in heads), values, "heads")


def _dims(anatomy: Anatomy, layer: int, dims: list[tuple[int, int]]) -> Probe:
    """Single dimensions of what heads collect."""
    n_heads, d_head = _block(anatomy, layer, "head").attention.W_O.shape[:2]
    for head, dim in dims:
        _known(f"a{layer} has {n_heads} heads of {d_head}; there is no a{layer}.h{head}.n{dim}", head, n_heads)
        _known(f"a{layer} has {n_heads} heads of {d_head}; there is no a{layer}.h{head}.n{dim}", dim, d_head)
    at = [head * d_head + dim for head, dim in dims]
    names = tuple(f"a{layer}.h{head}.n{dim}" for head, dim in dims)
    return Probe(Site("z", layer), names, lambda z: z[..., at], "neurons")


def _neurons(anatomy: Anatomy, layer: int, numbers: list[int]) -> Probe:
    """Hidden units of an MLP, computed again from the stream that it reads."""
    block = _block(anatomy, layer, "neuron")
    mlp, norm = block.mlp, block.mlp_norm
    if mlp is None or norm is None:
        raise InputError(f"Layer {layer} has no MLP, so there is no m{layer}.n{numbers[0]}.")
    _known(f"m{layer} has {mlp.d_mlp} neurons; there is no m{layer}.n{numbers[-1]}", numbers[-1], mlp.d_mlp)
    site = Site("resid_mid", layer)
    if block.parallel:  # the MLP reads the block's input
        site = Site("resid", layer - 1) if layer else Site("resid_pre")
    names = tuple(f"m{layer}.n{i}" for i in numbers)
    return Probe(site, names, lambda x: mlp.hidden(norm(x.to(block.device)))[..., numbers], "neurons")


def _block(anatomy: Anatomy, layer: int, thing: str) -> Any:
    _known(
        f"The model has {len(anatomy.blocks)} layers; there is no {thing} in layer {layer}", layer, len(anatomy.blocks)
    )
    return anatomy.blocks[layer]


def _known(message: str, number: int, bound: int) -> None:
    if number >= bound:
        raise InputError(f"{message}.")
