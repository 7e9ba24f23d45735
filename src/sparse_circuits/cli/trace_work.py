"""What ``trace`` does: runs a trace, draws it, keeps it in its folder; validates it; compares two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli import output, trace_summary
from sparse_circuits.cli.contexts import PAGES, STORE, write_pages
from sparse_circuits.cli.folder import new_folder
from sparse_circuits.cli.json_record import text_of
from sparse_circuits.cli.load import ablation_named, load_model_on
from sparse_circuits.cli.meanings import read_pages
from sparse_circuits.cli.record import CIRCUIT
from sparse_circuits.cli.trace_record import (
    NEXT,
    TRACE,
    TRACE_RECORD,
    VALIDATION,
    Slice,
    TraceRecord,
    settle,
)
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.dictionary import Dictionaries
    from sparse_circuits.tracing import Trace
    from sparse_circuits.tracing.method import TracingMethod

PICTURES = ("trace.svg", "trace.png", "trace.dot")
TOKENS = 20_000
"""Of the bundled language, looked at for the bundled model."""
# as many as can be read: what was ablated, and the features most changed among those reached; the .dot has all
_MAX_NODES, _REACHED, _MAX_EDGES = 40, 10, 100


@dataclass(frozen=True)
class Asked:
    """What one run was asked to do; None: as the library does, or as the form of tracing has it."""

    at: str | None = None
    features: tuple[str, ...] | None = None
    top: int | None = None
    threshold: float | None = None
    bottom: int | None = None
    steps: int | None = None
    contexts: int | None = None
    text: str | None = None

    def check(self, of: Slice) -> None:
        """
        Raises:
            InputError: for options of the other form of tracing, or of no use together.
        """
        wrong = ("threshold",) if of.form == "gradient" else ("bottom", "steps")
        for name in wrong:
            if getattr(self, name) is not None:
                other = "ablation" if of.form == "gradient" else "gradient"
                raise InputError(f"--{name} is for tracing by {other}; leave it out.")
        if self.features == ():
            raise InputError("--features names none; expected names such as resid_2.f206,resid_2.f334.")
        if of.form == "ablation" and self.features is not None and self.top is not None:
            raise InputError("--features says what to start from; leave --top out.")
        if self.text is not None and self.contexts == 0:
            raise InputError("--contexts 0 looks at no text; leave --text out.")
        if self.text is not None and ":" not in self.text and self.text != "toy" and not Path(self.text).is_file():
            raise InputError(f"--text {self.text}: there is no such file.")
        if self.contexts and self.text is None and of.model != "toy":
            raise InputError(
                f"Where to look for what features of {of.model} mean is missing; give --text FILE or hf:NAME."
            )
        self.method(of)

    def method(self, of: Slice) -> TracingMethod:
        from sparse_circuits.tracing import ByAblation, ByGradient

        names = ("threshold", "top") if of.form == "ablation" else ("top", "bottom", "steps")
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if of.form == "ablation":
            return ByAblation(**given)
        if self.steps == 0:
            given["steps"] = None
        return ByGradient(**given)


def grow(
    of: Slice,
    asked: Asked,
    out: Path,
    *,
    earlier: Path | None = None,
    force: bool = False,
    commands: tuple[str, ...],
    batch_size: int | str,
    device: str | None,
) -> None:
    """One run, and the folder with the trace as it then is."""
    import sparse_circuits as sc

    before = None if earlier is None else sc.Trace.load(earlier / TRACE)
    model = load_model_on(of.model, device)
    task = sc.load_task(of.task, model, n=of.examples, seed=of.seed)
    with output.working(f"loading dictionaries {of.dictionaries}"):
        dictionaries = sc.load_dictionaries(of.dictionaries, model, sites=of.sites)
    of = replace(of, examples=len(task))
    if of.dictionaries in ("toy", "neurons"):  # what they hold by default may grow
        of = replace(of, sites=tuple(dictionaries))
    graph = sc.Graph.of(model, dictionaries, whole=of.whole or ())
    trace = sc.trace(
        model,
        graph,
        task,
        asked.method(of),
        at=asked.at,
        features=asked.features,
        extend=before,
        ablation=ablation_named(of.ablation),
        positions=of.positions,
        batch_size=batch_size,  # pyright: ignore[reportArgumentType]
        progress=True,
    )
    outdated = (VALIDATION,) if before is None or len(trace.runs) > len(before.runs) else ()
    with _folder(out, force, in_place=earlier == out, outdated=outdated) as (folder, final):
        # what is known of features stays where it is from run to run, so that only new ones are looked for
        known = out if earlier == out else folder
        meanings = _meanings(of, asked, model, trace, dictionaries, known, earlier)
        results = trace_summary.results(trace)
        trace.save(folder / TRACE)
        trace.circuit().save(folder / CIRCUIT)
        with output.working("drawing"):
            _draw(trace, folder, meanings, _drawn(trace))
        files = (TRACE, CIRCUIT, *PICTURES, TRACE_RECORD, *((PAGES,) if meanings else ()))
        text = TraceRecord(of, commands, results, files).text
        (folder / TRACE_RECORD).write_text(text, encoding="utf-8")
    trace_summary.report(trace, of, before, final)


@contextmanager
def _folder(out: Path, force: bool, in_place: bool, outdated: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Where to write, and where that ends up: a new folder at once, or together into the one that is there.

    Args:
        outdated: files there that are of the trace as it was.
    """
    if not in_place:
        with new_folder(out, force, TRACE_RECORD) as folder:
            yield folder, out
        return
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write {out}.")
    with TemporaryDirectory(dir=out, prefix=".trace.") as name:
        new = Path(name) / NEXT
        new.mkdir()
        yield new, out
        for old in outdated:
            (out / old).unlink(missing_ok=True)
        new.rename(out / NEXT)
    settle(out)


