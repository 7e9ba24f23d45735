"""``explore``: everything that the page needs, put into one HTML file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparse_circuits.circuit import Circuit, FeatureCircuit, FeatureScores, Scores
from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.view.explorer.data import clean_meanings, identity, page_data, scored, subtitle
from sparse_circuits.view.explorer.quality import Quality, quality_of
from sparse_circuits.view.explorer.side import MOST_EDGES, Shown, largest_size, side_of
from sparse_circuits.view.explorer.steps import sizes_up_to
from sparse_circuits.view.naming import about, differences
from sparse_circuits.view.standalone import assembled, embedded, text_of

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation

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
        return write_atomically(checked(path), lambda to: to.write_text(self.html, encoding="utf-8"))

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
    curve: Curve | tuple[Curve | None, Curve | None] | None = None,
    evaluation: Evaluation | tuple[Evaluation | None, Evaluation | None] | None = None,
    baseline: Baseline | None = None,
    meanings: Mapping[str, Any] | None = None,
    compare: Shown | None = None,
    labels: tuple[str, str] | None = None,
    title: str | None = None,
    state: str | Path | Mapping[str, Any] | None = None,
    select: Literal["greedy", "top"] = "greedy",
    signed: bool = False,
    max_size: int | None = None,
    max_edges: int = MOST_EDGES,
) -> Page:
    """A page to explore a circuit in: its graph at every size, what its parts mean, and notes on them.

    Args:
        shown: a circuit, shown at every size up to its own; or scores, shown with the circuits that ``select`` takes.
        path: where to save it, if anywhere: a name that ends in .html.
        curve: faithfulness at several sizes, drawn above the slider; of scores, found with the same ``select``. With
            ``compare``, a pair: the first circuit's and the second's, either of which may be None.
        evaluation: how good a circuit is: ``shown`` itself, or of scores one of those that ``select`` takes from them, with
            which the slider then starts. With ``compare``, a pair likewise.
        baseline: random circuits of that one's size, from :func:`random_baseline`.
        meanings: by a node's name, what is known of it: what ``feature_pages`` returns, or mappings with any of "label",
            "density", "histogram", "contexts", "promoted", "suppressed", "similar" and "link", and whatever else fits into
            JSON. What is known of a feature goes for it at every position.
        compare: a second circuit or scores of the same graph: shown beside the first, and as their difference. Of two
            methods, two tasks, or a model before and after an edit.
        labels: names of the two; by default what sets them apart.
        title: by default task and model.
        state: notes, pins, groups and hidden parts to start with, as the page saves them: a file or what is in it.
        select, signed: of scores, how parts are chosen; see :meth:`Scores.greedy`.
        max_size: the slider's end, in edges (at other levels nodes or units); by default all of a circuit, 1000 edges or
            200 features of scores.
        max_edges: the strongest so many edges are put into the page, which says how many it leaves out; a slider step takes
            longer with more.

    Raises:
        InputError: for anything else, for circuits of different graphs or dictionaries, or a curve or an evaluation of other
            circuits.
            FileFormatError: for a state that is none.
    """
    to = None if path is None else checked(path)
    sides = [side for side in (shown, compare) if side is not None]
    for name, side in zip(("", "compare="), sides, strict=False):
        if not isinstance(side, Circuit | FeatureCircuit | Scores | FeatureScores):
            raise InputError(f"explore({name}{type(side).__name__}): expected a circuit or scores.")
        if isinstance(side, Scores | FeatureScores):
            side.top(0, signed=signed)  # refuses what cannot be ranked
    if select not in ("greedy", "top"):
        raise InputError(f"explore(select={select!r}): expected 'greedy' or 'top'.")
    for name, n in (("max_size", max_size), ("max_edges", max_edges)):
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise InputError(f"explore({name}={n!r}): expected a whole number of at least 1.")
    if labels is not None and (
        isinstance(labels, str) or len(labels) != 2 or not all(isinstance(label, str) for label in labels)
    ):
        raise InputError(f"explore(labels={labels!r}): expected two names, of the first circuit and of the second.")
    from sparse_circuits.evaluation import Baseline, Curve, Evaluation

    curves = _per_side("curve", curve, sides, Curve)
    evaluations = _per_side("evaluation", evaluation, sides, Evaluation)
    if baseline is not None and not isinstance(baseline, Baseline):
        raise InputError(f"explore(baseline={type(baseline).__name__}): expected what random_baseline returns.")
    found = [quality_of(*known) for known in zip(sides, curves, evaluations, (baseline, None), strict=False)]
    page = page_of(
        sides, found, how=[(select, signed)] * len(sides), meanings=meanings, labels=labels, title=title, state=state,
        max_size=max_size, max_edges=max_edges,
    )  # fmt: skip
    if to is not None:
        page.save(to)
    return page


def page_of(
    sides: Sequence[Shown],
    found: Sequence[Quality],
    *,
    how: Sequence[tuple[str, bool]],
    meanings: Mapping[str, Any] | None = None,
    labels: tuple[str, str] | None = None,
    title: str | None = None,
    state: str | Path | Mapping[str, Any] | None = None,
    max_size: int | None = None,
    max_edges: int = MOST_EDGES,
) -> Page:
    """The page of :func:`explore`, of one circuit or two, from what is known of each; the rest as there.

    Args:
        how: of each, ``select`` and ``signed``.
    """
    asked = [known.asked(largest_size(side, max_size)) for side, known in zip(sides, found, strict=True)]
    ends = [
        largest_size(side, max_size if max_size or not _scores(side) else max([largest_size(side, None), *also]))
        for side, also in zip(sides, asked, strict=True)
    ]
    shown = sides[0]
    unordered = len(sides) == 1 and isinstance(shown, Circuit | FeatureCircuit) and not scored(shown)
    steps = (ends[0],) if unordered else sizes_up_to(max(ends), {n for also in asked for n in also})
    made = [
        side_of(side, steps, n, *rule, max_edges, known.step_in(steps))
        for side, n, rule, known in zip(sides, ends, how, found, strict=True)
    ]
    for side, one, known in zip(sides, made, found, strict=True):
        known.check(side, dict(zip(steps, one.sizes, strict=True)))
    a, b = [*made, None][:2]
    names = _labels(a, b) if labels is None else labels
    start = _start(shown, steps, a.sizes, found[0])
    data = page_data(a, b, steps, start, names, clean_meanings(meanings), found, _state(state))
    data["id"] = identity(sides)
    data["title"] = _title(sides) if title is None else title
    data["subtitle"] = subtitle(a, b, names, a.circuit.graph.thing, a.circuit.graph.size)
    return Page(_assemble(data), data["title"])


def checked(path: str | Path) -> Path:
    """The place of a page.

    Raises:
        InputError: for a name that does not end in .html.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"Cannot save an explorer page as {path.name!r}: expected a name that ends in .html.")
    return path


