"""Where a result comes from: recorded with everything that is saved."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sparse_circuits.task.task import Task


def model_id(model: Any) -> str:
    """The name under which a model was loaded, as far as it knows."""
    name = getattr(model, "sparse_circuits_id", None)
    config = getattr(getattr(model, "original_model", None), "config", None)
    return str(name or getattr(config, "_name_or_path", "") or getattr(model.cfg, "model_name", "") or "unnamed")


def provenance(model: Any, task: Task, **more: Any) -> dict[str, Any]:
    """Model, task and library versions, as JSON-ready values."""
    return {
        "model": model_id(model),
        "model_class": type(model).__name__,
        "revision": revision_of(model),
        "task": task.name,
        "task_hash": task.hash,
        "metric": type(task.metric).__name__,
        "versions": versions(),
        **more,
    }


def versions() -> dict[str, str]:
    from sparse_circuits import __version__

    others = {name: _version(name) for name in ("torch", "transformer-lens", "transformers")}
    return {"sparse-circuits": __version__, **others}


@cache  # of a small model, reading them takes a third of the time of an attribution
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def revision_of(model: Any) -> str | None:
    """Of a hub model its commit, of an edited one what was edited; None for one without."""
    return getattr(model, "sparse_circuits_revision", None)
