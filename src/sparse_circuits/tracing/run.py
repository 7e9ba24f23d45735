"""The one entry point of tracing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import check_batch_size, with_batch_size
from sparse_circuits.attribution.feature.problem import FeatureProblem
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.autograd import check_gradients
from sparse_circuits.progress import tracker
from sparse_circuits.provenance import provenance
from sparse_circuits.task.task import Task, check_task
from sparse_circuits.tracing.by_ablation import ByAblation
from sparse_circuits.tracing.grow import check_extends, grown
from sparse_circuits.tracing.method import Found, Start, TracingMethod, features_of, split_places
from sparse_circuits.tracing.trace import Trace


def trace(
    model: Any,
    graph: FeatureGraph,
    task: Task,
    method: TracingMethod | None = None,
    *,
    at: str | None = None,
    features: Collection[str] | None = None,
    extend: Trace | str | Path | None = None,
    ablation: Ablation = Ablation.ZERO,
    positions: Literal["sum", "keep", "spans"] = "sum",
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Trace:
    """Trace a circuit of features through the sites of a graph: what each does to those that read it, and to the logits.

    >>> graph = sc.Graph.of(model, sc.load_dictionaries("toy", model, sites="resid"))
    >>> first = sc.trace(model, graph, task, sc.ByAblation(threshold=-3), at="resid_1")
    >>> second = sc.trace(model, graph, task, sc.ByAblation(threshold=-3), extend=first)    # at resid_2
    >>> sc.trace(model, graph, task, sc.ByGradient(top=5, bottom=5))

    By ablation a run goes through one site, and every further run extends the trace: by default at the next site, from the
    features that the earlier runs reached. By gradient a run goes through all sites. Nothing that an earlier run found is
    lost, and a run that is repeated adds nothing.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``; left as it is.
        graph: ``Graph.of(model, dictionaries)``; its sites are the slice. Whole sites and error terms are never ablated; as
            sites in between they are held like all others.
        task: prompts and metric. With ``CrossEntropy()`` it is plain text. Effects are averages over its examples: where
            prompts of two kinds cancel, trace each kind by itself, ``task[rows]``.
        method: :class:`ByAblation` (default) or :class:`ByGradient`.
        at: the site to start at. By ablation by default the first one, or the next with reached features where a trace is
            extended; by gradient the last one.
        features: names of the features to start from, at any sites.
        extend: an earlier trace, or its file: of the same model, task, graph, ablation, positions and form.
        ablation: what a feature's value becomes. Its error term is kept, so that under ZERO the activation loses exactly
            z_f d_f.
        positions: "sum": a feature is ablated at all tokens at once; "keep" and "spans": at each position, or span, on its
            own, and it is a node of its own there.
        batch_size: examples at a time; "auto" for as many as fit.
        progress: show a progress bar.

    Raises:
        InputError: before the long work: a graph without features or of another model, a feature or site that it does not
            have, a trace of something else, nothing to start from. A metric that is not finite, where that shows.
        UnsupportedModelError: for a model that the library cannot be right about.
    """
    method = ByAblation() if method is None else method
    if not isinstance(method, TracingMethod):
        raise InputError(f"trace(method={method!r}): expected ByAblation(...) or ByGradient(...).")
    if not isinstance(ablation, Ablation):
        raise InputError(f"trace(ablation={ablation!r}): expected one of Ablation.ZERO, PATCH, MEAN, MEAN_POSITIONAL.")
    check_task("trace", task)
    if positions not in ("sum", "keep", "spans"):
        raise InputError(f"trace(positions={positions!r}): expected 'sum', 'keep' or 'spans'.")
    check_batch_size(batch_size)
    if method.form == "gradient":
        check_gradients(type(method).__name__)
    anatomy = anatomy_of(model)
    _check_graph(graph)
    graph.check(anatomy)
    if method.only_clean_gradient and getattr(task.metric, "flat_at_clean", False):
        raise InputError(
            f"{method} takes its only gradient at the clean run, where {type(task.metric).__name__} has gradient zero: pass "
            "steps=10 or so, or trace by ablation."
        )
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    kept = None if positions == "sum" else prompts.positions(positions)
    graph = graph.at(() if kept is None else kept.names)
    about = provenance(
        model,
        task,
        method=str(method),
        form=method.form,
        ablation=str(ablation),
        ablation_prompts=_fingerprint(ablation),
        level=graph.level,
        positions=positions,
        signed=True,
        dictionaries={place.name: place.dictionary_id for place in graph.places},
        n_examples=len(prompts),
        d_model=anatomy.d_model,
    )
    earlier = Trace.load(extend) if isinstance(extend, str | Path) else extend
    if earlier is not None:
        check_extends(earlier, graph, about)
    start = Start(_site(graph, at), _pinned(graph, at, features), earlier, getattr(model, "tokenizer", None))

    def track(items: Iterator[Any], total: int) -> Iterator[Any]:
        return tracker(items, total, f"tracing {task.name}", progress)

    def attempt(size: int) -> Found:
        ablated = prepare_places(ablation, model, anatomy, graph, task, prompts, size)
        return method.run(FeatureProblem(anatomy, graph, prompts, ablated, size, track, kept), start)

    found = with_batch_size(attempt, batch_size, anatomy, prompts)
    record = {"form": method.form, "method": str(method), **found.record}
    return grown(earlier, graph, replace(found, record=record), about)


def _check_graph(graph: Any) -> None:
    if not isinstance(graph, FeatureGraph):
        raise InputError(
            f"trace(graph={graph!r}): expected a graph of features; make one with Graph.of(model, dictionaries)."
        )
    if graph.positions:
        raise InputError("trace(graph=...): expected a graph without positions; pass trace(positions=...).")
    split_places(graph)
    graph.check_dictionaries("The graph", "make it with Graph.of(model, dictionaries).")


def _fingerprint(ablation: Ablation) -> str | None:
    """Of the prompts that a mean is taken over, where they are not the task's own."""
    if ablation.prompts is None:
        return None
    return hashlib.sha256(json.dumps(ablation.prompts).encode()).hexdigest()[:16]


def _site(graph: FeatureGraph, at: str | None) -> int | None:
    if at is None:
        return None
    sites = {graph.places[i].name: i for i in split_places(graph)}
    if at not in sites:
        raise InputError(f"trace(at={at!r}): expected one of the graph's sites with features, {', '.join(sites)}.")
    return sites[at]


def _pinned(graph: FeatureGraph, at: str | None, features: Collection[str] | None) -> tuple[int, ...] | None:
    if features is None:
        return None
    named = isinstance(features, Collection) and all(isinstance(name, str) for name in features)
    if isinstance(features, str) or not named or not features:
        raise InputError(f"trace(features={features!r}): expected a list of names such as ['resid_1.f217'].")
    numbers = []
    for name in features:
        node = graph.index(name)
        place = graph.place_of(node) if node < graph.size else None
        if place is None or not graph.nodes_of(place).start <= node < features_of(graph, place).stop:
            raise InputError(f"trace(features=...): {name!r} is no feature; only features are traced.")
        if at is not None and graph.places[place].name != at:
            raise InputError(f"trace(at={at!r}, features=...): {name!r} is at another site; leave at=... out.")
        numbers.append(node)
    return tuple(sorted(set(numbers)))
