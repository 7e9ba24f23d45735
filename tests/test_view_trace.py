"""Pictures and Graphviz text of traces: structure rather than looks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.text import Text

from sparse_circuits.errors import InputError
from sparse_circuits.features import Context, Feature
from sparse_circuits.graph import FeatureGraph, Place
from sparse_circuits.graph.features import LOGITS
from sparse_circuits.model.sites import Site
from sparse_circuits.tracing.trace import Trace, TracedEdge, TracedNode
from sparse_circuits.view.figures import Picture
from sparse_circuits.view.layout import Box
from sparse_circuits.view.trace_card import Cards, ends_shown, readable
from sparse_circuits.view.trace_dot import trace_dot
from sparse_circuits.view.trace_layout import TraceLayout, place_trace
from sparse_circuits.view.trace_look import LOWERS, RAISES, TraceLook
from sparse_circuits.view.trace_picture import MAX_EDGES, MAX_NODES, draw_trace
from sparse_circuits.view.trace_text import WIDEST, set_card, shortened, width_of

KNOWN = {"task": "sva-across-rc", "model": "toy", "ablation": "zero", "form": "ablation"}
RUNS = tuple({"form": "ablation", "method": "ByAblation(threshold=-3.0)", "at": [f"resid_{i}"]} for i in range(3))
SPANS = ("subject", "attractor", "last")
WORDS = ("the", "dogs", "that", "chase", "a", "cat", "are", "were", "quick", "Yesterday", ",", "<bos>", "executive")


def split(name: str, n: int = 300) -> Place:
    return Place(Site.named(name), n, dictionary_id=f"x/{name}")


def whole(name: str, n: int = 1) -> Place:
    return Place(Site.named(name), 0, n)


RESID = FeatureGraph(tuple(split(f"resid_{i}") for i in range(3)), 3, 16)
MIXED = FeatureGraph(
    (
        whole("embed"),
        split("resid_0"),
        whole("attn_1"),
        split("transcoder_1", 131_072),
        split("resid_1"),
        whole("z_2", 4),
    ),
    3,
    16,
)


@cache
def random_trace(graph: FeatureGraph, n: int = 20, n_edges: int = 40, seed: int = 0) -> Trace:
    """Nodes all over the graph, error terms among them, and edges that lead to later sites and the logits."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int) -> int:
        return int(torch.randint(size, (1,), generator=generator))

    ids: set[int] = set()
    while len(ids) < n:
        place = draw(len(graph.places))
        own = graph.nodes_of(place)
        ids.add(
            max(own.start, own.stop - 1 - draw(2 * graph.n_positions))
            if draw(5) == 0
            else own.start + draw(own.stop - own.start)
        )
    names = [graph.name_of(i) for i in sorted(ids)]
    places = [graph.place_of(i) for i in sorted(ids)]
    pairs: set[tuple[int, int]] = set()
    while len(pairs) < n_edges:
        u, d = draw(n), draw(n + 1)
        if d == n or places[u] < places[d]:
            pairs.add((u, d))
    values = torch.randn(n + n_edges, generator=generator) ** 3
    nodes = [
        TracedNode(
            name,
            None if draw(5) == 0 else float(values[i]),
            tuple((WORDS[draw(len(WORDS))], 3.0 - k if draw(2) else k - 3.0) for k in range(3)) if draw(2) else (),
        )
        for i, name in enumerate(names)
    ]
    ends = [*names, LOGITS]
    edges = [TracedEdge(names[u], ends[d], float(values[n + i])) for i, (u, d) in enumerate(sorted(pairs))]
    edges.sort(key=lambda edge: -abs(edge.effect))
    return Trace(graph, tuple(nodes), tuple(edges), RUNS, KNOWN)


