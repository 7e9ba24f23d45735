"""Pictures, Graphviz text and curves: structure rather than looks."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.spines import Spine
from matplotlib.text import Text

from sparse_circuits.circuit import Circuit, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.graph import Graph
from sparse_circuits.view.contents import Content, Contents
from sparse_circuits.view.curve import plot_curve
from sparse_circuits.view.dot import to_dot
from sparse_circuits.view.figures import Picture
from sparse_circuits.view.layout import Layout
from sparse_circuits.view.picture import draw_circuit
from sparse_circuits.view.routes import route
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

GRAPHS = {
    "sequential": Graph(n_layers=3, n_heads=4, n_kv=4),
    "parallel": Graph(n_layers=3, n_heads=4, n_kv=4, parallel=True),
    "attention-only": Graph(n_layers=3, n_heads=4, n_kv=4, has_mlp=False),
    "grouped": Graph(n_layers=3, n_heads=6, n_kv=2),
    "multi-query": Graph(n_layers=3, n_heads=4, n_kv=1),
    "deep": Graph(n_layers=12, n_heads=12, n_kv=12),
}
SPANS = ("subject", "verb", "object", "preposition", "last")
PLACED = {
    "spans": GRAPHS["sequential"].at(SPANS),
    "parallel spans": GRAPHS["parallel"].at(SPANS),
    "grouped spans": GRAPHS["grouped"].at(SPANS),
    "attention-only spans": GRAPHS["attention-only"].at(SPANS),
    "kept": GRAPHS["sequential"].at(tuple(map(str, range(22))), causal=True),
    "one position": GRAPHS["sequential"].at(("last",)),
}
UNITS: dict[str, dict[str, int]] = {"nodes": {}, "outputs": {"d_model": 32}, "neurons": {"d_head": 8, "d_mlp": 64}}


def scores_on(graph: Graph, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.shape, generator=generator) ** 3 * graph.mask
    clean = 3 + torch.randn(32, generator=generator)
    known = {"task": "ioi", "model": "toy", "method": "EAP()", "ablation": "patch"}
    return Scores(graph=graph, values=values, clean=clean, corrupted=clean - 4, provenance=known)


@cache
def circuit_on(graph: Graph, n: int = 60) -> Circuit:
    """A circuit of at least ``n`` edges."""
    scores = scores_on(graph)
    grown = (scores.greedy(size) for size in range(n, graph.size, 20))
    return next(circuit for circuit in grown if circuit.size >= n)


def evaluation_of(circuit: Circuit, share: float = 0.8, completeness: float | None = None) -> Evaluation:
    noise = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 0.3
    clean, empty = 3 + noise[0], -1 + noise[1]
    complement = None if completeness is None else empty + (clean - empty) * completeness
    return Evaluation(circuit, empty + (clean - empty) * share + 0.1 * noise[2], clean, empty, complement, "patch")


def baseline_of(circuit: Circuit) -> Baseline:
    return Baseline(circuit.size, tuple(evaluation_of(circuit, 0.1 + 0.01 * i) for i in range(20)))


def edge_lines(figure: Picture) -> dict[str, PathPatch]:
    lines = [a for a in figure.axes[0].get_children() if isinstance(a, PathPatch) and "->" in str(a.get_gid())]
    assert len({a.get_gid() for a in lines}) == len(lines)
    return {str(a.get_gid()): a for a in lines}


def words(figure: Picture) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def check_readable(figure: Picture) -> None:
    """Nothing leaves the figure, and no texts overlap."""
    frame = figure.bbox
    renderer = FigureCanvasAgg(figure).get_renderer()
    for artist in figure.axes[0].get_children():
        if isinstance(artist, Spine | Axis) or artist is figure.axes[0].patch:
            continue
        box = artist.get_window_extent(renderer)
        if box.width or box.height:
            assert frame.x0 - 1 <= box.x0, artist
            assert box.x1 <= frame.x1 + 1, artist
            assert frame.y0 - 1 <= box.y0, artist
            assert box.y1 <= frame.y1 + 1, artist
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [Text.get_window_extent(text, renderer) for text in texts]
    for i, one in enumerate(boxes):
        for j, other in enumerate(boxes[:i]):
            apart = one.x0 >= other.x1 or other.x0 >= one.x1 or one.y0 >= other.y1 or other.y0 >= one.y1
            assert apart, (texts[i].get_text(), texts[j].get_text())


@pytest.mark.parametrize("name", GRAPHS)
def test_every_edge_is_drawn_once_no_texts_overlap_and_nothing_leaves_the_figure(name: str) -> None:
    circuit = circuit_on(GRAPHS[name])
    figure = draw_circuit(circuit, evaluation=evaluation_of(circuit), baseline=baseline_of(circuit))
    assert set(edge_lines(figure)) == set(circuit.edges)
    check_readable(figure)


@pytest.mark.parametrize("name", GRAPHS)
def test_edges_go_around_boxes(name: str) -> None:
    check_courses(circuit_on(GRAPHS[name], 120 if name != "grouped" else 60))


def check_courses(circuit: Circuit) -> None:
    layout = Layout.of(circuit)
    obstacles = [*layout.nodes.values(), *layout.ports.values()]
    for edge in circuit.edges:
        source, _, destination = edge.partition("->")
        course = route(layout, source, destination)
        (x0, y0), (x1, y1) = course.knots[0], course.knots[-1]
        assert y0 == pytest.approx(layout.nodes[source].top)
        target = layout.nodes[destination] if destination.startswith("logits") else layout.ports[destination]
        assert y1 == pytest.approx(target.bottom)
        assert layout.nodes[source].left <= x0 <= layout.nodes[source].right
        assert target.left <= x1 <= target.right
        for i in range(1, 100):
            y = y0 + (y1 - y0) * i / 100
            x = course.x_at(y)
            assert not any(b.left < x < b.right and b.bottom < y < b.top for b in obstacles), edge


def test_a_course_is_the_curve_that_is_drawn() -> None:
    circuit = circuit_on(GRAPHS["sequential"])
    course = route(Layout.of(circuit), "input", "a2.h1<k>")
    points = course.beziers()
    assert len(points) == 1 + 3 * (len(course.knots) - 1)
    for i in range(0, len(points) - 1, 3):
        weights = (0.125, 0.375, 0.375, 0.125)
        x, y = (sum(w * p[axis] for w, p in zip(weights, points[i : i + 4], strict=True)) for axis in (0, 1))
        assert course.x_at(y) == pytest.approx(x)


def test_width_colour_and_opacity_say_the_score() -> None:
    graph = GRAPHS["sequential"]
    given = {"input->a0.h0<q>": -0.5, "a0.h0->m0": 0.25, "m0->logits": -0.1, "a0.h0->logits": 0.0}
    lines = edge_lines(draw_circuit(Circuit.of(graph, given)))
    by_size = sorted(given, key=lambda name: abs(given[name]))
    widths = [lines[name].get_linewidth() for name in by_size]
    assert widths == sorted(set(widths))
    opacities = [lines[name].get_alpha() or 0 for name in by_size]
    assert opacities == sorted(set(opacities))
    colours = {name: to_hex(line.get_edgecolor()).upper() for name, line in lines.items()}
    assert colours == {
        "input->a0.h0<q>": CARRIES.upper(),
        "a0.h0->m0": OPPOSES.upper(),
        "m0->logits": CARRIES.upper(),
        "a0.h0->logits": NEUTRAL.upper(),
    }
    heights = {name: line.get_zorder() for name, line in lines.items()}
    assert max(heights, key=lambda name: heights[name]) == "input->a0.h0<q>"


def test_q_k_and_v_arrive_at_their_own_ports() -> None:
    graph = GRAPHS["sequential"]
    circuit = Circuit.of(graph, [f"input->a1.h2<{which}>" for which in "qkv"] + ["a1.h2->logits"])
    ports = Layout.of(circuit).ports
    ends = [edge_lines(draw_circuit(circuit))[f"input->a1.h2<{which}>"].get_path().vertices[-1][0] for which in "qkv"]
    assert ends == sorted(ends)
    assert ends == pytest.approx([ports[f"a1.h2<{which}>"].x for which in "qkv"])


def test_groups_share_their_k_and_v_ports() -> None:
    circuit = Circuit.of(GRAPHS["grouped"], ["input->a0.g1<k>", "a0.h3->logits"])
    layout = Layout.of(circuit)
    assert {name for name in layout.ports if "<k>" in name or "<v>" in name} == {"a0.g1<k>", "a0.g1<v>"}
    (rail,) = layout.rails
    assert rail.label == "g1"
    assert rail.left <= layout.nodes["a0.h3"].x
    assert layout.nodes["a0.h3"].x <= rail.right
    assert "a0.h5" not in layout.nodes  # it shares the key, but writes nothing


def test_only_parts_of_the_circuit_are_boxes() -> None:
    circuit = Circuit.of(GRAPHS["sequential"], ["input->a1.h2<q>", "a1.h2->m1", "m1->logits"])
    layout = Layout.of(circuit)
    assert set(layout.nodes) == {"input", "a1.h2", "m1", "logits"}
    assert len(layout.dots) == 3 * 5 - 2
    assert layout.nodes["m1"].bottom > layout.nodes["a1.h2"].top


def test_mlps_stand_beside_the_heads_of_a_parallel_block() -> None:
    layout = Layout.of(Circuit.of(GRAPHS["parallel"], ["input->m0", "input->a0.h0<q>", "a0.h0->logits", "m0->logits"]))
    assert layout.nodes["m0"].y == layout.nodes["a0.h0"].y


def test_title_and_legend_say_what_is_seen() -> None:
    circuit = circuit_on(GRAPHS["sequential"])
    evaluation, baseline = evaluation_of(circuit), baseline_of(circuit)
    text = words(draw_circuit(circuit, evaluation=evaluation, baseline=baseline)).replace("\n", " ")
    low, high = evaluation.faithfulness_interval
    for expected in (
        "ioi, toy",
        f"{circuit.n_edges} of {circuit.graph.n_edges} edges",
        f"{circuit.n_nodes} of {len(circuit.graph.nodes)} nodes",
        "EAP()",
        f"faithfulness {evaluation.faithfulness:.2f} [{low:.2f}, {high:.2f}] under patch ablation",
        f"random circuits of this size: {baseline.median:.2f}",
        "negative: patching this edge hurts the behaviour",
        "positive: patching this edge helps the behaviour",
        "its corrupted value",
    ):
        assert expected in text
    assert "Names" in words(draw_circuit(circuit, title="Names"))


def test_circuits_without_scores_or_edges() -> None:
    scored = circuit_on(GRAPHS["sequential"])
    plain = draw_circuit(Circuit(scored.graph, scored.mask))
    assert {to_hex(line.get_edgecolor()) for line in edge_lines(plain).values()} == {NEUTRAL.lower()}
    assert len({line.get_linewidth() for line in edge_lines(plain).values()}) == 1
    assert "this circuit has no scores" in words(plain)
    empty = draw_circuit(Circuit.of(scored.graph, []))
    assert not edge_lines(empty)
    assert "This circuit has no edges." in words(empty)


def test_scores_without_a_sign_have_no_colours() -> None:
    circuit = circuit_on(GRAPHS["sequential"])
    unsigned = replace(circuit, provenance={**circuit.provenance, "signed": False})
    figure = draw_circuit(unsigned)
    assert {to_hex(line.get_edgecolor()) for line in edge_lines(figure).values()} == {NEUTRAL.lower()}
    assert "hurts" not in words(figure)


def test_the_strongest_edges_only() -> None:
    circuit = circuit_on(GRAPHS["sequential"])
    figure = draw_circuit(circuit, max_edges=10)
    assert set(edge_lines(figure)) == set(circuit.edges[:10])
    assert "only the 10 strongest edges are drawn" in words(figure)
    assert f"{circuit.n_edges} of" in words(figure)
    assert len(edge_lines(draw_circuit(circuit, max_edges=10**6))) == circuit.n_edges
    with pytest.raises(InputError, match="no scores"):
        draw_circuit(Circuit(circuit.graph, circuit.mask), max_edges=3)
    with pytest.raises(InputError, match="max_edges=0"):
        draw_circuit(circuit, max_edges=0)


def test_numbers_of_another_circuit_are_refused() -> None:
    circuit, other = circuit_on(GRAPHS["sequential"]), circuit_on(GRAPHS["sequential"], 90)
    with pytest.raises(InputError, match="of another circuit"):
        draw_circuit(circuit, evaluation=evaluation_of(other))
    with pytest.raises(InputError, match=f"random circuits of {other.n_edges} edges"):
        draw_circuit(circuit, baseline=baseline_of(other))


def test_svg_keeps_text_and_names_edges(tmp_path: Path) -> None:
    circuit = circuit_on(GRAPHS["grouped"])
    path = tmp_path / "circuit.svg"
    circuit.plot(path)
    root = ET.parse(path).getroot()
    tag = "{http://www.w3.org/2000/svg}"
    texts = {"".join(e.itertext()).strip() for e in root.iter(f"{tag}text")}
    heads = {name for name in circuit.nodes if name not in ("input", "logits")}
    assert {"input", "logits", "layer 0", "head 0", "q", "k", "v", *heads} <= texts
    ids = [e.get("id") for e in root.iter(f"{tag}g")]
    assert all(ids.count(name) == 1 for name in circuit.edges)
    before = path.read_bytes()
    circuit.plot(path)
    assert path.read_bytes() == before  # the same circuit, the same file
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.svg"]


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_files_are_of_the_kind_that_their_name_says(tmp_path: Path, ending: str, magic: bytes) -> None:
    circuit = Circuit.of(GRAPHS["sequential"], {"input->logits": -1.0})
    circuit.plot(tmp_path / f"c.{ending}")
    assert (tmp_path / f"c.{ending}").read_bytes().startswith(magic)
    assert draw_circuit(circuit)._repr_png_().startswith(b"\x89PNG")


def test_bad_paths_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = circuit_on(GRAPHS["sequential"])
    with pytest.raises(InputError, match=r"ends in \.svg, \.png, \.pdf"):
        draw_circuit(circuit, tmp_path / "circuit.jpg")
    with pytest.raises(InputError, match="no folder"):
        draw_circuit(circuit, tmp_path / "none" / "circuit.svg")

    def fail(self: Picture, to: Path, **_: object) -> None:
        Path(to).write_text("half")
        raise OSError("disk full")

    (tmp_path / "circuit.svg").write_text("before")
    monkeypatch.setattr(Picture, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_circuit(circuit, tmp_path / "circuit.svg")
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.svg"]
    assert (tmp_path / "circuit.svg").read_text() == "before"


def test_matplotlib_is_imported_for_drawing_only() -> None:
    code = (
        "import sys; from sparse_circuits.circuit import Circuit; from sparse_circuits.graph import Graph;"
        "c = Circuit.of(Graph(1, 1, 1), {'input->logits': 1.0}); c.to_dot(); assert 'matplotlib' not in sys.modules;"
        "c.plot(); assert 'matplotlib' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- positions ---


@pytest.mark.parametrize("name", PLACED)
def test_every_edge_between_positions_is_drawn_readably(name: str) -> None:
    circuit = circuit_on(PLACED[name])
    figure = draw_circuit(circuit, evaluation=evaluation_of(circuit), baseline=baseline_of(circuit))
    assert set(edge_lines(figure)) == set(circuit.edges)
    check_readable(figure)
    check_courses(circuit)


def column_of(layout: Layout, x: float) -> str:
    """The name of the column of positions that holds ``x``."""
    return layout.columns[sum(border < x for border in layout.borders)][0]


@pytest.mark.parametrize("name", ["spans", "grouped spans", "parallel spans"])
def test_only_keys_and_values_cross_columns(name: str) -> None:
    circuit = circuit_on(PLACED[name])
    layout, crossing = Layout.of(circuit), set()
    for edge in circuit.edges:
        source, _, destination = edge.partition("->")
        course = route(layout, source, destination)
        ends = [column_of(layout, x) for x, _ in (course.knots[0], course.knots[-1])]
        assert ends == [source.partition("@")[2], destination.partition("@")[2]]
        if ends[0] != ends[1]:
            crossing.add(destination.partition("@")[0][-3:])
    assert crossing == {"<k>", "<v>"}
    for node, box in layout.nodes.items():
        base, _, position = node.partition("@")
        assert box.label == base
        assert column_of(layout, box.x) == position
    xs = [x for _, x in layout.columns]
    assert xs == sorted(xs)
    assert [name for name, _ in layout.columns] == [p for p in SPANS if any(n.endswith(f"@{p}") for n in circuit.nodes)]


def test_positions_without_a_part_are_left_out() -> None:
    graph = GRAPHS["sequential"].at(tuple(map(str, range(22))), causal=True)
    circuit = Circuit.of(graph, ["input@3->m0@3", "m0@3->a1.h2<v>@7", "a1.h2@7->logits@7"])
    layout, figure = Layout.of(circuit), draw_circuit(circuit)
    assert [name for name, _ in layout.columns] == ["position 3", "position 7"]
    assert set(layout.nodes) == {"input@3", "m0@3", "a1.h2@7", "logits@7"}
    text = words(figure)
    assert text.count("position 3") == 2  # below and above
    assert "20 of 22 positions have no part in the circuit and are left out." in text
    assert "A head stands at the position that it writes to" in text
    assert "3 of" in text
    assert "a1.h2@7" not in text  # the column says where


def test_groups_at_a_position_share_their_k_and_v_ports() -> None:
    circuit = Circuit.of(PLACED["grouped spans"], ["input@verb->a0.g1<k>@last", "a0.h3@last->logits@last"])
    layout = Layout.of(circuit)
    assert {name for name in layout.ports if "<q>" not in name} == {"a0.g1<k>@last", "a0.g1<v>@last"}
    (rail,) = layout.rails
    assert rail.left == layout.nodes["a0.h3@last"].x
    assert rail.right == rail.port_x > layout.nodes["a0.h3@last"].right


@pytest.mark.parametrize("level", ["edges", *UNITS])
def test_empty_circuits_with_positions(level: str) -> None:
    graph = replace(PLACED["spans"], level=level, **UNITS.get(level, {}))
    circuit = Circuit.of(graph, [])
    figure = draw_circuit(circuit)
    check_readable(figure)
    assert f"This circuit has no {graph.thing}s." in words(figure)
    parsed(to_dot(circuit))


# --- nodes and units ---


def of_level(level: str, graph: str = "sequential", positions: tuple[str, ...] = ()) -> Graph:
    return replace(GRAPHS[graph], level=level, **UNITS[level]).at(positions)


def filled(figure: Picture) -> dict[str, str]:
    """Colours of the filled boxes, by their names."""
    boxes = [a for a in figure.axes[0].patches if isinstance(a, FancyBboxPatch) and a.get_gid()]
    return {str(box.get_gid()): to_hex(box.get_facecolor()).upper() for box in boxes}


@pytest.mark.parametrize("positions", [(), SPANS], ids=["sum", "spans"])
@pytest.mark.parametrize("name", ["sequential", "grouped", "parallel", "attention-only", "deep"])
@pytest.mark.parametrize("level", UNITS)
def test_every_node_is_a_box(level: str, name: str, positions: tuple[str, ...]) -> None:
    circuit = scores_on(of_level(level, name, positions)).top(12 if level == "nodes" else 60)
    figure = draw_circuit(circuit, evaluation=evaluation_of(circuit), baseline=baseline_of(circuit))
    check_readable(figure)
    assert set(filled(figure)) == {node for node in circuit.nodes if not node.startswith("logits")}
    assert not edge_lines(figure)
    assert f"{circuit.size:,} of {circuit.graph.size:,} {circuit.graph.thing}s" in words(figure)


def test_texts_stay_in_their_boxes() -> None:
    graph = replace(GRAPHS["deep"], level="neurons", d_head=64, d_mlp=3072)
    layout, figure = Layout.of(circuit := scores_on(graph).top(900)), draw_circuit(scores_on(graph).top(900))
    assert any(len(name) == len("a11.h11.n63") for name in circuit.names)
    renderer = FigureCanvasAgg(figure).get_renderer()
    inches = figure.axes[0].transData.inverted()
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        for box in layout.nodes.values():
            if box.left < x < box.right and box.bottom < y < box.top:
                (left, bottom), (right, top) = inches.transform(Text.get_window_extent(text, renderer))
                assert box.left <= left, text
                assert right <= box.right, text
                assert box.bottom - 0.02 <= bottom, text
                assert top <= box.top + 0.02, text


def test_boxes_have_the_colours_of_their_scores() -> None:
    given = {"input": -1.0, "a0.h0": -4.0, "a1.h2": 2.0, "m1": 0.5, "m2": 0.0}
    circuit = Circuit.of(of_level("nodes"), given, ablation="patch")
    colours, contents = filled(draw_circuit(circuit)), Contents(circuit)
    assert colours == {name: contents.colour(score) for name, score in given.items()}
    red, blue = ({name: int(c[i : i + 2], 16) for name, c in colours.items()} for i in (1, 5))
    assert all((blue[name] > red[name]) == (given[name] < 0) for name in given if given[name])
    assert red["a0.h0"] < red["input"]  # stronger is fuller
    assert blue["a1.h2"] < blue["m1"]
    assert colours["m2"] == "#FFFFFF" or abs(red["m2"] - blue["m2"]) < 16
    text = words(draw_circuit(circuit))
    assert "a0.h0\n-4" in text
    assert "negative: patching this node hurts the behaviour" in text
    assert "The colour shows a node's score:" in text
    unsigned = words(draw_circuit(replace(circuit, provenance={"signed": False})))
    assert "hurts" not in unsigned
    assert "The scores of this method carry no sign." in unsigned


def test_a_box_says_how_much_of_its_node_is_in() -> None:
    graph = of_level("neurons")
    given = {"m1.n5": -2.0, "m1.n17": -3.0, "m1.n3": 0.5, "m1.n60": 0.25, "a0.h2.n7": 1.0}
    circuit = Circuit.of(graph, given)
    assert Contents(circuit).of == {
        "a0.h2": Content(1.0, 1, 8, ("n7",)),
        "m1": Content(-4.25, 4, 64, ("n17", "n5", "n3")),
    }
    text = words(draw_circuit(circuit))
    assert "m1\n-4.25\n4 of 64\nn17 n5 n3" in text
    assert "the sum of its neurons' in the circuit" in text
    assert "5 of 289 neurons (1.7%), in 2 of 16 nodes" in text
    plain = words(draw_circuit(Circuit(graph, circuit.mask)))
    assert "m1\n4 of 64\nn3 n5 n17" in plain
    assert "have no scores" in plain
    at = Circuit.of(graph.at(SPANS), {"m1.n5@verb": 1.0, "m1.n6@verb": 1.0, "m1.n5@last": -1.0})
    assert Contents(at).of == {"m1@verb": Content(2.0, 2, 64, ("n5", "n6")), "m1@last": Content(-1.0, 1, 64, ("n5",))}


@pytest.mark.parametrize("level", ["edges", *UNITS])
def test_the_strongest_at_any_level(level: str) -> None:
    circuit = circuit_on(GRAPHS["sequential"]) if level == "edges" else scores_on(of_level(level)).top(12)
    figure = draw_circuit(circuit, max_size=5)
    assert f"only the 5 strongest {circuit.graph.thing}s are drawn" in words(figure)
    shown = {name.rpartition(".")[0] if level in ("outputs", "neurons") else name for name in circuit.names[:5]}
    assert set(edge_lines(figure) if level == "edges" else filled(figure)) == {name or "input" for name in shown}
    with pytest.raises(InputError, match="got both"):
        draw_circuit(circuit, max_size=3, max_edges=3)
    with pytest.raises(InputError, match=r"max_size=3\): this circuit has no scores"):
        draw_circuit(Circuit(circuit.graph, circuit.mask), max_size=3)
    if level != "edges":
        with pytest.raises(InputError, match=f"a circuit of {circuit.graph.thing}s; pass max_size"):
            draw_circuit(circuit, max_edges=3)


# --- Graphviz: a strict reader of the part of the language that is written ---

_STRING = r'"((?:[^"\\\n]|\\.)*)"'
_ATTRIBUTES = rf"\[((?:\w+={_STRING}|\w+=[\w.]+)(?:, (?:\w+={_STRING}|\w+=[\w.]+))*)\]"
_STATEMENTS = {
    "open": re.compile(rf"digraph {_STRING} \{{"),
    "setting": re.compile(r"  (?:rankdir=BT|newrank=true);"),
    "cluster": re.compile(rf"  subgraph {_STRING} \{{"),
    "label": re.compile(rf"    label={_STRING};"),
    "member": re.compile(rf"    {_STRING} {_ATTRIBUTES};"),
    "end": re.compile(r"  \}"),
    "default": re.compile(rf"  (?:node|edge) {_ATTRIBUTES};"),
    "rank": re.compile(rf"  \{{ rank=same;(?: {_STRING};)+ \}}"),
    "node": re.compile(rf"  {_STRING} {_ATTRIBUTES};"),
    "edge": re.compile(rf"  {_STRING} -> {_STRING} {_ATTRIBUTES};"),
    "close": re.compile(r"\}"),
}


def parsed(text: str) -> tuple[list[str], list[tuple[str, str, dict[str, str]]]]:
    """Names of the statements' kinds, and the edges; fails on anything else."""
    kinds, edges = [], []
    assert text.endswith("}\n")
    for line in text.splitlines():
        (kind, match), *more = [(k, m) for k, p in _STATEMENTS.items() if (m := p.fullmatch(line))] or [("", None)]
        assert match is not None, line
        assert not more, line
        kinds.append(kind)
        if kind == "edge":
            edges.append((match[1], match[2], dict(re.findall(rf"(\w+)={_STRING}", line))))
    assert kinds[0] == "open"
    assert kinds[-1] == "close"
    assert kinds.count("open") == kinds.count("close") == 1
    assert kinds.count("cluster") == kinds.count("end")
    return kinds, edges


