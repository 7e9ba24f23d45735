"""What ``trace`` prints, and what of it goes into the record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.contexts import PAGES
from sparse_circuits.cli.output import number
from sparse_circuits.cli.record import CIRCUIT
from sparse_circuits.cli.trace_record import TRACE, TRACE_RECORD, Slice

if TYPE_CHECKING:
    from sparse_circuits.tracing import Trace, TraceComparison, Validation
    from sparse_circuits.tracing.trace import TracedNode
    from sparse_circuits.tracing.validation import Moved

_SHOWN, _TOKENS = 10, 3


def results(trace: Trace) -> dict[str, Any]:
    """What the record says of a trace."""
    return {
        "features": len(trace.traced),
        "frontier": _by_site(trace.frontier),
        "edges": len(trace.edges),
        "effects": trace.to_dict(),
        "runs": list(trace.runs),
        "provenance": trace.provenance,
    }


def report(trace: Trace, of: Slice, before: Trace | None, out: Path) -> None:
    """Print what the last run found, briefly."""
    if before is not None and len(before.runs) == len(trace.runs):
        output.line("The trace has had this run before, so that nothing new is in it.")
        return
    run = trace.runs[-1]
    mine = [node for node in trace.traced if node.name in set(run["features"])]
    where = ", ".join(run["at"])
    what = f"{_counted(len(mine), 'feature')} of {where}"
    did = f"{what} ablated, each on its own ({of.ablation})" if of.form == "ablation" else f"{what} chosen by gradient"
    output.line(f"Run {len(trace.runs)} of the trace of {trace.provenance['task']} in {of.model}: {did},")
    effect = "m(ablated) - m(clean)" + (" to first order" if of.form == "gradient" else "")
    output.line(f"{trace.provenance['n_examples']} examples. An effect is {effect}: below 0, it carries the behaviour.")
    output.line()
    reach = Counter(edge.source for edge in trace.edges if edge.target != "logits")
    columns = ["strongest", "effect", "reaches"]
    rows = [[node.name, _effect(node), str(reach[node.name] or "logits")] for node in _strongest(mine)]
    if any(node.logits for node in mine):
        columns += ["ablated, raises", "lowers"]
        for row, node in zip(rows, _strongest(mine), strict=True):
            row += [_moved(node, 1), _moved(node, -1)]
    output.table(*columns, rows=rows, text=("strongest", "ablated, raises", "lowers"))
    output.line()
    edges = [edge for edge in trace.edges if edge.source in set(run["features"])]
    between = [edge for edge in edges if edge.target != "logits"][:_SHOWN]
    if between:
        output.table(
            "strongest edges",
            "changes it by",
            rows=[(e.name, number(e.effect)) for e in between],
            text=["strongest edges"],
        )
        output.line()
    frontier = _by_site(trace.frontier)
    waiting = ", ".join(f"{n} at {site}" for site, n in frontier.items()) or "none"
    forwards, backwards = run["passes"]
    grown = [] if before is None else [("before", f"{len(before.traced)} features, {len(before.edges):,} edges")]
    output.pairs(
        [
            ("trace", f"{len(trace.traced)} features, {len(trace.edges):,} edges, {_counted(len(trace.runs), 'run')}"),
            *grown,
            *([("reached", f"{waiting}, not yet ablated")] if of.form == "ablation" else []),
            ("cost", f"{forwards:,g} forward, {backwards:,g} backward passes a batch"),
            ("file", str(out / TRACE)),
            ("circuit", str(out / CIRCUIT)),
            ("picture", f"{out / 'trace.svg'}, trace.png, trace.dot"),
            *([("meanings", str(out / PAGES))] if (out / PAGES).is_file() else []),
            ("record", str(out / TRACE_RECORD)),
        ]
    )
    if of.form == "ablation":
        output.line()
        ahead = _ahead(trace, run["at"][-1])
        go_on = f"sparse-circuits trace --extend {out}" if ahead else f"sparse-circuits trace --validate {out}"
        output.line(f"Next: {go_on}" + (f"    (at {ahead})" if ahead else ""))


def report_validation(found: Validation, same: bool, path: Path) -> None:
    """Print what ablating everything at once does."""
    n, whose = len(found.clean), "that it was traced on" if same else "other than those it was traced on"
    output.line(
        f"All {_counted(len(found.names), 'traced feature')} ablated at once ({found.ablation}), on {n} examples of "
        f"{found.task} ({whose})."
    )
    output.line()
    rows = [
        (
            found.metric,
            number(float(found.clean.mean())),
            number(float(found.ablated.mean())),
            output.with_interval(found.change, found.change_interval),
            number(found.separate_sum),
        )
    ]
    if found.loss_clean is not None and found.loss_ablated is not None and found.loss_change is not None:
        rows.append(
            (
                f"loss of the {found.loss}",
                number(float(found.loss_clean.mean())),
                number(float(found.loss_ablated.mean())),
                output.with_interval(found.loss_change, found.loss_interval or (0, 0)),
                number(found.loss_separate_sum or 0.0),
            )
        )
    output.table("", "clean", "ablated", "change", "sum of separate", rows=rows, text=("", "change"))
    output.line()
    _table("logits that move most", found.tokens)
    if found.features:
        output.line()
        _table("features further down", found.features)
    output.line()
    low, high = found.interaction_interval
    output.pairs(
        [
            ("beyond the sum", f"{number(found.interaction)} [{number(low)}, {number(high)}]"),
            ("written", str(path)),
        ]
    )


def report_comparison(found: TraceComparison, folders: tuple[Path, Path], of: Slice) -> None:
    """Print how far two traces agree."""
    output.line(f"{folders[0]} ({found.nodes.label})")
    output.line(f"{folders[1]} ({found.nodes.other_label})")
    output.line()
    titles = {"nodes": "features", "edges": "edges between them", "logits": "edges into the logits"}
    rows = [
        (
            titles[kind],
            str(row["first"]),
            str(row["second"]),
            f"{row['shared']} ({row['overlap']:.0%})" if row["overlap"] == row["overlap"] else "0",
            *(f"{row[key]:.3f}" if row[key] == row[key] else "" for key in ("pearson", "spearman")),
            f"{row['same_sign']:.0%}" if row["same_sign"] == row["same_sign"] else "",
        )
        for kind, row in found.to_dict().items()
    ]
    output.table("", "first", "second", "in both", "Pearson", "Spearman", "same sign", rows=rows, text=("",))


def _table(title: str, moved: tuple[Moved, ...]) -> None:
    clean = any(one.clean is not None for one in moved)
    rows = [
        (
            one.name.strip() or repr(one.name),
            *([number(one.clean or 0.0)] if clean else []),
            number(one.together),
            number(one.separate),
        )
        for one in moved[:_SHOWN]
    ]
    output.table(title, *(["clean"] if clean else []), "change", "sum of separate", rows=rows, text=[title])


def _strongest(nodes: list[TracedNode]) -> list[TracedNode]:
    return sorted(nodes, key=lambda node: -abs(node.effect or 0.0))[: 2 * _SHOWN]


def _effect(node: TracedNode) -> str:
    return number(node.effect or 0.0)


def _moved(node: TracedNode, sign: int) -> str:
    tokens = [token.strip() or repr(token) for token, change in node.logits if change * sign > 0]
    return " ".join(tokens[:_TOKENS])


def _ahead(trace: Trace, last: str) -> str | None:
    """The next site with reached features, where the next run goes on by itself."""
    order = [place.name for place in trace.graph.places]
    found = sorted(
        {
            order.index(name.partition(".")[0])
            for name in trace.frontier
            if order.index(name.partition(".")[0]) > order.index(last)
        }
    )
    return order[found[0]] if found else None


def _by_site(names: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(name.partition(".")[0] for name in names))


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
