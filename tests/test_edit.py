"""Editing: features taken out for good, against plain hooks, on both model classes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import HAS_HOOKED, VOCAB, token_task
from torch import Tensor

import sparse_circuits as sc
from sparse_circuits.dictionary import load_dictionaries
from sparse_circuits.dictionary.edit import ablate_features

pytest.importorskip("sae_lens", reason="SAELens is not installed beside this TransformerLens")
from sae_lens import SAE

MODELS = ("gpt2", "gemma2", "olmo2", "hooked-gpt2", "hooked-rms")
WIDTH = 24
TOKENS = torch.randint(VOCAB, (3, 8), generator=torch.Generator().manual_seed(5))
FEATURES = [3, 0, 11]


def make(hook: str, out: str | None = None, **options: Any) -> Any:
    """A random dictionary whose features fire about half of the time."""
    kind = "jumprelu" if out is None else "skip_transcoder"
    options = {"d_in": WIDTH, "d_sae": 40, "dtype": "float32", "device": "cpu", **options}
    options |= {"d_out": WIDTH, "apply_b_dec_to_input": False} if out else {}
    metadata = {"hook_name": hook} | ({"hook_name_out": out} if out else {})
    sae = SAE.from_dict({"architecture": kind, "metadata": metadata, **options})
    generator = torch.Generator().manual_seed(len(hook))
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.dim() > 1 else 0.1))
            if name == "b_enc":
                weight.add_(0.2)
            if name == "threshold":
                weight.abs_().mul_(0.1)
    return sae.eval()


def site_hook(kind: str, layer: int = 1) -> str:
    names = {"attn": "hook_attn_out", "mlp": "hook_mlp_out", "resid": "hook_resid_post", "z": "attn.hook_z"}
    return f"blocks.{layer}.{names[kind]}"


def subtracted(sae: Any, read: Tensor, written: Tensor, features: list[int]) -> Tensor:
    """y - sum_f s z_f d_f by the SAE's own encoder and its decoder with all other features at zero."""
    z = sae.encode(read)
    only = torch.zeros_like(z)
    only[..., features] = z[..., features]
    with_them = sae.decode(only)
    without = sae.decode(torch.zeros_like(sae.encode(read)))  # decoding forgets the norm that encoding kept
    return written - (with_them - without).reshape(written.shape)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, zoo: Any) -> Any:
    return zoo(request.param)


@pytest.mark.parametrize("kind", ["attn", "mlp", "resid", "z", "normalised"])
def test_the_edited_model_is_the_model_with_the_features_hooked_away(zoo: Any, model: Any, kind: str) -> None:
    hook = site_hook("resid" if kind == "normalised" else kind)
    width = model.cfg.n_heads * model.cfg.d_head if kind == "z" else WIDTH
    sae = make(hook, d_in=width, normalize_activations="layer_norm" if kind == "normalised" else "none")
    before = model(TOKENS)
    edited = ablate_features(
        model, {hook: sae}, [f"{kind if kind != 'normalised' else 'resid'}_1.f{f}" for f in FEATURES]
    )

    def away(value: Tensor, hook: Any) -> Tensor:
        flat = value.flatten(-2) if value.shape[-1] != width else value
        return subtracted(sae, flat, value, FEATURES)

    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(hook, away)])
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert type(edited) is type(model)
    assert torch.equal(model(TOKENS), before)
    assert not any(type(a) is type(b) and a is b for a, b in zip(model.modules(), edited.modules(), strict=True))


@pytest.mark.parametrize("reads", ["ln2.hook_normalized", "hook_resid_mid"])
def test_a_transcoder_reads_the_input_of_the_mlp_and_edits_its_output(zoo: Any, model: Any, reads: str) -> None:
    read, write = f"blocks.1.{reads}", "blocks.1.hook_mlp_out"
    if reads == "ln2.hook_normalized" and model is zoo("olmo2"):  # the norm behind attention
        with pytest.raises(sc.InputError, match="is not what the library reads at transcoder_1"):
            load_dictionaries([make(read, write)], model)
        return
    dictionaries = load_dictionaries([make(read, write)], model)
    edited = ablate_features(model, dictionaries, {"transcoder_1": torch.tensor(FEATURES)})
    sae, kept = make(read, write), {}

    def keep(value: Tensor, hook: Any) -> None:
        kept["x"] = value

    def away(value: Tensor, hook: Any) -> Tensor:
        return subtracted(sae, kept["x"], value, FEATURES)

    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(read, keep), (write, away)])
    assert (expected - model(TOKENS)).abs().max() > 0.01
    torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)
    # what a hook puts in the MLP's input is what the transcoder reads
    double = model.run_with_hooks(TOKENS, fwd_hooks=[(read, lambda x, hook: 2 * x), (read, keep), (write, away)])
    torch.testing.assert_close(
        edited.run_with_hooks(TOKENS, fwd_hooks=[(read, lambda x, hook: 2 * x)]), double, rtol=1e-4, atol=1e-4
    )


