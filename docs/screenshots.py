"""Pictures of the pages that the demo leaves: `python docs/screenshots.py` (a minute; it needs Playwright and a Chromium)."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import warnings
from pathlib import Path

from playwright.sync_api import sync_playwright

from sparse_circuits.cli.demo import AGREEMENT, IOI, demo
from sparse_circuits.cli.page import PAGE

HERE = Path(__file__).parent
SELECTED = {IOI: "a2.h4", AGREEMENT: "resid_3.f344"}
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--browser",
        default=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None),
    )
    parser.add_argument("--runs", type=Path, help="leave the demo's runs in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = args.runs or Path(folder) / "demo"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            demo(runs)
        browser = playwright.chromium.launch(executable_path=args.browser, args=OPTIONS)
        for name, node in SELECTED.items():
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto((runs / name / PAGE).absolute().as_uri())
            page.locator("#panel ul.edges button", has_text=node).click()
            page.mouse.move(5, 5)
            page.evaluate("document.activeElement.blur()")
            page.wait_for_timeout(500)
            page.screenshot(path=HERE / f"explorer-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