@pytest.mark.parametrize("name", [*GRAPHS, *PLACED])
def test_dot_holds_every_edge_once(name: str) -> None:
    circuit = circuit_on({**GRAPHS, **PLACED}[name])
    _, edges = parsed(to_dot(circuit))
    ours = [(a, b, attributes) for a, b, attributes in edges if "id" in attributes]
    assert sorted(attributes["id"] for _, _, attributes in ours) == sorted(circuit.edges)
    scores = circuit.to_dict()
    for source, node, attributes in ours:
        port = f"<{attributes['headlabel']}>" if "headlabel" in attributes else ""
        base, sign, position = node.partition("@")
        assert attributes["id"] == f"{source}->{base}{port}{sign}{position}"
        assert float(attributes["score"]) == scores[attributes["id"]]
        assert attributes["color"] == (CARRIES if scores[attributes["id"]] < 0 else OPPOSES)
    strongest_first = [float(attributes["penwidth"]) for _, _, attributes in ours]
    assert strongest_first == sorted(strongest_first, reverse=True)


@pytest.mark.parametrize("name", ["spans", "grouped spans"])
def test_dot_has_a_cluster_per_position(name: str) -> None:
    circuit = circuit_on(PLACED[name])
    text = to_dot(circuit)
    kinds, edges = parsed(text)
    there = [p for p in SPANS if any(node.endswith(f"@{p}") for node in circuit.nodes)]
    assert re.findall(r'^    label="(\w+)";', text, re.MULTILINE) == there
    members = re.findall(r'^    "([^"]+)" \[label="([^"@]+)"', text, re.MULTILINE)
    assert all(member.partition("@")[0] == label for member, label in members)
    named = {member for member, _ in members}
    assert named >= set(circuit.nodes)
    assert len(members) == len(named)
    assert {node for a, b, _ in edges for node in (a, b)} <= named
    assert "rank" in kinds


