"""A circuit as Graphviz text, for ``dot -Tsvg`` and the tools that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.contents import Content, Contents
from sparse_circuits.view.naming import about
from sparse_circuits.view.strokes import Strokes

_BAR, _MLP = "#E4E7EB", "#FFF6DD"


def to_dot(circuit: Circuit) -> str:
    """Graphviz text of a circuit, the input at the bottom, with a layer's heads on one rank and its MLP on another.

    Edges carry their score as tooltip and as the attribute ``score``, are labelled q, k or v where they enter a head,
    and are as wide and of the same colours as in :func:`sparse_circuits.view.picture.draw_circuit`. The k and v inputs
    of a group of heads are a node of their own, ``a0.g1``, tied to its heads without an arrow.

    At the levels of nodes and units there are no edges but invisible ones, which keep the layers in order; boxes are filled
    by their scores as in the picture. With positions, each that has a part in the circuit is a cluster.
    """
    said = " ".join(about(circuit.provenance))
    lines = [
        f"digraph {quoted(said or 'circuit')} {{",
        "  rankdir=BT;",
        *(["  newrank=true;"] if circuit.graph.positions else []),  # lets ranks go across clusters
        '  node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=8, labeldistance=1.2];',
    ]
    if circuit.graph.level != "edges":
        return "\n".join([*lines, *_boxes(circuit), "}", ""])
    lines += _placed(circuit) if circuit.graph.positions else _nodes(circuit)
    return "\n".join([*lines, *_edges(circuit), "}", ""])


def _edges(circuit: Circuit) -> Iterator[str]:
    graph, strokes = circuit.graph, Strokes(circuit)
    for name in circuit.edges:
        u, v = graph.edge_index(name)
        destination, sign, position = graph.columns[v].partition("@")
        node, _, port = destination.partition("<")
        score = strokes.score((u, v))
        attributes = {"id": name, "color": strokes.colour(score), "penwidth": f"{strokes.width(score):.3g}"}
        if port:
            attributes["headlabel"] = port.removesuffix(">")
        if score is None:
            attributes["tooltip"] = name
        else:
            attributes |= {"score": repr(score), "tooltip": f"{name}: {score:.4g}"}
        yield f"  {quoted(graph.rows[u])} -> {quoted(node + sign + position)} [{listed(attributes)}];"


def _nodes(circuit: Circuit) -> Iterator[str]:
    """Without positions: nodes, one rank per row of the model, and groups with their ties to heads."""
    graph, present = circuit.graph, set(circuit.nodes)
    for name in ("input", "logits"):
        if name in present:
            yield f"  {quoted(name)} [{listed({'fillcolor': _BAR})}];"
    reached = {graph.destinations[v].partition("<")[0] for v in circuit.mask.any(0).nonzero().flatten().tolist()}
    for layer in range(graph.n_layers):
        heads = [f"a{layer}.h{i}" for i in range(graph.n_heads)]
        there = [name for name in heads if name in present]
        if there:
            yield f"  {{ rank=same; {' '.join(f'{quoted(name)};' for name in there)} }}"
        if f"m{layer}" in present:
            yield f"  {quoted(f'm{layer}')} [{listed({'fillcolor': _MLP})}];"
        size = graph.n_heads // graph.n_kv
        for group in range(graph.n_kv if size > 1 else 0):
            name = f"a{layer}.g{group}"
            if name in reached:
                yield f"  {quoted(name)} [{listed({'shape': 'ellipse'})}];"
                tie = listed({"style": "dotted", "arrowhead": "none"})
                members = heads[group * size : (group + 1) * size]
                yield from (f"  {quoted(name)} -> {quoted(head)} [{tie}];" for head in members if head in present)


def _placed(circuit: Circuit) -> Iterator[str]:
    """With positions: nodes in a cluster per position, and one rank per row of the model."""
    graph = circuit.graph
    members = {name: {"label": name.partition("@")[0], **_fill(name)} for name in circuit.nodes}
    ties: list[str] = []
    size = graph.n_heads // graph.n_kv
    reached = dict.fromkeys(graph.columns[v] for v in circuit.mask.any(0).nonzero().flatten().tolist())
    for column in reached if size > 1 else ():
        base, _, position = column.partition("@")
        layer, _, group = base.partition("<")[0].partition(".g")
        name = f"{layer}.g{group}@{position}"
        if not group or name in members:
            continue
        members[name] = {"label": f"{layer}.g{group}", "shape": "ellipse"}
        tie = listed({"style": "dotted", "arrowhead": "none"})
        heads = [f"{layer}.h{i}@{position}" for i in range(int(group) * size, (int(group) + 1) * size)]
        ties += [f"  {quoted(name)} -> {quoted(head)} [{tie}];" for head in heads if head in members]
    yield from _clusters(circuit, members)
    yield from _ranks(circuit)
    yield from ties


def _boxes(circuit: Circuit) -> Iterator[str]:
    """Nodes with what of them is in the circuit, in the order of the model."""
    contents = Contents(circuit)
    members = {name: _described(name, content, contents) for name, content in contents.of.items()}
    if circuit.graph.positions:
        yield from _clusters(circuit, members)
    else:
        yield from (f"  {quoted(name)} [{listed(attributes)}];" for name, attributes in members.items())
    if members:
        yield f"  {quoted('logits')} [{listed({'fillcolor': _BAR})}];"
    yield from _ranks(circuit)
    rows = [row[0] for row in _rows(circuit)]
    unseen = listed({"style": "invis"})
    yield from (f"  {quoted(below)} -> {quoted(above)} [{unseen}];" for below, above in pairwise([*rows, "logits"]))


def _described(name: str, content: Content, contents: Contents) -> dict[str, str | tuple[str, ...]]:
    lines = [name.partition("@")[0]]
    if contents.in_parts and content.total > 1:
        lines += [f"{content.n} of {content.total}", " ".join(content.strongest)]
    attributes: dict[str, str | tuple[str, ...]] = {"id": name, "label": tuple(lines)}
    if content.score is None:
        return attributes | {"tooltip": name}
    ink = {"fontcolor": "white"} if contents.dark(content.score) else {}
    attributes |= {"fillcolor": contents.colour(content.score), **ink}
    return attributes | {"score": repr(content.score), "tooltip": f"{name}: {content.score:.4g}"}


def _fill(name: str) -> dict[str, str]:
    return {"fillcolor": _MLP if name[0] == "m" else _BAR} if name[0] in "mil" else {}


def _clusters(circuit: Circuit, members: Mapping[str, Mapping[str, str | tuple[str, ...]]]) -> Iterator[str]:
    for i, position in enumerate(circuit.graph.positions):
        here = {name: attributes for name, attributes in members.items() if name.partition("@")[2] == position}
        if here:
            yield f"  subgraph {quoted(f'cluster_{i}')} {{"
            yield f"    label={quoted(position)};"
            yield from (f"    {quoted(name)} [{listed(attributes)}];" for name, attributes in here.items())
            yield "  }"


def _ranks(circuit: Circuit) -> Iterator[str]:
    for row in _rows(circuit):
        if len(row) > 1:
            yield f"  {{ rank=same; {' '.join(f'{quoted(name)};' for name in row)} }}"


def _rows(circuit: Circuit) -> list[list[str]]:
    """Nodes that stand side by side: the input, each layer's heads and its MLP, the logits where edges lead to them."""
    rows: dict[str, list[str]] = {}
    for name in circuit.nodes:
        if circuit.graph.level == "edges" or not name.startswith("logits"):
            base = name.partition("@")[0]
            rows.setdefault(base.partition(".")[0], []).append(name)
    return list(rows.values())


def listed(attributes: Mapping[str, str | tuple[str, ...]]) -> str:
    """Attributes as they stand in brackets; several strings are lines of a label."""
    return ", ".join(
        f"{key}={quoted(*([value] if isinstance(value, str) else value))}" for key, value in attributes.items()
    )


def quoted(*lines: str) -> str:
    """A Graphviz string; a backslash starts an escape in labels, so it is doubled."""
    return '"' + "\\n".join(_escaped(line) for line in lines) + '"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
