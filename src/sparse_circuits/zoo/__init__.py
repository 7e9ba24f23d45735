"""The bundled model: a small GPT-2 trained on generated text, its tokenizer, and the scripts that made them."""

from importlib.resources import files
from pathlib import Path

__all__ = ["toy_path"]


def toy_path() -> Path:
    """The folder of the bundled model, in Hugging Face's layout; its `README.md` is the model card."""
    return Path(str(files("sparse_circuits.zoo"))) / "toy"
