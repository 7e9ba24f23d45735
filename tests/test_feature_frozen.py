"""The frozen rule: with transcoders for MLPs, what a feature reads is an affine function of what is written before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import token_task
from feature_oracle import Runs, random_dictionary, split
from test_feature_oracle import close

import sparse_circuits as sc
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site

FAMILIES = ("gpt2", "llama", "qwen3")
READS = ("normed", "normalized", "resid_mid")


class Frozen:
    """A model with its attention patterns and the scales of its norms as they were on one prompt: plain matrix products.

    Only weights are taken from the library. ``reads`` are what every transcoder reads as a function of what the embedding
    and the transcoders write; biases (and learned positions) come on top where ``biases`` says so.
    """

    def __init__(self, model: Any, tokens: torch.Tensor, reads: str) -> None:
        self.anatomy, self.reads_at = anatomy_of(model), reads
        names = [f"blocks.{i}.attn.hook_pattern" for i in range(len(self.anatomy.blocks))]
        names += [
            f"blocks.{i}.{at}" for i in range(len(self.anatomy.blocks)) for at in ("hook_resid_pre", "ln2.hook_in")
        ]
        with torch.no_grad():
            _, self.cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)

    def norm(self, norm: Any, x: torch.Tensor, at: torch.Tensor, biases: bool, weighted: bool = True) -> torch.Tensor:
        """A norm with the scale that it has at another input."""
        if norm.kind == "layer":
            at, x = at - at.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True)
        x = x / (at.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        if not weighted:
            return x
        x = x * norm.weight
        return x + norm.bias if biases and norm.bias is not None else x

    @torch.no_grad()
    def reads(self, embedding: torch.Tensor, written: list[torch.Tensor], biases: bool) -> list[torch.Tensor]:
        stream, found = embedding, []
        if biases and self.anatomy.positions is not None:
            stream = stream + self.anatomy.positions(stream.shape[1])
        for layer, (block, wrote) in enumerate(zip(self.anatomy.blocks, written, strict=True)):
            attention = block.attention
            normed = self.norm(block.attn_norm, stream, self.cache[f"blocks.{layer}.hook_resid_pre"], biases)
            pattern, out = self.cache[f"blocks.{layer}.attn.hook_pattern"], torch.zeros_like(stream)
            for head in range(attention.n_heads):
                group = head * attention.n_groups // attention.n_heads
                v = normed @ attention.W_V[group]
                if biases and attention.b_V is not None:
                    v = v + attention.b_V[group]
                out = out + pattern[:, head] @ v @ attention.W_O[head]
            if biases and attention.b_O is not None:
                out = out + attention.b_O
            middle = stream + out
            at = self.cache[f"blocks.{layer}.ln2.hook_in"]
            found.append(
                middle
                if self.reads_at == "resid_mid"
                else self.norm(block.mlp_norm, middle, at, biases, weighted=self.reads_at == "normed")
            )
            stream = middle + wrote
        return found


def transcoders(model: Any, reads: str) -> FeatureGraph:
    """A transcoder at every MLP, and the embedding; attention is no site, so that its paths are part of every edge."""
    anatomy = anatomy_of(model)
    sites = [Site("transcoder", layer, reads) for layer in range(len(anatomy.blocks))]  # pyright: ignore[reportArgumentType]
    made = {site.name: random_dictionary(site, anatomy.d_model, 12, d_out=anatomy.d_model) for site in sites}
    return FeatureGraph.of_anatomy(anatomy, made, whole="embed")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reads", READS)
def test_the_affine_model_is_the_model(zoo, family: str, reads: str) -> None:
    """What the other tests here rest on: at the values of the clean run it reads what the model reads."""
    model, task = zoo(family), token_task(1, 6)
    graph = transcoders(model, reads)
    runs = Runs(model, graph, task)
    embed, *rest = runs.values(runs.clean)
    found = Frozen(model, runs.clean, reads).reads(embed.written, [s.written for s in rest], biases=True)
    for a, s in zip(found, rest, strict=True):
        close(a, s.read, 1e-5)


@pytest.mark.parametrize(
    "method", [sc.EAP(rule="frozen"), sc.EAPIG(steps=2, path="activations", rule="frozen")], ids=["eap", "ig"]
)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reads", READS)
def test_edges_sum_to_the_linearised_change(zoo, family: str, reads: str, method: sc.Method) -> None:
    """sum_u edge(u -> d) = dm/dd times what the corrupted prompt's sources change d's pre-activation by."""
    model, task = zoo(family), token_task(1, 6)
    graph = transcoders(model, reads)
    runs = Runs(model, graph, task)
    clean, corrupted = runs.values(runs.clean), runs.values(runs.corrupted)
    moved = [b.written - a.written for a, b in zip(clean, corrupted, strict=True)]
    changes = Frozen(model, runs.clean, reads).reads(moved[0], moved[1:], biases=False)
    scores = sc.attribute(model, graph, task, method, positions="keep", nodes_above=0)
    n = scores.graph.n_positions
    effects, into = torch.zeros(scores.graph.size + 1), torch.zeros(scores.graph.size + 1)
    effects[scores.node_ids] = scores.node_values
    into.index_add_(0, scores.edges.targets, scores.edges.values)
    found, expected = [], []
    for place in range(1, len(graph.places)):
        dictionary, a, b = graph.places[place].dictionary, clean[place], corrupted[place]
        pre = changes[place - 1][0] @ dictionary.W_enc
        for token in range(n):
            for f in range(dictionary.n_features):
                z, other = a.features[0, token, f], b.features[0, token, f]
                if z == 0 or (z - other).abs() < 1e-3:
                    continue  # without a derivative; or dm/dd cannot be told from the effect
                node = (graph.offsets[place] + f) * n + token
                found.append(into[node])
                expected.append(effects[node] / (other - z) * pre[token, f])
    assert len(found) > 50
    close(torch.stack(found), torch.stack(expected), 1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reads", READS)
def test_contributions_and_bias_are_the_preactivation(zoo, family: str, reads: str) -> None:
    """Each node's share, and the bias, on their own: neither is what the other leaves over."""
    model, task = zoo(family), token_task(1, 6)
    graph = transcoders(model, reads)
    runs = Runs(model, graph, task)
    frozen, values = Frozen(model, runs.clean, reads), runs.values(runs.clean)
    place = len(graph.places) - 1
    dictionary, features = graph.places[place].dictionary, values[place].features[0, -1]
    f = int(features.argmax())
    found = sc.contributions(model, graph, task, f"{graph.places[place].name}.f{f}")
    assert float(found.preactivation[0]) == pytest.approx(float(features[f]), abs=1e-4)
    nothing = [torch.zeros_like(s.written) for s in values]
    bases = [torch.zeros_like(values[0].written)] + [s.base.expand_as(s.written) for s in values[1:]]

    @torch.no_grad()
    def pre(written: list[torch.Tensor], biases: bool) -> float:
        read = frozen.reads(written[0], written[1:], biases)[place - 1]
        return float(read[0, -1] @ dictionary.W_enc[:, f] + (dictionary.b_enc[f] if biases else 0.0))

    shares = dict(zip(map(found.graph.name_of, found.sources.tolist()), found.values[0].tolist(), strict=True))
    assert float(found.bias[0]) == pytest.approx(pre(bases, biases=True), abs=1e-3)
    assert sum(shares.values()) + float(found.bias[0]) == pytest.approx(float(features[f]), abs=1e-3)
    for i, (spot, s) in enumerate(zip(graph.places[:-1], values, strict=False)):
        nodes = {"embed": s.written} if i == 0 else {"transcoder_%d.error" % spot.site.layer: s.rest}  # noqa: UP031
        if s.features is not None:
            again = split(spot.dictionary, s.read, s.written)
            nodes |= {
                spot.node(u): again.features[..., u, None] * spot.dictionary.W_dec[u] for u in range(spot.n_features)
            }
        for name, wrote in nodes.items():
            written = [*nothing]
            written[i] = wrote
            assert shares.get(name, 0.0) == pytest.approx(pre(written, biases=False), abs=1e-3), name
