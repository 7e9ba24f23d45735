"""``explore``: everything that the page needs, put into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.view.explorer.data import clean_meanings, curve_data, evaluation_data, page_data, subtitle
from sparse_circuits.view.explorer.side import Shown, largest_size, side_of
from sparse_circuits.view.explorer.steps import sizes_up_to

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Curve, Evaluation

SCRIPTS = (
    "tools",
    "model",
    "look",
    "draw",
    "nodes",
    "curve",
    "meaning",
    "panel",
    "lists",
    "store",
    "export",
    "keys",
    "main",
)
"""Parts of the page's own script, in the order in which they are joined."""
STATE_FORMAT = "sparse-circuits explorer state"
_FIRST_SIGHT = {"edges": 60, "features": 40}  # parts that are shown at first, of scores without a curve
_FAITHFUL = 0.8  # with a curve: the first size that is as good as this


@dataclass(frozen=True)
class Page:
    """A page that needs nothing but a browser; a notebook shows it in its cell.

    Attributes:
        html: the whole page.
        title: as shown in it.
    """

    html: str
    title: str

    def save(self, path: str | Path) -> Path:
        """Write it, atomically.

        Raises:
            InputError: if the name does not end in .html, or the folder does not exist.
        """
        return write_atomically(_checked(path), lambda to: to.write_text(self.html, encoding="utf-8"))

    def _repr_html_(self) -> str:
        inside, title = html.escape(self.html), html.escape(self.title)
        return (
            f'<iframe srcdoc="{inside}" title="{title}" style="width:100%;height:760px;border:1px solid #CCD1D8" '
            "allowfullscreen></iframe>"
        )

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html.encode()):,} bytes)"


def explore(
    shown: Shown,
    path: str | Path | None = None,
    *,
    curve: Curve | None = None,
    evaluation: Evaluation | None = None,
    meanings: Mapping[str, Any] | None = None,
    compare: Shown | None = None,
    labels: tuple[str, str] | None = None,
    title: str | None = None,
    state: str | Path | Mapping[str, Any] | None = None,
    select: Literal["greedy", "top"] = "greedy",
    signed: bool = False,
    max_size: int | None = None,
) -> Page:
    """A page to explore a circuit in: its graph at every size, what its parts mean, and notes on them.

    Args:
        shown: a circuit, shown at every size up to its own; or scores, shown with the circuits that ``select`` takes.
        path: where to save it, if anywhere: a name that ends in .html.
        curve: faithfulness at several sizes, drawn above the slider; of scores, found with the same ``select``.
        evaluation: how good a circuit is at its own size.
        meanings: by a node's name, what is known of it: what ``feature_pages`` returns, or mappings with any of "label",
            "density", "histogram", "contexts", "promoted", "suppressed", "similar" and "link", and whatever else fits into
            JSON. What is known of a feature goes for it at every position.
        compare: a second circuit or scores of the same graph: shown beside the first, and as their difference.
        labels: names of the two; by default what sets them apart.
        title: by default task and model.
        state: notes, pins, groups and hidden parts to start with, as the page saves them: a file or what is in it.
        select, signed: of scores, how parts are chosen; see :meth:`Scores.greedy`.
        max_size: the slider's end, in edges (at other levels nodes or units); by default all of a circuit, 1000 edges or
            200 features of scores.

    Raises:
        InputError: for anything else, for circuits of different graphs, or a curve of other circuits. FileFormatError: for
            a state that is none.
    """
    to = None if path is None else _checked(path)
    sides = [side for side in (shown, compare) if side is not None]
    for name, side in zip(("", "compare="), sides, strict=False):
        if not isinstance(side, Circuit | FeatureCircuit | Scores | FeatureScores):
            raise InputError(f"explore({name}{type(side).__name__}): expected a circuit or scores.")
    if select not in ("greedy", "top"):
        raise InputError(f"explore(select={select!r}): expected 'greedy' or 'top'.")
    if max_size is not None and (isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1):
        raise InputError(f"explore(max_size={max_size!r}): expected a whole number of at least 1.")
    if max_size is None and curve is not None and isinstance(shown, Scores | FeatureScores):
        max_size = max([largest_size(shown, None), *(n for n in curve.requested if n <= 1000)])
    ends = [largest_size(side, max_size) for side in sides]
    steps = sizes_up_to(max(ends), curve.requested if curve else ())
    a, b = [*(side_of(side, steps, n, select, signed) for side, n in zip(sides, ends, strict=True)), None][:2]
    of_scores = isinstance(shown, Scores | FeatureScores)
    if curve is not None and of_scores:
        _check_curve(curve, dict(zip(steps, a.sizes, strict=True)))
    names = _labels(a, b) if labels is None else labels
    points = curve_data(curve, of_scores)
    data = page_data(
        a, b, steps, _start(shown, steps, points), names, clean_meanings(meanings), points, evaluation_data(evaluation),
        _state(state),
    )  # fmt: skip
    data["title"] = _title(a) if title is None else title
    data["subtitle"] = subtitle(a, b, names, a.circuit.graph.thing, a.circuit.graph.size)
    page = Page(_assemble(data), data["title"])
    if to is not None:
        page.save(to)
    return page


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"Cannot save an explorer page as {path.name!r}: expected a name that ends in .html.")
    return path


