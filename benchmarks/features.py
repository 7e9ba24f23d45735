"""Feature graphs: what edges cost beside a plain loop, how good node effects are, and how much memory large dictionaries take.

    python benchmarks/features.py --json benchmarks/results/features.json --picture docs/feature_attribution.svg
    python benchmarks/features.py --only edges

- edges: on the bundled model with its SAEs, all nodes ablated to 0, against one backward pass per downstream node (one
  feature or error term of one example at one position) and pair of sites, parameters frozen, stopped at the upstream
  site; both from the same node effects. Times are medians; peak memory in a process of its own.
- quality: node effects against exact ablation of each node, on all bundled tasks; how complete integrated effects are.
- memory: node effects on a GPT-2-small shape with 36 TopK dictionaries of 32,768 features, 64 active; random weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cost import resident
from quality import pearson, ranks
from shapes import gpt2_folder, token_task

import sparse_circuits as sc
from sparse_circuits.attribution.feature.edges import Edges
from sparse_circuits.attribution.feature.gradients import along_inputs
from sparse_circuits.attribution.feature.nodes import node_effects
from sparse_circuits.attribution.feature.problem import FeatureProblem, Sparse
from sparse_circuits.attribution.feature.splits import prepare_places
from sparse_circuits.model import anatomy_of
from sparse_circuits.task.bundled import BUNDLED

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import feature_oracle as oracle

COUNTS = (50, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
BY_ORACLE = 2000  # the oracle's time grows with the number of nodes, and nothing more is learnt from waiting for it
LAYERS, D_MODEL, FEATURES, ACTIVE = 12, 768, 32_768, 64


class Case:
    """Prompts of one bundled task on the bundled model: a clean run, node effects, and edges by both."""

    def __init__(self, dictionaries: str, task: str = "ioi", examples: int = 16) -> None:
        self.model = sc.load_model("toy", device="cpu")
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.anatomy = anatomy_of(self.model)
        self.graph = sc.Graph.of(self.model, sc.load_dictionaries(dictionaries, self.model))
        task_all = sc.load_task(task, self.model, n=4 * examples)
        prompts = task_all.tokenized(self.model, self.anatomy, corrupted=True)
        usual = Counter(map(len, prompts.clean)).most_common(1)[0][0]
        same = [i for i, row in enumerate(prompts.clean) if len(row) == usual][:examples]
        self.task = task_all[same]
        prompts = self.task.tokenized(self.model, self.anatomy, corrupted=True)
        ablated = prepare_places(sc.Ablation.ZERO, self.model, self.anatomy, self.graph, self.task, prompts, examples)
        problem = FeatureProblem(self.anatomy, self.graph, prompts, ablated, examples, lambda items, total: items)
        ((_, self.situation),) = problem.situations()
        self.gradients = along_inputs(self.situation, ((1.0, 1.0),))
        places = range(len(self.graph.places))
        self.changes = [self.situation.change(place) for place in places]
        self.effects = [node_effects(self.situation, p, self.changes[p], self.gradients[p]) for p in places]

    def threshold(self, count: int) -> float:
        """Between the effects of so many nodes and the next; nodes that no edge can lead into are none."""
        sizes = []
        for change, (features, rest), reach in zip(self.changes, self.effects, self.graph.reach, strict=False):
            if reach.parents:
                sizes += [(features * (change.clean != 0)).abs().flatten(), rest.abs().flatten()]
        ordered = torch.cat(sizes).sort(descending=True).values
        return float(ordered[count - 1 : count + 1].mean())

    def fast(self, above: float) -> Sparse:
        edges, found = Edges(self.situation, self.changes), Sparse()
        for place in range(len(self.graph.places)):
            edges.into(place, edges.targets(place, self.gradients[place], self.effects[place], above), found)
        found.collect()
        return found

    def plain(self, above: float) -> dict[tuple[int, int], torch.Tensor]:
        wanted = oracle.targets(self.runs, self.dense_effects, above)
        parents = [reach.parents for reach in self.graph.reach[:-1]]
        return oracle.edges(self.runs, self.their_changes, self.gradients, wanted, parents)

    def prepare_oracle(self) -> None:
        batch = self.situation.batch
        prompts = sc.Task(batch.tokens.tolist(), metric=self.task.metric)
        self.runs = oracle.Runs(self.model, self.graph, prompts, metric=lambda logits: logits[:, -1, 0])
        self.their_changes = oracle.zeroed(self.runs)
        self.dense_effects = oracle.node_effects(self.runs, self.their_changes, self.gradients)


def measure_edges(dictionaries: str, repeats: int) -> dict[str, Any]:
    case = Case(dictionaries)
    case.prepare_oracle()
    curve, figures = [], {}
    for count in COUNTS:
        above = case.threshold(count)
        row: dict[str, Any] = {"nodes": count, "seconds": _median(lambda a=above: case.fast(a), repeats)}
        if count <= BY_ORACLE:
            row["oracle seconds"] = _median(
                lambda a=above: case.plain(a), 1 if count > 500 else min(3, repeats), warm=count < 500
            )
            row["times faster"] = row["oracle seconds"] / row["seconds"]
            row["largest difference"] = difference(case, above)
        keys, _ = case.fast(above).collect()
        row["edges"] = len(keys)
        row["peak MB"] = peak("edges", dictionaries, str(above))
        curve.append(row)
        print(row, flush=True)
        if "times faster" in row:
            figures[f"edges into {count} nodes, times faster than the plain loop"] = row["times faster"]
    for row in curve:
        if row["nodes"] in (200, 2000, 20_000):
            figures[f"edges into {row['nodes']} nodes, seconds"] = row["seconds"]
            figures[f"edges into {row['nodes']} nodes, peak MB beyond model and dictionaries"] = row["peak MB"]
    return {"curve": curve, "figures": figures}


def difference(case: Case, above: float) -> float:
    """The largest difference of any edge, as a share of the largest edge."""
    keys, values = case.fast(above).collect()
    graph, tables = case.graph, case.plain(above)
    sources, targets = torch.div(keys, graph.size + 1, rounding_mode="floor"), keys % (graph.size + 1)
    at = list(zip(graph.places_of(sources).tolist(), graph.places_of(targets).tolist(), strict=True))
    place = torch.tensor(at)
    largest, scale = 0.0, max(float(t.abs().max()) for t in tables.values())
    for (down, up), table in tables.items():
        here = ((place[:, 0] == up) & (place[:, 1] == down)).nonzero()[:, 0]
        found = torch.zeros_like(table)
        found[targets[here] - graph.offsets[down], sources[here] - graph.offsets[up]] = values[here]
        largest = max(largest, float((found - table).abs().max()))
    return largest / scale


def measure_quality(dictionaries: str, examples: int, picture: Path | None) -> dict[str, Any]:
    model = sc.load_model("toy", device="cpu")
    graph = sc.Graph.of(model, sc.load_dictionaries(dictionaries, model))
    methods = {"EAP": sc.EAP(), "EAPIG(10, activations)": sc.EAPIG(steps=10, path="activations")}
    errors = torch.zeros(graph.size, dtype=torch.bool)
    errors[graph.errors] = True
    rows, points, figures = {}, {name: [] for name in methods}, {}
    for task_name in BUNDLED:
        task = sc.load_task(task_name, model, n=examples)
        start = time.perf_counter()
        truth = dense(sc.attribute(model, graph, task, sc.Exact()))
        seconds = time.perf_counter() - start
        rows[task_name] = {"exact seconds": seconds}
        for name, method in methods.items():
            found = dense(sc.attribute(model, graph, task, method))
            points[name].append((truth, found))
            for kind, which in (("features", ~errors & ((truth != 0) | (found != 0))), ("errors", errors)):
                a, b = found[which].double(), truth[which].double()
                rows[task_name][f"{name}, {kind}"] = {
                    "nodes": int(which.sum()), "pearson": float(pearson(a, b)), "spearman": float(pearson(ranks(a), ranks(b)))
                }  # fmt: skip
        cut = sc.attribute(model, graph, task, sc.EAPIG(steps=20, path="activations"))
        total = float((cut.corrupted - cut.clean).mean())
        gaps = {site: gap / total for site, gap in cut.convergence_gaps.items() if site.startswith("resid")}
        rows[task_name]["gap of 20 points at resid sites, share of m(corrupted) - m(clean)"] = max(
            gaps.values(), key=abs
        )
        print(task_name, json.dumps(rows[task_name]), flush=True)
    for name in methods:
        for kind in ("features", "errors"):
            for key in ("pearson", "spearman"):
                mean = sum(row[f"{name}, {kind}"][key] for row in rows.values()) / len(rows)
                figures[f"{name} with exact ablation, {kind}, {key}, mean of tasks"] = mean
    key = "gap of 20 points at resid sites, share of m(corrupted) - m(clean)"
    figures["largest convergence gap of 20 points at any resid site of any task, share of the total effect"] = max(
        abs(row[key]) for row in rows.values()
    )
    if picture is not None:
        draw(points, errors, rows, picture)
    return {"tasks": rows, "figures": figures}


def draw(points: dict[str, list], errors: torch.Tensor, rows: dict[str, Any], path: Path) -> None:
    """Estimates against exact effects, features and error terms apart; a colour for each task."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"font.size": 8})
    figure, axes = plt.subplots(len(points), 2, figsize=(7.2, 3.3 * len(points)), layout="constrained")
    for line, (name, pairs) in zip(axes, points.items(), strict=True):
        for axis, kind, which in zip(line, ("features", "errors"), (~errors, errors), strict=True):
            for task_name, (truth, found) in zip(rows, pairs, strict=True):
                shown = which & ((truth.abs() > 1e-4) | (found.abs() > 1e-4))
                axis.plot(truth[shown], found[shown], ".", markersize=2.5, alpha=0.6, label=task_name)
            low, high = min(axis.get_xlim()[0], axis.get_ylim()[0]), max(axis.get_xlim()[1], axis.get_ylim()[1])
            axis.plot([low, high], [low, high], color="0.6", linewidth=0.6, zorder=0)
            mean = sum(row[f"{name}, {kind}"]["pearson"] for row in rows.values()) / len(rows)
            axis.set(xlabel="exact effect", ylabel="estimate")
            axis.set_title(f"{name}: {kind}\nPearson {mean:.3f}, mean of tasks", fontsize=8)
    axes[0, 0].legend(markerscale=3, fontsize=6, frameon=False)
    figure.savefig(path, dpi=130)


