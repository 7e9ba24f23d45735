"""Small random models of every family, and a task for each."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

# Small operations on many threads are slower than on one; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

import sparse_circuits as sc

pytest_plugins = ["browsing"]
SHARED = Path(__file__).parent.parent.parent / "shared"
HAS_HOOKED = importlib.util.find_spec("transformer_lens.HookedTransformer") is not None

torch.set_num_threads(1)

# Families that norm what attention and MLP write, before it joins the stream.
POST_NORM = ("gemma2", "gemma3", "olmo2")
BRIDGES = (
    "gpt2", "gpt2-scaled", "gptj", "neox", "neox-sequential", "llama", "llama-long", "mistral-window", "qwen2", "qwen3", "gemma",
    "olmo", "olmo-clip", "phi", "phi3-window", *POST_NORM,
)  # fmt: skip
HOOKED = (
    "hooked-gpt2",
    "hooked-rotary-parallel-gqa",
    "hooked-rms",
    "hooked-no-norm",
    "hooked-attn-only",
    "hooked-bidirectional",
    "hooked-local-softcap",
)
FAMILIES = BRIDGES + HOOKED
VOCAB = 61


def hf_config(name: str):
    import transformers

    if name.startswith("gpt2"):
        return transformers.GPT2Config(
            vocab_size=VOCAB, n_embd=24, n_layer=3, n_head=3, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            initializer_range=0.25, scale_attn_by_inverse_layer_idx=name == "gpt2-scaled", bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    if name == "gptj":
        return transformers.GPTJConfig(
            vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=3, n_inner=40, n_positions=32, rotary_dim=4, initializer_range=0.25,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    if name.startswith("neox"):
        return transformers.GPTNeoXConfig(
            vocab_size=VOCAB, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=32, rotary_pct=0.5, initializer_range=0.25, use_parallel_residual=name == "neox",
            hidden_dropout=0.0, attention_dropout=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    common = {
        "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 0,
        "pad_token_id": None,
    }  # fmt: skip
    local_global = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
    long_rope = {
        "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }  # fmt: skip
    make, options = {
        "llama": (transformers.LlamaConfig, {}),
        "llama-long": (
            transformers.LlamaConfig,
            {"head_dim": 10, "rope_parameters": long_rope, "attention_bias": True, "mlp_bias": True},
        ),
        "mistral-window": (transformers.MistralConfig, {"sliding_window": 4}),
        "qwen2": (transformers.Qwen2Config, {"use_sliding_window": True, **local_global}),
        "qwen3": (transformers.Qwen3Config, {"head_dim": 8}),
        "gemma": (transformers.GemmaConfig, {"head_dim": 10, "num_key_value_heads": 1}),
        "gemma2": (
            transformers.Gemma2Config,
            {
                "head_dim": 8, "query_pre_attn_scalar": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
                **local_global,
            },
        ),
        "gemma3": (
            transformers.Gemma3TextConfig,
            {
                "head_dim": 8, "query_pre_attn_scalar": 5, "num_hidden_layers": 3, "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                },
            },
        ),
        "olmo": (transformers.OlmoConfig, {"num_key_value_heads": 4}),
        # few values reach it: each that does bends the metric along a path, which spoils integrals and differences
        "olmo-clip": (transformers.OlmoConfig, {"clip_qkv": 3.5}),
        "olmo2": (transformers.Olmo2Config, {}),
        "phi": (transformers.PhiConfig, {"num_attention_heads": 3, "num_key_value_heads": 3, "partial_rotary_factor": 0.5}),
        "phi3-window": (transformers.Phi3Config, {"sliding_window": 4}),
    }[name]  # fmt: skip
    return make(**(common | options))


def hooked_config(name: str):
    from transformer_lens import HookedTransformerConfig

    options = {
        "hooked-gpt2": {"normalization_type": "LN"},
        "hooked-rotary-parallel-gqa": {
            "normalization_type": "LN", "positional_embedding_type": "rotary", "rotary_dim": 4, "parallel_attn_mlp": True,
            "n_key_value_heads": 2,
        },
        "hooked-rms": {"normalization_type": "RMS", "gated_mlp": True, "positional_embedding_type": "rotary", "rotary_dim": 8},
        "hooked-no-norm": {"normalization_type": None},
        "hooked-attn-only": {"normalization_type": "LNPre", "attn_only": True},
        "hooked-bidirectional": {"normalization_type": "LN", "attention_dir": "bidirectional"},
        "hooked-local-softcap": {
            "normalization_type": "LN", "use_local_attn": True, "attn_types": ["global", "local"], "window_size": 3,
            "attn_scores_soft_cap": 3.0, "output_logits_soft_cap": 8.0,
        },
    }[name]  # fmt: skip
    return HookedTransformerConfig(
        n_layers=2, d_model=24, n_ctx=32, d_head=8, n_heads=4, d_mlp=40, d_vocab=VOCAB, act_fn="gelu", seed=0,
        device="cpu", **options,
    )  # fmt: skip


def make_model(name: str, root: Path, dtype: torch.dtype = torch.float32):
    if name.startswith("hooked"):
        if not HAS_HOOKED:
            pytest.skip("this TransformerLens has no HookedTransformer")
        from transformer_lens import HookedTransformer

        torch.manual_seed(0)
        model = HookedTransformer(hooked_config(name))
        for parameter in model.parameters():  # the default initialisation is too small to tell effects apart
            torch.nn.init.normal_(parameter, std=0.25)
        for module_name, parameter in model.named_parameters():
            if module_name.endswith(".w"):
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        return model.to(dtype)
    from transformers import AutoModelForCausalLM

    folder = root / name
    if not folder.exists():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(hf_config(name))
        for parameter_name, parameter in hf.named_parameters():  # norms and biases that a fresh model leaves at 1 and 0
            if parameter.dim() == 1:
                one = "weight" in parameter_name and not name.startswith("gemma")  # Gemma's factor is 1 + weight
                torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.2)
        hf.save_pretrained(folder)
    return sc.load_model(folder, dtype=dtype, device="cpu")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws without a generator of its own does not depend on the tests that its process ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory):
    """Models by family name, each made once."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def get(name: str, dtype: torch.dtype = torch.float32):
        key = (name, dtype)
        if key not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[key] = make_model(name, root, dtype)
        return made[key]

    return get


