"""Slow and obvious: feature graphs through TransformerLens's own hooks and autograd, not the library's forward pass.

Of the library it takes dictionaries (what a feature is) and a graph's list of places; which place reads which, what a node's
derivative is and where gradients stop come out of autograd, with every dictionary's whole encoder in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from oracles import run_hooked
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary, Normalized
from sparse_circuits.model.sites import Site

# what a transcoder reads, by TransformerLens's name of it on a bridge
READS = {"resid_mid": "ln2.hook_in", "normalized": "ln2.hook_normalized", "normed": "mlp.hook_in"}


def random_dictionary(
    site: Site,
    d_in: int,
    n_features: int = 10,
    *,
    d_out: int | None = None,
    top: int | None = None,
    normalize: Callable[[Tensor], Normalized] | None = None,
    skip: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    """A ReLU or TopK dictionary of random weights; about half of the features, or ``top`` of them, fire."""
    generator = torch.Generator().manual_seed(seed + 1000 * site.order[1] + site.layer)

    def weights(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    d_out = d_in if d_out is None else d_out
    W_enc, b_enc, W_dec = (
        weights(d_in, n_features) / d_in**0.5,
        0.2 * weights(n_features),
        weights(n_features, d_out) / 4,
    )

    def code(x: Tensor) -> Tensor:
        hidden = x @ W_enc + b_enc
        if top is None:
            return hidden.relu()
        kept = hidden.topk(top, dim=-1).indices
        return torch.zeros_like(hidden).scatter(-1, kept, hidden.gather(-1, kept).relu())

    return Dictionary(
        site, f"random/{site.name}/{seed}", site.hook_name, site.hook_name, W_enc, b_enc, W_dec, 0.1 * weights(d_out), code,
        normalize, 0.2 * weights(d_out, d_in) / d_in**0.5 if skip else None,
    )  # fmt: skip


def layer_norm(x: Tensor) -> Normalized:
    mean = x.mean(-1, keepdim=True)
    std = (x - mean).std(-1, keepdim=True)
    return Normalized((x - mean) / (std + 1e-5), std, mean)


def constant_norm(x: Tensor) -> Normalized:
    scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return Normalized(x / scale, scale, None)


def read_only(x: Tensor) -> Normalized:
    """A transcoder's: only what it reads is normalised."""
    normed, scale, _ = layer_norm(x)
    return Normalized(normed, torch.ones_like(scale), None)


@dataclass
class Split:
    """One place in one run: what is read and written there (``[batch, pos, width]``), and its nodes' values.

    Attributes:
        features: ``[batch, pos, F]``, or None; ``rest``: the error term, or what a site without a dictionary writes.
        base, skip: the parts that are no nodes.
    """

    read: Tensor
    written: Tensor
    features: Tensor | None
    rest: Tensor
    base: Tensor | float = 0.0
    skip: Tensor | float = 0.0


def split(dictionary: Dictionary | None, read: Tensor, written: Tensor) -> Split:
    if dictionary is None:
        return Split(read, written, None, written)
    normed, scale, shift = read, 1.0, 0.0
    if dictionary.normalize is not None:
        normed, scale, shift = dictionary.normalize(read)
        shift = 0.0 if shift is None else shift
    features = dictionary.code(normed) * scale
    base = dictionary.b_dec * scale + shift
    skip = 0.0 if dictionary.W_skip is None else read @ dictionary.W_skip.T
    return Split(read, written, features, written - features @ dictionary.W_dec - base - skip, base, skip)


Put = Callable[[int, Split], "Tensor | None"]


