"""The explorer's page in a browser, opened from disk as a reader opens it: mouse, keyboard, files, and no word of complaint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from browsing import Opened, close_keys

import sparse_circuits as sc
from sparse_circuits.features.shades import ABOVE, BELOW
from sparse_circuits.view.explorer import Page, explore
from sparse_circuits.view.strokes import CARRIES, NEUTRAL, OPPOSES

EVIL = "</script><img src=x onerror=alert(1)>"
# Where on screen an edge of the first pane arrives, a little before its end.
END_OF_EDGE = """(name) => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const { nodes, ports, edges } = data;
  const i = edges.u.findIndex((u, i) => `${nodes[u].name}->${ports[edges.p[i]].name}` === name);
  const course = edges.course[i], at = document.querySelector('#pane-a .world').getScreenCTM();
  return [at.a * course.at(-2) + at.e, at.d * (course.at(-1) + 7) + at.f];
}"""
DRAWN = """() => {
  const canvas = document.querySelector('#pane-a canvas');
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
  return n;
}"""


# Colours by their names in page.css, and of every box that text stands in its own and the text's.
COLOURS = """() => {
  const style = getComputedStyle(document.documentElement);
  const named = ['page', 'ink', 'faint', 'box', 'carries', 'opposes', 'neutral', 'only-a', 'only-b', 'both', 'above', 'below'];
  const boxes = [...document.querySelectorAll('#pane-a .node:not([aria-hidden]):not([display])')].map((node) => {
    const [box, text] = [node.querySelector('rect:not(.ring)'), node.querySelector('text')];
    return [getComputedStyle(box).fill, getComputedStyle(text).fill];
  });
  return [Object.fromEntries(named.map((name) => [name, style.getPropertyValue(`--${name}`)])), boxes];
}"""


def luminance(colour: str) -> float:
    """As WCAG 2 defines it, of #RRGGBB or rgb(r, g, b)."""
    found = re.findall(r"\d+", colour) if "(" in colour else [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    parts = [float(one) / 255 for one in found[:3]]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def click_edge(opened: Opened, name: str) -> None:
    opened.page.mouse.click(*opened.page.evaluate(END_OF_EDGE, name))


@pytest.fixture(scope="module")
def ioi(demo_run: tuple[Path, str]) -> Path:
    """The page of components that the demo leaves."""
    return demo_run[0] / "ioi" / "explorer.html"


@pytest.fixture(scope="module")
def agreement(demo_run: tuple[Path, str]) -> Path:
    """The page of features that the demo leaves."""
    pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
    return demo_run[0] / "agreement" / "explorer.html"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """One circuit with its evaluation, and two from the same scores side by side with their curves."""
    model = sc.load_model("toy", device="cpu")
    task = sc.load_task("ioi", model, n=8)
    scores = sc.attribute(model, sc.Graph.of(model), task, sc.EAPIG(steps=2))
    circuit, sizes = scores.greedy(60), (5, 20, 60)
    curves = [sc.faithfulness_curve(model, scores, task, sizes, select=rule) for rule in ("greedy", "top")]
    few, many = (one.evaluations[i] for one, i in zip(curves, (1, 2), strict=True))
    return {
        "scores": explore(scores, curve=curves[0]),
        "circuit": explore(circuit, evaluation=sc.evaluate(model, circuit, task)),
        "compare": explore(
            few.circuit,
            compare=many.circuit,
            labels=("greedy", EVIL),
            curve=(curves[0], curves[1]),
            evaluation=(few, many),
        ),
    }


@pytest.fixture(scope="module")
def told(agreement: Path) -> Page:
    """Features of the demo with meanings of every kind, some of which are meant to break out of the page."""
    found = sc.Scores.load(agreement.with_name("scores.safetensors"))
    assert isinstance(found, sc.FeatureScores)
    meanings = {
        name: {
            "label": f"plural {EVIL}" if i == 0 else f"meaning {i}",
            "density": 0.01,
            "histogram": {"counts": [9, 4, 1], "edges": [0, 1, 2, 3]},
            "contexts": [{"tokens": [" the", f" girls{EVIL}"], "activations": [0.1, 2.0]}],
            "promoted": [[" are", 2.0], [EVIL, 1.0]],
            "suppressed": [[" is", -1.0]],
            "similar": [[found.top(3).names[2], 0.7]],
            "link": "javascript:alert(1)" if i == 0 else "https://example.org/feature",
        }
        for i, name in enumerate(found.top(10).names)
    }
    # as feature_pages and head_report tell it
    context = {"tokens": ["the", "girls"], "values": [-0.5, 2.0], "peak": 1, "value": 2.0}
    meanings[found.top(11).names[-1]] = {
        "label": "others",
        "tokens": 1000,
        "fired": 20,
        "density": 0.02,
        "top": [context],
        "quantiles": [{"from": 0.8, "to": 1, "contexts": [context]}],
        "looks_at": [["girls", 0.9]],
        "prompts": [{"tokens": ["the", "girls"], "pattern": [[1.0, 0.0], [0.3, 0.7]]}],
        "mean": 1.25,
    }
    return explore(found, meanings=meanings, max_size=60)


def panel_of(opened: Opened, name: str) -> str:
    opened.node(name).click()
    return opened.text("#panel")


@pytest.mark.parametrize("name", ["ioi", "agreement"])
def test_a_reader_explores_a_circuit(name: str, request: pytest.FixtureRequest, open_page: Any, tmp_path: Path) -> None:
    """All on the very pages that the demo leaves."""
    file = request.getfixturevalue(name)
    opened = open_page(file)
    page, data = opened.page, opened.data()
    strong = sorted((n for n in data["nodes"] if n["s"] and n["role"] != "input"), key=lambda n: -abs(n["s"]))
    first, *others = [n["name"] for n in strong if 0 <= n["at"] <= data["start"]][:4]
    start = str(data["start"])
    assert page.locator("#size").input_value() == start
    assert "random" in opened.text("#readout")

    # the slider: the circuit and its place on the curve
    page.locator("#faint").fill("0")
    largest, least = int(page.locator("#size").get_attribute("max")), 2
    seen = []
    for step in (largest, least):
        page.locator("#size").fill(str(step))
        assert f"{data['sizes'][0][step]:,} " in opened.text("#readout")
        here = page.locator("#here")
        seen.append((page.evaluate(DRAWN), here.get_attribute("transform"), here.locator("line").bounding_box()["x"]))
    (many, place, right), (few, other_place, left) = seen
    assert few < many
    assert place != other_place
    assert left < right
    heights = []
    for point in (0, len(data["curves"][0]["points"]) - 1):
        page.locator("#curve circle.point").nth(point).click()
        assert re.search(r"faithfulness \S+ \[", opened.text("#readout"))
        heights.append(float(page.locator("#here circle").get_attribute("cy")))
    assert heights[1] < heights[0]  # up the page: more faithful
    page.locator("#size").fill(start)

    # a node: what it is, its effect, its edges from strong to weak
    opened.node(first).click()
    assert opened.text("#panel h3").startswith(first)
    assert "edges (" in opened.text("#panel")
    assert data["meanings"].keys() & {first, *others}
    assert all(("Promotes" in panel_of(opened, n)) == (n in data["meanings"]) for n in (*others, first))
    shown = [
        abs(float(text.replace("\u2212", "-")))
        for text in page.locator("#panel ul.edges").last.locator(".number").all_text_contents()
    ]
    assert shown == sorted(shown, reverse=True)

    # an edge: the numbers behind it; it is hidden, shown again, and hidden for good
    opened.press("Escape")
    into_logits = next(
        i
        for i, p in enumerate(data["edges"]["p"])
        if data["ports"][p]["name"] == "logits" and data["nodes"][data["edges"]["u"][i]]["role"] != "input"
    )
    edge = f"{data['nodes'][data['edges']['u'][into_logits]]['name']}->logits"
    click_edge(opened, edge)
    assert opened.text("#panel h3") == edge.replace("->", " \u2192 ")
    assert "score" in opened.text("#panel dl")
    assert "rank" in opened.text("#panel dl")
    opened.press("Escape")
    page.mouse.move(5, 5)
    opened.settle()
    with_it = page.evaluate(DRAWN)
    click_edge(opened, edge)
    page.locator('#panel [data-key="hide"]').click()
    assert opened.text("#panel h3") == "Circuit"
    assert "Hidden (1)" in opened.text("#lists")
    assert page.evaluate(DRAWN) < with_it
    page.locator("#lists .plain", has_text="logits").click()
    assert opened.text("#panel h3") == edge.replace("->", " \u2192 ")
    assert opened.text("#lists") == ""
    opened.press("h")
    assert "Hidden (1)" in opened.text("#lists")

    # search
    opened.press("/")
    page.keyboard.type(others[0])
    opened.press("Enter")
    assert opened.text("#panel h3") == others[0]

    # a pin, a note, something hidden
    opened.press("p")
    opened.press("n")
    page.keyboard.type(f"writes the answer {EVIL}")
    opened.press("Escape")
    opened.node(first).click()
    opened.press("h")
    assert not opened.node(first).is_visible()

    # a group of two
    for other in others[1:3]:
        opened.node(other).click(modifiers=["Shift"])
    opened.press("g")
    page.locator("#answer").fill("my group")
    opened.press("Enter")
    assert opened.text("#panel h3") == "my group"
    assert not opened.node(others[1]).is_visible()
    assert opened.node("group 1").is_visible()

    # all of it is there after a reload
    opened.settle(200)  # notes are kept a little later
    page.reload()
    page.wait_for_selector(".node")
    lists = opened.text("#lists")
    for text in ("writes the answer </script>", "my group: 2 nodes", "Pinned (1)", "Hidden (2)"):
        assert text in lists
    assert opened.node("group 1").is_visible()

    # as a file, and back on a page that knows nothing of it
    with page.expect_download() as waiting:
        page.locator("#save").click()
    saved = tmp_path / "saved.json"
    waiting.value.save_as(saved)
    assert json.loads(saved.read_text())["notes"] == {others[0]: f"writes the answer {EVIL}"}
    fresh = open_page(file)
    assert fresh.text("#lists") == ""
    assert "Loaded notes" in fresh.load_notes(saved)
    assert fresh.text("#lists") == lists

    # pictures
    for key, ending in (("e", ".svg"), ("E", ".png")):
        with page.expect_download() as waiting:
            opened.press(key)
        picture = tmp_path / f"picture{ending}"
        waiting.value.save_as(picture)
        assert waiting.value.suggested_filename.endswith(ending)
        if ending == ".svg":
            root = ElementTree.parse(picture).getroot()
            assert root.tag.endswith("svg")
            titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
            assert len(titles) > 20
            text = "".join(root.itertext())
            assert "my group" in text
            assert data["title"] in text
            assert edge.replace("->", " \u2192 ") not in text  # hidden
        else:
            assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_a_feature_means(told: Page, open_page: Any) -> None:
    opened = open_page(told)
    data, page = opened.data(), opened.page
    labels = {value["label"]: name for name, value in data["meanings"].items()}
    page.locator("#search").fill("girls")
    assert page.locator("#found li").count() == len(labels)
    page.locator("#search").fill("")
    opened.node(labels[f"plural {EVIL}"]).click()
    text = opened.text("#panel")
    for part in (
        f"plural {EVIL}",
        "1% of tokens",
        "Promotes",
        "\u00b7are",
        "Suppresses",
        f" girls{EVIL}",
        "Activations",
        "Similar",
    ):
        assert part in text
    assert page.locator("#panel .token").count() == 2
    assert page.locator("#panel .histogram rect").count() == 3
    assert page.locator("#panel a").count() == 0  # a script is no link
    opened.node(labels["meaning 1"]).click()
    opened.settle()
    assert page.locator("#panel a").get_attribute("href") == "https://example.org/feature"
    assert page.locator("img").count() == 0
    opened.node(labels["others"]).click()
    text = opened.text("#panel")
    for part in (
        "2% of 1,000 tokens",
        "the girls",
        "Among the 80% to 100% strongest",
        "Looks at",
        "girls +0.9",
        "1.25",
    ):
        assert part in text
    assert page.locator("#panel [aria-label='Attention pattern'] rect").count() == 4


def test_everything_by_keyboard(made: dict[str, Any], open_page: Any) -> None:
    opened = open_page(made["scores"])
    page = opened.page
    opened.press("ArrowDown")
    assert opened.text("#panel h3") == "logits"
    opened.press("ArrowDown")
    below = opened.text("#panel h3")
    assert below != "logits"
    assert page.evaluate("document.activeElement.dataset.name") == below
    opened.press("ArrowRight")
    assert opened.text("#panel h3") not in ("logits", below)
    opened.press("ArrowLeft")
    opened.press("]")
    assert " \u2192 " in opened.text("#panel h3")
    opened.press("Enter")
    assert " \u2192 " not in opened.text("#panel h3")
    opened.press("Control+Alt+]")  # as AltGr makes it on many keyboards
    assert " \u2192 " in opened.text("#panel h3")
    size = page.locator("#size").input_value()
    opened.press("+")
    assert int(page.locator("#size").input_value()) == int(size) + 1
    opened.press("-")
    opened.press("<")
    assert int(page.locator("#size").input_value()) == max(0, int(size) - 5)
    opened.press(">")
    assert page.locator("#size").input_value() == size
    page.locator("#size").fill(size)
    page.locator("#size").blur()
    opened.press("Escape")
    for _ in range(3):
        opened.press("ArrowDown")
        opened.settle()
    opened.press(" ")
    opened.press("ArrowRight")
    opened.press(" ")
    opened.press("g")
    page.keyboard.type("by key")
    opened.press("Enter")
    assert opened.text("#panel h3") == "by key"
    opened.press("p")
    opened.press("o")
    opened.settle()
    assert page.locator("#pane-a .node:visible").count() == 1
    opened.press("o")
    opened.press("g")  # opens it
    opened.settle()
    assert not opened.node("group 1").count()
    opened.press("h")
    opened.press("u")
    assert "Hidden" not in opened.text("#lists")
    opened.press("?")
    assert page.locator("#keys").is_visible()
    opened.press("Escape")
    opened.press("0")
    before = page.locator("#pane-a .world").get_attribute("transform")
    opened.press("z")
    assert page.locator("#pane-a .world").get_attribute("transform") != before
    opened.press("0")
    assert page.locator("#pane-a .world").get_attribute("transform") == before


def test_kinds_and_weak_edges_can_be_left_out(made: dict[str, Any], open_page: Any) -> None:
    opened = open_page(made["circuit"])
    page = opened.page
    every = page.evaluate(DRAWN)
    page.locator('[data-kind="v"]').uncheck()
    opened.settle()
    without = page.evaluate(DRAWN)
    assert without < every
    page.locator('[data-kind="v"]').check()
    page.locator("#faint").fill("20")
    opened.settle()
    assert page.evaluate(DRAWN) < every
    assert re.search(r"\d+ strongest of \d+ edges drawn", opened.text("#readout"))


def test_scores_of_the_second_circuit_alone_are_explained(open_page: Any) -> None:
    graph = sc.Graph(n_layers=2, n_heads=2, n_kv=2)
    parts = {"m0->logits": -1.0, "input->m0": 0.5}
    opened = open_page(
        explore(sc.Circuit.of(graph, list(parts)), compare=sc.Circuit.of(graph, parts), labels=("a", "b"))
    )
    legend = opened.text("#legend")
    for part in ("carries the behaviour", "works against it", "no scores", "of the strongest"):
        assert part in legend


def test_it_follows_the_readers_theme_and_pictures_stay_light(told: Page, open_page: Any, tmp_path: Path) -> None:
    opened = open_page(told, color_scheme="light")
    page = opened.page
    data = opened.data()
    opened.node(next(name for name, one in data["meanings"].items() if one["label"] == "meaning 1")).click()
    page.locator("#faint").fill("0")

    def picture(name: str) -> tuple[str, bytes]:
        found = []
        for key in ("e", "E"):
            with page.expect_download() as waiting:
                opened.press(key)
            waiting.value.save_as(tmp_path / name)
            found.append((tmp_path / name).read_bytes())
        return found[0].decode(), found[1]

    page.locator("#faint").blur()
    seen, pictures = {}, {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        opened.settle()
        named, boxes = seen[theme] = page.evaluate(COLOURS)
        pictures[theme] = picture(theme)
        assert page.evaluate(COLOURS) == [named, boxes]  # the page itself stays as it is
        assert (luminance(named["page"]) > 0.5) == (theme == "light")
        for name, colour in named.items():
            if name != "page":
                assert contrast(colour, named["page"]) > (4.5 if name in ("ink", "faint") else 3), (theme, name)
        # what stands in a box, faint or full, can be read
        assert len({fill for fill, _ in boxes}) > 10
        assert all(contrast(fill, ink) > 4 for fill, ink in boxes)
        assert page.locator("body").evaluate("(one) => getComputedStyle(one).backgroundColor") in (
            "rgb(255, 255, 255)",
            "rgb(20, 24, 29)",
        )
    assert seen["light"] != seen["dark"]
    assert pictures["light"] == pictures["dark"]
    assert "var(" not in pictures["dark"][0]
    light = seen["light"][0]
    shared = {"carries": CARRIES, "opposes": OPPOSES, "neutral": NEUTRAL, "above": ABOVE, "below": BELOW}
    assert {name: light[name] for name in shared} == shared  # as in every other view


def test_two_circuits(made: dict[str, Any], open_page: Any) -> None:
    opened = open_page(made["compare"])
    page, data = opened.page, opened.data()
    assert page.locator("#pane-b").is_visible()
    assert page.locator("#curve path.line").count() == 2
    for label in ("greedy: faithfulness", f"{EVIL[:29]}\u2026: faithfulness"):
        assert label in opened.text("#readout")
    only = next(n["name"] for n in data["nodes"] if n["at"] < 0 <= n["at2"])
    opened.node(only, "b").click()
    assert "not in it" in opened.text("#panel dl")
    # the panel is about the one of the two that was clicked in, and the keyboard stays there
    counts = []
    for pane, key in (("a", "at"), ("b", "at2")):
        opened.node("a2.h7", pane).click()
        into = [data["ports"][p]["name"].startswith("a2.h7<") for p in data["edges"]["p"]]
        counts.append(sum(one and at >= 0 for one, at in zip(into, data["edges"][key], strict=True)))
        assert f" in {'greedy' if pane == 'a' else EVIL[:23]}" in opened.text("#panel section h4 >> nth=0")
        assert opened.text("#panel section h4 >> nth=0").endswith(f"({counts[-1]})")
        opened.press("ArrowDown")
        assert page.evaluate("document.activeElement.closest('.pane').id") == f"pane-{pane}"
        assert page.locator(f"#pane-{'b' if pane == 'a' else 'a'} .node[tabindex='0']").count() == 1
    assert counts[0] != counts[1]
    page.locator("[data-mode=diff]").click()
    opened.settle()
    assert not page.locator("#pane-b").is_visible()
    assert "only" in (opened.node(only).text_content() or "") or opened.node(only).is_visible()
    shared = next(n["name"] for n in data["nodes"] if n["role"] == "head" and n["at"] >= 0 and n["at2"] >= 0)
    opened.node(shared).click()
    assert "difference" in opened.text("#panel dl")
    page.locator("[data-mode=a]").click()
    opened.settle()
    assert page.locator("#pane-a h2").text_content() == "greedy"
    opened.press("v")
    assert page.locator("#pane-a h2").text_content() == EVIL or page.locator("#pane-b").is_visible()


def test_neurons_open_in_their_node(open_page: Any) -> None:
    """What one means and its notes; it is found by name, shown at a size at which it is there, and its note is kept."""
    graph = sc.Graph(n_layers=2, n_heads=2, n_kv=2, d_head=4, d_mlp=6, level="neurons")
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.mask
    scores = sc.Scores(graph, values, torch.ones(4), torch.zeros(4), provenance={"task": "t", "model": "m"})
    name = next(one for one in reversed(scores.top(20).names) if "n" in one.rsplit(".", 1)[-1])
    node, late = name.rsplit(".", 1)[0], scores.top(20).names.index(name) + 1
    meanings = {name: {"label": "verbs in the plural", "promoted": [["\u05e9\t", 2.5], ["\x1d", 0.5]]}}
    opened = open_page(explore(scores, meanings=meanings, max_size=20))
    opened.page.locator("#size").fill("0")
    opened.page.locator("#search").fill("in the plural")
    opened.settle()
    opened.press("Enter")
    assert opened.text("#panel h3") == node
    assert int(opened.text("#readout").split()[0]) >= late
    row = opened.page.locator(f"#panel .units li:has(button[data-key='row {name}'])")
    assert row.locator(".label").text_content() == "verbs in the plural"
    assert row.locator(".tokens bdi").all_text_contents() == ["\u05e9\u21e5", "\\x1d"]
    row.locator("textarea").fill("seen")
    opened.settle(300)
    row.locator("button").first.click()
    opened.settle()
    assert row.locator(".label").count() == 0
    opened.page.reload()
    opened.settle()
    opened.page.locator("#lists button", has_text="seen").click()
    opened.settle()
    assert row.locator("textarea").input_value() == "seen"
    assert not opened.trouble


def test_the_largest_differences_of_two_circuits_are_listed(open_page: Any) -> None:
    graph = sc.Graph(n_layers=2, n_heads=2, n_kv=2, level="nodes")
    one = sc.Circuit.of(graph, {"a0.h0": -1.0, "a0.h1": -3.0, "a1.h0": -2.0}, model="m", task="t", method="one")
    other = sc.Circuit.of(graph, {"a0.h0": -1.0, "a0.h1": 1.5, "m1": -2.5}, model="m", task="u", method="other")
    opened = open_page(explore(one, compare=other, labels=("A", "B")))
    assert opened.text("#title") == "t / u, m"
    opened.page.locator("[data-mode=diff]").click()
    section = opened.page.locator("#panel section", has_text="Largest differences, B less A")
    opened.settle()
    rows = [section.locator("button").nth(i) for i in range(section.locator("button").count())]
    found = [(row.locator(".what").text_content(), row.locator(".number").text_content()) for row in rows]
    assert found == [("a0.h1", "+4.50"), ("m1", "\u22122.50"), ("a1.h0", "+2")]
    assert not opened.trouble


def test_it_fits_a_narrow_window(made: dict[str, Any], open_page: Any) -> None:
    opened = open_page(made["circuit"], width=420)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.node("m0").click()
    assert opened.text("#panel h3") == "m0"


@pytest.mark.parametrize("sandbox", [None, "allow-scripts"])
def test_it_works_in_a_notebook_cell(made: dict[str, Any], open_page: Any, tmp_path: Path, sandbox: str | None) -> None:
    """Also in one that may neither keep anything nor submit forms."""
    cell = made["circuit"]._repr_html_()
    if sandbox is not None:
        cell = cell.replace("<iframe ", f'<iframe sandbox="{sandbox}" ', 1)
    file = tmp_path / "cell.html"
    file.write_text(f"<!DOCTYPE html><body>{cell}</body>", encoding="utf-8")
    opened = open_page(file)
    frame = opened.page.frame_locator("iframe")
    node = frame.locator("#pane-a .node[data-name=m0]")
    node.click()
    frame.locator("#panel textarea").fill("noted")
    assert frame.locator("#panel h3").text_content() == "m0"
    frame.locator("#pane-a .node[data-name='a2.h4']").click(modifiers=["Shift"])  # leaves the note
    opened.press("g")
    frame.locator("#answer").fill("both")
    opened.press("Enter")
    frame.locator("#answer").wait_for(state="detached")
    node.wait_for(state="hidden")
    opened.press("?")
    close_keys(frame)
    assert "both: 2 nodes" in (frame.locator("#lists").text_content() or "")


def test_the_graph_stays_within_reach_of_the_keyboard(made: dict[str, Any], open_page: Any) -> None:
    """Whatever goes out of sight: one node that is there takes the keyboard."""
    opened = open_page(made["circuit"])

    def stops() -> list[str]:
        found = opened.page.locator('.node[tabindex="0"]:visible:not([aria-hidden])')
        return [one.get_attribute("data-name") for one in found.all()]

    for _ in range(2):
        opened.press("ArrowDown")
    (at,) = stops()
    assert at != "logits"
    opened.press("h")
    (left,) = stops()
    assert left != at
    for _ in range(3):
        opened.press("ArrowDown")
    opened.page.locator("#size").fill("0")
    opened.settle()
    assert len(stops()) == 1
    # from the button that closes the header into the graph, and on to search
    opened.page.locator("#faint").focus()
    opened.press("Tab")
    assert opened.page.evaluate("document.activeElement.dataset.name") == stops()[0]
    opened.press("Tab")
    assert opened.page.evaluate("document.activeElement.id") == "search"


def test_damaged_notes_do_no_harm(made: dict[str, Any], open_page: Any, tmp_path: Path) -> None:
    opened = open_page(made["circuit"])
    kind = {"format": "sparse-circuits explorer state"}
    file = tmp_path / "state.json"

    def load(text: str, said: str = "Loaded") -> str:
        file.write_text(text, encoding="utf-8")
        assert said in opened.load_notes(file)
        return opened.text("#lists")

    for text in ("{", "[]", "null", json.dumps({"format": "another"})):
        assert load(text, "holds no saved notes") == ""
    groups = [
        {"id": 1, "name": None, "members": ["m0", "m0", "a2.h4"]},
        {"id": 1, "name": "same id", "members": ["a2.h7"]},
        {"id": 2, "name": "same member", "members": ["m0"]},
        {"id": 3, "members": 5},
        7,
    ]
    rest = {"notes": {"m0": 5, "a2.h4": EVIL}, "pins": "m0", "hidden": [3, "nowhere"], "size": "x", "view": "diff"}
    lists = load(json.dumps({**kind, "groups": groups, **rest}))
    assert lists.startswith("Groups (1)group 1: 2 nodes")
    assert EVIL in lists
    assert "Pinned" not in lists
    assert "Hidden" not in lists
    assert load(json.dumps({**kind, "groups": {"a": 1}, "notes": "text", "size": -5})) == ""


def test_loaded_notes_bring_their_view(made: dict[str, Any], open_page: Any, tmp_path: Path) -> None:
    opened = open_page(made["compare"])
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"format": "sparse-circuits explorer state", "view": "diff"}), encoding="utf-8")
    assert "alike in both" not in opened.text("#legend")
    opened.load_notes(file)
    assert "alike in both" in opened.text("#legend")
    assert opened.page.locator("[data-mode=diff]").get_attribute("aria-pressed") == "true"