def dense(scores: Any) -> torch.Tensor:
    out = torch.zeros(scores.graph.size)
    out[scores.node_ids] = scores.node_values
    return out


def measure_memory() -> dict[str, Any]:
    figures = {}
    with tempfile.TemporaryDirectory() as root:
        folder = gpt2_folder(Path(root), n_layer=LAYERS, n_embd=D_MODEL)
        bare = peak("bare", str(folder))
        for what, name in (("eap", "EAP"), ("ig", "EAPIG(activations)")):
            megabytes = peak(what, str(folder))
            figures[f"{3 * LAYERS} sites x {FEATURES} features, 8 prompts of 20 tokens: peak MB of {name}"] = megabytes
            print(name, megabytes, flush=True)
        figures["the same: peak MB of the bare passes of EAP, without dictionaries"] = bare
    return {"figures": figures}


def large_dictionaries() -> dict[str, sc.Dictionary]:
    """Random TopK dictionaries at every output of attention, MLP and block, each with weights of its own."""
    from sparse_circuits.model.sites import Site

    made = {}
    for layer in range(LAYERS):
        for kind in ("attn", "mlp", "resid"):
            site = Site(kind, layer)  # pyright: ignore[reportArgumentType]
            made[site.name] = oracle.random_dictionary(site, D_MODEL, FEATURES, top=ACTIVE)
    return made


