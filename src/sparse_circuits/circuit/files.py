"""The library's own files: safetensors, with a JSON header."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import LEVELS, FeatureGraph, Graph, Place
from sparse_circuits.model.sites import Reads, Site

if TYPE_CHECKING:
    from sparse_circuits.circuit.circuit import Circuit
    from sparse_circuits.circuit.scores import Scores

FORMAT_VERSION = 1
_KEY = "sparse_circuits"
# of a graph that a file may ask for: numbers that tensors hold, and lists of names that are made in no time
_MOST_NODES, _MOST_COMPONENTS = 2**62, 2**24


def pack_circuit(circuit: Circuit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if circuit.size * 64 > circuit.mask.numel():  # more than a bit for each costs less than two numbers for some
        tensors = {"bits": torch.from_numpy(np.packbits(circuit.mask.flatten().numpy()))}
    elif circuit.graph.level == "edges":
        u, v = circuit.mask.nonzero(as_tuple=True)
        tensors = {"sources": u.int(), "destinations": v.int()}
    else:
        tensors = {"units": circuit.mask.nonzero().flatten().int()}
    if circuit.values is not None:
        tensors["scores"] = circuit.values[circuit.mask].float()
    return {"graph": asdict(circuit.graph), "provenance": circuit.provenance}, tensors


def pack_scores(scores: Scores) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {"values": scores.values.contiguous(), "clean": scores.clean}
    for name in ("corrupted", "per_example", "chosen"):
        value = getattr(scores, name)
        if value is not None:
            tensors[name] = value
    header = {
        "graph": asdict(scores.graph),
        "provenance": scores.provenance,
        "signed": scores.signed,
        "passes": list(scores.passes),
    }
    return header, tensors


def pack_graph(graph: FeatureGraph) -> dict[str, Any]:
    """A feature graph as JSON-ready values: its places without their dictionaries."""
    places = [
        {
            "site": place.name,
            "reads": place.site.reads,
            "n_features": place.n_features,
            "n_blocks": place.n_blocks,
            "dictionary_id": place.dictionary_id,
            "skips": place.skips,
        }
        for place in graph.places
    ]
    own = {name: getattr(graph, name) for name in ("n_layers", "d_model", "parallel")}
    return {"places": places, **own, "positions": list(graph.positions)}


def unpack_graph(path: Path, header: Any) -> FeatureGraph:
    """
    Raises:
        FileFormatError: if it is no feature graph.
    """
    try:
        places = tuple(map(_place, header["places"]))
        graph = FeatureGraph(
            places, header["n_layers"], header["d_model"], header["parallel"], _names(header["positions"])
        )
        sound = (
            _is_count(graph.n_layers, _MOST_COMPONENTS)
            and _is_count(graph.d_model)
            and isinstance(graph.parallel, bool)
            and all(place.site.layer < graph.n_layers for place in places)
            and len({place.name for place in places}) == len(places)
            and graph.size <= _MOST_NODES
        )
    except (KeyError, TypeError, InputError) as error:
        raise FileFormatError(f"{path}: its graph cannot be read ({error}); the file is damaged.") from None
    if not sound:
        raise FileFormatError(f"{path}: its graph cannot be one of a model ({graph}); the file is damaged.")
    return graph


def unpack_components(path: Path, header: Any) -> Graph:
    """
    Raises:
        FileFormatError: if it is no graph of components.
    """
    try:
        graph = Graph(**{**header, "positions": _names(header.get("positions", ()))})
    except (AttributeError, TypeError) as error:
        raise FileFormatError(f"{path}: its graph cannot be read ({error}); the file is damaged.") from None
    counted = [graph.n_layers, graph.n_heads, graph.n_kv, graph.d_model, graph.d_head, graph.d_mlp]
    flags = [graph.has_mlp, graph.parallel, graph.causal]
    sound = (
        all(map(_is_count, counted))
        and all(isinstance(flag, bool) for flag in flags)
        and graph.level in LEVELS
        and min(counted[:3]) > 0
        and graph.n_heads % graph.n_kv == 0
        # before anything is made of it, since the numbers may be absurd
        and (graph.n_sources + graph.n_destinations) * max(1, len(graph.positions)) <= _MOST_COMPONENTS
    )
    if not sound:
        shown = ", ".join(f"{name}={value!r:.30}" for name, value in header.items())
        raise FileFormatError(f"{path}: its graph cannot be one of a model ({shown}); the file is damaged.")
    return graph


def _place(header: Any) -> Place:
    """
    Raises:
        KeyError, TypeError, InputError: if it is none.
    """
    site = replace(Site.named(header["site"]), reads=header["reads"])
    place = Place(site, header["n_features"], header["n_blocks"], header["dictionary_id"], header["skips"])
    sound = (
        site.reads in get_args(Reads)
        and _is_count(place.n_features)
        and _is_count(place.n_blocks, _MOST_COMPONENTS)
        and place.n_blocks > 0
        and isinstance(place.dictionary_id, str | None)
        and isinstance(place.skips, bool)
    )
    if not sound:
        raise TypeError(f"{site.name} is {header!r:.100}")
    return place


def _names(positions: Any) -> tuple[str, ...]:
    """
    Raises:
        TypeError: if they are not names.
    """
    if not isinstance(positions, list | tuple) or not all(isinstance(name, str) for name in positions):
        raise TypeError(f"its positions are {positions!r:.60}")
    if len(set(positions)) < len(positions):
        raise TypeError("a position comes twice")
    return tuple(positions)


def _is_count(value: Any, most: int = _MOST_NODES) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def unpack_chosen(path: Path, graph: Graph, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    foreign = FileFormatError(f"{path}: holds {graph.thing}s that its graph does not have; the file is damaged.")
    names = ("sources", "destinations") if graph.level == "edges" else ("units",)
    numel = math.prod(graph.shape)
    if "bits" in tensors:
        bits = np.unpackbits(tensors["bits"].numpy()[: -(-numel // 8)])
        if tensors["bits"].dtype != torch.uint8 or len(bits) < numel:
            raise foreign
        mask = torch.from_numpy(bits[:numel]).bool().view(graph.shape)
        at = (mask,)
    elif any(name not in tensors for name in names):
        raise FileFormatError(f"{path} lacks {' or '.join(names)}; the file is damaged.")
    else:
        at = tuple(tensors[name].long() for name in names)
        outside = [bool(((i < 0) | (i >= size)).any()) for i, size in zip(at, graph.shape, strict=True)]
        if len({len(i) for i in at}) > 1 or any(outside):
            raise foreign
        mask = torch.zeros(graph.shape, dtype=torch.bool)
        mask[at] = True
    if bool((mask & ~graph.mask).any()):
        raise foreign
    if "scores" not in tensors:
        return mask, None
    values = torch.zeros(graph.shape)
    if len(tensors["scores"]) != int(mask.sum()):
        raise FileFormatError(f"{path}: has {len(tensors['scores'])} scores for {int(mask.sum())} {graph.thing}s.")
    values[at] = tensors["scores"]
    return mask, values


def write(path: Path, kind: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a file in one step: a reader sees the old file or the new one, never half of it."""
    from safetensors.torch import save

    header = {"format": kind, "version": FORMAT_VERSION, **header}
    data = save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, {_KEY: json.dumps(header)})
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_atomically(path: Path, fill: Callable[[Path], Any]) -> Path:
    """Let ``fill`` write a temporary file beside ``path``, then move it there; nothing is left behind on failure.

    Raises:
        InputError: if the folder does not exist or cannot be written, or there is a folder of that name.
    """
    if not path.parent.is_dir():
        raise InputError(f"Cannot write {path}: there is no folder {path.parent}.")
    if os.path.isdir(path):  # False also of a name that is too long
        raise InputError(f"Cannot write {path}: it is a folder; expected the name of a file.")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from None
    os.close(handle)
    temporary = Path(name)
    try:
        fill(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write JSON on one line, atomically. Halves of characters, which text may hold and UTF-8 may not, are written as escapes."""
    data = (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def kind_of(path: Path) -> str | None:
    """What one of the library's files holds, or None where that cannot be told."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return header.get("format") if isinstance(header, dict) else None


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of one of the library's files.

    Raises:
        InputError: if there is no such file. FileFormatError: if it is damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata.get(_KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged, or not a safetensors file ({error}).") from None
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is a safetensors file, but not one of sparse-circuits.")
    if header.get("format") != kind:
        raise FileFormatError(f"{path} holds {header.get('format')!r}; expected {kind!r}.")
    if header.get("version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path} has format version {header.get('version')!r}; this version of sparse-circuits reads {FORMAT_VERSION}."
        )
    required = {
        "circuit": (),
        "scores": ("values", "clean"),
        "feature_circuit": ("nodes", "sources", "targets", "edge_scores"),
        "feature_scores": ("nodes", "values", "clean"),
        "trace": ("nodes", "effects", "node_runs", "sources", "targets", "edge_effects", "edge_runs"),
    }[kind]
    missing = [name for name in required if name not in tensors] + [
        k for k in ("graph", "provenance") if k not in header
    ]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}; the file is damaged.")
    return header, tensors
