"""How it was made: what a reader needs to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparse_circuits.provenance import versions
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.markup import Html, Piece, join, pairs, table, tag

_RECORDED = {
    "method": "method",
    "ablation": "ablation",
    "level": "level",
    "positions": "positions",
    "n_examples": "prompts that it was found on",
    "task_hash": "fingerprint of these prompts",
}


def made(g: Given) -> Html:
    e = g.evaluation
    rows: list[tuple[str, Piece]] = [(words, _said(g.known.get(name))) for name, words in _RECORDED.items()]
    rows.append(("how parts were chosen", _chosen(g.known.get("selection"))))
    rows += [(name, _said(value)) for name, value in g.recorded.items()]
    rows.append(("prompts of the evaluation", f"{g.n:,}"))
    rows.append(("fingerprint of these prompts", None if g.task is None else g.task.hash))
    rows.append(("ablation of the evaluation", e.ablation))
    if e.errors is not None:
        rows.append(("error terms", {"nodes": "nodes like all others"}.get(e.errors, e.errors)))
        rows.append(("first layer ablated", str(e.start_layer)))
    return join(_commands(g), pairs(rows), _versions(g))


def _said(value: Any) -> str | None:
    return None if value is None else str(value)


def _chosen(selection: Any) -> str | None:
    """The rule with its options, as they were recorded."""
    if not isinstance(selection, Mapping):
        return None
    rest = ", ".join(f"{name}={value}" for name, value in selection.items() if name != "rule" and value is not None)
    rule = str(selection.get("rule", "not recorded"))
    return f"{rule} ({rest})" if rest else rule


def _commands(g: Given) -> Html:
    if not g.commands:
        return tag("p", "The commands that made it were not recorded.", class_="missing")
    return join(*(join(tag("p", what, ":"), tag("pre", _line(line), tabindex=0)) for what, line in g.commands))


def _line(command: str) -> Html:
    """A command whose lines break between its options, not inside them."""
    first, *options = command.split(" --")
    return tag("code", first, *(join(" ", tag("span", f"--{option}")) for option in options))


def _versions(g: Given) -> Html:
    then = g.known.get("versions")
    then, now = (dict(then) if isinstance(then, Mapping) else {}), versions()
    rows = [(name, str(then.get(name, "")), now.get(name, "")) for name in dict.fromkeys([*then, *now])]
    return table("Versions", ["package", "when it was found", "when this page was made"], rows, text=(0, 1, 2))
