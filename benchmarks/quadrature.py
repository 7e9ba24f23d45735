"""How well each method's edge scores agree with exact edge effects, on the bundled model and all its tasks.

    python benchmarks/quadrature.py --examples 32 --steps 3 5 10

Pearson correlation over all edges of the graph. Methods are compared at equal numbers of gradients: every quadrature of
EAP-IG with the same number of steps, beside EAP (1 gradient) and clean-corrupted (2). Prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import sparse_circuits as sc
from sparse_circuits.attribution.quadrature import QUADRATURES
from sparse_circuits.task.bundled import BUNDLED


def methods(steps: list[int]) -> dict[str, sc.Method]:
    integrated = {f"{n} {rule}": sc.EAPIG(steps=n, quadrature=rule) for n in steps for rule in QUADRATURES}
    return {"EAP": sc.EAP(), "CleanCorrupted": sc.CleanCorrupted(), **integrated}


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


def measure(tasks: list[str], examples: int, steps: list[int]) -> dict[str, dict[str, float]]:
    """Task by task, method by method."""
    model = sc.load_model("toy", device="cpu")
    graph = sc.Graph.of(model)
    table: dict[str, dict[str, float]] = {}
    for name in tasks:
        task = sc.load_task(name, model, n=examples)
        exact = sc.attribute(model, graph, task, sc.Exact(), progress=True).values[graph.mask]
        table[name] = {
            label: correlation(sc.attribute(model, graph, task, method).values[graph.mask], exact)
            for label, method in methods(steps).items()
        }
        print(name, json.dumps({k: round(v, 3) for k, v in table[name].items()}), flush=True)
    table["mean"] = {label: sum(row[label] for row in table.values()) / len(tasks) for label in methods(steps)}
    return table


def markdown(table: dict[str, dict[str, float]]) -> str:
    labels = list(next(iter(table.values())))
    lines = ["| task | " + " | ".join(labels) + " |", "|---|" + "---:|" * len(labels)]
    for name, row in table.items():
        best = max(row.values())
        cells = [f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in row.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="*", default=[5])
    parser.add_argument("--tasks", nargs="*", default=list(BUNDLED))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table = measure(args.tasks, args.examples, args.steps)
    print(markdown(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
