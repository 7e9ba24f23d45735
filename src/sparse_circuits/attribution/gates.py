"""Gates that are learned: hard-concrete variables, and how far a gated circuit is from the model.

With u uniform in (0, 1) and a gate's logit a (Louizos et al. 2018, arXiv:1712.01312):

    gate = min(1, max(0, 1.2 sigmoid((log u - log(1 - u) + a) / b) - 0.1)),    b = 2/3

    P(gate > 0) = sigmoid(a + b log 11),    P(gate > 1/2) = sigmoid(a)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_circuits.attribution.method import Problem
from sparse_circuits.circuit.run import AblatedStreams, CircuitRunner
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.forward import Sources, run_sources
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.measure import logits_read, measure, with_clean_logits
from sparse_circuits.task.metrics import Metric, PositionMetric

_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1
_FIRST_LOGIT = 3.0  # gates are open nearly always at first, but not so far that none of them is ever half shut
_BETAS, _EPS = (0.9, 0.999), 1e-8


class Gates:
    """Gates' logits and the two multipliers of a constraint, under Adam."""

    def __init__(self, n: int, device: torch.device, learning_rate: float, multiplier_rate: float) -> None:
        self._values = torch.cat([torch.full((n,), _FIRST_LOGIT), torch.zeros(2)]).to(device)
        self._mean, self._square = torch.zeros_like(self._values), torch.zeros_like(self._values)
        rates = torch.full_like(self._values, learning_rate)
        rates[-2:] = -multiplier_rate  # ascending
        self._rates, self._steps = rates, 0

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Gates in [0, 1], float32 ``[n]``, and the expected share of them that is shut; differentiable.

        Args:
            generator: on the CPU, so that all devices see the same gates.
        """
        self._values.requires_grad_()
        logits = self._values[:-2]
        uniform = torch.rand(len(logits), generator=generator).clamp(1e-6, 1 - 1e-6).to(logits.device)
        soft = torch.sigmoid((uniform.log() - (-uniform).log1p() + logits) / _TEMPERATURE)
        above = torch.sigmoid(logits - _TEMPERATURE * math.log(-_LOW / _HIGH))
        return (soft * (_HIGH - _LOW) + _LOW).clamp(0, 1), 1 - above.mean()

    def descend(self, difference: Tensor, lacking: Tensor) -> None:
        """One step of Adam on ``difference + l1 lacking + l2 lacking^2``; ascending in l1 and l2.

        Args:
            lacking: how far the expected share of shut gates is from where it should be.
        """
        first, second = self._values[-2:]
        loss = difference + first * lacking + second * lacking.square()
        (gradient,) = torch.autograd.grad(loss, self._values)
        self._values = self._values.detach()
        self._steps += 1
        self._mean.lerp_(gradient, 1 - _BETAS[0])
        self._square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._mean / (1 - _BETAS[0] ** self._steps)
        square = self._square / (1 - _BETAS[1] ** self._steps)
        self._values = self._values - self._rates * mean / (square.sqrt() + _EPS)

    def open(self) -> Tensor:
        """The probability that each gate is more open than shut."""
        return torch.sigmoid(self._values[:-2].detach())

    def state(self) -> dict[str, Tensor]:
        return {
            "values": self._values.detach(),
            "mean": self._mean,
            "square": self._square,
            "steps": torch.tensor(self._steps),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        device = self._values.device
        self._values, self._mean, self._square = (state[name].to(device) for name in ("values", "mean", "square"))
        self._steps = int(state["steps"])


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch with what no gate changes: its embedding, the ablated run, and what the model does.

    ``target``: log-probabilities of the next token where they are compared, or None where the metric is.
    """

    anatomy: Anatomy
    metric: Metric
    runner: CircuitRunner
    batch: Batch
    embedding: Tensor
    ablated: Sources
    streams: AblatedStreams
    clean: Tensor
    empty: Tensor
    target: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, problem: Problem, runner: CircuitRunner, batch: Batch, objective: str) -> Prepared:
        anatomy, metric = problem.anatomy, problem.prompts.metric
        embedding = anatomy.embed(batch.tokens)
        _, final = run_sources(anatomy, embedding, batch.padding)
        batch = with_clean_logits(anatomy, metric, final, batch)
        ablated, _ = problem.ablated(batch)
        streams = runner.streams(ablated, batch.tokens.shape[1])
        return cls(
            anatomy,
            metric,
            runner,
            batch,
            embedding,
            ablated,
            streams,
            measure(anatomy, metric, final, batch),
            measure(anatomy, metric, streams.final.expand_as(embedding), batch),
            _log_probabilities(anatomy, metric, final, batch) if objective == "kl" else None,
        )

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        held = (self.embedding, self.streams.final, *self.streams.attention, *self.streams.mlp, self.ablated.embedding)
        parts = (*held, *self.ablated.z, *self.ablated.mlp, *self.ablated.hidden, self.target)
        return sum(x.numel() for x in parts if x is not None)

    def difference(self, gates: Tensor) -> Tensor:
        """How far the gated circuit is from the model, a mean over examples.

        Args:
            gates: of the graph's shape.
        """
        batch, padding = self.batch, self.batch.padding
        final = self.runner.gated(gates, self.embedding, padding, self.ablated, self.streams, batch.groups)
        if self.target is None:
            return (measure(self.anatomy, self.metric, final, batch) - self.clean).square().mean()
        found = _log_probabilities(self.anatomy, self.metric, final, batch)
        return (self.target.exp() * (self.target - found)).sum(-1).mean()


def _log_probabilities(anatomy: Anatomy, metric: Metric, final: Tensor, batch: Batch) -> Tensor:
    """Of the next token, where the metric reads it, or else at every real position: ``[rows, vocab]``."""
    if isinstance(metric, PositionMetric):
        return logits_read(anatomy, metric, final, batch).log_softmax(-1)
    return anatomy.logits(final[batch.real]).float().log_softmax(-1)