def peak(what: str, *arguments: str) -> float:
    """Peak resident memory of one job beyond that of what is loaded, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", what, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def peak_job(what: str, arguments: list[str]) -> None:
    if what == "edges":
        case, above = Case(arguments[0]), float(arguments[1])

        def job() -> object:
            return case.fast(above)
    else:
        model = sc.load_model(arguments[0], device="cpu")
        task = token_task(8, 20, model.cfg.d_vocab)
        if what == "bare":
            from cost import bare_passes

            clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)

            def job() -> object:
                return bare_passes(model.original_model, clean, corrupted, 1, 1)
        else:
            graph = sc.FeatureGraph.of_anatomy(anatomy_of(model), large_dictionaries())
            method = sc.EAP() if what == "eap" else sc.EAPIG(steps=2, path="activations")  # points come one by one

            def job() -> object:
                return sc.attribute(model, graph, task, method, batch_size=8)

    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    job()
    print(resident("VmHWM") - before)


def _median(job: Any, repeats: int, warm: bool = True) -> float:
    if warm:
        job()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dictionaries", default="toy")
    parser.add_argument("--examples", type=int, default=32, help="of each task, for the quality of node effects")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["edges", "quality", "memory"])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak_job(args.peak[0], args.peak[1:])
        return
    results: dict[str, Any] = {"device": "CPU"}
    if args.json and args.json.exists():  # parts that are not measured anew stay
        results |= json.loads(args.json.read_text())
    jobs = {
        "edges": lambda: measure_edges(args.dictionaries, args.repeats),
        "quality": lambda: measure_quality(args.dictionaries, args.examples, args.picture),
        "memory": measure_memory,
    }
    for name in args.only:
        results[name] = jobs[name]()
    results["figures"] = {
        key: value for name in jobs for key, value in results.get(name, {}).get("figures", {}).items()
    }
    for name, value in results["figures"].items():
        print(f"{name:110s} {value:10.4f}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
