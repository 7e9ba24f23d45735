"""The entry points of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation, prepare
from sparse_circuits.attribution.attribute import check_batch_size
from sparse_circuits.circuit import Circuit
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.result import Evaluation
from sparse_circuits.evaluation.run import AblatedStreams, CircuitRunner
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.forward import run_sources
from sparse_circuits.progress import tracker
from sparse_circuits.task.measure import measure, with_clean_logits
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
    values = torch.empty(2 + len(to_run), len(prompts))  # clean, empty, then the circuits

    work = ((rows, batch, i) for rows, batch in prompts.batches(batch_size) for i in range(len(to_run)))
    n_batches = -(-len(prompts) // batch_size)
    metric = prompts.metric
    shared: tuple[Any, ...] = ()
    for rows, batch, i in tracker(work, n_batches * len(to_run), f"evaluating on {task.name}", progress):
        with torch.no_grad():
            if i == 0:
                embedding = anatomy.embed(batch.tokens)
                _, clean_final = run_sources(anatomy, embedding, batch.padding)
                with_logits = with_clean_logits(anatomy, metric, clean_final, batch)
                sources, _ = ablated(batch)
                streams = AblatedStreams.of(anatomy, sources, batch.tokens.shape[1])
                values[0, rows] = measure(anatomy, metric, clean_final, with_logits).cpu()
                empty = streams.final.expand_as(embedding)
                values[1, rows] = measure(anatomy, metric, empty, with_logits).cpu()
                shared = (with_logits, embedding, sources, streams)
            with_logits, embedding, sources, streams = shared
            final = runners[to_run[i].graph].final(to_run[i], embedding, batch.padding, sources, streams)
            values[2 + i, rows] = measure(anatomy, metric, final, with_logits).cpu()

    def result(i: int, circuit: Circuit) -> Evaluation:
        complement: Tensor | None = values[2 + len(circuits) + i] if completeness else None
        return Evaluation(circuit, values[2 + i], values[0], values[1], complement, str(ablation))

    return [result(i, circuit) for i, circuit in enumerate(circuits)]