def _check_curve(curve: Curve, own: Mapping[int, int]) -> None:
    for asked, size in zip(curve.requested, curve.sizes, strict=True):
        if asked in own and own[asked] != size:
            raise InputError(
                f"explore(curve=...) is of other circuits: {asked} parts asked for gave one of {size} there, and {own[asked]} "
                "here. Pass the scores it was found with, and the same select= and signed=."
            )


def _labels(a: Any, b: Any) -> tuple[str, str]:
    """What sets two circuits apart: the first of method, task and model that differs."""
    if b is not None:
        for key in ("task", "model", "method"):
            one, other = a.provenance.get(key), b.provenance.get(key)
            if one and other and one != other:
                return str(one), str(other)
    return "A", "B"


def _title(a: Any) -> str:
    return ", ".join(str(a.provenance[key]) for key in ("task", "model") if a.provenance.get(key)) or "Circuit"


def _start(shown: Shown, steps: tuple[int, ...], curve: dict[str, Any] | None) -> int:
    """The step shown at first: all of a circuit; of scores the first that is faithful, or a few dozen parts."""
    if isinstance(shown, Circuit | FeatureCircuit):
        return len(steps) - 1
    level = "features" if isinstance(shown, FeatureScores) else "edges"
    wanted = _FIRST_SIGHT[level]
    for point in curve["points"] if curve else ():
        if point["value"] is not None and point["value"] >= _FAITHFUL:
            wanted = point["asked"]
            break
    return max((i for i, size in enumerate(steps) if size <= wanted), default=0)


def _state(state: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the page saved, as far as that can be told."""
    if state is None:
        return None
    if isinstance(state, Mapping):
        found, what = state, "explore(state=...)"
    else:
        what = str(state)
        if not Path(state).is_file():
            raise InputError(f"explore(state=...): there is no file {state}.")
        try:
            found = json.loads(Path(state).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FileFormatError(f"{what} is no saved state of the explorer: {error}.") from error
    if not isinstance(found, Mapping) or found.get("format") != STATE_FORMAT:
        raise FileFormatError(f"{what} is no saved state of the explorer; expected what its Save button writes.")
    return found


def _assemble(data: Mapping[str, Any]) -> str:
    """One file out of markup, style, scripts and data; its own policy forbids it to load anything or to run other scripts."""
    here = files("sparse_circuits.view.explorer")

    def text(name: str) -> str:
        return here.joinpath(name).read_text(encoding="utf-8")

    library = text("d3.min.js")
    own = "'use strict';\n(() => {\n" + "\n".join(text(f"{name}.js") for name in SCRIPTS) + "\n})();\n"
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in (library, own)
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": html.escape(policy),
        "style": text("page.css"),
        "data": _embedded(data),
        "library": library,
        "script": own,
    }
    page = text("page.html")
    pieces = page.split("{{")  # one pass, so that nothing in the data is taken for a place to fill
    return pieces[0] + "".join(parts[key] + rest for key, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
