"""Every benchmark and the tables made of them: `python benchmarks/run.py` (about an hour on four cores).

Where a GPU is at hand, the cost is measured there too, and the table says on which.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
JOBS = {
    "quality": ["--examples", "32"],
    "quadrature": ["--examples", "100", "--steps", "2", "3", "4", "5", "7", "10"],
    "cost": ["--large"],
    "features": ["--picture", str(HERE.parent / "docs" / "feature_attribution.png")],
    "contexts": [],
    "explorer": [],  # needs Playwright and a Chromium
}


def main() -> None:
    for name, options in JOBS.items():
        out = HERE / "results" / f"{name}.json"
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options, "--json", str(out)], check=True)
    if torch.cuda.is_available():
        out = HERE / "results" / "cost-gpu.json"
        subprocess.run([sys.executable, str(HERE / "cost.py"), "--device", "cuda", "--json", str(out)], check=True)
    subprocess.run([sys.executable, str(HERE / "readme.py")], check=True)


if __name__ == "__main__":
    main()
