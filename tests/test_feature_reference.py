"""Feature graphs against saprmarks/feature-circuits: node effects, edges and ablated metrics of a random model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file

import sparse_circuits as sc
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.graph.features import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site

ROOT = SHARED / "reference" / "feature-circuits"
pytestmark = pytest.mark.skipif(not ROOT.exists(), reason="reference values are not beside this checkout")

N_POS, N_FEATURES = 10, 512
# the reference averages over shares 0, 0.1, ..., 0.9 of the patch: 1, 0.9, ..., 0.1 of the clean run
INTEGRATED = sc.EAPIG(steps=10, path="activations", quadrature="right")
ABOVE = 0.5


def values(name: str) -> dict[str, torch.Tensor]:
    return load_file(ROOT / f"{name}.safetensors")


@pytest.fixture(scope="module")
def model() -> Any:
    return sc.load_model(str(ROOT / "model"))


@pytest.fixture(scope="module")
def data() -> list[dict[str, Any]]:
    return json.loads((ROOT / "data.json").read_text())


@pytest.fixture(scope="module")
def task(data: list[dict[str, Any]]) -> sc.Task:
    """Their metric is higher for the patch's answer, and so this task's "correct" one is that."""
    metric = sc.LogitDiff([row["patch_answer"] for row in data], [row["clean_answer"] for row in data])
    return sc.Task(
        [row["clean_ids"] for row in data], [row["patch_ids"] for row in data], metric=metric, name="reference"
    )


@pytest.fixture(scope="module")
def dictionaries() -> dict[str, Dictionary]:
    weights = values("dictionaries")
    found = {}
    for name in sorted({key.rsplit(".", 1)[0] for key in weights}):
        W_enc, b_enc, W_dec, b_dec = (weights[f"{name}.{part}"] for part in ("W_enc", "b_enc", "W_dec", "b_dec"))
        offset = b_enc - b_dec @ W_enc

        def code(x: torch.Tensor, W_enc: torch.Tensor = W_enc, offset: torch.Tensor = offset) -> torch.Tensor:
            return torch.relu(x @ W_enc + offset)

        site = Site.named(name)
        found[name] = Dictionary(
            site, f"reference/{name}", site.hook_name, site.hook_name, W_enc, offset, W_dec, b_dec, code
        )
    return found


@pytest.fixture(scope="module")
def graph(model: Any, dictionaries: dict[str, Dictionary]) -> FeatureGraph:
    return FeatureGraph.of_anatomy(anatomy_of(model), dictionaries)


def by_place(scores: Any, n_examples: int) -> dict[str, torch.Tensor]:
    """Every example's scores, kept apart by position: ``{site: [examples, positions, features and error]}``."""
    graph, (rows, nodes, found) = scores.graph, scores.per_example
    table = torch.zeros(n_examples, graph.size)
    table[rows, nodes] = found
    return {
        place.name: table[:, graph.nodes_of(i)].unflatten(1, (-1, N_POS)).transpose(1, 2)
        for i, place in enumerate(graph.places)
    }