def _scores(shown: Shown) -> bool:
    return isinstance(shown, Scores | FeatureScores)


def _per_side(name: str, given: Any, sides: Sequence[Shown], kind: type) -> list[Any]:
    """One for each circuit, or None; what is no pair belongs to the first."""
    pair = given if isinstance(given, tuple | list) else (given, None)
    if len(pair) != 2 or (pair[1] is not None and len(sides) < 2):
        raise InputError(
            f"explore({name}=...): expected one, or with compare= a pair, of the first circuit and the second."
        )
    for one in pair:
        if one is not None and not isinstance(one, kind):
            raise InputError(f"explore({name}={type(one).__name__}): expected one of type {kind.__name__}.")
    return list(pair[: len(sides)])


def _labels(a: Any, b: Any) -> tuple[str, str]:
    """What sets two circuits apart."""
    return (b and differences(a.provenance, b.provenance)) or ("A", "B")


def _title(sides: Sequence[Shown]) -> str:
    """Task and model; of two circuits both, where they differ."""
    said = (dict.fromkeys(word for side in sides for word in about(side.provenance, key)) for key in ("task", "model"))
    return ", ".join(" / ".join(words) for words in said if words) or "Circuit"


def _start(shown: Shown, steps: tuple[int, ...], own: Sequence[int], found: Quality) -> int:
    """The step shown at first: all of a circuit; of scores the evaluated, the first that is faithful, or a few dozen parts."""
    if not _scores(shown):
        return len(steps) - 1
    if found.evaluation is not None and found.evaluation["x"] in steps:
        return steps.index(found.evaluation["x"])
    level = "features" if isinstance(shown, FeatureScores) else "edges"
    wanted = _FIRST_SIGHT[level]
    for point in found.curve["points"] if found.curve else ():
        if point["value"] is not None and point["value"] >= _FAITHFUL:
            wanted = point["asked"]
            break
    at = max((i for i, size in enumerate(steps) if size <= wanted), default=0)
    return next((i for i in range(at, len(steps)) if own[i]), at)  # so small a circuit may not be connected yet


def _state(state: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the page saved, as far as that can be told."""
    if state is None:
        return None
    if isinstance(state, Mapping):
        found, what = state, "explore(state=...)"
        try:
            json.dumps(state, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FileFormatError(
                f"{what} does not fit into JSON ({error}); expected what the page's Save button writes."
            ) from error
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
    own = "\n".join(text_of("explorer", f"{name}.js") for name in SCRIPTS)
    scripts = (text_of("explorer", "d3.min.js"), f"'use strict';\n(() => {{\n{own}\n}})();\n")
    return assembled("explorer", str(data["title"]), scripts, parts={"data": embedded(data)})
