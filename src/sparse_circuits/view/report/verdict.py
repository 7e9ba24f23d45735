"""The verdict: in a few sentences, how far the circuit can be believed."""

from __future__ import annotations

from sparse_circuits.view.report.given import Given
from sparse_circuits.view.report.markup import Html, bounded, counted, join, number, share, tag


def verdict(g: Given) -> Html:
    sentences = [_faithful(g), _random(g), _rest(g), _unexplained(g)]
    doubts = [tag("li", doubt) for doubt in _doubts(g)]
    found = tag("p", join(*sentences, by=" "), class_="lead")
    return join(found, tag("ul", *doubts, class_="doubts") if doubts else None)


def _faithful(g: Given) -> Html:
    e = g.evaluation
    size = join(tag("strong", g.size), " of the model")
    if not g.judged:
        return join("The circuit is ", size, ". How faithful it is cannot be said: on ", g.prompts, f", {g.unchanged}.")
    value = tag("strong", bounded(e.faithfulness, e.faithfulness_interval))
    rest = "everything else at its sites" if g.of_features else "everything else"
    return join(
        "The circuit is ", size, f". With {rest} replaced by {g.ablated}, its faithfulness is ", value,
        f" on {g.prompts} (1 is the whole model, 0 is none of the circuit; in brackets the 95% interval).",
    )  # fmt: skip


def _random(g: Given) -> Html | None:
    if g.baseline is None or not g.judged:
        return None
    what = "random active features at the same sites" if g.of_features else "random circuits"
    draws = f"median of {len(g.baseline.evaluations)}"
    parts = [f"As many {what} reach ", tag("strong", _plain(g.baseline.median)), f" ({draws})"]
    if not g.of_features:
        parts[0] = "Random circuits of the same size reach "
    neurons = g.policies.get("neurons")
    if neurons is not None:
        parts.append(
            f", and {counted(neurons.circuit.size, 'neuron')} of the same sites {_plain(neurons.faithfulness)}"
        )
    return join(*parts, ".")


def _rest(g: Given) -> Html | None:
    e = g.evaluation
    if e.completeness is None or e.completeness_interval is None or e.completeness != e.completeness:
        return None
    value = tag("strong", bounded(e.completeness, e.completeness_interval))
    return join("Everything but the circuit reaches ", value, " (completeness; lower is better).")


def _unexplained(g: Given) -> Html | None:
    e = g.evaluation
    gap, missing = 1 - e.faithfulness, float((e.clean - e.per_example).double().mean())
    if gap != gap:
        return None
    of = number(float((e.clean - e.empty).double().mean()))
    if round(gap, 2) < 0:
        return join(
            "It does ", tag("strong", share(-gap)), f" more than the whole model ({number(-missing)} beyond {of})."
        )
    if gap > 1:
        return join(
            tag("strong", "Nothing"),
            f" of the behaviour is explained: with the circuit alone it lacks {number(missing)} of {of}.",
        )
    if round(gap, 2) == 0:
        return join("Less than ", tag("strong", "1%"), " of the behaviour is not explained, on average over prompts.")
    return join("Not explained: ", tag("strong", share(gap)), f" of the behaviour ({number(missing)} of {of}).")


def _doubts(g: Given) -> list[str]:
    """What a careful reader would object."""
    e, found = g.evaluation, []
    if g.shared_prompts and g.judged:
        part = "All" if g.shared_prompts == g.n else f"{g.shared_prompts:,}"
        found.append(
            f"{part} of these prompts are those that the circuit was found on, so that its faithfulness on others may be lower."
        )
    low, high = e.faithfulness_interval
    if high < 0:
        found.append(
            "On its own the circuit works against the behaviour: the metric is lower than with everything replaced."
        )
    elif high < 0.5:
        found.append(
            "Most of the behaviour is missing: a larger circuit, or other parts, would be needed to explain it."
        )
    elif low > 1:
        found.append("It does more than the whole model: parts that hold the behaviour back were left out.")
    if high - low > 0.5:
        found.append("The interval is wide: on so few or so different prompts little can be said.")
    if g.baseline is not None and e.faithfulness_interval[0] <= g.baseline.interval[1]:
        found.append("Some random circuits of the same size do as well: the choice of its parts has shown nothing.")
    if e.completeness is not None and e.completeness > 0.5:
        found.append("Most of the behaviour survives without the circuit: other parts can carry it too.")
    if e.start_layer:
        found.append(f"Everything before layer {e.start_layer} was left as it is, and is not explained by the circuit.")
    ablated = g.policies.get("remove")
    if e.errors == "nodes" and ablated is not None and e.faithfulness - ablated.faithfulness > 0.1:
        found.append(
            f"Without its error terms it reaches {_plain(ablated.faithfulness)}: a part of the behaviour goes through what no "
            "feature explains."
        )
    if e.errors == "keep":
        found.append("All error terms kept their values, so that what no feature explains did its part.")
    return found


def _plain(value: float) -> str:
    return "an undefined value" if value != value else f"{value:z.2f}"
