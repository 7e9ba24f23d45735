"""A dictionary at a site: how it splits an activation into features, a base and an error term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sparse_circuits.model.sites import Site


class Normalized(NamedTuple):
    """An input normalised at run time: ``x = scale * normed + shift`` (up to the normalisation's epsilon).

    A transcoder's output is not brought back to its input's scale: its ``scale`` is 1 and its ``shift`` None.
    ``normed`` is ``[..., d_in]``, ``scale`` ``[..., 1]``, ``shift`` ``[..., 1]`` or ``[..., d_in]``, or None for 0.
    """

    normed: Tensor
    scale: Tensor
    shift: Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """An SAE or transcoder as a split of a site's activation.

    With x what the encoder reads, y what is written at the site (SAEs: y = x) and n(x) the dictionary's own normalisation at
    run time, ``x = s n(x) + shift``:

        y = sum_f s z_f d_f  +  (s b + shift)  +  W_skip x  +  e

    Features are the values ``s z_f``, the base is ``s b + shift``, and e is the error term. Where a feature fires,
    ``z_f = <u_f, n(x)> + c_f``: its encoder's direction and offset are all that its derivative needs.

    Attributes:
        site: where it is.
        id: what it was loaded as; recorded with circuits.
        hook_name, hook_name_out: TransformerLens's names of what it reads and what it stands for.
        W_enc: u_f as columns, ``[d_in, F]``; ``b_enc``: c_f, ``[F]``, with everything that is subtracted from the input.
        W_dec: d_f as rows, ``[F, d_out]``; ``b_dec``: b, ``[d_out]``.
        code: z ``[..., F]`` of normalised input ``[..., d_in]``, the dictionary's own activation function included.
        normalize: n, or None for an input taken as it is.
        W_skip: ``[d_out, d_in]`` of a skip transcoder, or None.
        sae: the SAELens object, or None for the identity.
    """

    site: Site
    id: str
    hook_name: str
    hook_name_out: str
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    code: Callable[[Tensor], Tensor]
    normalize: Callable[[Tensor], Normalized] | None = None
    W_skip: Tensor | None = None
    sae: Any = None

    def __repr__(self) -> str:
        return f"Dictionary({self.site.name}: {self.n_features:,} features, {self.id})"

    @property
    def n_features(self) -> int:
        """How many features it has."""
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        """Width of what is written."""
        return self.W_dec.shape[1]

    def features(self, x: Tensor) -> Tensor:
        """s z_f: ``[..., F]`` for what is read ``[..., d_in]``; differentiable, s included."""
        x = x.to(self.W_enc.dtype)
        if self.normalize is None:
            return self.code(x)
        normed, scale, _ = self.normalize(x)
        return self.code(normed) * scale

    def base(self, x: Tensor) -> Tensor:
        """s b + shift, what is written whatever fires: ``[d_out]``, or ``[..., d_out]`` where it depends on the input."""
        if self.normalize is None:
            return self.b_dec
        _, scale, shift = self.normalize(x.to(self.W_enc.dtype))
        base = self.b_dec * scale
        return base if shift is None else base + shift

    def skip(self, x: Tensor) -> Tensor | None:
        """W_skip x: ``[..., d_out]``, or None."""
        return None if self.W_skip is None else x.to(self.W_skip.dtype) @ self.W_skip.T

    def written(self, x: Tensor, y: Tensor) -> Tensor:
        """What features, base and error write together: y less the skip connection, ``[..., d_out]``."""
        skip = self.skip(x)
        return y if skip is None else y - skip

    def error(self, x: Tensor, y: Tensor, features: Tensor | None = None) -> Tensor:
        """e: ``[..., d_out]``, of what is read and what is written in the model; differentiable in both.

        Args:
            features: :meth:`features` of ``x``, if they are known.
        """
        features = self.features(x) if features is None else features
        return self.written(x, y) - features @ self.W_dec - self.base(x)

    def at(self, x: Tensor, which: Tensor) -> Tensor:
        """Single features that fire: s z_f of row i for feature ``which[i]``, ``[rows]``; differentiable in x ``[rows, d_in]``.

        Cost: a row of the encoder each, not an encoding. What a feature would be where it does not fire is not 0 here.
        """
        normed, scale = x.to(self.W_enc.dtype), None
        if self.normalize is not None:
            normed, scale, _ = self.normalize(normed)
        value = (normed * self.W_enc.T[which]).sum(-1) + self.b_enc[which]
        return value if scale is None else value * scale[..., 0]