class Runs:
    """Runs of one model on prompts of one length, with something done at a graph's places; the metric is at the last token."""

    def __init__(self, model: Any, graph: Any, task: Any, metric: Callable[[Tensor], Tensor] | None = None) -> None:
        self.model, self.graph, self.places = model, graph, graph.places
        self.clean = torch.tensor(task.clean)
        self.corrupted = None if task.corrupted is None else torch.tensor(task.corrupted)
        self.points = dict(model.hook_dict)  # a bridge puts it together anew every time
        self._metric = metric or self._difference(task)
        self.names = [self._names(place.site) for place in self.places]

    def _difference(self, task: Any) -> Callable[[Tensor], Tensor]:
        rows, right, wrong = (
            torch.arange(len(self.clean)),
            *map(torch.tensor, (task.metric.correct, task.metric.incorrect)),
        )
        return lambda logits: logits[rows, -1, right] - logits[rows, -1, wrong]

    def _names(self, site: Site) -> tuple[str | None, str]:
        """Hook points of what is read, where it differs, and written."""
        if site.kind != "transcoder":
            return None, site.hook_name
        return f"blocks.{site.layer}.{READS[site.reads]}", f"blocks.{site.layer}.hook_mlp_out"

    def run(self, tokens: Tensor, put: Put | None = None, copies: int = 1) -> tuple[Tensor, list[Split]]:
        """The metric per example, and every place; ``put`` may return what is written there instead.

        ``tokens`` may hold several copies of the prompts, one after the other, each for something else to be put in.
        """
        found: list[Split | None] = [None] * len(self.places)
        reads: dict[int, Tensor] = {}
        hooks = []

        def reader(i: int) -> Callable:
            def hook(x: Tensor, hook: object) -> None:
                reads[i] = x

            return hook

        def writer(i: int) -> Callable:
            def hook(x: Tensor, hook: object) -> Tensor:
                flat = x.flatten(2)  # z has a dimension for heads
                dictionary = self.places[i].dictionary
                found[i] = split(dictionary, reads.get(i, flat), flat)
                other = None if put is None else put(i, found[i])
                return x if other is None else other.view_as(x).to(x.dtype)

            return hook

        for i, (read, written) in enumerate(self.names):
            if read is not None:
                hooks.append((read, reader(i)))
            hooks.append((written, writer(i)))
        logits = run_hooked(self.model, self.points, tokens, hooks)
        metric = self._metric(logits) if copies == 1 else torch.cat([self._metric(x) for x in logits.chunk(copies)])
        return metric, found  # pyright: ignore[reportReturnType]

    def values(self, tokens: Tensor) -> list[Split]:
        with torch.no_grad():
            return self.run(tokens)[1]

    def nodes(self, place: int) -> Iterator[tuple[int, str, int]]:
        """A place's nodes: number within the place, whether a feature or a block of the rest, and which."""
        spot = self.places[place]
        yield from ((f, "feature", f) for f in range(spot.n_features))
        yield from ((spot.n_features + b, "block", b) for b in range(spot.n_blocks))

    def block(self, place: int, values: Tensor, which: int) -> Tensor:
        """One of the equal parts that whole nodes have of what is written; the others 0."""
        parts = values.unflatten(-1, (self.places[place].n_blocks, -1))
        mask = torch.zeros(parts.shape[-2], 1, dtype=values.dtype)
        mask[which] = 1
        return (parts * mask).flatten(-2)


@dataclass
class Changes:
    """What ablation adds at each place: to features ``[batch, pos, F]`` (or None) and to the rest ``[batch, pos, d]``."""

    features: list[Tensor | None]
    rest: list[Tensor]


def patched(runs: Runs) -> Changes:
    """To the corrupted run's values. The error has all that features have not, also what a base at run time changes by."""
    ends = zip(runs.values(runs.clean), runs.values(runs.corrupted), strict=True)
    features, rest = [], []
    for (a, b), place in zip(ends, runs.places, strict=True):
        moved = (b.written - b.skip) - (a.written - a.skip)
        change = None if a.features is None else b.features - a.features
        features.append(change)
        rest.append(moved if change is None else moved - change @ place.dictionary.W_dec)
    return Changes(features, rest)


def zeroed(runs: Runs) -> Changes:
    clean = runs.values(runs.clean)
    return Changes([None if s.features is None else -s.features for s in clean], [-s.rest for s in clean])


def averaged(runs: Runs, over: Tensor, dims: Sequence[int]) -> Changes:
    """To means over some prompts: dims (0, 1) for one value, (0,) for one at each position."""
    clean, features, rest = runs.values(runs.clean), [], []
    for s, other, place in zip(clean, runs.values(over), runs.places, strict=True):
        moved = (other.written - other.skip).mean(dims, keepdim=True) - (s.written - s.skip)
        change = None if s.features is None else other.features.mean(dims, keepdim=True) - s.features
        features.append(change)
        rest.append(moved if change is None else moved - change @ place.dictionary.W_dec)
    return Changes(features, rest)


