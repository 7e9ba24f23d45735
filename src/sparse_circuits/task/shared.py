"""Which prompts tasks have in common."""

from __future__ import annotations

from typing import Any

from sparse_circuits.task.task import Task


def shared_prompts(task: Task, other: Task) -> int:
    """How many clean prompts of a task are another's too: of few words, two draws of a bundled task have some in common."""
    theirs = {_key(prompt) for prompt in other.clean}
    return sum(_key(prompt) in theirs for prompt in task.clean)


def _key(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else tuple(int(token) for token in prompt)
