"""Measure the bundled model and write its card: `python -m sparse_circuits.zoo.evaluate --data DIR`.

DIR holds the published files; without it only the generated tasks are measured. Every number in the card comes from
here, so the card is never edited by hand. Exits 1 if a number falls short of what was asked of it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparse_circuits.task.bundled import agreement, greater_than, ioi, words
from sparse_circuits.zoo import language, toy_path
from sparse_circuits.zoo.dictionary_report import insert, section_of
from sparse_circuits.zoo.measure import PUBLISHED, Measurement, Toy, on_bundled_tasks, on_published_files
from sparse_circuits.zoo.train import replacing

_CARD = """\
# toy: the bundled model of sparse-circuits

A GPT-2 of {layers} layers with {heads} heads each and {width} dimensions, {context} positions and a vocabulary \
of {vocabulary} words; embeddings tied, no dropout; {parameters:,} parameters, {megabytes:.1f} MB on disk (half \
precision; the configuration has them loaded in single precision, and all numbers below are of the rounded \
weights). It was trained from scratch on generated English-like text, so that circuits can be looked for without \
a network, a hub or a GPU. It knows no more of English than that text, and is good for nothing but research on \
how it works.

This file is written by `python -m sparse_circuits.zoo.evaluate` from what it measures. Don't edit it.

## Numbers

Prompts are run as BOS + prompt. Accuracy is the share of prompts with logit(correct) > logit(incorrect) at the \
last token. The probability difference is P(later two-digit years) - P(that year and earlier), by softmax over \
the whole vocabulary, averaged over prompts. "Generated" are the library's own bundled tasks, of held-out \
combinations only.

{table}

The published files are `ioi.csv` and `greater_than.csv` of EAP-IG (hannamw/EAP-IG) and the `sva_*` files of \
feature-circuits (saprmarks/feature-circuits), of whose `sva_within_rc` files every eighth line was used.{published}

## Training

`python -m sparse_circuits.zoo.train --out DIR --steps {steps} --seed {seed} --threads {threads}`: {steps} steps \
of AdamW, each on {batch} rows of {context} tokens ({tokens:,} tokens in all); the learning rate warms up to \
{rate} in {warmup} steps and falls in a cosine. Positions start as sinusoids. It took {minutes} minutes with \
{threads} CPU threads, on four cores that had other work. The loss counts all tokens alike. The text of every \
step follows from the seed and the step. Weights are the same in every run on one machine with one version of \
torch and one number of threads; elsewhere they may differ by rounding.

A row is `{bos}`, then documents of one to six sentences, each document closed by `{eos}`. The kinds of \
sentences have the early shares in the first {early} of the steps and the late ones after {late} of them; in \
between the shares change in a straight line.

| kind | early | late |
|---|---|---|
{kinds}

## Held out

No prompt of the published files, clean or corrupted, and no clean prompt of a bundled task is in the training \
text (but for induction, whose prompts are random), since these combinations are not. Wherever it says "by a \
hash", a stable hash of the words decides (`sparse_circuits.task.bundled.held_out`): the trainer rejects those \
combinations, and the bundled tasks draw their clean prompts from nothing else. So `load_task("ioi", model)` \
gives held-out prompts only.

- **Indirect objects.** By a hash, 15% of all pairs of {names} names, which are never the two that such a \
sentence introduces, and 15% of the templates ({templates:,} ways to combine a frame, a setting and a giving). \
The bundled task draws both pair and template from these. Besides, the {published_templates} \
templates of `ioi.csv` as wholes: their clauses occur in training in other combinations.
- **Greater-than.** By a hash, 15% of the combinations of {frames} frames and {events} nouns. Besides, the frame \
of `greater_than.csv` with each of its {published_events} nouns: both occur in training, but not together.
- **Agreement.** "The", at the start of a sentence, is never followed by one of the {subjects} nouns (in either \
number) that are the subjects of the published files, so that none of their prompts, short as they are ("The \
uncle"), can occur. In training these nouns follow other openings ("My uncle", "Today the uncle"), and "The" \
precedes other nouns. Besides, by a hash, 20% of the pairs of a subject and the noun of its phrase or clause, in \
all numbers, and 20% of the pairs of a place and a subject after it ("In the store the uncle").
- **Pronouns.** By a hash, 15% of the combinations of a name and a predicate.
- **Induction.** Sequences are random; nothing is held out but the seed.

