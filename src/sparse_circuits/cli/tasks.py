"""``sparse-circuits tasks``: what can be asked of a model."""

from __future__ import annotations

from sparse_circuits.cli import output

EXAMPLES = ("tasks",)


def tasks() -> None:
    """List the bundled tasks, and the files that can be used instead."""
    from sparse_circuits.task.bundled import BUNDLED

    output.line("Bundled tasks, generated for any tokenizer (--task NAME):")
    output.pairs((f"  {task.name}", task.summary) for task in BUNDLED.values())
    output.line()
    output.line("Files of prompt pairs (--task FILE):")
    output.pairs(
        [
            ("  .csv", "columns clean, corrupted, correct, incorrect (clean and correct will do);"),
            ("", "EAP-IG's: clean, corrupted, and label (a two-digit year)"),
            ("", "or correct_idx and incorrect_idx (token ids)"),
            ("  .jsonl", "fields clean, corrupted, correct, incorrect;"),
            ("", "feature-circuits': clean_prefix, patch_prefix, clean_answer, patch_answer"),
        ]
    )
