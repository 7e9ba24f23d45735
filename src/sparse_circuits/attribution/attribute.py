"""The one entry point of attribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, overload

from sparse_circuits.attribution.ablation import Ablation, prepare
from sparse_circuits.attribution.batch_size import check_batch_size, with_batch_size
from sparse_circuits.attribution.eap import EAP
from sparse_circuits.attribution.feature.attribute import attribute_features
from sparse_circuits.attribution.method import Method, Problem, Raw
from sparse_circuits.circuit import FeatureScores, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph, Graph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.autograd import check_gradients
from sparse_circuits.progress import tracker
from sparse_circuits.provenance import provenance
from sparse_circuits.task.task import Task, check_task


@overload
def attribute(
    model: Any,
    graph: Graph,
    task: Task,
    method: Method | None = None,
    *,
    ablation: Ablation = Ablation.PATCH,
    positions: Literal["sum", "keep", "spans"] = "sum",
    per_example: bool = False,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Scores: ...


@overload
def attribute(
    model: Any,
    graph: FeatureGraph,
    task: Task,
    method: Method | None = None,
    *,
    ablation: Ablation = Ablation.PATCH,
    positions: Literal["sum", "keep", "spans"] = "sum",
    nodes_above: float | None = None,
    per_example: bool = False,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> FeatureScores: ...


def attribute(
    model: Any,
    graph: Graph | FeatureGraph,
    task: Task,
    method: Method | None = None,
    *,
    ablation: Ablation = Ablation.PATCH,
    positions: Literal["sum", "keep", "spans"] = "sum",
    nodes_above: float | None = None,
    per_example: bool = False,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Scores | FeatureScores:
    """Score everything in a graph: an estimate of its indirect effect m(clean, do(edge = ablated)) - m(clean).

    What carries the behaviour scores negative. Scores are averages over examples, in units of the metric, and
    do not depend on ``batch_size``.

    Of a feature graph, nodes are scored: a feature's effect is (z' - z) <g, d_f> at every token, g the gradient at its site
    that the method averages, the error term's <e' - e, g>. With ``nodes_above`` edges are found too: u -> d is
    (u' - u) dm/dd dd/du over paths that cross no other site (Marks et al. 2024, arXiv:2403.19647).

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``; left as it is.
        graph: ``Graph.of(model)``.
        task: prompts and metric.
        method: :class:`EAP` (default), :class:`EAPIG`, :class:`CleanCorrupted`, :class:`Exact`...
        ablation: what an ablated source is replaced by.
        positions: "sum" over positions; "keep" them apart, counted from the left; or group them by the task's named
            "spans". The result's graph then has these positions; see :class:`Graph` for what an edge between them means.
        nodes_above: of a feature graph, the size of a node's effect, per example and position, above which edges into it
            are found too; None for no edges.
        per_example: keep the scores of every example, which :meth:`Scores.stability` needs.
        batch_size: examples at a time; "auto" for as many as fit, and fewer where memory runs out.
        progress: show a progress bar.

    Raises:
        InputError: before any pass is made: a graph of another model, missing corrupted prompts, rows that do not
            tokenise, a metric that the method cannot use, gradients under ``torch.inference_mode()``.
        UnsupportedModelError: for a model that the library cannot be right about.
    """
    method = EAP() if method is None else method
    if not isinstance(method, Method):
        raise InputError(f"attribute(method={method!r}): expected a method such as EAP() or EAPIG(steps=5).")
    if not isinstance(ablation, Ablation):
        raise InputError(
            f"attribute(ablation={ablation!r}): expected one of Ablation.PATCH, ZERO, MEAN, MEAN_POSITIONAL."
        )
    if positions not in ("sum", "keep", "spans"):
        raise InputError(f"attribute(positions={positions!r}): expected 'sum', 'keep' or 'spans'.")
    check_task("attribute", task)
    check_batch_size(batch_size)
    if method.takes_gradients:
        check_gradients(type(method).__name__)
    anatomy = anatomy_of(model)
    if not isinstance(graph, Graph | FeatureGraph):
        raise InputError(f"attribute(graph={graph!r}): expected a Graph; make one with Graph.of(model).")
    graph.check(anatomy)
    if graph.positions:
        raise InputError("attribute(graph=...): expected a graph without positions; pass attribute(positions=...).")
    if isinstance(graph, Graph) and graph.level not in method.levels:
        raise InputError(
            f"{type(method).__name__} scores {' and '.join(method.levels)}, not {graph.level}; pass Graph.of(model, "
            f"level={method.levels[0]!r}), or another method."
        )
    if method.only_clean_gradient and getattr(task.metric, "flat_at_clean", False):
        raise InputError(
            f"{type(method).__name__} takes its only gradient at the clean run, where {type(task.metric).__name__} has gradient "
            "zero: every score would be 0. Use EAPIG, CleanCorrupted or Exact, or another metric."
        )
    if positions != "sum" and not method.tells_positions:
        raise InputError(f"{type(method).__name__} does not tell positions apart; leave positions={positions!r} out.")
    if not method.needs_ablation:
        ablation = Ablation.ZERO
    if isinstance(graph, FeatureGraph):
        return attribute_features(
            model,
            anatomy,
            graph,
            task,
            method,
            ablation=ablation,
            positions=positions,
            per_example=per_example,
            batch_size=batch_size,
            progress=progress,
            nodes_above=nodes_above,
        )
    if nodes_above is not None:
        raise InputError(
            "attribute(nodes_above=...) is for feature graphs; pass Graph.of(model, dictionaries), or leave it out."
        )
    prompts = task.tokenized(model, anatomy, corrupted=method.needs_corrupted or ablation.kind == "patch")
    kept = None if positions == "sum" else prompts.positions(positions)
    if kept is not None:
        causal = positions == "keep" and all(block.attention.causal for block in anatomy.blocks)
        graph = graph.at(kept.names, causal)

    def track(items: Iterator[Any], total: int) -> Iterator[Any]:
        return tracker(items, total, f"{type(method).__name__} on {task.name}", progress)

    def attempt(size: int) -> Raw:
        ablated = prepare(ablation, model, anatomy, task, prompts, size, units=graph.level == "neurons")
        return method.run(Problem(anatomy, graph, prompts, ablated, size, track, kept, per_example))

    raw = with_batch_size(attempt, batch_size, anatomy, prompts)
    return Scores(
        graph=graph,
        values=raw.total / len(prompts),
        clean=raw.clean,
        corrupted=raw.corrupted,
        signed=method.signed,
        passes=(raw.forwards, raw.backwards),
        per_example=raw.per_example,
        chosen=raw.selected,
        provenance=provenance(
            model,
            task,
            method=str(method),
            ablation=str(ablation) if method.needs_ablation else None,
            level=graph.level,
            positions=positions,
            signed=method.signed,
            n_examples=len(prompts),
            d_model=anatomy.d_model,
        ),
    )
