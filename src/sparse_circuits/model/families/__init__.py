"""The model families known under TransformerBridge, one file each. A new family is a new file and a line here."""

from sparse_circuits.model.families.gemma import GEMMA, GEMMA2, GEMMA3
from sparse_circuits.model.families.gpt2 import GPT2
from sparse_circuits.model.families.gpt_neox import GPT_NEOX
from sparse_circuits.model.families.gptj import GPTJ
from sparse_circuits.model.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from sparse_circuits.model.families.olmo import OLMO, OLMO2
from sparse_circuits.model.families.phi import PHI, PHI3

__all__ = ["FAMILIES"]

FAMILIES = (
    GEMMA, GEMMA2, GEMMA3, GPT2, GPT_NEOX, GPTJ, LLAMA, MISTRAL, OLMO, OLMO2, PHI, PHI3, QWEN2, QWEN3,
)  # fmt: skip
