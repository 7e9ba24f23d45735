"""Bad input in Python: one clear error each, before any pass is made, that says what to change.

The command line's are in test_cli.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import token_task

import sparse_circuits as sc

METRIC = sc.LogitDiff([1, 2], [3, 4])
PAIR = ([[5, 6, 7], [5, 6, 8]], [[5, 9, 7], [5, 9, 8]])


def score(model: object, task: sc.Task, *args: object, **options: object) -> sc.Scores:
    return sc.attribute(model, sc.Graph.of(model), task, *args, **options)


CASES: dict[str, tuple[Callable, str]] = {
    "no prompts": (lambda m: sc.Task([], metric=METRIC), "at least one prompt"),
    "one string for a list": (lambda m: sc.Task("When Mary", metric=METRIC), r"write \['When Mary'\]"),
    "unequal sides": (lambda m: sc.Task(PAIR[0], PAIR[1][:1], metric=METRIC), "2 clean prompts but 1 corrupted"),
    "metric that is none": (lambda m: sc.Task(*PAIR, metric="logit_diff"), "expected a metric such as LogitDiff"),
    "a task's name for a task": (lambda m: score(m, "ioi"), r"attribute\(task='ioi'\): expected a Task"),
    "a task's name to evaluate on": (
        lambda m: sc.evaluate(m, sc.Circuit.full(sc.Graph.of(m)), "ioi"),
        r"evaluate\(task='ioi'\): expected a Task",
    ),
    "pair of different lengths": (
        lambda m: score(m, sc.Task([[5, 6], [5, 6, 7]], [[5, 9], [5, 9]], metric=METRIC)),
        "row 1: the clean prompt is 3 tokens and the corrupted one 2",
    ),
    "id outside the vocabulary": (
        lambda m: score(m, sc.Task([[5, 6], [5, 999]], [[5, 9], [5, 9]], metric=METRIC)),
        r"row 1 \(clean\): token ids must lie between 0 and 60",
    ),
    "empty prompt": (
        lambda m: score(m, sc.Task([[5], []], [[5], []], metric=METRIC)),
        r"row 1 \(clean\): the prompt is empty",
    ),
    "prompt too long": (
        lambda m: score(m, sc.Task([[5] * 40, [5]], [[6] * 40, [6]], metric=METRIC)),
        "row 0 .*40 tokens, but the model takes at most 32",
    ),
    "too few answers": (lambda m: score(m, sc.Task(*PAIR, metric=sc.LogitDiff([1], [2]))), "1 answers for 2 examples"),
    "answer outside the vocabulary": (
        lambda m: score(m, sc.Task(*PAIR, metric=sc.LogitDiff([1, 61], [2, 2]))),
        "row 1: correct answer 61 is not a token id",
    ),
    "example without an answer": (
        lambda m: score(m, sc.Task(*PAIR, metric=sc.ProbDiff([[1], []], [[2], [3]]))),
        "row 1 has no correct answer",
    ),
    "position outside": (
        lambda m: score(m, sc.Task(*PAIR, metric=sc.LogProb([1, 2], position=7))),
        "outside a prompt of 3 tokens",
    ),
    "no corrupted prompts": (lambda m: score(m, sc.Task(PAIR[0], metric=METRIC)), "no corrupted prompts"),
    "no corrupted prompts for a path": (
        lambda m: score(m, sc.Task(PAIR[0], metric=METRIC), sc.EAPIG(), ablation=sc.Ablation.ZERO),
        "no corrupted prompts",
    ),
    "method by name": (lambda m: score(m, token_task(), "eap"), r"expected a method such as EAP\(\)"),
    "method class": (lambda m: score(m, token_task(), sc.EAP), r"expected a method such as EAP\(\)"),
    "ablation by name": (lambda m: score(m, token_task(), ablation="zero"), "expected one of Ablation.PATCH"),
    "graph by name": (lambda m: sc.attribute(m, "edges", token_task()), r"make one with Graph\.of"),
    "batch of none": (lambda m: score(m, token_task(), batch_size=0), "at least 1"),
    "not a model": (lambda m: sc.attribute(torch.nn.Linear(2, 2), sc.Graph.of(m), token_task()), r"load_model\("),
    "unknown kv": (lambda m: sc.Graph.of(m, kv="ungrouped"), "'per_group' or 'per_query_head'"),
    "unknown path": (lambda m: sc.EAPIG(path="sideways"), "'inputs' or 'activations'"),
    "mean over nothing": (lambda m: sc.Ablation.MEAN.over([]), "at least one prompt"),
    "zero over prompts": (lambda m: sc.Ablation.ZERO.over([[1]]), "has no mean"),
    "positional mean of unequal lengths": (
        lambda m: score(m, token_task(4, varied=True), ablation=sc.Ablation.MEAN_POSITIONAL),
        "prompts of one length",
    ),
    "metric averaged over the batch": (
        lambda m: score(m, sc.Task(*PAIR, metric=lambda logits, batch: logits.mean())),
        "Do not average over the batch",
    ),
    "circuit for a list": (
        lambda m: sc.evaluate_many(m, sc.Circuit.full(sc.Graph.of(m)), token_task()),
        "for one circuit use evaluate",
    ),
    "unknown task": (lambda m: sc.load_task("iio", m), "Unknown task 'iio'"),
    "missing task file": (lambda m: sc.load_task("nowhere.csv", m), "No task file"),
    "no examples": (lambda m: sc.load_task("ioi", m, n=0), "at least 1"),
    "curve of no sizes": (
        lambda m: sc.faithfulness_curve(m, score(m, token_task()), token_task(), []),
        "at least one size",
    ),
    "curve by another rule": (
        lambda m: sc.faithfulness_curve(m, score(m, token_task()), token_task(), select="best"),
        "'greedy' or 'top'",
    ),
    "empty slice": (lambda m: token_task()[10:], "holds no example"),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES.keys())
def test_one_clear_error(zoo, call: Callable, message: str) -> None:
    model = zoo("gpt2")
    with pytest.raises(sc.InputError, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not any(p.fwd_hooks or p.bwd_hooks for p in model.hook_dict.values())
