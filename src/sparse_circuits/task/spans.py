"""Named spans of a prompt's tokens: what may be said, and where that lies once the prompt is tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from sparse_circuits.errors import InputError

Span = int | Sequence[int]
"""``[start, stop)``, or one position; negative ones count back from the end of the prompt."""

OTHER = "other"
"""The group of all tokens that lie in no span."""


def checked(spans: Any, n_examples: int, where: str) -> tuple[dict[str, int | tuple[int, int]], ...]:
    """Spans as plain integers, every example's in the order of the first one's names.

    Args:
        where: what the spans were given to, for the errors: "Task 'ioi'".

    Raises:
        InputError: naming the row: not one mapping per example, names that differ between examples or cannot be part of
            a node name, a span that is neither a position nor a start and a stop.
    """
    if isinstance(spans, Mapping) or not hasattr(spans, "__len__"):
        raise InputError(
            f"{where}: expected spans as a list of one mapping per example, such as [{{'subject': (1, 3), 'last': -1}}], "
            f"got {type(spans).__name__}."
        )
    if len(spans) != n_examples:
        raise InputError(
            f"{where}: {len(spans)} mappings of spans for {n_examples} examples; expected one per example."
        )
    spans, rows = list(spans), []
    for row, named in enumerate(spans):
        at = f"{where}, row {row}"
        if not isinstance(named, Mapping) or not named:
            got = "an empty one" if isinstance(named, Mapping) else type(named).__name__
            raise InputError(f"{at}: expected a mapping of span names to (start, stop), got {got}.")
        if row == 0:
            for name in named:
                _check_name(name, at)
        elif named.keys() != spans[0].keys():
            raise InputError(
                f"{at}: spans {listed(named)}, but row 0 has {listed(spans[0])}; expected the same names in every "
                "example (a span that an example lacks can be empty, as in (0, 0))."
            )
        rows.append({name: _whole(named[name], name, at) for name in spans[0]})
    return tuple(rows)


def placed(spans: Mapping[str, Span], n_tokens: int, offset: int, where: str) -> dict[str, tuple[int, int]]:
    """Every span as ``[start, stop)`` in the tokens that run.

    Args:
        spans: of one example, counted in the prompt's own tokens.
        n_tokens: the prompt's own tokens.
        offset: tokens that were prepended to these.

    Raises:
        InputError: for a span outside the prompt, or one that stops before it starts.
    """
    found = {}
    for name, span in spans.items():
        if isinstance(span, int):
            start = span + n_tokens if span < 0 else span
            stop, fits = start + 1, 0 <= start < n_tokens
        else:
            start, stop = (edge + n_tokens if edge < 0 else edge for edge in span)
            fits = 0 <= start <= n_tokens and 0 <= stop <= n_tokens
        if not fits:
            raise InputError(
                f"{where}: span {name!r} at {span} lies outside a prompt of {n_tokens} tokens (a BOS token that the library "
                "prepends is not counted)."
            )
        if start > stop:
            raise InputError(
                f"{where}: span {name!r} at {span} starts at token {start} and stops before token {stop}; expected a start "
                "that is not after the stop."
            )
        found[name] = (start + offset, stop + offset)
    return found


def listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not name or not all(map(_nameable, name)):
        raise InputError(
            f"{where}: {name!r} cannot name a span; names become part of node names such as m3@subject, so expected text "
            "without whitespace, control characters, '@' and '->' (nor '<' or '>' alone)."
        )
    if name.isdecimal():
        raise InputError(f"{where}: {name!r} cannot name a span: numbers name single positions, as in m3@7.")
    if name == OTHER:
        raise InputError(f"{where}: {name!r} cannot name a span: it stands for the tokens that lie in no span.")


def _nameable(c: str) -> bool:
    """Whether a node's name, and so a picture as SVG, can hold it: XML has no controls, lone surrogates, U+FFFE and U+FFFF."""
    return not c.isspace() and c not in "@<>\ufffe\uffff" and unicodedata.category(c) not in ("Cc", "Cs")


def _whole(span: Any, name: str, where: str) -> int | tuple[int, int]:
    try:
        if hasattr(span, "__index__") and not getattr(span, "shape", ()):
            return _int(span)
        start, stop = span
        return _int(start), _int(stop)
    except (TypeError, ValueError):
        raise InputError(
            f"{where}: span {name!r}: expected whole numbers (start, stop), or one position, got {span!r:.60}."
        ) from None


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return index(value)
