"""Attribution of feature graphs against brute force through TransformerLens's hooks, on every kind of model and graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import BRIDGES, HAS_HOOKED, token_task
from feature_oracle import (
    Changes,
    CutRun,
    Runs,
    along_activations,
    averaged,
    constant_norm,
    edges,
    exact_effects,
    gradients,
    layer_norm,
    logits_edges,
    node_effects,
    patched,
    random_dictionary,
    reachable,
    read_only,
    targets,
    zeroed,
)

import sparse_circuits as sc
from sparse_circuits.attribution.quadrature import points
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site

N_FEATURES = 10


def make_graph(model: Any, recipe: str, dtype: torch.dtype = torch.float32) -> FeatureGraph:
    """A graph of random dictionaries and whole sites: what is split, with what, by a word for each kind of graph."""
    anatomy = anatomy_of(model)
    layers, d = range(len(anatomy.blocks)), anatomy.d_model
    has_mlp = anatomy.blocks[0].mlp is not None
    dictionaries, whole = {}, ()

    def put(site: Site, width: int = d, **options: Any) -> None:
        n = options.pop("n_features", N_FEATURES)
        dictionaries[site.name] = random_dictionary(site, width, n, dtype=dtype, **options)

    def everywhere(*kinds: str, **options: Any) -> None:
        for kind in kinds:
            for layer in layers if kind != "mlp" or has_mlp else ():
                put(Site(kind, layer), **options)  # pyright: ignore[reportArgumentType]

    def transcoders(reads: str, **options: Any) -> None:
        for layer in layers:
            put(Site("transcoder", layer, reads), d_out=d, **options)  # pyright: ignore[reportArgumentType]

    if recipe == "resid":
        everywhere("resid", top=4)
    elif recipe == "all":
        everywhere("attn", "mlp", "resid")
        put(Site("embed"))
    elif recipe == "outputs":
        everywhere("attn", "mlp")
        whole = ("embed",)
    elif recipe.startswith("transcoders"):
        transcoders(recipe.split("-")[1], skip="skip" in recipe, normalize=read_only if "own" in recipe else None)
        everywhere("attn") if "resid" not in recipe.split("-")[2:] else everywhere("resid")
        whole = ("embed",)
    elif recipe == "normalised":
        everywhere("resid", normalize=layer_norm)
        everywhere("attn", "mlp", normalize=constant_norm)
    elif recipe == "heads":
        everywhere("mlp", "resid") if has_mlp else everywhere("resid")
        whole = ("z",)
    elif recipe == "mixed":
        everywhere("mlp" if has_mlp else "resid")
        whole = ("attn", "embed")
    elif recipe == "z":
        for layer in layers:
            attention = anatomy.blocks[layer].attention
            put(Site("z", layer), attention.n_heads * attention.W_O.shape[1])
        whole = ("resid",)
    elif recipe == "resid_mid":
        everywhere("resid_mid", "resid")
        put(Site("resid_pre", 0))
    elif recipe == "neurons":
        from sparse_circuits.dictionary.neurons import neurons

        dictionaries = {found.site.name: found for found in neurons(anatomy, ["mlp", "resid"], None, None)}
    else:
        raise ValueError(recipe)
    return FeatureGraph.of_anatomy(anatomy, dictionaries, whole)


EVERY = ("gpt2", "llama", "neox", "gemma2")
BRIDGE_RECIPES = (
    "resid", "all", "outputs", "transcoders-normalized", "transcoders-normed-skip", "transcoders-resid_mid-resid",
    "transcoders-normed-own-resid", "normalised", "heads", "mixed", "z", "neurons",
)  # fmt: skip
CASES = [
    *((family, recipe) for family in EVERY for recipe in BRIDGE_RECIPES),
    *((family, recipe) for family in BRIDGES if family not in EVERY for recipe in ("all", "heads")),
    *(("hooked-gpt2", recipe) for recipe in ("resid_mid", "all", "z")),
    ("hooked-rotary-parallel-gqa", "outputs"),
    ("hooked-attn-only", "heads"),
    ("hooked-bidirectional", "all"),
    ("hooked-local-softcap", "outputs"),
]
# A parallel block has no stream between attention and MLP, whatever a hook point is called.
CASES = [case for case in CASES if case != ("neox", "transcoders-resid_mid-resid")]
CASES = [case for case in CASES if HAS_HOOKED or not case[0].startswith("hooked")]
each_case = pytest.mark.parametrize(("family", "recipe"), CASES)
LIGHT = [
    ("gpt2", "all"),
    ("gpt2", "normalised"),
    ("llama", "transcoders-normed-skip"),
    ("neox", "outputs"),
    ("gemma2", "heads"),
]
each_light = pytest.mark.parametrize(("family", "recipe"), LIGHT)

ABLATIONS: dict[str, tuple[sc.Ablation, Callable[[Runs], Changes]]] = {
    "patch": (sc.Ablation.PATCH, patched),
    "zero": (sc.Ablation.ZERO, zeroed),
    "mean": (sc.Ablation.MEAN, lambda runs: averaged(runs, runs.clean, (0, 1))),
    "mean_positional": (sc.Ablation.MEAN_POSITIONAL, lambda runs: averaged(runs, runs.clean, (0,))),
}


def dense(scores: sc.Scores) -> torch.Tensor:
    """Every node's score, ``[nodes of the graph]``."""
    out = torch.zeros(scores.graph.size)
    out[scores.node_ids] = scores.node_values
    return out


