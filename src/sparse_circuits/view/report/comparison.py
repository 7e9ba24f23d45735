"""How good circuits of other sizes, random ones and those of other methods are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sparse_circuits.evaluation.bootstrap import interval, median
from sparse_circuits.evaluation.curve import Curve
from sparse_circuits.view.curve import plot_curve
from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.inline import plotted
from sparse_circuits.view.report.markup import Html, Piece, bounded, join, more, table, tag

if TYPE_CHECKING:
    from sparse_circuits.evaluation import Baseline


def comparison(g: Given) -> Html:
    if not g.judged:
        return tag(
            "p",
            f"Faithfulness is undefined at every size, so that nothing can be compared: {g.unchanged}.",
            class_="missing",
        )
    if g.curve is None:
        return tag("p", "Other sizes were not evaluated. ", g.missing.get("curve"), class_="missing")
    return join(tag("p", _words(g)), _drawn(g, g.curve), _areas(g, g.curve), more("The numbers", _numbers(g, g.curve)))


def _words(g: Given) -> str:
    text = (
        f"Circuits of every size, chosen from the same scores and run on {g.prompts}, the rest replaced by {g.ablated}. A "
        "method is the better the sooner its curve rises to 1."
    )
    if g.random:
        draws = len(g.random[0].evaluations)
        same = "have as many active features per site" if g.of_features else "are connected circuits of the same size"
        if g.circuit.graph.level not in ("edges", "features"):
            same = "hold the same of the input, and as much of the rest"
        text += f" Random ones {same}, {draws} for each size."
    elif g.baseline is not None:
        text += f" The single mark is of {len(g.baseline.evaluations)} random ones as large as this circuit."
    return text


def _drawn(g: Given, curve: Curve) -> Html:
    about = "Faithfulness against the size of the circuit; the numbers are in the table below."
    drawn = plot_curve(
        curve,
        baseline=list(g.random) or g.baseline,
        beside=g.beside,
        title="Faithfulness against size",
        name=g.own,
    )
    return plotted(drawn, "curve", about, g.interactive)


def _numbers(g: Given, curve: Curve) -> Html:
    asked = not g.of_features  # of these as many are chosen as are asked for
    columns = ["asked for", "size", g.own] if asked else ["size", g.own]
    random = {baseline.size: baseline for baseline in g.random}
    columns += [*g.beside, *(["random, median"] if random else [])]
    rows = []
    sizes = sorted({*curve.requested, *(n for other in g.beside.values() for n in other.requested)})
    own = dict(zip(curve.requested, curve.evaluations, strict=True))
    others = [dict(zip(other.requested, other.evaluations, strict=True)) for other in g.beside.values()]
    for n in sizes:
        row: list[Piece] = [f"{n:,}"]
        if asked:
            row.append(f"{own[n].circuit.size:,}" if n in own else "")
        for found in (own, *others):
            row.append(bounded(found[n].faithfulness, found[n].faithfulness_interval) if n in found else "")
        if random:
            baseline = random.get(own[n].circuit.size) if n in own else None
            row.append("" if baseline is None else bounded(baseline.median, baseline.interval))
        rows.append(row)
    return table("Faithfulness, with its 95% interval", columns, rows)


def _areas(g: Given, curve: Curve) -> Html:
    rows: list[Sequence[Piece]] = [_area(name, one) for name, one in {g.own: curve, **g.beside}.items()]
    if g.random:
        rows.append(_random_area(g.random, curve))
    note = tag(
        "p",
        "Sizes count as shares of all that each method chose from. The area is 1 for a method whose every circuit is as good as "
        "the model; its distance from 1 also counts against a circuit that does more than the model.",
        class_="note",
    )
    return join(table("Area under the curve", ["", "area", "area between it and 1"], rows), note)


def _area(name: str, curve: Curve) -> list[Piece]:
    return [name, bounded(curve.area, curve.area_interval, 3), bounded(curve.distance, curve.distance_interval, 3)]


def _random_area(random: Sequence[Baseline], curve: Curve) -> list[Piece]:
    """The median over draws, each draw's circuits of all sizes taken together, and the central 95% of the draws."""
    by_size = {baseline.size: baseline for baseline in random}
    pairs = zip(curve.requested, curve.evaluations, strict=True)
    there = [(asked, by_size[e.circuit.size]) for asked, e in pairs if e.circuit.size in by_size]
    drawn = [
        Curve(tuple(asked for asked, _ in there), tuple(one.evaluations[i] for _, one in there), curve.total)
        for i in range(min(len(one.evaluations) for _, one in there))
    ]
    found = (torch.tensor([getattr(one, what) for one in drawn]) for what in ("area", "distance"))
    middle = (bounded(median(values), interval(values), 3) for values in found)
    return ["random, median of draws", *middle]
