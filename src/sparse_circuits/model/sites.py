"""The places in a model where activations can be split: their names, and TransformerLens's names for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sparse_circuits.errors import InputError

Kind = Literal["embed", "resid_pre", "z", "attn", "resid_mid", "mlp", "transcoder", "resid"]
Reads = Literal["itself", "resid_mid", "normalized", "normed"]

# within a layer, in the order in which they are computed
_ORDER: dict[str, int] = {
    "embed": 0,
    "resid_pre": 1,
    "z": 2,
    "attn": 3,
    "resid_mid": 4,
    "mlp": 5,
    "transcoder": 6,
    "resid": 7,
}
_LAYERED = ("z", "attn", "resid_mid", "mlp", "transcoder", "resid")
_NAME = re.compile(r"(embed)|(resid_pre)_(0)|(z|attn|resid_mid|mlp|transcoder|resid)_(\d+)")

# TransformerLens's names of what is written at a site; a bridge has the second of each pair too
_HOOKS = {
    "hook_embed": "embed",
    "embed.hook_out": "embed",
    "attn.hook_z": "z",
    "hook_attn_out": "attn",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_out": "mlp",
    "hook_resid_post": "resid",
    "hook_out": "resid",
}
# what a transcoder may read: the stream, the stream normed before the norm's weight and bias, and after them
_INPUTS: dict[str, Reads] = {
    "hook_resid_mid": "resid_mid",
    "ln2.hook_in": "resid_mid",
    "ln2.hook_normalized": "normalized",
    "ln2.hook_out": "normed",
    "mlp.hook_in": "normed",
}


@dataclass(frozen=True)
class Site:
    """A place where an activation is read and may be replaced.

    ``embed`` is the token embedding, ``resid_pre_0`` the stream before the first block (with learned positions), ``z_L`` what
    the heads collect, one after the other ``[heads * d_head]``, ``attn_L`` and ``mlp_L`` what attention and MLP add to the
    stream (biases included, after a post-norm), ``resid_mid_L`` the stream between them, ``resid_L`` the block's output.
    ``transcoder_L`` writes what ``mlp_L`` writes, and reads the MLP's input: the stream, or the stream normed before or
    after the norm's weight (``reads``).
    """

    kind: Kind
    layer: int = 0
    reads: Reads = "itself"

    @property
    def name(self) -> str:
        return self.kind if self.kind == "embed" else f"{self.kind}_{self.layer}"

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sites as a forward pass meets them."""
        return (-1 if self.kind in ("embed", "resid_pre") else self.layer, _ORDER[self.kind])

    @property
    def hook_name(self) -> str:
        """TransformerLens's name of what is written here, on a bridge and on a HookedTransformer."""
        layered = {
            "z": "attn.hook_z",
            "attn": "hook_attn_out",
            "resid_mid": "hook_resid_mid",
            "mlp": "hook_mlp_out",
            "transcoder": "hook_mlp_out",
            "resid": "hook_resid_post",
        }
        if self.kind == "embed":
            return "hook_embed"
        if self.kind == "resid_pre":
            return "blocks.0.hook_resid_pre"
        return f"blocks.{self.layer}.{layered[self.kind]}"

    @classmethod
    def named(cls, name: str) -> Site:
        """The site of a node's name: ``"embed"``, ``"attn_3"``.

        Raises:
            InputError: for a name that is none.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(
                f"No site is called {name!r}; expected embed, attn_0, mlp_0, resid_0, z_0, transcoder_0 or so."
            )
        kind, layer = [part for part in match.groups() if part is not None] if match[1] is None else (match[1], "0")
        return cls(kind, int(layer), "normed" if kind == "transcoder" else "itself")  # pyright: ignore[reportArgumentType]

    @classmethod
    def hooked(cls, hook_name: str, hook_name_out: str | None = None) -> Site:
        """The site of a TransformerLens hook name; with ``hook_name_out``, of a transcoder between two.

        Raises:
            InputError: for a name that is no such place.
        """
        if hook_name_out is not None and hook_name_out != hook_name:
            return cls._between(hook_name, hook_name_out)
        if hook_name in _HOOKS:
            return cls(_HOOKS[hook_name])  # pyright: ignore[reportArgumentType]
        layer, part = _parts(hook_name)
        if part in ("hook_resid_pre", "hook_in"):
            return cls("resid", layer - 1) if layer else cls("resid_pre")
        if part not in _HOOKS:
            raise InputError(
                f"No dictionary can be put at {hook_name!r}; expected hook_embed, or in a block one of hook_resid_pre, "
                "attn.hook_z, hook_attn_out, hook_resid_mid, hook_mlp_out and hook_resid_post."
            )
        return cls(_HOOKS[part], layer)  # pyright: ignore[reportArgumentType]

    @classmethod
    def _between(cls, hook_name: str, hook_name_out: str) -> Site:
        (layer, part), (layer_out, out) = _parts(hook_name), _parts(hook_name_out)
        if part not in _INPUTS or _HOOKS.get(out) != "mlp" or layer != layer_out:
            raise InputError(
                f"No transcoder can be put from {hook_name!r} to {hook_name_out!r}; expected one block's MLP, from "
                f"{', '.join(_INPUTS)} to hook_mlp_out."
            )
        return cls("transcoder", layer, _INPUTS[part])


def _parts(hook_name: str) -> tuple[int, str]:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook_name)
    if match is None:
        raise InputError(f"{hook_name!r} is no hook name of a block; expected blocks.0.hook_resid_post or so.")
    return int(match[1]), match[2]
