"""Pages that are one file: they load nothing, and run no scripts but their own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

# {{more}} is what else a page has in its head
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="sparse-circuits">
{{more}}<title>{{title}}</title>
<link rel="icon" href="data:,">
<style>
{{style}}</style>
</head>
<body>
{{body}}
{{scripts}}
</body>
</html>
"""


def text_of(room: str, name: str) -> str:
    """A file of a room of the view."""
    return files(f"sparse_circuits.view.{room}").joinpath(name).read_text(encoding="utf-8")


def assembled(
    room: str,
    title: str,
    scripts: Iterable[str],
    *,
    parts: Mapping[str, str],
    allowed: Iterable[str] = (),
    more: str = "",
) -> str:
    """A room's page.html, page.css and scripts as one file, whose own policy forbids it to load anything.

    Args:
        parts: markup by the places in page.html that it fills.
        allowed: hashes of scripts that a frame inside may run.
        more: further elements of the head.
    """
    scripts = tuple(scripts)
    hashes = " ".join([*map(_hash, scripts), *allowed]) or "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    around = {
        "policy": html.escape(policy),
        "more": more,
        "title": html.escape(title),
        "style": text_of(room, "page.css"),
        "body": _filled(text_of(room, "page.html"), parts).strip(),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return _filled(_PAGE, around)


def _filled(page: str, parts: Mapping[str, str]) -> str:
    """In one pass, so that nothing in the data is taken for a place to fill."""
    pieces = page.split("{{")
    return pieces[0] + "".join(parts[key] + rest for key, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def embedded(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
