"""Learning which edges to keep: a gate on every edge, trained so that the circuit behaves as the model does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sparse_circuits.attribution.checkpoint import Checkpoint
from sparse_circuits.attribution.gates import Gates, Prepared
from sparse_circuits.attribution.method import Method, Problem, Raw, Tally
from sparse_circuits.circuit.run import CircuitRunner
from sparse_circuits.errors import InputError
from sparse_circuits.task.batch import Batch

_KEPT_ELEMENTS = 1 << 27  # 512 MB of what does not change from step to step


@dataclass(frozen=True)
class EdgePruning(Method):
    """Gates in [0, 1] on all edges, learned by gradient descent: v reads A + sum_u gate_uv (c_u - c_u').

    The loss is what the circuit does differently from the model, and a Lagrangian term that pulls the expected share of
    shut gates s to a target t, which moves from 0 to ``sparsity`` during the first ``warmup`` of the steps:

        L = D(model, circuit) + l1 (t - s) + l2 (t - s)^2,    descending in the gates, ascending in l1 and l2

    Gates are hard-concrete variables (Louizos et al. 2018, arXiv:1712.01312; see ``attribution/gates.py``), one draw
    for all examples of a step. Bhaskar et al. 2024, "Finding Transformer Circuits with Edge Pruning"
    (arXiv:2406.16778); unlike there, nodes have no gates beside those of their edges. At the other levels of a graph the
    gates are on nodes or units, and with positions on each position's edges.

    Scores are the probabilities that a gate is more open than shut, between 0 and 1: no estimates of an effect, without
    sign, and the same for all examples. ``scores.selected`` are those above 1/2, about as many as the target asks for.
    The result depends on ``seed`` and on the batch size, and on nothing else that is random.

    Attributes:
        sparsity: share of edges to remove, between 0 and 1.
        size: how many edges (nodes, units) to keep, instead of ``sparsity``.
        steps: gradient steps, each on one batch.
        warmup: share of the steps in which the target moves.
        learning_rate: of the gates' logits, by Adam.
        multiplier_rate: of l1 and l2, by Adam.
        objective: "kl", KL divergence of the model's next-token distribution from the circuit's at the position that the
            metric reads (for a metric of one's own: the mean over all real positions), in nats; or "metric", squared
            difference of the metric.
        seed: of the gates and of the batches' order.
        checkpoint: a file to keep the state in, every ``checkpoint_every`` steps: a run that finds it there goes on from it,
            and ends as an uninterrupted run does.

    Cost: a forward and a backward pass of the circuit per step, every destination with a stream of its own: for many
    heads several times the time of the model's own, and [destinations of a layer, batch, pos, d_model] memory per layer.
    With a post-norm after attention, memory and time also grow with the square of the number of layers.

    Raises:
        InputError: for options out of range; a checkpoint of another run; ``per_example=True``.
    """

    sparsity: float = 0.95
    size: int | None = None
    steps: int = 1000
    warmup: float = 0.6
    learning_rate: float = 0.1
    multiplier_rate: float = 0.1
    objective: Literal["kl", "metric"] = "kl"
    seed: int = 0
    checkpoint: str | Path | None = None
    checkpoint_every: int = 100

    signed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        def expect(holds: bool, name: str, what: str) -> None:
            if not holds:
                raise InputError(f"EdgePruning({name}={getattr(self, name)!r}): expected {what}.")

        expect(0 < self.sparsity < 1, "sparsity", "a number between 0 and 1")
        expect(self.size is None or _whole(self.size), "size", "a whole number of at least 1, or None")
        expect(_whole(self.steps), "steps", "a whole number of at least 1")
        expect(0 <= self.warmup <= 1, "warmup", "a number from 0 to 1")
        expect(self.learning_rate > 0, "learning_rate", "a positive number")
        expect(self.multiplier_rate > 0, "multiplier_rate", "a positive number")
        expect(self.objective in ("kl", "metric"), "objective", "'kl' or 'metric'")
        expect(_whole(self.checkpoint_every), "checkpoint_every", "a whole number of at least 1")

    @property
    def options(self) -> dict[str, Any]:
        """The fields that make the result; where and how often its state is kept does not."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("checkpoint")}

    def run(self, problem: Problem) -> Raw:
        graph, n = problem.graph, len(problem.prompts)
        if problem.per_example:
            raise InputError("EdgePruning learns one set of gates for all examples; it has no scores per example.")
        if self.size is not None and self.size >= graph.size:
            raise InputError(
                f"EdgePruning(size={self.size}): expected fewer than the graph's {graph.size} {graph.thing}s."
            )
        if self.checkpoint is not None and not Path(self.checkpoint).parent.is_dir():
            folder = Path(self.checkpoint).parent
            raise InputError(f"EdgePruning(checkpoint={str(self.checkpoint)!r}): there is no folder {folder}.")
        data, tally = _Data(problem, self.objective), Tally(problem)
        checkpoint = None if self.checkpoint is None else self._checkpoint(problem, data)
        for rows, clean, empty in data.ends:
            tally.measured(rows, clean, empty if tally.patched else None)
        gates = Gates(graph.size, problem.anatomy.device, self.learning_rate, self.multiplier_rate)
        found = None if checkpoint is None else checkpoint.load()
        start = 0
        if found is not None:
            start, state = found
            gates.restore(state)
        mask = graph.mask.to(problem.anatomy.device)
        for step in problem.track(iter(range(start, self.steps)), self.steps - start):
            batch = data.at(int(_order(self.seed, step // len(data), len(data))[step % len(data)]))
            with torch.enable_grad():
                drawn, sparsity = gates.draw(_generator(self.seed, 0, step))
                weights = torch.zeros(graph.shape, device=mask.device).masked_scatter(mask, drawn)
                gates.descend(batch.difference(weights), self._target(step, graph.size) - sparsity)
            done = step + 1
            if checkpoint is not None and (done % self.checkpoint_every == 0 or done == self.steps):
                checkpoint.save(done, gates.state())
        scores = torch.zeros(graph.shape)
        scores[graph.mask] = gates.open().cpu()
        tally.scored(torch.arange(n), scores[None] * n)
        per_batch = self.steps / len(data)
        ends = 1 + tally.patched
        forwards = per_batch + ends * (1 if data.keeps else 1 + per_batch)
        return tally.raw(forwards, per_batch, selected=(scores > 0.5) & graph.mask)

    def _target(self, step: int, size: int) -> float:
        """The share of gates that should be shut by now."""
        final = self.sparsity if self.size is None else 1 - self.size / size
        return final * min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))

    def _checkpoint(self, problem: Problem, data: _Data) -> Checkpoint:
        prompts = problem.prompts
        tokens = json.dumps([prompts.clean, prompts.corrupted])
        run = {
            **self.options,
            "batch_size": problem.batch_size,
            "graph": asdict(problem.graph),
            "prompts": hashlib.sha256(tokens.encode()).hexdigest()[:16],
            "metric": type(prompts.metric).__qualname__,
        }
        rows = torch.cat([rows for rows, _, _ in data.ends])
        known = {
            "metric of the model": torch.cat([clean for _, clean, _ in data.ends])[rows.argsort()],
            "metric of the ablated run": torch.cat([empty for _, _, empty in data.ends])[rows.argsort()],
        }
        return Checkpoint(Path(str(self.checkpoint)), run, known)


class _Data:
    """The batches, with what is the same in each step on one of them, kept where it is small enough."""

    def __init__(self, problem: Problem, objective: str) -> None:
        self._problem, self._objective = problem, objective
        self._runner = CircuitRunner(problem.anatomy, problem.graph)
        self._batches: list[Batch] = []
        self._kept: list[Prepared] = []
        self.ends: list[tuple[Tensor, Tensor, Tensor]] = []
        elements, self.keeps = 0, True
        for rows, batch in problem.batches():
            self._batches.append(batch)
            prepared = Prepared.of(problem, self._runner, batch, objective)
            self.ends.append((rows, prepared.clean.cpu(), prepared.empty.cpu()))
            elements += prepared.elements
            self.keeps = self.keeps and elements <= _KEPT_ELEMENTS
            self._kept = [*self._kept, prepared] if self.keeps else []

    def __len__(self) -> int:
        return len(self._batches)

    def at(self, i: int) -> Prepared:
        if self.keeps:
            return self._kept[i]
        return Prepared.of(self._problem, self._runner, self._batches[i], self._objective)


def _generator(seed: int, *numbers: int) -> torch.Generator:
    """Random numbers of one step: what it draws does not depend on what was drawn before, or whether the run was interrupted."""
    digest = hashlib.sha256(json.dumps([seed, *numbers]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % (1 << 63))


def _order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=_generator(seed, 1, epoch))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
