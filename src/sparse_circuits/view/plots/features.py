"""Plots of what a feature or a head is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_circuits.errors import InputError
from sparse_circuits.view.plots.bars import Part, bar_panel, check_n
from sparse_circuits.view.plots.colours import NEUTRAL
from sparse_circuits.view.plots.heatmap import heatmap
from sparse_circuits.view.plots.histogram import counted
from sparse_circuits.view.plots.parts import Axis, Bars, Panel, shown
from sparse_circuits.view.plots.plot import Plot, check_plot_path, finished

if TYPE_CHECKING:
    from sparse_circuits.features import Feature, HeadReport

_WIDEST = 11.0  # inches, of two panels beside each other


def plot_feature(feature: Feature, path: str | Path | None = None, *, n: int = 8, title: str | None = None) -> Plot:
    """A histogram of the values where it fires, and the tokens that it promotes and suppresses.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        n: tokens of each kind at most.
        title: instead of its name and label.

    Raises:
        InputError: for an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_n("Feature", n)
    panels = [_activations(feature)]
    tokens = [*feature.promoted[:n], *reversed(feature.suppressed[:n])]
    if tokens:
        parts = [Part(shown(token) or "(empty)", value) for token, value in tokens]
        panels.append(
            bar_panel(parts, "change of logits by one unit", signed=False, title="tokens it moves", width=5.2)
        )
    known = feature.name + (f": {feature.label}" if feature.label else "")
    note = f"fires on {feature.fired:,} of {feature.tokens:,} tokens ({feature.density:.3%}), mean {feature.mean:.3g}"
    return finished(Plot(known if title is None else title, tuple(panels), note, columns=2), path)


def _activations(feature: Feature) -> Panel:
    """The bins grow by a factor, so each is as wide as the others."""
    edges, counts = feature.bin_edges, feature.bin_counts
    n = len(counts)
    texts = (f"{a:.3g} to {b:.3g}\n{c:,} tokens" for a, b, c in zip(edges, edges[1:], counts, strict=False))
    bars = Bars(
        tuple(i + 0.5 for i in range(n)),
        tuple(map(float, counts)),
        tuple(texts),
        (NEUTRAL,) * n,
        flat=False,
        width=0.94,
    )
    ticks = tuple((float(i), f"{edge:.2g}") for i, edge in enumerate(edges))
    axis = Axis("|value|", ticks=ticks, limits=(-0.1, max(n, 1) + 0.1))
    return Panel(axis, counted("tokens", counts), (bars,), title="values where it fires", size=(5.4, 3.8))


def plot_head(
    report: HeadReport, path: str | Path | None = None, *, prompts: int = 4, title: str | None = None
) -> Plot:
    """Attention patterns: from each token (row) to each token that it looks at (column), on a scale from 0 to 1.

    Args:
        path: where to save it too; see :meth:`Plot.save`.
        prompts: how many are drawn at most.
        title: instead of the head's name.

    Raises:
        InputError: for a report without patterns, or an ending that is not known.
    """
    if path is not None:
        check_plot_path(path)
    check_n("HeadReport", prompts)
    if not report.prompts:
        raise InputError(
            "HeadReport.plot(): the report has no patterns; ask for some with head_report(..., prompts=4)."
        )
    panels = []
    for i, prompt in enumerate(report.prompts[:prompts]):
        tokens = [shown(token) for token in prompt.tokens]
        panels.append(
            heatmap(
                prompt.pattern,
                tokens,
                tokens,
                lambda row, column, tokens=tokens: f"{row}: {tokens[row]}\nlooks at {column}: {tokens[column]}",
                label="attention",
                signed=False,
                x="looked at",
                y="from",
                title=f"prompt {i}",
                full=1.0,
                cell=(0.24, 0.24),
            )
        )
    looks = ", ".join(f"{shown(token)!r} {share:.0%}" for token, share in report.looks_at[:5])
    note = f"the last token looks at {looks} (mean over all prompts)" if looks else ""
    columns = 2 if len(panels) > 1 and 2 * max(panel.size[0] for panel in panels) <= _WIDEST else 1
    title = f"Attention of {report.name}" if title is None else title
    return finished(Plot(title, tuple(panels), note, columns=columns), path)
