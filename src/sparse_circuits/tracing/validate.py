"""Ablating all of a trace at once, and each of its features alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.batch_size import check_batch_size, with_batch_size
from sparse_circuits.attribution.feature.exact import resumed
from sparse_circuits.attribution.feature.problem import FeatureProblem, Situation
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.circuit import FeatureCircuit
from sparse_circuits.circuit.feature_scores import check_count
from sparse_circuits.dictionary import Dictionaries, load_dictionaries
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation.feature_run import FeatureRunner, Policy
from sparse_circuits.graph import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site
from sparse_circuits.progress import tracker
from sparse_circuits.task.measure import measure
from sparse_circuits.task.metrics import CrossEntropy, LogProb, Metric, PositionMetric
from sparse_circuits.task.task import Prompts, Task, check_task
from sparse_circuits.task.tokens import token_text
from sparse_circuits.tracing.method import by_place
from sparse_circuits.tracing.separate import Readings, check_finite, each, last_logits
from sparse_circuits.tracing.trace import Trace
from sparse_circuits.tracing.validation import Moved, Validation, by_size

# at every place features of the circuit are ablated, and nothing else is
_ALL_OF_IT = Policy(errors="keep", complement=True)


def validate_trace(
    model: Any,
    trace: Trace,
    task: Task,
    *,
    dictionaries: Mapping[Any, Any] | None = None,
    ablation: Ablation | None = None,
    tokens: int = 10,
    batch_size: int | Literal["auto"] = 32,
    progress: bool = False,
) -> Validation:
    """Ablate all traced features at once, and say what that does, beside the sum of what each does alone.

    All at once: at every site features are encoded again from the stream as ablated so far, and the traced ones take their
    ablated values (under ZERO: what they write is taken away); all other features and the error terms stay as they are then.
    A downstream feature's change is that of its value before it is ablated itself. Effects of features that lie behind one
    another, or do the same work, do not add up; how far they do not is :attr:`Validation.interaction`.

    Features that were reached but not ablated (the frontier) are left alone; how they change is reported.

    Args:
        model: left as it is.
        task: whose prompts and metric; others than those of the trace do as well. Each feature's separate effects are measured
            on these.
        dictionaries: those of the trace, where it was loaded without them.
        ablation: the trace's own by default.
        tokens: how many logits to report.

    Cost per batch: a clean pass (under PATCH a corrupted one too), one with everything ablated, and for each feature a pass
    from its site on.

    Raises:
        InputError: for a trace of another model, without its dictionaries, or of nothing but a frontier; prompts without the
            positions that the trace tells apart; a metric that is not finite.
    """
    if not isinstance(trace, Trace):
        raise InputError(f"validate_trace(trace={trace!r}): expected a Trace; load one with Trace.load(path).")
    check_batch_size(batch_size)
    check_count("validate_trace(tokens=...)", tokens)
    anatomy = anatomy_of(model)
    trace.graph.check(anatomy)
    graph = _with_dictionaries(model, trace.graph, dictionaries)
    ablation = _ablation(trace) if ablation is None else ablation
    if not isinstance(ablation, Ablation):
        raise InputError(
            f"validate_trace(ablation={ablation!r}): expected one of Ablation.ZERO, PATCH, MEAN, MEAN_POSITIONAL."
        )
    check_task("validate_trace", task)
    if not trace.traced:
        raise InputError("The trace has no feature whose effect is known, so there is nothing to ablate.")
    prompts = task.tokenized(model, anatomy, corrupted=ablation.kind == "patch")
    kept = prompts.positions_named(graph.positions) if graph.positions else None
    loss, of = _loss(prompts)

    def track(items: Iterator[Any], total: int) -> Iterator[Any]:
        return tracker(items, total, f"validating on {task.name}", progress)

    def attempt(size: int) -> _Measured:
        ablated = prepare_places(ablation, model, anatomy, graph, task, prompts, size)
        measured = _Measured(FeatureProblem(anatomy, graph, prompts, ablated, size, track, kept), trace, loss)
        measured.run()
        return measured

    found = with_batch_size(attempt, batch_size, anatomy, prompts)
    tokenizer, n = getattr(model, "tokenizer", None), len(prompts)
    top = found.logits[0].abs().topk(min(tokens, found.logits.shape[1])).indices.tolist()
    together, separate = (found.logits / n).tolist()
    losses = found.losses
    return Validation(
        names=tuple(map(graph.name_of, found.nodes.tolist())),
        clean=found.values[0],
        ablated=found.values[1],
        separate=found.values[2:] - found.values[0],
        loss=of,
        loss_clean=None if losses is None else losses[0],
        loss_ablated=None if losses is None else losses[1],
        loss_separate=None if losses is None else losses[2:] - losses[0],
        features=by_size(
            [
                Moved(graph.name_of(node), *row)
                for node, row in zip(found.targets.tolist(), (found.moved / n).T.tolist(), strict=True)
            ]
        ),
        tokens=tuple(Moved(token_text(tokenizer, i), together[i], separate[i]) for i in top),
        ablation=str(ablation),
        metric=type(task.metric).__name__,
        task=task.name,
    )


class _Measured:
    """What was measured, on the CPU.

    Attributes:
        nodes, targets: numbers of the ablated features, and of those after the first site: int64, ascending.
        values, losses: of the clean run, of the run with all of them ablated, and with each alone, ``[2 + nodes, examples]``.
        logits: change at the last token with all ablated, and the sum of those with each alone, ``[2, vocabulary]``, summed
            over examples.
        moved: the same of the targets' activation, and what that is in the clean run: ``[3, targets]``.
    """

    def __init__(self, problem: FeatureProblem, trace: Trace, loss: Metric | None) -> None:
        graph, n = problem.graph, len(problem.prompts)
        self.problem, self.loss = problem, loss
        self.circuit = FeatureCircuit.of(graph, [node.name for node in trace.traced])
        self.nodes = self.circuit.node_ids
        every = by_place(graph, (graph.index(node.name) for node in trace.nodes))
        first = graph.place_of(int(self.nodes[0]))
        after = {place: ids for place, ids in every.items() if place > first}
        self.targets = torch.cat([*after.values(), self.nodes[:0]])
        starts = dict(zip(after, torch.tensor([0, *map(len, after.values())]).cumsum(0).tolist(), strict=False))
        # by site: the place, which of its features are looked at, and where they stand among the targets
        self._looked = {
            graph.places[place].site: (
                place,
                ids - graph.nodes_of(place).start,
                slice(starts[place], starts[place] + len(ids)),
            )
            for place, ids in after.items()
        }
        rows = 2 + len(self.nodes)
        self.values = torch.empty(rows, n)
        self.losses = None if loss is None else torch.empty(rows, n)
        self.logits = torch.zeros(2, problem.anatomy.d_vocab_out, dtype=torch.float64)
        self.moved = torch.zeros(3, len(self.targets), dtype=torch.float64)

    @torch.no_grad()
    def run(self) -> None:
        problem, graph = self.problem, self.problem.graph
        # a feature that ablation leaves as it is on an example changes nothing there
        for rows, situation in problem.situations():
            readings, end = Readings(situation), last_logits(situation, situation.run.final)
            clean = situation.run.final
            self._note(slice(0, 1), rows, situation, clean)
            self.values[2:, rows] = self.values[0, rows]
            if self.losses is not None:
                self.losses[2:, rows] = self.losses[0, rows]
            for place, which, where in self._looked.values():
                self.moved[2, where] += readings.clean(place)[which]
            groups = situation.groups.view(situation.batch.tokens.shape)
            runner = FeatureRunner(problem.anatomy, graph, situation.batch, situation.references, groups)

            def see(site: Site, read: Tensor, readings: Readings = readings) -> None:
                self._look(0, site, read, readings)

            together = runner.final(self.circuit, _ALL_OF_IT, see)
            self._note(slice(1, 2), rows, situation, together)
            self.logits[0] += (last_logits(situation, together) - end).sum((0, 1)).cpu()

            def visit(site: Site, read: Tensor, written: Tensor, readings: Readings = readings) -> Tensor:
                self._look(1, site, read, readings)
                return written

            for place, nodes in by_place(graph, self.nodes.tolist()).items():
                offset = 2 + int(torch.searchsorted(self.nodes, nodes[0]))
                for which, moved in each(situation, place, nodes):
                    final = resumed(situation, place, moved, visit, list(self._looked))
                    self._note(offset + which, rows, situation, final)
                    self.logits[1] += (last_logits(situation, final) - end).sum((0, 1)).cpu()

    def _note(self, into: slice | Tensor, rows: Tensor, situation: Situation, final: Tensor) -> None:
        n = len(final) // len(situation.batch)
        for metric, table in ((situation.metric, self.values), (self.loss, self.losses)):
            if metric is None or table is None:
                continue
            value = check_finite(measure(situation.anatomy, metric, final, situation.batch.repeat(n)))
            value = value.view(n, -1).float().cpu()
            at = torch.arange(len(table))[into]
            table[at[:, None], rows[None]] = value if metric is situation.metric else -value

    def _look(self, row: int, site: Site, read: Tensor, readings: Readings) -> None:
        if site in self._looked:
            place, which, where = self._looked[site]
            self.moved[row, where] += readings.change(place, read)[:, which].sum(0)


def _with_dictionaries(model: Any, graph: FeatureGraph, dictionaries: Mapping[Any, Any] | None) -> FeatureGraph:
    if dictionaries is not None:
        loaded = dictionaries if isinstance(dictionaries, Dictionaries) else load_dictionaries(dictionaries, model)
        return graph.with_dictionaries(loaded)
    graph.check_dictionaries(
        "The trace", "pass validate_trace(dictionaries=...) or Trace.load(path, dictionaries=...)."
    )
    return graph


def _ablation(trace: Trace) -> Ablation:
    name = str(trace.provenance.get("ablation", "zero"))
    found = getattr(Ablation, name.upper(), None)
    if not isinstance(found, Ablation):
        raise InputError(f"The trace was made under {name!r}, whose prompts it does not hold; pass ablation=...")
    return found


def _loss(prompts: Prompts) -> tuple[Metric | None, Literal["answer", "next token"] | None]:
    """Minus the loss, as a metric: of the task's answers where it has any, else of the prompts' own next tokens."""
    metric = prompts.metric
    correct = getattr(metric, "correct", None)
    if isinstance(metric, PositionMetric) and correct is not None:
        return LogProb(correct, metric.position), "answer"
    if min(prompts.n_positions) > 1:
        return CrossEntropy(), "next token"
    return None, None
