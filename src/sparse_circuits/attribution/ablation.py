"""What a part of the model is replaced by when it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Sources, run_sources
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.task import Prompt, Prompts, Task


@dataclass(frozen=True)
class Ablation:
    """The value that stands in for a source outside the circuit.

    - ``Ablation.PATCH``: what the source wrote on the corrupted prompt (interchange, or resample, ablation).
    - ``Ablation.ZERO``: nothing. Biases of the attention output and learned positions belong to no source and stay.
    - ``Ablation.MEAN``: its mean over the real tokens of the task's clean prompts, one vector for all positions.
    - ``Ablation.MEAN_POSITIONAL``: its mean at each position, counted from the left; all prompts must be equally long.

    ``Ablation.MEAN.over(prompts)`` takes the mean over other prompts (strings or token ids).
    """

    kind: Literal["patch", "zero", "mean", "mean_positional"]
    prompts: tuple[Any, ...] | None = None

    PATCH: ClassVar[Ablation]
    ZERO: ClassVar[Ablation]
    MEAN: ClassVar[Ablation]
    MEAN_POSITIONAL: ClassVar[Ablation]

    def over(self, prompts: Sequence[Prompt]) -> Ablation:
        """This mean, taken over other prompts.

        Raises:
            InputError: for no prompts, or an ablation that is not a mean.
        """
        if self.kind not in ("mean", "mean_positional"):
            raise InputError(
                f"Ablation.{self.kind.upper()} has no mean to take over prompts; use Ablation.MEAN.over(...)."
            )
        if isinstance(prompts, str) or len(prompts) == 0:
            raise InputError("Ablation.over(...): expected a list of at least one prompt.")
        return replace(self, prompts=tuple(p if isinstance(p, str) else tuple(int(i) for i in p) for p in prompts))

    def prompts_for(self, model: Any, anatomy: Anatomy, task: Task, prompts: Prompts) -> Prompts:
        """What a mean is taken over: the task's own prompts, or those given to :meth:`over`.

        Raises:
            InputError: for unequal lengths under MEAN_POSITIONAL, or prompts that do not tokenise.
        """
        over = prompts
        if self.prompts is not None:
            reference = Task(self.prompts, metric=lambda logits, batch: logits[:, 0, 0], prepend_bos=task.prepend_bos)
            over = reference.tokenized(model, anatomy, corrupted=False)
        lengths = prompts.n_positions | over.n_positions
        if self.kind == "mean_positional" and len(lengths) > 1:
            raise InputError(
                f"Ablation.MEAN_POSITIONAL needs prompts of one length, got {min(lengths)} to {max(lengths)} tokens; "
                "use Ablation.MEAN, or prompts of equal length."
            )
        return over

    def __str__(self) -> str:
        return self.kind if self.prompts is None else f"{self.kind} over {len(self.prompts)} prompts"


Ablation.PATCH = Ablation("patch")
Ablation.ZERO = Ablation("zero")
Ablation.MEAN = Ablation("mean")
Ablation.MEAN_POSITIONAL = Ablation("mean_positional")


@dataclass(frozen=True, eq=False)
class Ablated:
    """An ablation made ready for one model and task: call it with a batch to get the ablated sources.

    Constants (zero, means) are computed once; under PATCH each batch costs one forward pass. ``units`` asks for the values
    of hidden units too.
    """

    anatomy: Anatomy
    constant: Sources | None
    units: bool = False

    def __call__(self, batch: Batch) -> tuple[Sources, Tensor | None]:
        """The ablated sources, and under PATCH the last residual stream of the corrupted run."""
        if self.constant is not None:
            return self.constant, None
        if batch.corrupted is None:
            raise InputError("Ablation.PATCH needs corrupted prompts; pass Task(corrupted=...).")
        return run_sources(self.anatomy, self.anatomy.embed(batch.corrupted), batch.padding, self.units)


def prepare(
    ablation: Ablation,
    model: Any,
    anatomy: Anatomy,
    task: Task,
    prompts: Prompts,
    batch_size: int,
    units: bool = False,
) -> Ablated:
    """Compute what an ablation needs before the long work starts. Cost: a forward pass over the prompts of a mean.

    Args:
        units: whether the values of hidden units are needed too.

    Raises:
        InputError: for unequal lengths under MEAN_POSITIONAL, or prompts to take the mean over that do not tokenise.
    """
    if ablation.kind == "patch":
        return Ablated(anatomy, None, units)
    if ablation.kind == "zero":
        return Ablated(anatomy, _zero(anatomy), units)
    over, positional = ablation.prompts_for(model, anatomy, task, prompts), ablation.kind == "mean_positional"
    return Ablated(anatomy, _mean(anatomy, over, batch_size, positional, units), units)


def _zero(anatomy: Anatomy) -> Sources:
    def zeros(device: torch.device, *shape: int) -> Tensor:
        return torch.zeros(1, 1, *shape, dtype=anatomy.dtype, device=device)

    blocks = anatomy.blocks
    return Sources(
        zeros(anatomy.device, anatomy.d_model),
        tuple(zeros(b.device, b.attention.n_heads, b.attention.W_O.shape[1]) for b in blocks),
        tuple(None if b.mlp is None else zeros(b.device, anatomy.d_model) for b in blocks),
        tuple(None if b.mlp is None else zeros(b.device, b.mlp.d_mlp) for b in blocks),
    )


@torch.no_grad()
def _mean(anatomy: Anatomy, prompts: Prompts, batch_size: int, positional: bool, units: bool) -> Sources:
    """Mean over real tokens: of everything, or of each position."""
    dims = (0,) if positional else (0, 1)
    totals: list[Tensor | None] = []
    counts: list[Tensor] = []
    for _, batch in prompts.batches(batch_size):
        sources, _ = run_sources(anatomy, anatomy.embed(batch.tokens), batch.padding, units)
        parts = (sources.embedding, *sources.z, *sources.mlp, *sources.hidden)
        sums = [None if p is None else (p.float() * _like(batch.real, p)).sum(dims, keepdim=True) for p in parts]
        totals = [
            a if b is None or a is None else a + b for a, b in zip(sums, totals or [None] * len(sums), strict=True)
        ]
        counts.append(batch.real.sum(dims, keepdim=True))
    count = torch.stack(counts).sum(0)
    means = [None if t is None else (t / _like(count, t)).to(anatomy.dtype) for t in totals]
    n = len(anatomy.blocks)
    embedding, z, mlp, hidden = means[0], means[1 : n + 1], means[n + 1 : 2 * n + 1], means[2 * n + 1 :]
    if embedding is None or any(m is None for m in z):
        raise RuntimeError("a run without embedding or heads")
    return Sources(embedding, tuple(m for m in z if m is not None), tuple(mlp), tuple(hidden))


def _like(per_token: Tensor, values: Tensor) -> Tensor:
    """``[batch, pos]`` with singleton dimensions, to broadcast against ``[batch, pos, ...]``, on its device."""
    return per_token.to(values.device)[(..., *(None,) * (values.dim() - 2))]
