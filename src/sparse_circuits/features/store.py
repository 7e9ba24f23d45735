"""What is known of features, in a folder: files that a killed run leaves whole, and that later runs extend."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_circuits.circuit.files import write, write_atomically
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.features.feature import Context, Feature
from sparse_circuits.features.tally import Tally, Window, bin_edges
from sparse_circuits.provenance import model_id, revision_of

FORMAT, FORMAT_VERSION, HEADER = "sparse-circuits features", 1, "store.json"
_KIND, _PART = "feature_contexts", "part-*.safetensors"


def check_whole(name: str, value: object, least: int) -> None:
    """
    Raises:
        InputError: for anything but a whole number that is large enough.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r}: expected a whole number of at least {least}.")


def folder_of(store: Any) -> Path:
    """Of a store, or of what names one.

    Raises:
        InputError: for something else.
    """
    if isinstance(store, FeatureStore):
        return store.path
    if isinstance(store, (str, Path)):
        return Path(store)
    raise InputError(f"store={store!r}: expected a FeatureStore, or the folder of one.")


@dataclass(frozen=True)
class Options:
    """What a store keeps of each feature; the same for all that is ever added to it.

    Attributes:
        context: tokens in a row that is run. before, after: what a context shows of the row.
        top: contexts on which a feature fires most. samples: contexts drawn from all where it fires.
        skip_bos: whether BOS tokens are left out of all numbers. seed: of the draw.
    """

    context: int
    before: int = 24
    after: int = 8
    top: int = 20
    samples: int = 50
    skip_bos: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        fewest = {"context": 2, "before": 0, "after": 0, "top": 1, "samples": 0, "seed": 0}
        for name, least in fewest.items():
            check_whole(name, getattr(self, name), least)
        if not isinstance(self.skip_bos, bool):
            raise InputError(f"skip_bos={self.skip_bos!r}: expected True or False.")

    @property
    def window(self) -> Window:
        return Window(self.before, self.after)


