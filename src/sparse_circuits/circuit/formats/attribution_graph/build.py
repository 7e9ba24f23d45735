"""Making an attribution graph out of a circuit: its nodes and links, and what is said of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.circuit.formats.attribution_graph.ids import Part, part
from sparse_circuits.circuit.formats.attribution_graph.own import OWN
from sparse_circuits.circuit.formats.attribution_graph.pages import HasDict
from sparse_circuits.circuit.formats.attribution_graph.prompt import Prompt
from sparse_circuits.provenance import versions

_LOGITS = "logits"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A circuit over a prompt, as an attribution graph has it.

    Attributes:
        pages: by a node's name without position, what is known of it. labels: by its name, with or without position.
    """

    circuit: Circuit | FeatureCircuit
    prompt: Prompt
    pages: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The circuit's nodes or units by name, in the model's order, without the logits."""
        circuit = self.circuit
        units = isinstance(circuit, Circuit) and circuit.graph.level != "edges"
        own = circuit.names if units else circuit.nodes
        return {name: part(circuit, name) for name in own if not _is_logits(name)}

    @cached_property
    def ids(self) -> dict[str, str]:
        """The nodes' ids by name; the input at a single position is its token."""
        tokens = {f"input@{i}": f"E_{token}_{i}" for i, token in enumerate(self.prompt.ids)}
        ids = {name: tokens.get(name) or one.id(*self._placed(name)) for name, one in self.parts.items()}
        return ids | {name: node["node_id"] for name, node in self._outputs.items()}

    def links(self) -> list[dict[str, Any]]:
        """One for each pair of nodes: where a source is read as q, k and v, their sum, and each beside it."""
        sign = -1.0 if self.circuit.provenance.get("signed", True) else 1.0
        found: dict[tuple[str, str], dict[str, float]] = {}
        for source, target, read, score in self._edges:
            into = found.setdefault((self.ids[source], self.ids[target]), {})
            into[read] = into.get(read, 0.0) + score
        return [
            {
                "source": source,
                "target": target,
                "weight": sign * sum(scores.values()) + 0.0,
                OWN: {"score": sum(scores.values()), **{read: score for read, score in scores.items() if read}},
            }
            for (source, target), scores in found.items()
        ]

    def nodes(self, links: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Tokens, the circuit's nodes and logits, with their influence by these links."""
        values = self._values
        nodes = [_token_node(i, token) for i, token in enumerate(self.prompt.ids)]
        tokens = {node["node_id"]: node for node in nodes}
        for name, one in self.parts.items():
            own = {OWN: {"name": name, "score": values.get(name)}}
            if self.ids[name] in tokens:
                tokens[self.ids[name]] |= own
            else:
                nodes.append(self._node(one) | own)
        nodes += self._outputs.values()
        targets = {node["node_id"] for node in self._outputs.values()}
        shown = {node["feature"] for node in self._outputs.values() if node["ctx_idx"] == self.prompt.read}
        n_layers = self.circuit.graph.n_layers
        likely = [
            _logit(n_layers, self.prompt.read, one.token, one.text, one.probability)
            for one in self.prompt.likely
            if one.token not in shown
        ]
        nodes += likely
        _set_influence(nodes, links, targets)
        return nodes

    @property
    def numbers(self) -> dict[str, int]:
        """By name without position, the numbers of what may have a page."""
        return {one.plain: one.number for one in self.parts.values() if one.number >= 0}

    @cached_property
    def _edges(self) -> tuple[tuple[str, str, str, float], ...]:
        return tuple(_edges(self.circuit))

    @property
    def _values(self) -> Mapping[str, float]:
        """Scores of nodes or units, where they have them."""
        circuit = self.circuit
        of_edges = isinstance(circuit, Circuit) and circuit.graph.level == "edges"
        known = circuit.node_values if isinstance(circuit, FeatureCircuit) else circuit.values
        return {} if of_edges or known is None else circuit.to_dict()

    @cached_property
    def _outputs(self) -> dict[str, dict[str, Any]]:
        """The logits that the metric is about, one at each position at which the circuit has them, by name.

        Where the metric asks for a token, it is that one; otherwise the metric itself, under a number that no token has.
        """
        found, n_layers = {}, self.circuit.graph.n_layers
        metric = str(self.circuit.provenance.get("metric") or "metric")
        names = {target for _, target, _, _ in self._edges if _is_logits(target)} or {_LOGITS}
        for name in sorted(names):
            ctx, span = self._placed(name)
            target = self.prompt.target if ctx == self.prompt.read else None
            if target is None:
                node = _logit(n_layers, ctx, -1, metric, 0.0, span)
            else:
                node = _logit(n_layers, ctx, target.token, target.text, target.probability, span)
            found[name] = node | {"is_target_logit": True, OWN: {"name": name, "score": None}}
        return found

    def _placed(self, name: str) -> tuple[int, int | None]:
        """The token at which a node stands; and the number of its span, where positions are named spans."""
        positions = self.circuit.graph.positions
        if not positions or "@" not in name:
            return self.prompt.read, None
        number = positions.index(name.partition("@")[2])
        return self.prompt.at[number], None if positions[number].isdecimal() else number

    def _node(self, one: Part) -> dict[str, Any]:
        page = self.pages.get(one.plain)
        known: Mapping[str, Any] = page.to_dict() if isinstance(page, HasDict) else page or {}
        label = self.labels.get(one.name) or self.labels.get(one.plain) or known.get("label")
        has_page = page is not None and one.number >= 0
        kind = "cross layer transcoder" if has_page else one.feature_type
        node = {
            **_common(self.ids[one.name], one.number, one.layer, self._placed(one.name)[0], kind),
            "clerp": f"{one.plain}: {label}" if label else one.plain,
            "activation": self.prompt.activations.get(one.name),
        }
        return node | ({"vis_link": known["link"]} if known.get("link") else {})


def _edges(circuit: Circuit | FeatureCircuit) -> Iterator[tuple[str, str, str, float]]:
    """Source, target, q, k, v or nothing, and score.

    An edge into keys or values that heads share goes to those of them that are in the circuit, an equal part to each:
    what it would be to each head alone is not known.
    """
    if isinstance(circuit, FeatureCircuit):
        if circuit.n_edges:
            for name, score in circuit.to_dict("edges").items():
                source, _, target = name.partition("->")
                yield source, target, "", score
            return
    elif circuit.graph.level == "edges":
        graph, there = circuit.graph, set(circuit.nodes)
        owners: dict[str, list[str]] = {}
        for row, name in enumerate(graph.rows):
            for column in graph.owned(row) if name in there else ():
                owners.setdefault(graph.columns[column], []).append(name)
        for name, score in circuit.to_dict().items():
            source, _, target = name.partition("->")
            if _is_logits(target):
                yield source, target, "", score
                continue
            read = re.search(r"<([qkv])>", target)
            for owner in owners[target]:
                yield source, owner, read[1] if read else "", score / len(owners[target])
        return
    for name, score in circuit.to_dict().items():  # no edges are known: the whole effect of each part
        yield name, _LOGITS, "", score


def _is_logits(name: str) -> bool:
    return name.partition("@")[0] == _LOGITS


def _common(id: str, feature: int, layer: str, ctx: int, feature_type: str) -> dict[str, Any]:
    return {
        "node_id": id,
        "feature": feature,
        "layer": layer,
        "ctx_idx": ctx,
        "feature_type": feature_type,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": id,
    }


def _token_node(ctx: int, token: int) -> dict[str, Any]:
    return {**_common(f"E_{token}_{ctx}", ctx, "E", ctx, "embedding"), "clerp": "", "activation": None}


def _logit(n_layers: int, ctx: int, token: int, text: str, chance: float, span: int | None = None) -> dict[str, Any]:
    layer = str(n_layers + 1)
    id = f"{layer}_{token}_{ctx}" + ("" if span is None else f"_s{span}")
    # the page takes the token from between the first two quotation marks, and the probability from after the first "(p="
    shown = text.replace('"', "”").replace("(p=", "(p =")
    return {
        **_common(id, token, layer, ctx, "logit"),
        "token_prob": min(chance, 1.0),
        "clerp": f'Output "{shown}" (p={chance:.3f})',
        "activation": None,
    }


def _set_influence(nodes: Sequence[dict[str, Any]], links: Sequence[Mapping[str, Any]], targets: set[str]) -> None:
    """What the page prunes by: per node, the share of all influence that it and all stronger nodes have together.

    A node's influence is its share in the targets', over all paths, each link's share being |weight| among those into the
    same node (Ameisen et al. 2025). Tokens and logits count too; they are never pruned.
    """
    place = {node["node_id"]: i for i, node in enumerate(nodes)}
    into: dict[str, list[tuple[str, float]]] = {}
    readers = dict.fromkeys(place, 0)
    for link in links:
        into.setdefault(link["target"], []).append((link["source"], abs(link["weight"])))
        readers[link["source"]] += 1
    influence = {id: 1.0 / len(targets) if id in targets else 0.0 for id in place}
    ready = [id for id, n in readers.items() if n == 0]
    while ready:  # from the logits down: a node when all that read it are done
        id = ready.pop()
        total = sum(weight for _, weight in into.get(id, ()))
        for source, weight in into.get(id, ()):
            influence[source] += influence[id] * weight / total if total else 0.0
            readers[source] -= 1
            if readers[source] == 0:
                ready.append(source)
    own = sorted((id for id in place if id not in targets), key=lambda id: -influence[id])
    total, before = sum(influence[id] for id in own), 0.0
    for id in own:
        before += influence[id]
        nodes[place[id]]["influence"] = min(before / total, 1.0) if total else 1.0
    for id in targets:
        nodes[place[id]]["influence"] = None


def metadata_of(
    circuit: Circuit | FeatureCircuit, prompt: Prompt, slug: str | None, scan: str | None, example: int | None
) -> dict[str, Any]:
    """
    Args:
        example: which of a task's the prompt is.
    """
    about = circuit.provenance
    model, task = str(about.get("model") or "model"), about.get("task")
    if slug is None:
        slug = "-".join(str(word) for word in (task or "circuit", Path(model).name, example) if word is not None)
        slug = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-") or "circuit"
    n, metric = about.get("n_examples"), about.get("metric")
    said = [
        f"{metric} of {task}" if metric and task else None,
        f"mean over {n} examples" if n else None,
        about.get("method"),
    ]
    places = getattr(circuit.graph, "places", ())
    return {
        "slug": slug,
        "scan": (re.sub(r"[^A-Za-z0-9_-]+", "-", Path(model).name) or "model") if scan is None else scan,
        "transcoder_list": [place.dictionary_id for place in places if place.dictionary_id],
        "prompt_tokens": list(prompt.tokens),
        "prompt": prompt.text,
        "node_threshold": 1.0,
        "schema_version": 1,
        "info": {
            "description": ", ".join(str(word) for word in said if word),
            "generator": {"name": "sparse-circuits", "version": versions()["sparse-circuits"]},
        },
        "generation_settings": {
            key: about[key]
            for key in ("model", "method", "ablation", "positions", "n_examples")
            if about.get(key) is not None
        },
        "pruning_settings": {
            str(key): value for key, value in (about.get("selection") or {}).items() if value is not None
        },
    }
