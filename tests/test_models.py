"""Loading models, and refusing those that the library cannot be right about."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import BRIDGES, HAS_HOOKED, VOCAB, hf_config, hooked_config, token_task

import sparse_circuits as sc
from sparse_circuits.model import _checked, anatomy_of
from sparse_circuits.model.norm import Norm

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


@pytest.mark.parametrize("kind", ["layer", "rms", "none"])
def test_norm_derivative_is_autograds(kind: str) -> None:
    torch.manual_seed(0)
    d, width = 12, 5
    norm = (
        Norm(kind, torch.randn(d), torch.randn(d) if kind == "layer" else None, 1e-2)
        if kind != "none"
        else Norm("none")
    )
    x, W, g = torch.randn(3, d), torch.randn(2, d, width), torch.randn(3, 2, width)
    J = torch.autograd.functional.jacobian(lambda x: torch.einsum("rd,hde->rhe", norm(x), W), x)
    expected = torch.einsum("rhe,rhesd,rs->sd", g, J, torch.eye(3))
    r = norm.inverse_scale(x)
    fold = norm.fold(W)
    normalized = torch.zeros_like(x) if kind == "none" else norm.normalize(x, r)
    pulled = torch.einsum("hde,rhe->rd", fold, g) * r
    pulled = pulled - normalized * (normalized * pulled).sum(-1, keepdim=True) / d
    torch.testing.assert_close(pulled, expected, atol=1e-4, rtol=1e-4)
    forward = (
        r[:, None] * torch.einsum("rd,hde->rhe", x, fold) + norm.shift(W)[None].expand(3, -1, -1)
        if kind == "layer"
        else None
    )
    if forward is not None:
        torch.testing.assert_close(forward, torch.einsum("rd,hde->rhe", norm(x), W), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", BRIDGES)
def test_weights_are_read_as_they_are_now(zoo, family: str) -> None:
    """Nothing is remembered between calls: changed weights give changed results."""
    model, task = zoo(family), token_task()
    graph = sc.Graph.of(model)
    before = sc.attribute(model, graph, task).values
    weight = model.blocks[0].attn.o.original_component.weight
    with torch.no_grad():
        weight.mul_(2)
    try:
        after = sc.attribute(model, graph, task).values
        assert not torch.allclose(before, after)
    finally:
        with torch.no_grad():
            weight.div_(2)
    assert torch.allclose(before, sc.attribute(model, graph, task).values, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "qwen3"])
def test_processed_weights_are_understood(tmp_path, family: str) -> None:
    """enable_compatibility_mode folds norms and centres weights: another decomposition, and exact for it too."""
    from conftest import make_model
    from oracles import patched_effects

    model = make_model(family, tmp_path)
    model.enable_compatibility_mode(disable_warnings=True)
    task, graph = token_task(2), sc.Graph.of(model)
    exact = sc.attribute(model, graph, task, sc.Exact()).values
    expected = patched_effects(model, graph, task)
    assert (exact - expected).abs().max() < 2e-4 * expected.abs().max()


def test_unexplained_configuration_is_refused_by_name(tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    config = hf_config("gpt2")
    config.mystery_scale = 3.0
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    with pytest.raises(sc.UnsupportedModelError, match=r"mystery_scale=3\.0"):
        sc.load_model(tmp_path / "m", device="cpu")


def test_unknown_family_is_refused(tmp_path) -> None:
    from transformers import AutoModelForCausalLM, BloomConfig

    config = BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    with pytest.raises(sc.SparseCircuitsError, match="bloom"):
        sc.load_model(tmp_path / "m", device="cpu")


def test_a_changed_forward_pass_is_noticed(tmp_path) -> None:
    """A model that computes something that its parts do not is refused, not explained wrongly."""
    from conftest import make_model

    model = make_model("gpt2", tmp_path)
    model.blocks[1].mlp.original_component.act = torch.nn.ReLU()
    _checked.discard(model)
    anatomy_of(model)  # MLPs are the model's own: any activation will do

    class Warmer(type(model)):
        def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
            return 0.7 * super().forward(*args, **kwargs)

    model.__class__ = Warmer
    _checked.discard(model)
    with pytest.raises(sc.UnsupportedModelError, match="differ from the model's own"):
        anatomy_of(model)


def test_torch_hooks_are_not_left_out_in_silence(zoo) -> None:
    model = zoo("llama")
    handle = model.blocks[0].mlp.register_forward_hook(lambda module, args, output: 2 * output)
    try:
        with pytest.raises(sc.InputError, match="carries hooks at"):
            sc.attribute(model, sc.Graph(2, 4, 2), token_task())
    finally:
        handle.remove()


@pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positional_embedding_type": "shortformer"}, "shortformer"),
        ({"use_attention_sinks": True}, "attention sinks"),
        ({"use_dynamic_ntk_rope": True}, "dynamic NTK"),
    ],
)
def test_hooked_transformer_with_a_quirk_is_refused(change: dict, message: str) -> None:
    from transformer_lens import HookedTransformer

    cfg = hooked_config("hooked-gpt2")
    for key, value in change.items():
        setattr(cfg, key, value)
    with pytest.raises(sc.UnsupportedModelError, match=message):
        sc.Graph.of(HookedTransformer(cfg))


@pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_answers_may_be_tokens_that_only_come_out() -> None:
    """An algorithmic model's output vocabulary can be another than its input's."""
    from transformer_lens import HookedTransformer

    cfg = hooked_config("hooked-gpt2")
    cfg.d_vocab_out = VOCAB + 20
    model = HookedTransformer(cfg)
    task = sc.Task([[1, 2, 3]], [[1, 4, 3]], metric=sc.LogitDiff([VOCAB + 5], [2]))
    assert sc.attribute(model, sc.Graph.of(model), task).values.abs().max() > 0
    beyond = sc.Task([[1, 2, 3]], [[1, 4, 3]], metric=sc.LogitDiff([VOCAB + 20], [2]))
    with pytest.raises(sc.InputError, match="not a token id"):
        sc.attribute(model, sc.Graph.of(model), beyond)


def test_a_bridge_to_something_else_is_refused() -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    cfg = TransformerBridgeConfig(
        n_layers=1, d_model=8, n_ctx=8, d_head=4, n_heads=2, d_mlp=8, d_vocab=9, act_fn="relu",
        architecture="TransformerLensNative",
    )  # fmt: skip
    with pytest.raises(sc.UnsupportedModelError, match="not a Hugging Face model"):
        sc.Graph.of(TransformerBridge.boot_native(cfg))


def test_hooks_of_ones_own_are_not_left_out_in_silence(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = sc.Graph.of(model)
    model.add_hook("blocks.1.hook_resid_pre", lambda x, hook: 2 * x)
    try:
        with pytest.raises(sc.InputError, match="carries hooks"):
            sc.attribute(model, graph, task)
    finally:
        model.reset_hooks()
    sc.attribute(model, graph, task)


def test_dropout_is_refused(tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    config = hf_config("gpt2")
    config.resid_pdrop = 0.5
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    model = sc.load_model(tmp_path / "m", device="cpu")
    assert not model.training
    model.train()
    with pytest.raises(sc.InputError, match="training mode"):
        sc.Graph.of(model)


def test_graph_of_another_model_is_refused(zoo) -> None:
    with pytest.raises(sc.InputError, match="of another model"):
        sc.attribute(zoo("gpt2"), sc.Graph.of(zoo("llama")), token_task())
    with pytest.raises(sc.InputError, match="of another model"):
        sc.evaluate(zoo("gpt2"), sc.Circuit.full(sc.Graph.of(zoo("llama"))), token_task())


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_pre", "blocks.0.hook_mpl_out"])
def test_unknown_hook_names_are_errors(zoo, name: str) -> None:
    model = zoo("gpt2")
    nothing = lambda x, hook: None  # noqa: E731
    for call in (
        lambda: model.run_with_hooks(TOKENS, fwd_hooks=[(name, nothing)]),
        lambda: model.run_with_cache(TOKENS, names_filter=name),
        lambda: model.run_with_cache(TOKENS, names_filter=["hook_embed", name]),
        lambda: model.hooks(fwd_hooks=[(name, nothing)]).__enter__(),
        lambda: model.add_hook(name, nothing),
    ):
        with pytest.raises(sc.InputError, match="no hook point"):
            call()


@pytest.mark.parametrize("name", ["blocks.0.hook_mlp_in", "blocks.0.attn.hook_result", "blocks.0.hook_q_input"])
def test_hooks_that_are_switched_off_are_errors(zoo, name: str) -> None:
    model = zoo("gpt2")
    with pytest.raises(sc.InputError, match="switched off"):
        model.run_with_cache(TOKENS, names_filter=name)
    with pytest.raises(sc.InputError, match="switched off"):
        model.run_with_hooks(TOKENS, fwd_hooks=[(name, lambda x, hook: x)])


def test_usual_hook_names_work(zoo) -> None:
    model = zoo("gpt2")
    fired: list[str] = []
    names = [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.1.attn.hook_z",
        "blocks.2.hook_mlp_out",
        "blocks.2.hook_resid_post",
    ]
    model.run_with_hooks(TOKENS, fwd_hooks=[(n, lambda x, hook, n=n: fired.append(n)) for n in names])
    assert fired == names
    model.run_with_hooks(TOKENS, fwd_hooks=[(lambda n: n.endswith("hook_z"), lambda x, hook: fired.append("z"))])
    assert fired.count("z") == 3
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: fired.append("again"))]):
        model(TOKENS)
    assert fired[-1] == "again"
    _, cache = model.run_with_cache(TOKENS)
    assert set(names) <= set(cache.keys())


def test_models_are_returned_as_they_are(zoo) -> None:
    model = zoo("gpt2")
    assert sc.load_model(model) is model
    if HAS_HOOKED:
        assert sc.load_model(zoo("hooked-gpt2")) is zoo("hooked-gpt2")


def test_folder_without_a_tokenizer_takes_token_ids(zoo) -> None:
    model = zoo("gpt2")
    assert model.tokenizer is None
    text = sc.Task(["some text"], metric=sc.LogitDiff([1], [2]))
    with pytest.raises(sc.InputError, match="no tokenizer"):
        sc.attribute(model, sc.Graph.of(model), text, ablation=sc.Ablation.ZERO)
    answers = sc.Task([[1, 2]], metric=sc.LogitDiff([" a"], [" b"]))
    with pytest.raises(sc.InputError, match="no tokenizer"):
        sc.attribute(model, sc.Graph.of(model), answers, ablation=sc.Ablation.ZERO)
    with pytest.raises(sc.InputError, match="no tokenizer"):
        sc.load_task("ioi", model)


HUB_SCRIPT = """
import sparse_circuits as sc
model = sc.load_model("gpt2", device="cpu")
assert model.tokenizer is not None
task = sc.Task(["a b c", "c b a"], ["a b b", "c b b"], metric=sc.LogitDiff([" a", " b"], [" b", " c"]))
scores = sc.attribute(model, sc.Graph.of(model), task)
assert scores.values.abs().max() > 0
print(scores.provenance["model"], scores.provenance["revision"])
"""


def test_hub_id_goes_through_the_hub_cache(tmp_path) -> None:
    """Random weights under gpt2's name, laid out as a download leaves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--gpt2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    torch.manual_seed(0)
    GPT2LMHeadModel(hf_config("gpt2")).save_pretrained(snapshot)
    words = Tokenizer(models.WordLevel({"<bos>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<bos>")
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(snapshot)
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", HUB_SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gpt2", revision]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/at/all", "No model folder"),
        ("./nowhere", "No model folder"),
        (3, "expected a name, a folder"),
        ("sparse-circuits/there-is-no-such-model", "Could not load model"),
    ],
)
def test_models_that_are_not_there(source: object, message: str) -> None:
    with pytest.raises(sc.InputError, match=message):
        sc.load_model(source)


def test_folder_without_a_model(tmp_path) -> None:
    with pytest.raises(sc.InputError, match=r"config\.json"):
        sc.load_model(tmp_path)
