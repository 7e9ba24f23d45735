"""What stands in the box of a traced node, in the picture and in Graphviz's text: no matplotlib is needed for it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparse_circuits.errors import InputError
from sparse_circuits.features.shades import dark, depth, hue
from sparse_circuits.tracing.trace import TracedNode
from sparse_circuits.view.contents import tint
from sparse_circuits.view.explorer.data import clean_meanings, meaning_of
from sparse_circuits.view.feature_layout import Role

_BEFORE, _AFTER = 7, 3  # tokens of a context, around its own
_LISTED = 5  # tokens in a list of logits


@dataclass(frozen=True)
class Token:
    """A token of a context.

    Attributes:
        text: as it can be shown. share: the feature's value there, relative to its largest in all contexts: -1 to 1.
        peak: whether it is the one that the context is about.
    """

    text: str
    share: float
    peak: bool = False

    @property
    def fill(self) -> str | None:
        """The colour behind it, None for white."""
        return tint(hue(self.share), depth(self.share)) if depth(self.share) else None

    @property
    def dark(self) -> bool:
        """Whether text on that colour had better be white."""
        return dark(self.share)


@dataclass(frozen=True)
class Strip:
    """A context: tokens around the one at ``peak``; ``gap`` stands between any two."""

    tokens: tuple[Token, ...]
    peak: int
    gap: str


@dataclass(frozen=True)
class Card:
    """What is said of a node.

    Attributes:
        role: feature, error or whole. effect: on the metric, None where it was not ablated.
        label: what people call it, or "". contexts: where it fires, the strongest first.
        moves: lists of tokens by what they are: tokens whose logits its ablation "raises" and "lowers", with the change; or,
            where these were not measured, those that its direction "promotes" and "suppresses".
    """

    name: str
    role: Role
    effect: float | None
    label: str
    contexts: tuple[Strip, ...]
    moves: tuple[tuple[str, tuple[tuple[str, float | None], ...]], ...]


class Cards:
    """Cards of nodes, from what is known of them.

    Args:
        meanings: as :func:`sparse_circuits.view.explorer.explore` takes them. contexts: how many of each at most.
        caller: what an error names.

    Raises:
        InputError: for meanings or a number of contexts that are none.
    """

    def __init__(self, meanings: Mapping[str, Any] | None, contexts: int, caller: str) -> None:
        if isinstance(contexts, bool) or not isinstance(contexts, int) or contexts < 0:
            raise InputError(f"{caller}(contexts={contexts!r}): expected a whole number, 0 for none.")
        self._meanings, self._n, self._caller = clean_meanings(meanings, caller), contexts, caller

    def of(self, node: TracedNode, role: Role) -> Card:
        """
        Raises:
            InputError: for contexts or lists of tokens that cannot be read as such.
        """
        meaning = meaning_of(self._meanings, node.name) or {}
        if node.logits:
            raised = [(token, change) for token, change in node.logits if change > 0]
            lowered = [(token, change) for token, change in node.logits if change <= 0]
            moves = (("raises", raised), ("lowers", lowered))
        else:
            moves = tuple(
                (verb, [self._weighted(node, verb, one) for one in self._list(node, meaning, key)])
                for verb, key in (("promotes", "promoted"), ("suppresses", "suppressed"))
            )
        return Card(
            name=readable(node.name),
            role=role,
            effect=node.effect,
            label=readable(str(meaning.get("label") or "")),
            contexts=self._contexts(node, meaning),
            moves=tuple(
                (verb, tuple((ends_shown(readable(t)), v) for t, v in found[:_LISTED]))
                for verb, found in moves
                if found
            ),
        )

    def _contexts(self, node: TracedNode, meaning: Mapping[str, Any]) -> tuple[Strip, ...]:
        given = self._list(node, meaning, "contexts" if meaning.get("contexts") is not None else "top")
        read = [self._context(node, one) for one in given]
        most = max((abs(value) for _, values, _ in read for value in values), default=0.0) or 1.0
        # tokens of whole words come without the spaces between them
        gap = "" if any(c.isspace() for tokens, _, _ in read for token in tokens for c in token) else " "
        strips: dict[tuple[str, ...], Strip] = {}
        for tokens, values, peak in read:
            start = max(0, peak - _BEFORE)
            shown = [
                Token(readable(tokens[i]), values[i] / most, i == peak)
                for i in range(start, min(len(tokens), peak + _AFTER + 1))
            ]
            near = tuple(token.text for token in shown)
            if len(strips) < self._n:  # another text with the same words here says nothing new
                strips.setdefault(near, Strip(tuple(shown), peak - start, gap))
        return tuple(strips.values())

    def _context(self, node: TracedNode, given: Any) -> tuple[list[str], list[float], int]:
        """Tokens, the value at each, and which of them it is about."""
        known = given if isinstance(given, Mapping) else {}
        tokens = known.get("tokens")
        values = known.get("activations", known.get("values"))
        if not isinstance(tokens, list) or not tokens or not (values is None or _numbers(values, len(tokens))):
            raise InputError(
                f"{self._caller}(meanings=...): of {node.name!r} there is a context that is none; expected "
                '{"tokens": [...], "values": [...], "peak": 3} with as many values as tokens.'
            )
        numbers = [float(value or 0.0) for value in values or [0.0] * len(tokens)]
        peak = known.get("peak")
        if isinstance(peak, bool) or not isinstance(peak, int) or not 0 <= peak < len(tokens):
            peak = max(range(len(numbers)), key=lambda i: abs(numbers[i]))
        return [str(token) for token in tokens], numbers, peak

    def _weighted(self, node: TracedNode, verb: str, given: Any) -> tuple[str, float | None]:
        """A token alone, or with a number."""
        if isinstance(given, str):
            return given, None
        if isinstance(given, list) and len(given) == 2 and (given[1] is None or _number(given[1])):
            return str(given[0]), given[1]
        raise InputError(
            f"{self._caller}(meanings=...): among what {node.name!r} {verb} is {given!r}; expected tokens, each with a number: "
            '[" are", 2.1].'
        )

    def _list(self, node: TracedNode, meaning: Mapping[str, Any], key: str) -> list[Any]:
        found = meaning.get(key)
        if found is not None and not isinstance(found, list):
            raise InputError(
                f"{self._caller}(meanings=...): {key!r} of {node.name!r} is {type(found).__name__}; expected a list."
            )
        return found or []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: Any, n: int) -> bool:
    return isinstance(values, list) and len(values) == n and all(v is None or _number(v) for v in values)


def readable(text: str) -> str:
    """Text on one line, with nothing that XML cannot hold: line breaks and tabs as arrows, other controls as escapes."""
    return "".join(_readable(c) for c in text)


def _readable(c: str) -> str:
    arrow = {"\n": "\u21b5", "\t": "\u21e5", "\u200d": c}.get(c)  # the last joins the parts of an emoji
    if arrow is not None:
        return arrow
    number, kind = ord(c), unicodedata.category(c)
    if kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or number in (0xFFFE, 0xFFFF):
        return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    return c


def ends_shown(text: str) -> str:
    """A token on its own, with the spaces at its ends as dots: they are part of it."""
    bare = text.strip(" ")
    before = len(text) - len(text.lstrip(" ")) if bare else len(text)
    return "\u00b7" * before + bare + "\u00b7" * (len(text) - before - len(bare))
