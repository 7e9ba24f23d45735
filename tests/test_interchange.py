"""Attribution graphs: what circuit-tracer's own models and page make of them, names that cannot collide, and the way back."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import token_task
from feature_oracle import random_dictionary

import sparse_circuits as sc
from sparse_circuits.circuit.feature_circuit import EdgeList, FeatureCircuit
from sparse_circuits.circuit.formats.attribution_graph import schema
from sparse_circuits.circuit.formats.attribution_graph.build import _logit
from sparse_circuits.circuit.formats.attribution_graph.ids import KINDS, LARGEST, cantor, part, uncantor
from sparse_circuits.circuit.formats.attribution_graph.schema import schema_named
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.graph import FeatureGraph, Graph, Place
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site

TOKENS = ["<bos>", "The", " cat", " in", " the", " hat"]


@pytest.fixture(scope="session")
def circuit_tracer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """circuit-tracer's own modules by name, from its files alone: what it depends on does not go with TransformerLens 3.9."""
    folder = tmp_path_factory.mktemp("circuit-tracer")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "--retries",
        "0",
    ]
    done = subprocess.run([*pip, "--target", str(folder), "circuit-tracer==0.5.0"], capture_output=True, text=True)
    if done.returncode or not (folder / "circuit_tracer").is_dir():
        pytest.skip(f"pip cannot get circuit-tracer: {done.stderr.strip().splitlines()[-1:]}")
    pytest.importorskip("pydantic")
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"circuit_tracer.{name}")
    sys.path.remove(str(folder))


# --- circuits with something of everything ---


def places(*named: tuple[str, int]) -> tuple[Place, ...]:
    """Sites with so many features each; 0 for a whole site."""
    sites = [(Site.named(name), n) for name, n in named]
    made = [
        Place(site, n, 4 if site.kind == "z" and not n else 1, f"own/{site.name}" if n else None) for site, n in sites
    ]
    return tuple(sorted(made, key=lambda place: place.site.order))


EVERYWHERE = FeatureGraph(
    places(
        ("embed", 9), ("resid_pre_0", 9), ("z_0", 9), ("attn_0", 9), ("mlp_0", 9), ("resid_0", 9),
        ("z_1", 0), ("attn_1", 9), ("resid_mid_1", 9), ("transcoder_1", 9), ("resid_1", 9),
        ("attn_2", 0), ("mlp_2", 0), ("resid_2", 0),
    ),
    n_layers=3,
    d_model=8,
)  # fmt: skip


def everything(graph: FeatureGraph) -> FeatureCircuit:
    """All nodes of a graph, and an edge from each into the logits."""
    ids = torch.arange(graph.size)
    values = torch.linspace(-2, 1, graph.size)
    return FeatureCircuit(
        graph, ids, values, EdgeList(ids, torch.full_like(ids, graph.logits), values / 2), {"task": "t"}
    )


def components(level: str, positions: tuple[str, ...] = (), n_kv: int = 4) -> sc.Circuit:
    sizes = {"outputs": {"d_model": 5}, "neurons": {"d_head": 3, "d_mlp": 7}}.get(level, {})
    graph = Graph(2 if positions else 3, 4, n_kv, level=level, positions=positions, causal=bool(positions), **sizes)  # pyright: ignore
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(1)) * graph.mask
    return sc.Circuit(graph, graph.mask.clone(), values, {"task": "t", "signed": True, "n_examples": 3})


CIRCUITS: dict[str, Callable[[], sc.Circuit | FeatureCircuit]] = {
    "features": lambda: everything(EVERYWHERE),
    "features by position": lambda: everything(EVERYWHERE.at(tuple(map(str, range(6))))),
    "edges": lambda: components("edges"),
    "edges by position": lambda: components("edges", tuple(map(str, range(6)))),
    "shared keys": lambda: components("edges", n_kv=2),
    "nodes": lambda: components("nodes"),
    "nodes by position": lambda: components("nodes", tuple(map(str, range(6)))),
    "outputs": lambda: components("outputs"),
    "neurons by position": lambda: components("neurons", tuple(map(str, range(6)))),
}


@pytest.fixture(params=CIRCUITS)
def circuit(request: pytest.FixtureRequest) -> sc.Circuit | FeatureCircuit:
    return CIRCUITS[request.param]()


@pytest.fixture(scope="module")
def toy() -> Any:
    return sc.load_model("toy")


