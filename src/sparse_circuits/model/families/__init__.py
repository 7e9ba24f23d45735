"""The model families known under TransformerBridge, one file each. A new family is a new file and a line here."""

from sparse_circuits.model.families.gpt2 import GPT2
from sparse_circuits.model.families.gpt_neox import GPT_NEOX
from sparse_circuits.model.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3

__all__ = ["FAMILIES"]

FAMILIES = (GPT2, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3)
