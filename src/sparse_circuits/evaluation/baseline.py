"""Random circuits to compare with: of the same size, and no worse connected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.circuit.select import growth, marked
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.bootstrap import interval, median
from sparse_circuits.evaluation.evaluate import evaluate_many
from sparse_circuits.evaluation.feature_baseline import active_features, random_features
from sparse_circuits.evaluation.feature_evaluate import with_dictionaries
from sparse_circuits.evaluation.feature_run import Errors
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.graph import Graph
from sparse_circuits.model import anatomy_of
from sparse_circuits.task.task import Task


@dataclass(frozen=True, eq=False)
class Baseline:
    """Random circuits as large as a given one, evaluated as it was.

    Attributes:
        size: edges (nodes, units) of the circuit compared with.
        evaluations: one per random circuit; each circuit's own size stands in it.
    """

    size: int
    evaluations: tuple[Evaluation, ...]

    @property
    def n_edges(self) -> int:
        """The size, at the level of edges."""
        return self.size

    @property
    def faithfulness(self) -> Tensor:
        """Of each random circuit: ``[draws]``."""
        return torch.tensor([e.faithfulness for e in self.evaluations])

    @property
    def median(self) -> float:
        """Of the draws' faithfulness."""
        return median(self.faithfulness)

    @property
    def interval(self) -> tuple[float, float]:
        """The central 95% of the draws."""
        return interval(self.faithfulness)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """A histogram of the random circuits; see :func:`sparse_circuits.view.plots.others.plot_baseline`."""
        from sparse_circuits.view.plots.others import plot_baseline

        return plot_baseline(self, path, **options)

    def _repr_html_(self) -> str:
        from sparse_circuits.view.display import of_baseline

        return of_baseline(self)

    def __repr__(self) -> str:
        low, high = self.interval
        things = f"{self.evaluations[0].circuit.graph.thing}s" if self.evaluations else "edges"
        draws = f"{len(self.evaluations)} random circuits of {self.size} {things}"
        return f"Baseline({draws}: {self.median:.3f} [{low:.3f}, {high:.3f}])"


def random_baseline(
    model: Any,
    circuit: Circuit | FeatureCircuit,
    task: Task,
    *,
    ablation: Ablation = Ablation.PATCH,
    dictionaries: Mapping[str, Any] | None = None,
    errors: Errors = "nodes",
    start_layer: int = 0,
    draws: int = 20,
    seed: int = 0,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Baseline:
    """Evaluate random circuits as large as ``circuit``: with as many edges after what dangles is removed, or as many units.

    Circuits of edges grow from the logits greedily on random scores, so they are connected: a random choice of edges would
    fall apart into nothing when pruned, and anything beats nothing. For the same reason circuits of nodes or units hold
    what ``circuit`` holds of the input, without which all other nodes see ablated prompts only; the rest of them is drawn
    from the rest of the graph, each as likely as any other. Circuits of features hold as many features per site, drawn from
    those that are active in the task's clean or ablated runs, and the circuit's own error terms and whole nodes.

    ``dictionaries``, ``errors`` and ``start_layer`` are for feature circuits, as in :func:`evaluate`.

    Raises:
        InputError: for fewer than 20 draws, too few for an interval.
    """
    if draws < 20:
        raise InputError(f"random_baseline(draws={draws}): expected at least 20.")
    generator = torch.Generator().manual_seed(seed)
    if isinstance(circuit, FeatureCircuit):
        circuit = with_dictionaries(model, circuit, dictionaries)
        active = active_features(model, anatomy_of(model), circuit, task, ablation, batch_size)
        randoms = [random_features(circuit, active, generator) for _ in range(draws)]
        results = evaluate_many(
            model,
            randoms,
            task,
            ablation=ablation,
            errors=errors,
            start_layer=start_layer,
            batch_size=batch_size,
            progress=progress,
        )
        return Baseline(circuit.size, tuple(results))
    draw = _like_edges if circuit.graph.level == "edges" else _like_units
    circuits = [draw(circuit, generator) for _ in range(draws)]
    results = evaluate_many(model, circuits, task, ablation=ablation, batch_size=batch_size, progress=progress)
    return Baseline(circuit.size, tuple(results))


def _like_edges(circuit: Circuit, generator: torch.Generator) -> Circuit:
    return random_circuit(circuit.graph, circuit.size, generator)


def _like_units(circuit: Circuit, generator: torch.Generator) -> Circuit:
    graph = circuit.graph
    n_input = graph.units_of_input * graph.n_positions
    mask = circuit.mask.clone()
    mask[n_input:] = False
    rest = torch.randperm(mask.numel() - n_input, generator=generator)[: circuit.size - int(mask.sum())]
    mask[n_input + rest] = True
    return Circuit(graph, mask, None, {"task": "random", "n": circuit.size})


def random_circuit(graph: Graph, n_edges: int, generator: torch.Generator) -> Circuit:
    """A connected random circuit of ``n_edges`` edges, or as near as its connections allow (some sizes cannot be reached:
    no connected circuit of this graph need have exactly two edges, say).
    """
    ranking = torch.rand(graph.shape, generator=generator)
    growing, order, enough = growth(graph, ranking), [], n_edges
    while True:  # what is taken by then, pruned, is large enough, or it is everything
        order += islice(growing, enough - len(order))
        if len(order) < enough or int(graph.prune(marked(graph, order)).sum()) >= n_edges:
            break
        enough *= 2
    low, high = min(n_edges, len(order)), len(order)  # the smallest request whose pruned circuit is large enough
    while low < high:
        middle = (low + high) // 2
        if int(graph.prune(marked(graph, order[:middle])).sum()) >= n_edges:
            high = middle
        else:
            low = middle + 1
    mask = graph.prune(marked(graph, order[:low]))
    return Circuit(graph, _trim(graph, mask, ranking, n_edges), None, {"task": "random", "n": n_edges})


def _trim(graph: Graph, mask: Tensor, ranking: Tensor, n_edges: int) -> Tensor:
    """Take edges away, lowest ranked first, as long as what remains after pruning is large enough."""
    while int(mask.sum()) > n_edges:
        u, v = mask.nonzero(as_tuple=True)
        for i in ranking[u, v].argsort().tolist():
            smaller = mask.clone()
            smaller[u[i], v[i]] = False
            smaller = graph.prune(smaller)
            if int(smaller.sum()) >= n_edges:
                mask = smaller
                break
        else:
            return mask
    return mask
