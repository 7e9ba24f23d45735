"""How good the bundled model's dictionaries are: `python -m sparse_circuits.zoo.measure_dictionaries`.

All is measured on held-out text of the toy language, in rows as the model was trained on. With x the activation that a
dictionary writes and d its reconstruction, over tokens after the BOS:

- variance explained: 1 - sum |x - d|^2 / sum |x - mean(x)|^2;
- L0: the mean number of active features per token;
- dead: features that are active on no token, BOS included;
- loss recovered: (CE(zero) - CE(spliced)) / (CE(zero) - CE(model)), where CE is the mean next-token cross-entropy in nats
  over all positions, with d, or zero, in place of x at every position, the BOS included, and without an error term.

At the BOS, which is the same vector in every row, the error is |x - d|^2 / |x|^2.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sae_lens import SAE

from sparse_circuits.model.load import load_model
from sparse_circuits.zoo import toy_path
from sparse_circuits.zoo.dictionary_report import Measured, Report, Together, insert, section
from sparse_circuits.zoo.dictionary_sites import KINDS, Site, Text, activations, sites
from sparse_circuits.zoo.train import replacing, write_json

REPORT = "report.json"
# Apart from the streams that dictionaries are trained on, which are called by a seed.
STREAM = "dictionaries/held out"
WANTED = 0.95


Hooks = list[tuple[str, Callable[..., torch.Tensor]]]


def load(folder: Path, places: Sequence[Site]) -> dict[str, SAE[Any]]:
    """The dictionaries in `folder`, by name."""
    return {place.name: SAE.load_from_disk(folder / place.name, device="cpu").eval() for place in places}


def splice(place: Site, dictionary: SAE[Any]) -> Hooks:
    """Hooks that put a dictionary's reconstruction in the activation's place."""
    if not place.is_transcoder:
        return [(place.reads, lambda value, hook: dictionary(value))]
    kept: list[torch.Tensor] = []

    def keep(value: torch.Tensor, hook: Any) -> torch.Tensor:
        kept[:] = [value]
        return value

    return [(place.reads, keep), (place.writes, lambda value, hook: dictionary(kept.pop()))]


def zero(place: Site) -> Hooks:
    """A hook that sets to zero what a dictionary writes."""
    return [(place.writes, lambda value, hook: torch.zeros_like(value))]


@torch.no_grad()
def loss(model: Any, parts: Sequence[torch.Tensor], hooks: Hooks) -> float:
    """Mean next-token cross-entropy in nats over all positions of all rows."""
    total, count = 0.0, 0
    for tokens in parts:
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[:, :-1]
        wanted = tokens[:, 1:].flatten()
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum"))
        count += wanted.numel()
    return total / count


@dataclass(frozen=True)
class Codes:
    """What a dictionary makes of the text: the figures that need no splicing."""

    variance_explained: float
    l0: float
    dead: int
    bos_error: float
    bos_l0: float


@torch.no_grad()
def code(place: Site, dictionary: SAE[Any], found: Sequence[Mapping[str, torch.Tensor]]) -> Codes:
    """Encode and decode the activations of all parts of the text."""
    features = dictionary.cfg.d_sae
    fired = torch.zeros(features, dtype=torch.bool)
    error = active = bos_error = bos_size = bos_active = 0.0
    mean = torch.cat([part[place.writes][:, 1:].flatten(0, 1) for part in found]).double().mean(0).float()
    spread = 0.0
    tokens = rows = 0
    for part in found:
        target = part[place.writes]
        latent = dictionary.encode(part[place.reads])
        missed = (target - dictionary.decode(latent)).pow(2).sum(-1)
        on = latent > 0
        fired |= on.flatten(0, 1).any(0)
        error += float(missed[:, 1:].sum())
        spread += float((target[:, 1:] - mean).pow(2).sum())
        active += float(on[:, 1:].sum())
        bos_error += float(missed[:, 0].sum())
        bos_size += float(target[:, 0].pow(2).sum())
        bos_active += float(on[:, 0].sum())
        rows += len(target)
        tokens += missed[:, 1:].numel()
    return Codes(1 - error / spread, active / tokens, int((~fired).sum()), bos_error / bos_size, bos_active / rows)


def recovered(spliced: float, nothing: float, whole: float) -> float:
    """The share of the loss that zeroing costs which the dictionaries save."""
    return (nothing - spliced) / (nothing - whole)


def sets(places: Sequence[Site]) -> Iterator[tuple[str, list[Site]]]:
    """Dictionaries to put in place together, and what the set is called; only what `places` has."""
    by_kind = {kind: [place for place in places if place.kind == kind] for kind in (*KINDS, "transcoder")}
    for kinds in (("attn", "mlp", "resid"), ("attn", "mlp"), ("resid",), ("transcoder",), ("attn", "transcoder")):
        if all(by_kind[kind] for kind in kinds):
            yield " + ".join(kinds), [place for kind in kinds for place in by_kind[kind]]


def measure(
    model: Any, dictionaries: Mapping[str, SAE[Any]], places: Sequence[Site], rows: int, batch: int = 64
) -> Report:
    """Measure all dictionaries on so many rows of held-out text."""
    text = Text(model.tokenizer, model.cfg.n_ctx, STREAM)
    parts = [text.rows(step, min(batch, rows - start)) for step, start in enumerate(range(0, rows, batch))]
    whole = loss(model, parts, [])
    zeroed: dict[str, float] = {}
    figures: list[Measured] = []
    for place in places:
        dictionary = dictionaries[place.name]
        hooks = sorted({place.reads, place.writes})
        codes = code(place, dictionary, [activations(model, part, hooks, place.layer + 1) for part in parts])
        spliced = loss(model, parts, splice(place, dictionary))
        if place.writes not in zeroed:  # a layer's MLP and its transcoder write the same
            zeroed[place.writes] = loss(model, parts, zero(place))
        nothing = zeroed[place.writes]
        figures.append(
            Measured(
                name=place.name,
                features=dictionary.cfg.d_sae,
                loss_spliced=spliced,
                loss_zero=nothing,
                loss_recovered=recovered(spliced, nothing, whole),
                **asdict(codes),
            )
        )
    together: list[Together] = []
    for name, chosen in sets(places):
        spliced = loss(model, parts, [hook for place in chosen for hook in splice(place, dictionaries[place.name])])
        nothing = loss(model, parts, [hook for place in chosen for hook in zero(place)])
        names = tuple(place.name for place in chosen)
        together.append(Together(name, names, spliced, nothing, recovered(spliced, nothing, whole)))
    return Report(rows, sum(part.numel() for part in parts), whole, tuple(figures), tuple(together))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.zoo.measure_dictionaries", description=__doc__)
    parser.add_argument(
        "--dictionaries", type=Path, default=toy_path() / "dictionaries", help="default: the bundled ones"
    )
    parser.add_argument("--card", type=Path, help="a model card to write the section on dictionaries to")
    parser.add_argument("--rows", type=int, default=512, help="rows of held-out text (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.rows < 1:
        parser.error(f"--rows must be at least 1, but is {arguments.rows}")
    model = load_model("toy", device="cpu")
    places = sites(model.cfg.n_layers)
    if missing := [place.name for place in places if not (arguments.dictionaries / place.name / "cfg.json").exists()]:
        parser.error(f"{arguments.dictionaries} lacks {', '.join(missing)}")
    console = Console()
    with console.status("measuring"):
        report = measure(model, load(arguments.dictionaries, places), places, arguments.rows)
    write_json(arguments.dictionaries / REPORT, report.to_dict())
    if arguments.card:
        text = insert(arguments.card.read_text(), section(report, arguments.dictionaries))
        with replacing(arguments.card) as temporary:
            temporary.write_text(text)
    table = Table("dictionary", "variance explained", "L0", "dead", "loss recovered")
    short = [one for one in report.dictionaries if one.loss_recovered < WANTED]
    for one in report.dictionaries:
        value = f"[red]{one.loss_recovered:.4f}[/red]" if one in short else f"{one.loss_recovered:.4f}"
        table.add_row(one.name, f"{one.variance_explained:.4f}", f"{one.l0:.1f}", str(one.dead), value)
    for one in report.together:
        table.add_row(one.name, "", "", "", f"{one.loss_recovered:.4f}")
    console.print(table)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
