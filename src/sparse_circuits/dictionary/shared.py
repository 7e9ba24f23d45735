"""One model as two objects: as it is, and seen through SAELens's class for it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformer_lens.hook_points import HookPoint

from sparse_circuits.dictionary.spliced import Spliced, SplicedBridge, SplicedHooked
from sparse_circuits.errors import InputError


def view_of(model: Any) -> Any:
    """``model`` as an object of SAELens's class for it: another object with the same state, and no dictionaries yet."""
    kinds = {cls.__name__ for cls in type(model).__mro__}
    if isinstance(model, Spliced):
        model._refuse_after_the_end()
        root, inserts, extra = model._model, dict(model._acts_to_saes), model._extra
    elif not kinds & {"TransformerBridge", "HookedTransformer"}:
        raise InputError(
            f"Expected a TransformerLens model, got {type(model).__name__}; load one with load_model(...)."
        )
    elif getattr(model, "_acts_to_saes", None):
        raise InputError(
            f"The model carries SAEs at {', '.join(model._acts_to_saes)} already; call model.reset_saes() first, or splice all "
            "of them at once."
        )
    else:
        root, inserts, extra = model, {}, _mlp_inputs(model) if "HookedTransformer" in kinds else {}
    view = object.__new__(_view_class(type(root)))
    # One dict for both objects: whatever is set on either, a tokenizer or a device, is set on the model. The view's own
    # state is in slots, which the model does not have.
    object.__setattr__(view, "__dict__", root.__dict__)
    for name, value in (("_model", root), ("_acts_to_saes", inserts), ("_extra", extra), ("_added", [])):
        object.__setattr__(view, name, value)
    view._is_running = view._is_checked = view._is_partial = view._has_ended = False
    return view


def _mlp_inputs(model: Any) -> dict[str, tuple[Any, HookPoint]]:
    """The hook point that SAELens adds to a HookedTransformer's MLPs, here without changing them: its module, and itself."""
    extra: dict[str, tuple[Any, HookPoint]] = {}
    known = model.hook_dict
    for layer, block in enumerate(getattr(model, "blocks", ())):
        name = f"blocks.{layer}.mlp.hook_in"
        if name not in known and hasattr(block, "mlp"):
            point = HookPoint()
            point.name = name
            extra[name] = (block.mlp, point)
    return extra


@lru_cache
def _view_class(kind: type) -> type:
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

    is_bridge = "TransformerBridge" in {cls.__name__ for cls in kind.__mro__}
    ours, theirs = (SplicedBridge, SAETransformerBridge) if is_bridge else (SplicedHooked, HookedSAETransformer)
    bases = (ours, kind, theirs)
    if issubclass(kind, theirs) or issubclass(theirs, kind):
        bases = (ours, kind if issubclass(kind, theirs) else theirs)
    slots = ("_acts_to_saes", "_added", "_extra", "_has_ended", "_is_checked", "_is_partial", "_is_running", "_model")
    return type(ours.__name__, bases, {"__slots__": slots, "__doc__": ours.__doc__, "__module__": ours.__module__})
