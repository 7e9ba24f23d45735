"""Train the bundled model: `python -m sparse_circuits.zoo.train --out DIR`.

Everything follows from the seed: the initial weights, and the text of every step, which depends on the step alone. So a
run that was interrupted and resumed ends with the weights of one that was not. Runs on the CPU.
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sparse_circuits.zoo import language, tokenizer

CHECKPOINT = "checkpoint.pt"
# Wider than GPT-2's 0.02, which is for wider layers: attention starts less flat, and learns sooner.
INITIAL_STD = 0.08


@dataclass(frozen=True)
class Settings:
    """Everything that the weights depend on (together with the language, the library versions and the machine)."""

    seed: int = 0
    steps: int = 8000
    batch: int = 16
    context: int = 96
    layers: int = 4
    heads: int = 8
    width: int = 128
    rate: float = 3e-3
    final_rate: float = 3e-5
    warmup: int = 200
    decay: float = 0.05
    # The parts of the steps in which the text has its early shares, and at which it has reached its late ones.
    early: float = 0.2
    late: float = 0.4

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: a linear warmup, then a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + 0.5 * (self.rate - self.final_rate) * (1 + math.cos(math.pi * done))

    def late_at(self, step: int) -> float:
        """How far the text's shares are from the early ones (0) to the late ones (1)."""
        return min(1.0, max(0.0, (step / self.steps - self.early) / (self.late - self.early)))

    def config(self, fast: PreTrainedTokenizerFast) -> GPT2Config:
        """The model's configuration: GPT-2 with tied embeddings and without dropout."""
        ids = fast.get_vocab()
        return GPT2Config(
            vocab_size=len(fast),
            n_positions=self.context,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            initializer_range=INITIAL_STD,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=ids[language.BOS],
            eos_token_id=ids[language.EOS],
            pad_token_id=ids[language.PAD],
        )


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Vaswani et al.'s positional encoding, [positions, width].

    The learned positions start from it, since "the one before" is then a rotation, and soon found.
    """
    frequencies = torch.exp(-math.log(1000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Run:
    """A training run: the model, the optimizer and how many steps they have taken."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokenizer = tokenizer.build(settings.context)
        self.ids = self.tokenizer.get_vocab()
        torch.manual_seed(settings.seed)
        self.model = GPT2LMHeadModel(settings.config(self.tokenizer)).train()
        with torch.no_grad():
            self.model.transformer.wpe.weight.copy_(sinusoids(settings.context, settings.width) * INITIAL_STD)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))
        self.step = 0

    def batch(self, step: int) -> torch.Tensor:
        """The token ids of a step, [batch, context]."""
        rng = random.Random(f"toy/{self.settings.seed}/{step}")
        late = self.settings.late_at(step)
        rows = [language.row(rng, self.settings.context, late) for _ in range(self.settings.batch)]
        return torch.tensor([[self.ids[token] for token in row] for row in rows])

    def advance(self) -> float:
        """One step; returns the loss, the mean over all tokens."""
        tokens = self.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.step)
        logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def save_checkpoint(self, folder: Path) -> None:
        """Write all that `load_checkpoint` needs."""
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def load_checkpoint(self, folder: Path) -> None:
        """Go on from a checkpoint of a run with the same settings; ValueError if they differ."""
        state = torch.load(folder / CHECKPOINT, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise ValueError(
                f"the checkpoint in {folder} is of a run with other settings: {state['settings']}; "
                f"this run's are {asdict(self.settings)}. Use another --checkpoint folder, or remove the file."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save_model(self, folder: Path, record: dict[str, object]) -> None:
        """Write a Hugging Face folder, and `training.json` with the settings and `record`."""
        folder.mkdir(parents=True, exist_ok=True)
        # Half precision on disk keeps the package small; the configuration has the model load in single precision.
        weights = {name: tensor.half().contiguous() for name, tensor in self.model.state_dict().items()}
        weights.pop("lm_head.weight")  # tied to the embedding
        with replacing(folder / "model.safetensors") as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
        config = {**self.model.config.to_dict(), "architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
        config.pop("_name_or_path", None)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            self.tokenizer.save_pretrained(scratch)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                os.replace(Path(scratch) / file, folder / file)
        # Every release of transformers knows this class; newer ones write a name that older ones don't.
        options = json.loads((folder / "tokenizer_config.json").read_text())
        options["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(folder / "tokenizer_config.json", options)
        write_json(folder / "config.json", config)
        write_json(folder / "training.json", {**asdict(self.settings), **record})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.chmod(0o644)  # some writers make a file that only its owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def train(settings: Settings, out: Path, checkpoint: Path | None = None, every: int = 250) -> Run:
    """Train and save to `out`, with a checkpoint after every `every` steps; goes on from one if there is one."""
    run = Run(settings)
    seconds, start = 0.0, time.perf_counter()
    record = checkpoint / "seconds.json" if checkpoint else None
    if checkpoint and (checkpoint / CHECKPOINT).exists():
        run.load_checkpoint(checkpoint)
        if record and record.exists():
            seconds = float(json.loads(record.read_text()))
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=settings.steps, completed=run.step, loss=math.nan)
        recent = math.nan
        while run.step < settings.steps:
            loss = run.advance()
            recent = loss if math.isnan(recent) else 0.95 * recent + 0.05 * loss
            progress.update(bar, completed=run.step, loss=recent)
            if run.step % every == 0 or run.step == settings.steps:
                spent = seconds + time.perf_counter() - start
                progress.console.log(f"step {run.step}: loss {recent:.4f}, {spent / 60:.1f} minutes")
                if checkpoint and record:
                    run.save_checkpoint(checkpoint)
                    write_json(record, spent)
    minutes = round((seconds + time.perf_counter() - start) / 60, 1)
    tokens = settings.steps * settings.batch * settings.context
    run.save_model(out, {"minutes": minutes, "threads": torch.get_num_threads(), "tokens": tokens})
    return run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.zoo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, help="folder to keep a checkpoint in, and to resume from")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, but is {arguments.steps}")
    if arguments.every < 1:
        parser.error(f"--every must be at least 1, but is {arguments.every}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        train(
            Settings(seed=arguments.seed, steps=arguments.steps), arguments.out, arguments.checkpoint, arguments.every
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