@pytest.fixture(scope="module")
def agreement(
    toy: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[sc.FeatureCircuit, sc.Task, dict[str, sc.Feature]]:
    """A circuit of one prompt with its positions, and pages of its features."""
    pytest.importorskip("sae_lens")
    task = sc.load_task("sva-across-rc", toy, n=8)[:1]
    graph = sc.Graph.of(toy, sc.load_dictionaries("toy", toy))
    scores = sc.attribute(toy, graph, task, sc.EAP(), nodes_above=0.1, positions="keep")
    circuit = scores.top(40)
    store = sc.collect_contexts(toy, circuit, "toy", store=tmp_path_factory.mktemp("store"), tokens=3000)
    return circuit, task, sc.feature_pages(toy, circuit, store, k=3)


@pytest.fixture(scope="module")
def shown(toy: Any, agreement: Any) -> sc.AttributionGraph:
    circuit, task, pages = agreement
    return sc.AttributionGraph.of(circuit, toy, task, pages=pages)


# --- what circuit-tracer makes of it ---


def test_circuit_tracers_own_models_accept_it(circuit: Any, circuit_tracer: Any) -> None:
    models = circuit_tracer("frontend.graph_models")
    content = sc.AttributionGraph.of(circuit, tokens=TOKENS).to_dict()
    read = models.Model.model_validate(json.loads(json.dumps(content)))
    assert [models.Link.model_validate(link).weight for link in read.links] == [x["weight"] for x in content["links"]]
    assert {node.node_id for node in read.nodes} >= {
        end for link in read.links for end in (link["source"], link["target"])
    }
    again = json.loads(read.model_dump_json())
    for key in ("metadata", "qParams"):
        assert again[key].items() <= content[key].items()
    for theirs, ours in zip(again["nodes"], content["nodes"], strict=True):
        assert {name: ours.get(name, theirs[name]) for name in theirs} == theirs


def test_circuit_tracers_model_of_a_page_accepts_ours(shown: sc.AttributionGraph, circuit_tracer: Any) -> None:
    model = circuit_tracer("frontend.feature_models").Model
    assert len(shown.pages) > 10
    for number, page in shown.pages.items():
        read = model.model_validate(page)
        assert read.index == number
        assert json.loads(read.model_dump_json()).items() <= page.items()


def test_a_transcoder_feature_is_called_as_there(circuit_tracer: Any) -> None:
    node = circuit_tracer("frontend.graph_models").Node
    graph = FeatureGraph(places(("transcoder_0", 500), ("transcoder_1", 500)), 2, 8).at(tuple(map(str, range(6))))
    content = sc.AttributionGraph.of(everything(graph), tokens=TOKENS)
    by_name = {one["sparse_circuits"]["name"]: one for one in content.nodes if "sparse_circuits" in one}
    for layer, feature, position in itertools.product((0, 1), (0, 7, 499), (0, 5)):
        ours = by_name[f"transcoder_{layer}.f{feature}@{position}"]
        theirs = node.feature_node(layer, position, feature).model_dump()
        same = ("node_id", "feature", "layer", "ctx_idx", "feature_type")
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    token = node.token_node(3, 3).model_dump()
    ours = next(one for one in content.nodes if one["node_id"] == "E_3_3")
    assert {key: ours[key] for key in ("feature", "layer", "ctx_idx", "feature_type")} == {
        key: token[key] for key in ("feature", "layer", "ctx_idx", "feature_type")
    }


PAGE = """
const fs = require('fs'), vm = require('vm');
const by = (f, x) => (f ? f(x) : x);
const d3 = {
  max: (all, f) => all.map((x) => by(f, x)).filter((v) => v != null && v >= v).reduce((a, b) => (a > b ? a : b), undefined),
  sum: (all, f) => all.reduce((total, x) => total + (+f(x) || 0), 0),
  sort: (all, f) => [...all].sort((a, b) => (f(a) < f(b) ? -1 : f(a) > f(b) ? 1 : 0)),
  nestBy: (all, f) => {
    const found = new Map();
    all.forEach((x) => found.set(f(x), [...(found.get(f(x)) || []), x]));
    return [...found.values()];
  },
};
const [script, ...files] = process.argv.slice(2);
const window = {};
const util = { params: { get: () => null, set() {} }, ppToken: (x) => x };
const quiet = { log() {} };
const context = { window, d3, util, console: quiet, Map, Set, JSON, Math, isNaN, isFinite, parseFloat };
vm.runInContext(fs.readFileSync(script, 'utf8'), vm.createContext(context));
(async () => {
  for (const file of files) {
    const data = JSON.parse(fs.readFileSync(file));
    const out = await window.utilCg.formatData(data, { pruningThreshold: data.metadata.node_threshold, pinnedIds: [] });
    console.log(JSON.stringify({
      nodes: out.nodes.map((d) => [d.node_id, d.featureId, d.streamIdx]), links: out.links.length,
      features: out.features.length,
      logits: out.nodes.filter((d) => d.feature_type == 'logit').map((d) => [d.logitToken, d.logitPct]),
    }));
  }
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="circuit-tracer's page is tested where Node.js is installed")
def test_circuit_tracers_page_keeps_every_node_and_link(
    tmp_path: Path, toy: Any, shown: Any, circuit_tracer: Any
) -> None:
    """Its own script, with what it takes of d3: it throws away nodes that share a name, and links to what it threw away."""
    assets = Path(circuit_tracer("frontend.graph_models").__file__ or "").parent / "assets"
    graphs = [
        shown,
        *(sc.AttributionGraph.of(make(), tokens=TOKENS, slug=f"g{i}") for i, make in enumerate(CIRCUITS.values())),
    ]
    files = [str(graph.save(tmp_path)) for graph in graphs]
    (tmp_path / "page.js").write_text(PAGE)
    command = ["node", str(tmp_path / "page.js"), str(assets / "attribution_graph" / "util-cg.js"), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for graph, line in zip(graphs, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert {id for id, _, _ in found["nodes"]} == {node["node_id"] for node in graph.nodes}
        assert found["links"] == len(graph.links)
        assert found["features"] == len({feature for _, feature, _ in found["nodes"]}) == len(graph.nodes)
        rows = {node["node_id"]: 0 if node["layer"] == "E" else int(node["layer"]) + 1 for node in graph.nodes}
        logits = {node["node_id"]: node for node in graph.nodes if node["feature_type"] == "logit"}
        assert {id: row for id, _, row in found["nodes"] if id not in logits} == {
            id: row for id, row in rows.items() if id not in logits
        }
        above = {row for id, _, row in found["nodes"] if id in logits}
        assert len(above) == 1
        assert min(above) > max(row for id, _, row in found["nodes"] if id not in logits)
        assert sorted(found["logits"]) == sorted(
            [node["clerp"].split('"')[1], round(node["token_prob"], 3)] for node in logits.values()
        )


@pytest.mark.parametrize(
    ("model", "scan"),
    [("toy", "toy"), ("google/gemma-2-2b", "gemma-2-2b"), ("/home/me/my model.v2", "my-model-v2"), ("", "model")],
)
def test_neuronpedia_takes_the_names_of_models_and_tasks(model: str, scan: str) -> None:
    """It refuses what has anything but letters, digits, "_" and "-" in it."""
    circuit = sc.Circuit.of(Graph(2, 2, 2), {"input->m0": -1.0}, model=model, task="my task: é/ü")
    found = sc.AttributionGraph.of(circuit, tokens=TOKENS).metadata
    assert found["scan"] == scan
    assert found["slug"].startswith("my-task")
    assert re.fullmatch("[a-zA-Z0-9_-]+", found["slug"])
    assert sc.AttributionGraph.of(circuit, tokens=TOKENS, scan="./data/features/x").metadata["scan"].startswith("./")


# --- names ---


def test_no_two_nodes_share_a_name_or_what_the_page_knows_them_by(circuit: Any) -> None:
    graph = sc.AttributionGraph.of(circuit, tokens=TOKENS)
    ids = [node["node_id"] for node in graph.nodes]
    assert len(set(ids)) == len(ids)
    assert len({(node["layer"], node["feature"], node["ctx_idx"]) for node in graph.nodes}) == len(ids)
    own = [node["sparse_circuits"]["name"] for node in graph.nodes if "sparse_circuits" in node]
    units = circuit.names if isinstance(circuit, sc.Circuit) and circuit.graph.level != "edges" else circuit.nodes
    assert set(own) - {"logits"} == set(units) - {"logits"}
    assert len(own) == len(set(own))
    # a file is for one feature, wherever it stands
    files: dict[int, set[str]] = {}
    for node in graph.nodes:
        if "sparse_circuits" in node and node["feature"] >= 0 and node["feature_type"] != "logit":
            files.setdefault(node["feature"], set()).add(node["sparse_circuits"]["name"].partition("@")[0])
    assert all(len(names) == 1 for names in files.values())


def test_numbers_of_all_kinds_layers_and_features_differ() -> None:
    """Exhaustively: every kind in every layer, with indices near each other and far apart."""
    n_layers, indices = 48, [*range(70), 2**14 - 1, 2**14, 131_071, 10**6, 2**24]
    numbers = {
        cantor(kind * n_layers + layer, i) for kind in range(len(KINDS)) for layer in range(n_layers) for i in indices
    }
    assert len(numbers) == len(KINDS) * n_layers * len(indices)
    assert max(numbers) <= LARGEST


def test_features_of_the_embedding_have_no_tokens_number() -> None:
    """Tokens are numbered by their positions, in the same row."""
    for n_layers in (1, 3):
        graph = FeatureGraph(places(("embed", 2**20), ("resid_pre_0", 2**20)), n_layers, 8)
        for name in ("embed.f0", "embed.f1", "resid_pre_0.f0", f"resid_pre_0.f{2**20 - 1}"):
            one = part(FeatureCircuit.of(graph, []), name)
            assert one.layer == "E"
            assert one.number >= 2**31
            assert uncantor(one.number)[1] == int(name.partition(".f")[2])


def test_the_page_takes_the_feature_out_of_its_number() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [0, 1, 17, 100, 863, *torch.randint(2000, (200,), generator=generator).tolist()]
    for row in rows:
        for index in (
            0,
            1,
            5,
            2**16 - 1,
            2**16,
            2**24,
            2**26 - 3000,
            int(torch.randint(2**26 - 3000, (1,), generator=generator)),
        ):
            number = cantor(row, index)
            assert number <= LARGEST
            assert uncantor(number) == (row, index)
            assert float(number) == number


def test_a_number_that_the_page_would_misread_is_refused() -> None:
    graph = FeatureGraph(places(("transcoder_0", 10**9)), 1, 8)
    largest = part(FeatureCircuit.of(graph, []), f"transcoder_0.f{2**26}")
    assert largest.number == cantor(0, 2**26) < 2**53
    with pytest.raises(InputError, match="cannot be in an attribution graph"):
        sc.AttributionGraph.of(FeatureCircuit.of(graph, {f"transcoder_0.f{10**9 - 1}": 1.0}), tokens=TOKENS)
    # whatever number is let through is read right
    for index in range(2**27, 2**27 + 40):
        try:
            number = part(FeatureCircuit.of(graph, []), f"transcoder_0.f{index}").number
        except InputError:
            assert uncantor(cantor(0, index)) != (0, index) or cantor(0, index) > LARGEST
        else:
            assert uncantor(number) == (0, index)


def test_named_spans_stand_at_their_last_token(toy: Any) -> None:
    task = sc.load_task("ioi", toy, n=8)
    circuit = sc.attribute(toy, sc.Graph.of(toy), task, sc.EAP(), positions="spans").top(40)
    graph = sc.AttributionGraph.of(circuit, toy, task, example=2)
    prompts = task.tokenized(toy, anatomy_of(toy), corrupted=False)
    groups = prompts.positions_named(circuit.graph.positions).groups[2].tolist()
    for node in graph.nodes:
        name = node.get("sparse_circuits", {}).get("name", "")
        if "@" in name and node["feature_type"] != "logit":
            number = circuit.graph.positions.index(name.partition("@")[2])
            last = [token for token, group in enumerate(groups) if group == number]
            assert node["ctx_idx"] == (last[-1] if last else len(prompts.clean[2]) - 1)
            assert node["node_id"].endswith(f"_s{number}")
    assert len({node["node_id"] for node in graph.nodes}) == len(graph.nodes)
    # the answer is one of the likely tokens too, and stands there once
    assert len({(node["layer"], node["feature"], node["ctx_idx"]) for node in graph.nodes}) == len(graph.nodes)


# --- what is in it ---


def test_weights_support_and_scores_stay_as_they_are() -> None:
    graph = Graph(2, 2, 2)
    circuit = sc.Circuit.of(
        graph, {"input->a0.h1<q>": -1.0, "input->a0.h1<k>": 0.25, "a0.h1->logits": -2.0, "input->m0": 0.5}
    )
    links = {
        (link["source"], link["target"]): link for link in sc.AttributionGraph.of(circuit, tokens=["a", "b"]).links
    }
    assert links["E_0_1_input", "0_1_1_head"] == {
        "source": "E_0_1_input",
        "target": "0_1_1_head",
        "weight": 0.75,
        "sparse_circuits": {"score": -0.75, "q": -1.0, "k": 0.25},
    }
    assert links["0_1_1_head", "3_-1_1"]["weight"] == 2.0
    assert links["E_0_1_input", "0_0_1_mlp-whole"]["weight"] == -0.5
    unsigned = sc.Circuit.of(graph, {"a0.h1->logits": 2.0}, signed=False)
    assert sc.AttributionGraph.of(unsigned, tokens=["a"]).links[0]["weight"] == 2.0


def test_shared_keys_and_values_are_divided_among_the_heads_that_are_in() -> None:
    graph = Graph(2, 4, 2)
    edges = {"input->a0.g1<k>": -1.0, "a0.h2->logits": -2.0, "a0.h3->logits": 1.0, "input->a1.g0<v>": -3.0}
    links = sc.AttributionGraph.of(sc.Circuit.of(graph, edges), tokens=["a", "b"]).links
    weights = {(link["source"], link["target"]): link["weight"] for link in links}
    assert weights["E_0_1_input", "0_2_1_head"] == weights["E_0_1_input", "0_3_1_head"] == 0.5
    # none of the second layer's heads is in otherwise: then all of the group's are
    assert weights["E_0_1_input", "1_0_1_head"] == weights["E_0_1_input", "1_1_1_head"] == 1.5


def test_without_edges_each_part_has_its_whole_effect() -> None:
    circuit = FeatureCircuit.of(EVERYWHERE, {"attn_1.f3": -2.0, "resid_0.error": 1.0})
    graph = sc.AttributionGraph.of(circuit, tokens=TOKENS)
    assert {(x["source"], x["target"], x["weight"]) for x in graph.links} == {
        ("1_3_5_attn", "4_-1_5", 2.0),
        ("0_-1_5_resid", "4_-1_5", -1.0),
    }
    assert [node["clerp"] for node in graph.nodes[6:]] == ["resid_0.error", "attn_1.f3", 'Output "metric" (p=0.000)']


def test_influence_is_that_of_all_paths_by_hand() -> None:
    """attn -> resid (1), mlp -> resid (-3), attn -> mlp (2), resid -> logits (5)."""
    graph = FeatureGraph(places(("attn_0", 4), ("mlp_0", 4), ("resid_0", 4)), 1, 8)
    ids = torch.tensor([graph.index(name) for name in ("attn_0.f0", "mlp_0.f0", "resid_0.f0")])
    ends = torch.tensor([[0, 2], [1, 2], [0, 1]])
    last = torch.tensor([graph.logits])
    edges = EdgeList(
        torch.cat([ids[ends[:, 0]], ids[2:]]), torch.cat([ids[ends[:, 1]], last]), torch.tensor([1.0, -3, 2, 5])
    )
    made = sc.AttributionGraph.of(FeatureCircuit(graph, ids, torch.ones(3), edges), tokens=["x", "y"])
    found = {node["clerp"]: node["influence"] for node in made.nodes}
    # resid has all of it, 1; mlp 3/4; attn 1/4 by itself and 3/4 by way of mlp, so 1 too, and it is the first; 2.75 in all
    assert found["attn_0.f0"] == pytest.approx(1 / 2.75)
    assert found["resid_0.f0"] == pytest.approx(2 / 2.75)
    assert found["mlp_0.f0"] == pytest.approx(1.0)
    assert found['Output "metric" (p=0.000)'] is None


def test_the_prompt_is_the_models(toy: Any, agreement: Any, shown: sc.AttributionGraph) -> None:
    _, task, _ = agreement
    ids = task.tokenized(toy, anatomy_of(toy), corrupted=False).clean[0]
    assert shown.metadata["prompt"] == task.clean[0]
    assert shown.metadata["prompt_tokens"] == [toy.tokenizer.decode([i]) for i in ids]
    chances = toy(torch.tensor([ids]), return_type="logits")[0, -1].detach().softmax(-1)
    logits = {node["feature"]: node for node in shown.nodes if node["feature_type"] == "logit"}
    (target,) = (node for node in logits.values() if node["is_target_logit"])
    correct = task.metric.correct[task.index[0]]
    correct = [correct] if isinstance(correct, str) else correct
    right = [toy.tokenizer.encode(text, add_special_tokens=False)[0] for text in correct]
    assert target["feature"] == right[0]
    assert target["token_prob"] == pytest.approx(float(chances[sorted(set(right))].sum()), abs=1e-5)
    for token, node in logits.items():
        if node is not target:
            assert node["token_prob"] == pytest.approx(float(chances[token]), abs=1e-5)
    embedded = [node["node_id"] for node in shown.nodes if node["feature_type"] == "embedding"]
    assert embedded == [f"E_{token}_{i}" for i, token in enumerate(ids)]
    assert all(
        link["target"] == target["node_id"]
        for link in shown.links
        if link["target"] in {n["node_id"] for n in logits.values()}
    )


def test_activations_are_those_of_the_prompt(toy: Any, agreement: Any, shown: sc.AttributionGraph) -> None:
    circuit, task, _ = agreement
    ids = task.tokenized(toy, anatomy_of(toy), corrupted=False).clean[0]
    _, cache = toy.run_with_cache(torch.tensor([ids]))
    dictionaries = {place.name: place.dictionary for place in circuit.graph.places}
    seen = 0
    for node in shown.nodes:
        name = node.get("sparse_circuits", {}).get("name", "")
        if ".f" not in name:
            assert node["activation"] is None
            continue
        site, _, rest = name.partition(".f")
        feature, _, position = rest.partition("@")
        dictionary = dictionaries[site]
        value = dictionary.sae.encode(cache[dictionary.hook_name][0])[int(position), int(feature)]
        assert node["activation"] == pytest.approx(float(value), rel=1e-3, abs=1e-4)
        seen += 1
    assert seen > 10


def test_models_without_a_tokenizer_have_numbers_for_tokens(zoo: Any) -> None:
    model, task = zoo("gpt2"), token_task(4)
    site = Site("mlp", 1)
    graph = FeatureGraph.of_anatomy(anatomy_of(model), {"mlp_1": random_dictionary(site, 24)})
    circuit = sc.attribute(model, graph, task, sc.EAP()).top(6)
    made = sc.AttributionGraph.of(circuit, model, task, example=-1)
    assert made.metadata["prompt_tokens"] == [str(i) for i in task.clean[3]]
    assert made.metadata["prompt"] == " ".join(str(i) for i in task.clean[3])
    (target,) = (node for node in made.nodes if node["is_target_logit"])
    assert target["clerp"].startswith(f'Output "{task.metric.correct[3]}" (p=')
    # without positions, a feature's activation is its strongest on the prompt
    final = model.run_with_cache(torch.tensor([task.clean[3]]))[1][site.hook_name][0]
    values = circuit.graph.places[0].dictionary.features(final)
    for node in made.nodes:
        if ".f" in node["clerp"] and node["activation"] is not None:
            assert node["activation"] == pytest.approx(
                float(values[:, int(node["clerp"].split(".f")[1])].max()), abs=1e-4
            )


@pytest.mark.parametrize("token", ['"', "(p=", '" (p=0.9)', "\n", "</script>"])
def test_tokens_do_not_break_what_the_page_reads_out_of_labels(token: str) -> None:
    clerp = _logit(2, 0, 5, token, 0.25)["clerp"]
    assert len(clerp.split('"')) == 3
    assert float(clerp.split("(p=")[1].split(")")[0]) == 0.25


def test_labels_pins_groups_and_notes_of_the_explorer(tmp_path: Path) -> None:
    circuit = FeatureCircuit.of(
        EVERYWHERE, {"attn_1.f3": -2.0, "resid_0.error": 1.0, "resid_1.f8": -1.0, "mlp_0.f1": 0.1}
    )
    state = {
        "format": "sparse-circuits explorer state", "version": 1, "pins": ["resid_1.f8", "gone.f1", "group 1"],
        "groups": [
            {"id": 1, "name": "subjects", "members": ["attn_1.f3", "mlp_0.f1", "gone.f2"]}, {"id": 2, "name": "x", "members": []},
        ],
        "notes": {"attn_1.f3": "plural", "gone.f1": "?", "circuit": "all of it", "mlp_0.f1": "  "},
    }  # fmt: skip
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(state))
    labels = sc.Labels({"attn_1.f3": "something", "mlp_0.f1": "verbs"})
    for given in (state, path):
        graph = sc.AttributionGraph.of(circuit, tokens=TOKENS, labels=labels, state=given)
        assert graph.q_params["supernodes"] == [["subjects", "1_3_5_attn", "0_1_5_mlp"]]
        assert graph.q_params["pinnedIds"] == ["1_8_5_resid", "1_3_5_attn", "0_1_5_mlp"]
        clerps = {node["node_id"]: node["clerp"] for node in graph.nodes}
        assert clerps["1_3_5_attn"] == "attn_1.f3: plural"
        assert clerps["0_1_5_mlp"] == "mlp_0.f1: verbs"
        assert clerps["1_8_5_resid"] == "resid_1.f8"
    with pytest.raises(FileFormatError, match="no saved state"):
        sc.AttributionGraph.of(circuit, tokens=TOKENS, state={"pins": []})
    for damaged in (
        {"pins": 5},
        {"pins": [["x"]]},
        {"groups": ["x"]},
        {"groups": [{"members": "x"}]},
        {"notes": ["x"]},
    ):
        with pytest.raises(FileFormatError, match="pins, groups or notes are damaged"):
            sc.AttributionGraph.of(circuit, tokens=TOKENS, state={**state, **damaged})
    with pytest.raises(InputError, match="no file"):
        sc.AttributionGraph.of(circuit, tokens=TOKENS, state=tmp_path / "none.json")


# --- pages of features ---


def test_pages_say_what_the_features_say(agreement: Any, shown: sc.AttributionGraph) -> None:
    _, _, pages = agreement
    for node in shown.nodes:
        name = node.get("sparse_circuits", {}).get("name", "").partition("@")[0]
        if name not in pages:
            assert node["feature"] not in shown.pages or node["feature_type"] in ("embedding", "logit")
            continue
        known, page = pages[name], shown.pages[node["feature"]]
        assert page["name"] == name
        assert page["top_logits"] == [token for token, _ in known.promoted]
        assert page["bottom_logits"] == [token for token, _ in known.suppressed]
        assert page["activation_frequency"] == known.density
        assert page["act_max"] == (max(abs(known.highest), abs(known.lowest)) or 1.0)
        assert sum(page["histogram"]) == pytest.approx(sum(known.bin_counts))
        assert page["quantile_values"] == sorted(page["quantile_values"])
        if known.fired:
            assert page["quantile_values"][-1] >= known.highest * (1 - 1e-6)
        examples = [example for group in page["examples_quantiles"] for example in group["examples"]]
        for context, example in zip(known.top, examples, strict=False):
            assert example["tokens"] == list(context.tokens)
            assert example["tokens_acts_list"] == pytest.approx(list(context.values), abs=1e-4)
            assert example["train_token_ind"] == context.peak


def test_a_histogram_in_equal_bins_by_hand() -> None:
    page = sc.Feature(
        "m0.n1", tokens=100, fired=12, highest=8.0, bin_edges=(2.0, 4.0, 8.0), bin_counts=(4, 8)
    ).to_dict()
    circuit = components("neurons")
    graph = sc.AttributionGraph.of(circuit, tokens=TOKENS, pages={"m0.n1": page})
    (found,) = graph.pages.values()
    bins = found["histogram"]  # 50 bins 0.16 wide
    assert sum(bins[:12]) == 0
    assert sum(bins[:25]) == pytest.approx(4)
    assert sum(bins) == pytest.approx(12)
    assert bins[30] == pytest.approx(8 * 0.16 / 4)
    assert found["quantile_values"][24] == pytest.approx(2 + 2 * 3 / 4)  # a quarter of 12, 3 of the first 4
    node = next(node for node in graph.nodes if node["feature"] == found["index"])
    assert node["clerp"] == "m0.n1"
    assert node["feature_type"] == "cross layer transcoder"  # the only one whose page is shown


def test_a_folder_is_what_circuit_tracers_page_is_served_from(
    tmp_path: Path, shown: sc.AttributionGraph, circuit_tracer: Any
) -> None:
    folder = tmp_path / "graphs"
    shown.save(folder)
    other = sc.AttributionGraph.of(components("nodes"), tokens=TOKENS, slug="other.one", scan="a/b")
    assert other.save(folder) == folder / "other.one.json"
    shown.save(folder)
    listed = json.loads((folder / "graph-metadata.json").read_text())["graphs"]
    assert [graph["slug"] for graph in listed] == ["other.one", shown.slug]
    metadata = circuit_tracer("frontend.graph_models").Metadata
    assert all(metadata.model_validate(graph) for graph in listed)
    content = json.loads((folder / f"{shown.slug}.json").read_text())
    scan = content["metadata"]["scan"]
    assert (
        scan == listed[1]["scan"] == f"./data/features/{shown.slug}"
    )  # "./" is what the page does not look up elsewhere
    for number, page in shown.pages.items():
        assert json.loads((folder / scan.removeprefix("./data/") / f"{number}.json").read_text()) == page
    (folder / "graph-metadata.json").write_text("[]")
    with pytest.raises(FileFormatError, match="no list of graphs"):
        replace(shown, metadata={**shown.metadata, "slug": "third"}).save(folder)
    assert not list(folder.rglob("third*"))


def test_an_interrupt_leaves_no_pages(tmp_path: Path, shown: sc.AttributionGraph, monkeypatch: Any) -> None:
    written = 0

    def write(path: Path, content: Any) -> Path:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        path.write_text("{}")
        return path

    monkeypatch.setattr("sparse_circuits.circuit.formats.attribution_graph.graph.write_json", write)
    (tmp_path / "there").mkdir()
    for given in ({"path": tmp_path / "a" / "b"}, {"path": tmp_path / "g.json", "features": tmp_path / "there"}):
        with pytest.raises(KeyboardInterrupt):
            shown.save(**given)
        written = 0
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_file_alone_with_its_pages_elsewhere(tmp_path: Path, shown: sc.AttributionGraph) -> None:
    path = shown.save(tmp_path / "g.json", features=tmp_path / "pages")
    back = sc.AttributionGraph.load(path, features=tmp_path / "pages")
    assert back.to_dict() == shown.to_dict()
    assert back.pages == shown.pages
    assert not sc.AttributionGraph.load(path).pages
    with pytest.raises(InputError, match="no pages"):
        sc.AttributionGraph.load(path).save(tmp_path / "h.json", features=tmp_path / "pages")
    with pytest.raises(InputError, match="no folder"):
        shown.save(tmp_path / "none" / "g.json")
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(InputError, match=r"taken\.json: it is a folder"):
        shown.save(tmp_path / "taken.json")
    with pytest.raises(InputError, match="Cannot write"):
        shown.save(tmp_path / f"{'x' * 300}.json")
    with pytest.raises(InputError, match="leave it out"):
        shown.save(tmp_path / "folder", features=tmp_path / "pages")


# --- the way back ---


def assert_same(back: Any, circuit: Any) -> None:
    assert type(back) is type(circuit)
    assert back.graph == circuit.graph
    assert back.provenance == circuit.provenance
    if isinstance(circuit, sc.Circuit):
        assert torch.equal(back.mask, circuit.mask)
        assert torch.equal(back.values, circuit.values)
        return
    assert torch.equal(back.node_ids, circuit.node_ids)
    assert torch.equal(back.node_values, circuit.node_values)
    for name in ("sources", "targets", "values"):
        assert torch.equal(getattr(back.edge_list, name), getattr(circuit.edge_list, name))


def test_circuits_come_back_bit_for_bit(tmp_path: Path, circuit: Any) -> None:
    graph = sc.AttributionGraph.of(circuit, tokens=TOKENS, slug="one")
    path = circuit.to_attribution_graph(tmp_path / "one.json", tokens=TOKENS, slug="one")
    loaded = sc.AttributionGraph.load(path)
    assert loaded.to_dict() == graph.to_dict()
    assert_same(loaded.to_circuit(), circuit)


def test_a_circuit_gets_its_dictionaries_back(shown: sc.AttributionGraph, agreement: Any, toy: Any) -> None:
    circuit, task, _ = agreement
    saes = {place.name: place.dictionary for place in circuit.graph.places}
    back = shown.to_circuit(dictionaries=saes)
    assert_same(back, circuit)
    assert sc.evaluate(toy, back, task).mean == sc.evaluate(toy, circuit, task).mean


def theirs(models: ModuleType) -> dict[str, Any]:
    """A graph as circuit-tracer writes it."""
    node = models.Node
    nodes = [
        node.feature_node(0, 1, 7, influence=0.5, activation=2.0),
        node.feature_node(1, 3, 499),
        node.error_node(1, 2),
        *(node.token_node(i, 40 + i) for i in range(4)),
        node.logit_node(3, 11, "x", 2, target_logit=True, token_prob=0.5),
        node.logit_node(3, 12, "y", 2, token_prob=0.25),
    ]
    ids = [one.node_id for one in nodes]
    links = [(0, 1, 2.0), (2, 1, -1.0), (3, 0, 4.0), (1, 7, 3.0), (1, 8, -3.0), (0, 7, -0.5)]
    return models.Model(
        metadata=models.Metadata(slug="s", scan="gemma", transcoder_list=[], prompt_tokens=list("abcd"), prompt="abcd"),
        qParams=models.QParams(pinnedIds=[], supernodes=[], linkType="both", clickedId="", sg_pos=""),
        nodes=nodes,
        links=[{"source": ids[u], "target": ids[v], "weight": weight} for u, v, weight in links],
    ).model_dump(mode="json")  # fmt: skip


def test_a_graph_of_circuit_tracers_becomes_a_circuit(tmp_path: Path, circuit_tracer: Any) -> None:
    path = tmp_path / "s.json"
    content = theirs(circuit_tracer("frontend.graph_models"))
    path.write_text(json.dumps(content))
    loaded = sc.AttributionGraph.load(path)
    assert loaded.to_dict() == content
    graph = FeatureGraph(places(("transcoder_0", 500), ("transcoder_1", 500)), 2, 8)
    circuit = loaded.to_circuit(graph)
    assert set(circuit.nodes) == {"transcoder_0.f7@1", "transcoder_1.f499@3", "transcoder_1.error@2"}
    assert circuit.to_dict("edges") == {
        "transcoder_1.f499@3->logits": -3.0,
        "transcoder_0.f7@1->transcoder_1.f499@3": -2.0,
        "transcoder_1.error@2->transcoder_1.f499@3": 1.0,
        "transcoder_0.f7@1->logits": 0.5,
    }
    assert circuit.node_values is None
    assert circuit.provenance == {"imported": "s", "scan": "gemma", "prompt": "abcd"}
    with pytest.raises(InputError, match="Pass the graph of its transcoders"):
        loaded.to_circuit()
    with pytest.raises(InputError, match="lacks; it has transcoder_0 with 500"):
        loaded.to_circuit(FeatureGraph(places(("transcoder_0", 500)), 2, 8))
    with pytest.raises(InputError, match=r"f499@3.*transcoder_1 with 20"):
        loaded.to_circuit(FeatureGraph(places(("transcoder_0", 500), ("transcoder_1", 20)), 2, 8))
    for node, field, value in ((0, "feature_type", "lorsa"), (2, "layer", "x")):
        strange = copy.deepcopy(content)
        strange["nodes"][node][field] = value
        path.write_text(json.dumps(strange))
        with pytest.raises(InputError, match="no feature of a per-layer transcoder"):
            sc.AttributionGraph.load(path).to_circuit(graph)


def test_the_page_may_have_saved_its_state_into_the_file(tmp_path: Path, circuit_tracer: Any) -> None:
    content = theirs(circuit_tracer("frontend.graph_models"))
    content["qParams"] = {
        "pinnedIds": "0_7_1,1_499_3",
        "supernodes": '[["a","0_7_1"]]',
        "linkType": "both",
        "clickedId": None,
    }
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    assert sc.AttributionGraph.load(path).to_dict() == content


def test_networkx_has_the_same(shown: sc.AttributionGraph) -> None:
    graph = shown.to_networkx()
    assert set(graph) == {node["node_id"] for node in shown.nodes}
    assert graph.number_of_edges() == len(shown.links)
    link = shown.links[0]
    assert graph.edges[link["source"], link["target"]]["weight"] == link["weight"]
    assert graph.graph["slug"] == shown.slug


# --- what is refused ---


def broken(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        if to is ...:
            del content[keys[-1]]
        else:
            content[keys[-1]] = to

    return change


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no metadata": (broken("metadata", to=...), "the file lacks 'metadata'"),
    "no slug": (broken("metadata", "slug", to=...), "metadata lacks 'slug'"),
    "a path for a slug": (broken("metadata", "slug", to="../x"), r"metadata\.slug is '\.\./x'"),
    "numbers for tokens": (
        broken("metadata", "prompt_tokens", 2, to=5),
        r"metadata\.prompt_tokens\[2\] is 5; expected string",
    ),
    "no tokens": (broken("metadata", "prompt_tokens", to=[]), "at least 1"),
    "nodes by name": (broken("nodes", to={}), "nodes is an object; expected array"),
    "no id": (broken("nodes", 3, "node_id", to=...), r"nodes\[3\] lacks 'node_id'"),
    "a wordy number": (broken("nodes", 1, "feature", to="7"), r"nodes\[1\]\.feature is '7'; expected integer or null"),
    "a number that JavaScript rounds": (broken("nodes", 1, "feature", to=2**53), "at most 9007199254740991"),
    "half a position": (broken("nodes", 1, "ctx_idx", to=1.5), r"nodes\[1\]\.ctx_idx is 1\.5; expected integer"),
    "before the prompt": (broken("nodes", 1, "ctx_idx", to=-1), "at least 0"),
    "after the prompt": (broken("nodes", 1, "ctx_idx", to=6), r"nodes\[1\]\.ctx_idx is 6, and the prompt has 6 tokens"),
    "the same id twice": (broken("nodes", 1, "node_id", to="E_0_0"), "two nodes have the id 'E_0_0'"),
    "true for a number": (broken("nodes", 1, "influence", to=True), "expected number or null"),
    "no weight": (broken("links", 0, "weight", to=...), r"links\[0\] lacks 'weight'"),
    "an endless weight": (broken("links", 0, "weight", to=math.inf), r"links\[0\]\.weight is inf"),
    "a weight that is none": (broken("links", 0, "weight", to=math.nan), r"links\[0\]\.weight is nan"),
    "a link from nowhere": (
        broken("links", 0, "source", to="no_1_1"),
        r"links\[0\]\.source is 'no_1_1', which is no node's id",
    ),
    "an unknown link type": (broken("qParams", "linkType", to="none"), "expected one of input, output, either, both"),
    "a supernode without a name": (broken("qParams", "supernodes", to=[[]]), "at least 1"),
    "NaN where any field may be": (
        broken("metadata", "info", to={"x": [math.nan]}),
        r"metadata\.info\.x\[0\] is nan; JSON",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_other_files_are_refused_by_the_field_that_is_wrong(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    content = sc.AttributionGraph.of(everything(EVERYWHERE), tokens=TOKENS).to_dict()
    change(content)
    path = tmp_path / "g.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=message) as caught:
        sc.AttributionGraph.load(path)
    assert str(path) in str(caught.value)
    jsonschema = pytest.importorskip("jsonschema")  # what JSON Schema itself can say, it says too
    if "two nodes" not in message and "no node" not in message and "the prompt has" not in message:
        with pytest.raises(jsonschema.ValidationError) if "inf" not in message and "nan" not in message else _either():
            jsonschema.validate(content, schema_named("graph"))


def test_values_nested_without_end_are_refused() -> None:
    graph, inner = sc.AttributionGraph.of(components("nodes"), tokens=TOKENS), {}
    for _ in range(10_000):
        inner = {"x": inner}
    with pytest.raises(FileFormatError, match="nested too deeply"):
        replace(graph, more=inner)


def _either() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_jsonschema_accepts_what_is_written(shown: sc.AttributionGraph) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for name in ("graph", "page"):
        jsonschema.Draft202012Validator.check_schema(schema_named(name))
    for graph in (shown, sc.AttributionGraph.of(components("nodes"), tokens=TOKENS)):
        jsonschema.validate(graph.to_dict(), schema_named("graph"))
    for page in list(shown.pages.values())[:3]:
        jsonschema.validate(page, schema_named("page"))


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"null", b'{"metadata": 1}'])
def test_foreign_bytes_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "g.json"
    path.write_bytes(text)
    with pytest.raises(FileFormatError, match=r"g\.json"):
        sc.AttributionGraph.load(path)
    with pytest.raises(InputError, match="No file"):
        sc.AttributionGraph.load(tmp_path / "none.json")


NO_NUMBER = [None, "x", 1.5, -1, [], 10**30]
DAMAGED: dict[str, tuple[str, dict[tuple[str | int, ...], list[Any]]]] = {
    "components": (
        "edges",
        {
            ("version",): [9, None],
            ("kind",): ["features", "x", None, ["a"]],
            ("names",): [["x->y"], [5], [["a"]], None],
            ("scores",): [[1.0], 5, "x"],
            ("provenance",): [None, 5, "x"],
            ("graph",): [None, {"n": 1}, []],
            ("graph", "n_layers"): [*NO_NUMBER, 0, 10**9],  # not one that takes hours
            ("graph", "n_heads"): [*NO_NUMBER, 0, 10**9],
            ("graph", "n_kv"): [*NO_NUMBER, 0, 3, 10**7],
            ("graph", "level"): [None, "x", 5],
            ("graph", "d_model"): NO_NUMBER,
            ("graph", "parallel"): [None, "x", 5],
            ("graph", "positions"): ["x", [5], ["a", "a"]],
        },
    ),
    "features": (
        "features",
        {
            ("nodes",): [5, [[1]], [-1], [10**30], list(range(106, -1, -1)), [0, 0, *range(2, 107)]],
            ("scores",): [[1.0], 5, ["x"]],
            ("edges",): [[[0, 0], [1, 1], [0.5, 0.5]], [[0], [1], []], [[0], [1]], 5],
            ("graph", "places"): [None, 5, [5], [{}]],
            ("graph", "n_layers"): [*NO_NUMBER, 1],  # fewer than its sites
            ("graph", "positions"): ["x", [5], ["a", "a"]],
            ("graph", "places", 3, "site"): ["x", 5, "attn_1"],  # which is there already
            ("graph", "places", 3, "reads"): ["x", 5, None],
            ("graph", "places", 3, "n_features"): NO_NUMBER,
            ("graph", "places", 3, "n_blocks"): [*NO_NUMBER, 0],
            ("graph", "places", 3, "dictionary_id"): [5, []],
            ("graph", "places", 3, "skips"): [None, 1],
        },
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_circuit_in_a_file_is_refused(kind: str) -> None:
    made, changes = DAMAGED[kind]
    graph = sc.AttributionGraph.of(CIRCUITS[made](), tokens=TOKENS)
    for keys, values in changes.items():
        for value in values:
            more = copy.deepcopy(dict(graph.more))
            broken("sparse_circuits", *keys, to=value)(more)
            with pytest.raises(FileFormatError, match="sparse_circuits"):
                replace(graph, more=more).to_circuit()


def test_what_is_no_number_in_a_circuits_provenance_is_null(tmp_path: Path) -> None:
    circuit = sc.Circuit.of(Graph(2, 2, 2), {"input->m0": -1.0}, gap=math.nan, model="x")
    path = circuit.to_attribution_graph(tmp_path / "g.json", tokens=["a"])
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert sc.AttributionGraph.load(path).to_circuit().provenance == {"gap": None, "model": "x"}


def test_halves_of_characters_are_escaped(tmp_path: Path) -> None:
    """As a page writes them that cuts text in the middle of a character."""
    circuit = FeatureCircuit.of(EVERYWHERE, {"attn_1.f3": -2.0})
    path = circuit.to_attribution_graph(tmp_path / "g.json", tokens=TOKENS, labels={"attn_1.f3": "é\ud83d"})
    assert sc.AttributionGraph.load(path).nodes[6]["clerp"] == "attn_1.f3: é\ud83d"


def test_unclear_requests_are_refused(toy: Any) -> None:
    circuit, task = components("edges", tuple(map(str, range(6)))), sc.load_task("ioi", toy, n=4)
    of = sc.AttributionGraph.of
    for given in ({}, {"model": toy}, {"model": toy, "task": task, "tokens": TOKENS}):
        with pytest.raises(InputError, match="expected the prompt"):
            of(circuit, **given)
    with pytest.raises(InputError, match="position 5; choose a longer one"):
        of(circuit, tokens=TOKENS[:5])
    with pytest.raises(InputError, match="expected the prompt's tokens"):
        of(circuit, tokens="The cat")
    with pytest.raises(InputError, match="expected the prompt's tokens"):
        of(circuit, tokens=[])
    for slug in ("../x", "..", "", "two words", "a\nb", "é", "a%20b", 5):  # circuit-tracer's server reads no escapes
        with pytest.raises(InputError, match="expected letters, digits"):
            of(circuit, tokens=TOKENS, slug=slug)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="is the list of a folder's graphs"):
        of(circuit, tokens=TOKENS, slug="graph-metadata")
    with pytest.raises(InputError, match="scan=''"):
        of(circuit, tokens=TOKENS, scan="")
    for name, given in (("pages", [1]), ("labels", ["x"]), ("feature_details", "x")):
        with pytest.raises(InputError, match=rf"{name}=.*expected a mapping"):
            of(circuit, tokens=TOKENS, **{name: given})
    for tokens in ([*TOKENS[:5], 5], [None] * 6, [1.5] * 6, [True] * 6, 6):
        with pytest.raises(InputError, match="expected the prompt's tokens"):
            of(circuit, tokens=tokens)  # pyright: ignore[reportArgumentType]
    unscored = sc.Circuit.of(Graph(2, 2, 2), {"input->m0": math.nan, "m0->logits": -1.0})
    with pytest.raises(InputError, match="'input->m0' has the score nan"):
        of(unscored, tokens=TOKENS)
    with pytest.raises(InputError, match="no scores"):
        of(sc.Circuit.of(Graph(2, 2, 2), ["input->m0"]), tokens=TOKENS)
    with pytest.raises(InputError, match="expected a circuit"):
        of({"edges": []}, tokens=TOKENS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="is the task's to say"):
        of(components("edges", ("subject", "other")), tokens=TOKENS)
    with pytest.raises(InputError, match="another model"):
        of(circuit, toy, task)
    own = sc.attribute(toy, sc.Graph.of(toy), task, sc.EAP()).top(9)
    for example in (4, -5, 1.0, True):
        with pytest.raises(InputError, match="one of the task's 4 examples"):
            of(own, toy, task, example=example)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"AttributionGraph\.of\(task='ioi'\): expected a Task"):
        of(own, toy, "ioi")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"pages\['m0'\]"):
        of(components("nodes"), tokens=TOKENS, pages={"m0": {"label": "x"}})


def test_nothing_that_is_passed_in_is_changed(toy: Any, agreement: Any) -> None:
    circuit, task, pages = agreement
    state = {"format": "sparse-circuits explorer state", "pins": [circuit.nodes[0]], "groups": [], "notes": {}}
    before = copy.deepcopy((state, circuit.provenance, {name: page.to_dict() for name, page in pages.items()}))
    sc.AttributionGraph.of(
        circuit, toy, task, pages=pages, state=state, feature_details={"neuronpedia_source_set": "x"}
    )
    assert (state, circuit.provenance, {name: page.to_dict() for name, page in pages.items()}) == before
    assert not any(point.fwd_hooks or point.bwd_hooks for point in toy.hook_dict.values())


def test_a_schema_must_not_use_words_that_are_not_checked() -> None:
    with pytest.raises(RuntimeError, match="oneOf"):
        schema._check({}, {"type": "object", "oneOf": []}, "")
