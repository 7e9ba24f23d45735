"""Write the README's tables from the figures in benchmarks/results: `python benchmarks/readme.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def quality(table: dict[str, dict[str, float]], steps: int = 5) -> str:
    """A row per task, a column per method; the best of each row in bold."""
    columns = {"EAP": "EAP", "CleanCorrupted": "CleanCorrupted"}
    columns |= {key: key.split(" ", 1)[1] for key in next(iter(table.values())) if key.startswith(f"{steps} ")}
    lines = ["| task | " + " | ".join(columns.values()) + " |", "|---|" + "---:|" * len(columns)]
    for task, row in table.items():
        best = max(row[key] for key in columns)
        cells = (f"**{row[key]:.3f}**" if row[key] == best else f"{row[key]:.3f}" for key in columns)
        lines.append(f"| {task} | {' | '.join(cells)} |")
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
