"""What results, methods and the like are called wherever they are shown. Files and provenance keep the full words."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_circuits.circuit import Circuit, FeatureCircuit

_APART = {
    "task": "{}",
    "model": "{}",
    "method": "{}",
    "ablation": "{} ablation",
    "positions": "positions: {}",
    "level": "{}",
    "revision": "revision {}",
    "n_examples": "{} examples",
}
_ALONE = ("level", "revision", "n_examples")  # said only where nothing else sets two results apart


def method_name(method: Any) -> str:
    """A method as its options tell it apart: ``"EAPIG(steps=5)"``, ``"EAP()"``, ``"EAPIG(steps=5, path='activations')"``.

    Options at their defaults are left out, except for a number that comes first, such as the steps of an integral or a
    threshold: what everybody asks for. Text that is no known method's stays as it is.

    Args:
        method: one, or its full text as it stands in a provenance.
    """
    text = str(method)
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):  # an option may be an object of one's own
        return text
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        return text
    kind = _known().get(call.func.id)
    if kind is None:
        return text
    defaults = {one.name: repr(one.default) for one in fields(kind) if one.default is not MISSING}
    first = next((one.name for one in fields(kind)), None)
    kept = []
    for option in call.keywords:
        said = ast.unparse(option.value)
        at_default = option.arg in defaults and said == _normal(defaults[option.arg])
        if not at_default or (option.arg == first and _is_number(option.value)):
            kept.append(f"{option.arg}={said}")
    return f"{call.func.id}({', '.join(kept)})"


def about(known: Mapping[str, Any], *keys: str) -> list[str]:
    """What a provenance says under some keys, as far as it does; by default the task, the model and the method."""
    keys = keys or ("task", "model", "method")
    return [method_name(known[key]) if key == "method" else str(known[key]) for key in keys if known.get(key)]


def made_of(known: Mapping[str, Any]) -> str:
    """The end of a circuit's or of scores' ``repr``: ``", task='ioi', method='EAPIG(steps=5)'"``."""
    return "".join(f", {key}={said!r}" for key in ("task", "method") for said in about(known, key))


def asked_for(circuit: Circuit | FeatureCircuit) -> str:
    """``", 40 asked for"`` of a circuit that came out smaller, as where some parts led nowhere; else nothing."""
    known = circuit.provenance
    selection = known.get("selection")
    n = selection.get("n") if isinstance(selection, Mapping) else None
    smaller = isinstance(n, int) and circuit.size < n and not known.get("complement")
    return f", {n:,} asked for" if smaller else ""


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str] | None:
    """What sets two results apart, by their provenance, such as ``("EAP()", "Exact()")``; None where nothing does."""
    pairs: list[tuple[str, str]] = []
    for key, form in _APART.items():
        first, second = one.get(key), other.get(key)
        if first and second and first != second and not (pairs and key in _ALONE):
            pair = (method_name(first), method_name(second)) if key == "method" else (str(first), str(second))
            pairs.append((form.format(pair[0]), form.format(pair[1])))
    pairs = [(a, b) for a, b in pairs if a != b]
    return (", ".join(a for a, _ in pairs), ", ".join(b for _, b in pairs)) if pairs else None


def _known() -> dict[str, Any]:
    """All classes of methods by name, people's own too."""
    from sparse_circuits.attribution import Method
    from sparse_circuits.tracing.method import TracingMethod

    return {kind.__name__: kind for base in (TracingMethod, Method) for kind in _below(base)}


def _below(kind: Any) -> Iterator[Any]:
    for one in kind.__subclasses__():
        if "__dataclass_fields__" in vars(one):
            yield one
        yield from _below(one)


def _is_number(value: ast.expr) -> bool:
    if isinstance(value, ast.UnaryOp):
        return _is_number(value.operand)
    return (
        isinstance(value, ast.Constant) and isinstance(value.value, int | float) and not isinstance(value.value, bool)
    )


def _normal(text: str) -> str:
    """As ``ast`` would write it."""
    try:
        return ast.unparse(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError):
        return text
