"""The entry points of evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablated, Ablation, prepare
from sparse_circuits.attribution.attribute import check_batch_size
from sparse_circuits.circuit import Circuit
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.evaluation.run import AblatedStreams, CircuitRunner
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Sources, run_sources
from sparse_circuits.progress import tracker
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import measure, with_clean_logits
from sparse_circuits.task.metrics import Metric
from sparse_circuits.task.task import Task


def evaluate(
    model: Any,
    circuit: Circuit,
    task: Task,
    *,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    batch_size: int = 32,
) -> Evaluation:
    """Run the model with only a circuit: everything outside it takes its ablated value.

    Destination v reads sum_{u -> v in circuit} c_u + sum_{other u before v} c_u', with c_u as computed in this run.

    Args:
        ablation: what everything outside is replaced by.
        completeness: also run the complement (all other edges, not pruned).

    Cost: one clean forward pass, one corrupted under PATCH, and at most about one for the circuit: a head without
    edges costs nothing.

    Raises:
        InputError: before any pass is made: a circuit of another model, missing corrupted prompts, bad rows.
    """
    return evaluate_many(model, [circuit], task, ablation=ablation, completeness=completeness, batch_size=batch_size)[0]


def evaluate_many(
    model: Any,
    circuits: Sequence[Circuit],
    task: Task,
    *,
    ablation: Ablation = Ablation.PATCH,
    completeness: bool = False,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Evaluation]:
    """:func:`evaluate` for a list of circuits, which share the clean and the ablated runs."""
    if not isinstance(ablation, Ablation):
        raise InputError(
            f"evaluate(ablation={ablation!r}): expected one of Ablation.PATCH, ZERO, MEAN, MEAN_POSITIONAL."
        )
    check_batch_size(batch_size)
    if isinstance(circuits, Circuit) or not all(isinstance(c, Circuit) for c in circuits):
        raise InputError("evaluate_many(circuits=...): expected a list of Circuit; for one circuit use evaluate.")
    if not circuits:
        return []
    anatomy = anatomy_of(model)
    for circuit in circuits:
        circuit.graph.check(anatomy)
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    ablated = prepare(ablation, model, anatomy, task, prompts, batch_size)
    to_run = [*circuits, *(c.complement() for c in circuits)] if completeness else list(circuits)
    runners = {c.graph: CircuitRunner(anatomy, c.graph) for c in circuits}
    clean, empty = torch.empty(2, len(prompts))
    values = torch.empty(len(to_run), len(prompts))

    def work() -> Iterator[tuple[Tensor, _Shared, int]]:
        for rows, batch in prompts.batches(batch_size):
            shared = _Shared.of(anatomy, prompts.metric, ablated, batch)
            clean[rows], empty[rows] = shared.clean.cpu(), shared.empty.cpu()
            yield from ((rows, shared, i) for i in range(len(to_run)))

    total = -(-len(prompts) // batch_size) * len(to_run)
    for rows, shared, i in tracker(work(), total, f"evaluating on {task.name}", progress):
        values[i, rows] = shared.run(runners[to_run[i].graph], to_run[i]).cpu()

    def result(i: int, circuit: Circuit) -> Evaluation:
        complement = values[len(circuits) + i] if completeness else None
        return Evaluation(circuit, values[i], clean, empty, complement, str(ablation))

    return [result(i, circuit) for i, circuit in enumerate(circuits)]


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all circuits have in common on a batch: its embedding, the ablated run, and the metric at both ends."""

    anatomy: Anatomy
    metric: Metric
    batch: Batch
    embedding: Tensor
    ablated: Sources
    streams: AblatedStreams
    clean: Tensor
    empty: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, anatomy: Anatomy, metric: Metric, ablated: Ablated, batch: Batch) -> _Shared:
        embedding = anatomy.embed(batch.tokens)
        _, final = run_sources(anatomy, embedding, batch.padding)
        batch = with_clean_logits(anatomy, metric, final, batch)
        sources, _ = ablated(batch)
        streams = AblatedStreams.of(anatomy, sources, batch.tokens.shape[1])
        clean = measure(anatomy, metric, final, batch)
        empty = measure(anatomy, metric, streams.final.expand_as(embedding), batch)
        return cls(anatomy, metric, batch, embedding, sources, streams, clean, empty)

    @torch.no_grad()
    def run(self, runner: CircuitRunner, circuit: Circuit) -> Tensor:
        """The metric per example with only this circuit."""
        final = runner.final(circuit, self.embedding, self.batch.padding, self.ablated, self.streams)
        return measure(self.anatomy, self.metric, final, self.batch)
