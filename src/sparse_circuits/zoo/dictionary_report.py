"""What is reported of the bundled model's dictionaries, and how the model card shows it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

TRAINING = "training.json"
_TITLE = "## Dictionaries\n"
_SECTION = (
    _TITLE
    + """
SAEs of every attention output, MLP output and block output, and a transcoder of every MLP, in SAELens's format: \
`dictionaries/NAME/cfg.json` and `sae_weights.safetensors`, {megabytes:.1f} MB together. All are JumpReLU, in single \
precision, with decoder rows of norm 1. SAEs read and write `blocks.L.hook_attn_out`, `blocks.L.hook_mlp_out` and \
`blocks.L.hook_resid_post`. Transcoders read `blocks.L.ln2.hook_normalized`, the norm's output before its own weight \
and bias, and write `blocks.L.hook_mlp_out`.

{table}

Measured on {rows} rows of held-out text of the toy language ({tokens:,} tokens, other draws than the training's). \
Variance explained, 1 - sum of squared errors / sum of squared distances from the mean, and L0, the mean number of active \
features, are over tokens after the BOS. Dead are features that no token made active. Loss recovered is \
(CE(zero) - CE(spliced)) / (CE(zero) - CE(model)), of the next-token cross-entropy over all positions, with the \
reconstruction, or zero, in place of what the dictionary writes at every position, the BOS too, without error terms; \
CE(model) is {loss:.4f} nats. At the BOS, whose activations are the same in every row, the error is squared error / squared \
norm.

With several in place at once, without error terms; zero is all of their sites set to zero:

{sets}

This section is written by `python -m sparse_circuits.zoo.measure_dictionaries --card README.md`; the figures are also \
in `dictionaries/report.json`.

They were trained by `python -m sparse_circuits.zoo.train_dictionaries --out DIR --seed {seed}`: SAEs with SAELens's \
trainer, transcoders by a loop of the same kind. BatchTopK keeps {active} active features per token on the average \
({active_in_stream} of block outputs); the threshold of JumpReLU is learned on the way. Of {features} features, those \
that the last {window} steps did not see active are left out. {fisher:.0%} of the loss is the share of the variance \
that is left unexplained; the rest is the same with squared error measured by the mean Fisher information of the \
model's predictions in the activation, so that what the model's predictions hang on counts also where it is small. \
{steps} steps of Adam, each on {batch} tokens ({trained:,} in all): {prompts} of every batch are of prompts of the \
bundled tasks, clean and corrupted, {bos} are the BOS, the rest are of rows of language. The learning rate warms up to \
{rate} in {warmup} steps and falls in a cosine. A layer's four were trained side by side; the layers took {minutes} \
minutes, with {threads} CPU thread(s) each, on four cores that had other work. The same seed gives the same weights on \
one machine with one version of the libraries and one number of threads.
"""
)
# What the section quotes of the settings as it is.
_QUOTED = "steps batch seed bos features window active active_in_stream rate warmup"


@dataclass(frozen=True)
class Measured:
    """One dictionary's figures; `measure_dictionaries` says what they are."""

    name: str
    features: int
    variance_explained: float
    l0: float
    dead: int
    loss_spliced: float
    loss_zero: float
    loss_recovered: float
    bos_error: float
    bos_l0: float


@dataclass(frozen=True)
class Together:
    """Several dictionaries in place at once; zero is all of their sites set to zero."""

    name: str
    sites: tuple[str, ...]
    loss_spliced: float
    loss_zero: float
    loss_recovered: float


@dataclass(frozen=True)
class Report:
    """All figures, and on how much text they were taken."""

    rows: int
    tokens: int
    loss_model: float
    dictionaries: tuple[Measured, ...]
    together: tuple[Together, ...]

    def to_dict(self) -> dict[str, object]:
        """As JSON has it, the dictionaries and the sets by name."""
        return {
            **asdict(self),
            "dictionaries": {one.name: asdict(one) for one in self.dictionaries},
            "together": {one.name: {**asdict(one), "sites": list(one.sites)} for one in self.together},
        }


def section(report: Report, folder: Path) -> str:
    """The model card's section on the dictionaries in `folder`."""
    record = json.loads((folder / TRAINING).read_text())
    about = json.loads((folder / report.dictionaries[0].name / "cfg.json").read_text())["metadata"]
    settings = about["training"]
    table = [
        "| dictionary | features | variance explained | L0 | dead | loss recovered | error at BOS | L0 at BOS |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {one.name} | {one.features} | {one.variance_explained:.4f} | {one.l0:.1f} | {one.dead} "
            f"| {one.loss_recovered:.4f} | {one.bos_error:.1e} | {one.bos_l0:.0f} |"
            for one in report.dictionaries
        ),
    ]
    sets = [
        "| in place together | dictionaries | loss | loss with zeros | loss recovered |",
        "|---|---|---|---|---|",
        *(
            f"| {one.name} | {len(one.sites)} | {one.loss_spliced:.4f} | {one.loss_zero:.4f} | {one.loss_recovered:.4f} |"
            for one in report.together
        ),
    ]
    return _SECTION.format(
        table="\n".join(table),
        sets="\n".join(sets),
        megabytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        minutes=", ".join(f"{one['minutes']:.1f}" for one in record.values()),
        threads=" or ".join(sorted({str(one["threads"]) for one in record.values()})),
        rows=report.rows,
        tokens=report.tokens,
        loss=report.loss_model,
        trained=settings["steps"] * settings["batch"],
        fisher=1 - settings["fisher"],
        **{key: settings[key] for key in _QUOTED.split()},
        prompts=settings["batch"] - settings["bos"] - settings["rows"] * (about["context_size"] - 1),
    )


def section_of(card: str) -> str | None:
    """The card's section on dictionaries, or None."""
    start = card.find(_TITLE)
    return None if start < 0 else card[start:]


def insert(card: str, text: str) -> str:
    """The card with this section at its end, in place of the one that it may have."""
    start = card.find(_TITLE)
    return f"{(card if start < 0 else card[:start]).rstrip()}\n\n{text}"