@pytest.mark.parametrize("positions", [(), SPANS], ids=["sum", "spans"])
@pytest.mark.parametrize("level", UNITS)
def test_dot_of_nodes_and_units(level: str, positions: tuple[str, ...]) -> None:
    circuit = scores_on(of_level(level, positions=positions)).top(12)
    text, contents = to_dot(circuit), Contents(circuit)
    _, edges = parsed(text)
    assert {attributes["style"] for _, _, attributes in edges} == {"invis"}
    boxes = dict(re.findall(r'"([^"]+)" \[id="[^"]+", (.*)\];', text))
    assert set(boxes) == set(contents.of)
    for name, attributes in boxes.items():
        content = contents.of[name]
        assert f'score="{content.score!r}"' in attributes
        assert f'fillcolor="{contents.colour(content.score)}"' in attributes
        if content.total > 1:
            label = f"{name.partition('@')[0]}\\n{content.n} of {content.total}\\n{' '.join(content.strongest)}"
            assert f'label="{label}"' in attributes
    assert edges[-1][1] == "logits"
    plain = to_dot(Circuit(circuit.graph, circuit.mask))
    parsed(plain)
    assert "score=" not in plain


def test_dot_ties_groups_to_their_heads() -> None:
    text = to_dot(Circuit.of(GRAPHS["grouped"], ["input->a0.g1<k>", "a0.h3->logits"]))
    _, edges = parsed(text)
    assert [(a, b) for a, b, attributes in edges if "id" not in attributes] == [("a0.g1", "a0.h3")]


