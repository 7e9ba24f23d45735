"""The bundled tasks: prompt pairs generated for any tokenizer."""

from .agreement import AGREEMENT
from .base import BundledTask, Pairs, TooFewWords, Vocabulary, held_out
from .greater_than import GREATER_THAN
from .induction import INDUCTION
from .ioi import IOI
from .pronouns import PRONOUNS

BUNDLED: dict[str, BundledTask] = {task.name: task for task in (IOI, GREATER_THAN, *AGREEMENT, PRONOUNS, INDUCTION)}

__all__ = ["BUNDLED", "BundledTask", "Pairs", "TooFewWords", "Vocabulary", "held_out"]
