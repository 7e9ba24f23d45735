"""The README says what is true: its Python runs as written, and its tables are the measured ones."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_python_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, of_features = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # the README's own lines
    assert names["scores"].to_dict()["a2.h4->logits"] < 0
    assert names["result"].faithfulness > 0.9
    if importlib.util.find_spec("sae_lens") is not None:  # which has no release for TransformerLens 4
        exec(compile(of_features, "README.md", "exec"), names)
        assert names["scores"].to_dict("nodes")["resid_3.f344"] < 0
        assert names["circuit"].size == 100
        assert "blocks.2.hook_mlp_out.hook_sae_acts_post" in names["cache"]
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"curve.svg", "circuit.svg", "circuit.safetensors", "circuit.json", "circuit.html"}


def test_tables_are_the_measured_ones() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))["tables"]()
    for path, found in tables.items():
        text = path.read_text()
        for marker, table in found.items():
            assert f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->" in text, f"{path.name}: {marker}"


def test_links_inside_the_project_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert all((ROOT / link).exists() for link in links), links
