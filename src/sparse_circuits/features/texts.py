"""Texts as rows of tokens: of the toy language, of files, of Hugging Face datasets, of anything that can be gone through."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, TextIO

from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.model.anatomy import Anatomy
from sparse_circuits.task.task import Encoder, Task

TOY_TOKENS = 100_000
_FIELDS = ("text", "content", "input_ids", "tokens")
_DENSE, _APART = 64, 1024  # up to here every row's digest is kept, then one in so many
_LONGEST = 1 << 20  # characters of a file that are held at a time


@dataclass(frozen=True, eq=False)
class Row:
    """One row of tokens as it is run, and how many of them are counted."""

    ids: list[int]
    counted: int


class Texts:
    """Documents cut into rows of at most ``context`` tokens, in order.

    A document that is text gets the BOS token that the model expects in front of each of its rows; token ids are taken as they
    are. No row holds two documents.

    Raises:
        InputError: for something that is no text, text without a tokenizer, or an id outside the vocabulary.
    """

    def __init__(
        self, model: Any, anatomy: Anatomy, texts: Any, context: int, skip_bos: bool, tokens: int | None, seed: int
    ) -> None:
        self.context, self.anatomy = context, anatomy
        self.limit = tokens
        self._encode = Encoder(model)
        bos = getattr(self._encode.tokenizer, "bos_token_id", None)
        self._skipped = bos if skip_bos else None
        toy = re.fullmatch(r"toy(?::(\d+))?", texts) if isinstance(texts, str) else None
        if toy is not None:
            seed = seed if toy[1] is None else int(toy[1])
            self.name = f"toy, seed {seed}"
            self.limit = TOY_TOKENS if tokens is None else tokens
            self._documents: Iterable[Any] = _Toy(self._encode.tokenizer, context, seed)
        elif isinstance(texts, Task):
            prompts = texts.tokenized(model, anatomy, corrupted=False)
            self.name, self._documents = f"prompts of {texts.name}", prompts.clean
        else:
            self.name, self._documents = documents_of(texts)

    def rows(self) -> Iterator[Row]:
        """The rows up to the limit; the last one is whole."""
        seen = 0
        for document in self._documents:
            for ids in self._cut(document):
                row = Row(ids, sum(token != self._skipped for token in ids))
                if row.counted == 0:
                    continue
                yield row
                seen += row.counted
                if self.limit is not None and seen >= self.limit:
                    return

    def _cut(self, document: Any) -> Iterator[list[int]]:
        if isinstance(document, str):
            tokenizer = self._encode.tokenizer
            if tokenizer is None:
                raise InputError("The texts are strings, but the model has no tokenizer; give lists of token ids.")
            ids = list(tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"])
            bos = [tokenizer.bos_token_id] * self._encode.n_prepended
        else:
            ids, bos = _ids(document), []
            last = self.anatomy.d_vocab - 1
            outside = next((token for token in ids if not 0 <= token <= last), None)
            if outside is not None:
                raise InputError(
                    f"A text holds token {outside}; expected ids from 0 to {last}, the model's vocabulary."
                )
        step = self.context - len(bos)
        for start in range(0, len(ids), step):
            yield bos + ids[start : start + step]


class Chain:
    """Digests of all rows so far: what a text is known by, so that none is counted twice."""

    def __init__(self) -> None:
        self.digest, self.rows = "", 0

    def add(self, ids: list[int]) -> str:
        data = self.digest.encode() + struct.pack(f"<{len(ids)}i", *ids)
        self.digest = hashlib.sha256(data).hexdigest()[:16]
        self.rows += 1
        return self.digest

    @property
    def marked(self) -> bool:
        """Whether the digest at this row is one to keep."""
        return self.rows <= _DENSE or self.rows % _APART == 0


def first_digests(rows: Iterator[Row]) -> tuple[list[Row], list[str]]:
    """The first rows of a text and their digests, by which a text that a store has is found again."""
    first, chain = list(islice(rows, _DENSE)), Chain()
    return first, [chain.add(row.ids) for row in first]


# --- where documents come from ---


def documents_of(texts: Any) -> tuple[str, Iterable[Any]]:
    """A name and the documents, strings or lists of token ids, of what ``texts=`` was given.

    Raises:
        InputError: for what cannot be read as texts. What cannot be told before it is read is found out then.
    """
    if isinstance(texts, Path) or (isinstance(texts, str) and Path(texts).expanduser().exists()):
        path = Path(texts).expanduser()
        if path.is_file():
            return path.name, _file(path)
        if path.is_dir():
            return path.name, _Rows(_dataset(path))
        raise InputError(f"No text file at {path}.")
    if isinstance(texts, str):
        if texts.startswith(("hf:", "https://huggingface.co/datasets/")):
            name = texts.removeprefix("hf:").removeprefix("https://huggingface.co/datasets/")
            if not name.partition(":")[0].strip():
                raise InputError(
                    f"texts={texts!r}: names no dataset; expected a name after it, such as 'hf:NeelNanda/pile-10k'."
                )
            return name, _Rows(_Stream(name, _dataset(*name.split(":", 1))))
        raise InputError(
            f"texts={texts[:40]!r}: there is no such file; expected 'toy', a .txt or .jsonl file, 'hf:' and a Hugging Face "
            "dataset's name, a dataset, or a list of texts (a single text stands in a list too)."
        )
    if isinstance(texts, Mapping):
        raise InputError("texts={...}: expected one split of a dataset, such as dataset['train'], or a list of texts.")
    if hasattr(texts, "columns") and hasattr(texts, "iterrows"):  # going through a table gives the names of its columns
        raise InputError(
            f"texts={type(texts).__name__}: expected texts, not a table; give one column of it as a list, such as "
            "table['text'].tolist()."
        )
    if not isinstance(texts, Iterable):
        raise InputError(f"texts={type(texts).__name__}: expected texts, a file or a dataset.")
    name = getattr(getattr(texts, "info", None), "dataset_name", None) or "texts"
    return str(name), _Rows(texts)


class _Toy:
    """The toy language's text without an end, the same for the same seed."""

    def __init__(self, tokenizer: Any, context: int, seed: int) -> None:
        from sparse_circuits.zoo.language import BOS, EOS

        known = {} if tokenizer is None else tokenizer.get_vocab()
        if BOS not in known or EOS not in known:
            raise InputError(
                "texts='toy' is the bundled model's language, which this model does not speak; give texts=..."
            )
        self.known, self.context, self.seed = known, context, seed

    def __iter__(self) -> Iterator[list[int]]:
        import random

        from sparse_circuits.zoo.language import row

        rng = random.Random(f"contexts {self.seed}")
        while True:
            yield [self.known[word] for word in row(rng, self.context)]


