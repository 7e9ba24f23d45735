"""Pages in a browser, opened from disk as a reader opens them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# The page's own clock: timers of a page that were set earlier and for less go off before it.
_SETTLED = """(milliseconds) => new Promise((done) => setTimeout(
  () => requestAnimationFrame(() => requestAnimationFrame(done)), milliseconds))"""
_OWN = ("file:", "data:", "blob:", "about:")


@dataclass
class Opened:
    """A page in the browser, and all that it complained of or asked the network for."""

    page: Any
    file: Path
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        page, trouble = self.page, self.trouble
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
        page.on("request", lambda asked: asked.url.startswith(_OWN) or trouble.append(f"request: {asked.url}"))
        page.goto(self.file.as_uri())

    def node(self, name: str, pane: str = "a") -> Any:
        return self.page.locator(f"#pane-{pane} .node[data-name={json.dumps(name)}]")

    def settle(self, milliseconds: int = 100) -> None:
        """Until all that the page put off for less than this has happened and been drawn, however slow the machine."""
        self.page.evaluate(_SETTLED, milliseconds)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.settle()

    def text(self, where: str) -> str:
        self.settle()
        return self.page.locator(where).text_content() or ""

    def load_notes(self, file: Path) -> str:
        """Give the explorer a file of notes; what it says when it has read it."""
        self.page.evaluate("document.getElementById('status').textContent = ''")
        self.page.locator("#file").set_input_files(file)
        # not wait_for_function: once it has to wait, the page's own policy forbids what it does
        self.page.locator("#status:not(:empty)").wait_for(state="attached")
        return self.text("#status")

    def data(self) -> dict[str, Any]:
        return json.loads(self.page.locator("#data").text_content() or "")


def close_keys(frame: Any) -> None:
    """In an explorer's frame: the list of keys, which must be open, goes with its button."""
    frame.locator("#keys button").click()
    frame.locator("#keys").wait_for(state="hidden")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="tests in a browser need Playwright")
    if BROWSER is None:
        pytest.skip("tests in a browser need Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a page, or a file that holds one; afterwards none may have complained.

    Nothing moves by itself: a click on what is still being scrolled into place would miss it.
    """
    opened: list[tuple[Any, Opened]] = []

    def go(made: Any, *, width: int = 1280, height: int = 800, **options: Any) -> Opened:
        file = made if isinstance(made, Path) else made.save(tmp_path / f"page{len(opened)}.html")
        options = {"accept_downloads": True, "reduced_motion": "reduce", **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        one = Opened(context.new_page(), file)
        opened.append((context, one))
        return one

    yield go
    for context, one in opened:
        context.close()
        assert one.trouble == []