def _drawn(trace: Trace) -> int:
    """How many nodes the picture has."""
    return max(1, min(_MAX_NODES, len(trace.traced) + _REACHED))


def _draw(trace: Trace, folder: Path, meanings: Mapping[str, Any] | None, nodes: int) -> None:
    from sparse_circuits.view.figures import save

    svg, png, dot = (folder / name for name in PICTURES)
    save(trace.plot(svg, meanings=meanings, max_nodes=nodes, max_edges=_MAX_EDGES), png)
    dot.write_text(trace.to_dot(meanings=meanings), encoding="utf-8")


def _meanings(
    of: Slice, asked: Asked, model: Any, trace: Trace, dictionaries: Dictionaries, folder: Path, earlier: Path | None
) -> dict[str, Any] | None:
    """What is known of the features: as found in some text, now or before; None for nothing."""
    import sparse_circuits as sc

    tokens = asked.contexts
    if tokens is None:
        tokens = None if asked.text is not None else TOKENS if of.model == "toy" else 0
    before = None if earlier is None else read_pages(earlier)
    if tokens == 0:
        return None if before is None else before["features"]
    names, text = _worth_a_look(trace), asked.text or "toy"
    store = sc.collect_contexts(
        model, names, text, store=folder / STORE, dictionaries=dictionaries, tokens=tokens, progress=True
    )
    labels = (
        {}
        if before is None
        else {name: page["label"] for name, page in before["features"].items() if page.get("label")}
    )
    pages = sc.feature_pages(model, names, store, dictionaries=dictionaries, labels=labels)
    write_pages(folder / STORE, store.model, pages, {})
    return {name: page.to_dict() for name, page in pages.items()}


def _worth_a_look(trace: Trace) -> list[str]:
    """All features whose effect is known, and of those reached the ones that are drawn."""
    from sparse_circuits.view.trace_look import TraceLook

    drawn = TraceLook.of(trace, _drawn(trace), None, "trace").nodes
    return list(dict.fromkeys(node.name for node in (*trace.traced, *drawn)))


def validate(
    folder: Path,
    record: TraceRecord,
    *,
    examples: int | None,
    seed: int | None,
    ablation: str | None,
    batch_size: int | str,
    device: str | None,
) -> None:
    """Ablate all of a trace at once, and write what that does beside it."""
    import sparse_circuits as sc
    from sparse_circuits.circuit.files import write_atomically

    of, trace = record.slice, sc.Trace.load(folder / TRACE)
    model = load_model_on(of.model, device)
    n = of.examples if examples is None else examples
    task = sc.load_task(of.task, model, n=n, seed=of.seed if seed is None else seed)
    with output.working(f"loading dictionaries {of.dictionaries}"):
        dictionaries = sc.load_dictionaries(of.dictionaries, model, sites=of.sites)
    found = sc.validate_trace(
        model,
        trace,
        task,
        dictionaries=dictionaries,
        ablation=ablation_named(ablation or of.ablation),
        batch_size=batch_size,  # pyright: ignore[reportArgumentType]
        progress=True,
    )
    content = {"format": "sparse-circuits validation", "version": 1, "seed": of.seed if seed is None else seed}
    text = text_of(content | found.to_dict())
    path = write_atomically(folder / VALIDATION, lambda file: file.write_text(text, encoding="utf-8"))
    trace_summary.report_validation(found, trace.provenance.get("task_hash") == task.hash, path)


def compare(first: Path, second: Path) -> None:
    """Print how far two traces agree."""
    import sparse_circuits as sc

    records = [TraceRecord.load(folder) for folder in (first, second)]
    traces = [sc.Trace.load(folder / TRACE) for folder in (first, second)]
    if traces[0].provenance.get("task_hash") != traces[1].provenance.get("task_hash"):
        raise InputError(
            f"{first} and {second} are traces of different prompts or metrics, so that their effects differ."
        )
    trace_summary.report_comparison(traces[0].compare(traces[1]), (first, second), records[0].slice)