def dense_edges(scores: Any) -> torch.Tensor:
    """Every edge's score, ``[sources, targets]``; the logits are the last target."""
    out = torch.zeros(scores.graph.size, scores.graph.size + 1)
    out[scores.edges.sources, scores.edges.targets] = scores.edges.values
    return out


def summed(found: list[torch.Tensor], keep: bool) -> torch.Tensor:
    """Effects ``[batch, pos, nodes]`` of each place as the scores of a graph's nodes."""
    parts = [x.mean(0).T.flatten() if keep else x.mean(0).sum(0) for x in found]
    return torch.cat(parts)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    scale = expected.abs().max()
    assert scale > 1e-3
    assert (found - expected).abs().max() < tolerance * scale


def oracle_edges(
    runs: Runs, changes: Changes, at: list[torch.Tensor], effects: list[torch.Tensor], above: float, keep: bool = False
) -> torch.Tensor:
    """Edges between places, like :func:`dense_edges` without the logits; every earlier place is looked at."""
    graph, n_pos = runs.graph, runs.clean.shape[1]
    n = n_pos if keep else 1
    groups = torch.arange(n_pos).expand_as(runs.clean) if keep else None
    found = edges(runs, changes, at, targets(runs, effects, above), groups=groups, n_groups=n)
    out, offsets = torch.zeros(graph.offsets[-1] * n, graph.offsets[-1] * n), graph.offsets
    for (down, up), table in found.items():
        rows, columns = (slice(offsets[i] * n, offsets[i + 1] * n) for i in (up, down))
        out[rows, columns] = table.T / len(runs.clean)
    return out


def quantile(effects: list[torch.Tensor], wanted: int) -> float:
    """A threshold that about so many (example, position, node) exceed, halfway between two effects."""
    sizes = torch.cat([x.abs().flatten() for x in effects]).sort(descending=True).values
    return float((sizes[wanted] + sizes[wanted + 1]) / 2)


@each_case
def test_graph_knows_who_reads_whom(zoo, family: str, recipe: str) -> None:
    model = zoo(family)
    graph = make_graph(model, recipe)
    parents, local = reachable(Runs(model, graph, token_task(1)))
    assert [set(reach.parents) for reach in graph.reach] == parents
    for reach, same, found in zip(graph.reach, local, parents, strict=True):
        assert reach.local == same or not found
        assert same or not reach.local


