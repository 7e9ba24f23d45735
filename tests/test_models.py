"""Loading models, and refusing those that the library cannot be right about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import BRIDGES, FAMILIES, HAS_HOOKED, POST_NORM, VOCAB, hf_config, hooked_config, make_model, token_task

import sparse_circuits as sc
from sparse_circuits.model import _checked, anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.configuration import family_of
from sparse_circuits.model.forward import Run, run
from sparse_circuits.model.modules import norm_of, plain_mlp
from sparse_circuits.model.norm import JointNorm, Norm
from sparse_circuits.model.rules import RULES, with_rule

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])
PROMPTS = torch.randint(VOCAB, (3, 7), generator=torch.Generator().manual_seed(1))

each_family = pytest.mark.parametrize("family", FAMILIES)


@torch.no_grad()
def traced(anatomy: Anatomy, units: bool = False) -> Run:
    return run(anatomy, anatomy.embed(PROMPTS), None, units=units)


@torch.no_grad()
def logits(anatomy: Anatomy) -> torch.Tensor:
    return anatomy.logits(traced(anatomy).final)


def in_every_layer(anatomy: Anatomy, **changes: object) -> Anatomy:
    """The model with something else in the attention of every layer."""
    blocks = tuple(replace(b, attention=replace(b.attention, **changes)) for b in anatomy.blocks)
    return replace(anatomy, blocks=blocks)


@each_family
def test_parts_make_the_model(zoo, family: str) -> None:
    model = zoo(family)
    expected = model(PROMPTS, return_type="logits")
    assert (logits(anatomy_of(model)) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", BRIDGES)
def test_parts_make_hugging_faces_model(tmp_path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    anatomy = anatomy_of(make_model(family, tmp_path))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / family, attn_implementation="eager")(PROMPTS).logits
    assert (logits(anatomy) - expected).abs().max() < 1e-5 * expected.abs().max()


@each_family
def test_a_run_holds_what_transformer_lens_caches(zoo, family: str) -> None:
    model = zoo(family)
    anatomy = anatomy_of(model)
    _, cache = model.run_with_cache(PROMPTS)
    for layer, (block, trace) in enumerate(zip(anatomy.blocks, traced(anatomy, units=True).layers, strict=True)):
        assert trace.attn_sum is not None
        ours = {
            "hook_resid_pre": trace.attn_read,
            "hook_attn_out": block.posted(trace.attn_sum),
            **{f"attn.hook_{name}": getattr(trace, name) for name in "qkvz"},
        }
        if block.mlp is not None:
            ours |= {"hook_mlp_out": trace.mlp_out, "mlp.hook_post": trace.hidden}
            if not block.parallel:
                ours["hook_resid_mid"] = trace.mlp_read
        for name, value in ours.items():
            expected = cache[f"blocks.{layer}.{name}"]
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        total = sum(ours.get(name, 0) for name in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out"))
        torch.testing.assert_close(total, cache[f"blocks.{layer}.hook_resid_post"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", BRIDGES)
def test_half_precision_is_accepted(zoo, family: str, dtype: torch.dtype) -> None:
    model = zoo(family, dtype)
    ours, theirs = logits(anatomy_of(model)), model(PROMPTS, return_type="logits")
    assert ours.dtype == theirs.dtype == dtype
    assert (ours - theirs).abs().max() < 8 * torch.finfo(dtype).eps * theirs.abs().max()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_embeddings_are_the_models_own(tmp_path, rope: dict) -> None:
    from transformers import AutoModelForCausalLM

    config = hf_config("llama")
    config.rope_parameters = {"rope_theta": 100.0, **rope}
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(PROMPTS).logits
    assert (
        logits(anatomy_of(sc.load_model(tmp_path, device="cpu"))) - expected
    ).abs().max() < 1e-5 * expected.abs().max()


QUIRKS = [
    ("gptj", {"rotate": None}),
    ("phi", {"rotate": None}),
    ("llama-long", {"b_O": None}),
    ("mistral-window", {"window": None}),
    ("qwen2", {"window": None}),
    ("phi3-window", {"window": None}),
    ("gemma2", {"window": None}),
    ("gemma2", {"softcap": None}),
    ("gemma2", {"scale": 8**-0.5}),
    ("gemma3", {"window": None}),
    ("gemma3", {"q_norm": None}),
    ("olmo-clip", {"clip": None}),
    ("olmo2", {"q_norm": None}),
    ("olmo2", {"k_norm": None}),
]


@pytest.mark.parametrize(("family", "without"), QUIRKS, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_the_small_models_have_their_families_quirks(zoo, family: str, without: dict) -> None:
    """A test model that computes the same without a quirk would not notice it missing."""
    anatomy = anatomy_of(zoo(family))
    expected = logits(anatomy)
    assert (logits(in_every_layer(anatomy, **without)) - expected).abs().max() > 0.02 * expected.abs().max()


def test_gemma_3_rotates_by_two_tables_and_gemma_2_caps_its_logits(zoo) -> None:
    local, full, _ = (block.attention.rotate for block in anatomy_of(zoo("gemma3")).blocks)
    x = torch.ones(1, 7, 1, 8)
    assert local is not None
    assert full is not None
    assert (local(x) - full(x)).abs().max() > 0.1
    assert 2 < logits(anatomy_of(zoo("gemma2"))).abs().max() < 3


@pytest.mark.parametrize(
    ("kind", "frozen"), [("layer", False), ("rms", False), ("none", False), ("layer", True), ("rms", True)]
)
def test_norm_derivative_is_autograds_forward(kind: str, frozen: bool) -> None:
    torch.manual_seed(0)
    weight, bias = (torch.randn(12), torch.randn(12)) if kind == "layer" else (torch.randn(12), None)
    norm = Norm("none") if kind == "none" else Norm(kind, weight, bias, 1e-2, frozen)
    x, change = torch.randn(3, 12), torch.randn(4, 3, 12)
    constant = norm.inverse_scale(x)
    linear = (lambda x: norm.normalize(x, constant) * weight) if frozen else norm
    expected = torch.stack([torch.autograd.functional.jvp(linear, x, row)[1] for row in change])
    torch.testing.assert_close(norm.derivative(x, change), expected)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_norm_has_the_same_values_and_a_constant_scale(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, g = torch.randn(3, 12, dtype=dtype, requires_grad=True), torch.randn(3, 12, dtype=dtype)
    bias = torch.randn(12, dtype=dtype) if kind == "layer" else None
    norm = Norm(kind, torch.randn(12, dtype=dtype), bias, 1e-2, frozen=True)
    torch.testing.assert_close(norm(x), replace(norm, frozen=False)(x))
    (gradient,) = torch.autograd.grad(norm(x), x, g)
    assert norm.weight is not None
    centred = g * norm.weight
    centred = centred - centred.float().mean(-1, keepdim=True) if kind == "layer" else centred
    torch.testing.assert_close(gradient.float(), centred.float() * norm.inverse_scale(x), atol=0.05, rtol=0.02)


NORM_CLASSES = [
    ("llama", "LlamaRMSNorm"), ("mistral", "MistralRMSNorm"), ("qwen2", "Qwen2RMSNorm"), ("qwen3", "Qwen3RMSNorm"),
    ("phi3", "Phi3RMSNorm"), ("gemma", "GemmaRMSNorm"), ("gemma2", "Gemma2RMSNorm"), ("gemma3", "Gemma3RMSNorm"),
    ("olmo", "OlmoLayerNorm"), ("olmo2", "Olmo2RMSNorm"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), NORM_CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_round_where_hugging_faces_do(module: str, name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)(48).to(dtype)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = 3 * torch.randn(64, 48, dtype=dtype)
    ours, expected = norm_of(theirs)(x), theirs(x)
    assert ours.dtype == dtype
    differing = (ours != expected).float().mean()
    assert differing < (0.002 if dtype != torch.float32 else 1)  # a last bit of float32 may tip a rounding, rarely
    torch.testing.assert_close(ours, expected)


def test_a_norm_over_all_heads_needs_all_heads(zoo) -> None:
    attention = anatomy_of(zoo("olmo2")).blocks[0].attention
    assert attention.joint_norm
    assert not anatomy_of(zoo("qwen3")).blocks[0].attention.joint_norm
    trace = traced(anatomy_of(zoo("olmo2"))).layers[0]
    q, k, v = trace.q, trace.k, trace.v
    with pytest.raises(RuntimeError, match="needs all of them"):
        attention.mix(q[:, :, :1], k[:, :, :1], v[:, :, :1], None)
    copies = attention.mix(q, k.repeat_interleave(2, dim=2), v.repeat_interleave(2, dim=2), None)
    torch.testing.assert_close(copies, trace.z)
    patched = q.clone()
    patched[:, :, 0] *= 3
    moved = (attention.mix(patched, k, v, None) - trace.z).abs().amax((0, 1, 3))
    assert (moved > 1e-3).all()  # every head's scale has changed


def test_joint_norm_is_the_norm_of_the_heads_side_by_side() -> None:
    torch.manual_seed(0)
    norm, x = Norm("rms", torch.randn(12), None, 1e-2), torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(JointNorm(norm)(x), norm(x.flatten(-2)).view_as(x))
    twice = x.repeat_interleave(2, dim=2)
    torch.testing.assert_close(JointNorm(norm)(twice), JointNorm(norm)(x).repeat_interleave(2, dim=2))


@each_family
def test_patterns_are_distributions_and_collect_what_mix_does(zoo, family: str) -> None:
    anatomy = anatomy_of(zoo(family))
    real = torch.ones_like(PROMPTS, dtype=torch.bool)
    if not anatomy.blocks[0].attention.causal:
        real[0, 5:] = False
    trace = traced(anatomy).layers[-1]
    attention = anatomy.blocks[-1].attention
    pattern = attention.pattern(trace.q, trace.k, real)
    assert (pattern >= 0).all()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    torch.testing.assert_close(attention.collect(pattern, trace.v), attention.mix(trace.q, trace.k, trace.v, real))


@each_family
def test_some_heads_collect_what_they_collect_among_all(zoo, family: str) -> None:
    anatomy = anatomy_of(zoo(family))
    attention, trace = anatomy.blocks[0].attention, traced(anatomy).layers[0]
    if attention.joint_norm:
        pytest.skip("its heads are normed together")
    share = attention.n_heads // attention.n_groups
    heads, group = slice(share, 2 * share), slice(1, 2)
    if attention.n_groups == 1:
        heads, group = slice(0, 1), slice(0, 1)
    z = attention.mix(trace.q[:, :, heads], trace.k[:, :, group], trace.v[:, :, group], None)
    torch.testing.assert_close(z, trace.z[:, :, heads], atol=1e-5, rtol=1e-4)


@each_family
@pytest.mark.parametrize("rule", RULES)
def test_backward_rules_change_no_values(zoo, family: str, rule: str) -> None:
    anatomy = anatomy_of(zoo(family))
    torch.testing.assert_close(logits(with_rule(anatomy, rule)), logits(anatomy), atol=2e-5, rtol=1e-4)


def test_unknown_backward_rules_are_refused(zoo) -> None:
    with pytest.raises(sc.InputError, match="Unknown backward rule 'lrp'; expected one of plain, frozen, relp"):
        with_rule(anatomy_of(zoo("gpt2")), "lrp")


@each_family
def test_a_frozen_pattern_passes_gradients_to_values_only(zoo, family: str) -> None:
    anatomy = anatomy_of(zoo(family))
    trace = traced(anatomy).layers[0]
    attention = anatomy.blocks[0].attention
    parts = [x.clone().requires_grad_() for x in (trace.q, trace.k, trace.v)]
    upstream = torch.randn(trace.z.shape, generator=torch.Generator().manual_seed(0))

    def gradients(attention: object) -> tuple:
        return torch.autograd.grad(attention.mix(*parts, None), parts, upstream, allow_unused=True)

    q, k, v = gradients(replace(attention, frozen=True))
    assert q is None
    assert k is None
    torch.testing.assert_close(v, gradients(attention)[2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "family", ["llama", "mistral-window", "qwen2", "qwen3", "gemma", "olmo", "phi3-window", *POST_NORM]
)
def test_relevance_is_conserved(zoo, family: str) -> None:
    """Without biases, the input times its gradient under RelP sums to what is explained: in an MLP, and in a whole model."""
    anatomy = with_rule(anatomy_of(zoo(family)), "relp")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 7, anatomy.d_model, generator=generator).requires_grad_()
    mlp = anatomy.blocks[0].mlp
    assert mlp is not None
    explained = (mlp(x) * torch.randn(3, 7, anatomy.d_model, generator=generator)).sum()
    (gradient,) = torch.autograd.grad(explained, x)
    torch.testing.assert_close((x * gradient).sum(), explained, atol=1e-4, rtol=1e-4)
    if all(attention.b_V is None for attention in (block.attention for block in anatomy.blocks)):
        embedding = anatomy.embed(PROMPTS).detach().requires_grad_()
        explained = (run(anatomy, embedding, None).final * torch.linspace(-1, 1, anatomy.d_model)).sum()
        (gradient,) = torch.autograd.grad(explained, embedding)
        torch.testing.assert_close((embedding * gradient).sum(), explained, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", BRIDGES)
def test_processed_weights_pass_the_check(tmp_path, family: str) -> None:
    model = make_model(family, tmp_path)
    model.enable_compatibility_mode(disable_warnings=True)
    _checked.discard(model)
    anatomy_of(model)


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


REFUSED = [
    ("llama", {"num_local_experts": 8}, r"num_local_experts=8: the library cannot explain"),
    ("llama", {"num_kv_shared_layers": 1}, r"num_kv_shared_layers=1"),
    ("llama", {"hidden_act": "sigmoid"}, r"hidden_act='sigmoid' is not supported; expected 'gelu' or"),
    ("gpt2", {"activation_function": "sigmoid"}, r"activation_function='sigmoid'"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        r"\['rope_type'\]='dynamic'",
    ),
    ("llama", {"rope_parameters": {"rope_type": "mystery", "rope_theta": 1e4}}, r"\['rope_type'\]='mystery'"),
    (
        "gemma3",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "mystery"},
                "sliding_attention": {"rope_type": "default"},
            }
        },
        r"\['rope_type'\]='mystery'",
    ),
    (
        "phi3-window",
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [2.0] * 3}},
        r"\['rope_type'\]='longrope'",
    ),
    ("gemma3", {"attn_logit_softcapping": 5.0}, r"attn_logit_softcapping=5\.0 is not supported; expected None"),
    ("gemma2", {"use_bidirectional_attention": True}, r"use_bidirectional_attention=True"),
    ("phi", {"qk_layernorm": True}, r"qk_layernorm=True is not supported; expected False"),
    ("gpt2", {"add_cross_attention": True}, r"add_cross_attention=True"),
    ("llama", {"quantization_config": {"quant_method": "awq"}}, r"quantization_config"),
]


@pytest.mark.parametrize(
    ("family", "change", "message"), REFUSED, ids=lambda x: x if isinstance(x, str) else next(iter(x))
)
def test_what_a_family_does_not_explain_is_refused_before_loading(tmp_path, family, change, message) -> None:
    hf_config(family).save_pretrained(tmp_path)  # and no weights
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(sc.UnsupportedModelError, match=message):
        sc.load_model(tmp_path, device="cpu")


AS_ON_THE_HUB = [
    ("gpt2", {"_num_labels": 1, "task_specific_params": {"text-generation": {"max_length": 50}}, "n_ctx": 1024}),
    (
        "gptj",
        {"rotary": True, "scale_attn_weights": True, "tokenizer_class": "GPT2Tokenizer", "summary_type": "cls_index"},
    ),
    ("neox", {"rotary_emb_base": 10000, "rotary_pct": 0.25, "hidden_dropout_prob": 0}),
    ("llama", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
    ("qwen2", {"max_window_layers": 24, "use_mrope": False}),
    ("gemma", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
    ("gemma2", {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}),
    ("gemma3", {"sliding_window_pattern": 6, "rope_local_base_freq": 10000, "cache_implementation": "hybrid"}),
    ("phi", {"partial_rotary_factor": 0.4, "resid_pdrop": 0.1}),
    ("phi3-window", {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "embd_pdrop": 0.0}),
]


@pytest.mark.parametrize(("family", "fields"), AS_ON_THE_HUB, ids=lambda x: x if isinstance(x, str) else "")
def test_fields_of_published_models_are_explained(tmp_path, family: str, fields: dict) -> None:
    from transformers import AutoConfig

    hf_config(family).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    family_of(AutoConfig.from_pretrained(tmp_path))


def test_unknown_kinds_of_layer_are_refused() -> None:
    from sparse_circuits.model.family import window_by_layer_type

    config = hf_config("qwen2")
    config.layer_types = ["chunked_attention", "full_attention"]
    with pytest.raises(sc.UnsupportedModelError, match=r"layer_types\[0\]='chunked_attention'"):
        window_by_layer_type(config, 0)


def test_families_with_experts_or_shared_keys_are_refused_before_loading(tmp_path) -> None:
    from transformers import Gemma3nTextConfig, MixtralConfig

    for config in (MixtralConfig(num_local_experts=4), Gemma3nTextConfig()):
        config.save_pretrained(tmp_path)
        with pytest.raises(sc.UnsupportedModelError, match=rf"Model family '{config.model_type}' is not supported"):
            sc.load_model(tmp_path, device="cpu")


def test_unknown_modules_are_refused_by_name() -> None:
    with pytest.raises(sc.UnsupportedModelError, match="Norm GroupNorm is not supported"):
        norm_of(torch.nn.GroupNorm(1, 4))
    mlp = torch.nn.ModuleDict({"up": torch.nn.Linear(4, 8), "act": torch.nn.Sigmoid(), "down": torch.nn.Linear(8, 4)})
    mlp.up, mlp.act, mlp.down = mlp["up"], mlp["act"], mlp["down"]
    with pytest.raises(sc.UnsupportedModelError, match="Activation Sigmoid is not supported"):
        plain_mlp("up", "act", "down")(mlp)


def test_every_known_activation_is_zero_at_zero() -> None:
    """The rules of relevance propagation divide by the input."""
    from transformers.activations import ACT2FN

    from sparse_circuits.model.modules import ACTIVATIONS

    x = torch.zeros(3)
    assert {name for name in ACTIVATIONS if ACT2FN[name](x).any()} == set()


SPREAD_SCRIPT = """
import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from conftest import BRIDGES, make_model
from sparse_circuits.model.bridge import bridge_anatomy
from sparse_circuits.model.forward import rerun_from_heads, rerun_from_mlp, run, run_sources

