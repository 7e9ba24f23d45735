"""Pages of features as an attribution graph's page reads them, from what ``feature_pages`` finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sparse_circuits.errors import InputError


@runtime_checkable
class HasDict(Protocol):
    """What ``feature_pages`` returns of a feature."""

    def to_dict(self) -> dict[str, Any]: ...


_BINS = 50  # of the histogram
_PERCENTILES = 100


def page_of(name: str, number: int, known: Any) -> dict[str, Any]:
    """The file of one feature.

    Args:
        number: of its node, which the file is named by.
        known: what ``feature_pages`` has of it, or its ``to_dict()``.

    Raises:
        InputError: for anything else.
    """
    known = known.to_dict() if isinstance(known, HasDict) else known
    if not isinstance(known, Mapping) or not {"top", "histogram", "density"} <= known.keys():
        raise InputError(
            f"pages[{name!r}]: expected what feature_pages returns, or its to_dict(), got {type(known).__name__}."
        )
    edges, counts = (list(known["histogram"][key]) for key in ("edges", "counts"))
    largest = float(max(abs(known.get("highest", 0.0)), abs(known.get("lowest", 0.0)))) or 1.0
    groups = [("Strongest", known["top"])]
    for group in known.get("quantiles", ()):
        groups.append((f"From {group['from']:.0%} to {group['to']:.0%} of where it fires", group["contexts"]))
    return {
        "transcoder_id": str(known.get("source") or ""),
        "index": number,
        "name": name,
        "examples_quantiles": [
            {"quantile_name": title, "examples": [_example(context) for context in contexts]}
            for title, contexts in groups
            if contexts
        ],
        "top_logits": [str(token) for token, _ in known.get("promoted", ())],
        "bottom_logits": [str(token) for token, _ in known.get("suppressed", ())],
        "act_min": 0.0,
        "act_max": largest,
        "quantile_values": _percentiles(edges, counts),
        "histogram": _even(edges, counts, largest),
        "activation_frequency": float(known["density"]),
    }


def _example(context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tokens": list(context["tokens"]),
        "tokens_acts_list": [float(value) for value in context["values"]],
        "train_token_ind": int(context["peak"]),
        "is_repeated_datapoint": False,
    }


def _even(edges: Sequence[float], counts: Sequence[float], largest: float) -> list[float]:
    """The same counts in equal bins from 0 to the largest size, each bin's spread evenly over those that it overlaps."""
    width = largest / _BINS
    out = [0.0] * _BINS
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        high = min(high, largest)
        if high <= low:  # what is left of the last bin holds all of it
            out[-1] += count
            continue
        for i in range(min(int(low / width), _BINS - 1), min(int(high / width), _BINS - 1) + 1):
            overlap = min(high, (i + 1) * width) - max(low, i * width)
            out[i] += count * max(overlap, 0.0) / (high - low)
    return out


def _percentiles(edges: Sequence[float], counts: Sequence[float]) -> list[float]:
    """The sizes below which 1%, 2%, ... of the tokens lie on which it fires, bins taken as even."""
    total, out, before, at = sum(counts), [], 0.0, 0
    if not total:
        return []
    for percent in range(1, _PERCENTILES + 1):
        wanted = total * percent / _PERCENTILES
        while at < len(counts) - 1 and before + counts[at] < wanted:
            before += counts[at]
            at += 1
        share = (wanted - before) / counts[at] if counts[at] else 0.0
        out.append(edges[at] + min(share, 1.0) * (edges[at + 1] - edges[at]))
    return out