@each_case
def test_first_order_effects(zoo, family: str, recipe: str) -> None:
    model, task = zoo(family), token_task(3, 6)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    scores = sc.attribute(model, graph, task, sc.EAP())
    close(dense(scores), summed(node_effects(runs, patched(runs), gradients(runs)), keep=False), 1e-4)


@each_light
@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("keep", [False, True])
def test_first_order_effects_under_ablations(zoo, family: str, recipe: str, name: str, keep: bool) -> None:
    model, task = zoo(family), token_task(3, 6)
    graph, (ablation, change) = make_graph(model, recipe), ABLATIONS[name]
    runs = Runs(model, graph, task)
    if name != "patch":  # corrupted prompts are not needed
        task = sc.Task(task.clean, metric=task.metric)
    scores = sc.attribute(model, graph, task, sc.EAP(), ablation=ablation, positions="keep" if keep else "sum")
    close(dense(scores), summed(node_effects(runs, change(runs), gradients(runs)), keep), 1e-4)


@pytest.mark.parametrize(("family", "recipe"), [("gpt2", "resid"), *LIGHT[2:]])
def test_first_order_effects_are_slopes(zoo, family: str, recipe: str) -> None:
    """Not by autograd: the exact effect of a small part of the change, in both directions."""
    model, task, h = zoo(family), token_task(2, 5), 4e-3
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    whole = patched(runs)
    groups = torch.zeros_like(runs.clean)
    ends = []
    for share in (h, -h):
        part = Changes([None if f is None else share * f for f in whole.features], [share * r for r in whole.rest])
        ends.append(exact_effects(runs, part, groups, 1).mean(0))
    close(dense(sc.attribute(model, graph, task, sc.EAP())), (ends[0] - ends[1]) / (2 * h), 1e-2)


@pytest.mark.parametrize(("family", "recipe"), [*LIGHT[2:], ("gpt2", "z"), ("gpt2", "resid"), ("llama", "normalised")])
@pytest.mark.parametrize("name", ABLATIONS)
def test_exact_is_brute_force(zoo, family: str, recipe: str, name: str) -> None:
    model, task = zoo(family), token_task(2, 5)
    graph, (ablation, change) = make_graph(model, recipe), ABLATIONS[name]
    runs = Runs(model, graph, task)
    expected = exact_effects(runs, change(runs), torch.zeros_like(runs.clean), 1)
    scores = sc.attribute(model, graph, task, sc.Exact(), ablation=ablation, per_example=True)
    close(dense(scores), expected.mean(0), 1e-4)
    rows, nodes, values = scores.per_example
    alone = torch.zeros_like(expected)
    alone[rows, nodes] = values
    close(alone, expected, 1e-4)


@pytest.mark.parametrize(("family", "recipe"), [("gpt2", "resid"), LIGHT[2]])
def test_exact_at_each_position(zoo, family: str, recipe: str) -> None:
    model, task = zoo(family), token_task(2, 5)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    groups = torch.arange(5).expand_as(runs.clean)
    expected = exact_effects(runs, patched(runs), groups, 5).mean(0)
    close(dense(sc.attribute(model, graph, task, sc.Exact(), positions="keep")), expected, 1e-4)


@each_light
@pytest.mark.parametrize("name", ["patch", "zero"])
def test_effects_along_activations(zoo, family: str, recipe: str, name: str) -> None:
    """One place at a time goes from ablated to clean, everything after it computed again."""
    model, task = zoo(family), token_task(2, 6)
    graph, (ablation, change) = make_graph(model, recipe), ABLATIONS[name]
    runs, method = Runs(model, graph, task), sc.EAPIG(steps=3, path="activations")
    changes = change(runs)
    expected = summed(node_effects(runs, changes, along_activations(runs, changes, points("midpoint", 3))), keep=False)
    close(dense(sc.attribute(model, graph, task, method, ablation=ablation)), expected, 1e-4)


