"""Which family a Hugging Face configuration belongs to, and whether the family explains all of it."""

from __future__ import annotations

from typing import Any

from sparse_circuits.errors import UnsupportedModelError
from sparse_circuits.model.families import FAMILIES
from sparse_circuits.model.family import Family
from sparse_circuits.model.modules import ACTIVATIONS

# Fields of any Hugging Face configuration that do not change what the model computes in evaluation.
_BOOKKEEPING = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "tie_word_embeddings",
        "use_cache",
        "initializer_range",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "architectures",
        "model_type",
        "attention_dropout",
        "hidden_dropout",
        "pretraining_tp",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "id2label",
        "label2id",
        "problem_type",
        "chunk_size_feed_forward",
        "is_encoder_decoder",
        "is_decoder",
        "name_or_path",
        "_name_or_path",
        "task_specific_params",
        "_attn_implementation_autoset",
        "_num_labels",
        "auto_map",
        "do_sample",
        "finetuning_task",
        "gradient_checkpointing",
        "is_llama_config",
        "max_length",
        "num_beams",
        "prefix",
        "repetition_penalty",
        "temperature",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torchscript",
        "transformers.js_config",
        "unsloth_fixed",
        "unsloth_version",
    ]
)

# Rotary embeddings that do not depend on the length of the prompt.
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def family_of(config: Any) -> Family:
    """The family of a Hugging Face configuration.

    Raises:
        UnsupportedModelError: for a family that no file declares, or a configuration with a field that its family does not
            explain, or an activation or rotary embedding that is not known; the message names the field.
    """
    family = next((f for f in FAMILIES if config.model_type in f.model_types), None)
    if family is None:
        known = sorted(t for f in FAMILIES for t in f.model_types)
        raise UnsupportedModelError(
            f"Model family {config.model_type!r} is not supported; supported: {', '.join(known)}."
        )
    fields = config.to_dict()
    for name, value in fields.items():
        allowed = ACTIVATIONS if name == family.activation else family.required.get(name)
        if allowed is not None:
            if value not in allowed:
                raise UnsupportedModelError(
                    f"{config.model_type} with {name}={value!r} is not supported; "
                    f"expected {' or '.join(repr(v) for v in allowed)}."
                )
        elif name not in family.explained and name not in _BOOKKEEPING and value not in (None, False, 0, [], {}, ""):
            raise UnsupportedModelError(
                f"{config.model_type} with {name}={value!r}: the library cannot explain this configuration field, "
                "so it cannot be right about the model."
            )
    for name in ("rope_parameters", "rope_scaling"):
        _refuse_unknown_rotation(config.model_type, name, fields.get(name) or {})
    return family


def _refuse_unknown_rotation(model_type: str, name: str, parameters: dict[str, Any]) -> None:
    # Gemma 3 has one set of parameters for each kind of layer
    for part in (parameters, *(p for p in parameters.values() if isinstance(p, dict))):
        kind = part.get("rope_type", part.get("type"))
        if kind is not None and kind not in _ROPE_TYPES:
            raise UnsupportedModelError(
                f"{model_type} with {name}['rope_type']={kind!r} is not supported; "
                f"expected {' or '.join(repr(v) for v in _ROPE_TYPES)}."
            )
