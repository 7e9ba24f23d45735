"""Models and prompts of a given shape, with random weights, and timing in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import sparse_circuits as sc


def gpt2_folder(root: Path, *, n_layer: int = 12, n_head: int = 12, n_embd: int = 768, n_vocab: int = 50257) -> Path:
    """A GPT-2 with random weights, saved as a Hugging Face folder without a tokenizer."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=n_vocab, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    folder = root / f"gpt2-{n_layer}x{n_head}x{n_embd}"
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def token_task(n_prompts: int, n_tokens: int, n_vocab: int, metric: sc.LogitDiff | None = None) -> sc.Task:
    """Random prompts that differ in two places; logit difference of two tokens."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(n_vocab, (n_prompts, n_tokens), generator=generator)
    corrupted = clean.clone()
    corrupted[:, n_tokens // 3] = torch.randint(n_vocab, (n_prompts,), generator=generator)
    corrupted[:, 2 * n_tokens // 3] = torch.randint(n_vocab, (n_prompts,), generator=generator)
    return sc.Task(
        clean.tolist(),
        corrupted.tolist(),
        metric=metric or sc.LogitDiff([1] * n_prompts, [2] * n_prompts),
        name="random tokens",
    )


def in_turns(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each job, the jobs run in turn so that a change of the machine's speed hits them all."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
