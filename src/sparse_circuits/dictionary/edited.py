"""Edits of a model's activations as part of its hook points."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError
from sparse_circuits.model.sites import Site

# the attribute under which an edited model carries its edits; anatomy_of reads it
EDITS = "sparse_circuits_edits"


@dataclass(frozen=True, eq=False)
class Edit:
    """Some features of one dictionary, held at zero: ``y - sum_f s z_f(x) d_f``, x what is read and y what is written."""

    dictionary: Dictionary
    features: tuple[int, ...]

    @property
    def site(self) -> Site:
        return self.dictionary.site

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.site.name}.f{feature}" for feature in self.features)

    def __call__(self, written: Tensor, read: Tensor | None = None) -> Tensor:
        """What goes on instead of ``written``, of its shape, dtype and device; differentiable in both.

        Args:
            read: what a transcoder's encoder reads; by default what is written.
        """
        dictionary, read = self.dictionary, written if read is None else read
        home, heads = dictionary.W_dec.device, written.shape[-1] != dictionary.d_out
        read = read.flatten(-2) if read.shape[-1] != dictionary.d_in else read
        which = torch.tensor(self.features, device=home)
        features = dictionary.features(read.to(home))[..., which]
        change = (features @ dictionary.W_dec[which]).to(written)
        return written - (change.reshape(written.shape) if heads else change)

    def __deepcopy__(self, memo: dict[int, Any]) -> Edit:
        return self  # nothing about it ever changes


def copied(model: Any) -> Any:
    """Another model on the same weights: every module a copy, every tensor another object on the same memory."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    for (
        module
    ) in model.modules():  # what TransformerLens keeps of the last run is part of a graph, which no copy can be of
        for value in module.__dict__.values():
            if isinstance(value, Tensor):
                memo.setdefault(id(value), value.detach())
    tokenizer = getattr(model, "tokenizer", None)
    memo[id(tokenizer)] = tokenizer
    return copy.deepcopy(model, memo)


class _Slot:
    """What one hook point leaves for a later one in the same run."""

    value: Tensor | None = None

    def put(self, value: Tensor) -> None:
        self.value = value

    def take(self) -> Tensor | None:
        value, self.value = self.value, None
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> _Slot:
        return _Slot()  # a run's tensors belong to that run; the copy's hook points share the copy


@dataclass(frozen=True, eq=False)
class _Transcoded:
    """An edit that reads what another hook point has kept."""

    edit: Edit
    kept: _Slot

    def __call__(self, written: Tensor) -> Tensor:
        read = self.kept.take()
        if read is None:
            raise InputError(
                f"Nothing passed {self.edit.dictionary.hook_name!r} in this run, which {self.edit.site.name} reads."
            )
        return self.edit(written, read)


@dataclass(frozen=True, eq=False)
class _Carrying:
    """An edit whose change is added to the stream at another hook point, which the stream passes instead of this one."""

    edit: Edit
    change: _Slot

    def __call__(self, written: Tensor) -> Tensor:
        edited = self.edit(written)
        kept = self.change.take()
        self.change.put(edited - written if kept is None else kept + edited - written)
        return edited


@dataclass(frozen=True, eq=False)
class _Carried:
    """The other end of :class:`_Carrying`."""

    change: _Slot

    def __call__(self, written: Tensor) -> Tensor:
        change = self.change.take()
        return written if change is None else written + change.to(written)


@dataclass(frozen=True, eq=False)
class _Points:
    """Where an edit takes place: the hook point that is written; where it is kept what is read (a hook point, or the module
    that reads it), and where the change is added to the stream, each None where it is the first.
    """

    writes: Any
    reads: Any = None
    carries: Any = None


def points_of(model: Any, edit: Edit) -> _Points:
    """
    Raises:
        InputError: if the model has no such hook point.
    """
    known, site = model.hook_dict, edit.site
    if site.hook_name not in known:
        raise InputError(f"The model has no hook point {site.hook_name!r}, where {site.name} is written.")
    writes = known[site.hook_name]
    if site.kind == "resid_mid" and "TransformerBridge" in {cls.__name__ for cls in type(model).__mro__}:
        # there the hook point is the input of the MLP's norm, and the stream goes by beside it
        return _Points(writes, carries=known[f"blocks.{site.layer}.hook_out"])
    if site.kind != "transcoder":
        return _Points(writes)
    name = edit.dictionary.hook_name
    if name in known:
        return _Points(writes, known[name])
    if site.reads != "normed":
        raise InputError(f"The model has no hook point {name!r}, which {site.name} reads.")
    return _Points(writes, model.blocks[site.layer].mlp)


def install(model: Any, edits: Iterable[Edit]) -> None:
    """Make a model's hook points do some edits in order, and none besides these."""
    for module in model.modules():
        if isinstance(module, _Marked):
            module.__dict__.update(_writes=[], _keeps=[])
    for edit in edits:
        points, slot = points_of(model, edit), _Slot()
        if points.reads is not None:
            _marked(points.reads)["_keeps"].append(slot)
            _marked(points.writes)["_writes"].append(_Transcoded(edit, slot))
        elif points.carries is not None:
            _marked(points.writes)["_writes"].append(_Carrying(edit, slot))
            _marked(points.carries)["_writes"].append(_Carried(slot))
        else:
            _marked(points.writes)["_writes"].append(edit)


class _Marked:
    """A hook point, or a module that reads from one, with something to do on the way."""


def _marked(module: Any) -> dict[str, Any]:
    """A module's own attributes, after making sure that it does what stands under "_writes" and "_keeps"."""
    if not isinstance(module, _Marked):
        module.__dict__.update(_writes=[], _keeps=[])
        module.__class__ = _marking(type(module))
    return module.__dict__


@lru_cache
def _marking(kind: type) -> type:
    from transformer_lens.hook_points import HookPoint

    class EditingPoint(_Marked, kind):
        def forward(self, x: Tensor) -> Tensor:  # hooks come after it
            for write in self.__dict__["_writes"]:
                x = write(x)
            return super().forward(x)

        def __call__(self, x: Tensor) -> Any:
            x = super().__call__(x)
            for kept in self.__dict__["_keeps"]:
                kept.put(x)
            return x

    class Reading(_Marked, kind):
        def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            for kept in self.__dict__["_keeps"]:
                kept.put(x)
            return super().__call__(x, *args, **kwargs)

    made = EditingPoint if issubclass(kind, HookPoint) else Reading
    made.__name__ = made.__qualname__ = kind.__name__
    return made
