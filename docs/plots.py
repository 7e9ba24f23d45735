"""The pictures of `docs/plots.md`: `python docs/plots.py` (half a minute; it needs no browser)."""

from __future__ import annotations

import warnings
from pathlib import Path

import sparse_circuits as sc
from sparse_circuits.view.plots import plot_interventions

HERE = Path(__file__).parent


def main() -> None:
    model = sc.load_model("toy")
    task = sc.load_task("ioi", model, n=48)
    graph = sc.Graph.of(model)
    scores = sc.attribute(model, graph, task, sc.EAPIG(steps=5), per_example=True)
    exact = sc.attribute(model, graph, task, sc.Exact(), per_example=True)
    scores.plot(HERE / "plot-heads.svg", title="IOI: scores by node, EAP-IG")
    scores.compare(exact).plot(HERE / "plot-exact.svg", title="IOI: EAP-IG against exact effects of all edges")
    results = {
        f"{n} edges": sc.evaluate(model, circuit, task, completeness=True)
        for n, circuit in ((c.n_edges, c) for c in (scores.greedy(20), scores.greedy(60)))
    }
    plot_interventions(results, HERE / "plot-interventions.svg", label="logit difference")
    sc.head_report(model, task, "a2.h7", prompts=1).plot(HERE / "plot-attention.svg")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
