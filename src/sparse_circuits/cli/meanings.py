"""What a report says of a circuit's nodes: as ``features`` left it beside the run, or looked at for the occasion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli.contexts import PAGES, by_node, component_reports, labels_in
from sparse_circuits.errors import FileFormatError

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit
    from sparse_circuits.task import Task

_TOKENS = 20_000
_MLP = re.compile(r"m\d+")
# features, neurons and heads; nothing of the sort is known of error terms, whole sites and dimensions of what is written
_HAS_CONTEXTS = re.compile(r".+\.[fn]\d+|a\d+\.h\d+")


@dataclass(frozen=True)
class Meanings:
    """By a node's name what is known of it, where that comes from, and what to do for what is missing."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    looked_at: str | None = None
    missing: dict[str, str] = field(default_factory=dict)


def read_pages(folder: Path) -> dict[str, Any] | None:
    """What ``features`` wrote beside a run, if it did.

    Raises:
        FileFormatError: for a file that is damaged, or something else.
    """
    path = folder / PAGES
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [content["features"], content["heads"], content.get("mlps", {})]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not what 'features' writes ({error!r}); run it again.") from None
    if not all(isinstance(page, dict) for part in parts if isinstance(part, dict) for page in part.values()):
        raise FileFormatError(f"{path} is not what 'features' writes; run it again.")
    return content


def from_pages(content: dict[str, Any], labels: Iterable[Path], dictionaries: Any) -> Meanings:
    """Of pages that were read, with other labels in place of theirs."""
    nodes = by_node(content["features"], {**content["heads"], **content.get("mlps", {})})
    notes = labels_in(list(labels), dictionaries)
    for name in nodes:
        if name in notes:
            nodes[name] = {**nodes[name], "label": notes[name]}
    return Meanings(nodes, _looked_at(nodes))


def look(
    model: Any,
    circuit: Circuit | FeatureCircuit,
    task: Task,
    *,
    text: str | None,
    tokens: int | None,
    labels: Iterable[Path],
    dictionaries: Any,
    heads: int,
    how: str,
) -> Meanings:
    """Look at the features, neurons and heads of a circuit: in a text, where there is one, and at what they write.

    Args:
        heads: of how many, the strongest, to look at the attention on prompts.
        how: what to do where there is no text.
    """
    import sparse_circuits as sc
    from sparse_circuits.features.nodes import names_in

    names = _named_in(circuit, _HAS_CONTEXTS)
    if not names:
        return Meanings()
    names, _ = names_in(names)
    store = None
    with TemporaryDirectory() as folder:
        if text is not None:
            if tokens is None and not Path(text).is_file():
                tokens = _TOKENS
            store = sc.collect_contexts(
                model,
                names,
                text,
                store=Path(folder) / "store",
                dictionaries=dictionaries,
                tokens=tokens,
                progress=True,
            )
        pages = sc.feature_pages(
            model, names, store, dictionaries=dictionaries, labels=labels_in(list(labels), dictionaries)
        )
    nodes = {name: page.to_dict() for name, page in pages.items()}
    strongest = [name for name in names if pages[name].source == "heads"][:heads]
    for name, report in component_reports(model, task, strongest).items() if strongest else ():
        nodes[name] |= report.to_dict()
    missing = {} if store is not None else {"contexts": f"Where they fire was not looked at. {how}"}
    return Meanings(nodes, _looked_at(nodes), missing)


def mlps(model: Any, circuit: Circuit | FeatureCircuit, task: Task, most: int) -> dict[str, dict[str, Any]]:
    """What the strongest of a circuit's MLPs write on prompts."""
    found = component_reports(model, task, _named_in(circuit, _MLP)[:most])
    return {name: report.to_dict() for name, report in found.items()}


def _named_in(circuit: Circuit | FeatureCircuit, kind: re.Pattern[str]) -> list[str]:
    """A circuit's nodes of a kind, strongest first."""
    from sparse_circuits.view.report.given import nodes_of

    return [name for name in nodes_of(circuit) if kind.fullmatch(name)]


def _looked_at(nodes: dict[str, dict[str, Any]]) -> str | None:
    """How much text the contexts come from."""
    tokens = max((page.get("tokens") or 0 for page in nodes.values() if isinstance(page.get("tokens"), int)), default=0)
    texts = dict.fromkeys(
        str(context["text"]) for page in nodes.values() for context in page.get("top") or () if context.get("text")
    )
    if not tokens:
        return None
    return f"They were looked at on {tokens:,} tokens" + (f" of {', '.join(texts)}." if texts else ".")