@dataclass(eq=False)
class Progress:
    """How much of a text has been counted for some features.

    Attributes:
        name: what the text was given as.
        rows, tokens: counted so far, from its start.
        marks: digests of the text up to some rows, by which it is known again.
    """

    name: str
    rows: int = 0
    tokens: int = 0
    marks: dict[int, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.marks.get(1, "0")

    def is_of(self, digests: list[str]) -> bool:
        """Whether this is the text that begins with rows of these digests, as far as both go."""
        common = [row for row in self.marks if row <= len(digests)]
        return bool(common) and all(self.marks[row] == digests[row - 1] for row in common)


@dataclass(eq=False)
class Part:
    """Features that were collected together, in a file of their own, written in one step.

    Attributes:
        names: theirs, in the order of the tally. sources: ids of the dictionaries, by site.
        strings: tokens that occur in contexts, as text.
    """

    path: Path
    names: tuple[str, ...]
    sources: dict[str, str]
    tally: Tally
    texts: list[Progress] = field(default_factory=list)
    strings: dict[int, str] = field(default_factory=dict)

    def save(self) -> None:
        header = {
            "names": list(self.names),
            "sources": self.sources,
            "texts": [asdict(text) for text in self.texts],
            "strings": self.strings,
        }
        write(self.path, _KIND, header, self.tally.state())

    @classmethod
    def load(cls, path: Path) -> Part:
        """
        Raises:
            FileFormatError: for a file that is damaged, or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("sparse_circuits", "null"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["format"] != _KIND:
                raise FileFormatError(f"{path} holds {header['format']!r}; expected contexts of features.")
            texts = [
                Progress(t["name"], t["rows"], t["tokens"], {int(row): mark for row, mark in t["marks"].items()})
                for t in header["texts"]
            ]
            strings = {int(token): text for token, text in header["strings"].items()}
            tally = Tally.of_state(state)
            if len(tally.fired) != len(header["names"]):
                raise ValueError("names and numbers of features differ")
            return cls(path, tuple(header["names"]), header["sources"], tally, texts, strings)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path} is damaged, or no file of a feature store ({error}).") from None

    @property
    def tokens(self) -> int:
        return sum(text.tokens for text in self.texts)

    def occurring(self) -> Tensor:
        """Token ids in any context."""
        both = torch.cat([self.tally.top.tokens.flatten(), self.tally.sample.tokens.flatten()]).unique()
        return both[both >= 0]


@dataclass(frozen=True, eq=False)
class FeatureStore(Mapping[str, Feature]):
    """What is known of features: :class:`Feature` by name, ``store["resid_3.f217"]``.

    A folder with ``store.json`` and one ``part-N.safetensors`` for each set of features that was collected together.

    Attributes:
        path: the folder. model: the id of the model that the features are of.
        revision: of that model: a hub model's commit, or what was edited in it; None for one without.
    """

    path: Path
    model: str
    options: Options
    parts: tuple[Part, ...] = ()
    revision: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> FeatureStore:
        """
        Raises:
            InputError: if there is no store. FileFormatError: if it is damaged, or of another version.
        """
        path = Path(path)
        file = path / HEADER
        if not file.is_file():
            raise InputError(f"{path} holds no {HEADER}; expected a folder that collect_contexts(store=...) wrote.")
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
            if header["format"] != FORMAT:
                raise FileFormatError(f"{file} is not of a feature store.")
            if header["version"] != FORMAT_VERSION:
                raise FileFormatError(
                    f"{file} has format version {header['version']!r}; this version of sparse-circuits reads {FORMAT_VERSION}."
                )
            model, revision, options = str(header["model"]), header.get("revision"), Options(**header["options"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{file} is damaged ({error}).") from None
        return cls(path, model, options, tuple(map(Part.load, sorted(path.glob(_PART)))), revision)

    @classmethod
    def new(cls, path: str | Path, model: str, options: Options, revision: str | None = None) -> FeatureStore:
        """A store of which nothing is written yet; its folder may exist, if it is empty.

        Raises:
            InputError: if something else is there.
        """
        path = Path(path)
        # a run that was killed at once may have left a hidden file behind
        if path.is_file() or (path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir())):
            raise InputError(f"{path} is no feature store; give store=... an empty or a new folder, or a store.")
        return cls(path, model, options, revision=revision)

    def begin(self) -> None:
        """Write what a folder needs to be a store, unless it is one; then remove what a killed run was about to write."""
        if (self.path / HEADER).is_file():
            for file in self.path.glob(f".{_PART}"):
                file.unlink(missing_ok=True)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "version": FORMAT_VERSION, "model": self.model, "revision": self.revision}
        header["options"] = asdict(self.options)
        text = json.dumps(header, indent=2) + "\n"
        write_atomically(self.path / HEADER, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def check_model(self, model: Any) -> None:
        """
        Raises:
            InputError: for another model than the store is of, or another revision of it, such as an edited one.
        """
        if self.model != model_id(model):
            raise InputError(
                f"The store {self.path} is of {self.model}, and this model is {model_id(model)}; give another store."
            )
        revision = revision_of(model)
        if self.revision != revision:
            raise InputError(
                f"The store {self.path} is of another revision of {self.model}: {self.revision!r}, and this model's is "
                f"{revision!r}; give another store, or the model that it is of."
            )

    # --- what it knows ---

    @cached_property
    def _places(self) -> dict[str, tuple[Part, int]]:
        return {name: (part, i) for part in self.parts for i, name in enumerate(part.names)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.partition("@")[0] in self._places

    def __getitem__(self, name: str) -> Feature:
        """What texts say of a feature. What its weights say is added by :func:`feature_pages`."""
        bare = name.partition("@")[0]
        if bare not in self._places:
            raise KeyError(
                f"The store has no {name!r}; it has {len(self)} features, such as {next(iter(self), None)!r}."
            )
        return self._feature(bare, *self._places[bare])

    @property
    def tokens(self) -> dict[str, int]:
        """How many tokens were counted, by text: of the features that have seen most of it."""
        found: dict[str, int] = {}
        for part in self.parts:
            for text in part.texts:
                name = f"{text.name} ({text.key[:6]})"
                found[name] = max(found.get(name, 0), text.tokens)
        return found

    def to_dict(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """JSON-ready pages by name."""
        return {name: self[name].to_dict() for name in (self if names is None else names)}

    def _feature(self, name: str, part: Part, i: int) -> Feature:
        tally = part.tally
        counts = tally.histogram[i]
        fired = int(tally.fired[i])
        used = counts.nonzero()[:, 0].tolist()
        low, high = (used[0], used[-1] + 1) if used else (0, 0)
        return Feature(
            name=name,
            tokens=part.tokens,
            fired=fired,
            mean=float(tally.total[i]) / fired if fired else 0.0,
            highest=float(tally.highest[i]),
            lowest=float(tally.lowest[i]),
            bin_edges=tuple(bin_edges()[low : high + 1]) if used else (),
            bin_counts=tuple(counts[low:high].tolist()),
            top=tuple(self._context(part, "top", i, j) for j in tally.top.order(i)),
            sample=tuple(self._context(part, "sample", i, j) for j in tally.sample.order(i)),
            source=part.sources.get(name.partition(".")[0], "neurons" if ".n" in name else "heads"),
        )

    def _context(self, part: Part, which: str, i: int, j: int) -> Context:
        kept = getattr(part.tally, which)
        text, row, position, start = kept.at[i, j].tolist()
        tokens = [token for token in kept.tokens[i, j].tolist() if token >= 0]
        return Context(
            tokens=tuple(part.strings.get(token, str(token)) for token in tokens),
            values=tuple(kept.values[i, j, : len(tokens)].tolist()),
            peak=position - start,
            value=float(kept.value[i, j]),
            text=part.texts[text].name,
            row=row,
            position=position,
        )

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_store

        return of_store(self)

    def __repr__(self) -> str:
        texts = ", ".join(f"{n:,} tokens of {name}" for name, n in self.tokens.items())
        return f"FeatureStore({str(self.path)!r}: {len(self)} features of {self.model}, {texts or 'no text yet'})"
