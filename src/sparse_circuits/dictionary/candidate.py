"""What could be loaded: a dictionary's configuration, read before its weights are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparse_circuits.dictionary import dictionary_learning
from sparse_circuits.dictionary.saelens import (
    config_of,
    fingerprint,
    for_inference,
    placed,
    quiet,
    refuse_architecture,
    require_saelens,
)
from sparse_circuits.errors import InputError

Key = str | tuple[str, str] | None


@dataclass(frozen=True)
class Candidate:
    """A dictionary that has not been read yet.

    Attributes:
        id: what it is called in circuits and messages.
        config: its configuration in SAELens's form: architecture, d_in, d_sae, normalize_activations, metadata...
        read: its SAELens object on a device in a dtype.
        key: where the user wants it: a site's name, a hook name or a transcoder's pair of hook names; None for where its
            metadata say.
    """

    id: str
    config: Mapping[str, Any]
    read: Callable[[torch.device, torch.dtype], Any]
    key: Key = None

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.config.get("metadata") or {}

    @property
    def architecture(self) -> str:
        return str(self.config["architecture"])


def of_object(obj: Any, key: Key = None) -> Candidate:
    """A SAELens or dictionary_learning object.

    Raises:
        InputError: for anything else, or an architecture that is refused.
    """
    from sae_lens.saes.sae import SAE, TrainingSAE

    if isinstance(obj, TrainingSAE):
        refuse_architecture(obj.cfg.get_inference_config_class().architecture(), type(obj).__name__)
        obj = for_inference(obj)
    elif dictionary_learning.is_one(obj):
        config, state = dictionary_learning.converted(*dictionary_learning.parts(obj))
        obj = dictionary_learning.build(config, state)
    if not isinstance(obj, SAE):
        raise InputError(
            f"Expected a SAELens or dictionary_learning object, a Dictionary or a folder at {key}, got {type(obj).__name__}."
        )
    refuse_architecture(obj.cfg.architecture(), type(obj).__name__)
    id = f"{type(obj).__name__}[{obj.cfg.d_sae}]-{fingerprint(obj)}"
    return Candidate(id, config_of(obj), lambda device, dtype: placed(obj, device, dtype), key)


def of_folder(folder: Path, id: str, key: Key = None) -> Candidate:
    """A folder with one dictionary: SAELens's cfg.json and sae_weights.safetensors, or dictionary_learning's ae.pt.

    Raises:
        InputError: for a folder without either, a damaged configuration, or an architecture that is refused.
    """
    if (folder / "cfg.json").is_file():
        return _of_saelens_folder(folder, id, key)
    if (folder / "ae.pt").is_file():
        state, settings = dictionary_learning.read_folder(folder)
        config, _ = dictionary_learning.converted(dictionary_learning.outlined(state), settings)

        def read(device: torch.device, dtype: torch.dtype) -> Any:
            return placed(dictionary_learning.build(*dictionary_learning.converted(state, settings)), device, dtype)

        return Candidate(id, config, read, key)
    raise InputError(
        f"{folder} holds no dictionary: expected SAELens's cfg.json and sae_weights.safetensors, or "
        "dictionary_learning's ae.pt and config.json."
    )


def folders_below(root: Path, depth: int = 3) -> list[Path]:
    """Folders with a dictionary: the folder itself, or those up to three levels below, in the order of their names."""
    if any((root / name).is_file() for name in ("cfg.json", "ae.pt")):
        return [root]
    if depth == 0:
        return []
    children = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [found for child in children for found in folders_below(child, depth - 1)]


def saelens_config(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A SAELens configuration of any version, in the form of the present one.

    Raises:
        InputError: for what the present form would silently leave out.
    """
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    activation = raw.get("activation_fn") or raw.get("activation_fn_str") or "relu"
    if activation not in ("relu", "topk"):
        raise InputError(f"{name} has activation_fn={activation!r}; expected relu or topk.")
    refuse_architecture(str(raw.get("architecture") or "standard"), name)
    try:
        config = dict(handle_config_defaulting(dict(raw)))
        widths = [config["d_in"], config["d_sae"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name} has a configuration that SAELens cannot read; it lacks or spoils {error}.") from error
    if not all(isinstance(width, int) for width in widths):
        raise InputError(f"{name} has d_in and d_sae of {widths}; expected whole numbers.")
    return config


def _of_saelens_folder(folder: Path, id: str, key: Key) -> Candidate:
    if not (folder / "sae_weights.safetensors").is_file():
        raise InputError(f"{folder} has a cfg.json but no sae_weights.safetensors; expected both.")
    config = saelens_config(_read_json(folder / "cfg.json"), id)

    def read(device: torch.device, dtype: torch.dtype) -> Any:
        sae_lens = require_saelens()
        try:
            with quiet():
                sae = sae_lens.SAE.load_from_disk(folder, device=str(device), dtype=str(dtype).removeprefix("torch."))
        except Exception as error:  # safetensors, torch and SAELens each have their own
            raise InputError(f"Could not read the dictionary in {folder}: {first_line(error)}") from error
        return placed(sae.requires_grad_(False).eval(), device, dtype)

    return Candidate(id, config, read, key)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected the configuration of a dictionary.")
    return content


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
