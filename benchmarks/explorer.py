"""The explorer in a browser: the time of one slider step, to the frame, with 300 nodes and 5,000 edges.

`python benchmarks/explorer.py --json benchmarks/results/explorer.json`. It needs Playwright and a Chromium; software rendering.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Page, sync_playwright

import sparse_circuits as sc
from sparse_circuits.view.explorer import explore

N_LAYERS, N_HEADS = 23, 12
N_ASKED = 6300  # of which about 5,000 are left when what dangles is removed
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--no-first-run"]  # fmt: skip
STEP = """async (i) => {
  const slider = document.getElementById('size');
  const frame = () => new Promise(requestAnimationFrame);
  const settled = () => new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(0);
  });
  await frame(); await settled();
  const start = performance.now();
  slider.value = i;
  slider.dispatchEvent(new Event('input'));
  await frame(); await settled();  // the frame in which it is drawn has been handed to the compositor
  return performance.now() - start;
}"""
READ_BACK = """() => {  // waits until the canvas has really been painted
  const start = performance.now();
  for (const canvas of document.querySelectorAll('.pane:not([hidden]) canvas')) canvas.getContext('2d').getImageData(0, 0, 1, 1);
  return performance.now() - start;
}"""


def scores(seed: int = 0) -> sc.Scores:
    """Random scores of a graph of 300 nodes, a few strong and many weak, as scores are."""
    graph = sc.Graph(n_layers=N_LAYERS, n_heads=N_HEADS, n_kv=N_HEADS)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.shape, generator=generator) ** 3 * graph.mask
    return sc.Scores(
        graph, values, clean=torch.ones(4), corrupted=torch.zeros(4), provenance={"task": "random", "model": "random"}
    )


def steps_of(page: Page, repeats: int) -> dict[str, Any]:
    """Milliseconds of steps over the whole slider, and from the largest circuit to the one before and back."""
    last = int(page.locator("#size").get_attribute("max") or 0)
    page.evaluate(STEP, last - 1)

    def step(i: int) -> float:
        return page.evaluate(STEP, i) + page.evaluate(READ_BACK)

    whole = [step(last - (k % 2)) for k in range(repeats)]
    every = [step(i) for i in range(0, last + 1, 3)]
    edges = page.evaluate("() => document.getElementById('readout').textContent")
    return {
        "largest_circuit_median_ms": statistics.median(whole),
        "largest_circuit_worst_ms": max(whole),
        "all_sizes_median_ms": statistics.median(every),
        "all_sizes_worst_ms": max(every),
        "readout": edges,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument(
        "--browser",
        default=shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"),
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        start = time.perf_counter()
        made = explore(scores(), file, select="greedy", max_size=N_ASKED)
        seconds = time.perf_counter() - start
        compared = Path(folder) / "two.html"
        explore(scores(), compared, compare=scores(1), select="greedy", max_size=N_ASKED // 2, labels=("one", "other"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.browser, args=OPTIONS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            version = browser.version
            start = time.perf_counter()
            page.goto(file.as_uri())
            page.evaluate(STEP, 1)
            page.keyboard.press("0")  # all of it in view
            opened = time.perf_counter() - start
            page.evaluate(
                "() => { const f = document.getElementById('faint'); f.value = 0; f.dispatchEvent(new Event('input')); }"
            )
            one = steps_of(page, args.repeats)
            page.goto(compared.as_uri())
            page.evaluate(
                "() => { const f = document.getElementById('faint'); f.value = 0; f.dispatchEvent(new Event('input')); }"
            )
            two = steps_of(page, args.repeats)
            browser.close()
    result = {
        "nodes": N_LAYERS * (N_HEADS + 1) + 2,
        "edges": one["readout"],
        "page_bytes": len(made.html.encode()),
        "made_in_s": seconds,
        "opened_in_s": opened,
        "one_circuit": one,
        "side_by_side": two,
        "browser": f"Chromium {version}, software rendering, 1280 x 800",
        "cores": os.cpu_count(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