def assert_close(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    scale = expected.abs().max()
    assert found.shape == expected.shape, what
    assert (found - expected).abs().max() <= 1e-4 * scale, what


@pytest.mark.parametrize(("file", "method"), [("attrib", sc.EAP()), ("ig", INTEGRATED)])
def test_node_effects(model, graph, task, file: str, method: sc.Method) -> None:
    scores = sc.attribute(model, graph, task, method, positions="keep", per_example=True)
    expected = values(f"effects_{file}")
    assert len(graph.places) == 13
    for name, table in by_place(scores, 8).items():
        assert_close(table[..., :N_FEATURES], expected[f"{name}.effect_act"], name)
        assert_close(table[..., N_FEATURES:], expected[f"{name}.effect_resc"], name)
    assert_close(scores.corrupted - scores.clean, expected["total_effect"], "total effect")


def test_exact_effects(model, graph, task) -> None:
    """The first two examples; each feature at each position on its own."""
    scores = sc.attribute(model, graph, task[:2], sc.Exact(), positions="keep", per_example=True)
    expected = values("effects_exact")
    for name, table in by_place(scores, 2).items():
        assert_close(table[..., :N_FEATURES], expected[f"{name}.effect_act"], name)
        assert_close(table[..., N_FEATURES], expected[f"{name}.effect_resc"].view(2, N_POS), name)


@pytest.fixture(scope="module")
def with_edges(model, graph, task) -> dict[str, Any]:
    """Scores with edges, summed over positions and kept apart."""
    return {
        name: sc.attribute(model, graph, task, INTEGRATED, positions=positions, nodes_above=ABOVE)
        for name, positions in (("sum", "sum"), ("none", "keep"))
    }


def test_summed_nodes(with_edges) -> None:
    scores, expected = with_edges["sum"], values("nodes_sum")
    table = torch.zeros(scores.graph.size)
    table[scores.node_ids] = scores.node_values
    for i, place in enumerate(scores.graph.places):
        found = table[scores.graph.nodes_of(i)]
        assert_close(found[:N_FEATURES], expected[f"{place.name}.act"], place.name)
        assert_close(found[N_FEATURES:], expected[f"{place.name}.resc"].flatten(), place.name)


@pytest.mark.parametrize("mode", ["sum", "none"])
def test_edges(with_edges, mode: str) -> None:
    scores, expected = with_edges[mode], values(f"edges_{mode}")
    shapes = json.loads((ROOT / f"edges_{mode}_shapes.json").read_text())
    graph, edges, n = scores.graph, scores.edges, scores.graph.n_positions
    number = {place.name: i for i, place in enumerate(graph.places)}
    names = [*(place.name for place in graph.places), "y"]
    pairs = {(names[u], down) for down, reach in zip(names, graph.reach, strict=True) for u in reach.parents}
    assert pairs == {tuple(key.split("->")) for key in shapes}
    total = 0
    for key, shape in shapes.items():
        up, down = key.split("->")
        u = graph.nodes_of(number[up])
        d = slice(graph.logits, graph.logits + 1) if down == "y" else graph.nodes_of(number[down])
        inside = (
            (edges.sources >= u.start)
            & (edges.sources < u.stop)
            & (edges.targets >= d.start)
            & (edges.targets < d.stop)
        )
        # numbered feature by feature and within these by position; theirs are the other way round, downstream first
        index = [
            x
            for end, start in ((edges.targets, d.start), (edges.sources, u.start))
            for x in _parts(end[inside] - start, n)
        ]
        index = index[-len(shape) :] if n > 1 else [x for i, x in enumerate(index) if i % 2][-len(shape) :]
        ours, theirs = _flat(index, shape), _flat(list(expected[f"{key}.index"]), shape)
        keys, where = torch.cat([ours, theirs]).unique(return_inverse=True)
        found, wanted = torch.zeros(len(keys)), torch.zeros(len(keys))
        found[where[: len(ours)]] = edges.values[inside]
        wanted[where[len(ours) :]] = expected[f"{key}.value"]
        assert_close(found, wanted, key)
        total += int(inside.sum())
    assert total == len(edges)


def _parts(nodes: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and features of a place's nodes."""
    return nodes % n, nodes // n


def _flat(index: list[torch.Tensor], shape: list[int]) -> torch.Tensor:
    out = torch.zeros_like(index[0])
    for part, size in zip(index, shape, strict=True):
        assert bool((part < size).all())
        out = out * size + part
    return out


def test_edges_add_up_over_positions(with_edges) -> None:
    """Each downstream node is chosen at its own position either way."""
    graph, apart = with_edges["none"].graph, with_edges["none"].edges
    n, whole = graph.n_positions, with_edges["sum"]
    logits = whole.graph.logits
    found = torch.zeros(whole.graph.size + 1, whole.graph.size + 1)
    targets = torch.where(apart.targets == graph.logits, logits, apart.targets // n)
    found.index_put_((apart.sources // n, targets), apart.values, accumulate=True)
    expected = torch.zeros_like(found)
    expected[whole.edges.sources, whole.edges.targets] = whole.edges.values
    assert_close(found, expected, "sums")


ABLATION = json.loads((ROOT / "ablation.json").read_text()) if ROOT.exists() else {}


@pytest.mark.parametrize("which", ["with_embed", "no_embed", "layers_ge_1"])
def test_ablated_metrics(model, task, data, dictionaries, with_edges, which: str) -> None:
    """Nodes outside the circuit at their mean over the patch prompts, position by position. Their sign is ours, flipped."""
    over = sc.Ablation.MEAN_POSITIONAL.over([row["patch_ids"] for row in data])
    names = [name for name in dictionaries if which == "with_embed" or name != "embed"]
    start = 1 if which == "layers_ge_1" else 0
    expected = ABLATION[which]
    for case in expected["circuits"]:
        scores = with_edges[case["aggregation"]]
        circuit = scores.threshold(nodes=case["threshold"])
        result = sc.evaluate(
            model, circuit, task, ablation=over, completeness=True, dictionaries={name: dictionaries[name] for name in names},
            errors={"default": "nodes"}.get(case["handle_errors"], case["handle_errors"]), start_layer=start,
        )  # fmt: skip
        sites = [scores.graph.places[i].name for i in scores.graph.places_of(circuit.node_ids).tolist()]
        counted = [name for name in sites if name in names and not (start and name.endswith("_0"))]
        assert len(counted) == case["n_nodes"]
        for found, key in (
            (result.clean, None), (result.per_example, "F(C)"), (result.complement, "F(complement)"),
            (result.empty, "F(empty)_same_handle_errors"),
        ):  # fmt: skip
            assert_close(
                -found, torch.tensor(ABLATION["F(M)"] if key is None else case[key]), f"{case['threshold']} {key}"
            )
        assert result.faithfulness == pytest.approx(case["faithfulness"], abs=1e-4)
        complete = case["completeness(faithfulness of complement)"]
        assert result.completeness == pytest.approx(complete, abs=1e-4)


def test_all_nodes_are_the_model(model, task, data, graph) -> None:
    over = sc.Ablation.MEAN_POSITIONAL.over([row["patch_ids"] for row in data])
    everything = sc.FeatureCircuit(graph, torch.arange(graph.size))
    result = sc.evaluate(model, everything, task, ablation=over)
    assert_close(-result.per_example, torch.tensor(ABLATION["with_embed"]["F(all nodes)"]), "all")
    assert_close(-result.empty, torch.tensor(ABLATION["with_embed"]["F(empty)"]), "none")
