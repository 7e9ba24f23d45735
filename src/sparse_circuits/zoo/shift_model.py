"""What SHIFT is shown on: the first layers of the bundled model with linear probes in place of its unembedding."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.model.load import load_model
from sparse_circuits.model.sites import Site
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.task import Encoder
from sparse_circuits.zoo import toy_path
from sparse_circuits.zoo.shift_data import Texts


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of a text: ``w . (mean over words of n(stream)) + b``, n the normalised stream; > 0 is class 1.

    Attributes:
        weight: w, ``[d_model]``; ``bias``: b.
    """

    weight: Tensor
    bias: float

    @classmethod
    def fitted(cls, pooled: Tensor, labels: Tensor, penalty: float) -> Probe:
        """Logistic regression: the mean cross-entropy plus ``penalty / 2 |w|^2`` at its minimum, by L-BFGS.

        Args:
            pooled: ``[texts, d_model]``; ``labels``: 0 or 1, ``[texts]``.
        """
        weight = torch.zeros(pooled.shape[1], requires_grad=True)
        bias = torch.zeros((), requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.binary_cross_entropy_with_logits(pooled @ weight + bias, labels)
            value = value + penalty / 2 * weight @ weight
            value.backward()
            return value

        with torch.enable_grad():
            solver.step(loss)  # pyright: ignore[reportArgumentType]
        return cls(weight.detach(), float(bias.detach()))

    def __call__(self, pooled: Tensor) -> Tensor:
        """Classes 0 or 1 of ``[texts, d_model]``: float ``[texts]``."""
        return (pooled @ self.weight + self.bias > 0).float()


@dataclass(frozen=True, eq=False)
class ProbeLogit:
    """A metric: a probe's logit for the right class, from logits whose first entry is ``w . n(stream)`` at every position.

    Attributes:
        labels: 0 or 1 for every example of the task; ``bias``: the probe's.
    """

    labels: Tensor
    bias: float

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        words = words_of(batch.real)
        value = (logits[..., 0] * words).sum(1) / words.sum(1) + self.bias
        return value * (2 * self.labels.to(value)[batch.index] - 1)


def words_of(real: Tensor) -> Tensor:
    """Which tokens are of the text: neither padding nor the BOS. Bool ``[texts, pos]``."""
    return real & (torch.arange(real.shape[1], device=real.device) > 0)


def classifier(layers: int, probe: Probe | None = None) -> Any:
    """The bundled model's first layers as a model of its own, with a probe's direction as the unembedding of token 0.

    The norm before the unembedding has neither weight nor bias; all other tokens' logits are 0.
    """
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        whole = GPT2LMHeadModel.from_pretrained(toy_path())
        config = whole.config.__class__.from_dict(
            {**json.loads((toy_path() / "config.json").read_text()), "n_layer": layers, "tie_word_embeddings": False}
        )
        cut = GPT2LMHeadModel(config)
        missing = cut.transformer.load_state_dict(whole.transformer.state_dict(), strict=False).missing_keys
        if missing:
            raise RuntimeError(f"the bundled model lacks {missing}")
        with torch.no_grad():
            cut.transformer.ln_f.weight.fill_(1)
            cut.transformer.ln_f.bias.zero_()
            cut.lm_head.weight.zero_()
            if probe is not None:
                cut.lm_head.weight[0] = probe.weight
        with tempfile.TemporaryDirectory() as folder:
            cut.save_pretrained(folder)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                copyfile(toy_path() / name, Path(folder) / name)
            model = load_model(folder, device="cpu")
    finally:
        if shown:
            logging.enable_progress_bar()
    model.sparse_circuits_id = f"toy, first {layers} layers, with a probe"
    return model.requires_grad_(False)


def batches(model: Any, texts: Texts, size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids with a BOS, padded on the right, and which are words: ``[texts, pos]`` each, in the texts' order."""
    encode = Encoder(model)
    for start in range(0, len(texts), size):
        rows = [encode.prompt(text) for text in texts.texts[start : start + size]]
        longest = max(map(len, rows))
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        yield tokens, words_of(torch.arange(longest) < torch.tensor([[len(row)] for row in rows]))


@torch.no_grad()
def pooled(model: Any, texts: Texts) -> Tensor:
    """The mean over words of the normalised last stream, ``[texts, d_model]``: what probes read."""
    last, found = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", []
    for tokens, words in batches(model, texts):
        _, cache = model.run_with_cache(tokens, names_filter=[last], stop_at_layer=model.cfg.n_layers)
        normed = F.layer_norm(cache[last], cache[last].shape[-1:], eps=model.original_model.config.layer_norm_epsilon)
        found.append((normed * words[..., None]).sum(1) / words.sum(1, keepdim=True))
    return torch.cat(found)


@torch.no_grad()
def mean_features(model: Any, dictionaries: list[Dictionary], texts: Texts) -> dict[str, Tensor]:
    """Every feature's mean over the words of each text, by site name: ``[texts, features]``."""
    found: dict[str, list[Tensor]] = {dictionary.site.name: [] for dictionary in dictionaries}
    hooks = [dictionary.hook_name for dictionary in dictionaries]
    for tokens, words in batches(model, texts):
        _, cache = model.run_with_cache(tokens, names_filter=hooks, stop_at_layer=model.cfg.n_layers)
        shares = (words / words.sum(1, keepdim=True))[:, None]
        for dictionary in dictionaries:
            found[dictionary.site.name].append((shares @ dictionary.features(cache[dictionary.hook_name]))[:, 0])
    return {site: torch.cat(parts) for site, parts in found.items()}


def word_embeddings(model: Any) -> Dictionary:
    """The token embedding split into words: feature t is 1 where token t stands, and writes its embedding."""
    table = model.embed.weight.detach()
    half_squares = table.square().sum(-1) / 2

    def code(x: Tensor) -> Tensor:
        # the nearest row: |x - w|^2 / 2 = |x|^2 / 2 - <x, w> + |w|^2 / 2
        return F.one_hot((x @ table.T - half_squares).argmax(-1), len(table)).to(x)

    site, d_model = Site("embed"), table.shape[1]
    nothing = table.new_zeros(len(table))
    return Dictionary(
        site, "words", site.hook_name, site.hook_name, table.T, nothing, table, table.new_zeros(d_model), code
    )
