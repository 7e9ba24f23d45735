"""The documentation says what is true: its Python runs and shows what it says, its links lead somewhere, its site builds."""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import sparse_circuits as sc

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
IN_DEPTH = [page for page in sorted(DOCS.glob("*.md")) if page.stem not in ("index", "benchmarks", "shift")]
RUN = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md")), *sorted((DOCS / "coming-from").glob("*.md"))]
LINKED = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
]
REFERENCE = sorted((DOCS / "reference").glob("*.md"))

# Code of other projects, and ours that needs what a test has not got, has another title.
PYTHON = re.compile(r'^```python(?: title="sparse-circuits")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^(`{3,}).*?^\1`*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- code ---


def shown(code: str) -> dict[int, str]:
    """Comments behind code, by line."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string[1:].strip() for t in tokens if t.type == tokenize.COMMENT and t.start[1] > 0}


def literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None  # words about the line, not what it shows


def close(value: Any, said: Any, text: str) -> bool:
    """Whether a value is what a comment says it is; numbers to about the last digit that it gives."""
    if isinstance(said, tuple | list):
        parts = text.strip("()[] ").split(",")
        return len(value) == len(said) and all(map(close, value, said, parts))
    if isinstance(said, float):
        digits = len(text.strip().partition(".")[2])
        return abs(float(value) - said) < 1.1 * 10**-digits
    return bool(value == said)


def run(page: Path, compare: bool = True) -> int:
    """Run a page's Python from top to bottom; how many of its lines were compared with what they show."""
    names: dict[str, Any] = {}
    compared = 0
    for block in PYTHON.findall(page.read_text()):
        comments = shown(block)
        for statement in ast.parse(block).body:
            module = ast.Module([statement], [])
            if not isinstance(statement, ast.Expr):
                exec(compile(module, named(page), "exec"), names)
                continue
            value = eval(compile(ast.Expression(statement.value), named(page), "eval"), names)
            text = comments.get(statement.end_lineno or 0, "")
            said = literal(text)
            if said is not None and compare:
                assert close(value, said, text), f"{named(page)}: {ast.unparse(statement)} is {value}, not {text}"
                compared += 1
    return compared


@pytest.mark.parametrize("page", RUN, ids=named)
def test_code_runs_and_shows_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(PYTHON.findall(page.read_text()))
    if 'load_dictionaries("toy"' in code:
        pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    monkeypatch.chdir(tmp_path)
    compared = run(page)
    figures = [text for line in shown(code).values() if literal(text := line) is not None]
    assert compared == len(figures), "a figure stands where nothing is compared with it"


@pytest.mark.parametrize("page", IN_DEPTH, ids=named)
def test_code_in_depth_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few examples and little text: the numbers are not those of the page."""
    code = "\n".join(PYTHON.findall(page.read_text()))
    assert code
    if 'load_dictionaries("toy"' in code:
        pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    collect = sc.collect_contexts
    monkeypatch.setattr(sc, "load_task", functools.partial(sc.load_task, n=4))
    monkeypatch.setattr(
        sc, "collect_contexts", lambda *given, **options: collect(*given, **options | {"tokens": 1_000})
    )
    monkeypatch.chdir(tmp_path)
    run(page, compare=False)


def test_what_is_said_is_compared() -> None:
    assert close(0.984, 0.98, "0.98")
    assert not close(0.994, 0.98, "0.98")
    assert close((8, 20), (8, 20), "(8, 20)")
    assert not close((8, 20, 40), (8, 20), "(8, 20)")
    assert not close("m1", "m0", '"m0"')
    assert literal("a page with a slider") is None


def test_messages_are_the_librarys() -> None:
    """Those that the page on troubleshooting quotes, however the source wraps them."""
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "sparse_circuits").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "guide" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 10
    assert not [message for message in quoted if message not in source]


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_commands_and_their_options_exist(page: Path) -> None:
    from typer.main import get_command

    from sparse_circuits.cli.app import app

    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for block in re.findall(r"^```bash.*?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program != "sparse-circuits":
                continue
            assert words[0] in commands, f"{named(page)}: {line}"
            known = {name for p in commands[words[0]].params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
            given = {word for word in words[1:] if word.startswith("--")}
            assert given <= known, f"{named(page)}: {line}"


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_mathematics_is_not_taken_for_html(page: Path) -> None:
    """A product <u, v> outside code would be a tag, and not be seen."""
    text = re.sub(r"<!--.*?-->", "", FENCED.sub("", page.read_text()))
    plain = re.sub(r"(`+).+?\1|^ {4}.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"<[A-Za-z/][^>\n]*", plain)


# --- links ---


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as both the site and a repository's viewer make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^]]+)\]\([^)]*\)|[`*]", r"\1", heading).lower() for heading in headings]
    words = [re.sub(r"[^\w\s-]", "", heading).strip() for heading in plain]
    return {re.sub(r"\s", "-", heading) for heading in words} & {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)}: no {path}"
        assert ROOT in target.parents, f"{named(page)}: {path} is not part of the project"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{named(page)}: no #{anchor} in {named(target)}"


# --- reference and site ---


def test_every_public_name_is_documented_on_one_page() -> None:
    found = Counter(re.findall(r"^::: sparse_circuits\.(\w+)$", "\n".join(p.read_text() for p in REFERENCE), re.M))
    public = {name for name in sc.__all__ if not name.startswith("__")}
    assert set(found) == public
    assert set(found.values()) == {1}


DOCUMENTED = '''
"""A package."""
from made_up.inner import made
__all__ = ["made"]
'''
INNER = '''
class Kind:
    """One.

    Attributes:
        rows, columns: of <u, v>. size: all, as :meth:`grow` makes it.
    """

    rows: int
    columns: int
    size: int

    def grow(self) -> None:
        """More, as :func:`made`; ``<a>`` is code.

        Raises:
            InputError: for none. FileFormatError: for a
                damaged one.
        """

def made() -> None:
    """Use it::

        made()

    >>> made()
    1
    """
'''


def test_docstrings_become_markdown(tmp_path: Path) -> None:
    griffe = pytest.importorskip("griffe", reason="griffelib is not installed (requirements/tools.txt)")
    folder = tmp_path / "made_up"
    folder.mkdir()
    (folder / "__init__.py").write_text(DOCUMENTED)
    (folder / "inner.py").write_text(INNER)
    (folder / "made.py").write_text("")  # a module of the name of what the package offers
    extensions = griffe.load_extensions(str(DOCS / "_tools" / "docstrings.py"))
    package = griffe.load("made_up", search_paths=[str(tmp_path)], extensions=extensions)
    assert package["made"].final_target.path == "made_up.inner.made"
    kind = package["inner.Kind"]
    attributes = kind.docstring.parse("google")[1].value
    assert [(a.name, a.description) for a in attributes] == [
        ("rows", "of &lt;u, v>."),
        ("columns", "of &lt;u, v>."),
        ("size", "all, as [`grow`][made_up.inner.Kind.grow] makes it."),
    ]
    text, raises = kind["grow"].docstring.parse("google")
    assert text.value == "More, as [`made`][made_up.made]; ``<a>`` is code."
    assert [(str(r.annotation), r.description) for r in raises.value] == [
        ("InputError", "for none."),
        ("FileFormatError", "for a\ndamaged one."),
    ]
    assert package["inner.made"].docstring.value == "Use it:\n\n    made()\n\n```pycon\n>>> made()\n1\n```"


def test_notebooks_become_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (requirements/tools.txt)")
    monkeypatch.syspath_prepend(str(DOCS / "_tools"))
    from hooks import page_of

    def output(**data: str) -> dict[str, Any]:
        return {"output_type": "display_data", "data": {"text/plain": "a thing", **data}}

    cells = [
        {
            "cell_type": "markdown",
            "source": ["# Title\n", "[1](#A-part:-one), [2](../docs/methods.md), [3](other.ipynb), [4](../src/x.py)"],
        },
        {"cell_type": "code", "source": "run()", "outputs": [{"output_type": "stream", "text": ["```\n", "shown\n"]}]},
        {
            "cell_type": "code",
            "source": "draw()",
            "outputs": [output(**{"image/png": "AAAA", "text/html": "<b>x</b>"})],
        },
        {"cell_type": "code", "source": "table()", "outputs": [output(**{"text/html": "<table></table>"})]},
        {"cell_type": "code", "source": "page()", "outputs": [output(**{"text/html": "<script>1</script>"})]},
    ]
    path = tmp_path / "made_up.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, beside = page_of(path)
    assert text.startswith("# Title\n[1](#a-part-one), [2](../methods.md), [3](other.md), 4\n\n```python\nrun()\n```")
    assert "````{.text .output}\n```\nshown\n````" in text
    assert "![](made_up-2-0.png)" in text
    assert '<div class="output">\n<table></table>\n</div>' in text
    assert 'src="made_up-4-0.html"' in text
    assert set(beside) == {"made_up-2-0.png", "made_up-4-0.html"}
    assert beside["made_up-2-0.png"] == b"\0\0\0"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (requirements/tools.txt)")
    folder = tmp_path_factory.mktemp("docs") / "site"
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_the_site_has_every_public_name(site: Path) -> None:
    text = "\n".join(page.read_text() for page in (site / "reference").glob("*.html"))
    for name in sc.__all__:
        if not name.startswith("__"):
            assert text.count(f'id="sparse_circuits.{name}"') == 1, name
    assert ":class:`" not in text
    assert "&amp;lt;" not in text
    returned = re.findall(r"Returns:</span></p>\s*<ul>(.*?)</ul>", text, re.DOTALL)
    assert returned
    assert [part.count("<li") for part in returned] == [1] * len(returned), "a sentence was taken for several results"
    kinds = [re.split(r"\s–\s", re.sub(r"<[^>]+>", "", part))[0] for part in returned]
    assert not [kind for kind in kinds if re.search(r"[a-z] [a-z]", kind)], "half a sentence was taken for a type"


def test_the_site_has_every_command_and_notebook(site: Path) -> None:
    from typer.main import get_command

    from sparse_circuits.cli.app import app

    text = (site / "reference" / "command-line.html").read_text()
    for name in get_command(app).commands:  # pyright: ignore[reportAttributeAccessIssue]
        assert f'<h2 id="{name}">' in text
        assert f"Usage: sparse-circuits {name} " in re.sub(r"<[^>]+>", "", text)
    for notebook in (ROOT / "examples").glob("*.ipynb"):
        page = (site / "examples" / f"{notebook.stem}.html").read_text()
        assert "<h1" in page
        assert len(page) < 1_000_000, "a notebook's outputs make its page too large"


def test_the_site_needs_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="?(https?:[^"\s>]+)', text)
        assert not loaded, f"{page.name}: {loaded}"
        assert "<p>$$" not in text, f"{page.name}: nothing here can render TeX"
