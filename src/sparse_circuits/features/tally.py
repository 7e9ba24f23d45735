"""What is known of some features after so much text: counts, a histogram, the strongest contexts and a sample of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.features.keep import Kept

PER_OCTAVE, LOWEST, OCTAVES = 4, -12, 24
BINS = PER_OCTAVE * OCTAVES
"""Bins of the histogram: 4 per factor of 2, from 2^-12 to 2^12; what is outside is in the first or the last."""
# values of one site that are worked on at a time
_ELEMENTS = 1 << 23


def bin_edges() -> list[float]:
    """The bins' bounds, one more than there are bins."""
    return [2.0 ** (LOWEST + i / PER_OCTAVE) for i in range(BINS + 1)]


@dataclass(frozen=True, eq=False)
class Window:
    """How much of a row a context shows: so many tokens before and after the one that it is of, where the row has them."""

    before: int = 24
    after: int = 8

    @property
    def width(self) -> int:
        return self.before + 1 + self.after


@dataclass(frozen=True, eq=False)
class Where:
    """A batch of rows: where its tokens stand in the text, and which of them count.

    Attributes:
        tokens: ``[rows, pos]``; ``lengths``: ``[rows]``; ``counted``: bool ``[rows, pos]``, False at padding and BOS.
        text, first_row: number of the text, and of the first row in it.
        draw: a number from 0 to 1 for each token, the same whatever the batches: float64 ``[rows, pos]``.
    """

    tokens: Tensor
    lengths: Tensor
    counted: Tensor
    text: int
    first_row: int
    draw: Tensor

    def rows_from(self, row: int) -> Where:
        """Without the rows before one of this batch."""
        return Where(
            self.tokens[row:],
            self.lengths[row:],
            self.counted[row:],
            self.text,
            self.first_row + row,
            self.draw[row:],
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """What is kept of some features; updated in place. A feature fires where its value is not 0; its strength is |value|.

    Attributes:
        fired: tokens where it fires, int64 ``[features]``; ``total``: sum of its values there, float64.
        highest, lowest: of its values, float32, 0 at first.
        histogram: of its strength where it fires, int64 ``[features, BINS]``.
        top: the strongest contexts, at most one of each row. sample: some of all tokens where it fires, each equally likely.
    """

    fired: Tensor
    total: Tensor
    highest: Tensor
    lowest: Tensor
    histogram: Tensor
    top: Kept
    sample: Kept

    @classmethod
    def empty(cls, features: int, top: int, samples: int, window: Window) -> Tally:
        return cls(
            torch.zeros(features, dtype=torch.int64),
            torch.zeros(features, dtype=torch.float64),
            torch.zeros(features),
            torch.zeros(features),
            torch.zeros(features, BINS, dtype=torch.int64),
            Kept.empty(features, top, window.width),
            Kept.empty(features, samples, window.width),
        )

    def state(self) -> dict[str, Tensor]:
        own = {name: getattr(self, name) for name in ("fired", "total", "highest", "lowest", "histogram")}
        return {**own, **self.top.state("top"), **self.sample.state("sample")}

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> Tally:
        own = {name: state[name] for name in ("fired", "total", "highest", "lowest", "histogram")}
        return cls(**own, top=Kept.of_state("top", state), sample=Kept.of_state("sample", state))

    def add(self, first: int, values: Tensor, where: Where, window: Window) -> None:
        """Take in a batch.

        Args:
            first: the number of the first of these features.
            values: theirs, ``[rows, pos, features]``, at tokens that do not count too: contexts show these.
        """
        size = max(1, _ELEMENTS // max(1, values.shape[0] * values.shape[1]))
        for start in range(0, values.shape[2], size):
            self._add(first + start, values[..., start : start + size].float(), where, window)

    def _add(self, first: int, values: Tensor, where: Where, window: Window) -> None:
        n_pos, n = values.shape[1:]
        mine = slice(first, first + n)
        device = values.device
        counted = where.counted.to(device)
        seen = torch.where(counted[..., None], values, 0.0)
        total = seen.sum((0, 1)).double().cpu()
        if not bool(total.isfinite().all()):
            raise InputError(
                f"Among rows {where.first_row:,} to {where.first_row + len(values) - 1:,} of the text a feature has a value that "
                "is not finite; run the model in a dtype that holds its activations (bfloat16 instead of float16)."
            )
        strength = seen.abs()
        peak, peak_at = strength.max(dim=1)
        flat = strength.view(-1)
        at = flat.nonzero()[:, 0]
        feature, token = at % n, torch.div(at, n, rounding_mode="floor")
        self.fired[mine] += torch.bincount(feature, minlength=n).cpu()
        self.total[mine] += total
        self.highest[mine] = torch.maximum(self.highest[mine], seen.amax((0, 1)).cpu())
        self.lowest[mine] = torch.minimum(self.lowest[mine], seen.amin((0, 1)).cpu())
        bins = ((flat[at].log2() - LOWEST) * PER_OCTAVE).floor().clamp(0, BINS - 1).long()
        self.histogram[mine] += torch.bincount(feature * BINS + bins, minlength=n * BINS).view(n, BINS).cpu()

        def windows(feature: Tensor, row: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Place, tokens and values of the windows around some tokens, on the CPU."""
            length = where.lengths[row]
            start = torch.minimum(pos - window.before, length - window.width).clamp(min=0)
            reach = start[:, None] + torch.arange(window.width)
            inside = reach < length[:, None]
            reach = reach.clamp(max=n_pos - 1)
            tokens = torch.where(inside, where.tokens[row[:, None], reach], -1)
            got = values[row[:, None].to(device), reach.to(device), (feature - first)[:, None].to(device)].cpu()
            place = torch.stack([torch.full_like(row, where.text), where.first_row + row, pos, start], dim=1)
            return place, tokens, torch.where(inside, got, 0.0)

        def keep(kept: Kept, feature: Tensor, key: Tensor, row: Tensor, pos: Tensor) -> None:
            value = values[row, pos, feature].cpu()
            feature, key, row, pos = feature.cpu() + first, key.cpu(), row.cpu(), pos.cpu()
            kept.add(feature, key, value, lambda some: windows(feature[some], row[some], pos[some]))

        better = (peak > 0) & (peak > self.top.worst[mine].to(device))
        row, column = better.nonzero(as_tuple=True)
        keep(self.top, column, peak[row, column], row, peak_at[row, column])
        if self.sample.size:
            draw = where.draw.to(device).view(-1)[token]
            chosen = draw > self.sample.worst[mine].to(device)[feature]
            token, feature = token[chosen], feature[chosen]
            keep(self.sample, feature, draw[chosen], torch.div(token, n_pos, rounding_mode="floor"), token % n_pos)


def draws(key: str, seed: int, first_row: int, rows: int, width: int) -> Tensor:
    """A number from 0 to 1 for every token, from its place in its text alone: float64 ``[rows, width]``."""
    base = np.uint64((int(key, 16) ^ (seed * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF)
    row = np.arange(first_row, first_row + rows, dtype=np.uint64)[:, None]
    with np.errstate(over="ignore"):
        x = base + (row * np.uint64(1 << 20) + np.arange(width, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) / float(1 << 53))