def test_dot_ties_groups_at_each_position() -> None:
    text = to_dot(Circuit.of(PLACED["grouped spans"], ["input@verb->a0.g1<k>@last", "a0.h3@last->logits@last"]))
    _, edges = parsed(text)
    assert [(a, b) for a, b, attributes in edges if "id" not in attributes] == [("a0.g1@last", "a0.h3@last")]


def test_dot_escapes_names_and_does_without_scores() -> None:
    circuit = Circuit.of(GRAPHS["sequential"], ["input->logits"], task='say "hi" \\ to\nall')
    text = to_dot(circuit)
    parsed(text)
    assert text.startswith('digraph "say \\"hi\\" \\\\ to all" {')
    assert "score" not in text
    kinds, _ = parsed(to_dot(Circuit.of(GRAPHS["sequential"], [])))
    assert "edge" not in kinds


# --- curves ---


def curve_on(graph: Graph, completeness: bool = False) -> Curve:
    scores = scores_on(graph)
    sizes = (1, 150, 190, 230)
    circuits = [scores.greedy(n) for n in sizes]
    shares = [(i / 4, 1 - i / 4 if completeness else None) for i in range(len(sizes))]
    return Curve(sizes, tuple(evaluation_of(c, *share) for c, share in zip(circuits, shares, strict=True)))


