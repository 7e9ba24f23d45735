"""Write the README's tables from the figures in benchmarks/results: `python benchmarks/readme.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def quality(table: dict[str, dict[str, float]], steps: int = 5) -> str:
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


def cost(figures: dict[str, float]) -> str:
    """A row per figure."""
    lines = ["| | |", "|---|---:|"]
    lines += [
        f"| {name} | {value:,.0f} |" if value >= 100 else f"| {name} | {value:.2f} |" for name, value in figures.items()
    ]
    return "\n".join(lines)


def fill(text: str, marker: str, table: str) -> str:
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{table}\n{end}{after}"


def main() -> None:
    readme = ROOT / "README.md"
    text = fill(readme.read_text(), "quality", quality(json.loads((RESULTS / "quality.json").read_text())))
    readme.write_text(fill(text, "cost", cost(json.loads((RESULTS / "cost.json").read_text()))))


if __name__ == "__main__":
    main()
