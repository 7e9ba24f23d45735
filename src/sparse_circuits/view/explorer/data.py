"""What the page is told, as JSON: parts and their places, the sizes of the slider, the curve, and what nodes mean."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.view.caption import percent
from sparse_circuits.view.explorer.layout import KINDS, Place
from sparse_circuits.view.explorer.quality import Quality, number
from sparse_circuits.view.explorer.side import Part, Shown, Side, known_parts, together
from sparse_circuits.view.naming import about

FORMAT = 1
_KNOWN_OF = ("model", "task", "task_hash", "method", "ablation", "positions")
_CROWDED = 400  # edges at first sight; where there are more, the weakest are faded out until asked for


def page_data(
    a: Side,
    b: Side | None,
    steps: Sequence[int],
    start: int,
    labels: tuple[str, str],
    meanings: Mapping[str, Any],
    found: Sequence[Quality],
    state: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything but title, subtitle and id."""
    whole = together(a, b)
    place = Place.of(whole)
    nodes, index = _nodes(place, a, b)
    ports, port_index = _ports(place, whole, index)
    edges = _edges(place, a, b, index, port_index)
    known = {name: entry for name in names_in(nodes) if (entry := meaning_of(meanings, name)) is not None}
    return {
        "version": FORMAT,
        "kind": "components" if isinstance(whole, Circuit) else "features",
        "level": whole.graph.level,
        "thing": whole.graph.thing,
        "total": whole.graph.size,
        "scored": [side is not None and scored(side.circuit) for side in (a, b)],
        "signed": a.signed and (b is None or b.signed),
        "labels": list(labels),
        "two": b is not None,
        "frame": place.frame(),
        "kinds": list(KINDS),
        "nodes": nodes,
        "ports": ports,
        "edges": edges,
        "steps": list(steps),
        "sizes": [list(side.sizes) for side in (a, b) if side is not None],
        "start": start,
        "faintest": _faintest(a, b, start),
        "leftOut": [list(side.left_out) for side in (a, b) if side is not None],
        "curves": [one.curve for one in found],
        "evaluations": [one.evaluation for one in found],
        "random": found[0].random,
        "meanings": known,
        "state": state,
    }


def scored(circuit: Circuit | FeatureCircuit) -> bool:
    """Whether its parts have scores."""
    return (circuit.values if isinstance(circuit, Circuit) else circuit.node_values) is not None


def _nodes(place: Place, a: Side, b: Side | None) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """In the model's order, upwards and then to the right."""
    boxes = sorted(place.layout.nodes.items(), key=lambda item: (item[1].y, item[1].x))
    nodes = []
    for name, box in boxes:
        role = place.roles[name]
        end = Part(None, 0) if role in ("input", "logits") else None  # bars are always there
        entry = {"name": name, "label": box.label, "role": role, **place.box(box)}
        entry |= _pair([(side.nodes.get(name) or end) if side else None for side in (a, b)])
        units = [dict(side.units.get(name, [])) if side else {} for side in (a, b)]
        if any(units):
            entry["units"] = [
                {"name": unit, **_pair([side.get(unit) for side in units])}
                for unit in dict.fromkeys([*units[0], *units[1]])
            ]
        nodes.append(entry)
    return nodes, {node["name"]: i for i, node in enumerate(nodes)}


