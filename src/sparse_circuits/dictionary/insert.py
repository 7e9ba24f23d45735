"""One dictionary in place of what a hook point passes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from sparse_circuits.errors import InputError

# SAELens's names of what goes on inside a dictionary; after it come hook_sae_error and hook_sae_output
_INSIDE = ("hook_sae_input", "hook_sae_acts_pre", "hook_sae_acts_post", "hook_sae_recons")


class _Point(HookPoint):
    """A hook point of this splice alone; hooks that the user put on the SAE itself run first."""

    def __init__(self, name: str, under: Any) -> None:
        super().__init__()
        self.name = name
        self.__dict__["under"] = under  # not as a submodule, which it is of the SAE

    def forward(self, x: Tensor) -> Tensor:
        under = self.__dict__["under"]
        return x if under is None else under(x)

    def is_hooked(self) -> bool:
        under = self.__dict__["under"]
        return self.has_hooks() or (under is not None and bool(under._forward_hooks or under._backward_hooks))


class Split(nn.Module):
    """A :class:`~sparse_circuits.dictionary.dictionary.Dictionary` without an SAELens object, with an SAE's methods."""

    def __init__(self, dictionary: Any, points: dict[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.W_skip: Tensor | None = dictionary.W_skip
        points = points or {}
        self.hook_sae_input = points.get("hook_sae_input", nn.Identity())
        self.hook_sae_acts_post = points.get("hook_sae_acts_post", nn.Identity())
        self.hook_sae_recons = points.get("hook_sae_recons", nn.Identity())

    def encode(self, x: Tensor) -> Tensor:
        self.read = self.hook_sae_input(x.to(self.dictionary.W_dec.dtype))
        return self.hook_sae_acts_post(self.dictionary.features(self.read))

    def decode(self, features: Tensor) -> Tensor:
        return self.hook_sae_recons(features @ self.dictionary.W_dec + self.dictionary.base(self.read))


class Insert:
    """A dictionary between a hook point and what reads it.

    With x what it reads and y what the hook point passes on (SAEs: y = x), what goes on is ``SAE(x) + e`` with the error term
    ``e = y - SAE(x)``, or ``SAE(x)`` alone. The second SAE(x) is computed without hooks, so an intervention on features is
    not undone by the error term, and with its gradient: without an intervention what goes on is y, and its derivative by
    y is the identity.

    The SAE that was passed in is not touched: it runs through copies that share its weights, with hook points of their own.

    Attributes:
        sae: the object that was passed in.
        name: where its activations are found, by the name that it was put there under; ``names`` are all of them.
        point, read_point: the hook points that it writes and reads.
        beside: where ``point`` is a copy of the stream (``hook_resid_mid`` of a bridge is the MLP's), the hook point of the
            stream itself, to which its change is added.
        use_error_term: whether e is added.
        points: its own hook points by SAELens's names, ``hook_sae_acts_post`` and so on.
    """

    def __init__(self, sae: Any, name: str, point: Any, read_name: str, read_point: Any, use_error_term: bool) -> None:
        self.sae, self.use_error_term = sae, use_error_term
        self.name, self.point = name, point
        self.names: tuple[str, ...] = (name,)
        self.read_name, self.read_point = read_name, read_point
        self.beside: Any = None
        self.exclude_special_tokens: bool | list[int] = False
        inside = [inner for inner in _INSIDE if hasattr(sae, inner)]
        around = ("hook_sae_error", "hook_sae_output") if use_error_term else ("hook_sae_output",)
        self.points = {at: _Point(f"{name}.{at}", getattr(sae, at, None)) for at in (*inside, *around)}
        self._hooked = _copy(sae, self.points)
        self._bare = _copy(sae, {at: nn.Identity() for at in inside})
        self._device: torch.device | None = None
        self._mask: Tensor | None = None
        self._inside = [self.points[at] for at in inside]

    @property
    def reads_elsewhere(self) -> bool:
        """Whether it is a transcoder."""
        return self.read_point is not self.point

    def set_token_mask(self, mask: Tensor | None) -> None:
        """Tokens that pass by the dictionary in the next run, ``[batch, pos]``; SAELens's forward pass calls this."""
        self._mask = mask

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        """What goes on instead of ``y``, of the same shape and dtype. Cost: one encoding and decoding, two with hooks."""
        self._move(x.device)
        d_in, d_out = widths(self.sae)
        flat = _last(x, d_in, self.read_name)
        recons = self._run(self._hooked, flat).to(y.device)
        shape = _last(y, d_out, self.name).shape
        if recons.shape != shape:
            raise InputError(
                f"The dictionary at {self.name!r} gives {tuple(recons.shape)} where the model has {tuple(shape)}; "
                "a hook changed its shape."
            )
        out = recons.reshape(y.shape)
        mask = self._mask
        if mask is not None:
            mask = mask.to(y.device).reshape(*mask.shape, *[1] * (y.dim() - mask.dim()))
        if self.use_error_term:
            is_hooked = any(point.is_hooked() for point in self._inside)
            clean = self._run(self._bare, flat).to(y.device).reshape(y.shape) if is_hooked else out
            error = y - clean if mask is None else (y - clean).masked_fill(mask, 0.0)
            # SAE(x) + e, summed from y so that nothing is rounded where nothing is changed. Hooks get an error term of their
            # own: subtracted from itself it would have no gradient.
            out = y + (out - clean) + (self.points["hook_sae_error"](error) - (y - clean))
        if mask is not None:
            out = torch.where(mask, y.to(out.dtype), out)
        return self.points["hook_sae_output"](out.to(y.dtype))

    def _run(self, sae: Any, x: Tensor) -> Tensor:
        try:
            y = sae.decode(sae.encode(x))
            skip = getattr(sae, "W_skip", None)  # SAELens's own splicing forgets it
            return y if skip is None else y + x.to(skip.dtype) @ skip.T
        finally:
            for kept in ("x_norm_coeff", "ln_mu", "ln_std", "read"):  # would hold on to the run's graph
                sae.__dict__.pop(kept, None)

    def _move(self, device: torch.device) -> None:
        """Put the copies' weights where the activation is; those on its device already are the SAE's own, not copies."""
        if device == self._device:
            return
        if isinstance(self.sae, Split):
            found = self.sae.dictionary.W_dec.device
            if found != device:
                raise InputError(
                    f"The dictionary at {self.name!r} is on {found}, the model's activation there on {device}."
                )
        for name, weight in self.sae._parameters.items():
            if weight is not None and weight.device != device:
                weight = nn.Parameter(weight.detach().to(device), weight.requires_grad)
            for copy in (self._hooked, self._bare):
                copy._parameters[name] = weight
        for copy in (self._hooked, self._bare):
            copy.__dict__["device"] = device
        self._device = device


def _copy(sae: Any, points: dict[str, Any]) -> Any:
    """Another object for the same weights, with other hook points."""
    if isinstance(sae, Split):
        return Split(sae.dictionary, points)
    copy = object.__new__(type(sae))
    copy.__dict__.update(sae.__dict__)
    for store in ("_parameters", "_buffers", "_modules"):
        copy.__dict__[store] = dict(sae.__dict__[store])
    copy._modules.update({name: point for name, point in points.items() if name in copy._modules})
    copy.__dict__["hook_dict"] = {}
    copy._setup_activation_normalization()  # its functions keep numbers on the object that they were made for
    copy.turn_off_forward_pass_hook_z_reshaping()  # done here by shape, for a bridge as for a HookedTransformer
    return copy


def widths(sae: Any) -> tuple[int, int]:
    """d_in and d_out of an SAE, a transcoder or a :class:`Split`."""
    if isinstance(sae, Split):
        return sae.dictionary.d_in, sae.dictionary.d_out
    return sae.cfg.d_in, getattr(sae.cfg, "d_out", sae.cfg.d_in)


def _last(x: Tensor, width: int, name: str) -> Tensor:
    """``x`` as ``[..., width]``: as it is, or with heads flattened."""
    if x.shape[-1] == width:
        return x
    if x.dim() > 3 and x.shape[-2] * x.shape[-1] == width:
        return x.flatten(-2)
    raise InputError(
        f"The dictionary at {name!r} is {width} wide, but the activation there is {tuple(x.shape)}; it belongs to another "
        "site or another model."
    )
