"""Pictures and Graphviz text of feature circuits: structure rather than looks."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.text import Text

from sparse_circuits.circuit import Circuit, FeatureCircuit
from sparse_circuits.circuit.feature_circuit import EdgeList
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.graph import FeatureGraph, Graph, Place
from sparse_circuits.model.sites import Site
from sparse_circuits.view.curve import plot_curve
from sparse_circuits.view.feature_layout import place_features
from sparse_circuits.view.feature_picture import MAX_EDGES, MAX_NODES, draw_feature_circuit, strongest
from sparse_circuits.view.figures import Picture
from sparse_circuits.view.routes import route
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

KNOWN = {"task": "sva-across-rc", "model": "toy", "method": "EAPIG(steps=10)", "ablation": "patch"}


def split(name: str, n: int = 300) -> Place:
    return Place(Site.named(name), n, dictionary_id=f"x/{name}")


def whole(name: str, n: int = 1) -> Place:
    return Place(Site.named(name), 0, n)


LAYERS = range(3)
GRAPHS = {
    "attn, mlp, resid": [split(f"{kind}_{i}") for i in LAYERS for kind in ("attn", "mlp", "resid")],
    "resid": [split(f"resid_{i}") for i in LAYERS],
    "transcoders, heads whole": [p for i in LAYERS for p in (whole(f"z_{i}", 4), split(f"transcoder_{i}", 131_072))],
    "embed and sites whole": [whole("embed"), *(p for i in LAYERS for p in (whole(f"attn_{i}"), split(f"resid_{i}")))],
}
POSITIONS = {"sum": (), "spans": ("subject", "attractor", "last"), "keep": tuple(map(str, range(9)))}


@cache
def circuit_on(name: str, positions: str = "sum", n: int = 100, n_edges: int = 240, seed: int = 0) -> FeatureCircuit:
    """A random circuit, error terms and whole nodes among its nodes, with edges that its graph has."""
    graph = FeatureGraph(tuple(GRAPHS[name]), len(LAYERS), 16).at(POSITIONS[positions])
    generator = torch.Generator().manual_seed(seed)
    n = min(n, graph.size // 2)
    others = [torch.arange(graph.size)[graph.nodes_of(i)] for i, place in enumerate(graph.places) if not place.split]
    fixed = [part[:: graph.n_positions] for part in (graph.errors, *others)]
    ids = torch.cat([torch.randperm(graph.size, generator=generator)[:n], *fixed]).unique()
    values = torch.randn(len(ids), generator=generator) ** 3
    places, pairs = graph.places_of(ids).tolist(), []
    for target in torch.randperm(len(ids) + 1, generator=generator).tolist() * 40:
        if len(pairs) == n_edges:
            break
        parents = graph.reach[places[target] if target < len(ids) else -1].parents
        sources = [i for i in range(len(ids)) if places[i] in parents]
        if sources:
            source = sources[int(torch.randint(len(sources), (1,), generator=generator))]
            pairs.append((int(ids[source]), int(ids[target]) if target < len(ids) else graph.logits))
    pairs = sorted(set(pairs))
    edges = EdgeList(*torch.tensor(pairs).T, torch.randn(len(pairs), generator=generator))
    return FeatureCircuit(graph, ids, values, edges, KNOWN)


CASES = [(name, positions) for name in GRAPHS for positions in POSITIONS]


def artists(figure: Picture, kind: type[Patch] = Patch) -> dict[str, Patch]:
    """What has an id, by it."""
    return {str(a.get_gid()): a for a in figure.axes[0].get_children() if isinstance(a, kind) and a.get_gid()}


def words(figure: Picture) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def evaluation_of(circuit: FeatureCircuit, share: float = 0.8) -> Evaluation:
    noise = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)) * 0.3
    clean, empty = 3 + noise[0], -1 + noise[1]
    return Evaluation(circuit, empty + (clean - empty) * share, clean, empty, None, "patch", "nodes")


# --- layout ---


@pytest.mark.parametrize(("name", "positions"), CASES)
def test_boxes_do_not_touch_and_lie_in_order(name: str, positions: str) -> None:
    circuit = circuit_on(name, positions)
    placed = place_features(circuit)
    boxes = placed.layout.nodes
    assert set(boxes) == {*circuit.nodes, "logits"}
    for a, b in combinations(boxes.values(), 2):
        apart = a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom
        assert apart, (a, b)
    graph = circuit.graph
    tops: dict[int, list[float]] = {}
    for number, node in zip(circuit.node_ids.tolist(), circuit.nodes, strict=True):
        box = boxes[node]
        assert box.left > 1.5
        assert box.right < placed.layout.width
        tops.setdefault(graph.place_of(number), []).extend((box.bottom, box.top))
    spans = [tops[place] for place in sorted(tops)]
    assert all(max(below) < min(above) for below, above in pairwise(spans))
    assert max(spans[-1]) < boxes["logits"].bottom
    assert [lane.name for lane in placed.lanes] == [place.name for place in graph.places]
    assert [lane.empty for lane in placed.lanes] == [i not in tops for i in range(len(graph.places))]


@pytest.mark.parametrize(("name", "positions"), CASES)
def test_edges_go_up_and_cross_no_box(name: str, positions: str) -> None:
    circuit = circuit_on(name, positions)
    layout = place_features(circuit).layout
    for edge in circuit.edges:
        source, _, target = edge.partition("->")
        course = route(layout, source, target)
        start, end = layout.nodes[source], layout.nodes[target]
        assert course.knots[0][1] == pytest.approx(start.top)
        assert start.left <= course.knots[0][0] <= start.right
        assert course.knots[-1][1] == pytest.approx(end.bottom)
        assert end.left <= course.knots[-1][0] <= end.right
        for other, box in layout.nodes.items():
            if other not in (source, target) and start.top < box.y < end.bottom:
                for y in (box.bottom, box.y, box.top):
                    assert not box.left + 0.01 < course.x_at(y) < box.right - 0.01, (edge, other)


def test_positions_are_columns_in_order() -> None:
    circuit = circuit_on("resid", "spans")
    layout = place_features(circuit).layout
    assert [name for name, _ in layout.columns] == list(POSITIONS["spans"])
    bounds = [0, *layout.borders, layout.width]
    for name, box in layout.nodes.items():
        if name != "logits":
            column = POSITIONS["spans"].index(name.partition("@")[2])
            assert bounds[column] < box.left
            assert box.right < bounds[column + 1]
    kept = place_features(circuit_on("resid", "keep")).layout
    assert [name for name, _ in kept.columns] == [f"position {i}" for i in range(9)]


def test_a_column_that_nothing_is_in_is_left_out_and_said() -> None:
    circuit = circuit_on("resid", "spans")
    of_two = FeatureCircuit.of(circuit.graph, [n for n in circuit.nodes if not n.endswith("@attractor")])
    assert [name for name, _ in place_features(of_two).layout.columns] == ["subject", "last"]
    assert "Positions with no part in what is drawn are left out: 1 of 3." in words(draw_feature_circuit(of_two))
    assert "left out" not in words(draw_feature_circuit(circuit))


def test_linked_nodes_stand_one_above_the_other() -> None:
    """Without an order by edges a ladder of parallel chains would be a tangle."""
    graph = FeatureGraph(tuple(GRAPHS["resid"]), 3, 16)
    chains = [[f"resid_0.f{i}", f"resid_1.f{(7 * i) % 11 + 20}", f"resid_2.f{(3 * i) % 11 + 40}"] for i in range(11)]
    ids = torch.tensor(sorted(graph.index(name) for chain in chains for name in chain))
    pairs = [(graph.index(u), graph.index(d)) for chain in chains for u, d in pairwise(chain)]
    edges = EdgeList(*torch.tensor(pairs).T, torch.ones(len(pairs)))
    nodes = place_features(FeatureCircuit(graph, ids, torch.ones(len(ids)), edges, KNOWN)).layout.nodes
    for chain in chains:
        assert max(nodes[name].x for name in chain) - min(nodes[name].x for name in chain) < 0.01


# --- picture ---


@pytest.mark.parametrize(("name", "positions"), CASES)
def test_everything_drawn_has_its_name_as_id(name: str, positions: str) -> None:
    circuit = circuit_on(name, positions)
    figure = draw_feature_circuit(circuit)
    assert set(artists(figure)) == {*circuit.nodes, *circuit.edges}
    text = words(figure)
    for place in circuit.graph.places:
        assert f"\n{place.name}\n" in f"\n{text}\n"


@pytest.mark.parametrize(
    ("name", "positions", "n"), [*((*case, 20) for case in CASES), *(("attn, mlp, resid", p, 200) for p in POSITIONS)]
)
def test_words_stay_inside_the_picture_and_their_boxes(name: str, positions: str, n: int) -> None:
    circuit = circuit_on(name, positions, n)
    figure = draw_feature_circuit(circuit, max_nodes=None)
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = figure.bbox
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = {name: patch.get_window_extent(renderer) for name, patch in artists(figure).items() if "->" not in name}
    held = dict.fromkeys(boxes, 0)
    outside = []
    for text in labels:
        extent = text.get_window_extent(renderer)
        assert frame.x0 <= extent.x0
        assert extent.x1 <= frame.x1
        assert frame.y0 <= extent.y0
        assert extent.y1 <= frame.y1
        middle = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
        inside = [name for name, box in boxes.items() if box.contains(*middle)]
        if inside:
            (box,) = inside
            held[box] += 1
            assert boxes[box].x0 - 1 <= extent.x0
            assert extent.x1 <= boxes[box].x1 + 1
        else:
            outside.append(extent)
    assert all(held.values())
    assert not any(a.overlaps(b) for a, b in combinations(outside, 2))


def test_colours_and_shapes_say_sign_and_kind() -> None:
    circuit = circuit_on("embed and sites whole")
    drawn = artists(draw_feature_circuit(circuit))
    scores = circuit.to_dict()
    strong = {
        sign: max((n for n in scores if (scores[n] < 0) == sign), key=lambda n: abs(scores[n]))
        for sign in (True, False)
    }
    for sign, hue in ((True, CARRIES), (False, OPPOSES)):
        red, _, blue = (int(to_hex(drawn[strong[sign]].get_facecolor())[i : i + 2], 16) for i in (1, 3, 5))
        assert (blue > red) == (hue == CARRIES)
    for node in circuit.nodes:
        base = node.partition("@")[0]
        kind = Polygon if base.endswith(".error") else FancyBboxPatch
        assert isinstance(drawn[node], kind), node
        assert (drawn[node].get_linestyle() != "solid") == base.endswith(".error")
    assert drawn["embed"].get_linewidth() > drawn[next(n for n in circuit.nodes if ".f" in n)].get_linewidth()
    edges = circuit.to_dict("edges")
    for name, score in edges.items():
        assert to_hex(drawn[name].get_edgecolor()).upper() == (CARRIES if score < 0 else OPPOSES)
    widths = [drawn[name].get_linewidth() for name in edges]  # strongest first
    assert widths == sorted(widths, reverse=True)


def test_unsigned_and_unscored_circuits_are_neutral() -> None:
    circuit = circuit_on("resid")
    unsigned = replace(circuit, provenance={**KNOWN, "signed": False})
    drawn = draw_feature_circuit(unsigned)
    assert {
        to_hex(a.get_edgecolor()).upper() for a in artists(drawn, PathPatch).values() if "->" in str(a.get_gid())
    } == {NEUTRAL}
    assert "carry no sign" in words(drawn)
    named = FeatureCircuit.of(circuit.graph, circuit.nodes)
    plain = draw_feature_circuit(named)
    assert {to_hex(a.get_facecolor()) for a in artists(plain).values()} == {"#ffffff"}
    assert "it has no scores" in words(plain)


def test_limits_keep_the_strongest_and_are_said() -> None:
    circuit = circuit_on("attn, mlp, resid", n=200, n_edges=400)
    figure = draw_feature_circuit(circuit, max_nodes=30, max_edges=12)
    nodes = {name for name in artists(figure) if "->" not in name}
    edges = {name for name in artists(figure) if "->" in name}
    assert nodes == set(list(circuit.to_dict())[:30])
    between = [e for e in circuit.edges if set(e.split("->")) <= {*nodes, "logits"}]
    assert edges == set(between[:12])
    text = words(figure)
    assert "only the 30 strongest nodes are drawn" in text
    assert f"only the {len(edges)} strongest edges between them are drawn" in text
    assert f"{circuit.size:,} of {circuit.graph.size:,} nodes" in text
    usual = draw_feature_circuit(circuit)
    assert len([name for name in artists(usual) if "->" not in name]) == MAX_NODES
    assert len(strongest(circuit, None, None).edges) == circuit.n_edges > MAX_EDGES
    assert strongest(circuit, None, None).size == circuit.size
    unlimited = draw_feature_circuit(circuit_on("resid", n=30, n_edges=20))
    assert "only the" not in words(unlimited)


def test_small_circuits_say_scores_in_their_boxes() -> None:
    circuit = circuit_on("resid", n=10, n_edges=10)
    text = words(draw_feature_circuit(circuit)).split("\n")
    assert all(f"{score:.2g}" in text for score in circuit.to_dict().values() if abs(score) > 1e-3)


def test_nodes_only_and_no_layer_empty_of_meaning() -> None:
    circuit = replace(circuit_on("resid"), edge_list=EdgeList.empty())
    figure = draw_feature_circuit(circuit)
    assert set(artists(figure)) == set(circuit.nodes)
    assert "of an edge" not in words(figure)
    assert " edges" not in words(figure)


def test_caption_has_title_evaluation_and_baseline() -> None:
    circuit = circuit_on("resid")
    evaluation = replace(evaluation_of(circuit), errors="remove", start_layer=1)
    baseline = Baseline(circuit.size, tuple(evaluation_of(circuit, 0.1 + 0.02 * i) for i in range(20)))
    text = words(draw_feature_circuit(circuit, evaluation=evaluation, baseline=baseline))
    assert text.count("sva-across-rc, toy") == 1
    joined = text.replace("\n", " ")
    assert "faithfulness 0.80 [" in joined
    assert "under patch ablation from layer 1, all errors removed" in joined
    assert "random features, as many per site: 0.29 (median of 20)" in joined
    assert "Verbs" in words(draw_feature_circuit(circuit, title="Verbs"))


def test_refusals() -> None:
    circuit, other = circuit_on("resid"), circuit_on("resid", seed=1)
    with pytest.raises(InputError, match="of another circuit"):
        draw_feature_circuit(circuit, evaluation=evaluation_of(other))
    with pytest.raises(InputError, match="random circuits of 3 nodes; this circuit has"):
        draw_feature_circuit(circuit, baseline=Baseline(3, ()))
    with pytest.raises(InputError, match=r"max_nodes=0\): expected a whole number"):
        draw_feature_circuit(circuit, max_nodes=0)
    with pytest.raises(InputError, match=r"max_edges=2.5\): expected a whole number"):
        draw_feature_circuit(circuit, max_edges=2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="has no nodes"):
        draw_feature_circuit(FeatureCircuit.of(circuit.graph, []))
    with pytest.raises(InputError, match="expected a FeatureCircuit"):
        draw_feature_circuit(Circuit.full(Graph(1, 2, 2)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"ends in \.svg"):
        draw_feature_circuit(circuit, "circuit.bmp")


def test_files(tmp_path: Path) -> None:
    circuit = circuit_on("resid", n=12, n_edges=12)
    for name in ("a.svg", "b.svg", "a.png", "a.pdf"):
        circuit.plot(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    root = ET.fromstring((tmp_path / "a.svg").read_text())
    ids = {element.get("id") for element in root.iter()}
    assert {*circuit.nodes, *circuit.edges} <= ids
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


# --- Graphviz ---


@pytest.mark.parametrize(("name", "positions"), CASES)
def test_dot_has_everything(name: str, positions: str) -> None:
    circuit = circuit_on(name, positions)
    text = circuit.to_dot()
    assert text.startswith("digraph ")
    assert text.count("{") == text.count("}")
    nodes = dict(re.findall(r'^ +"([^"]+)" \[id="[^"]+", (.*)\];$', text, re.MULTILINE))
    assert set(nodes) == set(circuit.nodes)
    edges = dict(re.findall(r'^  "[^"]+" -> "[^"]+" \[id="([^"]+)", (.*)\];$', text, re.MULTILINE))
    assert set(edges) == set(circuit.edges)
    scores = circuit.to_dict() | circuit.to_dict("edges")
    for name, attributes in {**nodes, **edges}.items():
        assert f'score="{scores[name]!r}"' in attributes
        assert f"{name}: {scores[name]:.4g}" in attributes
        assert ("octagon" in attributes) == (".error" in name and "->" not in name)
    assert text.count("subgraph") == (len(POSITIONS[positions]) if positions != "sum" else 0)
    assert ("newrank=true" in text) == (positions != "sum")


def test_dot_needs_no_matplotlib() -> None:
    script = (
        "import sys\nfrom sparse_circuits.view import feature_dot\n"
        "print({'matplotlib', 'transformer_lens'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- curve ---


def curve_of(share: float, total: int = 400) -> Curve:
    circuit = circuit_on("resid", n=100, n_edges=10)
    sizes = (1, 10, 50)
    smaller = [replace(circuit, node_ids=circuit.node_ids[:n], edge_list=EdgeList.empty()) for n in sizes]
    return Curve(sizes, tuple(evaluation_of(c, share * i) for i, c in enumerate(smaller)), total)


def test_curve_of_features_beside_neurons_and_random_ones() -> None:
    features, neurons = curve_of(0.5), curve_of(0.2, 600)
    random = [
        Baseline(e.circuit.size, tuple(evaluation_of(e.circuit, 0.01 * i) for i in range(20)))
        for e in features.evaluations
    ]
    axes = plot_curve(features, beside={"neurons": neurons}, baseline=random).picture().axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert lines["features (95% interval)"].get_ydata() == pytest.approx([0, 0.5, 1.0], abs=1e-6)  # pyright: ignore[reportArgumentType]
    assert lines["neurons"].get_ydata() == pytest.approx([0, 0.2, 0.4], abs=1e-6)  # pyright: ignore[reportArgumentType]
    assert list(lines["neurons"].get_xdata()) == [1, 10, 50]  # pyright: ignore[reportArgumentType]
    assert axes.get_xlabel() == "nodes in the circuit (of 400 with a score)"
    (bars,) = axes.containers
    assert bars.get_label() == "random circuits (20 draws)"
    assert bars.lines[0].get_ydata() == pytest.approx([one.median for one in random])  # pyright: ignore