def test_notes_of_another_view_of_the_page_are_not_written_over(made: dict[str, Any], open_page: Any) -> None:
    """Two tabs, or a tab and a notebook's cell, keep their notes in one place."""
    one = open_page(made["circuit"])
    tab = one.page.context.new_page()
    other = Opened(tab, one.file, one.trouble)
    other.node("m0").click()
    tab.locator("#panel textarea").fill("noted there")
    tab.locator("#lists", has_text="noted there").wait_for()
    one.page.locator("#lists", has_text="noted there").wait_for()
    size = one.page.locator("#size").input_value()
    tab.locator("#size").fill("3")
    other.settle(200)
    assert one.page.locator("#size").input_value() == size  # each shows what it likes
    one.page.close()
    tab.reload()
    assert "noted there" in other.text("#lists")
    assert tab.locator("#size").input_value() == "3"


def test_a_group_has_nothing_of_another_that_was(made: dict[str, Any], open_page: Any) -> None:
    opened = open_page(made["circuit"])
    page = opened.page

    def group(name: str, *members: str) -> None:
        for member in members:
            opened.node(member).click(modifiers=["Shift"])
        opened.press("g")
        page.locator("#answer").fill(name)
        opened.press("Enter")

    group("a2.h7", "m0", "m1")  # called like a node
    assert "meaning" not in opened.text("#panel")
    page.locator("#panel textarea").fill("what it does")
    opened.press("Escape")
    opened.press("p")
    assert "Pinned (1)" in opened.text("#lists")
    page.locator('#panel [data-key="ungroup"]').click()
    assert "Pinned" not in opened.text("#lists")
    assert "what it does" in opened.text("#lists")
    group("second", "m0", "m1")
    assert page.locator("#panel textarea").input_value() == ""
    # what is in a closed group is found all the same
    page.locator("#search").fill("m1")
    assert "(in second)" in opened.text("#found li >> nth=0")
    page.locator("#search").press("Enter")
    assert opened.text("#panel h3") == "m1"
    page.locator('#panel [data-key="close"]').click()
    assert opened.text("#panel h3") == "second"
    opened.press("p")
    opened.press("g")  # opens it
    group("third", "m0", "m1")  # takes all its members
    lists = opened.text("#lists")
    assert "third: 2 nodes" in lists
    assert "second" not in lists
    assert "Pinned" not in lists


