"""Whether gradients can be had at all."""

from __future__ import annotations

import torch

from sparse_circuits.errors import InputError


def check_gradients(who: str) -> None:
    """Refuse, before any pass, to take gradients where PyTorch records none, whatever it is asked for.

    Under ``torch.no_grad()`` there is nothing to refuse: gradients are turned on where they are taken.

    Raises:
        InputError: under ``torch.inference_mode()``.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            f"{who} takes gradients, and torch.inference_mode() allows none: call it outside, or under torch.no_grad() instead."
        )
