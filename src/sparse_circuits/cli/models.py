"""``sparse-circuits models``: what can be loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sparse_circuits.cli import output

EXAMPLES = ("models",)
_FIGURES = {"l0": "{:.1f}", "variance_explained": "{:.3f}", "loss_recovered": "{:.3f}"}


def models() -> None:
    """List the bundled model with its dictionaries, and the model families."""
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
    if (folder / "dictionaries").is_dir():
        list_dictionaries(folder / "dictionaries")
        output.line()
    output.line("Any other model of these families, from a Hugging Face folder or the hub:")
    for family in FAMILIES:
        output.line(f"  {', '.join(family.model_types)}")


def list_dictionaries(folder: Path) -> None:
    """Its dictionaries, with what ``report.json`` says of them, where there is one."""
    from sparse_circuits.model.sites import Site

    configs = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/cfg.json")}
    names = sorted(configs, key=lambda name: Site.named(name).order)
    report = folder / "report.json"
    measured = json.loads(report.read_text(encoding="utf-8"))["dictionaries"] if report.is_file() else {}
    output.line("Its dictionaries (--dictionaries toy; without --sites all but the transcoders):")
    rows = [
        [
            f"  {name}",
            str(configs[name]["architecture"]).removesuffix("_transcoder"),
            f"{configs[name]['d_sae']:,}",
            *(how.format(measured[name][figure]) if name in measured else "" for figure, how in _FIGURES.items()),
        ]
        for name in names
    ]
    columns = ("  site", "architecture", "features", "L0", "variance explained", "loss recovered")
    output.table(*columns, rows=rows, text=columns[:2])
    # the layers' hook names differ in their number only
    hooks = {re.sub(r"\d+", "L", name): re.sub(r"\.\d+\.", ".L.", _hooks(configs[name])) for name in names}
    output.pairs((f"  {name}", hook) for name, hook in hooks.items())


def _hooks(config: dict[str, Any]) -> str:
    """Where a dictionary reads, and where it writes if that is elsewhere."""
    known = config.get("metadata", {})
    ends = (known.get("hook_name"), known.get("hook_name_out"))
    return " -> ".join(dict.fromkeys(str(end) for end in ends if end))
