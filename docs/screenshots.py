"""The explorer's pictures in the documentation: `python docs/screenshots.py` (a minute; it needs Playwright and a Chromium)."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import warnings
from pathlib import Path

from playwright.sync_api import sync_playwright

import sparse_circuits as sc
from sparse_circuits.features import collect_contexts, feature_pages
from sparse_circuits.view.explorer import Page, explore

HERE = Path(__file__).parent
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def ioi() -> Page:
    """The indirect object's circuit of heads and MLPs, with its curve."""
    model = sc.load_model("toy")
    task = sc.load_task("ioi", model)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAPIG(steps=5))
    curve = sc.faithfulness_curve(model, scores, task, sizes=[5, 10, 15, 20, 30, 40, 60, 100, 200, 400])
    return explore(scores, curve=curve, title="Indirect object identification in the bundled model")


def agreement() -> Page:
    """Agreement across a relative clause, of SAE features of the block outputs, with what they mean."""
    model = sc.load_model("toy")
    task, saes = sc.load_task("sva-across-rc", model), sc.load_dictionaries("toy", model, sites=["resid"])
    graph = sc.Graph.of(model, saes)
    method = sc.EAPIG(steps=10, path="activations")
    scores = sc.attribute(model, graph, task, method, nodes_above=0.1)
    curve = sc.faithfulness_curve(model, scores, task, sizes=[5, 10, 20, 40, 60, 80, 120], dictionaries=saes)
    with tempfile.TemporaryDirectory() as folder:
        store = collect_contexts(model, scores.top(120), "toy", store=folder, tokens=30_000, before=10, after=4)
        pages = feature_pages(model, scores.top(120), store)
    title = "Subject-verb agreement across a relative clause, SAE features"
    return explore(scores, curve=curve, meanings=pages, max_size=120, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--browser",
        default=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None),
    )
    parser.add_argument("--pages", type=Path, help="also keep the pages in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=OPTIONS)
        for name, make, size, node in (("ioi", ioi, 40, "a2.h7"), ("agreement", agreement, 60, None)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = make()
            file = made.save((args.pages or Path(folder)) / f"explorer-{name}.html")
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(file.as_uri())
            last = int(page.locator("#size").get_attribute("max") or 0)
            step = next(
                i
                for i in range(last + 1)
                if page.evaluate(f"JSON.parse(document.getElementById('data').textContent).steps[{i}]") >= size
            )
            page.locator("#size").fill(str(step))
            if node is None:
                page.locator("#panel ul.edges button").nth(2).click()
            else:
                page.locator(f'#pane-a .node[data-name="{node}"]').click()
            page.mouse.move(5, 5)
            page.evaluate("document.activeElement.blur()")
            page.wait_for_timeout(500)
            page.screenshot(path=HERE / f"explorer-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
