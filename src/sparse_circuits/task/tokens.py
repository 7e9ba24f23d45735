"""Single tokens as text."""

from __future__ import annotations

from typing import Any

_SPACE = "\u2581"  # what SentencePiece writes for a space


def token_text(tokenizer: Any, token: int) -> str:
    """One token as text, with the space that it begins with; its number where the model has no tokenizer."""
    if tokenizer is None:
        return str(token)
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    piece = tokenizer.convert_ids_to_tokens(token)
    # some tokenizers drop the space at the start of a text, and so that of every token by itself
    dropped = isinstance(piece, str) and piece.startswith(_SPACE) and not text.startswith(" ")
    return " " + text if dropped else text