def test_a_wide_graph_starts_where_its_strongest_node_is(open_page: Any) -> None:
    graph = sc.Graph(n_layers=3, n_heads=8, n_kv=8, positions=tuple(map(str, range(16))), causal=True)
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.mask
    values[list(graph.rows).index("a0.h0@0")] *= 3  # far from the middle
    opened = open_page(explore(sc.Scores(graph, values, torch.ones(2), None).greedy(300)))
    inside = [node for node in opened.data()["nodes"] if node["role"] not in ("input", "logits")]
    strongest = max(inside, key=lambda node: abs(node["s"]))["name"]
    box, pane = opened.node(strongest).bounding_box(), opened.page.locator("#pane-a").bounding_box()
    assert pane["x"] <= box["x"]
    assert box["x"] + box["width"] <= pane["x"] + pane["width"]
    assert box["height"] > 10  # large enough to be read
    opened.press("0")
    assert opened.node(strongest).bounding_box()["height"] < box["height"]


def test_large_circuits_are_drawn_whole(open_page: Any) -> None:
    """How fast a step is, benchmarks/explorer.py measures."""
    graph = sc.Graph(n_layers=23, n_heads=12, n_kv=12)
    values = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) ** 3 * graph.mask
    opened = open_page(explore(sc.Scores(graph, values, torch.ones(2), None), max_size=6300))
    page, sizes = opened.page, opened.data()["sizes"][0]
    assert sizes[-1] > 4000
    page.locator("#faint").fill("0")
    drawn = []
    for step in (len(sizes) - 1, len(sizes) // 2, 0):
        page.locator("#size").fill(str(step))
        assert f"{sizes[step]:,} " in opened.text("#readout")
        drawn.append(page.evaluate(DRAWN))
    assert drawn[0] > drawn[1] > drawn[2]