@pytest.mark.skipif(not HAS_HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_a_transcoder_may_read_what_no_hook_point_of_a_hooked_transformer_has(zoo: Any) -> None:
    model = zoo("hooked-gpt2")
    sae = make("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    edited = ablate_features(model, {"transcoder_1": sae}, ["transcoder_1.f3"])
    _, cache = model.run_with_cache(TOKENS)
    norm = model.blocks[1].ln2
    read = cache["blocks.1.ln2.hook_normalized"]
    read = (
        read
        if not hasattr(norm, "w") or torch.equal(read, norm(cache["blocks.1.hook_resid_mid"]))
        else read * norm.w + norm.b
    )
    expected = model.run_with_hooks(
        TOKENS, fwd_hooks=[("blocks.1.hook_mlp_out", lambda y, hook: subtracted(sae, read, y, [3]))]
    )
    torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_the_stream_between_attention_and_mlp_goes_on_edited(model: Any) -> None:
    """On a bridge its hook point is beside the stream; the oracle changes what attention adds to it instead."""
    edited = ablate_features(model, load_dictionaries("neurons", model, sites=["resid_mid_1"]), {"resid_mid_1": [2, 9]})
    _, cache = model.run_with_cache(TOKENS)
    middle = cache["blocks.1.hook_resid_pre"] + cache["blocks.1.hook_attn_out"]

    def away(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        value[..., [2, 9]] -= middle[..., [2, 9]]
        return value

    expected = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_attn_out", away)])
    torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_edits_compose_in_the_order_of_the_model(model: Any) -> None:
    hooks = [site_hook("resid", 1), site_hook("mlp", 0), site_hook("attn", 1), site_hook("resid", 0)]
    saes = {hook: make(hook) for hook in hooks}
    names = ["resid_1.f3", "mlp_0.f0", "attn_1.f3", "resid_0.f11", "mlp_0.f11"]
    dictionaries = load_dictionaries(saes, model)
    edited = ablate_features(model, dictionaries, names)
    features = {hooks[0]: [3], hooks[1]: [0, 11], hooks[2]: [3], hooks[3]: [11]}

    def away(name: str) -> Any:
        return lambda value, hook: subtracted(saes[name], value, value, features[name])

    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(name, away(name)) for name in hooks])
    torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)
    # one after the other, in any order
    again = model
    for name in names:
        again = ablate_features(again, dictionaries, [name])
    # two features of one site are then encoded one after the other, so that only other sites' order is free
    first = ablate_features(ablate_features(model, dictionaries, names[:4]), dictionaries, names[4:])
    torch.testing.assert_close(again(TOKENS), first(TOKENS), rtol=1e-4, atol=1e-4)
    assert len(again.sparse_circuits_edits) == 5


def test_nothing_to_edit_changes_nothing(model: Any) -> None:
    hook = site_hook("resid")
    edited = ablate_features(model, {hook: make(hook)}, [])
    assert edited is not model
    assert torch.equal(edited(TOKENS), model(TOKENS))
    assert set(edited.state_dict()) == set(model.state_dict())


@pytest.fixture
def both(model: Any) -> tuple[Any, Any]:
    hook = site_hook("resid")
    return model, ablate_features(model, {hook: make(hook)}, {hook: FEATURES})


