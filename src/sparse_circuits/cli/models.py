"""``sparse-circuits models``: what can be loaded."""

from __future__ import annotations

import json

from sparse_circuits.cli import output

EXAMPLES = ("models",)


def models() -> None:
    """List the bundled model and the model families."""
    from sparse_circuits.model.families import FAMILIES
    from sparse_circuits.zoo import toy_path

    folder = toy_path()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    output.line("The bundled model:")
    output.pairs(
        [
            ("  toy", f"a {config['model_type'].upper()} trained on generated English, {size / 1e6:.1f} MB"),
            ("", f"{config['n_layer']} layers, {config['n_head']} heads, {config['n_embd']} dimensions"),
            ("", f"{config['vocab_size']:,} words, prompts of up to {config['n_positions']} tokens"),
            ("", f"its card: {folder / 'README.md'}"),
        ]
    )
    output.line()
    output.line("Any other model of these families, from a Hugging Face folder or the hub:")
    for family in FAMILIES:
        output.line(f"  {', '.join(family.model_types)}")
