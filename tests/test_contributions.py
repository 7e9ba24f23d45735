"""A feature's pre-activation taken apart: the parts sum to it, and biases are what they are, not what is left over."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import token_task
from torch import Tensor

import sparse_circuits as sc
from sparse_circuits.attribution.feature.splits import capture
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.rules import with_rule
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk

FAMILIES = ("gpt2", "neox", "llama", "qwen2")


def transcoders(anatomy: Anatomy, reads: str = "normed", n: int = 40) -> dict[str, Dictionary]:
    """A random transcoder at every MLP."""
    found = {}
    for layer in range(len(anatomy.blocks)):
        generator = torch.Generator().manual_seed(layer)

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator) * 0.4

        d = anatomy.d_model
        W_enc, b_enc = draw(d, n), draw(n)
        site = Site("transcoder", layer, reads)

        def code(x: Tensor, W: Tensor = W_enc, b: Tensor = b_enc) -> Tensor:
            return (x @ W + b).relu()

        found[site.name] = Dictionary(
            site, f"random/{layer}", "", site.hook_name, W_enc, b_enc, draw(n, d), draw(d), code
        )
    return found


def biased(anatomy: Anatomy) -> tuple[Anatomy, list[Tensor]]:
    """The model with every bias, and the learned positions, as a tensor that takes a gradient."""
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1]

    blocks = []
    for block in anatomy.blocks:
        attention = replace(block.attention, b_V=leaf(block.attention.b_V), b_O=leaf(block.attention.b_O))
        attn_norm = replace(block.attn_norm, bias=leaf(block.attn_norm.bias))
        mlp_norm = block.mlp_norm and replace(block.mlp_norm, bias=leaf(block.mlp_norm.bias))
        blocks.append(replace(block, attention=attention, attn_norm=attn_norm, mlp_norm=mlp_norm))
    positions = anatomy.positions
    if positions is not None:
        table = leaf(positions(8))
        positions = lambda n: table[:n]  # noqa: E731
    return replace(anatomy, blocks=tuple(blocks), positions=positions), leaves


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reads", ["normed", "normalized", "resid_mid"])
def test_parts_sum_to_the_preactivation(zoo, family: str, reads: str) -> None:
    """Bias is given as what is missing; here it is computed, from the gradient of every bias in the model."""
    model, task = zoo(family), token_task()
    anatomy = anatomy_of(model)
    if reads == "resid_mid" and anatomy.blocks[0].parallel:
        pytest.skip("the block's attention and MLP read one stream, so there is none between them")
    dictionaries = transcoders(anatomy, reads)
    graph = FeatureGraph.of_anatomy(anatomy, dictionaries)
    last = list(dictionaries)[-1]
    dictionary = dictionaries[last]
    found = sc.contributions(model, graph, task, f"{last}.f3")
    frozen = with_rule(anatomy, "frozen")
    prompts = task.tokenized(model, anatomy, corrupted=False)
    for rows, batch in prompts.batches(1):
        free, leaves = biased(frozen)
        run = capture(frozen, graph, anatomy.embed(batch.tokens), None)
        constants = {place.site: (place.dictionary, held) for place, held in zip(graph.places, run.held, strict=True)}
        seen: dict[Site, Tensor] = {}
        own = {site: d.b_dec.clone().requires_grad_() for site, (d, _) in constants.items()}

        def visit(site: Site, read: Tensor, written: Tensor, seen=seen, constants=constants, own=own) -> Tensor:
            seen[site] = read
            d, held = constants[site]
            return (held.written - d.b_dec).detach() + own[site]

        with torch.enable_grad():
            Walk(free, [place.site for place in graph.places], None).run(anatomy.embed(batch.tokens).detach(), visit)
            pre = seen[dictionary.site][0, -1] @ dictionary.W_enc[:, 3]
            upstream = [own[site] for site in own if site.layer < dictionary.site.layer]
            gradients = torch.autograd.grad(pre, [*leaves, *upstream], allow_unused=True)
        bias = sum(
            float((g * b.detach()).sum()) for g, b in zip(gradients, [*leaves, *upstream], strict=True) if g is not None
        )
        bias += float(dictionary.b_enc[3])
        whole = float(pre.detach()) + float(dictionary.b_enc[3])
        assert whole == pytest.approx(float(found.preactivation[rows]), rel=1e-4, abs=1e-5)
        scale = float(found.values[rows].abs().sum()) + abs(bias)
        assert float(found.bias[rows]) == pytest.approx(bias, abs=1e-4 * scale)
    names = found.to_dict()
    assert "embed" in names
    assert f"{next(iter(dictionaries))}.error" in names
    assert sum(names.values()) == pytest.approx(float(found.preactivation.mean()), rel=1e-4, abs=1e-4)


def test_whole_nodes_stand_in_for_mlps(zoo) -> None:
    """Without a transcoder below, an MLP is a whole node: nothing nonlinear lies between."""
    model, task = zoo("gpt2"), token_task()
    anatomy = anatomy_of(model)
    only = {"transcoder_2": transcoders(anatomy)["transcoder_2"]}
    graph = FeatureGraph.of_anatomy(anatomy, only, whole=("mlp_0", "mlp_1", "z"))
    apart = sc.contributions(model, graph, task, "transcoder_2.f0", positions="keep")
    summed = sc.contributions(model, graph, task, "transcoder_2.f0")
    assert {name.split("@")[0] for name in apart.to_dict()} == set(summed.to_dict())
    assert {"mlp_0", "mlp_1", "a0.h0", "a2.h2", "embed", "bias"} <= set(summed.to_dict())
    assert torch.allclose(apart.values.sum(1), summed.values.sum(1), atol=1e-4)
    # the stream, and so what reads it under a frozen norm, is the sum of what was written to it
    assert torch.allclose(apart.bias, summed.bias, atol=1e-4)


def test_bad_input(zoo) -> None:
    model, task = zoo("gpt2"), token_task()
    graph = FeatureGraph.of_anatomy(anatomy_of(model), transcoders(anatomy_of(model)))
    with pytest.raises(sc.InputError, match="expected a feature"):
        sc.contributions(model, graph, task, "transcoder_1.error")
    with pytest.raises(sc.InputError, match=r"has no node 'transcoder_1\.f40'"):
        sc.contributions(model, graph, task, "transcoder_1.f40")
    with pytest.raises(sc.InputError, match="outside a prompt"):
        sc.contributions(model, graph, task, "transcoder_1.f3", position=99)
