"""How many examples at a time: as asked for, or as many as fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.task import Prompts

Result = TypeVar("Result")


def check_batch_size(batch_size: Any) -> None:
    """
    Raises:
        InputError: for anything but a whole number of at least 1, or "auto".
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1
    if not whole and batch_size != "auto":
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1, or 'auto'.")


def with_batch_size(
    attempt: Callable[[int], Result], batch_size: int | str, anatomy: Anatomy, prompts: Prompts
) -> Result:
    """Run ``attempt`` with a batch size; with "auto" start at the largest that should fit, and halve it where memory runs out.

    An attempt that failed has left nothing behind, so the next starts afresh. Batches run from the longest prompts to the
    shortest, so memory that does not suffice shows at the first one.
    """
    if isinstance(batch_size, int):
        return attempt(batch_size)
    size = max(1, min(len(prompts), _should_fit(anatomy, max(prompts.n_positions))))
    while True:
        try:
            return attempt(size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not _out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = (size + 1) // 2


def _out_of_memory(error: BaseException) -> bool:
    # On CPU PyTorch raises a plain RuntimeError, which only its text tells from others.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def _should_fit(anatomy: Anatomy, n_pos: int) -> int:
    """Examples whose forward and backward pass should fit into half of the free memory."""
    width = 0
    for block in anatomy.blocks:
        hidden = 0 if block.mlp is None else block.mlp.d_mlp
        width += 16 * anatomy.d_model + 6 * hidden + block.attention.n_heads * n_pos
    return int(_free_bytes(anatomy.device) / 2 / (4 * n_pos * width))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        available = next((line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")), None)
        if available is not None:
            return int(available.split()[1]) * 1024
    return 4 << 30  # unknown; memory that runs out makes the batch smaller
