"""``sparse-circuits demo``: two first circuits with their pages, from nothing but what is installed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from sparse_circuits.cli import output
from sparse_circuits.cli.contexts import component_reports
from sparse_circuits.cli.feature_search import search_features
from sparse_circuits.cli.feature_summary import report_features, write_features
from sparse_circuits.cli.folder import check_out
from sparse_circuits.cli.load import load_model_on
from sparse_circuits.cli.options import Device, Examples, option
from sparse_circuits.cli.record import PAGE, Arguments
from sparse_circuits.cli.search import search
from sparse_circuits.cli.summary import report, write
from sparse_circuits.errors import InputError

if TYPE_CHECKING:
    from sparse_circuits.cli.feature_search import FoundFeatures
    from sparse_circuits.features import Feature, HeadReport, MLPReport

EXAMPLES = ("demo", "demo --out first-look")
IOI, AGREEMENT = "ioi", "agreement"
_PROMPTS = 16  # that heads and MLPs are looked at on
_TOKENS = 30_000  # that features are looked at on


def demo(
    out: Annotated[
        Path,
        option(
            "--out", "Folder for the runs; those that an earlier demo left are replaced.", "runs/demo", metavar="FOLDER"
        ),
    ] = Path("runs/demo"),
    examples: Examples = None,
    device: Device = None,
) -> None:
    """Find two circuits of the bundled model, and write a page to explore each in.

    Indirect object identification as a circuit of heads and MLPs, then agreement of subject and verb across a relative
    clause as one of SAE features, with what these fire on. Takes less than two minutes on two CPU cores. Without SAELens
    only the first is found.
    """
    for name in (IOI, AGREEMENT):
        check_out(out / name, force=True)
    output.line('"Then, Amy and Erica went to the park. Erica gave a ring to ...": to whom?')
    output.line("Looking for the heads and MLPs of the bundled model that carry the answer.")
    output.line()
    _ioi(out / IOI, examples, device)
    left_out = _missing()
    if left_out is None:
        output.line()
        output.line('"The singers that the guards watch ...": are, or is?')
        output.line("Looking for the features of SAEs in its layers that carry the answer.")
        output.line()
        _agreement(out / AGREEMENT, examples, device)
    output.line()
    pages = [IOI] if left_out else [IOI, AGREEMENT]
    output.line("Open in a browser: " + ", ".join(str(out / name / PAGE) for name in pages))
    if left_out:
        output.line(f"The second circuit, of features, was left out. {left_out}")
    output.line(f"Then go on: sparse-circuits evaluate {out / IOI} --curve")


def _ioi(out: Path, examples: int | None, device: str | None) -> None:
    found = search(Arguments(model="toy", task="ioi", size=60, examples=examples), device)
    title = "Indirect object identification in the bundled model"
    write(found, out, force=True, title=title, told=({}, _components(device)))
    report(found, out)


def _components(device: str | None) -> dict[str, HeadReport | MLPReport]:
    """What every head and MLP promotes on the task's prompts, and where the heads look."""
    import sparse_circuits as sc

    model = load_model_on("toy", device)
    names = [name for name in sc.Graph.of(model, level="nodes").nodes if name not in ("input", "logits")]
    return component_reports(model, sc.load_task("ioi", model, n=_PROMPTS), names)


def _agreement(out: Path, examples: int | None, device: str | None) -> None:
    wanted = Arguments(
        model="toy",
        task="sva-across-rc",
        level="features",
        dictionaries="toy",
        sites=("resid",),
        size=100,
        examples=examples,
    )
    found = search_features(wanted, device)
    title = "Subject-verb agreement across a relative clause, SAE features"
    write_features(found, out, force=True, title=title, told=(_features(found, device), {}))
    report_features(found, out)


def _features(found: FoundFeatures, device: str | None) -> dict[str, Feature]:
    """What the page's features fire on in the bundled language, and what they promote."""
    from sparse_circuits.features import collect_contexts, feature_pages

    model = load_model_on("toy", device)
    shown = found.circuit if found.curve is None else found.curve.evaluations[-1].circuit
    with TemporaryDirectory() as folder:
        store = collect_contexts(
            model, shown, "toy", store=folder, tokens=_TOKENS, before=10, after=4, top=8, samples=15, progress=True
        )
        return feature_pages(model, shown, store)


def _missing() -> str | None:
    """What to install for circuits of features, where that is needed."""
    from sparse_circuits.dictionary.saelens import require_saelens

    try:
        require_saelens()
    except InputError as error:
        return str(error)
    return None
