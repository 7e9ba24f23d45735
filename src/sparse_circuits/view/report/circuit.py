"""The model, and the circuit in it: its picture, its strongest parts, and the page to explore it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.view.naming import method_name
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.inline import picture
from sparse_circuits.view.report.markup import (
    Html,
    Piece,
    anchor,
    counted,
    join,
    link,
    number,
    pairs,
    share,
    table,
    tag,
)
from sparse_circuits.view.standalone import embedded

_STRONGEST = 15
_DRAWN = 150  # edges or units of a circuit of components: more cannot be told apart
_SETTINGS = {
    "n_layers": "layers",
    "n_heads": "heads per layer",
    "n_key_value_heads": "of keys and values",
    "d_model": "width of the residual stream",
    "d_head": "width of a head",
    "d_mlp": "neurons per MLP",
    "d_vocab": "vocabulary",
    "n_ctx": "longest prompt",
    "act_fn": "activation function",
    "normalization_type": "norm",
    "dtype": "number format",
}


def model(g: Given) -> Html:
    known, graph = g.known, g.circuit.graph
    settings = getattr(g.model, "cfg", None)
    rows: list[tuple[str, Piece]] = [
        ("model", str(known.get("model", "not recorded"))),
        ("class", _said(known.get("model_class"))),
        ("revision", _said(known.get("revision"))),
    ]
    if settings is None:
        own = {"n_layers": graph.n_layers, "n_heads": getattr(graph, "n_heads", None), "d_model": known.get("d_model")}
    else:
        own = {name: getattr(settings, name, None) for name in _SETTINGS}
    rows += [(words, _said(own.get(name))) for name, words in _SETTINGS.items()]
    return join(pairs(rows), _dictionaries(g))


def _said(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return f"{value:,}" if isinstance(value, int) else str(value)


def _dictionaries(g: Given) -> Html | None:
    if not isinstance(g.circuit, FeatureCircuit):
        return None
    rows = []
    for place in g.circuit.graph.places:
        if place.split:
            rows.append((place.name, place.dictionary_id, f"{place.n_features:,}", _hooks(place.dictionary)))
        else:
            rows.append((place.name, "as a whole" if place.n_blocks == 1 else "head by head", "", ""))
    caption = "Where the model is cut into features, and by which dictionaries"
    return table(caption, ["site", "dictionary", "features", "reads and writes"], rows, text=(0, 1, 3))


def _hooks(dictionary: Any) -> str:
    if dictionary is None:
        return ""
    return ", ".join(dict.fromkeys((dictionary.hook_name, dictionary.hook_name_out)))


def circuit(g: Given) -> Html:
    return join(tag("p", _made_of(g)), _drawn(g), _strongest(g), _explorer(g))


def _made_of(g: Given) -> str:
    level = {
        "edges": "edges between heads, MLPs, the input and the logits",
        "nodes": "heads, MLPs and the input",
        "outputs": "dimensions of what heads and MLPs write",
        "neurons": "MLPs' hidden units and dimensions of heads",
        "features": "features of the dictionaries, and error terms, which have what no feature has",
    }[g.circuit.graph.level]
    positions = g.known.get("positions", "sum")
    apart = {"sum": "", "keep": "; each position is told apart", "spans": "; positions are told apart by named spans"}
    text = f"Parts are {level}{apart.get(str(positions), '')}. {g.size} {'is' if g.circuit.size == 1 else 'are'} in it"
    if isinstance(g.circuit, FeatureCircuit):
        return f"{text}, {_kinds(g.circuit)}, with {counted(g.circuit.n_edges, 'edge')} between them."
    if g.circuit.graph.level == "nodes":
        return f"{text}."
    # at the level of edges the logits are a node too, elsewhere they have no units
    logits = 0 if g.circuit.graph.level == "edges" else g.circuit.graph.n_positions
    return f"{text}, in {counted(max(0, g.circuit.n_nodes - logits), 'node')}."


def _kinds(circuit: FeatureCircuit) -> str:
    ends = Counter("error term" if name.partition("@")[0].endswith(".error") else "feature" if ".f" in name else "whole node"
                   for name in circuit.nodes)  # fmt: skip
    return ", ".join(counted(ends[kind], kind) for kind in ("feature", "error term", "whole node") if ends[kind])


def _drawn(g: Given) -> Html:
    circuit = g.circuit
    if not circuit.size:
        return tag("p", "The circuit is empty: there is nothing to draw.", class_="missing")
    options: dict[str, Any] = {"title": g.title, "evaluation": g.evaluation, "baseline": g.baseline}
    left_out = ""
    if isinstance(circuit, Circuit) and circuit.values is not None and circuit.size > _DRAWN:
        options["max_size"] = _DRAWN
        left_out = f" Only the {_DRAWN} strongest {g.thing}s are drawn."
    about = (
        f"The circuit, input at the bottom, logits at the top; its strongest parts are in the tables below.{left_out}"
    )
    sign = (
        "Blue carries the behaviour (ablating it hurts), orange works against it; width and depth of colour grow with"
    )
    sign = f"{sign} the score." if g.signed else "Width and depth of colour grow with the score, which has no sign."
    return picture(circuit.plot(**options), "circuit", about, f"The input is at the bottom. {sign}{left_out}")


def _strongest(g: Given) -> Html:
    if not g.parts and not g.edges:
        return tag("p", "The circuit has no scores, so that none of its parts are the strongest.", class_="missing")
    what = f"The score is {_meant(g)}."
    tables = []
    if g.parts:
        tables.append(_ranked(g, f"{g.thing}s", g.parts))
    if g.circuit.graph.level == "edges":
        sums = {name: score for name, score in g.nodes.items() if score is not None}
        tables.append(_ranked(g, "nodes, by the sum of their outgoing edges", sums))
    elif g.edges:
        tables.append(_ranked(g, "edges", g.edges))
    return join(tag("p", what), tag("div", *tables, class_="beside"))


def _meant(g: Given) -> str:
    if not g.signed:
        return f"{method_name(g.known.get('method', 'the method'))}'s own measure of importance, without a sign"
    return (
        "an estimate of what ablating the part alone adds to the metric, a mean over prompts: what carries the behaviour is "
        "negative"
    )


def _ranked(g: Given, things: str, scores: Mapping[str, float]) -> Html:
    total = sum(map(abs, scores.values()))
    rows = [
        [_named(g, name), number(score), share(abs(score) / total) if total else ""]
        for name, score in islice(scores.items(), _STRONGEST)
    ]
    shown = f"The {len(rows)} strongest" if len(rows) < len(scores) else "All"
    return table(f"{shown} of {len(scores):,} {things}", ["", "score", "share of the circuit"], rows)


def _named(g: Given, name: str) -> Piece:
    """A node as a link to what it means, where that is told."""
    node = name.partition("@")[0]
    return link(f"#{anchor(node)}", name) if node in g.told and "->" not in name else name


def _explorer(g: Given) -> Html:
    if g.explorer is None:
        how = g.missing.get("explorer")
        return tag("p", "A page to explore the circuit in was not given.", f" {how}" if how else "", class_="missing")
    return tag(
        "div",
        tag("button", "Explore the circuit here", type="button", id="explore"),
        tag("span", " Its size, what its parts mean, search and notes; nothing is loaded from anywhere."),
        tag("div", id="explorer"),
        tag("script", Html(embedded(g.explorer)), type="application/json", id="explorer-page"),
        class_="explorer",
    )
