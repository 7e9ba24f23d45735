"""Running a model with something done at chosen sites, from the start or from one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from torch import Tensor

from sparse_circuits.model.anatomy import Anatomy, Block
from sparse_circuits.model.norm import Norm
from sparse_circuits.model.sites import Reads, Site

Visit = Callable[[Site, Tensor, Tensor], Tensor]


def unchanged(site: Site, read: Tensor, written: Tensor) -> Tensor:
    """The visit of a plain run."""
    return written


@dataclass(frozen=True, eq=False)
class Streams:
    """What a run keeps so that it can be taken up again at any site: per layer, the stream and what attention added."""

    stream: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)

    def some(self, rows: slice) -> Streams:
        """Of some examples."""
        return Streams(*([x[rows] for x in part] for part in (self.stream, self.attention)))

    def repeat(self, n: int) -> Streams:
        """The same ``n`` times over along the batch."""
        if n == 1:
            return self
        return Streams(*([x.repeat(n, 1, 1) for x in part] for part in (self.stream, self.attention)))


class Walk:
    """A model's forward pass, met site by site.

    At every one of ``sites``, ``visit(site, read, written)`` says what goes on from there: ``read`` is what a dictionary's
    encoder sees and ``written`` what it stands for, the same tensor but for transcoders. Shapes are ``[batch, pos, width]``.
    An edited model's edits are done first: a visit sees what goes on from them.
    """

    def __init__(self, anatomy: Anatomy, sites: Collection[Site], real: Tensor | None) -> None:
        self.anatomy, self.real = anatomy, real
        self._sites: dict[tuple[str, int], Site] = {(site.kind, site.layer): site for site in sites}

    def run(self, embedding: Tensor, visit: Visit, keep: Streams | None = None) -> Tensor:
        """The whole pass from a token embedding: the last residual stream.

        Args:
            keep: filled with what :meth:`resume` needs.
        """
        embedding = self._at("embed", 0, embedding, visit)
        stream = self._at("resid_pre", 0, self.anatomy.stream(embedding), visit)
        return self._blocks(0, stream, visit, keep)

    def resume(self, site: Site, value: Tensor, kept: Streams, visit: Visit, until: int | None = None) -> Tensor:
        """The rest of the pass, from another value of what is written at a site; everything before it as it was.

        Args:
            until: the last layer to run, and the stream after it to return; by default the model's last.
        """
        anatomy = self.anatomy
        value = value.to(anatomy.dtype)  # a dictionary may be of another
        if site.kind == "embed":
            return self._blocks(0, self._at("resid_pre", 0, anatomy.stream(value), visit), visit, None, until)
        if site.kind == "resid_pre":
            return self._blocks(0, value, visit, None, until)
        layer = site.layer
        block = anatomy.blocks[layer]
        if site.kind != "resid":
            value = self._rest(block, site, value, kept.stream[layer], kept.attention[layer], visit)
        return self._blocks(layer + 1, value, visit, None, until)

    def _blocks(
        self, first: int, stream: Tensor, visit: Visit, keep: Streams | None, until: int | None = None
    ) -> Tensor:
        blocks = self.anatomy.blocks[: None if until is None else until + 1]
        for layer, block in enumerate(blocks[first:], start=first):
            stream = stream.to(block.device)
            if keep is not None:
                keep.stream.append(stream.detach())
            stream = self._layer(block, layer, stream, visit, keep)
        return stream.to(self.anatomy.device)

    def _layer(self, block: Block, layer: int, stream: Tensor, visit: Visit, keep: Streams | None) -> Tensor:
        attended = self._at("attn", layer, block.write_heads(self._collected(block, layer, stream, visit)), visit)
        if keep is not None:
            keep.attention.append(attended.detach())
        return self._attended(block, layer, stream, attended, visit)

    def _rest(self, block: Block, site: Site, value: Tensor, stream: Tensor, attended: Tensor, visit: Visit) -> Tensor:
        """The rest of a block from the value of one of its sites on."""
        layer = site.layer
        if site.kind in ("mlp", "transcoder"):
            return self._at("resid", layer, stream + attended + value, visit)
        if site.kind == "resid_mid":
            return self._middle(block, layer, stream, value, visit)
        if site.kind == "z":
            z = value.unflatten(-1, (block.attention.n_heads, -1))
            value = self._at("attn", layer, block.write_heads(z), visit)
        return self._attended(block, layer, stream, value, visit)

    def _attended(self, block: Block, layer: int, stream: Tensor, attended: Tensor, visit: Visit) -> Tensor:
        return self._middle(block, layer, stream, self._at("resid_mid", layer, stream + attended, visit), visit)

    def _middle(self, block: Block, layer: int, stream: Tensor, after: Tensor, visit: Visit) -> Tensor:
        """A block from the stream after attention on; ``stream`` is the one before."""
        if block.mlp is not None and block.mlp_norm is not None:
            after = after + self._mlp(block, block.mlp_norm, layer, stream if block.parallel else after, visit)
        return self._at("resid", layer, after, visit)

    def _collected(self, block: Block, layer: int, stream: Tensor, visit: Visit) -> Tensor:
        attention = block.attention
        real = None if self.real is None else self.real.to(block.device)
        normed = block.attn_norm(stream)
        q, k, v = (attention.project(normed, which) for which in "qkv")
        z = attention.mix(q, k, v, real)
        if ("z", layer) not in self._sites and ("z", layer) not in self.anatomy.edits:
            return z
        return self._at("z", layer, z.flatten(-2), visit).unflatten(-1, z.shape[-2:])

    def _mlp(self, block: Block, norm: Norm, layer: int, stream: Tensor, visit: Visit) -> Tensor:
        normed, mlp = norm(stream), block.mlp
        if mlp is None:
            raise RuntimeError("a block without an MLP")
        written = self._edited("mlp", layer, mlp(normed))
        for edit in self.anatomy.edits.get(("transcoder", layer), ()):
            written = edit(written, _read(norm, stream, normed, edit.site.reads))
        written = self._visited("mlp", layer, written, visit)
        transcoder = self._sites.get(("transcoder", layer))
        if transcoder is None:
            return written
        return visit(transcoder, _read(norm, stream, normed, transcoder.reads), written).to(written.dtype)

    def _at(self, kind: str, layer: int, value: Tensor, visit: Visit) -> Tensor:
        return self._visited(kind, layer, self._edited(kind, layer, value), visit)

    def _edited(self, kind: str, layer: int, value: Tensor) -> Tensor:
        for edit in self.anatomy.edits.get((kind, layer), ()):
            value = edit(value)
        return value

    def _visited(self, kind: str, layer: int, value: Tensor, visit: Visit) -> Tensor:
        site = self._sites.get((kind, layer))
        return value if site is None else visit(site, value, value).to(value.dtype)


def _read(norm: Norm, stream: Tensor, normed: Tensor, reads: Reads) -> Tensor:
    """What a transcoder sees of the MLP's input."""
    if reads == "resid_mid":
        return stream
    return normed if reads == "normed" else norm.normalized(stream)