_setup_privateuseone_for_python_backend("spare")
torch.set_grad_enabled(False)


def place(module, device):
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                empty = torch.empty(p.shape, dtype=p.dtype, device=device)
                part._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=device)


for family in BRIDGES:
    model = make_model(family, Path(sys.argv[1]))
    with FakeTensorMode(allow_non_fake_inputs=True):
        place(model, "spare:0")
        for layer, block in enumerate(model.blocks):
            place(block, f"spare:{layer + 1}")
        place(model.ln_final, "spare:5")
        place(model.unembed, "spare:6")
        anatomy = bridge_anatomy(model)
        tokens = torch.zeros(2, 7, dtype=torch.long, device="spare:0")
        real = torch.ones(2, 7, dtype=torch.bool, device="spare:0")
        embedding = anatomy.embed(tokens)
        whole = run(anatomy, embedding, real, units=True)
        assert [str(b.device) for b in anatomy.blocks] == [f"spare:{i + 1}" for i in range(len(anatomy.blocks))]
        for block, trace in zip(anatomy.blocks, whole.layers):
            kept = [x for x in vars(trace).values() if x is not None]
            assert {x.device for x in kept} == {block.device}, family
        first = whole.layers[0]
        finals = [
            whole.final,
            run_sources(anatomy, embedding, real)[1],
            rerun_from_heads(anatomy, whole, 0, first.z, real, False).final,
            rerun_from_mlp(anatomy, whole, 0, first.mlp_out, real, True).final,
        ]
        assert {x.device for x in finals} == {anatomy.device} == {anatomy.logits(finals[0]).device}, family
