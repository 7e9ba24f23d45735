"""What attribution returns for a feature graph: effects of nodes, and edges between them. Sparse throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.comparison import Comparison, compare_feature_scores
from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit, check_read
from sparse_circuits.circuit.files import pack_graph, read, unpack_graph, write
from sparse_circuits.circuit.influence import influential
from sparse_circuits.circuit.select import strength
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph.features import FeatureGraph


@dataclass(frozen=True, eq=False)
class FeatureScores:
    """Effects of a feature graph's nodes, and where asked for its edges, averaged over examples, in units of the metric.

    Attributes:
        graph: the graph; with positions where these were told apart. Summed over positions, effects of opposite sign
            cancel.
        node_ids, node_values: nodes whose score is not 0, ascending, and their scores; nothing is stored for the others.
        edge_list: edges into the nodes above the threshold and into the logits, or None where none were asked for.
        clean, corrupted: the metric per example, ``[examples]``, of the clean run and, under PATCH, of the corrupted run.
        signed: whether scores estimate a signed indirect effect.
        passes: forward and backward passes per batch.
        per_example: rows (int64), nodes (int64) and scores of every example, where asked for.
        convergence: per site whose cut an integral went over, the sum of its nodes' scores, and what ablating all that is
            written there does: m(ablated there) - m(clean). Empty for other methods.
        provenance: model, task, method and so on, as saved with it.
    """

    graph: FeatureGraph
    node_ids: Tensor
    node_values: Tensor
    edge_list: EdgeList | None
    clean: Tensor
    corrupted: Tensor | None
    signed: bool = True
    passes: tuple[float, float] = (0, 0)
    per_example: tuple[Tensor, Tensor, Tensor] | None = None
    convergence: dict[str, tuple[float, float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def convergence_gaps(self) -> dict[str, float]:
        """Per site, the sum of its nodes' scores minus m(all of the site ablated) - m(clean): 0 for an exact path integral."""
        return {site: found - whole for site, (found, whole) in self.convergence.items()}

    @property
    def convergence_gap(self) -> float | None:
        """The largest gap of any site, with its sign; None for methods that integrate over no site."""
        gaps = self.convergence_gaps
        return max(gaps.values(), key=abs) if gaps else None

    @property
    def edges(self) -> EdgeList:
        """
        Raises:
            InputError: if edges were not asked for.
        """
        if self.edge_list is None:
            raise InputError("These scores have no edges; ask for them with attribute(..., nodes_above=0.1).")
        return self.edge_list

    def to_dict(self, kind: str = "nodes") -> dict[str, float]:
        """Every score that is not 0, by name.

        Args:
            kind: "nodes", ``{"resid_3.f217": -0.4, "resid_3.error": 0.1, ...}``, or "edges",
                ``{"attn_2.f5->resid_2.f9": -0.2, ...}``.
        """
        if kind == "nodes":
            names = map(self.graph.name_of, self.node_ids.tolist())
            return dict(zip(names, self.node_values.tolist(), strict=True))
        if kind != "edges":
            raise InputError(f"to_dict({kind!r}): expected 'nodes' or 'edges'.")
        return dict(zip(self.edges.names(self.graph), self.edges.values.tolist(), strict=True))

    def top(
        self, n: int, *, edges: int | None = None, signed: bool = False, prune: bool | None = None
    ) -> FeatureCircuit:
        """The circuit of the ``n`` strongest nodes, with the edges between them.

        Args:
            edges: keep only so many edges, the strongest, and then by default drop what dangles.
            signed: most damaging (most negative) first instead of by absolute value; edges by absolute value all the same.
            prune: drop nodes that no longer lie on a path to the logits; by default where ``edges`` is given.
        """
        check_count("top", n)
        ranking = self._ranking(signed)
        chosen = ranking.argsort(descending=True, stable=True)[:n].sort().values
        between = self._between(self.node_ids[chosen])
        if edges is not None:
            check_count("top(edges=...)", edges)
            values = self.edges.values.abs()
            between = between[values[between].argsort(descending=True, stable=True)[:edges].sort().values]
        return self._circuit(
            chosen, between, edges is not None if prune is None else prune, rule="top", n=n, edges=edges, signed=signed
        )

    def threshold(
        self, *, nodes: float, edges: float | None = None, signed: bool = False, prune: bool | None = None
    ) -> FeatureCircuit:
        """The circuit of all nodes with |score| > ``nodes``, and of the edges between them with |score| > ``edges``.

        Args:
            signed: nodes with score < -``nodes`` only.
            prune: drop nodes that do not lie on a path to the logits; by default where ``edges`` is given.
        """
        for name, value in (("nodes", nodes), ("edges", edges)):
            if value is not None and not value >= 0:
                raise InputError(f"threshold({name}={value!r}): expected a number of at least 0.")
        chosen = (self._ranking(signed) > nodes).nonzero()[:, 0]
        between = self._between(self.node_ids[chosen])
        if edges is not None:
            between = between[self.edges.values[between].abs() > edges]
        return self._circuit(
            chosen,
            between,
            edges is not None if prune is None else prune,
            rule="threshold",
            nodes=nodes,
            edges=edges,
            signed=signed,
        )

    def cumulative(self, nodes: float = 0.8, edges: float = 0.98) -> FeatureCircuit:
        """The fewest nodes that carry a share of all influence on the logits, and the fewest edges between them likewise.

        A node's influence is the sum over all paths to the logits of the products of its edges' shares, an edge's share
        being its |score| among all edges into the same node (the pruning of Ameisen et al. 2025, "Circuit tracing").

        Args:
            nodes, edges: shares in (0, 1].

        Raises:
            InputError: if edges were not asked for, or a share lies outside (0, 1].
        """
        for name, value in (("nodes", nodes), ("edges", edges)):
            if not 0 < value <= 1:
                raise InputError(f"cumulative({name}={value!r}): expected a share above 0 and at most 1.")
        kept, between = influential(self.graph, self.edges, nodes, edges)
        # a node that has edges can have a score of exactly 0, and is then not stored
        chosen = torch.isin(self.node_ids, kept).nonzero()[:, 0]
        return self._circuit(chosen, between, True, rule="cumulative", nodes=nodes, edges=edges)

    def compare(
        self, other: FeatureScores, *, kind: str = "nodes", draws: int = 500, labels: Sequence[str] | None = None
    ) -> Comparison:
        """How far these scores agree with another method's of the same graph; see :meth:`Scores.compare`.

        Over the parts to which either gives a score; one that the other leaves out counts as 0 there.

        Args:
            kind: "nodes" or "edges". Edges have no scores per example, and so no intervals.

        Raises:
            InputError: for scores of another graph, of another kind, or that are not finite.
        """
        return compare_feature_scores(self, other, kind, draws, labels)

    def of_examples(self, nodes: Tensor) -> Tensor | None:
        """The scores of some nodes for every example, ``[examples, nodes]``; None if they were not kept.

        Args:
            nodes: their numbers in the graph, each once.
        """
        if self.per_example is None:
            return None
        examples, ids, values = self.per_example
        out = torch.zeros(len(self.clean), len(nodes))
        if len(nodes):
            order = nodes.argsort()
            at = torch.searchsorted(nodes[order], ids).clamp(max=len(nodes) - 1)
            there = nodes[order][at] == ids
            out[examples[there], order[at[there]]] = values[there].float()
        return out

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """The strongest features as bars, by prompts or by positions; see
        :func:`sparse_circuits.view.plots.feature_scores.plot_feature_scores`.
        """
        from sparse_circuits.view.plots.feature_scores import plot_feature_scores

        return plot_feature_scores(self, path, **options)

    def explore(self, path: str | Path | None = None, **options: Any) -> Any:
        """A page to explore it in; see :func:`sparse_circuits.view.explorer.explore`."""
        from sparse_circuits.view.explorer import explore

        return explore(self, path, **options)

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically."""
        tensors = {"nodes": self.node_ids, "values": self.node_values, "clean": self.clean}
        if self.corrupted is not None:
            tensors["corrupted"] = self.corrupted
        if self.edge_list is not None:
            edges = self.edge_list
            tensors |= {"sources": edges.sources, "targets": edges.targets, "edge_values": edges.values}
        if self.per_example is not None:
            tensors |= dict(zip(("example_rows", "example_nodes", "example_values"), self.per_example, strict=True))
        header = {
            "graph": pack_graph(self.graph),
            "provenance": self.provenance,
            "signed": self.signed,
            "passes": list(self.passes),
            "convergence": self.convergence,
        }
        return write(Path(path), "feature_scores", header, tensors)

    @classmethod
    def load(cls, path: str | Path, dictionaries: Mapping[str, Any] | None = None) -> FeatureScores:
        """
        Raises:
            FileFormatError: for a file that is damaged or holds something else. InputError: for other dictionaries.
        """
        header, tensors = read(Path(path), "feature_scores")
        graph = unpack_graph(Path(path), header["graph"])
        names, examples = ("sources", "targets", "edge_values"), ("example_rows", "example_nodes", "example_values")
        lacking = [name for group in (names, examples) if group[0] in tensors for name in group if name not in tensors]
        lacking += [name for name in ("signed", "passes", "convergence") if name not in header]
        if lacking:
            raise FileFormatError(f"{path} lacks {', '.join(lacking)}; the file is damaged.")
        edges = EdgeList(*(tensors[name] for name in names)) if names[0] in tensors else None
        check_read(Path(path), graph, tensors["nodes"], tensors["values"], edges)
        return cls(
            graph if dictionaries is None else graph.with_dictionaries(dictionaries),
            tensors["nodes"],
            tensors["values"],
            edges,
            tensors["clean"],
            tensors.get("corrupted"),
            header["signed"],
            tuple(header["passes"]),
            tuple(tensors[name] for name in examples) if examples[0] in tensors else None,  # pyright: ignore[reportArgumentType]
            {site: tuple(pair) for site, pair in header["convergence"].items()},
            header["provenance"],
        )

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_feature_scores

        return of_feature_scores(self)

    def _ranking(self, signed: bool) -> Tensor:
        if signed and not self.signed:
            method = self.provenance.get("method", "this method")
            raise InputError(f"The scores of {method} carry no sign, so signed=True cannot rank them; leave it out.")
        if not torch.isfinite(self.node_values).all():
            raise InputError(
                "The scores are not finite, so nodes cannot be ranked; check the model's outputs and the metric."
            )
        return strength(self.node_values, signed)

    def _between(self, nodes: Tensor) -> Tensor:
        """Which edges run between some nodes, or from them into the logits."""
        if self.edge_list is None:
            return torch.empty(0, dtype=torch.int64)
        ends = torch.cat([nodes, torch.tensor([self.graph.logits])])
        inside = torch.isin(self.edge_list.sources, nodes) & torch.isin(self.edge_list.targets, ends)
        return inside.nonzero()[:, 0]

    def _circuit(self, chosen: Tensor, between: Tensor, prune: bool, **selection: Any) -> FeatureCircuit:
        edges = EdgeList.empty() if self.edge_list is None else self.edge_list[between]
        if prune and self.edge_list is None:
            raise InputError("Nothing can be pruned without edges; ask for them with attribute(..., nodes_above=0.1).")
        provenance = {**self.provenance, "selection": {**selection, "prune": prune}}
        circuit = FeatureCircuit(self.graph, self.node_ids[chosen], self.node_values[chosen], edges, provenance)
        return circuit.pruned() if prune else circuit

    def __repr__(self) -> str:
        from sparse_circuits.view.naming import made_of

        edges = "" if self.edge_list is None else f", {len(self.edge_list):,} edges"
        of = f"{len(self.node_ids):,} of {self.graph.size:,} nodes{edges}"
        return f"FeatureScores({of}{made_of(self.provenance)})"


def check_count(what: str, n: Any) -> None:
    """
    Raises:
        InputError: for anything but a whole number of at least 0.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise InputError(f"{what}: {n!r} is no number of parts; expected a whole number of at least 0.")