@torch.no_grad()
def exact_effects(runs: Runs, changes: Changes, groups: Tensor, n_groups: int) -> Tensor:
    """m(clean, do(node = its ablated value)) - m(clean), a place's nodes side by side: ``[examples, nodes of the graph]``.

    Args:
        groups: the position of the graph that each token is at, ``[batch, pos]``.
    """
    base, _ = runs.run(runs.clean)
    out = torch.zeros(len(base), runs.graph.offsets[-1] * n_groups)
    for place, (offset, spot) in enumerate(zip(runs.graph.offsets, runs.places, strict=False)):
        columns, changed = [], []
        for node, kind, which in runs.nodes(place):
            change = changes.features[place] if kind == "feature" else None
            moved = (
                runs.block(place, changes.rest[place], which)
                if change is None
                else change[..., which, None] * spot.dictionary.W_dec[which]
            )
            for group in range(n_groups):
                there = moved * (groups == group)[..., None]
                if bool(there.any()):
                    columns.append((offset + node) * n_groups + group)
                    changed.append(there)
        if not columns:
            continue

        def put(i: int, s: Split, place: int = place, changed: list[Tensor] = changed) -> Tensor | None:
            return s.written + torch.cat(changed) if i == place else None

        values, _ = runs.run(runs.clean.repeat(len(columns), 1), put, len(columns))
        out[:, columns] = (values.view(len(columns), -1) - base).T
    return out


def gradients(
    runs: Runs, tokens: Tensor | None = None, at: int | None = None, moved: Tensor | None = None
) -> list[Tensor]:
    """dm/d(what is written) at every place; at one place ``moved`` may be added first."""
    leaves: list[Tensor] = []

    def put(i: int, s: Split) -> Tensor:
        added = torch.zeros_like(s.written).requires_grad_()
        leaves.append(added)
        return s.written + added + (moved if i == at else 0.0)

    value, _ = runs.run(runs.clean if tokens is None else tokens, put)
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def along_activations(runs: Runs, changes: Changes, points: Sequence[tuple[float, float]]) -> list[Tensor]:
    """The average gradient at each place while that place alone goes from ablated (0) to clean (1)."""
    out = []
    for place, spot in enumerate(runs.places):
        moved = changes.rest[place]
        if spot.dictionary is not None:
            moved = moved + changes.features[place] @ spot.dictionary.W_dec
        out.append(sum(w * gradients(runs, None, place, (1 - t) * moved)[place] for t, w in points))
    return out


def node_effects(runs: Runs, changes: Changes, at: list[Tensor]) -> list[Tensor]:
    """To first order, per place ``[batch, pos, nodes]``: the change times a gradient through the decoder."""
    out = []
    for place, spot in enumerate(runs.places):
        parts = []
        if spot.dictionary is not None:
            parts.append(changes.features[place] * (at[place] @ spot.dictionary.W_dec.T))
        parts += [
            runs.block(place, changes.rest[place], b).mul(at[place]).sum(-1, keepdim=True) for b in range(spot.n_blocks)
        ]
        out.append(torch.cat(parts, -1))
    return out


