"""The bundled tasks: prompt pairs generated for any tokenizer."""

from sparse_circuits.task.bundled.agreement import AGREEMENT
from sparse_circuits.task.bundled.base import BundledTask, Pairs, TooFewWords, Vocabulary, held_out
from sparse_circuits.task.bundled.greater_than import GREATER_THAN
from sparse_circuits.task.bundled.induction import INDUCTION
from sparse_circuits.task.bundled.ioi import IOI
from sparse_circuits.task.bundled.pronouns import PRONOUNS

BUNDLED: dict[str, BundledTask] = {task.name: task for task in (IOI, GREATER_THAN, *AGREEMENT, PRONOUNS, INDUCTION)}

__all__ = ["BUNDLED", "BundledTask", "Pairs", "TooFewWords", "Vocabulary", "held_out"]
