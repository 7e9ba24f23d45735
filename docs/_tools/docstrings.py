"""A griffe extension: docstrings as they are written in this project, turned into what mkdocstrings can show.

- References such as ``:class:`Scores` `` become links. One that no page documents fails a strict build.
- ``<u, v>`` is mathematics, not HTML.
- One line may describe several arguments (``clean, corrupted: ...``), or one after the other (``rows: ... tokens: ...``).
- A name that the package imports lazily is found even where a module is called like it (``attribute``, ``evaluate``).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(class|func|meth|attr|mod):`(~?)([\w.]+)`")
CODE = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)
SECTION = re.compile(r"(Args|Attributes|Raises):")
NAMES = re.compile(r" {4}(\w+(?:, \w+)*): ")


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package once all of it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for name in map(str, pkg.exports or ()):
            if name in pkg.imports:
                pkg.set_member(name, griffe.Alias(name, defined(pkg, name), parent=pkg))
        self._rewrite(pkg, pkg)

    def _rewrite(self, thing: griffe.Object, package: griffe.Module) -> None:
        if thing.docstring:
            thing.docstring.value = rewritten(thing.docstring.value, thing, package)
        for member in thing.members.values():
            if not member.is_alias:
                self._rewrite(member, package)  # pyright: ignore[reportArgumentType]


def defined(module: griffe.Module, name: str) -> griffe.Object:
    """What a name imported by a module of the package is, where it is defined."""
    while name in module.imports:
        path, name = module.imports[name].rsplit(".", 1)
        module = module.package if path == module.package.path else module.package[path.split(".", 1)[1]]
    return module.members[name]  # pyright: ignore[reportReturnType]


def rewritten(text: str, thing: griffe.Object, package: griffe.Module) -> str:
    """A docstring as Markdown with Google-style sections."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("- ") and lines and lines[-1] and not lines[-1].startswith((" ", "-")):
            lines.append("")  # Markdown wants an empty line before a list
        lines.append(line)
    known = {*map(str, thing.members), *(p.name for p in getattr(thing, "parameters", ()))}
    text = re.sub(r"::$", ":", "\n".join(one_each(examples_fenced(lines), known)), flags=re.MULTILINE)
    parts = CODE.split(ROLE.sub(lambda found: link(*found.groups(), thing, package), text))
    return "".join(part if at % 2 else part.replace("<", "&lt;") for at, part in enumerate(parts))


def examples_fenced(lines: list[str]) -> list[str]:
    """With a fence around what starts with ``>>>``, up to the next empty line."""
    out: list[str] = []
    inside = False
    for line in [*lines, ""]:
        if line.startswith(">>>") and not inside:
            out.append("```pycon")
            inside = True
        if inside and not line:
            out.append("```")
            inside = False
        out.append(line)
    return out[:-1]


def one_each(lines: list[str], known: set[str]) -> list[str]:
    """With an entry for each argument and each error.

    Args:
        known: names of arguments and attributes: a sentence that starts with such a name and a colon is about these.
    """
    out: list[str] = []
    entry: list[str] = []
    section = ""

    def close() -> None:
        several = NAMES.match(entry[0]) if entry else None
        for name in several[1].split(", ") if several else [""]:
            out.extend([f"    {name}: {entry[0][several.end() :]}", *entry[1:]] if several else entry)
        entry.clear()

    for line in lines:
        if line and not line.startswith(" "):
            close()
            found = SECTION.fullmatch(line)
            section = found[1] if found else ""
            out.append(line)
        elif section and line:
            first, *others = parted(line, known)
            if re.match(r" {4}\S", line):
                close()
            entry.append(first)
            for other in others:
                close()
                entry.append(f"    {other}")
        else:
            close()
            out.append(line)
    close()
    return out


def parted(line: str, known: set[str]) -> list[str]:
    """A line, cut before what begins a further entry."""
    cuts = [
        found.start()
        for found in re.finditer(r"(?<=[.)]) (\w+(?:, \w+)*): ", line)
        if found[1].endswith("Error") or set(found[1].split(", ")) <= known
    ]
    return [
        line[start:stop].rstrip() if not start else line[start + 1 : stop]
        for start, stop in zip([0, *cuts], [*cuts, None], strict=True)
    ]


def link(kind: str, short: str, name: str, thing: griffe.Object, package: griffe.Module) -> str:
    """A reference to ``name`` as seen from ``thing``."""
    shown = name.rsplit(".", 1)[-1] if short else name.removeprefix(f"{package.path}.")
    return f"[`{shown}`][{path_of(name, kind in ('meth', 'attr'), thing, package)}]"


def path_of(name: str, of_class: bool, thing: griffe.Object, package: griffe.Module) -> str:
    """The full path of a name: of its class, of the package's public ones, of its module."""
    first = name.split(".")[0]
    if first == package.name:
        return name
    if of_class and "." not in name:
        owner = thing if thing.is_class else thing.parent
        return f"{owner.path}.{name}" if owner is not None else name
    if first in map(str, package.exports or ()):
        return f"{package.path}.{name}"
    if first in thing.module.imports:
        return defined(thing.module, first).path + name.removeprefix(first)
    return f"{thing.module.path}.{name}"