@pytest.mark.parametrize(("family", "recipe"), LIGHT[:2])
def test_effects_along_inputs(zoo, family: str, recipe: str) -> None:
    """The average gradient between corrupted and clean embeddings: here of two ends, which are the prompts themselves."""
    model, task = zoo(family), token_task(3, 6)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    at = [(a + b) / 2 for a, b in zip(gradients(runs), gradients(runs, runs.corrupted), strict=True)]
    expected = summed(node_effects(runs, patched(runs), at), keep=False)
    close(dense(sc.attribute(model, graph, task, sc.CleanCorrupted())), expected, 1e-4)
    ends = sc.EAPIG(steps=2, quadrature="trapezoid")
    close(dense(sc.attribute(model, graph, task, ends)), expected, 1e-4)


@each_case
def test_edges(zoo, family: str, recipe: str) -> None:
    """Also that no edge is left out: the oracle looks from every downstream node at every place before it."""
    model, task = zoo(family), token_task(2, 5)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    changes, at = patched(runs), gradients(runs)
    effects = node_effects(runs, changes, at)
    above = quantile(effects, 60)
    scores = sc.attribute(model, graph, task, sc.EAP(), nodes_above=above)
    found = dense_edges(scores)
    close(found[:, :-1], oracle_edges(runs, changes, at, effects, above), 1e-4)
    close(found[:, -1], summed(logits_edges(runs, changes), keep=False), 1e-4)


@each_light
@pytest.mark.parametrize("keep", [False, True])
def test_edges_under_integrated_weights(zoo, family: str, recipe: str, keep: bool) -> None:
    """The average gradient weighs a downstream node; the derivative between two nodes is the clean run's."""
    model, task, method = zoo(family), token_task(2, 4), sc.EAPIG(steps=2, path="activations")
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    changes = zeroed(runs)
    at = along_activations(runs, changes, points("midpoint", 2))
    effects = node_effects(runs, changes, at)
    above = quantile(effects, 80)
    scores = sc.attribute(
        model, graph, task, method, ablation=sc.Ablation.ZERO, nodes_above=above, positions="keep" if keep else "sum"
    )
    close(dense_edges(scores)[:, :-1], oracle_edges(runs, changes, at, effects, above, keep), 1e-4)


def test_every_target_is_wanted_above_zero(zoo) -> None:
    """nodes_above=0 is every node with any effect."""
    model, task = zoo("gpt2"), token_task(1, 4)
    graph = make_graph(model, "resid")
    runs = Runs(model, graph, task)
    changes, at = patched(runs), gradients(runs)
    expected = oracle_edges(runs, changes, at, node_effects(runs, changes, at), 0.0)
    close(dense_edges(sc.attribute(model, graph, task, sc.EAP(), nodes_above=0))[:, :-1], expected, 1e-4)


@pytest.mark.parametrize(("family", "recipe"), [("gpt2", "all"), ("gpt2", "outputs"), ("llama", "resid")])
def test_a_gradient_is_the_sum_of_its_paths(zoo, family: str, recipe: str) -> None:
    """Chain rule: a node's whole effect is its direct edge to the logits and what goes through the places that read it."""
    model, task = zoo(family), token_task(2, 5)
    graph = make_graph(model, recipe)
    runs = Runs(model, graph, task)
    at = gradients(runs)
    cut = CutRun(runs)
    for up in range(len(runs.places)):
        outputs = [cut.metric.sum()]
        for down in range(up + 1, len(runs.places)):
            s = cut.computed[down]
            for z, weight in (
                ((s.features @ runs.places[down].dictionary.W_dec, 1.0), (s.rest, 1.0))
                if s.features is not None
                else ((s.rest, 1.0),)
            ):
                outputs.append((z * at[down]).sum() * weight)
            if isinstance(s.base, torch.Tensor) and s.base.requires_grad:
                outputs.append((s.base * at[down]).sum())
        (found,) = torch.autograd.grad(sum(outputs), [cut.rest[up]], retain_graph=True)
        close(found, at[up], 1e-4)
