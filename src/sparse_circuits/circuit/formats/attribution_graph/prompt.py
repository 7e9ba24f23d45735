"""The prompt that an attribution graph is drawn over: its tokens, what the model says next, and what is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.errors import InputError
from sparse_circuits.graph import FeatureGraph
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.metrics import PositionMetric
from sparse_circuits.task.task import Prompts, Task, check_task
from sparse_circuits.task.tokens import token_text

_LIKELIEST, _SHARE = 10, 0.95  # logits shown beside the target: as circuit-tracer chooses them
_NAMED = 3  # of several correct answers


@dataclass(frozen=True)
class Logit:
    """A token that the model may say next."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: the prompt. tokens: as text. ids: as numbers.
        at: per position of the circuit's graph, the token that stands for it; empty where positions are not told apart.
        read: the token after which the metric looks.
        target: the answer that the metric asks for, or None where it asks for no token.
        likely: the likeliest next tokens, the target among them or not.
        activations: of features, by the name of their node.
    """

    text: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    at: tuple[int, ...] = ()
    read: int = -1
    target: Logit | None = None
    likely: tuple[Logit, ...] = ()
    activations: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_tokens(cls, circuit: Circuit | FeatureCircuit, tokens: Sequence[Any]) -> Prompt:
        """From tokens alone, as text or ids, without a model.

        Raises:
            InputError: for none, or a circuit with positions that these tokens do not have.
        """
        listed: Any = getattr(tokens, "tolist", lambda: tokens)()  # of an array or tensor
        several = isinstance(listed, Sequence) and not isinstance(listed, str)
        if not several or {type(token) for token in listed} not in ({str}, {int}):
            raise InputError(f"tokens={tokens!r:.100}: expected the prompt's tokens, one text (or id) each.")
        texts = tuple(map(str, listed))
        ids = tuple(token if isinstance(token, int) else i for i, token in enumerate(listed))
        names = circuit.graph.positions
        if names and not all(map(str.isdecimal, names)):
            raise InputError(
                "Where named spans lie in a prompt is the task's to say; pass model= and task= instead of tokens=."
            )
        at = _kept(circuit, len(texts), "These tokens")
        return cls("".join(texts), texts, ids, at, len(texts) - 1)

    @classmethod
    @torch.no_grad()
    def of_task(cls, circuit: Circuit | FeatureCircuit, model: Any, task: Task, example: int) -> Prompt:
        """An example of a task, in a model. Cost: one forward pass.

        Raises:
            InputError: for what is no task, an example that the task lacks or that is too short for the circuit's positions,
                or a model that the circuit is not of.
        """
        check_task("AttributionGraph.of", task)
        if isinstance(example, bool) or not isinstance(example, int) or not -len(task) <= example < len(task):
            raise InputError(f"example={example!r}: expected the number of one of the task's {len(task)} examples.")
        anatomy = anatomy_of(model)
        circuit.graph.check(anatomy)
        one = task[[example % len(task)]]
        prompts = one.tokenized(model, anatomy, corrupted=False)
        ids, clean = prompts.clean[0], one.clean[0]
        tokenizer = getattr(model, "tokenizer", None)
        tokens = tuple(token_text(tokenizer, i) for i in ids)
        metric = prompts.metric
        read = int(metric.rows(torch.tensor([len(ids)]))[0]) if isinstance(metric, PositionMetric) else len(ids) - 1
        found: dict[Site, tuple[Tensor, Tensor]] = {}

        def look(site: Site, reads: Tensor, writes: Tensor) -> Tensor:
            found[site] = (reads[0], writes[0])
            return writes

        sites = [place.site for place in circuit.graph.places] if isinstance(circuit.graph, FeatureGraph) else []
        final = Walk(anatomy, sites, None).run(anatomy.embed(torch.tensor([ids], device=anatomy.device)), look)
        chances = anatomy.logits(final[:, read : read + 1])[0, 0].float().softmax(-1)
        at = _places(circuit, prompts, f"Example {example} of task {task.name!r}")
        return cls(
            clean if isinstance(clean, str) else "".join(tokens) if tokenizer is not None else " ".join(tokens),
            tokens,
            tuple(ids),
            at,
            read,
            _target(metric, prompts.index[0], chances, tokenizer),
            _likeliest(chances, tokenizer),
            _activations(circuit, found, at),
        )


def _places(circuit: Circuit | FeatureCircuit, prompts: Prompts, what: str) -> tuple[int, ...]:
    names = circuit.graph.positions
    if not names:
        return ()
    if all(map(str.isdecimal, names)):
        return _kept(circuit, len(prompts.clean[0]), what)
    groups = prompts.positions_named(names).groups[0].tolist()
    last = {group: token for token, group in enumerate(groups)}
    return tuple(last.get(group, len(groups) - 1) for group in range(len(names)))


def _kept(circuit: Circuit | FeatureCircuit, n: int, what: str) -> tuple[int, ...]:
    names = circuit.graph.positions
    # at the levels without edges, the logits count as nodes wherever there is a position
    own = circuit.names if circuit.graph.level not in ("edges", "features") else circuit.nodes
    there = {int(name.partition("@")[2]) for name in own if "@" in name}
    if there and max(there) >= n:
        raise InputError(
            f"{what}: {n} tokens, but the circuit has nodes at position {max(there)}; choose a longer one."
        )
    return tuple(range(len(names)))


def _target(metric: Any, row: int, chances: Tensor, tokenizer: Any) -> Logit | None:
    """The answer that counts as correct; of several, their names and the probability of all, under the first one's number."""
    correct = getattr(metric, "correct", None)
    if not isinstance(metric, PositionMetric) or correct is None:
        return None
    tokens = list(dict.fromkeys(int(token) for token in correct[row]))
    named = " | ".join(token_text(tokenizer, token) for token in tokens[:_NAMED]) + (
        " | ..." if len(tokens) > _NAMED else ""
    )
    return Logit(tokens[0], named, float(chances[tokens].sum()))


def _likeliest(chances: Tensor, tokenizer: Any) -> tuple[Logit, ...]:
    values, tokens = chances.topk(min(_LIKELIEST, len(chances)))
    n = int((values.cumsum(0) - values < _SHARE).sum())
    pairs = zip(tokens[:n].tolist(), values[:n].tolist(), strict=True)
    return tuple(Logit(token, token_text(tokenizer, token), value) for token, value in pairs)


def _activations(
    circuit: Circuit | FeatureCircuit, found: Mapping[Site, tuple[Tensor, Tensor]], at: tuple[int, ...]
) -> dict[str, float]:
    """Of the circuit's features: at their position; without positions, the strongest of the prompt."""
    graph = circuit.graph
    if not isinstance(graph, FeatureGraph):
        return {}
    values: dict[str, float] = {}
    encoded: dict[int, Tensor] = {}
    for name, node in zip(circuit.nodes, circuit.node_ids.tolist(), strict=True):  # pyright: ignore[reportAttributeAccessIssue]
        number = graph.place_of(node)
        place, (local, position) = graph.places[number], divmod(node, graph.n_positions)
        local -= graph.offsets[number]
        if place.dictionary is None or local >= place.n_features:
            continue
        if number not in encoded:
            encoded[number] = place.dictionary.features(found[place.site][0]).float().cpu()
        column = encoded[number][:, local]
        values[name] = float(column[at[position]] if at else column[column.abs().argmax()])
    return values
