"""What notebooks show of what results are made from: graphs, tasks, dictionaries, stores of features, labels."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch

from sparse_circuits.view.display import card, grid

if TYPE_CHECKING:
    from sparse_circuits.dictionary import Dictionaries
    from sparse_circuits.features import FeatureStore, Labels
    from sparse_circuits.graph import FeatureGraph, Graph
    from sparse_circuits.task import Task

_SHOWN = 8  # rows
_EXAMPLES = 3


def of_graph(graph: Graph) -> str:
    kv = "" if graph.n_kv == graph.n_heads else f", their keys and values in {graph.n_kv} groups"
    mlp = "an MLP beside them" if graph.parallel else "an MLP after them"
    layers = f"{graph.n_layers} of {graph.n_heads} heads{kv}, {mlp if graph.has_mlp else 'no MLPs'}"
    last = graph.names_of(graph.mask, torch.tensor([graph.size - 1]))[0]
    chosen = f"{graph.size:,} {graph.thing}s, such as {last}"
    return card("Graph", [("layers", layers), ("what is chosen", chosen), ("positions", _few(graph.positions))])


def of_feature_graph(graph: FeatureGraph) -> str:
    rows = [
        (place.name, f"{place.n_features:,}" if place.split else f"{place.n_blocks} whole", place.dictionary_id or "")
        for place in graph.places[:_SHOWN]
    ]
    facts = [("nodes", f"{graph.size:,}"), ("positions", _few(graph.positions))]
    return card("FeatureGraph", facts, grid(("site", "features", "dictionary"), rows), _more(len(graph.places)))


def of_task(task: Task) -> str:
    facts = [
        ("examples", f"{len(task):,}" + ("" if task.corrupted is not None else ", without corrupted prompts")),
        ("metric", str(task.metric) if len(str(task.metric)) < 80 else type(task.metric).__name__),
        ("spans", None if not task.spans else _few(tuple(task.spans[0]))),
    ]
    rows = [
        tuple(_said(of) for of in (one.clean, one.corrupted, one.correct, one.incorrect))
        for one in task[: min(_EXAMPLES, len(task))].examples
    ]
    table = grid(("clean", "corrupted", "correct", "incorrect"), rows)
    return card(f"Task {task.name}", facts, table, _more(len(task), _EXAMPLES))


def of_dictionaries(dictionaries: Dictionaries) -> str:
    rows = [
        (str(one["site"]), str(one["architecture"]), f"{one['features']:,}", str(one["id"]))
        for one in dictionaries.describe()[:_SHOWN]
    ]
    table = grid(("site", "kind", "features", "loaded as"), rows) if rows else ""
    return card("Dictionaries", [("sites", f"{len(dictionaries):,}")], table, _more(len(dictionaries)))


def of_store(store: FeatureStore) -> str:
    texts = ", ".join(f"{n:,} tokens of {name}" for name, n in store.tokens.items()) or "none yet"
    facts = [
        ("features", f"{len(store):,}: {_few(tuple(islice(store, _SHOWN + 1)))}" if len(store) else "none yet"),
        ("model", store.model),
        ("texts", texts),
        ("folder", str(store.path)),
    ]
    return card("FeatureStore", facts)


def of_labels(labels: Labels) -> str:
    rows = list(islice(labels.items(), _SHOWN))
    return card(
        "Labels", [("notes", f"{len(labels):,}")], grid(("node", "note"), rows) if rows else "", _more(len(labels))
    )


def _few(names: tuple[str, ...]) -> str | None:
    if not names:
        return None
    more = ", \u2026" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _more(n: int, shown: int = _SHOWN) -> str:
    return f'<div style="opacity:.7">and {n - shown:,} more</div>' if n > shown else ""


def _said(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
