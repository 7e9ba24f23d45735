"""Checking JSON against a schema: as much of JSON Schema (2020-12) as the schemas shipped here use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from sparse_circuits.errors import FileFormatError


class _BadValueError(Exception):
    pass


@cache
def schema_named(name: str) -> dict[str, Any]:
    """One of the schemas that ship with the library: "graph" or "page"."""
    text = (
        files("sparse_circuits.circuit.formats.attribution_graph")
        .joinpath(f"{name}.schema.json")
        .read_text(encoding="utf-8")
    )
    return json.loads(text)


def check(value: Any, name: str, what: str) -> None:
    """
    Raises:
        FileFormatError: for anything that the schema of that name does not allow, or that JSON cannot hold, naming the field.
    """
    try:
        _check(value, schema_named(name), "")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            _find(value, "")
            raise _BadValueError(f"it cannot be written as JSON ({error}).") from None
    except _BadValueError as error:
        raise FileFormatError(f"{what}: {error}") from None
    except RecursionError:
        raise FileFormatError(f"{what}: its values are nested too deeply.") from None


def _find(value: Any, at: str) -> None:
    """Name the field that JSON cannot hold, where the schema says nothing of it."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            _find(one, f"{at}.{name}" if at else str(name))
    elif _is(value, "array"):
        for i, one in enumerate(value):
            _find(one, f"{at}[{i}]")
    elif not (isinstance(value, str | bool | None) or _is(value, "number")):
        raise _BadValueError(f"{at} is {_shown(value)}; JSON has no such value.")


def _check(value: Any, schema: Mapping[str, Any], at: str) -> None:
    for keyword, wanted in schema.items():
        if keyword in _ABOUT:
            continue
        if keyword not in _KEYWORDS:
            raise RuntimeError(f"the schema uses {keyword!r}, which is not checked")
        _KEYWORDS[keyword](value, wanted, at)


def _type(value: Any, wanted: str | list[str], at: str) -> None:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    if not any(_is(value, kind) for kind in kinds):
        raise _BadValueError(f"{at or 'the file'} is {_shown(value)}; expected {' or '.join(kinds)}.")


def _is(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        whole = isinstance(value, int) or (isinstance(value, float) and (kind == "number" or value.is_integer()))
        # NaN and the infinities are no JSON, though Python writes and reads them
        return whole and not isinstance(value, bool) and value - value == 0
    return isinstance(value, _KINDS[kind])


def _required(value: Any, wanted: list[str], at: str) -> None:
    for name in wanted:
        if isinstance(value, Mapping) and name not in value:
            raise _BadValueError(f"{at or 'the file'} lacks {name!r}.")


def _properties(value: Any, wanted: Mapping[str, Any], at: str) -> None:
    for name, schema in wanted.items():
        if isinstance(value, Mapping) and name in value:
            _check(value[name], schema, f"{at}.{name}" if at else name)


def _additional(value: Any, wanted: Mapping[str, Any], at: str) -> None:
    """Where a schema has it, it has no ``properties``: all values of a mapping."""
    for name, one in value.items() if isinstance(value, Mapping) else ():
        _check(one, wanted, f"{at}.{name}" if at else name)


def _items(value: Any, wanted: Mapping[str, Any], at: str) -> None:
    if not _is(value, "array") or (wanted == {"type": "string"} and all(isinstance(one, str) for one in value)):
        return  # there are many tokens
    for i, one in enumerate(value):
        _check(one, wanted, f"{at}[{i}]")


def _fewest(value: Any, wanted: int, at: str) -> None:
    if _is(value, "array") and len(value) < wanted:
        raise _BadValueError(f"{at} has {len(value)} entries; expected at least {wanted}.")


def _minimum(value: Any, wanted: float, at: str) -> None:
    if _is(value, "number") and value < wanted:
        raise _BadValueError(f"{at} is {_shown(value)}; expected at least {wanted}.")


def _maximum(value: Any, wanted: float, at: str) -> None:
    if _is(value, "number") and value > wanted:
        raise _BadValueError(f"{at} is {_shown(value)}; expected at most {wanted}.")


def _enum(value: Any, wanted: list[Any], at: str) -> None:
    if value not in wanted:
        raise _BadValueError(f"{at} is {_shown(value)}; expected one of {', '.join(map(str, wanted))}.")


def _pattern(value: Any, wanted: str, at: str) -> None:
    if isinstance(value, str) and re.search(wanted, value) is None:
        raise _BadValueError(f"{at} is {_shown(value)}; expected text that matches {wanted}.")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return {dict: "an object", list: "an array", tuple: "an array"}.get(type(value), type(value).__name__)


_KINDS = {"object": (dict, Mapping), "array": (list, tuple), "string": str, "boolean": bool, "null": type(None)}
_ABOUT = {"$schema", "$id", "title", "description"}
_KEYWORDS: dict[str, Callable[[Any, Any, str], None]] = {
    "type": _type,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "minItems": _fewest,
    "minimum": _minimum,
    "maximum": _maximum,
    "enum": _enum,
    "pattern": _pattern,
}
