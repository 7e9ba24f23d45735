"""Feature pages for a circuit: how fast beside a plain forward pass, how much memory, and whether a killed run ends alike.

    python benchmarks/contexts.py --json benchmarks/results/contexts.json

A circuit of 200 features of the bundled dictionaries, found on a bundled task, over 100,000 tokens of the toy language. The
plain pass is the Hugging Face model's forward pass (logits included, no cache) over the same rows in batches of the same
size. Times in turns, medians. Peak memory, beyond model and dictionaries, in processes of their own. The kill is a SIGKILL
half-way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cost import resident

import sparse_circuits as sc
from sparse_circuits.features import FeatureStore, collect_contexts, feature_pages
from sparse_circuits.features.texts import Texts
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.walk import Walk, unchanged

NODES, TOKENS, BATCH = 200, 100_000, 32


class Case:
    """The bundled model, a circuit of its features, and the rows of text."""

    def __init__(self, nodes: int, tokens: int) -> None:
        self.model = sc.load_model("toy", device="cpu")
        self.saes = sc.load_dictionaries("toy", self.model)
        self.tokens = tokens
        task = sc.load_task("sva-across-rc", self.model, n=32)
        scores = sc.attribute(self.model, sc.Graph.of(self.model, self.saes), task, sc.EAP())
        features = [name for name in scores.to_dict("nodes") if not name.endswith(".error")][:nodes]
        self.circuit = sc.FeatureCircuit.of(scores.graph, features)
        source = Texts(self.model, anatomy_of(self.model), "toy", 96, True, tokens, 0)
        self.rows = list(source.rows())
        self.counted = sum(row.counted for row in self.rows)
        self.batches = torch.tensor([row.ids for row in self.rows]).split(BATCH)

    @torch.no_grad()
    def plain(self) -> None:
        for batch in self.batches:
            self.model.original_model(batch, use_cache=False)

    @torch.no_grad()
    def bridge(self) -> None:
        for batch in self.batches:
            self.model(batch, return_type="logits")

    @torch.no_grad()
    def own(self) -> None:
        """The library's forward pass as the contexts run it: without the unembedding."""
        anatomy = anatomy_of(self.model)
        for batch in self.batches:
            Walk(anatomy, (), None).run(anatomy.embed(batch), unchanged)

    def collect(self, folder: Path, save_every: int = 32) -> FeatureStore:
        return collect_contexts(
            self.model, self.circuit, "toy", store=folder, tokens=self.tokens, batch_size=BATCH, save_every=save_every
        )


def measure(case: Case, repeats: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"plain": [], "bridge": [], "own": [], "contexts": []}
    with tempfile.TemporaryDirectory() as root:
        for turn in range(repeats + 1):
            jobs = {
                "plain": case.plain,
                "bridge": case.bridge,
                "own": case.own,
                "contexts": lambda t=turn: case.collect(Path(root, str(t))),
            }
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                if turn:  # the first turn is what only first calls need
                    times[name].append(time.perf_counter() - start)
        store = FeatureStore.load(Path(root, "0"))
        start = time.perf_counter()
        pages = feature_pages(case.model, case.circuit, store)
        text = json.dumps({name: page.to_dict() for name, page in pages.items()})
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(root, "0").iterdir())
    found = {name: median(values) for name, values in times.items()}
    ratios = [c / p for c, p in zip(times["contexts"], times["plain"], strict=True)]
    return {
        "features": len(pages),
        "tokens": case.counted,
        "tokens per second, contexts": case.counted / found["contexts"],
        "tokens per second, plain forward pass": case.counted / found["plain"],
        "tokens per second, forward pass of the bridge": case.counted / found["bridge"],
        "tokens per second, the library's own pass without logits": case.counted / found["own"],
        "time beside the plain forward pass": median(ratios),
        "time beside the plain forward pass, largest of all turns": max(ratios),
        "time beside the library's own pass without logits": found["contexts"] / found["own"],
        "seconds for promoted tokens, similar features and JSON": seconds,
        "store MB": size / 1e6,
        "pages MB": len(text) / 1e6,
        "features that fire": sum(page.fired > 0 for page in pages.values()),
    }


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()[:16]


def killed(nodes: int, tokens: int) -> dict[str, Any]:
    """A run in a process of its own, killed when about half is written, and then gone on with."""
    with tempfile.TemporaryDirectory() as root:
        whole, other = Path(root, "whole"), Path(root, "other")
        subprocess.run(job("collect", nodes, tokens, whole), check=True)
        process = subprocess.Popen(job("collect", nodes, tokens, other))
        at = 0
        while process.poll() is None and at < tokens // 2:
            time.sleep(0.05)
            if (other / "part-000.safetensors").is_file():
                at = max(FeatureStore.load(other).tokens.values())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        at = max(FeatureStore.load(other).tokens.values())
        subprocess.run(job("collect", nodes, tokens, other), check=True)
        return {"killed after tokens": at, "identical": digest(whole) == digest(other)}


def job(what: str, nodes: int, tokens: int, *more: Any) -> list[str]:
    return [sys.executable, __file__, "--job", what, str(nodes), str(tokens), *map(str, more)]


def run_job(what: str, nodes: int, tokens: int, *more: str) -> None:
    case = Case(nodes, tokens)
    if what == "collect":
        case.collect(Path(more[0]), save_every=4)
        return
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if what == "plain":
        case.plain()
    else:
        with tempfile.TemporaryDirectory() as root:
            case.collect(Path(root, "store"))
    print(resident("VmHWM") - before)


def peak(what: str, nodes: int, tokens: int) -> float:
    done = subprocess.run(job(what, nodes, tokens), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--job", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        what, nodes, tokens, *more = args.job
        run_job(what, int(nodes), int(tokens), *more)
        return
    results: dict[str, Any] = {"device": "CPU", "threads": torch.get_num_threads()}
    results["figures"] = measure(Case(args.nodes, args.tokens), args.repeats)
    for what, name in (("plain", "plain forward pass"), ("contexts", "contexts")):
        results["figures"][f"peak MB, {name}"] = peak(what, args.nodes, args.tokens)
    results["figures"][f"peak MB, contexts of {4 * args.tokens} tokens"] = peak("contexts", args.nodes, 4 * args.tokens)
    results["killed"] = killed(args.nodes, args.tokens)
    for name, value in {**results["figures"], **results["killed"]}.items():
        print(f"{name:70s} {value if isinstance(value, (bool, int)) else round(value, 3)}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
