"""Hooks of the site's build: the pages that are made from something else, so that they cannot fall behind it.

- Every notebook of ``examples/`` becomes a page, with the outputs it was saved with; nothing is executed. Its README is their
  overview.
- ``<!-- commands -->`` becomes the ``--help`` of every command.
- Links that lead out of ``docs/``, where the files are read as they lie, lead to these pages; those to code become text.
"""

from __future__ import annotations

import base64
import json
import re
import warnings
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
COMMANDS = "<!-- commands -->"
# Larger HTML outputs, and those that run scripts, are pages of their own in a frame.
LARGEST_INLINE = 20_000


def on_files(files: Files, *, config: Any) -> Files:
    overview = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "examples/index.md", content=led_to_pages(overview)))
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        text, beside = page_of(path)
        files.append(File.generated(config, f"examples/{path.stem}.md", content=text))
        for name, content in beside.items():
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    up = "../" * page.file.src_uri.count("/")  # from the page to docs/, whose parent has no pages
    markdown = markdown.replace(f"]({up}../examples/README.md", f"]({up}examples/index.md")
    markdown = re.sub(rf"\]\({up}\.\./examples/(\w+)\.ipynb", rf"]({up}examples/\1.md", markdown)
    markdown = re.sub(rf"\[([^]]+)\]\({up}\.\./[^)]*\)", r"\1", markdown)
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def commands() -> str:
    """The help of every command, in the order in which the program lists them."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from sparse_circuits.cli.app import app

    parts = []
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # typer's about itself
        names = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
        for name in names:
            shown = CliRunner().invoke(app, [name, "--help"], prog_name="sparse-circuits", terminal_width=100)
            parts.append(f"## {name}\n\n{fenced(shown.output.strip(), 'text')}\n")
    return "\n".join(parts)


def page_of(path: Path) -> tuple[str, dict[str, str | bytes]]:
    """A notebook as Markdown, and by name the files beside it: its pictures and what needs a frame."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    beside: dict[str, str | bytes] = {}
    parts = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(led_to_pages(source))
            continue
        if cell["cell_type"] != "code" or not source:
            continue
        parts.append(fenced(source, "python"))
        for index, output in enumerate(cell["outputs"]):
            parts.append(shown(output, f"{path.stem}-{number}-{index}", beside))
    return "\n\n".join(part for part in parts if part), beside


def led_to_pages(markdown: str) -> str:
    """Text of ``examples/`` with its links as they are on the site, where headings of notebooks have other anchors too."""
    markdown = re.sub(r"\[([^]]+)\]\(\.\./(?!docs/)[^)]*\)", r"\1", markdown)
    markdown = re.sub(r"\]\((\w+)\.ipynb", r"](\1.md", markdown.replace("](../docs/", "](../"))
    return re.sub(r"\]\(#([^)]+)\)", lambda found: f"](#{slugify(found[1].replace('-', ' '), '-')})", markdown)


def shown(output: dict[str, Any], name: str, beside: dict[str, str | bytes]) -> str:
    """An output in the first form that a page can show."""
    data = {"text/plain": output["text"]} if "text" in output else output.get("data", {})
    data = {kind: "".join(text) for kind, text in data.items() if isinstance(text, str | list)}
    if "image/png" in data:
        beside[f"{name}.png"] = base64.b64decode(data["image/png"])
        return f"![]({name}.png)"
    if "image/svg+xml" in data:
        beside[f"{name}.svg"] = data["image/svg+xml"]
        return f"![]({name}.svg)"
    html = data.get("text/html")
    if html is not None and (len(html) > LARGEST_INLINE or "<script" in html or "<iframe" in html):
        beside[f"{name}.html"] = f"<!doctype html><meta charset=utf-8><body style='margin:0'>{html}"
        return f'<iframe class="output" src="{name}.html" loading="lazy" title="Output of the cell above"></iframe>'
    if html is not None:
        return f'<div class="output">\n{html}\n</div>'.replace("\n\n", "\n")
    return fenced(data["text/plain"].rstrip("\n"), "{.text .output}") if data.get("text/plain") else ""


def fenced(text: str, kind: str) -> str:
    fence = max(["```", *(run + "`" for run in re.findall(r"^`{3,}", text, re.MULTILINE))], key=len)
    return f"{fence}{kind}\n{text}\n{fence}"
