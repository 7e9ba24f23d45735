"""The entry points of evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablated, Ablation, prepare
from sparse_circuits.attribution.batch_size import check_batch_size, with_batch_size
from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.circuit.run import AblatedStreams, CircuitRunner
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.feature_evaluate import evaluate_features
from sparse_circuits.evaluation.feature_run import Errors, Policy
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Sources, run_sources
from sparse_circuits.progress import tracker
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits
from sparse_circuits.task.metrics import Metric
from sparse_circuits.task.task import Task, check_task


def evaluate(
    model: Any,
    circuit: Circuit | FeatureCircuit,
    task: Task,
    *,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    dictionaries: Mapping[str, Any] | None = None,
    errors: Errors = "nodes",
    start_layer: int = 0,
    batch_size: int | Literal["auto"] = 32,
) -> Evaluation:
    """Run the model with only a circuit: everything outside it takes its ablated value.

    - Edges: destination v reads sum_{u -> v in circuit} c_u + sum_{other u before v} c_u', with c_u as computed in this
      run; heads that share a post-norm are mixed before it. With positions, v at each position reads by its own edges, and
      keys and values by those of the query that they serve.
    - Features: at every site of the circuit's graph, features, error terms and whole nodes outside the circuit hold their
      ablated values. They are encoded again from the stream as ablated so far, y + sum_{f outside} (z'_f - z_f) d_f, so edges
      do not enter. Under ZERO a dictionary's bias stays.
    - Nodes, outputs and neurons: all destinations read the same stream, in which every node or unit outside the circuit
      holds its ablated value. At the level of neurons an MLP's output bias belongs to no unit and stays, also under ZERO.

    Args:
        circuit: of this model; its positions, if it has any, must be found in this task.
        ablation: what everything outside is replaced by.
        completeness: also run the complement (everything else, not pruned).
        dictionaries: of a feature circuit, those of its sites; by default what its graph refers to. Sites that are left out
            are not ablated.
        errors: of a feature circuit, whether error terms are "nodes" like all others, or all of them "keep" their values or
            are ablated ("remove").
        start_layer: of a feature circuit, leave all sites before this layer as they are; the embedding counts to layer 0.
        batch_size: examples at a time; "auto" for as many as fit.

    Cost: one clean forward pass, one corrupted under PATCH, and at most about one for the circuit: a head without
    edges costs nothing. Circuits of edges with positions cost more: keys, values and attention are computed once per
    position (or span) at which the circuit differs.

    Raises:
        InputError: before any pass is made: a circuit of another model, missing corrupted prompts, bad rows, a span that
            the task lacks.
    """
    return evaluate_many(
        model,
        [circuit],
        task,
        ablation=ablation,
        completeness=completeness,
        dictionaries=dictionaries,
        errors=errors,
        start_layer=start_layer,
        batch_size=batch_size,
    )[0]


def evaluate_many(
    model: Any,
    circuits: Sequence[Circuit | FeatureCircuit],
    task: Task,
    *,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    dictionaries: Mapping[str, Any] | None = None,
    errors: Errors = "nodes",
    start_layer: int = 0,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> list[Evaluation]:
    """:func:`evaluate` for a list of circuits, of one level or several, which share the clean and the ablated runs."""
    if not isinstance(ablation, Ablation):
        raise InputError(
            f"evaluate(ablation={ablation!r}): expected one of Ablation.PATCH, ZERO, MEAN, MEAN_POSITIONAL."
        )
    check_task("evaluate", task)
    check_batch_size(batch_size)
    kinds = set() if isinstance(circuits, Circuit | FeatureCircuit) else {type(c) for c in circuits}
    if isinstance(circuits, Circuit | FeatureCircuit) or not kinds <= {Circuit, FeatureCircuit} or len(kinds) > 1:
        raise InputError(
            "evaluate_many(circuits=...): expected a list of Circuit, or one of FeatureCircuit; for one circuit use evaluate."
        )
    if not circuits:
        return []
    anatomy, policy = anatomy_of(model), Policy(errors, start_layer)
    if kinds == {FeatureCircuit}:
        return evaluate_features(
            model,
            anatomy,
            cast("Sequence[FeatureCircuit]", circuits),
            task,
            ablation=ablation,
            completeness=completeness,
            dictionaries=dictionaries,
            policy=policy,
            batch_size=batch_size,
            progress=progress,
        )
    if dictionaries is not None or policy != Policy():
        raise InputError(
            "evaluate(dictionaries=..., errors=..., start_layer=...): these are for feature circuits; leave them out."
        )
    circuits = cast("Sequence[Circuit]", circuits)
    runners = {c.graph: CircuitRunner(anatomy, c.graph) for c in circuits}
    for graph in runners:
        graph.check(anatomy)
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    positions = {names: prompts.positions_named(names) for names in {graph.positions for graph in runners} if names}
    units = any(graph.level == "neurons" for graph in runners)
    to_run = [*circuits, *(c.complement() for c in circuits)] if completeness else list(circuits)

    def attempt(size: int) -> tuple[Tensor, Tensor, Tensor]:
        ablated = prepare(ablation, model, anatomy, task, prompts, size, units)
        clean, values, empty = torch.empty(len(prompts)), *torch.empty(2, len(to_run), len(prompts))

        def work() -> Iterator[tuple[Tensor, _Shared, int]]:
            for rows, batch in prompts.batches(size):
                groups = {names: of.of(rows, batch.tokens.shape[1]) for names, of in positions.items()}
                shared = _Shared.of(anatomy, prompts.metric, ablated, batch, groups)
                clean[rows] = shared.clean.cpu()
                yield from ((rows, shared, i) for i in range(len(to_run)))

        total = -(-len(prompts) // size) * len(to_run)
        for rows, shared, i in tracker(work(), total, f"evaluating on {task.name}", progress):
            of_none, of_circuit = shared.run(runners[to_run[i].graph], to_run[i])
            empty[i, rows], values[i, rows] = of_none.cpu(), of_circuit.cpu()
        return clean, values, empty

    clean, values, empty = with_batch_size(attempt, batch_size, anatomy, prompts)

    def result(i: int, circuit: Circuit) -> Evaluation:
        complement = values[len(circuits) + i] if completeness else None
        return Evaluation(circuit, values[i], clean, empty[i], complement, str(ablation))

    return [result(i, circuit) for i, circuit in enumerate(circuits)]


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all circuits have in common on a batch: its embedding, the ablated runs, and the metric at both ends.

    ``groups``: every token's position, by the names of the positions that graphs have. ``ends``: the ablated run and its
    metric, in which MLPs are ablated as a whole (False) or unit by unit (True).
    """

    anatomy: Anatomy
    metric: Metric
    batch: Batch
    embedding: Tensor
    ablated: Sources
    clean: Tensor
    groups: dict[tuple[str, ...], Tensor]
    ends: dict[bool, tuple[AblatedStreams, Tensor]]

    @classmethod
    @torch.no_grad()
    def of(
        cls, anatomy: Anatomy, metric: Metric, ablated: Ablated, batch: Batch, groups: dict[tuple[str, ...], Tensor]
    ) -> _Shared:
        embedding = anatomy.embed(batch.tokens)
        _, final = run_sources(anatomy, embedding, batch.padding)
        batch = with_clean_logits(anatomy, metric, final, batch)
        sources, _ = ablated(batch)
        return cls(anatomy, metric, batch, embedding, sources, measure(anatomy, metric, final, batch), groups, {})

    @torch.no_grad()
    def run(self, runner: CircuitRunner, circuit: Circuit) -> tuple[Tensor, Tensor]:
        """The metric per example without any of a circuit, and with only it."""
        streams, empty = self._end(runner)
        groups = self.groups.get(runner.graph.positions)
        final = runner.final(circuit, self.embedding, self.batch.padding, self.ablated, streams, groups)
        return empty, measure(self.anatomy, self.metric, final, self.batch)

    def _end(self, runner: CircuitRunner) -> tuple[AblatedStreams, Tensor]:
        by_unit = runner.graph.level == "neurons"
        if by_unit not in self.ends:
            streams = runner.streams(self.ablated, self.embedding.shape[1])
            final = streams.final.expand_as(self.embedding)
            self.ends[by_unit] = streams, measure(self.anatomy, self.metric, final, self.batch)
        return self.ends[by_unit]
