"""A feature circuit as Graphviz text, for ``dot -Tsvg`` and the tools that read it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.graph.features import LOGITS
from sparse_circuits.view.dot import listed, quoted
from sparse_circuits.view.feature_look import Look
from sparse_circuits.view.naming import about

_BAR = "#E4E7EB"


def to_feature_dot(circuit: FeatureCircuit) -> str:
    """Graphviz text of a whole feature circuit, the model's input at the bottom, a site's nodes on one rank.

    Boxes and edges have the colours of :func:`sparse_circuits.view.feature_picture.draw_feature_circuit`, their score as
    tooltip and as the attribute ``score``, and their name as id; error terms are dashed octagons, whole sites and heads
    bold. With positions, each that has a part in the circuit is a cluster.
    """
    said = " ".join(about(circuit.provenance))
    lines = [
        f"digraph {quoted(said or 'circuit')} {{",
        "  rankdir=BT;",
        *(["  newrank=true;"] if circuit.graph.positions else []),  # lets ranks go across clusters
        '  node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=8];',
        f"  {quoted(LOGITS)} [{listed({'fillcolor': _BAR})}];",
    ]
    look = Look(circuit)
    return "\n".join([*lines, *_nodes(circuit, look), *_ranks(circuit), *_edges(look), "}", ""])


def _nodes(circuit: FeatureCircuit, look: Look) -> Iterator[str]:
    graph = circuit.graph
    members: dict[int, list[str]] = {}
    for number, name in zip(circuit.node_ids.tolist(), circuit.nodes, strict=True):
        place = graph.places[graph.place_of(number)]
        label = name.partition("@")[0]
        attributes = {"id": name, "label": label}
        if not place.split:
            attributes["penwidth"] = "2"
        elif label.endswith(".error"):
            attributes |= {"shape": "octagon", "style": "dashed,filled"}
        score = look.scores.get(name)
        if score is None:
            attributes["tooltip"] = name
        else:
            ink = {"fontcolor": "white"} if look.shades.dark(score) else {}
            attributes |= {"fillcolor": look.shades.colour(score), **ink}
            attributes |= {"score": repr(score), "tooltip": f"{name}: {score:.4g}"}
        members.setdefault(number % graph.n_positions, []).append(f"{quoted(name)} [{listed(attributes)}];")
    for i in sorted(members):
        if not graph.positions:
            yield from (f"  {line}" for line in members[i])
            continue
        yield f"  subgraph {quoted(f'cluster_{i}')} {{"
        yield f"    label={quoted(graph.positions[i])};"
        yield from (f"    {line}" for line in members[i])
        yield "  }"


def _ranks(circuit: FeatureCircuit) -> Iterator[str]:
    """A site's nodes side by side, and sites above each other also where no edge says so."""
    rows: dict[int, list[str]] = {}
    for number, name in zip(circuit.node_ids.tolist(), circuit.nodes, strict=True):
        rows.setdefault(circuit.graph.place_of(number), []).append(name)
    for row in rows.values():
        if len(row) > 1:
            yield f"  {{ rank=same; {' '.join(f'{quoted(name)};' for name in row)} }}"
    unseen = listed({"style": "invis"})
    first = [*(row[0] for row in rows.values()), LOGITS]
    yield from (f"  {quoted(below)} -> {quoted(above)} [{unseen}];" for below, above in pairwise(first))


def _edges(look: Look) -> Iterator[str]:
    for name, score in look.circuit.to_dict("edges").items():
        source, _, target = name.partition("->")
        attributes = {
            "id": name,
            "color": look.pens.colour(score),
            "penwidth": f"{look.pens.width(score):.3g}",
            "score": repr(score),
            "tooltip": f"{name}: {score:.4g}",
        }
        yield f"  {quoted(source)} -> {quoted(target)} [{listed(attributes)}];"
