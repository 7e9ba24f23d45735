"""What attribution returns: a score for every edge (or node, or unit), and how far to believe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.comparison import Comparison, compare_scores
from sparse_circuits.circuit.feature_scores import FeatureScores
from sparse_circuits.circuit.files import kind_of, pack_scores, read, unpack_components, write
from sparse_circuits.circuit.select import greedy, strength, top
from sparse_circuits.circuit.stability import Stability
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph


@dataclass(frozen=True, eq=False)
class Scores:
    """A score for everything in a graph, averaged over examples, in units of the metric.

    Attributes:
        graph: the graph.
        values: float32, of the graph's shape, 0 where there is no edge.
        clean, corrupted: the metric per example, ``[examples]``, of the clean run and, under PATCH, of the corrupted run.
        signed: whether scores estimate a signed indirect effect, so that the most damaging come first under ``signed=True``.
        passes: forward and backward passes per batch.
        per_example: the scores of every example, ``[examples, graph.size]`` in the order of ``graph.names``, where asked for.
        chosen: bool, of the graph's shape: what a method that selects by itself chose, or None.
        provenance: model, task, method and so on, as saved with it.
    """

    graph: Graph
    values: Tensor
    clean: Tensor
    corrupted: Tensor | None
    signed: bool = True
    passes: tuple[float, float] = (0, 0)
    per_example: Tensor | None = None
    chosen: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def convergence_gap(self) -> float | None:
        """Sum of the scores of the edges that leave the input, minus m(corrupted) - m(clean): 0 for an exact path integral.

        None where no corrupted run was made, or the scores are not signed. It means something for path integrals along the
        inputs under the plain backward rule, ``EAPIG()`` above all; other methods promise no such sum.
        """
        if self.corrupted is None or not self.signed:
            return None
        of_input = self.graph.n_positions * (1 if self.graph.level == "edges" else self.graph.units_of_input)
        return float(self.values[:of_input].sum()) - float((self.corrupted - self.clean).mean())

    @property
    def selected(self) -> Circuit:
        """The circuit that the method selected by itself, less what dangles (ACDC, edge pruning).

        Raises:
            InputError: if the method only scores.
        """
        if self.chosen is None:
            method = self.provenance.get("method", "This method")
            raise InputError(f"{method} only scores; choose with .top(n), .greedy(n), .threshold(x) or .stable(n).")
        return self._circuit(self.chosen, rule="method")

    def stability(self, n: int, *, signed: bool = False, draws: int = 1000, seed: int = 0) -> Stability:
        """How far scores hold up over resampled examples; see :class:`Stability`.

        Args:
            n: how many are chosen in each resample.

        Raises:
            InputError: if the scores were not kept per example.
        """
        return Stability.of(self, self._ranking(n, signed), n, signed, draws, seed)

    def stable(
        self, n: int, *, confidence: float = 0.95, signed: bool = False, draws: int = 1000, seed: int = 0
    ) -> Circuit:
        """The circuit of those among the ``n`` strongest whose rank and sign hold up over resampled examples, less what
        dangles: in at least ``confidence`` of the resamples they are among the ``n`` strongest and have the same sign.

        Raises:
            InputError: if the scores were not kept per example, or for a confidence outside (0, 1].
        """
        if not 0 < confidence <= 1:
            raise InputError(f"stable(confidence={confidence!r}): expected a share above 0 and at most 1.")
        stability = self.stability(n, signed=signed, draws=draws, seed=seed)
        return self._circuit(
            stability.holds(confidence),
            rule="stable",
            n=n,
            signed=signed,
            confidence=confidence,
            draws=draws,
            seed=seed,
        )

    def to_dict(self) -> dict[str, float]:
        """Every score by name, ``{"input->a0.h0<q>": -0.12, ...}``, at other levels ``{"a0.h0": ...}``, ``{"m0.n17": ...}``."""
        values = self.values[self.graph.mask].tolist()
        return dict(zip(self.graph.names_of(self.graph.mask), values, strict=True))

    def top(self, n: int, *, signed: bool = False) -> Circuit:
        """The circuit of the ``n`` strongest edges, less what dangles.

        Args:
            n: edges chosen; the circuit's ``n_edges`` is what remains after dangling parts are removed.
            signed: rank most damaging (most negative) first instead of by absolute value.
        """
        ranking = self._ranking(n, signed)
        return self._circuit(top(self.graph, ranking, n), rule="top", n=n, signed=signed)

    def greedy(self, n: int, *, signed: bool = False) -> Circuit:
        """The circuit grown from the logits, less what dangles: ``n`` times the strongest edge into a node already in."""
        ranking = self._ranking(n, signed)
        return self._circuit(greedy(self.graph, ranking, n), rule="greedy", n=n, signed=signed)

    def threshold(self, threshold: float, *, signed: bool = False) -> Circuit:
        """The circuit of all edges with |score| >= threshold (``signed``: score <= -threshold), less what dangles."""
        if not threshold >= 0:
            raise InputError(f"threshold({threshold!r}): expected a number of at least 0.")
        ranking = self._ranking(0, signed)
        return self._circuit(
            self.graph.mask & (ranking >= threshold), rule="threshold", threshold=threshold, signed=signed
        )

    def compare(self, other: Scores, *, draws: int = 500, labels: Sequence[str] | None = None) -> Comparison:
        """How far these scores agree with another method's of the same graph, such as ``Exact()``: correlations over all.

        Where one of the methods' scores carry no sign, sizes are compared. Intervals are from examples that are resampled alike
        in both; a method whose scores were not kept per example stays as it is.

        >>> sc.attribute(model, graph, task, sc.EAPIG()).compare(exact).plot()

        Args:
            draws: bootstrap resamples.
            labels: what these scores are called, and the others; by default what sets them apart: method, ablation, task...

        Raises:
            InputError: for scores of another graph or kind, or that are not finite, or for labels that are not two names.
        """
        return compare_scores(self, other, draws, labels)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Heads by layers, nodes by positions, or bars of the strongest; see
        :func:`sparse_circuits.view.plots.scores.plot_scores`.
        """
        from sparse_circuits.view.plots.scores import plot_scores

        return plot_scores(self, path, **options)

    def explore(self, path: str | Path | None = None, **options: Any) -> Any:
        """A page to explore it in; see :func:`sparse_circuits.view.explorer.explore`."""
        from sparse_circuits.view.explorer import explore

        return explore(self, path, **options)

    def save(self, path: str | Path) -> Path:
        """Save as one safetensors file, metadata as JSON in its header. Written atomically."""
        return write(Path(path), "scores", *pack_scores(self))

    def to_eap_ig(self, path: str | Path, *, d_model: int | None = None, negate: bool = False) -> Path:
        """Write all scores as EAP-IG's JSON or ``.pt``; see :func:`sparse_circuits.circuit.formats.eap_ig.write_eap_ig`."""
        from sparse_circuits.circuit.formats.eap_ig import write_eap_ig

        return write_eap_ig(path, self, d_model=d_model, negate=negate)

    @classmethod
    def from_eap_ig(cls, path: str | Path, graph: Graph | None = None, *, negate: bool = False) -> Scores:
        """All scores in EAP-IG's JSON or ``.pt``, with no metric of any example: ``clean`` is empty.

        Args:
            graph: the graph that they must be of; by default any, at the level that the file is of.
            negate: turn the signs around; see :mod:`sparse_circuits.circuit.formats.eap_ig`.

        Raises:
            InputError: if there is no such file, or it is of another graph. FileFormatError: if it is not such a file.
        """
        from sparse_circuits.circuit.formats.eap_ig import read_eap_ig

        found, _, values, about = read_eap_ig(path, graph, negate=negate)
        values = torch.zeros(found.shape) if values is None else values
        return cls(found, values, torch.empty(0), None, signed=about.get("signed", True), provenance=about)

    @classmethod
    def load(cls, path: str | Path, dictionaries: Mapping[str, Any] | None = None) -> Scores | FeatureScores:
        """Scores from a file; :class:`FeatureScores` where it holds them.

        Raises:
            FileFormatError: for a file that is damaged or holds something else.
        """
        if kind_of(Path(path)) == "feature_scores":
            return FeatureScores.load(path, dictionaries)
        header, tensors = read(Path(path), "scores")
        return cls(
            graph=unpack_components(Path(path), header["graph"]),
            values=tensors["values"],
            clean=tensors["clean"],
            corrupted=tensors.get("corrupted"),
            signed=header["signed"],
            passes=tuple(header["passes"]),
            per_example=tensors.get("per_example"),
            chosen=tensors.get("chosen"),
            provenance=header["provenance"],
        )

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_scores

        return of_scores(self)

    def __repr__(self) -> str:
        from sparse_circuits.view.naming import made_of

        of = f"{self.graph.size:,} {self.graph.thing}s, {len(self.clean)} examples"
        return f"Scores({of}{made_of(self.provenance)})"

    def _ranking(self, n: int, signed: bool) -> Tensor:
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise InputError(f"Number of {self.graph.thing}s {n!r}: expected a whole number of at least 0.")
        if n > self.graph.size:
            raise InputError(f"{n} {self.graph.thing}s were asked for, but the graph has {self.graph.size}.")
        if signed and not self.signed:
            method = self.provenance.get("method", "this method")
            raise InputError(f"The scores of {method} carry no sign, so signed=True cannot rank them; leave it out.")
        if not torch.isfinite(self.values).all():
            raise InputError(
                "The scores are not finite, so edges cannot be ranked; check the model's outputs and the metric."
            )
        return strength(self.values, signed)

    def _circuit(self, edges: Tensor, **selection: Any) -> Circuit:
        pruned = self.graph.prune(edges)
        return Circuit(self.graph, pruned, self.values * pruned, {**self.provenance, "selection": selection})
