"""What a report is told, and what follows from it for several of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.task.shared import shared_prompts
from sparse_circuits.view.caption import percent
from sparse_circuits.view.explorer.data import scored
from sparse_circuits.view.report.markup import counted

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation
    from sparse_circuits.task import Task

_ABLATIONS = {
    "patch": "what it is on the corrupted prompt",
    "zero": "zero",
    "mean": "its mean over prompts",
    "mean_positional": "its mean over prompts at the same position",
}
_LEFT_OUT = 10  # parts that are listed


@dataclass(frozen=True, eq=False)
class Given:
    """Arguments of :func:`report`, checked; see there."""

    evaluation: Evaluation
    title: str
    name: str | None
    task: Task | None
    found_on: Task | None
    model: Any
    question: str | None
    corrupted: Tensor | None
    baseline: Baseline | None
    curve: Curve | None
    beside: Mapping[str, Curve]
    random: Sequence[Baseline]
    scores: Scores | FeatureScores | None
    policies: Mapping[str, Evaluation]
    meanings: Mapping[str, Mapping[str, Any]]
    looked_at: str | None
    missing: Mapping[str, str]
    explorer: str | None
    commands: Sequence[tuple[str, str]]
    recorded: Mapping[str, Any]
    described: int
    interactive: bool

    @property
    def circuit(self) -> Circuit | FeatureCircuit:
        return self.evaluation.circuit

    @property
    def known(self) -> dict[str, Any]:
        return self.circuit.provenance

    @property
    def own(self) -> str:
        """What the circuit's own method is called beside others."""
        name = self.name or str(self.known.get("method") or "this circuit").partition("(")[0]
        return f"{name} (this circuit)" if name in self.beside else name

    @property
    def of_features(self) -> bool:
        return isinstance(self.circuit, FeatureCircuit)

    @property
    def thing(self) -> str:
        return self.circuit.graph.thing

    @property
    def n(self) -> int:
        """Prompts of the evaluation."""
        return len(self.evaluation.per_example)

    @property
    def size(self) -> str:
        """How much of the graph the circuit is, and of features how many could have been chosen."""
        n, total = self.circuit.size, self.circuit.graph.size
        scored = f"; {len(self.scores.node_ids):,} have a score" if isinstance(self.scores, FeatureScores) else ""
        return f"{n:,} of {counted(total, self.thing)} ({percent(n, total)}{scored})"

    @property
    def ablated(self) -> str:
        """What stands in for a part that is left out, in words."""
        kind, _, over = self.evaluation.ablation.partition(" over ")
        return _ABLATIONS.get(kind, kind) + (f" (over {over})" if over else "")

    @cached_property
    def judged(self) -> bool:
        """Whether faithfulness is defined."""
        return self.evaluation.faithfulness == self.evaluation.faithfulness

    @property
    def unchanged(self) -> str:
        """Why it is not, where it is not, in words."""
        return f"replacing everything by {self.ablated} does not change the metric by more than chance"

    @cached_property
    def shared_prompts(self) -> int | None:
        """How many prompts of the evaluation the circuit was found on; None where that is not known."""
        if self.task is None:
            return None
        if self.found_on is not None:
            return shared_prompts(self.task, self.found_on)
        then = self.known.get("task_hash")
        return len(self.task) if then == self.task.hash else None

    @property
    def prompts(self) -> str:
        """The evaluation's prompts, and whether the circuit was found on them, in words."""
        shared = self.shared_prompts
        if shared is None:
            return counted(self.n, "prompt")
        if shared == 0:
            return f"{counted(self.n, 'prompt')} that {'was' if self.n == 1 else 'were'} not used to find it"
        if shared == self.n:
            return f"the {counted(self.n, 'prompt')} that it was found on"
        return f"{counted(self.n, 'prompt')}, {shared:,} of which it was found on"

    @property
    def signed(self) -> bool:
        """Whether a score's sign says something."""
        return self.known.get("signed", True) is not False

    @cached_property
    def parts(self) -> dict[str, float]:
        """Scores of the circuit's edges (nodes, units, features) by name, strongest first; nothing where it has none."""
        circuit = self.circuit
        return circuit.to_dict() if scored(circuit) else {}

    @cached_property
    def edges(self) -> dict[str, float]:
        """Scores of edges by name, strongest first; nothing at levels without them."""
        if isinstance(self.circuit, FeatureCircuit):
            return self.circuit.to_dict("edges")
        return self.parts if self.circuit.graph.level == "edges" else {}

    @cached_property
    def nodes(self) -> dict[str, float | None]:
        """See :func:`nodes_of`."""
        return nodes_of(self.circuit)

    @cached_property
    def told(self) -> list[str]:
        """Nodes of which everything is told: the strongest of those of which anything is known."""
        return [name for name in self.nodes if self.meaning(name)][: self.described]

    def meaning(self, node: str) -> Mapping[str, Any] | None:
        """What is known of a node."""
        return self.meanings.get(node.partition("@")[0])

    @cached_property
    def misfits(self) -> list[int]:
        """The evaluation's examples, those first on which the circuit is furthest from the model."""
        e = self.evaluation
        return (e.per_example - e.clean).abs().argsort(descending=True, stable=True).tolist()

    @cached_property
    def left_out(self) -> dict[str, float]:
        """The strongest of what is not in the circuit, with scores; nothing where scores are not known."""
        scores, circuit = self.scores, self.circuit
        if scores is None:
            return {}
        out = self._outside
        values = (scores.node_values if isinstance(scores, FeatureScores) else scores.values)[out]
        order = values.abs().argsort(descending=True, stable=True)[:_LEFT_OUT]
        if isinstance(scores, FeatureScores):
            names = [circuit.graph.name_of(node) for node in scores.node_ids[out][order].tolist()]  # pyright: ignore[reportAttributeAccessIssue]
        else:
            names = scores.graph.names_of(out, order)
        return dict(zip(names, values[order].tolist(), strict=True))

    @cached_property
    def left_out_share(self) -> float | None:
        """Share of the sum of all |scores| that is not in the circuit; None where scores are not known, or all 0."""
        if self.scores is None:
            return None
        values = self.scores.node_values if isinstance(self.scores, FeatureScores) else self.scores.values
        total = float(values.abs().sum())
        return float(values[self._outside].abs().sum()) / total if total else None

    @property
    def _outside(self) -> Tensor:
        scores, circuit = self.scores, self.circuit
        if isinstance(scores, FeatureScores) and isinstance(circuit, FeatureCircuit):
            return ~torch.isin(scores.node_ids, circuit.node_ids)
        if isinstance(scores, Scores) and isinstance(circuit, Circuit):
            return scores.graph.mask & ~circuit.mask
        raise InputError("report(scores=...): these are not of the circuit's graph.")


def nodes_of(circuit: Circuit | FeatureCircuit) -> dict[str, float | None]:
    """A circuit's nodes (at the level of neurons its units) without their positions, strongest first, with scores.

    At the level of edges a node's score is the sum of those of its edges in the circuit that leave it; otherwise it is its
    own, or the sum of its units'; summed over positions.
    """
    names = circuit.names if circuit.graph.level in ("features", "neurons") else circuit.nodes
    bare = dict.fromkeys(name.partition("@")[0] for name in names if not name.startswith("logits"))
    if not scored(circuit):
        return dict.fromkeys(bare)
    sums = dict.fromkeys(bare, 0.0)
    for name, score in circuit.to_dict().items():
        node = name.partition("->")[0].partition("@")[0]
        if node not in sums:  # a unit of a node
            node = node.rpartition(".")[0]
        sums[node] = sums.get(node, 0.0) + score
    return {node: sums[node] for node in sorted(sums, key=lambda node: -abs(sums[node]))}
