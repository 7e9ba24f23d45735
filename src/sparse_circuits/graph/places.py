"""The places of a feature graph: a site split by a dictionary, or a site or its heads as whole nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparse_circuits.dictionary.check import check_widths
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.place import refuse_missing
from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site

_WHOLE_KINDS = ("embed", "z", "attn", "mlp", "resid_mid", "resid")


@dataclass(frozen=True)
class Place:
    """One site of a feature graph, and how it is split into nodes.

    With a dictionary: features ``resid_3.f0``, ``resid_3.f1``... and the error term ``resid_3.error``, which has all that no
    feature has. Without one: the site as a whole, ``attn_2``, or at ``z_2`` each head, ``a2.h0``, ``a2.h1``...

    Attributes:
        n_features: the dictionary's, 0 without one.
        n_blocks: the nodes that are no features: 1, or the heads. What is written is cut into as many equal parts.
        dictionary_id: what the dictionary was loaded as, or None.
        skips: whether what is read also goes on past it, through a transcoder's skip connection.
        dictionary: the dictionary; None also where a circuit was loaded without it.
    """

    site: Site
    n_features: int = 0
    n_blocks: int = 1
    dictionary_id: str | None = None
    skips: bool = False
    dictionary: Dictionary | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def size(self) -> int:
        return self.n_features + self.n_blocks

    @property
    def split(self) -> bool:
        """Whether it has features, and with them an error term."""
        return self.n_features > 0

    def node(self, i: int) -> str:
        """The name of its i-th node."""
        if i < self.n_features:
            return f"{self.name}.f{i}"
        if self.split:
            return f"{self.name}.error"
        return self.name if self.n_blocks == 1 else f"a{self.site.layer}.h{i}"

    @property
    def names(self) -> Iterator[str]:
        return map(self.node, range(self.size))


def places_of(
    anatomy: Anatomy, dictionaries: Mapping[str, Dictionary], whole: str | Sequence[str]
) -> tuple[Place, ...]:
    """The places of a graph in the order in which the model meets them.

    Args:
        whole: sites taken as whole nodes: names ("mlp_2"), or kinds for all layers that no dictionary splits ("mlp");
            "z" for single heads.

    Raises:
        InputError: for a site that the model lacks, that is named twice, or whose output another one already splits.
    """
    for dictionary in dictionaries.values():
        refuse_missing(anatomy, dictionary.site, dictionary.id)
        check_widths(dictionary, anatomy)
    found = [Place(d.site, d.n_features, 1, d.id, d.W_skip is not None, d) for d in dictionaries.values()]
    taken = {_written(place.site) for place in found}
    names = [whole] if isinstance(whole, str) else whole
    found += [Place(site, 0, _heads(anatomy, site)) for site in _sites(anatomy, names, taken)]
    if not found:
        raise InputError("The graph has no site; pass dictionaries, or whole=... with sites such as 'attn' or 'mlp_0'.")
    written: dict[tuple[str, int], Place] = {}
    for place in found:
        key = _written(place.site)
        if key in written:
            raise InputError(
                f"{place.name} and {written[key].name} would split the same activation ({place.site.hook_name}); leave one out."
            )
        written[key] = place
    return tuple(sorted(found, key=lambda place: place.site.order))


def _written(site: Site) -> tuple[str, int]:
    """What is split at a site; an MLP's output is, by an SAE and by a transcoder."""
    return ("mlp" if site.kind == "transcoder" else site.kind, site.layer)


def _heads(anatomy: Anatomy, site: Site) -> int:
    return anatomy.blocks[site.layer].attention.n_heads if site.kind == "z" else 1


def _sites(anatomy: Anatomy, names: Sequence[str], taken: set[tuple[str, int]]) -> Iterator[Site]:
    """Sites by name, and of a kind all that no dictionary splits."""
    n_layers = len(anatomy.blocks)
    for name in names:
        if name in _WHOLE_KINDS and name != "embed":
            sites = [Site.named(f"{name}_{layer}") for layer in range(n_layers) if (name, layer) not in taken]
        else:
            sites = [Site.named(name)]
        for site in sites:
            block = anatomy.blocks[min(site.layer, n_layers - 1)]
            lacks = site.layer >= n_layers or (site.kind == "mlp" and block.mlp is None)
            if site.kind not in _WHOLE_KINDS or lacks or (site.kind == "resid_mid" and block.parallel):
                raise InputError(
                    f"whole={name!r}: the model has no such site; it has {n_layers} layers with {', '.join(_WHOLE_KINDS)}."
                )
            yield site
