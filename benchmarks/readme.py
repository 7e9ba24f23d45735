"""Write the tables of README.md and docs/benchmarks.md from the figures in benchmarks/results: `python benchmarks/readme.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = "EAPIG(5, left)"


def quality(figures: dict[str, Any]) -> str:
    """A row per method: means over the tasks, each with its interval."""
    methods = figures["methods"]
    n_tasks = len(methods[REFERENCE]["tasks"])
    lines = [
        "| method | passes: forward + backward | Pearson with exact | Spearman | area under the curve | its distance from 1 "
        f"| better than {REFERENCE} | ROC, planted |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in methods.items():
        forward, backward = row["passes"]
        cells = [f"{forward:.3g} + {backward:.3g}"]
        cells += [with_interval(row["mean"][key]) for key in ("pearson", "spearman", "area", "distance")]
        better = "" if name == REFERENCE else f"{row['better']} of {n_tasks}"
        lines.append(f"| {name} | {' | '.join(cells)} | {better} | {row['roc']:.2f} |")
    return "\n".join(lines)


def by_task(figures: dict[str, Any], key: str) -> str:
    """A row per method, a column per task."""
    methods = figures["methods"]
    tasks = list(methods[REFERENCE]["tasks"])
    lines = [f"| {key} | {' | '.join(tasks)} |", "|---|" + "---:|" * len(tasks)]
    for name, row in methods.items():
        cells = (with_interval(row["tasks"][task][key]) for task in tasks)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def quadrature(table: dict[str, dict[str, float]], steps: int = 5) -> str:
    """A row per task at one number of steps, then the means at all of them; the best of each row in bold."""
    rules = list(dict.fromkeys(key.split(" ", 1)[1] for key in table["mean"] if " " in key))
    counts = sorted({int(key.split(" ", 1)[0]) for key in table["mean"] if " " in key})
    rows = {
        task: [row["EAP"], row["CleanCorrupted"], *(row[f"{steps} {rule}"] for rule in rules)]
        for task, row in table.items()
        if task != "mean"
    }
    ends = [table["mean"]["EAP"], table["mean"]["CleanCorrupted"]]
    means = {n: [table["mean"][f"{n} {rule}"] for rule in rules] for n in counts}
    rows |= {f"mean of tasks, {n} steps": ends + values for n, values in means.items()}
    over = [sum(values) / len(counts) for values in zip(*means.values(), strict=True)]
    rows[f"mean of tasks and of {counts[0]} to {counts[-1]} steps"] = ends + over
    lines = [
        f"| {steps} steps | EAP | CleanCorrupted | " + " | ".join(rules) + " |",
        "|---|" + "---:|" * (2 + len(rules)),
    ]
    for name, values in rows.items():
        cells = (f"**{v:.4f}**" if v == max(values) else f"{v:.4f}" for v in values)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost(by_device: list[dict[str, Any]]) -> str:
    """A row per figure, a column per device."""
    lines = [f"| | {' | '.join(d['device'] for d in by_device)} |", "|---|" + "---:|" * len(by_device)]
    for name in by_device[0]["figures"]:
        values = (d["figures"].get(name) for d in by_device)
        cells = (
            "" if v is None else f"{v:,.0f}" if v >= 100 else f"{v:.2f}" if abs(v) >= 0.01 else f"{v:.1e}"
            for v in values
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def feature_edges(curve: list[dict[str, float]]) -> str:
    """A row per number of downstream nodes."""
    lines = [
        "| downstream nodes | seconds | times faster than the plain loop | largest difference, share of the largest edge |",
        "|---:|---:|---:|---:|",
    ]
    for row in curve:
        faster = f"{row['times faster']:.1f}" if "times faster" in row else ""
        difference = f"{row['largest difference']:.1e}" if "largest difference" in row else ""
        lines.append(f"| {row['nodes']:,} | {row['seconds']:.2f} | {faster} | {difference} |")
    return "\n".join(lines)


def explorer(figures: dict[str, Any]) -> str:
    """A row per view of the page: milliseconds for one step of the slider."""
    columns = [f"{which}_{how}_ms" for which in ("largest_circuit", "all_sizes") for how in ("median", "worst")]
    lines = [
        "| ms for one step | to the largest circuit: median | worst | to any size: median | worst |",
        "|---|" + "---:|" * len(columns),
    ]
    rows = {"one_circuit": "one circuit of 5,000 edges", "side_by_side": "two circuits of 2,000 edges side by side"}
    for key, name in rows.items():
        cells = (f"{figures[key][column]:.0f}" for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> dict[Path, dict[str, str]]:
    """Every table by the file and the marker that it stands between."""
    figures, rules = (json.loads((RESULTS / f"{n}.json").read_text()) for n in ("quality", "quadrature"))
    features, contexts, page = (
        json.loads((RESULTS / f"{n}.json").read_text()) for n in ("features", "contexts", "explorer")
    )
    by_device = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("cost*.json"))]
    costs = by_device[0]["figures"]
    per_task = {key: by_task(figures, key) for key in ("pearson", "spearman", "area", "distance")}
    short = {name: value for name, value in costs.items() if "/ its bare passes" in name and "(d_model" not in name}
    short |= {name: value for name, value in costs.items() if name.startswith(("RelP", "10 circuits", "Exact"))}
    return {
        ROOT / "README.md": {
            "quality": quality(figures),
            "cost": cost([{"device": by_device[0]["device"], "figures": short}]),
        },
        ROOT / "docs" / "benchmarks.md": {
            **per_task,
            "quadrature": quadrature(rules),
            "cost": cost(by_device),
            "feature-edges": feature_edges(features["edges"]["curve"]),
            "features": cost([features]),
            "contexts": cost([contexts]),
            "explorer": explorer(page),
        },
    }


def fill(text: str, marker: str, table: str) -> str:
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{table}\n{end}{after}"


def main() -> None:
    for path, found in tables().items():
        text = path.read_text()
        for marker, table in found.items():
            text = fill(text, marker, table)
        path.write_text(text)


if __name__ == "__main__":
    main()
