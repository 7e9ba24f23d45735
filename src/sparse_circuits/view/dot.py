"""A circuit as Graphviz text, for ``dot -Tsvg`` and the tools that read it."""

from __future__ import annotations

from collections.abc import Iterator

from sparse_circuits.circuit import Circuit
from sparse_circuits.view.strokes import Strokes


def to_dot(circuit: Circuit) -> str:
    """Graphviz text of a circuit, the input at the bottom, with a layer's heads on one rank and its MLP on another.

    Edges carry their score as tooltip and as the attribute ``score``, are labelled q, k or v where they enter a head,
    and are as wide and of the same colours as in :func:`sparse_circuits.view.picture.draw_circuit`. The k and v inputs
    of a group of heads are a node of their own, ``a0.g1``, tied to its heads without an arrow.
    """
    graph, strokes = circuit.graph, Strokes(circuit)
    about = " ".join(str(circuit.provenance[key]) for key in ("task", "model", "method") if circuit.provenance.get(key))
    lines = [
        f"digraph {_quoted(about or 'circuit')} {{",
        "  rankdir=BT;",
        '  node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=8, labeldistance=1.2];',
    ]
    lines += _nodes(circuit)
    for name in circuit.edges:
        u, v = graph.edge_index(name)
        node, _, port = graph.destinations[v].partition("<")
        score = strokes.score((u, v))
        attributes = {"id": name, "color": strokes.colour(score), "penwidth": f"{strokes.width(score):.3g}"}
        if port:
            attributes["headlabel"] = port.removesuffix(">")
        if score is None:
            attributes["tooltip"] = name
        else:
            attributes |= {"score": repr(score), "tooltip": f"{name}: {score:.4g}"}
        lines.append(f"  {_quoted(graph.sources[u])} -> {_quoted(node)} [{_listed(attributes)}];")
    return "\n".join([*lines, "}", ""])


def _nodes(circuit: Circuit) -> Iterator[str]:
    """Statements for nodes, one rank per row of the model, and for groups with their ties to heads."""
    graph, present = circuit.graph, set(circuit.nodes)
    for name in ("input", "logits"):
        if name in present:
            yield f"  {_quoted(name)} [{_listed({'fillcolor': '#E4E7EB'})}];"
    reached = {graph.destinations[v].partition("<")[0] for v in circuit.mask.any(0).nonzero().flatten().tolist()}
    for layer in range(graph.n_layers):
        heads = [f"a{layer}.h{i}" for i in range(graph.n_heads)]
        there = [name for name in heads if name in present]
        if there:
            yield f"  {{ rank=same; {' '.join(f'{_quoted(name)};' for name in there)} }}"
        if f"m{layer}" in present:
            yield f"  {_quoted(f'm{layer}')} [{_listed({'fillcolor': '#FFF6DD'})}];"
        size = graph.n_heads // graph.n_kv
        for group in range(graph.n_kv if size > 1 else 0):
            name = f"a{layer}.g{group}"
            if name in reached:
                yield f"  {_quoted(name)} [{_listed({'shape': 'ellipse'})}];"
                tie = _listed({"style": "dotted", "arrowhead": "none"})
                members = heads[group * size : (group + 1) * size]
                yield from (f"  {_quoted(name)} -> {_quoted(head)} [{tie}];" for head in members if head in present)


def _listed(attributes: dict[str, str]) -> str:
    return ", ".join(f"{key}={_quoted(value)}" for key, value in attributes.items())


def _quoted(text: str) -> str:
    """A Graphviz string; a backslash starts an escape in labels, so it is doubled."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
