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
from matplotlib.patches import PathPatch
from matplotlib.spines import Spine
from matplotlib.text import Text

from sparse_circuits.circuit import Circuit, Scores
from sparse_circuits.errors import InputError
from sparse_circuits.evaluation import Baseline, Curve, Evaluation
from sparse_circuits.graph import Graph
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


def scores_on(graph: Graph, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.n_sources, graph.n_destinations, generator=generator) ** 3 * graph.mask
    clean = 3 + torch.randn(32, generator=generator)
    known = {"task": "ioi", "model": "toy", "method": "EAP()", "ablation": "patch"}
    return Scores(graph=graph, values=values, clean=clean, corrupted=clean - 4, provenance=known)


@cache
def circuit_on(graph: Graph, n: int = 60) -> Circuit:
    """A circuit of at least ``n`` edges."""
    scores = scores_on(graph)
    grown = (scores.greedy(size) for size in range(n, graph.n_edges, 20))
    return next(circuit for circuit in grown if circuit.n_edges >= n)


def evaluation_of(circuit: Circuit, share: float = 0.8, completeness: float | None = None) -> Evaluation:
    noise = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 0.3
    clean, empty = 3 + noise[0], -1 + noise[1]
    complement = None if completeness is None else empty + (clean - empty) * completeness
    return Evaluation(circuit, empty + (clean - empty) * share + 0.1 * noise[2], clean, empty, complement, "patch")


def baseline_of(circuit: Circuit) -> Baseline:
    return Baseline(circuit.n_edges, tuple(evaluation_of(circuit, 0.1 + 0.01 * i) for i in range(20)))


def edge_lines(figure: Picture) -> dict[str, PathPatch]:
    lines = [a for a in figure.axes[0].get_children() if isinstance(a, PathPatch) and "->" in str(a.get_gid())]
    assert len({a.get_gid() for a in lines}) == len(lines)
    return {str(a.get_gid()): a for a in lines}


def words(figure: Picture) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


@pytest.mark.parametrize("name", GRAPHS)
def test_every_edge_is_drawn_once_no_texts_overlap_and_nothing_leaves_the_figure(name: str) -> None:
    circuit = circuit_on(GRAPHS[name])
    figure = draw_circuit(circuit, evaluation=evaluation_of(circuit), baseline=baseline_of(circuit))
    assert set(edge_lines(figure)) == set(circuit.edges)
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
def test_edges_go_around_boxes(name: str) -> None:
    circuit = circuit_on(GRAPHS[name], 120 if name != "grouped" else 60)
    layout = Layout.of(circuit)
    obstacles = [*layout.nodes.values(), *layout.ports.values()]
    for edge in circuit.edges:
        source, _, destination = edge.partition("->")
        course = route(layout, source, destination)
        (x0, y0), (x1, y1) = course.knots[0], course.knots[-1]
        assert y0 == pytest.approx(layout.nodes[source].top)
        target = layout.nodes["logits"] if destination == "logits" else layout.ports[destination]
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


# --- Graphviz: a strict reader of the part of the language that is written ---

_STRING = r'"((?:[^"\\\n]|\\.)*)"'
_ATTRIBUTES = rf"\[((?:\w+={_STRING}|\w+=[\w.]+)(?:, (?:\w+={_STRING}|\w+=[\w.]+))*)\]"
_STATEMENTS = {
    "open": re.compile(rf"digraph {_STRING} \{{"),
    "setting": re.compile(r"  rankdir=BT;"),
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
    return kinds, edges


@pytest.mark.parametrize("name", GRAPHS)
def test_dot_holds_every_edge_once(name: str) -> None:
    circuit = circuit_on(GRAPHS[name])
    _, edges = parsed(to_dot(circuit))
    ours = [(a, b, attributes) for a, b, attributes in edges if "id" in attributes]
    assert sorted(attributes["id"] for _, _, attributes in ours) == sorted(circuit.edges)
    scores = circuit.to_dict()
    for source, node, attributes in ours:
        port = f"<{attributes['headlabel']}>" if "headlabel" in attributes else ""
        assert attributes["id"] == f"{source}->{node}{port}"
        assert float(attributes["score"]) == scores[attributes["id"]]
        assert attributes["color"] == (CARRIES if scores[attributes["id"]] < 0 else OPPOSES)
    strongest_first = [float(attributes["penwidth"]) for _, _, attributes in ours]
    assert strongest_first == sorted(strongest_first, reverse=True)


def test_dot_ties_groups_to_their_heads() -> None:
    text = to_dot(Circuit.of(GRAPHS["grouped"], ["input->a0.g1<k>", "a0.h3->logits"]))
    _, edges = parsed(text)
    assert [(a, b) for a, b, attributes in edges if "id" not in attributes] == [("a0.g1", "a0.h3")]


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
    figure = plot_curve(curve, tmp_path / "curve.svg")
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


def test_curve_draws_completeness_and_baseline() -> None:
    curve = curve_on(GRAPHS["sequential"], completeness=True)
    baseline = baseline_of(curve.evaluations[-1].circuit)
    figure = curve.plot(baseline=baseline, title="Mine")
    text = words(figure)
    assert "completeness" in text
    assert "random circuits (20 draws)" in text
    assert "Mine" in text
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    left, right = figure.axes[0].get_xlim()
    assert left < baseline.n_edges < right
    with pytest.raises(InputError, match="ends in"):
        plot_curve(curve, "curve.txt")
    with pytest.raises(InputError, match="at least one evaluation"):
        plot_curve(Curve((), ()))