print("spread", len(BRIDGES))
"""


def test_layers_may_live_on_different_devices(tmp_path) -> None:
    """On devices that hold shapes but no values, where any mixture is an error: every family, each layer elsewhere."""
    backends = import_module("torch.utils.backend_registration")
    if not hasattr(backends, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch cannot pretend to have more devices")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", SPREAD_SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["spread", str(len(BRIDGES))]


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_map_is_passed_on(tmp_path, device_map: object) -> None:
    make_model("llama", tmp_path)
    if device_map == "auto" and torch.accelerator.is_available():
        pytest.skip("would go to the accelerator")
    model = sc.load_model(tmp_path / "llama", device_map=device_map)
    assert anatomy_of(model).device == torch.device("cpu")
    assert sc.attribute(model, sc.Graph.of(model), token_task()).values.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu", "device_map": "auto"}, "give one of the two"),
        ({"device_map": {"": "disk"}}, "weights on 'disk' cannot be read"),
        ({"device_map": "nonsense"}, "with device_map='nonsense'"),
    ],
)
def test_places_that_cannot_be(tmp_path, options: dict, message: str) -> None:
    make_model("llama", tmp_path)
    with pytest.raises(sc.InputError, match=message):
        sc.load_model(tmp_path / "llama", **options)


def test_accelerates_hooks_are_no_hooks_of_ones_own(tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate.hooks")
    model = make_model("llama", tmp_path)
    layers = [m for m in model.original_model.modules() if type(m).__name__ in ("LlamaDecoderLayer", "Linear")]
    for layer in layers:
        accelerate.add_hook_to_module(layer, accelerate.AlignDevicesHook(execution_device="cpu"))
    assert any(hasattr(layer, "_hf_hook") for layer in layers)
    _checked.discard(model)
    anatomy_of(model)


def test_a_changed_forward_pass_is_noticed(tmp_path) -> None:
    """A model that computes something that its parts do not is refused, not explained wrongly."""
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


def test_hub_id_goes_through_the_hub_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights under gpt2's name, laid out as a download leaves them."""
    import huggingface_hub.constants
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
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = sc.load_model("gpt2", device="cpu")
    assert model.tokenizer is not None
    task = sc.Task(["a b c", "c b a"], ["a b b", "c b b"], metric=sc.LogitDiff([" a", " b"], [" b", " c"]))
    scores = sc.attribute(model, sc.Graph.of(model), task)
    assert scores.values.abs().max() > 0
    assert (scores.provenance["model"], scores.provenance["revision"]) == ("gpt2", revision)


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
