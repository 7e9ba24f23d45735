"""Loading models: the bundled one, a local folder, the hub, or an object that is one already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sparse_circuits.errors import InputError
from sparse_circuits.model import anatomy_of


def load_model(
    source: Any,
    *,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
    dtype: torch.dtype | str = torch.float32,
    revision: str | None = None,
) -> Any:
    """A model ready for attribution: a TransformerLens ``TransformerBridge``, in evaluation mode.

    Unlike a plain bridge, what is returned refuses a hook name that does not exist, or that is switched off, instead
    of running without the hook.

    Args:
        source: "toy", the bundled model; a local Hugging Face folder (without tokenizer files it takes token ids
            only); a hub id such as "gpt2"; or a TransformerLens model, which is returned as it is.
        device: where to put it; by default a GPU if there is one.
        device_map: how to spread it over several GPUs instead, as transformers takes it: "auto", "balanced",
            "sequential", or a dict from module names to devices. Parts on a GPU and parts on the CPU do not go together.
        dtype: of its weights, for example "bfloat16".
        revision: of a hub model.

    Raises:
        InputError: if there is no such model, or it cannot be read.
        UnsupportedModelError: if the library cannot be right about it.
    """
    if not isinstance(source, (str, Path)):
        if not {"TransformerBridge", "HookedTransformer"} & {cls.__name__ for cls in type(source).__mro__}:
            raise InputError(
                f"load_model({type(source).__name__}): expected a name, a folder or a TransformerLens model."
            )
        return source
    _refuse_places(device, device_map)
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise InputError(f"load_model(dtype={dtype!r}): expected float32, bfloat16 or float16.")
        dtype = named
    name, location = str(source), _locate(source)
    try:
        _refuse_unknown(location, revision)
        model = _boot(location, device=device, device_map=device_map, dtype=dtype, revision=revision)
    except (OSError, ValueError, AssertionError) as error:  # PyTorch asserts that a device is there
        spread = "" if device_map is None else f" with device_map={device_map!r}"
        raise InputError(
            f"Could not load model {name!r}{spread}: expected 'toy', a Hugging Face folder or a hub id, and devices that "
            f"are there. {_first_line(error)}"
        ) from error
    model.sparse_circuits_id = name
    model.sparse_circuits_revision = _revision(location, revision)
    anatomy_of(model)
    return model


def _refuse_places(device: Any, device_map: Any) -> None:
    if device is not None and device_map is not None:
        raise InputError(
            f"load_model(device={str(device)!r}, device_map={device_map!r}): the model goes to one device or is spread over "
            "several; give one of the two."
        )
    offloaded = {"disk", "meta"} & set(device_map.values() if isinstance(device_map, dict) else (device_map,))
    if offloaded:
        raise InputError(
            f"load_model(device_map=...): weights on {offloaded.pop()!r} cannot be read; give devices that hold them."
        )


def _locate(source: str | Path) -> str:
    if str(source) == "toy":
        from sparse_circuits.zoo import toy_path

        if not (toy_path() / "config.json").is_file():
            raise InputError("The bundled model is missing from this installation; install sparse-circuits again.")
        return str(toy_path())
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is a folder without a config.json; expected a Hugging Face model folder.")
        return str(path)
    if path.is_absolute() or str(source).startswith((".", "~")):
        raise InputError(f"No model folder at {source}.")
    return str(source)


def _refuse_unknown(location: str, revision: str | None) -> None:
    """Refuse by its configuration what cannot be supported, before any weights are fetched."""
    from transformers import AutoConfig

    from sparse_circuits.model.configuration import family_of

    try:
        config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):
        return  # booting knows names that are no hub ids, and says best what is wrong
    family_of(config)


def _boot(location: str, *, device: Any, device_map: Any, dtype: torch.dtype, revision: str | None) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    folder = Path(location)
    without_tokenizer = folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*"))
    options: dict[str, Any] = {"device": device, "device_map": device_map, "dtype": dtype}
    if revision is not None:
        options["revision"] = revision
    if without_tokenizer:
        options["tokenizer"] = _placeholder_tokenizer()
    with _quiet():
        model = TransformerBridge.boot_transformers(location, **options)
    if without_tokenizer:
        model.tokenizer = None
    model.__class__ = _checked_class(type(model))
    return model.eval()


def _revision(location: str, asked: str | None) -> str | None:
    """The commit of a hub model, as its cache records it; None for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(location).is_dir():
        return None
    config = try_to_load_from_cache(location, "config.json", revision=asked)
    return Path(config).parent.name if isinstance(config, str) else asked


def _placeholder_tokenizer() -> Any:
    """Booting insists on a tokenizer; this one says nothing and is taken away afterwards."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@lru_cache
def _checked_class(bridge_class: type) -> type:
    """A subclass of a bridge class whose hook methods refuse names that would do nothing."""

    class CheckedBridge(bridge_class):
        def run_with_hooks(self, *args: Any, fwd_hooks: Any = (), bwd_hooks: Any = (), **kwargs: Any) -> Any:
            _check_names(self, [name for name, _ in (*fwd_hooks, *bwd_hooks)])
            return super().run_with_hooks(*args, fwd_hooks=list(fwd_hooks), bwd_hooks=list(bwd_hooks), **kwargs)

        def hooks(self, fwd_hooks: Any = (), bwd_hooks: Any = (), *args: Any, **kwargs: Any) -> Any:
            _check_names(self, [name for name, _ in (*fwd_hooks, *bwd_hooks)])
            return super().hooks(list(fwd_hooks), list(bwd_hooks), *args, **kwargs)

        def run_with_cache(self, *args: Any, names_filter: Any = None, **kwargs: Any) -> Any:
            if isinstance(names_filter, str):
                _check_names(self, [names_filter])
            elif isinstance(names_filter, (list, tuple)):
                _check_names(self, names_filter)
                names_filter = list(names_filter)
            return super().run_with_cache(*args, names_filter=names_filter, **kwargs)

        def add_hook(self, name: Any, *args: Any, **kwargs: Any) -> Any:
            _check_names(self, [name])
            return super().add_hook(name, *args, **kwargs)

    CheckedBridge.__name__ = CheckedBridge.__qualname__ = bridge_class.__name__
    return CheckedBridge


def _check_names(model: Any, names: Any) -> None:
    hook_dict = model.hook_dict
    for name in names:
        if isinstance(name, Callable):
            continue
        if name not in hook_dict:
            close = _similar(str(name), hook_dict)
            raise InputError(f"The model has no hook point {name!r}{f'; did you mean {close!r}?' if close else '.'}")
        reason = model._gated_hook_reason(name)
        if reason is not None:
            raise InputError(f"Hook point {name!r} is switched off; call model.set_{reason}(True) first.")


def _similar(name: str, names: Any) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(names), 1)), None)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