def token_task(n: int = 4, length: int = 7, *, varied: bool = False, metric: object = None, seed: int = 0) -> sc.Task:
    """Random prompts of ids that differ in two places; ``varied`` lengths on demand."""
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted = [], []
    for row in range(n):
        size = length - (row % 3 if varied else 0)
        ids = torch.randint(1, VOCAB, (size,), generator=generator)
        other = ids.clone()
        for place in (1, size // 2 + 1):
            other[place] = torch.randint(1, VOCAB, (1,), generator=generator)
        clean.append(ids.tolist())
        corrupted.append(other.tolist())
    metric = metric or sc.LogitDiff([3 + i % 5 for i in range(n)], [10 + i % 7 for i in range(n)])
    return sc.Task(clean, corrupted, metric=metric, name="random")


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command ``demo`` left, of fewer prompts than it takes by itself, and what it printed.

    Made by the first process that asks for it, for all the processes of a run; nothing writes into it afterwards.
    """
    from filelock import FileLock
    from typer.testing import CliRunner

    from sparse_circuits.cli.app import app

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder is its own, in that of the run
        root = root.parent
    out, printed = root / "demo", root / "demo.txt"
    with FileLock(root / "demo.lock"):
        if not printed.exists():
            result = CliRunner().invoke(app, ["demo", "--out", str(out), "--examples", "16", "--device", "cpu"])
            assert result.exit_code == 0, result.output
            printed.write_text(result.stdout, encoding="utf-8")
    return out, printed.read_text(encoding="utf-8")
