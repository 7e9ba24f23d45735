"""``report``: what is known of a circuit, put into one HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparse_circuits import __version__
from sparse_circuits.circuit import FeatureScores, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.task import Task
from sparse_circuits.view.explorer.data import clean_meanings
from sparse_circuits.view.explorer.page import Page
from sparse_circuits.view.report.circuit import circuit, model
from sparse_circuits.view.report.comparison import comparison
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.made import made
from sparse_circuits.view.report.markup import Html, join, link, listed, tag
from sparse_circuits.view.report.meaning import meaning
from sparse_circuits.view.report.question import question
from sparse_circuits.view.report.unexplained import unexplained
from sparse_circuits.view.report.verdict import verdict
from sparse_circuits.view.standalone import assembled, text_of

if TYPE_CHECKING:
    Section = Callable[[Given], Html]

SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("question", "The question", question),
    ("verdict", "The verdict", verdict),
    ("model", "The model", model),
    ("circuit", "The circuit", circuit),
    ("curve", "Beside other sizes, random circuits and other methods", comparison),
    ("meaning", "What its nodes mean", meaning),
    ("unexplained", "What was not explained", unexplained),
    ("made", "How it was made", made),
)


def report(
    evaluation: Evaluation,
    path: str | Path | None = None,
    *,
    task: Task | None = None,
    found_on: Task | None = None,
    model: Any = None,
    question: str | None = None,
    corrupted: Tensor | None = None,
    baseline: Baseline | None = None,
    curve: Curve | None = None,
    random: Sequence[Baseline] = (),
    beside: Mapping[str, Curve] | None = None,
    policies: Mapping[str, Evaluation] | None = None,
    name: str | None = None,
    scores: Scores | FeatureScores | None = None,
    meanings: Mapping[str, Any] | None = None,
    looked_at: str | None = None,
    explorer: Page | str | None = None,
    commands: Sequence[tuple[str, str]] = (),
    recorded: Mapping[str, Any] | None = None,
    missing: Mapping[str, str] | None = None,
    title: str | None = None,
    described: int = 20,
    interactive: bool = False,
) -> Page:
    """One page on a circuit for somebody who did not find it: the question, the verdict, the model, the circuit, its curve
    beside others, what its nodes mean, what was not explained, and how it was made.

    >>> result = sc.evaluate(model, circuit, new_task, completeness=True)
    >>> sc.report(result, "ioi.html", task=new_task, found_on=task, model=model, scores=scores)

    Everything is in the page: it opens from disk, needs no network, prints, and the same arguments give the same page.
    What is not given is left out, and the page says so. Nothing is run: the numbers are those of the arguments.

    Args:
        evaluation: of the circuit, best on prompts that it was not found on and with ``completeness=True``.
        path: where to save it, if anywhere: a name that ends in .html.
        task: the evaluation's prompts. found_on: those that the circuit was found on.
        model: for its size, and its tokenizer where prompts or answers are token ids.
        question: the task in words.
        corrupted: the whole model's metric on each corrupted prompt, ``[examples]``.
        baseline: random circuits of the circuit's size.
        curve: circuits of several sizes. random: random circuits of its sizes. beside: curves of others by name.
        name: what the circuit's own method is called beside them; by default its class.
        policies: the same prompts with other rules, by name: "keep" and "remove" for what becomes of error terms,
            "neurons" for as many neurons.
        scores: what the circuit was chosen from, for what was left out of it.
        meanings: by a node's name, what is known of it, as for :func:`explore`; a head may have what ``feature_pages`` and
            what ``head_report`` say in one mapping.
        looked_at: a sentence on the texts that the meanings come from.
        explorer: a page of :func:`explore`, to be opened inside this one.
        commands: lines that make it again, each with what it does.
        recorded: further things to record, by name.
        missing: of "curve", "meanings", "contexts" and "explorer", what to do where they are not given.
        title: by default task and model.
        described: of how many nodes, the strongest, to tell everything; the others have a line each.
        interactive: draw plots with plotly, which adds about 5 MB, instead of as pictures.

    Raises:
        InputError: for something else, or numbers of other prompts or another circuit.
    """
    if not isinstance(evaluation, Evaluation):
        raise InputError(f"report({type(evaluation).__name__}): expected what evaluate(model, circuit, task) returns.")
    if path is not None and Path(path).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"Cannot save a report as {Path(path).name!r}: expected a name that ends in .html.")
    known = evaluation.circuit.provenance
    names = ", ".join(str(known[key]) for key in ("task", "model") if known.get(key))
    given = Given(
        evaluation=evaluation,
        title=title or names or "Circuit",
        name=name,
        task=task,
        found_on=found_on,
        model=model,
        question=question,
        corrupted=corrupted,
        baseline=baseline,
        curve=curve,
        beside=beside or {},
        random=random,
        scores=scores,
        policies=policies or {},
        meanings={name.partition("@")[0]: entry for name, entry in clean_meanings(meanings, "report").items()},
        looked_at=looked_at,
        missing=missing or {},
        explorer=explorer.html if isinstance(explorer, Page) else explorer,
        commands=commands,
        recorded=recorded or {},
        described=described,
        interactive=interactive,
    )
    _check_kinds(given)
    _check(given)
    page = Page(_assemble(given), given.title)
    if path is not None:
        page.save(path)
    return page


_KINDS: Mapping[type, str] = {
    Task: "a Task, made by load_task(...) or Task(...)",
    Evaluation: "what evaluate(model, circuit, task) returns",
    Baseline: "what random_baseline(model, circuit, task) returns",
    Curve: "what faithfulness_curve(model, scores, task) returns",
    Scores: "what attribute(...) returns",
}


def _check_kinds(g: Given) -> None:
    """
    Raises:
        InputError: for an argument of another kind than it has to be.
    """
    several: dict[str, tuple[Any, type]] = {"beside": (g.beside, Curve), "policies": (g.policies, Evaluation)}
    for name, (given, kind) in several.items():
        if not isinstance(given, Mapping):
            raise InputError(f"report({name}={type(given).__name__}): expected a mapping from names to {_KINDS[kind]}.")
    if not isinstance(g.random, Sequence) or isinstance(g.random, str):
        raise InputError(f"report(random={type(g.random).__name__}): expected a list of {_KINDS[Baseline]}.")
    single = {"task": Task, "found_on": Task, "baseline": Baseline, "curve": Curve, "scores": Scores}
    parts = [(name, getattr(g, name), kind) for name, kind in single.items() if getattr(g, name) is not None]
    parts += [(f"random[{i}]", one, Baseline) for i, one in enumerate(g.random)]
    parts += [(f"{name}[{key!r}]", one, kind) for name, (them, kind) in several.items() for key, one in them.items()]
    for name, one, kind in parts:
        if not isinstance(one, (Scores, FeatureScores) if kind is Scores else kind):
            raise InputError(f"report({name}={type(one).__name__}): expected {_KINDS[kind]}.")


def _check(g: Given) -> None:
    """
    Raises:
        InputError: where parts do not belong together.
    """
    for name, values in (("task", g.task), ("corrupted", g.corrupted)):
        if values is not None and len(values) != g.n:
            raise InputError(
                f"report({name}=...) has {len(values)} examples, but the evaluation {g.n}; pass what belongs to it."
            )
    if g.baseline is not None and g.baseline.size != g.circuit.size:
        raise InputError(
            f"report(baseline=...) is of random circuits of {g.baseline.size} {g.thing}s; this circuit has {g.circuit.size}."
        )
    curves = {"curve": g.curve, **{f"beside[{name!r}]": one for name, one in g.beside.items()}}
    for name, one in curves.items():
        if one is not None and len(one.evaluations[0].per_example) != g.n:
            raise InputError(f"report({name}=...) is of other prompts than the evaluation; make both on the same task.")
    if g.curve is not None:
        sizes = {one.circuit.size for one in g.curve.evaluations}
        for one in g.random:
            if one.size not in sizes:
                raise InputError(
                    f"report(random=...) has random circuits of {one.size} {g.thing}s, but the curve's are of "
                    f"{', '.join(map(str, sorted(sizes)))}; make one of each of the curve's circuits with random_baseline."
                )
    if g.scores is not None and g.scores.graph != g.circuit.graph:
        raise InputError(
            "report(scores=...) are of another graph than the circuit's; pass those that it was chosen from."
        )


def _assemble(g: Given) -> str:
    scripts = [text_of("report", "page.js")] if g.explorer is not None else []
    drawing = _plot_scripts() if g.interactive and g.curve is not None else []
    sections = [tag("section", tag("h2", heading), made(g), id=key) for key, heading, made in SECTIONS]
    size = f"{g.size} by {g.own}" if g.parts or g.edges else g.size
    parts = {
        "title": html.escape(g.title),
        "subtitle": html.escape(f"{size}, found in {g.known.get('model', 'a model')} and evaluated on {g.prompts}"),
        "contents": listed((link(f"#{key}", heading) for key, heading, _ in SECTIONS), ordered=True),
        "body": join(*sections, by="\n"),
        "footer": html.escape(f"Made by sparse-circuits {__version__}. The whole report is in this file."),
    }
    return assembled(
        "report",
        g.title,
        (*drawing, *scripts),
        parts=parts,
        allowed=() if g.explorer is None else _allowed_by(g.explorer),
        more='<meta name="color-scheme" content="light dark">\n',
    )


def _plot_scripts() -> list[str]:
    """Plotly's script and the one that draws with it."""
    from sparse_circuits.view.plots import plot_script

    return [piece.removesuffix("</script>") for piece in plot_script().split("<script>")[1:]]


def _allowed_by(page: str) -> list[str]:
    """The scripts that a page's own policy allows: a frame may run only what the page around it allows too."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    words = html.unescape(policy[1]).partition("script-src ")[2].partition(";")[0].split() if policy else []
    return [word for word in words if re.fullmatch(r"'sha256-[A-Za-z0-9+/=]+'", word)]
