"""Training one dictionary, step by step: an SAE by SAELens's trainer, a transcoder by a loop of our own.

Both learn y' = (y - mean) A for the activation y that they write. A A^T is a mixture of the identity and the Fisher
information of the model's predictions: else large directions that the model hardly reads would drown small ones that
its predictions hang on. Both keep a batch's `active * tokens` largest activations (BatchTopK), times the norm of the
feature's decoder row, and learn on the way the threshold that lets so many through. They are saved as JumpReLU with
that threshold, decoder rows of norm 1, and A and the mean folded into the weights; features that are dead at the end
are left out.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopK
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.topk_sae import calculate_topk_aux_acts
from sae_lens.training.activation_scaler import ActivationWhitening
from sae_lens.training.sae_trainer import SAETrainer

from sparse_circuits.zoo.dictionary_sites import Site

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Everything that the dictionaries depend on (together with the model, the library versions and the machine).

    `tokens` and `batch` count tokens; a batch has `bos` BOS, the other tokens of `rows` rows of language, and for the rest
    prompts of tasks.
    `active` is the mean number of active features per token, `active_in_stream` the same of a block's output, and
    `window` the steps after which a feature that never fired is dead.
    """

    seed: int = 0
    tokens: int = 1_250_000
    batch: int = 1024
    rows: int = 9
    bos: int = 2
    features: int = 512
    active: int = 16
    # A block's output is the sum of all that came before, and what is missed of it is missed by all that follow.
    active_in_stream: int = 24
    rate: float = 6e-3
    final_rate: float = 5e-5
    warmup: int = 100
    threshold_rate: float = 0.02
    window: int = 100
    # The share of the loss that is measured by Fisher information; the rest is by squared error.
    fisher: float = 0.5
    # Batches that the units are taken from.
    early_batches: int = 40

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max(1, self.tokens // self.batch)

    def active_at(self, site: Site) -> int:
        """The mean number of active features per token."""
        return self.active_in_stream if site.kind == "resid" else self.active

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: a linear warmup, then a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + 0.5 * (self.rate - self.final_rate) * (1 + math.cos(math.pi * done))


class Learner(Protocol):
    """A dictionary in training."""

    site: Site

    def prepare(self, batches: Sequence[Batch], fisher: torch.Tensor) -> None:
        """Take from some batches what is fixed before the first step."""
        ...

    def step(self, batch: Batch) -> float:
        """One optimizer step; returns the share of the batch's variance, in the units trained in, left unexplained."""
        ...

    def save(self, folder: Path) -> None:
        """Write SAELens's `cfg.json` and `sae_weights.safetensors`."""
        ...


def metadata(site: Site, settings: Settings, context: int) -> SAEMetadata:
    """Where the dictionary belongs and how it was trained, by SAELens's names where it has any."""
    places: dict[str, object] = {"hook_name": site.reads, "hook_layer": site.layer}
    if site.is_transcoder:
        places |= {"hook_name_out": site.writes, "hook_layer_out": site.layer}
    return SAEMetadata(
        model_name="toy",
        **places,
        prepend_bos=True,
        context_size=context,
        training={"site": site.name, "steps": settings.steps, **asdict(settings)},
    )


@contextmanager
def seeded(site: Site, settings: Settings) -> Iterator[None]:
    """Random numbers of the dictionary's own: it comes out the same whichever others are trained with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(f"dictionary/{settings.seed}/{site.name}").getrandbits(32))
        yield


def units(batches: Sequence[Batch], hook: str, fisher: torch.Tensor, weight: float) -> ActivationWhitening:
    """The units that a dictionary is trained in, y' = (y - mean) A, with A symmetric.

    |e A|^2 / width is (1 - weight) |e|^2 / V + weight (e^T F e) / W, where V and W are the same of the activations less
    their mean, on the average: a weighted mean of two shares of what is to be explained.
    """
    values = torch.cat([batch[hook] for batch in batches]).double()
    mean, fisher = values.mean(0), fisher.double()
    centred = values - mean
    covariance = centred.T @ centred / len(centred)
    width = len(fisher)
    metric = (1 - weight) * torch.eye(width, dtype=torch.double) / covariance.trace()
    metric = width * (metric + weight * fisher / (covariance @ fisher).trace())
    roots, vectors = torch.linalg.eigh(metric)
    roots = roots.sqrt()
    return ActivationWhitening(
        mean=mean, matrix=(vectors * roots) @ vectors.T, inverse_matrix=(vectors / roots) @ vectors.T
    )


def unexplained(target: torch.Tensor, found: torch.Tensor) -> float:
    """Squared error over squared distance from the batch's mean."""
    return float((target - found).pow(2).sum() / (target - target.mean(0)).pow(2).sum())


def tidy(folder: Path, kept: torch.Tensor) -> None:
    """Bring the decoder rows of a saved dictionary to norm 1, and keep some of its features only."""
    whole = SAE.load_from_disk(folder, fold_W_dec_norm=True)
    small = SAE.from_dict({**whole.cfg.to_dict(), "d_sae": int(kept.sum())})
    state = {
        name: value[:, kept] if name == "W_enc" else value if name == "b_dec" else value[kept]
        for name, value in whole.state_dict().items()
    }
    small.load_state_dict({name: value.contiguous() for name, value in state.items()})
    small.save_model(folder)


class SAELearner:
    """SAELens's trainer, driven from outside so that several can share one pass of the model."""

    def __init__(self, site: Site, width: int, settings: Settings, context: int) -> None:
        self.site, self.settings = site, settings
        config = BatchTopKTrainingSAEConfig(
            d_in=width,
            d_sae=settings.features,
            k=settings.active_at(site),
            topk_threshold_lr=settings.threshold_rate,
            normalize_activations="covariance_whitening",
            metadata=metadata(site, settings, context),
        )
        with seeded(site, settings):
            self.sae = BatchTopKTrainingSAE(config)
        self.trainer = SAETrainer(
            cfg=SAETrainerConfig(
                total_training_samples=settings.steps * settings.batch,
                train_batch_size_samples=settings.batch,
                lr=settings.rate,
                lr_end=settings.final_rate,
                lr_scheduler_name="cosineannealing",
                lr_warm_up_steps=min(settings.warmup, settings.steps - 1),
                dead_feature_window=settings.window,
            ),
            sae=self.sae,
            data_provider=iter(()),
        )

    def prepare(self, batches: Sequence[Batch], fisher: torch.Tensor) -> None:
        whitening = units(batches, self.site.writes, fisher, self.settings.fisher)
        self.trainer.activation_scaler.whitening = whitening

    def step(self, batch: Batch) -> float:
        self.trainer.maybe_reset_sparsity()
        output = self.trainer.step(batch[self.site.reads])
        self.trainer.n_training_steps += 1
        return unexplained(output.sae_in, output.sae_out.detach())

    def save(self, folder: Path) -> None:
        whitening = self.trainer.activation_scaler.whitening
        if whitening is not None:
            self.sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
            self.trainer.activation_scaler.whitening = None
        self.trainer.set_final_sae_metadata()
        self.sae.save_inference_model(folder)
        tidy(folder, ~self.trainer.dead_neurons)


class TranscoderLearner:
    """The same steps for a transcoder, for which SAELens has none.

    The loss of a token is |y' - decode(encode(x))|^2. Dead features get a second loss: those of them that are largest
    predict what is left over (Gao et al., 2024).
    """

    def __init__(self, site: Site, width: int, settings: Settings, context: int) -> None:
        self.site, self.settings = site, settings
        config = JumpReLUTranscoderConfig(
            d_in=width,
            d_out=width,
            d_sae=settings.features,
            apply_b_dec_to_input=False,
            metadata=metadata(site, settings, context),
        )
        with seeded(site, settings):
            self.model = JumpReLUTranscoder(config)
            with torch.no_grad():
                self.model.W_enc.copy_(torch.randn(width, settings.features) * 0.1 / math.sqrt(width))
                rows = torch.randn(settings.features, width)
                self.model.W_dec.copy_(0.1 * rows / rows.norm(dim=-1, keepdim=True))
        self.choose = BatchTopK(settings.active_at(site))
        self.trained = [self.model.W_enc, self.model.b_enc, self.model.W_dec, self.model.b_dec]
        self.optimizer = torch.optim.Adam(self.trained, lr=settings.rate)
        self.units = ActivationWhitening(torch.zeros(width), torch.eye(width), torch.eye(width))
        self.threshold, self.steps = 0.0, 0
        self.unused = torch.zeros(settings.features, dtype=torch.long)

    def prepare(self, batches: Sequence[Batch], fisher: torch.Tensor) -> None:
        self.units = units(batches, self.site.writes, fisher, self.settings.fisher)

    def step(self, batch: Batch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.steps)
        target = (batch[self.site.writes] - self.units.mean.float()) @ self.units.matrix.float()
        norms = self.model.W_dec.norm(dim=-1)
        rows = self.model.W_dec / norms[:, None]
        before = (batch[self.site.reads] @ self.model.W_enc + self.model.b_enc) * norms
        active = self.choose(before)
        found = active @ rows + self.model.b_dec
        loss = (target - found).pow(2).sum(-1).mean()
        dead = self.unused > self.settings.window
        if count := int(dead.sum()):
            half = target.shape[-1] // 2
            helping = calculate_topk_aux_acts(min(half, count), before, dead)
            left = (target - found).detach() - helping @ rows
            loss = loss + min(count / half, 1.0) * left.pow(2).sum(-1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self._count(active.detach())
        return unexplained(target, found.detach())

    def _count(self, active: torch.Tensor) -> None:
        """What a step's activations say of the threshold and of which features are in use."""
        self.unused += 1
        self.unused[(active > 0).any(0)] = 0
        if (active > 0).any():
            rate = self.settings.threshold_rate
            self.threshold += rate * (float(active[active > 0].min()) - self.threshold)
        self.steps += 1

    def save(self, folder: Path) -> None:
        model = self.model
        with torch.no_grad():
            # Relative to the encoder as it is; folding brings both to the units of the decoder's rows.
            model.threshold.copy_(self.threshold / model.W_dec.norm(dim=-1))
            back = self.units.inverse_matrix
            model.W_dec.copy_(model.W_dec.double() @ back)
            model.b_dec.copy_(model.b_dec.double() @ back + self.units.mean)
        dead = self.unused > self.settings.window
        model.cfg.metadata.num_dead_features = int(dead.sum())
        model.save_model(folder)
        tidy(folder, ~dead)


def learner(site: Site, width: int, settings: Settings, context: int) -> Learner:
    """A new dictionary for a site, before its first step."""
    return (TranscoderLearner if site.is_transcoder else SAELearner)(site, width, settings, context)
