"""What the explorer saved, as an attribution graph's first sight: pins, supernodes and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_circuits.errors import FileFormatError, InputError


def first_sight(
    state: str | Path | Mapping[str, Any] | None, ids: Mapping[str, str]
) -> tuple[Mapping[str, str], dict[str, Any]]:
    """Notes by name, and what is pinned and grouped: members of groups are pinned, since the page shows no others."""
    saved = {} if state is None else _saved(state)
    pinned, supernodes = [], []
    for group in saved.get("groups") or ():
        members = [ids[name] for name in group.get("members") or () if name in ids]
        if members:
            supernodes.append([str(group.get("name") or "group"), *members])
            pinned += members
    pinned = [*(ids[name] for name in saved.get("pins") or () if name in ids), *pinned]
    view = {
        "pinnedIds": list(dict.fromkeys(pinned)),
        "supernodes": supernodes,
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }
    notes = saved.get("notes") or {}
    return {name: text for name, text in notes.items() if isinstance(text, str) and text.strip()}, view


def _saved(state: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    from sparse_circuits.view.explorer.page import STATE_FORMAT

    what, found = "state=...", state
    if not isinstance(state, Mapping):
        what = str(state)
        if not Path(state).is_file():
            raise InputError(f"state=...: there is no file {state}.")
        try:
            found = json.loads(Path(state).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{what} is no saved state of the explorer: {error}.") from None
    if not isinstance(found, Mapping) or found.get("format") != STATE_FORMAT:
        raise FileFormatError(f"{what} is no saved state of the explorer; expected what its Save button writes.")
    groups, notes = found.get("groups") or [], found.get("notes") or {}
    whole = isinstance(groups, list | tuple) and all(isinstance(group, Mapping) for group in groups)
    named = [found.get("pins"), *(group.get("members") for group in groups)] if whole else []
    if not whole or not isinstance(notes, Mapping) or not all(map(_are_names, named)):
        raise FileFormatError(
            f"{what}: its pins, groups or notes are damaged; expected what the explorer's Save button writes."
        )
    return found


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))