class CutRun:
    """A clean run in which every node of every place is a leaf of its own: gradients stop at all of them."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.computed: list[Split] = []  # as made from the leaves before it
        self.features: list[Tensor | None] = []
        self.rest: list[Tensor] = []

        def put(i: int, s: Split) -> Tensor:
            self.computed.append(s)
            z = None if s.features is None else s.features.detach().requires_grad_()
            rest = s.rest.detach().requires_grad_()
            self.features.append(z)
            self.rest.append(rest)
            if z is None:
                return rest
            base = s.base.detach() if isinstance(s.base, Tensor) else s.base
            return z @ runs.places[i].dictionary.W_dec + base + rest + s.skip  # the skip connection carries gradient

        self.metric, _ = runs.run(runs.clean, put)

    def leaves(self, place: int) -> list[Tensor]:
        z = self.features[place]
        return [self.rest[place]] if z is None else [z, self.rest[place]]


def targets(runs: Runs, effects: list[Tensor], above: float) -> list[list[tuple[int, int, int]]]:
    """Downstream nodes of each place: (example, position, node) with an effect above a threshold."""
    clean = runs.values(runs.clean)
    out = []
    for s, spot, found in zip(clean, runs.places, effects, strict=True):
        wanted = found.abs() > above
        if s.features is not None:  # a feature that does not fire has no derivative
            wanted[..., : spot.n_features] &= s.features != 0
        out.append([(b, p, n) for b, p, n in wanted.nonzero().tolist()])
    return out


def edges(
    runs: Runs,
    changes: Changes,
    at: list[Tensor],
    wanted: list[list[tuple[int, int, int]]],
    parents: Sequence[Sequence[int]] | None = None,
    groups: Tensor | None = None,
    n_groups: int = 1,
) -> dict[tuple[int, int], Tensor]:
    """Edges into some downstream nodes, by (downstream place, upstream place): sums ``[down nodes, up nodes]``, nodes per group.

    One backward pass per downstream node and pair of places, from the node's own value, encoder and all, to the leaves of
    the upstream place. An edge is (u' - u) times dm/dd (of ``at``) times dd/du.

    Args:
        parents: upstream places to look at; by default all before it, which shows what a graph must not leave out.
    """
    cut, graph = CutRun(runs), runs.graph
    groups = torch.zeros_like(runs.clean) if groups is None else groups
    out = {}
    for down, nodes in enumerate(wanted):
        s, spot = cut.computed[down], runs.places[down]
        for up in range(down) if parents is None else parents[down]:
            size = graph.places[up].size
            table = torch.zeros(spot.size * n_groups, size * n_groups)
            for b, p, n in nodes:
                g = at[down][b, p]
                if n < spot.n_features:
                    value = s.features[b, p, n] * (g @ spot.dictionary.W_dec[n])
                else:
                    value = runs.block(down, s.rest[b, p], n - spot.n_features) @ g
                if not value.requires_grad:
                    continue
                leaves = cut.leaves(up)
                found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
                if all(f is None for f in found):
                    continue
                parts = []
                if cut.features[up] is not None:
                    parts.append(changes.features[up] * (0.0 if found[0] is None else found[0]))
                if found[-1] is not None:
                    product = (changes.rest[up] * found[-1]).unflatten(-1, (graph.places[up].n_blocks, -1)).sum(-1)
                    parts.append(product)
                else:
                    parts.append(torch.zeros(*changes.rest[up].shape[:2], graph.places[up].n_blocks))
                product = torch.cat(parts, -1)
                row = table[n * n_groups + int(groups[b, p])].view(size, n_groups)
                for group in range(n_groups):
                    row[:, group] += (product * (groups == group)[..., None]).sum((0, 1))
            out[down, up] = table
    return out


def logits_edges(runs: Runs, changes: Changes) -> list[Tensor]:
    """Edges into the logits at the clean run, per place ``[batch, pos, nodes]``: the direct gradient times the change."""
    cut = CutRun(runs)
    out = []
    for place, spot in enumerate(runs.places):
        leaves = cut.leaves(place)
        found = [
            torch.zeros_like(leaf) if g is None else g
            for g, leaf in zip(
                torch.autograd.grad(cut.metric.sum(), leaves, retain_graph=True, allow_unused=True), leaves, strict=True
            )
        ]
        rest = (changes.rest[place] * found[-1]).unflatten(-1, (spot.n_blocks, -1)).sum(-1)
        out.append(rest if spot.dictionary is None else torch.cat([changes.features[place] * found[0], rest], -1))
    return out


def reachable(runs: Runs) -> tuple[list[set[int]], list[bool]]:
    """Per place, and for the logits at the end: which places are read directly, and whether only at the same token."""
    cut, generator = CutRun(runs), torch.Generator().manual_seed(0)
    read, local = [], []
    for down in range(len(runs.places) + 1):
        if down == len(runs.places):
            outputs = [cut.metric]
        else:
            s = cut.computed[down]
            outputs = [t for t in (s.read, s.written) if t.requires_grad]
        parents, same = set(), True
        for up in range(min(down, len(runs.places))):
            for output in outputs:
                weights = torch.randn(output.shape, generator=generator)
                if output.dim() > 1:  # one token late in the prompt; its gradient tells where it looks
                    weights[:, :-2], weights[:, -1] = 0.0, 0.0
                (found,) = torch.autograd.grad(
                    (output * weights).sum(), [cut.rest[up]], retain_graph=True, allow_unused=True
                )
                if found is None or not bool(found.any()):
                    continue
                parents.add(up)
                token = -1 if output.dim() == 1 else -2
                elsewhere = found.clone()
                elsewhere[:, token] = 0
                same &= not bool(elsewhere.any())
        read.append(parents)
        local.append(same)
    return read, local
