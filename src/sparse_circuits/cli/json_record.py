"""What the records of commands have in common: JSON that says of what format and version it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from sparse_circuits.errors import FileFormatError


def text_of(content: dict[str, Any]) -> str:
    """The file's content; what is not a number becomes null."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """A JSON value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: Path, called: str, form: str, version: int, parts: Mapping[str, type]) -> dict[str, Any]:
    """A record's content.

    Args:
        called: what such a file is, for who gave another one. form, version: as it must say itself.
        parts: what it must have, and of which type.

    Raises:
        FileFormatError: if it is damaged, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not JSON ({error}).") from None
    if not isinstance(content, dict) or content.get("format") != form:
        raise FileFormatError(f"{path} is not {called}.")
    if content.get("version") != version:
        raise FileFormatError(
            f"{path} has format version {content.get('version')!r}; this version of sparse-circuits reads {version}."
        )
    for name, kind in parts.items():
        if not isinstance(content.get(name), kind):
            raise FileFormatError(f"{path} has no {name!r}; the file is damaged.")
    return content


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value can be of a field of that type."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return value is None if hint is NoneType else isinstance(value, (int, float) if hint is float else hint)
