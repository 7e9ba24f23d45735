"""What the library needs of a model. TransformerLens is imported only when a model is loaded or taken apart."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch

from sparse_circuits.errors import InputError, UnsupportedModelError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.walk import Walk, unchanged

__all__ = ["anatomy_of"]

_checked: weakref.WeakSet[Any] = weakref.WeakSet()


def anatomy_of(model: Any) -> Anatomy:
    """Take a TransformerLens model apart, and make sure that the parts are the model.

    The first time that a model is seen, its parts are run on a few random tokens and compared with the model's own
    forward pass: a quirk that no file knows of shows there, and the model is refused rather than explained wrongly.

    Args:
        model: a ``TransformerBridge`` (TransformerLens 3 or 4) or a ``HookedTransformer`` (3).

    Raises:
        InputError: if it is neither, or carries hooks.
        UnsupportedModelError: if the library cannot be right about it; the message names the reason.
    """
    names = {cls.__name__ for cls in type(model).__mro__}
    _refuse_hooks(model)
    _refuse_dropout(model)
    if "TransformerBridge" in names:
        from sparse_circuits.model.bridge import bridge_anatomy

        anatomy = bridge_anatomy(model)
    elif "HookedTransformer" in names:
        from sparse_circuits.model.hooked import hooked_anatomy

        anatomy = hooked_anatomy(model)
    else:
        raise InputError(
            f"Expected a TransformerLens model (TransformerBridge or HookedTransformer), got {type(model).__name__}. "
            "Load one with sparse_circuits.load_model(...)."
        )
    anatomy = _with_edits(anatomy, model)
    if model not in _checked:
        _check(model, anatomy)
        _checked.add(model)
    return anatomy


def _with_edits(anatomy: Anatomy, model: Any) -> Anatomy:
    """The parts of an edited model (:func:`sparse_circuits.ablate_features`) with its edits."""
    edits: dict[tuple[str, int], list[Any]] = {}
    for edit in getattr(model, "sparse_circuits_edits", ()):
        if edit.site.kind == "embed" and hasattr(model, "original_model"):
            continue  # a bridge's embedding has the hook point inside, and does the edit itself
        edits.setdefault((edit.site.kind, edit.site.layer), []).append(edit)
    return replace(anatomy, edits=edits) if edits else anatomy


def _refuse_hooks(model: Any) -> None:
    hooked = [name for name, point in getattr(model, "hook_dict", {}).items() if point.fwd_hooks or point.bwd_hooks]
    if not hooked and isinstance(model, torch.nn.Module):
        hooked = [name for name, module in model.named_modules() if _carries_foreign_hooks(module)]
    if hooked:
        raise InputError(
            f"The model carries hooks at {', '.join(hooked[:3])}{' and others' if len(hooked) > 3 else ''}, which would be "
            "left out of the circuit. Remove them first (model.reset_hooks(including_permanent=True))."
        )


def _carries_foreign_hooks(module: torch.nn.Module) -> bool:
    """Whether PyTorch hooks sit on a module that the libraries underneath did not put there themselves."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    own = ("transformers", "transformer_lens", "accelerate")
    return any(not (getattr(hook, "__module__", None) or "").startswith(own) for hook in hooks)


def _refuse_dropout(model: Any) -> None:
    modules = model.modules() if hasattr(model, "modules") else ()
    if any(isinstance(m, torch.nn.Dropout) and m.training and m.p > 0 for m in modules):
        raise InputError("The model is in training mode with dropout, so no two runs agree; call model.eval() first.")


@torch.no_grad()
def _check(model: Any, anatomy: Anatomy) -> None:
    n_pos = min(16, anatomy.max_positions or 16)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(anatomy.d_vocab, (2, n_pos), generator=generator).to(anatomy.device)
    ours = anatomy.logits(Walk(anatomy, (), None).run(anatomy.embed(tokens), unchanged)).float()
    theirs = model(tokens, return_type="logits").to(ours.device, torch.float32)
    difference = (ours - theirs).abs().max().item()
    scale = (theirs - theirs.mean(-1, keepdim=True)).abs().max().item()
    tolerance = 1e-3 if anatomy.dtype in (torch.float32, torch.float64) else 0.1
    if not difference <= tolerance * max(scale, 1e-6):
        raise UnsupportedModelError(
            f"The model's parts, run by the library, give logits that differ from the model's own by {difference:.2g} "
            f"(largest logit {scale:.2g}): the model computes something that the library does not know of "
            "(processed weights, a changed forward pass, or a quirk of its family)."
        )