def meanings_of(trace: Trace, share: float = 0.7, seed: int = 0) -> dict[str, Feature]:
    """What is known of most features: contexts of words with values on both sides of 0, promoted tokens, some labels."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for node in trace.nodes:
        name = node.name.partition("@")[0]
        if ".f" not in name or float(torch.rand(1, generator=generator)) > share:
            continue
        top = []
        for _ in range(4):
            tokens = [WORDS[i] for i in torch.randint(len(WORDS), (20,), generator=generator).tolist()]
            values = (torch.randn(20, generator=generator) * (torch.rand(20, generator=generator) < 0.4)).tolist()
            top.append(Context(tuple(tokens), tuple(values), 12, values[12]))
        label = "plural subjects of a relative clause, mostly" if len(found) % 2 else None
        promoted = tuple((word, 1.0 - 0.1 * i) for i, word in enumerate(WORDS))
        found[name] = Feature(name, top=tuple(top), promoted=promoted, suppressed=((" is", -0.5),), label=label)
    return found


ODD = Trace(
    MIXED.at(SPANS),
    (
        TracedNode("embed@subject", 0.2),
        TracedNode("resid_0.f3@subject", -1.5, ((" $x$", -2.0), ("$", 1.5), ("\U0001f600", 0.5))),
        TracedNode("resid_0.error@last", None),
        TracedNode("attn_1@last", -0.01),
        TracedNode("transcoder_1.f131071@attractor", 0.8, (("<|endoftext|>", -2e9), ("日本語の長い単語", -1e7))),
        TracedNode("resid_1.f217@last", float("nan")),
        TracedNode("a2.h3@last", -0.7),
    ),
    (
        TracedEdge("resid_0.f3@subject", "transcoder_1.f131071@attractor", 3.0),
        TracedEdge("resid_0.f3@subject", "resid_1.f217@last", -2.0),
        TracedEdge("transcoder_1.f131071@attractor", "resid_1.f217@last", 1e-9),
        TracedEdge("attn_1@last", "resid_1.f217@last", float("nan")),
        TracedEdge("a2.h3@last", "logits", -0.7),
        TracedEdge("embed@subject", "resid_0.f3@subject", -0.5),
    ),
    (),
    {"task": "a$b$c", "model": "x"},
)
ODD_MEANINGS: dict[str, Any] = {
    "resid_0.f3": {
        "label": "y" * 200 + " & <b>\u202e",
        "contexts": [
            {
                "tokens": ["\n", "\t", "\x00", " \U0001f600", " a", "  ", "\ud800", "<eos>"],
                "values": [0, 0.1, -3, 2, -2, 1, -1, 0],
                "peak": 3,
            },
            {"tokens": ["W" * 300], "values": [-1.0], "peak": 0},
            {
                "tokens": [" the", " do$s", "日本", " naïve$", "\U0001f468\u200d\U0001f469"],
                "values": [0, 1, 2, 1, 0.4],
                "peak": 2,
            },
        ],
    },
    "transcoder_1.f131071@attractor": {"label": 7, "top": [{"tokens": ["a", "b"], "activations": [1, -1]}]},
    "resid_1.f217": {"promoted": ["only words", ["W" * 400, 1.0]], "suppressed": [["x", None]]},
}
SMALL = random_trace(RESID, 6, 8)
CASES: dict[str, tuple[Trace, Any]] = {
    "small": (SMALL, meanings_of(SMALL)),
    "no meanings": (random_trace(RESID, 30, 60, seed=1), None),
    "mixed sites": (random_trace(MIXED, 25, 50, seed=2), meanings_of(random_trace(MIXED, 25, 50, seed=2))),
    "positions": (
        random_trace(MIXED.at(SPANS), 25, 50, seed=3),
        meanings_of(random_trace(MIXED.at(SPANS), 25, 50, seed=3)),
    ),
    "large": (random_trace(RESID, 60, 300, seed=4), meanings_of(random_trace(RESID, 60, 300, seed=4))),
    "no edges": (replace(SMALL, edges=()), meanings_of(SMALL)),
    "one node": (Trace(RESID, (TracedNode("resid_1.f3", 1.0),), ()), None),
    "odd": (ODD, ODD_MEANINGS),
}


@cache
def drawn(case: str) -> Picture:
    trace, meanings = CASES[case]
    return draw_trace(trace, meanings=meanings)


def placed(trace: Trace, meanings: Any = None) -> TraceLayout:
    look = TraceLook.of(trace, None, None, "test")
    known = Cards(meanings, 3, "test")
    cards = {node.name: known.of(node, look.role_of(node.name)) for node in look.nodes}
    return place_trace(look, cards, {name: set_card(card, look.shades) for name, card in cards.items()})


def artists(figure: Picture, kind: type[Patch] = Patch) -> dict[str, Patch]:
    """What has an id, by it."""
    return {str(a.get_gid()): a for a in figure.axes[0].get_children() if isinstance(a, kind) and a.get_gid()}


def words(figure: Picture) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def said(figure: Picture) -> str:
    return " ".join(words(figure))


# --- layout ---


@pytest.mark.parametrize("case", CASES)
def test_boxes_do_not_touch_and_lie_in_the_models_order(case: str) -> None:
    trace, meanings = CASES[case]
    layout = placed(trace, meanings)
    boxes, graph = layout.boxes, trace.graph
    assert set(boxes) == {node.name for node in trace.nodes}
    for a, b in combinations(boxes.values(), 2):
        assert a.right < b.left or b.right < a.left or a.top < b.bottom or b.top < a.bottom, (a, b)
    lanes: dict[int, list[Box]] = {}
    for name, box in boxes.items():
        assert box.left > 1.5
        assert box.right < layout.layout.width
        lanes.setdefault(graph.place_of(graph.index(name)), []).append(box)
    order = [lanes[place] for place in sorted(lanes)]
    assert all(max(box.top for box in low) < min(box.bottom for box in high) for low, high in pairwise(order))
    into_logits = any(edge.target == LOGITS for edge in trace.edges)
    assert (LOGITS in layout.layout.nodes) == into_logits
    if into_logits:
        assert max(box.top for box in order[-1]) < layout.layout.nodes[LOGITS].bottom
    assert [lane.name for lane in layout.placed.lanes] == [place.name for place in graph.places]


@pytest.mark.parametrize("case", CASES)
def test_edges_join_the_borders_of_their_boxes_and_cross_no_other(case: str) -> None:
    trace, meanings = CASES[case]
    layout = placed(trace, meanings)
    for edge, points in zip(layout.look.edges, layout.courses, strict=True):
        source, target = layout.boxes[edge.source], layout.boxes.get(edge.target) or layout.layout.nodes[LOGITS]
        (x, y), (end_x, end_y) = points[0], points[-1]
        assert y == pytest.approx(source.top)
        assert source.left <= x <= source.right
        assert end_y == pytest.approx(target.bottom)
        assert target.left <= end_x <= target.right
        curve = torch.tensor(points, dtype=torch.float64)
        t = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
        weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
        pieces = [(weights * curve[i : i + 4, None]).sum(0) for i in range(0, len(points) - 1, 3)]
        at = torch.cat(pieces)
        for name, box in layout.boxes.items():
            if name not in (edge.source, edge.target):
                inside = (at[:, 0] > box.left) & (at[:, 0] < box.right) & (at[:, 1] > box.bottom) & (at[:, 1] < box.top)
                assert not inside.any(), (edge.name, name)


def test_linked_nodes_stand_one_above_the_other() -> None:
    """Without an order by edges a ladder of parallel chains would be a tangle."""
    chains = [
        [f"resid_0.f{i + 100}", f"resid_1.f{(7 * i) % 11 + 200}", f"resid_2.f{(3 * i) % 11 + 250}"] for i in range(11)
    ]
    nodes = sorted(
        (TracedNode(name, 1.0) for chain in chains for name in chain), key=lambda node: RESID.index(node.name)
    )
    edges = tuple(TracedEdge(u, d, 1.0) for chain in chains for u, d in pairwise(chain))
    boxes = placed(Trace(RESID, tuple(nodes), edges)).boxes
    for chain in chains:
        assert max(boxes[name].x for name in chain) - min(boxes[name].x for name in chain) < 0.01


def test_small_lanes_are_one_row_and_large_ones_several() -> None:
    def rows(trace: Trace, meanings: Any) -> int:
        return len({round(box.y, 3) for box in placed(trace, meanings).boxes.values()})

    few = [TracedNode(f"resid_1.f{i}", 1.0) for i in range(4)]
    many = [TracedNode(f"resid_1.f{i}", 1.0) for i in range(40)]
    for nodes, expected in ((few, 1), (many, 4)):
        trace = Trace(RESID, tuple(nodes), ())
        meanings = meanings_of(trace, share=1.0)
        assert (rows(trace, meanings) == 1) if expected == 1 else (rows(trace, meanings) >= expected)
        figure = draw_trace(trace, meanings=meanings)
        assert 0.4 < figure.get_figwidth() / figure.get_figheight() < 5


# --- picture ---


@pytest.mark.parametrize("case", CASES)
def test_everything_drawn_has_its_name_as_id(case: str) -> None:
    trace, _ = CASES[case]
    ids = set(artists(drawn(case)))
    nodes = {node.name for node in trace.nodes}
    assert ids == {*nodes, *(f"effect {name}" for name in nodes), *(edge.name for edge in trace.edges)}
    assert {place.name for place in trace.graph.places} <= set(words(drawn(case)))
    assert nodes <= set(words(drawn(case)))


@pytest.mark.parametrize("dpi", [100, 150])
@pytest.mark.parametrize("case", CASES)
def test_words_stay_inside_their_boxes_and_overlap_nowhere(case: str, dpi: int) -> None:
    figure = drawn(case)
    figure.set_dpi(dpi)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font lacks
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [text for text in figure.axes[0].texts if text.get_text()]
        extents = [text.get_window_extent(renderer) for text in texts]
    boxes = [
        patch.get_window_extent(renderer)
        for name, patch in artists(figure).items()
        if "->" not in name and "effect " not in name
    ]
    held: list[list[Any]] = [[] for _ in boxes]
    outside = []
    for extent in extents:
        assert figure.bbox.x0 <= extent.x0
        assert extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0
        assert extent.y1 <= figure.bbox.y1
        inside = [
            i for i, box in enumerate(boxes) if box.contains((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
        ]
        if not inside:
            outside.append(extent)
            continue
        (i,) = inside
        box = boxes[i]
        assert box.x0 <= extent.x0
        assert extent.x1 <= box.x1
        assert box.y0 - 1 <= extent.y0
        assert extent.y1 <= box.y1 + 1
        held[i].append(extent)
    assert all(held)
    for group in [*held, outside]:
        for a, b in combinations(group, 2):  # a pixel of each is for smoothed borders
            width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width <= 2 or height <= 2, (a, b)


def four() -> Trace:
    """Two edges into a feature, two into the logits."""
    nodes = (TracedNode("resid_0.f1", -0.1), TracedNode("resid_0.f2", 0.4), TracedNode("resid_1.f3", None))
    edges = (
        TracedEdge("resid_0.f1", "resid_1.f3", -2.0),
        TracedEdge("resid_0.f2", "resid_1.f3", 0.5),
        TracedEdge("resid_0.f2", "logits", 0.4),
        TracedEdge("resid_0.f1", "logits", -0.1),
    )
    return Trace(RESID, nodes, edges, RUNS, KNOWN)


def test_colours_dashes_widths_and_opacities_of_edges() -> None:
    """By hand: width 0.8 + 3.6 s and opacity 0.5 + 0.42 sqrt(s), s the share of the strongest of its kind."""
    figure = draw_trace(four())
    boxes, drawn = artists(figure), artists(figure, PathPatch)
    expected = {
        "resid_0.f1->resid_1.f3": (LOWERS, 4.4, 0.92),
        "resid_0.f2->resid_1.f3": (RAISES, 1.7, 0.71),
        "resid_0.f2->logits": (RAISES, 4.4, 0.92),
        "resid_0.f1->logits": (LOWERS, 1.7, 0.71),
    }
    assert {name for name in drawn if "->" in name} == set(expected)
    for name, (colour, width, opacity) in expected.items():
        assert to_hex(drawn[name].get_edgecolor()).upper() == colour
        assert drawn[name].get_linewidth() == pytest.approx(width)
        assert drawn[name].get_alpha() == pytest.approx(opacity)
        assert (drawn[name].get_linestyle() != "solid") == (colour == RAISES)
        assert drawn[name].get_zorder() < min(boxes[node].get_zorder() for node in ("resid_0.f1", "resid_1.f3"))
    blue, red = (tuple(int(hue[i : i + 2], 16) for i in (1, 3, 5)) for hue in (LOWERS, RAISES))
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    assert {"negative: ablating the source lowers the target, which it drives"} <= set(words(figure))


def test_headers_are_coloured_by_effect() -> None:
    figure = draw_trace(four())
    colours = {
        name.removeprefix("effect "): to_hex(patch.get_facecolor())
        for name, patch in artists(figure, Rectangle).items()
    }
    assert colours["resid_1.f3"] == "#ffffff"
    for name, hue in (("resid_0.f1", LOWERS), ("resid_0.f2", RAISES)):
        red, _, blue = (int(colours[name][i : i + 2], 16) for i in (1, 3, 5))
        assert (blue > red) == (hue == LOWERS)
    assert {"-0.1", "0.4", "not ablated"} <= set(words(figure))
    assert "Not ablated: a run reached it, and none has started from it yet." in words(figure)
    assert "not ablated" not in words(
        draw_trace(replace(four(), nodes=(*four().nodes[:2], TracedNode("resid_1.f3", 1.0))))
    )


def test_shapes_say_what_a_node_is() -> None:
    patches = artists(drawn("odd"))
    dashed = {name for name, patch in patches.items() if "->" not in name and patch.get_linestyle() != "solid"}
    assert dashed == {"resid_0.error@last"}
    bold = {name for name, patch in patches.items() if "->" not in name and patch.get_linewidth() == 1.5}
    assert bold == {"embed@subject", "attn_1@last", "a2.h3@last"}


def context(tokens: str, peak: int, values: dict[int, float]) -> dict[str, Any]:
    listed = tokens.split()
    return {"tokens": listed, "values": [values.get(i, 0.0) for i in range(len(listed))], "peak": peak}


ONE = Trace(RESID, (TracedNode("resid_1.f3", -1.0, ((" were", 1.25), ("was", -0.5))),), ())


def test_contexts_are_around_their_token_shaded_and_each_once() -> None:
    top = [
        context("0 1 2 3 4 5 6 7 8 9 10 11 12 13", 8, {8: 4.0, 7: 2.0, 6: -1.0}),
        context("x 1 2 3 4 5 6 7 8 9 10 11 y", 8, {8: 3.5}),  # the same words around its token
        context("a b", 0, {0: 3.0}),
        context("c d", 1, {1: 2.0}),
        context("e f", 1, {1: 1.0}),
    ]
    figure = draw_trace(ONE, meanings={"resid_1.f3": {"top": top}})
    text = said(figure)
    assert "1 2 3 4 5 6 7 8 9 10 11" in text
    assert "12" not in words(figure)
    assert {"a", "b", "c", "d"} <= set(words(figure))
    assert not {"x", "y", "e", "f"} & set(words(figure))
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert texts["8"].get_fontweight() == "bold"
    assert texts["7"].get_fontweight() == "normal"
    # white mixed with the hue at 0.12 + 0.75 |share|: 4 of 4, 2 of 4, -1 of 4
    chips = [to_hex(a.get_facecolor()) for a in figure.axes[0].get_children() if type(a) is Rectangle]
    assert {"#8058a9", "#b7a0ce", "#dbd2b1"} <= set(chips)
    assert "underlined below 0" in text
    none = draw_trace(ONE, meanings={"resid_1.f3": {"top": top}}, contexts=0)
    assert "8" not in words(none)
    assert "underlined" not in said(draw_trace(ONE, meanings={"resid_1.f3": {"top": top[2:]}}))


def test_tokens_keep_their_spaces_where_they_have_any() -> None:
    gapless = {"tokens": ["un", "believ", "able", " dogs"], "values": [0, 1, 0, 0], "peak": 1}
    figure = draw_trace(ONE, meanings={"resid_1.f3": {"top": [gapless]}})
    places = {text.get_text(): text for text in figure.axes[0].texts}
    renderer = FigureCanvasAgg(figure).get_renderer()
    left, middle, right, apart = (places[t].get_window_extent(renderer) for t in ("un", "believ", "able", "dogs"))
    assert middle.x0 - left.x1 < 5
    assert right.x0 - middle.x1 < 5
    assert apart.x0 - right.x1 > right.x0 - middle.x1
    assert "·were" in words(figure)


def test_measured_logits_come_before_promoted_tokens() -> None:
    meaning = {"promoted": [["are", 2.0]], "suppressed": [["is", -3.0]]}
    figure = draw_trace(ONE, meanings={"resid_1.f3": meaning})
    assert {"raises", "·were", "+1.2", "lowers", "was", "-0.5"} <= set(words(figure))
    assert not {"promotes", "are"} & set(words(figure))
    unmeasured = replace(ONE, nodes=(TracedNode("resid_1.f3", -1.0),))
    figure = draw_trace(unmeasured, meanings={"resid_1.f3": meaning})
    assert {"promotes", "are", "+2", "suppresses", "is", "-3"} <= set(words(figure))
    assert "raises" not in words(figure)
    colours = {text.get_text(): to_hex(text.get_color()).upper() for text in figure.axes[0].texts}
    assert (colours["+2"], colours["-3"]) == (RAISES, LOWERS)


def test_meanings_are_of_features_and_their_positions_or_mappings_like_them() -> None:
    trace = Trace(RESID.at(SPANS), (TracedNode("resid_1.f3@last", 1.0),), ())
    feature = Feature("resid_1.f3", top=(Context(("so", "many"), (0.0, 2.0), 1, 2.0),), label="numbers")
    one = draw_trace(trace, meanings={"resid_1.f3": feature})
    assert words(one) == words(draw_trace(trace, meanings={"resid_1.f3@last": feature.to_dict()}))
    assert {"so", "many", "numbers"} <= set(words(one))


def test_boxes_without_meanings_are_smaller() -> None:
    nodes = (TracedNode("resid_1.f3", 1.0), TracedNode("resid_1.f4", 1.0))
    boxes = placed(Trace(RESID, nodes, ()), meanings_of(Trace(RESID, nodes[:1], ()), share=1.0)).boxes
    assert boxes["resid_1.f4"].width < boxes["resid_1.f3"].width <= WIDEST
    assert boxes["resid_1.f4"].height < boxes["resid_1.f3"].height / 2


def test_limits_keep_the_strongest_and_are_said() -> None:
    trace = CASES["large"][0]
    figure = draw_trace(trace, max_nodes=10, max_edges=5)
    nodes = {name for name in artists(figure) if "->" not in name and not name.startswith("effect")}
    assert nodes == set(list(trace.to_dict())[:10])
    between = [edge for edge in trace.edges if {edge.source, edge.target} <= {*nodes, LOGITS}]
    kept = {name for name in artists(figure) if "->" in name}
    assert len(between) > 5 == len(kept)

    def share(edge: TracedEdge) -> float:
        """Of the strongest of its kind in the whole trace."""
        into = edge.target == LOGITS
        others = [other.effect for other in trace.edges if (other.target == LOGITS) == into]
        return abs(edge.effect) / max(map(abs, [*others, *(node.effect or 0.0 for node in trace.nodes if into)]))

    assert kept == {edge.name for edge in sorted(between, key=share, reverse=True)[:5]}
    text = said(figure)
    assert f"only the 10 strongest nodes are drawn, {len(trace.nodes) - 10} are left out" in text
    assert "only the 5 strongest edges between them are drawn" in text
    assert f"{len(trace.edges) - 5} are left out" in text
    assert f"with the {len(between)} edges between them" in said(draw_trace(trace, max_nodes=10))
    assert (MAX_NODES, MAX_EDGES) == (60, 300)
    assert "left out" not in said(drawn("large"))
    assert "only the 300 strongest edges are drawn, 5 are left out" in said(
        draw_trace(random_trace(RESID, 60, 305, seed=4))
    )


def test_nodes_that_were_not_ablated_come_after_the_others() -> None:
    trace = four()
    assert [node.name for node in TraceLook.of(trace, 2, None, "test").nodes] == ["resid_0.f1", "resid_0.f2"]
    more = replace(trace, nodes=(*trace.nodes, TracedNode("resid_1.f4", None)))
    assert [node.name for node in TraceLook.of(more, 3, None, "test").nodes][-1] == "resid_1.f3"


def test_caption_says_what_was_traced_and_how() -> None:
    text = said(draw_trace(four()))
    assert "sva-across-rc, toy" in text
    assert "3 nodes, 4 edges · 3 runs · ByAblation(threshold=-3.0) · zero ablation" in text
    assert "Verbs" in words(draw_trace(four(), title="Verbs"))
    bare = draw_trace(replace(ONE, provenance={}))
    assert {"Trace", "1 node, 0 edges"} <= set(words(bare))


def test_effects_by_gradient_are_said_to_be_estimates() -> None:
    row = "These are first-order estimates of what ablation changes."
    assert row not in words(draw_trace(four()))
    assert row in words(draw_trace(replace(four(), provenance={**KNOWN, "form": "gradient"})))


def test_legend_has_only_marks_that_there_are() -> None:
    text = said(draw_trace(ONE))
    assert "source" not in text
    assert "width" not in text
    assert "dashed box" not in text
    assert "dashed box" in said(drawn("odd"))


# --- text ---


def test_text_is_measured_and_shortened() -> None:
    assert width_of("ii", 7) < width_of("WW", 7)
    assert width_of("WW", 14) == pytest.approx(2 * width_of("WW", 7))
    assert width_of(" a ", 7) > width_of("a", 7)
    assert shortened("short", 5, 7) == "short"
    short = shortened("W" * 90, 1.0, 7)
    assert short.endswith("…")
    assert width_of(short, 7) <= 1.0 < width_of(short + "W", 7)
    assert shortened("anything", 0.0, 7) == "…"


def test_tokens_are_readable() -> None:
    assert readable("a\nb\tc") == "a↵b⇥c"
    assert readable("\x00\x1b\ud800\u202e\ufffe") == "\\x00\\x1b\\ud800\\u202e\\ufffe"
    assert readable("<|endoftext|> naïve 日本 \U0001f600") == "<|endoftext|> naïve 日本 \U0001f600"
    assert [ends_shown(t) for t in (" a", "a b ", "  ", "")] == ["·a", "a b·", "··", ""]


# --- files ---


def test_files_hold_every_word_and_are_the_same_again(tmp_path: Path) -> None:
    trace, meanings = CASES["small"]
    for name in ("a.svg", "b.svg", "a.png", "a.pdf"):
        draw_trace(trace, tmp_path / name, meanings=meanings)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    root = ET.fromstring((tmp_path / "a.svg").read_text("utf-8"))
    assert {*(n.name for n in trace.nodes), *(e.name for e in trace.edges)} <= {e.get("id") for e in root.iter()}
    found = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {node.name for node in trace.nodes} <= found
    for feature in meanings.values():
        for one in feature.top[:3]:
            assert set(one.tokens[one.peak - 2 : one.peak + 2]) <= found
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_tokens_of_any_kind_are_written_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure = draw_trace(ODD, tmp_path / "odd.svg", meanings=ODD_MEANINGS)
        figure._repr_png_()
    text = (tmp_path / "odd.svg").read_text("utf-8")
    ET.fromstring(text)
    for piece in ("日本", "\U0001f600", "↵", "⇥", "\\x00", "\\ud800", "&lt;|endoftext|&gt;", "do$s", "naïve$", "a$b$c"):
        assert f">{piece}<" in text or f"{piece}, x<" in text or f">·{piece}<" in text, piece


# --- Graphviz ---


def labels(text: str) -> dict[str, ET.Element]:
    """The tables of nodes, by name."""
    found = re.findall(r'^  "([^"]+)" \[id="[^"]+", .*label=<(.*)>\];$', text, re.MULTILINE)
    return {name: ET.fromstring(label) for name, label in found}


@pytest.mark.parametrize("case", CASES)
def test_dot_has_everything(case: str) -> None:
    trace, meanings = CASES[case]
    text = trace_dot(trace, meanings=meanings)
    assert text.startswith("digraph ")
    tables = labels(text)
    assert set(tables) == {node.name for node in trace.nodes}
    for name, table in tables.items():
        assert table.tag == "TABLE"
        assert name in list(table.itertext())
        assert table.get("STYLE") == ("DASHED" if ".error" in name else None)
    edges = dict(re.findall(r'^  "[^"]+" -> "[^"]+" \[id="([^"]+)", (.*)\];$', text, re.MULTILINE))
    assert set(edges) == {edge.name for edge in trace.edges}
    for edge in trace.edges:
        assert f'effect="{edge.effect!r}"' in edges[edge.name]
        assert ('style="dashed"' in edges[edge.name]) == (edge.effect > 0)
    sites = [trace.graph.place_of(trace.graph.index(node.name)) for node in trace.nodes]
    shared = sum(sites.count(site) > 1 for site in set(sites))
    assert text.count("rank=same") == shared
    assert text == trace_dot(trace, meanings=meanings)


def test_dot_says_what_the_picture_says() -> None:
    top = [context("the dogs were", 1, {1: 2.0, 2: -2.0})]
    meanings = {"resid_1.f3": {"top": top, "label": 'a "plural" & <more>'}}
    text = trace_dot(ONE, meanings=meanings)
    table = labels(text)["resid_1.f3"]
    said = [piece.replace("\xa0", " ") for piece in table.itertext()]
    for piece in (
        "-1",
        'a "plural" & <more>',
        "the",
        "dogs",
        "were",
        "raises",
        "  ·were",
        " +1.2",
        "lowers",
        "  was",
        " -0.5",
    ):
        assert piece in said
    fills = {"".join(cell.itertext()): cell.get("BGCOLOR") for cell in table.iter("TD") if cell.get("BGCOLOR")}
    assert fills["dogs"] == "#8058A9"
    assert fills["were"] == "#998021"
    assert "the" not in fills
    lines = trace_dot(four()).split("\n")
    # opacities 0.92 and 0.71 of 255
    assert f'color="{LOWERS}EB", penwidth="4.4"' in next(
        line for line in lines if 'id="resid_0.f1->resid_1.f3"' in line
    )
    assert f'color="{RAISES}B5", penwidth="1.7"' in next(
        line for line in lines if 'id="resid_0.f2->resid_1.f3"' in line
    )
    limited = trace_dot(four(), max_nodes=2, max_edges=1)
    assert "resid_1.f3" not in limited
    assert limited.count("id=") == 3


@pytest.mark.parametrize("case", ["small", "positions", "odd"])
def test_graphviz_reads_it(case: str) -> None:
    program = shutil.which("dot")
    if program is None:
        pytest.skip("Graphviz is not installed")
    trace, meanings = CASES[case]
    text = trace_dot(trace, meanings=meanings)
    done = subprocess.run([program, "-Tsvg"], input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"rror" not in done.stderr
    assert done.stdout.count(b'class="node"') == len(trace.nodes) + any(e.target == LOGITS for e in trace.edges)


def test_dot_needs_no_matplotlib() -> None:
    script = (
        "import sys\nfrom sparse_circuits.view import trace_dot\n"
        "print({'matplotlib', 'transformer_lens'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- bad input ---


def test_refusals() -> None:
    for draw in (draw_trace, trace_dot):
        with pytest.raises(InputError, match=rf"{draw.__name__}\(trace=str\): expected a Trace"):
            draw("trace.safetensors")  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match="has no nodes"):
            draw(Trace(RESID, (), ()))
        with pytest.raises(InputError, match=rf"{draw.__name__}\(max_nodes=0\): expected a whole number"):
            draw(ONE, max_nodes=0)
        with pytest.raises(InputError, match=r"max_edges=2.5\): expected a whole number"):
            draw(ONE, max_edges=2.5)  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match=r"contexts=-1\): expected a whole number"):
            draw(ONE, contexts=-1)
        with pytest.raises(InputError, match=rf"{draw.__name__}\(meanings=list\): expected a mapping from names"):
            draw(ONE, meanings=["resid_1.f3"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"ends in \.svg"):
        draw_trace(ONE, "trace.bmp")


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (TracedEdge("resid_0.f1", "resid_1.f9", 1.0), "no node 'resid_1.f9'"),
        (TracedEdge("logits", "resid_1.f3", 1.0), "does not lead to a later site"),
        (TracedEdge("resid_1.f3", "resid_0.f1", 1.0), "does not lead to a later site"),
        (TracedEdge("resid_0.f1", "resid_0.f2", 1.0), "does not lead to a later site"),
    ],
)
def test_edges_that_no_picture_can_have(edge: TracedEdge, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_trace(replace(four(), edges=(edge,)))


def test_nodes_that_no_trace_can_have() -> None:
    for nodes, message in (
        ((*ONE.nodes, *ONE.nodes), "a node twice"),
        ((TracedNode("logits", 1.0),), "one called 'logits'"),
        ((TracedNode("resid_7.f1", 1.0),), "no node 'resid_7.f1'"),
    ):
        with pytest.raises(InputError, match=message):
            draw_trace(replace(ONE, nodes=nodes))


@pytest.mark.parametrize(
    ("meaning", "message"),
    [
        ("plural", "of 'resid_1.f3' there is a str; expected a mapping"),
        ({"label": object()}, "does not fit into JSON"),
        ({"top": "the dogs"}, "'top' of 'resid_1.f3' is str; expected a list"),
        ({"contexts": ["the dogs"]}, "a context that is none"),
        ({"contexts": [{"tokens": [], "values": []}]}, "a context that is none"),
        ({"contexts": [{"tokens": ["a", "b"], "values": [1.0]}]}, "as many values as tokens"),
        ({"contexts": [{"tokens": ["a"], "values": ["high"]}]}, "as many values as tokens"),
        ({"promoted": [["a", "b"]]}, r"among what 'resid_1.f3' promotes is \['a', 'b'\]"),
    ],
)
def test_meanings_that_cannot_be_read(meaning: Any, message: str) -> None:
    unmeasured = replace(ONE, nodes=(TracedNode("resid_1.f3", -1.0),))
    with pytest.raises(InputError, match=message):
        draw_trace(unmeasured, meanings={"resid_1.f3": meaning})


def test_contexts_without_values_or_token_are_shown_plain() -> None:
    figure = draw_trace(ONE, meanings={"resid_1.f3": {"contexts": [{"tokens": ["so", "many"], "peak": 9}]}})
    assert {"so", "many"} <= set(words(figure))
