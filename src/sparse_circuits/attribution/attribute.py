"""The one entry point of attribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sparse_circuits.attribution.ablation import Ablation, prepare
from sparse_circuits.attribution.eap import EAP
from sparse_circuits.attribution.method import Method, Problem
from sparse_circuits.circuit import Scores
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph
from sparse_circuits.model import anatomy_of
from sparse_circuits.progress import tracker
from sparse_circuits.provenance import provenance
from sparse_circuits.task.task import Task


def attribute(
    model: Any,
    graph: Graph,
    task: Task,
    method: Method | None = None,
    *,
    ablation: Ablation = Ablation.PATCH,
    batch_size: int = 32,
    progress: bool = False,
) -> Scores:
    """Score every edge of a graph: an estimate of its indirect effect m(clean, do(edge = ablated)) - m(clean).

    An edge that carries the behaviour scores negative. Scores are averages over examples, in units of the metric, and
    do not depend on ``batch_size``.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``; left as it is.
        graph: ``Graph.of(model)``.
        task: prompts and metric.
        method: :class:`EAP` (default), :class:`EAPIG`, :class:`CleanCorrupted`, :class:`Exact`...
        ablation: what an ablated source is replaced by.
        batch_size: examples at a time.
        progress: show a progress bar.

    Raises:
        InputError: before any pass is made: a graph of another model, missing corrupted prompts, rows that do not
            tokenise, a metric that the method cannot use.
        UnsupportedModelError: for a model that the library cannot be right about.
    """
    method = EAP() if method is None else method
    if not isinstance(method, Method):
        raise InputError(f"attribute(method={method!r}): expected a method such as EAP() or EAPIG(steps=5).")
    if not isinstance(ablation, Ablation):
        raise InputError(
            f"attribute(ablation={ablation!r}): expected one of Ablation.PATCH, ZERO, MEAN, MEAN_POSITIONAL."
        )
    check_batch_size(batch_size)
    anatomy = anatomy_of(model)
    if not isinstance(graph, Graph):
        raise InputError(f"attribute(graph={graph!r}): expected a Graph; make one with Graph.of(model).")
    graph.check(anatomy)
    if method.only_clean_gradient and getattr(task.metric, "flat_at_clean", False):
        raise InputError(
            f"{type(method).__name__} takes its only gradient at the clean run, where {type(task.metric).__name__} has gradient "
            "zero: every score would be 0. Use EAPIG, CleanCorrupted or Exact, or another metric."
        )
    prompts = task.tokenized(model, anatomy, corrupted=method.needs_corrupted or ablation.kind == "patch")
    ablated = prepare(ablation, model, anatomy, task, prompts, batch_size)

    def track(items: Iterator[Any], total: int) -> Iterator[Any]:
        return tracker(items, total, f"{type(method).__name__} on {task.name}", progress)

    raw = method.run(Problem(anatomy, graph, prompts, ablated, batch_size, track))
    return Scores(
        graph=graph,
        values=raw.total / len(prompts),
        clean=raw.clean,
        corrupted=raw.corrupted,
        signed=method.signed,
        passes=(raw.forwards, raw.backwards),
        provenance=provenance(
            model,
            task,
            method=str(method),
            ablation=str(ablation),
            signed=method.signed,
            n_examples=len(prompts),
            d_model=anatomy.d_model,
        ),
    )


def check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1.")
