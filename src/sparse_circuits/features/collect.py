"""Contexts of many features in one pass over a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import InputError, SparseCircuitsError
from sparse_circuits.features.nodes import Probe, dictionaries_of, names_in, probes_for
from sparse_circuits.features.store import FeatureStore, Options, Part, Progress, check_whole, folder_of
from sparse_circuits.features.tally import Tally, Where, draws
from sparse_circuits.features.texts import Chain, Row, Texts, first_digests
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.progress import tracker
from sparse_circuits.provenance import model_id, revision_of
from sparse_circuits.task.tokens import token_text

_CONTEXT = 128


@torch.no_grad()
def collect_contexts(
    model: Any,
    nodes: Any,
    texts: Any = "toy",
    *,
    store: str | Path | FeatureStore,
    dictionaries: Any = None,
    tokens: int | None = None,
    context: int | None = None,
    before: int | None = None,
    after: int | None = None,
    top: int | None = None,
    samples: int | None = None,
    skip_bos: bool | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    save_every: int = 32,
    progress: bool = False,
) -> FeatureStore:
    """Where features, neurons and heads fire in a text: the strongest contexts, a sample of all, counts and histograms.

    >>> store = sc.collect_contexts(model, circuit, "toy", store="features", tokens=100_000)
    >>> store["resid_3.f217"].top[0]

    One pass over the text for all of them, at every site at once, without the unembedding: about one forward pass. Only
    the features asked for are encoded where no feature depends on another (ReLU, JumpReLU, gated), and whole dictionaries
    otherwise (TopK). What is held does not grow with the text: per feature ``top + samples`` contexts and one histogram.

    The store is a folder that is written every ``save_every`` batches, each file in one step. The same call after a run was
    killed goes on from there, and with the same batch size ends with the same bytes as one that ran through. A text that the
    store has is known by its tokens, and is never counted twice: a longer text, or a larger ``tokens=``, is gone on with from
    where it ended, and another text is added. Features that the store does not have get a pass of their own over the text;
    those of earlier runs keep their counts.

    Args:
        nodes: a circuit, whose features, neurons (``"m2.n40"``) and heads (``"a1.h3"``) are looked at and whose error terms and
            whole sites are left out; or names; or feature numbers by site (``{"resid_3": range(100)}``).
        texts: "toy" (the bundled language; "toy:3" for another seed than the store's); a .txt file (an empty line ends a
            document) or a .jsonl one (fields ``text`` or ``tokens``), perhaps with .gz; ``"hf:NAME"`` or
            ``"hf:NAME:CONFIGURATION"``, a Hugging Face dataset, as a stream; such a dataset itself; a folder that one was
            saved in; a task, for its clean prompts; or anything that can be gone through, of strings, of lists of token ids, or
            of rows with one of these.
        store: the folder, made if it is not there, or a store.
        dictionaries: what names refer to; by default the circuit's own.
        tokens: stop after the row with which so many are counted; by default at the end, and for the toy language at 100,000.
        context: tokens in a row: 128, or the model's most where that is less. Longer documents are cut.
        before, after: tokens that a context shows around its own: 24 and 8.
        top, samples: contexts kept per feature: the 20 strongest, one of each row, and 50 drawn at random.
        skip_bos: leave BOS tokens out of all numbers (True): features there are like nowhere else.
        seed: of the draw, and of the toy language: 0. These seven are the store's own where it is there already.
        save_every: batches between two writes of the store.

    Raises:
        InputError: for names without a dictionary, something that is no text, a store of another model (an edited one too), of
            other dictionaries or with other options, or a text that begins like one in the store and then differs.
            FileFormatError: for a file that is not UTF-8, or has a line that is not JSON.
    """
    check_whole("batch_size", batch_size, 1)
    check_whole("save_every", save_every, 1)
    if tokens is not None:
        check_whole("tokens", tokens, 1)
    anatomy = anatomy_of(model)
    names, _ = names_in(nodes)
    known = dictionaries_of(nodes, dictionaries)
    given = {"context": context, "before": before, "after": after, "top": top, "samples": samples}
    given |= {"skip_bos": skip_bos, "seed": seed}
    opened = _opened(store, model, anatomy, {name: value for name, value in given.items() if value is not None})
    options = opened.options
    probes_for(anatomy, names, known)  # refuses what there is not, before anything is written
    source = Texts(model, anatomy, texts, options.context, options.skip_bos, tokens, options.seed)
    parts = _parts(opened, anatomy, names, known)
    passes = [_Pass(part, probes_for(anatomy, part.names, known), options) for part in parts]
    rows = source.rows()
    first, digests = first_digests(rows)
    if not first:
        raise InputError(f"The texts ({source.name}) hold no token to look at.")
    for one in passes:
        one.find(source.name, digests)
    opened.begin()
    total: Any = _total(source, texts, batch_size)
    done, running = Chain(), _Run(model, anatomy, passes, source.name)
    read = _saving(_batches(chain(first, rows), batch_size), running)
    for number, batch in enumerate(tracker(read, total, "contexts", progress), start=1):
        running.take(batch, done)
        if number % save_every == 0:
            running.save()
    running.save()
    return FeatureStore.load(opened.path)


class _Pass:
    """One part of the store on its way through one text."""

    def __init__(self, part: Part, probes: list[Probe], options: Options) -> None:
        self.part, self.probes, self.options = part, probes, options
        self.text, self.changed = 0, False
        self.offsets: dict[int, int] = {}
        start = 0
        for probe in probes:
            self.offsets[id(probe)] = start
            start += len(probe.names)

    @property
    def progress(self) -> Progress:
        return self.part.texts[self.text]

    def find(self, name: str, digests: list[str]) -> None:
        """Which of its texts this is, or a new one."""
        for number, text in enumerate(self.part.texts):
            if text.is_of(digests):
                self.text = number
                return
        self.part.texts.append(Progress(name))
        self.text = len(self.part.texts) - 1

    def check(self, row: int, digest: str) -> None:
        """
        Raises:
            InputError: if the text is another one from here on than the one that was counted.
        """
        if self.progress.marks.get(row, digest) != digest:
            raise InputError(
                f"The text begins as {self.progress.name!r} does, of which the store has counted {self.progress.rows:,} rows, "
                f"but differs from it by row {row:,}. Give it a store of its own, or leave out what it shares."
            )

    def visit(self, site: Site, read: Tensor, skip: int, where: Where) -> None:
        for probe in self.probes:
            if probe.site == site:
                values = probe.values(read[skip:])
                self.part.tally.add(self.offsets[id(probe)], values, where.rows_from(skip), self.options.window)


class _Run:
    """The pass of all parts over a text, batch by batch."""

    def __init__(self, model: Any, anatomy: Anatomy, passes: list[_Pass], name: str) -> None:
        self.anatomy, self.passes, self.name = anatomy, passes, name
        self.tokenizer = getattr(model, "tokenizer", None)
        bos = getattr(self.tokenizer, "bos_token_id", None)
        self.skipped = bos if passes[0].options.skip_bos else None

    def take(self, rows: list[Row], done: Chain) -> None:
        """Count a batch for every part that has not yet; ``done`` is the text up to it, and then with it."""
        start = done.rows
        fresh = [one for one in self.passes if one.progress.rows < start + len(rows)]
        marks: dict[int, str] = {}
        for row in rows:
            digest = done.add(row.ids)
            for one in self.passes:
                one.check(done.rows, digest)
            if done.marked or row is rows[-1]:
                marks[done.rows] = digest
        if not fresh:
            return
        skips = {id(one): max(0, one.progress.rows - start) for one in fresh}
        least = min(skips.values())
        self._run(rows[least:], start + least, done, marks, fresh, {key: n - least for key, n in skips.items()})
        for one in fresh:
            progress = one.progress
            progress.tokens += sum(row.counted for row in rows[skips[id(one)] :])
            progress.rows = done.rows
            progress.marks = {r: m for r, m in progress.marks.items() if r <= 64 or r % 1024 == 0} | marks
            one.changed = True

    def _run(
        self,
        rows: list[Row],
        first_row: int,
        done: Chain,
        marks: dict[int, str],
        fresh: list[_Pass],
        skips: dict[int, int],
    ) -> None:
        lengths = torch.tensor([len(row.ids) for row in rows])
        width = int(lengths.max())
        tokens = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        real = torch.arange(width) < lengths[:, None]
        counted = real if self.skipped is None else real & (tokens != self.skipped)
        placed: dict[int, Where] = {}
        for one in fresh:
            key = one.progress.key if one.progress.marks else marks[1]
            draw = draws(key, one.options.seed, first_row, len(rows), width)
            placed[id(one)] = Where(tokens, lengths, counted, one.text, first_row, draw)
        sites = {probe.site for one in fresh for probe in one.probes}
        device = self.anatomy.device

        def visit(site: Site, read: Tensor, written: Tensor) -> Tensor:
            for one in fresh:
                one.visit(site, read, skips[id(one)], placed[id(one)])
            return written

        padding = None if bool(real.all()) else real.to(device)
        Walk(self.anatomy, sites, padding).run(self.anatomy.embed(tokens.to(device)), visit)

    def save(self) -> None:
        for one in self.passes:
            if one.changed:
                self._name_tokens(one.part)
                one.part.save()
                one.changed = False

    def _name_tokens(self, part: Part) -> None:
        """Tokens that occur in contexts as text; those that no longer do are dropped."""
        occurring = part.occurring().tolist()
        strings = {token: part.strings[token] for token in occurring if token in part.strings}
        strings |= {token: token_text(self.tokenizer, token) for token in occurring if token not in strings}
        part.strings = dict(sorted(strings.items()))


def _opened(store: str | Path | FeatureStore, model: Any, anatomy: Anatomy, given: dict[str, Any]) -> FeatureStore:
    """The store, made if it is not there.

    Raises:
        InputError: for one of another model or another revision of it, or with other options.
    """
    path = folder_of(store)
    longest = anatomy.max_positions
    if not (path / "store.json").is_file():
        options = Options(**{"context": min(_CONTEXT, longest or _CONTEXT), **given})
        if longest is not None and options.context > longest:
            raise InputError(f"context={options.context}: the model has no more than {longest} positions.")
        return FeatureStore.new(path, model_id(model), options, revision_of(model))
    opened = FeatureStore.load(path)
    opened.check_model(model)
    for name, value in given.items():
        has = getattr(opened.options, name)
        if value != has:
            raise InputError(f"The store {path} has {name}={has}, not {value}; leave it out, or give another store.")
    return opened


def _parts(
    store: FeatureStore, anatomy: Anatomy, names: Iterable[str], dictionaries: Mapping[str, Dictionary]
) -> list[Part]:
    """The parts that have any of these features, and a new one for those that none has.

    Raises:
        InputError: for features of dictionaries other than the store's, or where the dictionary of others in a part is missing.
    """
    wanted = set(names)
    parts = [part for part in store.parts if wanted & set(part.names)]
    for part in parts:
        for site, id in part.sources.items():
            if site not in dictionaries:
                raise InputError(
                    f"The store has features of {site} that were collected together with these; pass dictionaries=... with "
                    f"{id!r}, or give another store."
                )
            if dictionaries[site].id != id:
                raise InputError(
                    f"The store's features at {site} are of {id!r}, and these of {dictionaries[site].id!r}; give another store."
                )
        wanted -= set(part.names)
    if wanted:
        probes = probes_for(anatomy, wanted, dictionaries)
        ordered = tuple(name for probe in probes for name in probe.names)
        sources = {name.partition(".")[0]: p.source for p in probes for name in p.names if ".f" in name}
        options = store.options
        tally = Tally.empty(len(ordered), options.top, options.samples, options.window)
        number = max((int(part.path.stem.rpartition("-")[2]) for part in store.parts), default=-1) + 1
        parts.append(Part(store.path / f"part-{number:03d}.safetensors", ordered, sources, tally))
    return parts


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _saving(batches: Iterator[list[Row]], running: _Run) -> Iterator[list[Row]]:
    """The same; where the text breaks off, what was counted until then is kept."""
    try:
        yield from batches
    except SparseCircuitsError:
        running.save()
        raise


def _total(source: Texts, texts: Any, batch_size: int) -> int | None:
    """About how many batches there will be, or None where that cannot be told."""
    if source.limit is not None:
        return -(-source.limit // (batch_size * (source.context - 1)))
    try:
        return -(-len(texts) // batch_size) if not isinstance(texts, (str, Path)) else None
    except TypeError:
        return None
