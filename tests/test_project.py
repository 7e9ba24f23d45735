"""The house rules: what importing costs, which room may import which, what is public and documented."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparse_circuits

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "sparse_circuits"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Who may import whom: every room only those above it in this list, and itself.
ROOMS = (
    "errors",
    "model",
    "task",
    "progress",
    "provenance",
    "dictionary",
    "graph",
    "circuit",
    "attribution",
    "evaluation",
    "features",
    "tracing",
    "view",
    "zoo",
    "cli",
)
# Rooms that those above may import inside a function, when asked for what lies there: pictures, the bundled model.
LAZY = {"view", "zoo"}

PUBLIC = [
    "ACDC",
    "Ablation",
    "AtPStar",
    "AttributionGraph",
    "Baseline",
    "Batch",
    "ByAblation",
    "ByGradient",
    "Circuit",
    "CleanCorrupted",
    "Comparison",
    "Context",
    "Contributions",
    "CrossEntropy",
    "Curve",
    "Dictionaries",
    "Dictionary",
    "EAP",
    "EAPIG",
    "EdgePruning",
    "Evaluation",
    "Exact",
    "Feature",
    "FeatureCircuit",
    "FeatureGraph",
    "FeatureScores",
    "FeatureStore",
    "FileFormatError",
    "Graph",
    "HeadReport",
    "InformationFlowRoutes",
    "InputError",
    "Labels",
    "LogProb",
    "LogitDiff",
    "MIBEntry",
    "Method",
    "NegativeKL",
    "Page",
    "Plot",
    "ProbDiff",
    "RelP",
    "Scores",
    "Similar",
    "SparseCircuitsError",
    "Stability",
    "Task",
    "Trace",
    "TraceComparison",
    "TracedEdge",
    "TracedNode",
    "UnsupportedModelError",
    "__version__",
    "ablate_features",
    "attribute",
    "collect_contexts",
    "contributions",
    "evaluate",
    "evaluate_baseline",
    "evaluate_many",
    "explore",
    "faithfulness_curve",
    "feature_pages",
    "head_report",
    "load_dictionaries",
    "load_model",
    "load_task",
    "neuronpedia_url",
    "promoted",
    "random_baseline",
    "read_mib",
    "report",
    "similar",
    "splice",
    "Validation",
    "trace",
    "validate_trace",
    "write_mib",
]


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import sys, sparse_circuits; dir(sparse_circuits); print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "torch", "numpy", "transformers", "transformer_lens", "sae_lens", "matplotlib", "plotly", "networkx", "rich", "typer",
    }  # fmt: skip
    assert not heavy & set(done.stdout.split())


def test_public_names_are_pinned() -> None:
    assert sorted(sparse_circuits.__all__) == sorted(PUBLIC)
    assert sorted(dir(sparse_circuits)) == sorted(PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sparse_circuits.nonsense


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    value = getattr(sparse_circuits, name)
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    # A dataclass without a docstring gets its signature for one.
    assert not own.startswith(f"{name}(")


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Modules imported by a file as full names, whether inside a function, and the line."""
    package = ["sparse_circuits", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from sparse_circuits import zoo" imports a room too.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "sparse_circuits" else [module]
        else:
            continue
        yield from ((name, id(node) in inside, node.lineno) for name in names)


def test_every_room_is_in_the_plan() -> None:
    assert {_room(path) for path in MODULES} - {"__init__", "__main__"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_depend_downwards_only(room: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    wrong = []
    for path in MODULES:
        if _room(path) != room:
            continue
        for name, lazy, line in _imports(path):
            parts = name.split(".")
            if parts[0] != "sparse_circuits" or len(parts) < 2 or parts[1] not in ROOMS:
                continue
            if parts[1] not in allowed | (LAZY if lazy else set()):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_dependencies_are_declared_and_pinned() -> None:
    """Everything imported is declared in pyproject.toml, and everything declared has one exact version to test with.

    SAELens, an extra, has none beside TransformerLens 4.
    """
    imported = {name.split(".")[0] for path in MODULES for name, _, _ in _imports(path)}
    imported -= {*sys.stdlib_module_names, "sparse_circuits"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared, extra = (
        {re.split(r"[<>=!~\[ ]", line, maxsplit=1)[0] for line in lines}
        for lines in (project["dependencies"], project["optional-dependencies"]["saes"])
    )
    assert {name.replace("_", "-") for name in imported} <= declared | extra
    assert extra <= set(_pins(ROOT / "requirements" / "main.txt"))
    for files in (("torch", "main"), ("torch", "tl4")):
        assert declared <= {name for file in files for name in _pins(ROOT / "requirements" / f"{file}.txt")}


def _pins(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            yield from _pins(path.parent / line[3:].strip())
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, f"{path.name}: {line} is not pinned"
            yield name.split("[")[0]


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_no_file_prints_or_asserts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error instead"
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not called, "print is no way to talk to users of a library"
    assert ast.get_docstring(tree), "every file says what it is for"
