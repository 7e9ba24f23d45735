"""Plots of traces: what ablating all features at once does beside the sum of what each does, and two traces compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_circuits.view.plots.bars import SIGNS, Part, bar_panel, check_n
from sparse_circuits.view.plots.colours import CARRIES, NEUTRAL
from sparse_circuits.view.plots.comparison import comparison_panel, correlations
from sparse_circuits.view.plots.dots import Measure, dots_panel
from sparse_circuits.view.plots.intervals import of_mean
from sparse_circuits.view.plots.parts import Axis, Panel
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

if TYPE_CHECKING:
    from sparse_circuits.tracing import TraceComparison, Validation
    from sparse_circuits.tracing.validation import Moved


def plot_validation(
    validation: Validation, path: str | Path | None = None, *, n: int = 15, title: str | None = None
) -> Plot:
    """What each traced feature alone does to the metric, what all at once do, and what that changes downstream.

    Below the features' own bars stand the sum of these and the change when all are ablated at once. Then the features and
    the tokens' logits that change most, when all are ablated at once and as the sum of the separate changes.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        n: how many features, and tokens, are shown at most.
        title: instead of the task's name and the ablation.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_n("Validation", n)
    effects = validation.separate.double().mean(1)
    order = effects.abs().argsort(descending=True, stable=True)[:n].tolist()
    intervals = of_mean(validation.separate[order].T)
    parts = [
        Part(validation.names[i], float(effects[i]), None if intervals is None else intervals[at])
        for at, i in enumerate(order)
    ]
    for name, value, bounds in (
        (f"sum of all {len(validation.names):,}", validation.separate_sum, validation.separate_interval),
        ("all at once", validation.change, validation.change_interval),
    ):
        parts.append(Part(name, value, None if intervals is None else bounds))
    panels = [bar_panel(parts, f"change of {validation.metric}", title="each feature alone, their sum, all at once")]
    for what, label, moved in (
        ("features downstream", "change of activation, summed over tokens", validation.features),
        ("logits at the last token", "change, less the mean change of all logits", validation.tokens),
    ):
        if moved:
            panels.append(_moved(what, label, moved[:n]))
    features = f"{len(validation.names):,} traced feature{'s' * (len(validation.names) != 1)}"
    known = f"{features} ablated: {validation.task}, {validation.ablation} ablation"
    n_examples = len(validation.clean)
    over = (
        f"bars: 95% bootstrap interval over {n_examples:,} examples" if n_examples > 1 else "one example: no intervals"
    )
    note = f"{over}; {SIGNS}"
    return finished(Plot(known if title is None else title, tuple(panels), note), path)


def plot_trace_comparison(
    comparison: TraceComparison, path: str | Path | None = None, *, title: str = "Two traces"
) -> Plot:
    """Effects that both traces know, one against the other: of features, of edges, and of edges into the logits,
    as far as they have any of these in common.

    Args:
        path: where to save it too; see :meth:`Plot.save`.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    panels, notes = [], []
    for kind in ("nodes", "edges", "logits"):
        both = getattr(comparison, kind)
        if kind != "nodes" and not both.names:
            continue
        panels.append(comparison_panel(both, kind if kind != "logits" else "edges into the logits", (4.6, 4.4)))
        notes.append(f"{kind}: {correlations(both)}")
    return finished(Plot(title, tuple(panels), "; ".join(notes), columns=len(panels)), path)


def _moved(what: str, label: str, moved: Sequence[Moved]) -> Panel:
    measures = (
        Measure("all at once", tuple(one.together for one in moved), CARRIES, "circle"),
        Measure("sum of the separate changes", tuple(one.separate for one in moved), NEUTRAL, "square"),
    )
    return dots_panel([one.name for one in moved], measures, Axis(label), title=what)