def test_an_edit_stays_whatever_is_done_with_hooks(both: tuple[Any, Any]) -> None:
    model, edited = both
    expected, hook = edited(TOKENS), site_hook("resid")
    edited.add_hook(hook, lambda value, hook: value * 0)
    edited.reset_hooks(including_permanent=True)
    assert torch.equal(edited(TOKENS), expected)
    with torch.no_grad():
        edited(
            TOKENS
        )  # TransformerLens keeps what attention last looked at, and cannot be copied while that has a gradient
    assert torch.equal(copy.deepcopy(edited)(TOKENS), expected)
    logits, cache = edited.run_with_cache(TOKENS)
    assert torch.equal(logits, expected)
    original = model.run_with_cache(TOKENS)[1][hook]
    torch.testing.assert_close(cache[hook], subtracted(make(hook), original, original, FEATURES), rtol=1e-4, atol=1e-4)
    with edited.hooks(fwd_hooks=[(hook, lambda value, hook: original)]):  # a hook has the last word
        torch.testing.assert_close(edited(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    # state and devices are those of any model
    assert set(edited.state_dict()) == set(model.state_dict())
    edited.eval().to(torch.float64)
    assert edited(TOKENS).dtype == torch.float64
    torch.testing.assert_close(edited(TOKENS).float(), expected, rtol=1e-3, atol=1e-3)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_weights_are_shared_until_moved_and_copies_have_their_own(both: tuple[Any, Any]) -> None:
    model, edited = both
    with torch.no_grad():
        edited(TOKENS)
    mine, theirs = dict(model.named_parameters()), dict(edited.named_parameters())
    assert all(p.data_ptr() == theirs[n].data_ptr() and p is not theirs[n] for n, p in mine.items())
    assert all(p.data_ptr() != mine[n].data_ptr() for n, p in copy.deepcopy(edited).named_parameters())


def test_gradients_flow_through_an_edit(both: tuple[Any, Any]) -> None:
    model, edited = both
    hook = site_hook("resid", 0)
    sae = make(site_hook("resid"))
    found = []
    for which, hooks in (
        (edited, []),
        (model, [(site_hook("resid"), lambda value, hook: subtracted(sae, value, value, FEATURES))]),
    ):
        leaf: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any, leaf: dict[str, Tensor] = leaf) -> Tensor:
            leaf["x"] = value.detach().requires_grad_()
            return leaf["x"]

        logits = which.run_with_hooks(TOKENS, fwd_hooks=[(hook, keep), *hooks])
        found.append(torch.autograd.grad(logits[:, -1, 7].sum(), leaf["x"])[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert found[0].abs().max() > 0


def test_generation_is_edited_too(both: tuple[Any, Any]) -> None:
    model, edited = both
    hook = site_hook("resid")
    sae = make(hook)
    away = (hook, lambda value, hook: subtracted(sae, value, value, FEATURES))
    for cached in (True, False):
        options = {"max_new_tokens": 6, "do_sample": False, "verbose": False, "stop_at_eos": False}
        options |= {"use_past_kv_cache": cached}
        with model.hooks(fwd_hooks=[away]):
            expected = model.generate(TOKENS[:, :3], **options)
        assert edited.generate(TOKENS[:, :3], **options).tolist() == expected.tolist()


def test_the_library_runs_feature_graphs_on_edited_models(zoo: Any) -> None:
    """Effects are exact ones: of ablating a feature from the edited model by a hook."""
    for name in ("gpt2", "hooked-gpt2"):
        model, hook = zoo(name), site_hook("resid", 1)
        saes = load_dictionaries({h: make(h) for h in (site_hook("mlp", 0), hook)}, model)
        edited = ablate_features(model, saes, ["mlp_0.f3", "resid_1.f0", "resid_1.f11"])
        task, graph = token_task(3), sc.Graph.of(edited, saes)
        scores = sc.attribute(edited, graph, task, sc.Exact(), ablation=sc.Ablation.ZERO)
        sae, tokens = make(hook), torch.tensor(task.clean)

        def measured(model: Any, hooks: Any, tokens: Tensor = tokens, task: Any = task) -> Tensor:
            logits, rows = model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1], torch.arange(3)
            return logits[rows, 3 + rows % 5] - logits[rows, 10 + rows % 7]

        feature = next(f for f in range(40) if scores.to_dict().get(f"resid_1.f{f}"))
        moved = measured(edited, [(hook, lambda v, hook, f=feature, s=sae: subtracted(s, v, v, [f]))])
        expected = (moved - measured(edited, [])).mean().item()
        assert scores.to_dict()[f"resid_1.f{feature}"] == pytest.approx(expected, abs=1e-4)
        whole = sc.evaluate(edited, scores.threshold(nodes=0), task, ablation=sc.Ablation.ZERO)
        torch.testing.assert_close(whole.clean.float(), measured(edited, []), rtol=1e-4, atol=1e-4)
        edges = sc.attribute(edited, graph, task, sc.EAP(), ablation=sc.Ablation.ZERO, nodes_above=0.0)
        assert len(edges.edges)
        assert "mlp_0.f3" in edges.provenance["revision"]
        for run in (
            lambda m=edited, t=task: sc.attribute(m, sc.Graph.of(m), t),
            lambda m=edited, t=task, o=model: sc.evaluate(m, sc.attribute(o, sc.Graph.of(o), t).top(5), t),
        ):
            with pytest.raises(sc.InputError, match="ablated from this model for good"):
                run()


def test_an_edit_of_the_embedding_is_done_once(zoo: Any) -> None:
    for name in ("gpt2", "gemma2", "hooked-gpt2"):
        model, hook = zoo(name), "hook_embed"
        saes = load_dictionaries({hook: make(hook)}, model)
        edited = ablate_features(model, saes, {"embed": FEATURES})
        expected = model.run_with_hooks(
            TOKENS, fwd_hooks=[(hook, lambda v, hook, s=saes["embed"].sae: subtracted(s, v, v, FEATURES))]
        )
        torch.testing.assert_close(edited(TOKENS), expected, rtol=1e-4, atol=1e-4)
        task = token_task(3)
        clean = sc.attribute(edited, sc.Graph.of(edited, saes), task, ablation=sc.Ablation.ZERO).clean
        logits, rows = edited(torch.tensor(task.clean))[:, -1], torch.arange(3)
        torch.testing.assert_close(
            clean, logits[rows, 3 + rows % 5] - logits[rows, 10 + rows % 7], rtol=1e-4, atol=1e-4
        )


def test_a_feature_circuit_gives_its_features(zoo: Any) -> None:
    model, hook = zoo("gpt2"), site_hook("resid")
    saes = load_dictionaries({hook: make(hook)}, model)
    circuit = sc.attribute(model, sc.Graph.of(model, saes), token_task(3), ablation=sc.Ablation.ZERO).top(4)
    edited = ablate_features(model, saes, circuit)
    chosen = [name for name in circuit.nodes if not name.endswith("error")]
    assert sorted(name for edit in edited.sparse_circuits_edits for name in edit.names) == sorted(chosen)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["resid_1.f40"], "resid_1 has 40 features, f0 to f39; got 'resid_1.f40'"),
        (["resid_0.f1"], "No dictionary is at 'resid_0'"),
        (["resid_1.f1", "resid_1.f2", "resid_1.f1"], "'resid_1.f1' is named twice"),
        ({"resid_1": [1], "blocks.1.hook_resid_post": [1]}, "is named twice"),
        (["resid_1.error"], "error terms, whole sites and heads stay"),
        (["a1.h0"], "expected features such as"),
        (["resid_1.f3@2"], "at all positions"),
        ("resid_1.f3", r"write \['resid_1.f3'\]"),
        ({"resid_1": [0.5]}, "expected feature numbers"),
        ({"resid_1": [-1]}, "resid_1 has 40 features"),
    ],
)
def test_what_is_no_feature_is_refused_before_anything_is_done(zoo: Any, features: Any, message: str) -> None:
    hook = site_hook("resid")
    with pytest.raises(sc.InputError, match=message):
        ablate_features(zoo("gpt2"), {hook: make(hook)}, features)


def test_dictionaries_of_another_model_and_hooked_models_are_refused(zoo: Any) -> None:
    model, hook = zoo("gpt2"), site_hook("resid")
    with pytest.raises(sc.InputError, match="32"):
        ablate_features(model, {hook: make(hook, d_in=32)}, [])
    big = load_dictionaries("neurons", sc.load_model("toy", device="cpu"), sites=["resid_3", "resid_1"])
    with pytest.raises(sc.InputError, match="belongs to another model"):
        ablate_features(model, big, ["resid_1.f0"])
    with pytest.raises(sc.InputError, match="3 layers"):
        ablate_features(model, big, ["resid_3.f0"])
    model.add_hook(hook, lambda value, hook: value)
    try:
        with pytest.raises(sc.InputError, match="carries hooks"):
            ablate_features(model, {hook: make(hook)}, [])
    finally:
        model.reset_hooks()