def test_curve_draws_values_intervals_and_levels(tmp_path: Path) -> None:
    curve = curve_on(GRAPHS["sequential"])
    figure = plot_curve(curve, tmp_path / "curve.svg").picture()
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    line = next(line for line in axes.lines if str(line.get_label()).startswith("faithfulness"))
    there = [(n, f) for n, f in zip(curve.sizes, curve.faithfulness, strict=True) if n]
    assert len(there) >= 3
    assert list(line.get_xdata()) == [n for n, _ in there]
    assert list(line.get_ydata()) == pytest.approx([f for _, f in there])
    assert {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1} >= {0.0, 1.0}
    low, high = axes.collections[0].get_datalim(axes.transData).intervaly
    bounds = [b for n, b in zip(curve.sizes, curve.intervals, strict=True) if n]
    assert low == pytest.approx(min(b[0] for b in bounds))
    assert high == pytest.approx(max(b[1] for b in bounds))
    assert "completeness" not in words(figure)
    text = (tmp_path / "curve.svg").read_text()
    assert ">faithfulness (95% interval)<" in text
    assert ">whole model<" in text


@pytest.mark.parametrize("level", ["edges", *UNITS])
def test_curve_counts_what_is_chosen(level: str) -> None:
    graph = GRAPHS["sequential"] if level == "edges" else of_level(level)
    scores = scores_on(graph)
    circuits = [scores.greedy(n) for n in (1, 8, 15)]
    curve = Curve((1, 8, 15), tuple(evaluation_of(c, i / 3) for i, c in enumerate(circuits)))
    (axes,) = plot_curve(curve).picture().axes
    assert axes.get_xlabel() == f"{graph.thing}s in the circuit (of {graph.size:,})"
    line = next(line for line in axes.lines if str(line.get_label()).startswith("faithfulness"))
    assert list(line.get_xdata()) == [c.size for c in circuits if c.size]
    assert axes.get_xlim()[1] > graph.size


def test_curve_draws_completeness_and_baseline() -> None:
    curve = curve_on(GRAPHS["sequential"], completeness=True)
    baseline = baseline_of(curve.evaluations[-1].circuit)
    figure = curve.plot(baseline=baseline, title="Mine").picture()
    text = words(figure)
    assert "completeness" in text
    assert "random circuits (20 draws)" in text
    assert "Mine" in text
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    left, right = figure.axes[0].get_xlim()
    assert left < baseline.size < right
    with pytest.raises(InputError, match="ends in"):
        plot_curve(curve, "curve.txt")
    with pytest.raises(InputError, match="at least one evaluation"):
        plot_curve(Curve((), ()))
