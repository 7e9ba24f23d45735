"""Groups of token positions: what scores are kept apart by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparse_circuits.errors import InputError
from sparse_circuits.task.spans import OTHER, listed


@dataclass(frozen=True, eq=False)
class Positions:
    """Which group every token of a task's prompts is in.

    Made by :meth:`Prompts.positions` and :meth:`Prompts.positions_named`. A group may hold no token of some examples, or
    of any: where a bundled task's "subject" is also its last token, "last" is left empty.

    Attributes:
        names: of the groups: ``("0", "1", ...)``, one per position, or the names of spans and "other".
        groups: the number of every token's group, in the prompts' order: int64 ``[examples, longest prompt]``, -1 at
            padding.
    """

    names: tuple[str, ...]
    groups: Tensor

    def __len__(self) -> int:
        """The number of groups."""
        return len(self.names)

    def of(self, rows: Tensor, n_pos: int) -> Tensor:
        """The groups of some prompts, for a batch of ``n_pos`` positions: int64 ``[examples, n_pos]``, -1 at padding.

        Args:
            rows: which prompts, as :meth:`Prompts.batches` yields them: int64 ``[examples]``.
        """
        # A negative number of columns to pad with cuts the columns that a batch of short prompts does not have.
        return pad(self.groups[rows.to(self.groups.device)], (0, n_pos - self.groups.shape[1]), value=-1)


def kept(names: tuple[str, ...], lengths: Sequence[int], device: torch.device, where: str) -> Positions:
    """One group per position, counted from the left; ``names`` may go beyond the longest prompt.

    Raises:
        InputError: for names other than "0", "1", ... in order, or a prompt with more positions than there are names.
    """
    if names != tuple(str(i) for i in range(len(names))):
        raise InputError(
            f"{where}: expected positions '0', '1', ... in order and without gaps, got {listed(names[:8])}."
        )
    longest = max(lengths)
    if longest > len(names):
        raise InputError(
            f"{where}, row {list(lengths).index(longest)}: {longest} tokens, but the positions kept apart are '0' to "
            f"'{len(names) - 1}', which is for prompts of at most {len(names)} tokens; use shorter prompts, or named spans."
        )
    columns = torch.arange(longest, device=device).expand(len(lengths), -1)
    real = columns < torch.tensor(lengths, device=device)[:, None]
    return Positions(names, columns.where(real, -1))


def spanned(
    names: tuple[str, ...] | None,
    spans: Sequence[Mapping[str, tuple[int, int]]] | None,
    lengths: Sequence[int],
    device: torch.device,
    where: str,
) -> Positions:
    """One group per span, and "other" for the tokens in none; a token in several is in the one that is named first.

    Args:
        names: the groups; None for all spans of the task, and "other" if there is such a token.
        spans: of every example, in the tokens that run; None where the task has none.

    Raises:
        InputError: for a span that the task lacks, a name that comes twice, or a token in no span where ``names`` has no
            "other".
    """
    own = list(spans[0]) if spans else []
    wanted = own if names is None else [name for name in names if name != OTHER]
    missing = [name for name in wanted if name not in own]
    if missing:
        has = f"it has {listed(own)}" if own else "it has none"
        raise InputError(f"{where}: no span {listed(missing)}; {has}. Pass Task(spans=...) with these names.")
    if names is not None and (len(set(names)) < len(names) or not names):
        raise InputError(f"{where}: expected the names of position groups, each once, got {listed(names) or 'none'}.")
    number = {name: i for i, name in enumerate(names or wanted)}
    rest = number.get(OTHER, len(number))
    rows = []
    for row, length in enumerate(lengths):
        groups = [rest] * length
        for name in reversed(wanted):
            start, stop = spans[row][name] if spans else (0, 0)
            groups[start:stop] = [number[name]] * (stop - start)
        if names is not None and rest == len(number) and rest in groups:
            raise InputError(
                f"{where}, row {row}: the token at position {groups.index(rest)} lies in none of the spans {listed(wanted)}, "
                f"and the groups asked for have no {OTHER!r} to hold it; widen the spans of this task."
            )
        rows.append(groups + [-1] * (max(lengths) - length))
    table = torch.tensor(rows, device=device)
    if names is None:
        names = (*wanted, OTHER) if bool((table == rest).any()) else tuple(wanted)
    return Positions(names, table)