def _ports(place: Place, whole: Any, index: Mapping[str, int]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Destinations, with the nodes that read through them: several, where keys and values are shared."""
    found = place.ports()
    owners: dict[str, list[int]] = {name: [index[name]] if name in index else [] for name in found}
    if isinstance(whole, Circuit) and whole.graph.level == "edges":
        rows = {name: i for i, name in enumerate(whole.graph.rows)}
        for name, node in index.items():
            for column in whole.graph.owned(rows[name]) if name in rows else ():
                if node not in owners.setdefault(whole.graph.columns[column], []):
                    owners[whole.graph.columns[column]].append(node)
    ports = [
        {"name": name, "kind": kind, "label": label, "owners": owners[name], **place.box(box)}
        for name, (kind, label, box) in found.items()
    ]
    return ports, {port["name"]: i for i, port in enumerate(ports)}


def _edges(
    place: Place, a: Side, b: Side | None, index: Mapping[str, int], ports: Mapping[str, int]
) -> dict[str, list[Any]]:
    """One list per property; the strongest first."""
    names = list({**a.edges, **(b.edges if b else {})})
    pairs = [[side.edges.get(name) if side else None for side in (a, b)] for name in names]
    sizes = [max((abs(p.score or 0.0) for p in pair if p is not None), default=0.0) for pair in pairs]
    order = sorted(range(len(names)), key=lambda i: -sizes[i] if sizes[i] == sizes[i] else 0.0)
    columns: dict[str, list[Any]] = {key: [] for key in ("u", "p", "s", "at", "s2", "at2", "course")}
    for i in order:
        source, destination = names[i]
        columns["u"].append(index[source])
        columns["p"].append(ports[destination])
        columns["course"].append(place.course(source, destination))
        for key, value in _pair(pairs[i]).items():
            columns[key].append(value)
    return columns


def _pair(parts: Sequence[Part | None]) -> dict[str, Any]:
    """Score and first step on both sides; a step of -1 where the part is in no circuit of that side."""
    a, b = parts
    return {
        "s": number(a.score) if a else None,
        "at": a.at if a else -1,
        "s2": number(b.score) if b else None,
        "at2": b.at if b else -1,
    }


def _faintest(a: Side, b: Side | None, start: int) -> float:
    """The share of the strongest edge's size below which edges are not drawn at first."""
    found = 0.0
    for side in (a, b):
        there = [abs(part.score or 0.0) for part in (side.edges.values() if side else ()) if part.at <= start]
        if len(there) > _CROWDED and (top := max(there)) > 0:
            share = sorted(there, reverse=True)[_CROWDED] / top
            found = max(found, math.ceil(share * 200) / 200)
    return min(found, 0.5)


def subtitle(a: Side, b: Side | None, labels: tuple[str, str], thing: str, total: int) -> list[str]:
    """What circuit, how large at most, and by which method."""
    parts = []
    for side, label in ((a, labels[0]), (b, labels[1])):
        if side is None:
            continue
        size = f"up to {side.sizes[-1]:,} of {total:,} {thing}s ({percent(side.sizes[-1], total)})"
        parts.append(
            ": ".join(filter(None, [label if b else "", ", ".join([size, *about(side.provenance, "method")])]))
        )
    return parts


def names_in(nodes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """All that something may be known of: the page's nodes and their units."""
    for node in nodes:
        yield node["name"]
        yield from (unit["name"] for unit in node.get("units", ()))


def meaning_of(meanings: Mapping[str, Any], name: str) -> Any:
    """What is known of a node; of a feature at a position also what is known of the feature."""
    found = meanings.get(name)
    return meanings.get(name.partition("@")[0]) if found is None else found


def clean_meanings(meanings: Mapping[str, Any] | None, caller: str = "explore") -> dict[str, Any]:
    """As JSON can hold it; ``caller`` is what an error names.

    Raises:
        InputError: for anything that JSON cannot hold.
    """
    if meanings is None:
        return {}
    if not isinstance(meanings, Mapping):
        raise InputError(
            f"{caller}(meanings={type(meanings).__name__}): expected a mapping from names of nodes to what is known of them."
        )
    out = {}
    for name, given in meanings.items():
        meaning = given.to_dict() if hasattr(given, "to_dict") else given
        if not isinstance(meaning, Mapping):
            raise InputError(
                f"{caller}(meanings=...): of {name!r} there is a {type(meaning).__name__}; expected a mapping, such as "
                '{"density": 0.01, "promoted": [[" are", 2.1]]}.'
            )
        try:
            out[str(name)] = json.loads(json.dumps(_finite(meaning), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{caller}(meanings=...): what is known of {name!r} does not fit into JSON ({error}); use numbers, strings, "
                "lists and mappings."
            ) from error
    return out


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def identity(sides: Sequence[Shown]) -> str:
    """The same for the same circuits at whatever sizes, so that notes are found again on a page that was made anew."""
    about = [[str(side.provenance.get(key)) for key in _KNOWN_OF] for side in sides]
    return hashlib.sha256(json.dumps([[known_parts(side) for side in sides], about]).encode()).hexdigest()[:16]
