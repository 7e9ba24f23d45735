"""How good each method is: agreement with exact edge effects, circuits chosen by it, and a circuit that is known.

    python benchmarks/quality.py --examples 32

On the bundled model and all its tasks: Pearson and Spearman correlation with exact over all edges, the area under the
faithfulness curve and its distance from 1, each with a 95% bootstrap interval over examples. On the planted induction
circuit: the area under the ROC curve of telling its edges from the others. Methods whose scores carry no sign are compared
with |exact|. Passes are forward and backward passes a batch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sparse_circuits as sc
from sparse_circuits.circuit.comparison import pearson, spearman
from sparse_circuits.task.bundled import BUNDLED
from sparse_circuits.zoo.planted import planted_induction

DRAWS = 500
REFERENCE = "EAPIG(5, left)"


def methods() -> dict[str, sc.Method]:
    return {
        "EAP": sc.EAP(),
        "CleanCorrupted": sc.CleanCorrupted(),
        REFERENCE: sc.EAPIG(steps=5, quadrature="left"),
        "EAPIG(5)": sc.EAPIG(steps=5),
        "EAPIG(4, right, direct=mean)": sc.EAPIG(steps=4, quadrature="right", direct="mean"),
        "EAPIG(2, activations)": sc.EAPIG(steps=2, path="activations"),
        "EAPIG(5, activations)": sc.EAPIG(steps=5, path="activations"),
        "RelP": sc.RelP(),
        "EAPIG(5, relp)": sc.EAPIG(steps=5, rule="relp"),
        "AtPStar": sc.AtPStar(),
        "InformationFlowRoutes": sc.InformationFlowRoutes(),
        "ACDC(0.01)": sc.ACDC(threshold=0.01),
        "EdgePruning": sc.EdgePruning(size=60, steps=300),
        "Exact": sc.Exact(),
    }


def measure(tasks: list[str], examples: int) -> dict[str, Any]:
    """Method by method and task by task; then the means over tasks."""
    model = sc.load_model("toy", device="cpu")
    graph = sc.Graph.of(model)
    rows: dict[str, dict[str, Any]] = {name: {"tasks": {}} for name in methods()}
    draws: dict[str, dict[str, list[Tensor]]] = {name: {} for name in methods()}
    for task_name in tasks:
        task = sc.load_task(task_name, model, n=examples)
        exact = sc.attribute(model, graph, task, sc.Exact(), per_example=True)
        for name, method in methods().items():
            kept = not isinstance(method, sc.ACDC | sc.EdgePruning)
            scores = sc.attribute(model, graph, task, method, per_example=kept)
            figures = agreement(scores, exact) | on_curve(model, scores, task)
            rows[name]["tasks"][task_name] = {
                key: {"value": value, "interval": bounds(sample)} for key, (value, sample) in figures.items()
            } | {"passes": list(scores.passes)}
            for key, (_, sample) in figures.items():
                draws[name].setdefault(key, []).append(sample)
            cells = ", ".join(f"{key} {value:.4f}" for key, (value, _) in figures.items())
            print(f"{task_name:18s} {name:30s} {cells}", flush=True)
    for name, row in rows.items():
        row["mean"] = {
            key: {
                "value": sum(t[key]["value"] for t in row["tasks"].values()) / len(tasks),
                "interval": bounds(torch.stack(samples).mean(0)),
            }
            for key, samples in draws[name].items()
        }
        passes = torch.tensor([t["passes"] for t in row["tasks"].values()], dtype=torch.float64)
        row["passes"] = passes.mean(0).tolist()
        row["better"] = sum(
            row["tasks"][t]["pearson"]["value"] > rows[REFERENCE]["tasks"][t]["pearson"]["value"] for t in tasks
        )
        row["roc"] = on_planted(methods()[name])
    return {"examples": examples, "methods": rows}


def agreement(scores: sc.Scores, exact: sc.Scores) -> dict[str, tuple[float, Tensor]]:
    """Correlations with exact, and over resampled examples (both resampled alike; what has no examples stays)."""
    mask, n = exact.graph.mask, len(exact.clean)
    drawn = torch.randint(n, (DRAWS, n), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(DRAWS, n).scatter_add_(1, drawn, torch.ones(drawn.shape)) / n
    truth, resampled = exact.values[mask], weights @ exact.per_example
    found = scores.values[mask]
    again = found.expand(DRAWS, -1) if scores.per_example is None else weights @ scores.per_example
    if not scores.signed:
        truth, resampled = truth.abs(), resampled.abs()
    return {
        "pearson": (float(pearson(found, truth)), pearson(again, resampled)),
        "spearman": (float(spearman(found, truth)), spearman(again, resampled)),
    }


def on_curve(model: Any, scores: sc.Scores, task: sc.Task) -> dict[str, tuple[float, Tensor]]:
    """Area under the faithfulness curve, and its distance from 1."""
    curve = sc.faithfulness_curve(model, scores, task)
    return {
        "area": (curve.area, curve._under(curve._ratios[1])),
        "distance": (curve.distance, curve._between(curve._ratios[1])),
    }


def on_planted(method: sc.Method) -> float:
    """Area under the ROC curve: how often a true edge is ranked above another one."""
    planted = planted_induction()
    graph = sc.Graph.of(planted.model)
    if isinstance(method, sc.EdgePruning):
        method = sc.EdgePruning(size=len(planted.edges), steps=300)
    scores = sc.attribute(planted.model, graph, planted.task, method)
    truth = sc.Circuit.of(graph, planted.edges).mask[graph.mask]
    strength = scores.values[graph.mask].abs()
    true, other = strength[truth][:, None], strength[~truth][None]
    return float(((true > other).float() + 0.5 * (true == other).float()).mean())


def bounds(sample: Tensor) -> list[float]:
    sample = sample[torch.isfinite(sample)].double()
    return torch.quantile(sample, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--tasks", nargs="*", default=list(BUNDLED))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table = measure(args.tasks, args.examples)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
