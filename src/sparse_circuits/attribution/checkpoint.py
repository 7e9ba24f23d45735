"""Long training, interrupted and taken up again: its state in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.files import write
from sparse_circuits.errors import FileFormatError, InputError

_KIND = "training"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands, and which run it is.

    Attributes:
        path: the file.
        run: what makes the run, as JSON-ready values: options, graph, prompts.
        known: tensors that tell the run from others, up to rounding (what the model does on the prompts).
    """

    path: Path
    run: dict[str, Any]
    known: dict[str, Tensor]

    def save(self, step: int, state: dict[str, Tensor]) -> None:
        """Write the state after so many steps, in one step: an interrupt leaves the file before or the one after."""
        tensors = {f"state.{k}": v for k, v in state.items()} | {f"known.{k}": v for k, v in self.known.items()}
        write(self.path, _KIND, {"run": self.run, "step": step}, tensors)

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """Steps done and the state after them; None if there is no file yet.

        Raises:
            FileFormatError: for a file that is damaged, or something else. InputError: for one of another run, or a folder
                that does not exist.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.parent.is_dir():
            raise InputError(f"The checkpoint {self.path} cannot be written: there is no folder {self.path.parent}.")
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("sparse_circuits", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise FileFormatError(f"{self.path} is damaged, or not a safetensors file ({error}).") from None
        if not isinstance(header, dict) or header.get("format") != _KIND:
            raise FileFormatError(f"{self.path} is not a checkpoint of sparse-circuits.")
        self._compare(header.get("run"), tensors)
        state = {name.removeprefix("state."): x for name, x in tensors.items() if name.startswith("state.")}
        if not isinstance(header.get("step"), int) or not state:
            raise FileFormatError(f"{self.path} holds no state; the file is damaged.")
        return header["step"], state

    def _compare(self, run: Any, tensors: dict[str, Tensor]) -> None:
        run = run if isinstance(run, dict) else {}
        here = json.loads(json.dumps(self.run))
        differ = [key for key in here if run.get(key) != here[key]]
        differ += [name for name, x in self.known.items() if not _close(tensors.get(f"known.{name}"), x)]
        if differ:
            values = "; ".join(
                f"{key}: {run[key]!r} there, {here[key]!r} here" for key in differ if key in run and key in here
            )
            raise InputError(
                f"The checkpoint {self.path} belongs to another run: {', '.join(differ)} differ{'s' * (len(differ) == 1)}"
                f"{f' ({values})' if values and len(values) < 300 else ''}. Remove the file, or give another path."
            )


def _close(there: Tensor | None, here: Tensor) -> bool:
    if there is None or there.shape != here.shape:
        return False
    return torch.allclose(there, here.cpu(), rtol=1e-3, atol=1e-4, equal_nan=True)