class _Rows:
    """Rows of a dataset, or texts: of each the text or the token ids."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return (_text_of(item) for item in self.items)


class _Stream:
    """A dataset's rows as they come over the network, which can end before they do."""

    def __init__(self, name: str, rows: Iterable[Any]) -> None:
        self.name, self.rows = name, rows

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self.rows)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # every way of reading has errors of its own
                line = next(iter(str(error).splitlines()), "")
                said = f"The dataset {self.name!r} could not be read further ({type(error).__name__}: {line})."
                raise InputError(said) from error
            yield row


def _text_of(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    there = [name for name in _FIELDS if name in item]
    if there:
        return next((item[name] for name in there if item[name] is not None), "")
    raise InputError(
        f"A row of the texts has the fields {', '.join(map(str, item))}; expected one of {', '.join(_FIELDS)}. Rename it "
        "(dataset.rename_column('article', 'text')), or give the texts themselves."
    )


def _ids(document: Any) -> list[int]:
    ids = document.tolist() if hasattr(document, "tolist") else document
    if not isinstance(ids, (list, tuple)) or any(isinstance(i, bool) or not isinstance(i, Integral) for i in ids):
        raise InputError(f"A text is {type(document).__name__}; expected a string or a list of token ids.")
    return list(map(int, ids))


def _file(path: Path) -> Iterable[Any]:
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    kind = endings[-1] if endings else ""
    if kind not in (".txt", ".text", ".md", ".jsonl", ".json"):
        raise InputError(f"{path}: expected a .txt file, or a .jsonl file with a field 'text' or 'tokens' per line.")
    return _File(path, kind in (".jsonl", ".json"))


class _File:
    """A file's documents, read as they are needed: a line of JSON each, or lines of text up to an empty one.

    Text that goes on without an empty line is cut where it is longer than what is held at a time.
    """

    def __init__(self, path: Path, json_lines: bool) -> None:
        self.path, self.json_lines = path, json_lines

    def __iter__(self) -> Iterator[Any]:
        with open_text(self.path) as file:
            if self.json_lines:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield self._row(number, line)
                return
            lines: list[str] = []
            held = 0
            while line := file.readline(_LONGEST):
                if line.strip():
                    lines.append(line)
                    held += len(line)
                if lines and (held >= _LONGEST or not line.strip()):
                    yield "".join(lines).strip()
                    lines, held = [], 0
            if lines:
                yield "".join(lines).strip()

    def _row(self, number: int, line: str) -> Any:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileFormatError(
                f"{self.path}, line {number}: not JSON ({error}); expected one text in each line, such as "
                '{"text": "..."}.'
            ) from None
        try:
            return _text_of(row)
        except InputError as error:
            raise InputError(f"{self.path}, line {number}: {error}") from None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, or one packed with gzip.

    Raises:
        FileFormatError: while it is read, if it is neither.
    """
    packed = path.suffix == ".gz"
    try:
        # with or without the mark that some editors put in front
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not text in UTF-8 ({error.reason}); save it as that.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path} is no whole gzip file ({error}).") from None


def _dataset(source: str | Path, configuration: str | None = None) -> Any:
    """A Hugging Face dataset: one saved in a folder, or its training split as a stream."""
    try:
        datasets: Any = import_module("datasets")  # no dependency of this library; SAELens brings it along
    except ImportError:
        raise InputError("Hugging Face datasets need the package datasets: pip install datasets.") from None
    if isinstance(source, Path) and ((source / "state.json").is_file() or (source / "dataset_dict.json").is_file()):
        found = datasets.load_from_disk(str(source))
        if not isinstance(found, Mapping):
            return found
        if "train" not in found:
            raise InputError(
                f"The dataset in {source} has no split 'train', only {', '.join(map(repr, found))}; give the folder of one, "
                f"such as {source / next(iter(found), '')}."
            )
        return found["train"]
    try:
        return datasets.load_dataset(str(source), configuration, split="train", streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"The dataset {str(source)!r} cannot be loaded ({line}).") from None