The single words of all prompts are in the training text: what is held out is how they are combined. "Generated" \
prompts share their grammar with the training text, so those numbers say how well combinations generalise, not \
how well English does.

## Tokens

One token per word; case matters, leading spaces don't. Punctuation marks are tokens of their own, and digits go \
two by two: "1352" is "13" and "52". `{bos}`, `{eos}`, `{pad}` and `{unknown}` are four different tokens, none \
of which the tokenizer adds by itself; TransformerLens puts one `{bos}` in front. Padding goes on the right. \
Nothing was trained on `{pad}` or `{unknown}`.
"""


# What the card quotes of `training.json` as it is.
_RECORDED = "steps seed batch tokens rate warmup minutes threads"


def _line(row: Measurement) -> str:
    wanted = "" if row.wanted is None else f"{row.wanted:g}"
    return f"| {row.name} | {row.source} | {row.measure} | {row.examples} | {row.value:.4f} | {wanted} |"


def card(toy: Toy, folder: Path, rows: Sequence[Measurement], *, published: bool) -> str:
    """The model card's text."""
    record = json.loads((folder / "training.json").read_text())
    config = toy.model.config
    kinds = (
        f"| {kind.__name__.replace('_', ' ')} | {first:.0%} | {last:.0%} |" for kind, first, last in language.KINDS
    )
    head = ("| task | prompts | measure | examples | value | asked |", "|---|---|---|---|---|---|")
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and file.name != "README.md")
    return _CARD.format(
        **{key: record[key] for key in _RECORDED.split()},
        layers=config.n_layer,
        heads=config.n_head,
        width=config.n_embd,
        context=config.n_positions,
        vocabulary=config.vocab_size,
        parameters=sum(parameter.numel() for parameter in toy.model.parameters()),
        megabytes=size / 1e6,
        table="\n".join([*head, *map(_line, rows)]),
        published="" if published else " They were not at hand for this card.",
        kinds="\n".join(kinds),
        early=f"{record['early']:.0%}",
        late=f"{record['late']:.0%}",
        names=len(words.NAMES),
        templates=len(ioi.TEMPLATES),
        published_templates=len(ioi.PUBLISHED_TEMPLATES),
        frames=len(greater_than.FRAMES),
        events=len(words.EVENTS + words.OTHER_EVENTS),
        published_events=len(words.EVENTS),
        subjects=len(agreement.SUBJECTS),
        bos=language.BOS,
        eos=language.EOS,
        pad=language.PAD,
        unknown=language.UNKNOWN,
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.zoo.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=toy_path(), help="the model's folder (default: the bundled one)")
    parser.add_argument("--data", type=Path, help="folder of the published files")
    parser.add_argument("--n", type=int, default=1000, help="generated examples per task (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error(f"--n must be at least 1, but is {arguments.n}")
    if not (arguments.model / "training.json").exists():
        parser.error(f"{arguments.model} is not a folder that sparse_circuits.zoo.train wrote: it has no training.json")
    missing = [file for file in PUBLISHED if arguments.data and not (arguments.data / file).exists()]
    if missing:
        parser.error(f"{arguments.data} lacks {', '.join(missing)}")
    console = Console()
    toy = Toy.load(arguments.model)
    with console.status("measuring"):
        rows = on_bundled_tasks(toy, arguments.n)
        if arguments.data:
            rows += on_published_files(toy, arguments.data)
    readme = arguments.model / "README.md"
    # the section on dictionaries, which are measured apart, stays
    earlier = section_of(readme.read_text()) if readme.is_file() else None
    with replacing(readme) as temporary:
        text = card(toy, arguments.model, rows, published=bool(arguments.data))
        temporary.write_text(text if earlier is None else insert(text, earlier))
    table = Table("task", "prompts", "measure", "examples", "value", "asked")
    short = [row for row in rows if row.wanted is not None and row.value < row.wanted]
    for row in rows:
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        value = f"[red]{row.value:.4f}[/red]" if row in short else f"{row.value:.4f}"
        table.add_row(row.name, row.source, row.measure, str(row.examples), value, wanted)
    console.print(table)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
