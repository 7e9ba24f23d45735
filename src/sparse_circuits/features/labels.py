"""What people call features: their own notes, and annotations from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.features.texts import open_text
from sparse_circuits.model.sites import Site

FORMAT, FORMAT_VERSION = "sparse-circuits labels", 1
_NEURONPEDIA = "https://www.neuronpedia.org"
# feature-circuits' names of a feature: "resid_5/3036", "embed/293", with a position "3, resid_5/3036"
_THEIRS = re.compile(r"(?:\d+, )?((?:resid|attn|mlp)_\d+|embed)/(\d+)")


@dataclass(frozen=True)
class Labels(Mapping[str, str]):
    """Notes on nodes, by name: ``{"resid_3.f217": "plural subjects"}``. Frozen: every change returns others.

    A label is looked up without its position: ``resid_3.f217@7`` has that of ``resid_3.f217``.
    """

    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.notes, Mapping):
            raise InputError(
                f"Labels({self.notes!r:.60}): expected notes by name, such as {{'resid_3.f217': 'plural subjects'}}; a file "
                "of them is read with Labels.load(path)."
            )
        for name, note in self.notes.items():
            if not isinstance(name, str) or not isinstance(note, str):
                raise InputError(f"Labels: {name!r}: {note!r}; expected notes as text, by name.")
        object.__setattr__(self, "notes", dict(self.notes))

    def __getitem__(self, name: str) -> str:
        return self.notes[name if name in self.notes else name.partition("@")[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.notes)

    def __len__(self) -> int:
        return len(self.notes)

    def __or__(self, other: Mapping[str, str]) -> Labels:
        """Both; where both have a note, the other's."""
        return Labels({**self.notes, **other})

    def _repr_html_(self) -> str:
        from sparse_circuits.view.inventory import of_labels

        return of_labels(self)

    def __repr__(self) -> str:
        first = next(iter(self.notes.items()), None)
        said = "" if first is None else f", the first {first[0]}: {first[1][:60]!r}"
        return f"Labels({len(self)} note{'s' * (len(self) != 1)}{said})"

    def with_note(self, name: str, note: str | None) -> Labels:
        """With another note on a node, or with none where it is None."""
        rest = {key: value for key, value in self.notes.items() if key != name}
        return Labels(rest if note is None else {**rest, name: note})

    def save(self, path: str | Path) -> Path:
        """As JSON, in one step: ``{"format": ..., "labels": {name: note}}``."""
        content = {"format": FORMAT, "version": FORMAT_VERSION, "labels": dict(sorted(self.notes.items()))}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        return write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> Labels:
        """A file that :meth:`save` wrote, or a plain JSON object of notes by name.

        Raises:
            InputError: if there is no such file. FileFormatError: if it holds something else.
        """
        content = _json(Path(path))
        if isinstance(content, dict) and content.get("format") == FORMAT:
            if content.get("version") != FORMAT_VERSION:
                raise FileFormatError(
                    f"{path} has format version {content.get('version')!r}; expected {FORMAT_VERSION}."
                )
            content = content.get("labels")
        if not isinstance(content, dict) or not all(isinstance(note, str) for note in content.values()):
            raise FileFormatError(f"{path}: expected a JSON object of notes by name.")
        return cls(content)

    @classmethod
    def from_feature_circuits(cls, path: str | Path) -> Labels:
        """The annotations of feature-circuits (Marks et al. 2024): lines ``{"Name": "resid_5/3036", "Annotation": ...}``.

        Their names become ``resid_5.f3036`` and ``embed.f293``. Lines without an annotation, and repeated headings, are left
        out; the last of several on one feature counts, as there. Notes on it (``Notes``) follow in brackets.

        Raises:
            InputError: if there is no such file. FileFormatError: if it is not of this kind, naming the line.
        """
        path, notes = Path(path), {}
        for number, row in _lines(path):
            if not isinstance(row, dict) or "Name" not in row:
                raise FileFormatError(f"{path}, line {number}: expected an object with 'Name' and 'Annotation'.")
            name = str(row["Name"])
            match = _THEIRS.fullmatch(name)
            if match is None:
                if name == "Name":  # a heading in the middle of their own files
                    continue
                raise FileFormatError(f"{path}, line {number}: {name!r} is no feature; expected 'resid_5/3036' or so.")
            text = str(row.get("Annotation") or "").strip()
            more = str(row.get("Notes") or row.get("notes") or "").strip()
            if text:
                notes[f"{match[1]}.f{match[2]}"] = f"{text} ({more})" if more else text
        return cls(notes)

    @classmethod
    def from_neuronpedia(
        cls, path: str | Path, dictionaries: Mapping[str, Dictionary] | None = None, *, site: str | None = None
    ) -> Labels:
        """Explanations exported from Neuronpedia: a list of ``{"modelId", "layer", "index", "description"}``, or its lines.

        Takes the answer of ``/api/explanation/export``, files of the exports bucket (``batch-0.jsonl.gz``), or one or more
        features as ``/api/feature`` returns them, with their ``explanations``. The first of several on one feature counts.

        Args:
            dictionaries: their Neuronpedia ids say which site a ``modelId/layer`` is; others are left out.
            site: the site of all of them instead, where the dictionaries have no such ids: ``"resid_7"``.

        Raises:
            InputError: if there is no such file or site, or none of it is of these dictionaries. FileFormatError: if it is not of
                this kind.
        """
        path = Path(path)
        if (dictionaries is None) == (site is None):
            raise InputError(
                "from_neuronpedia: expected dictionaries, whose Neuronpedia ids name the sites, or site='resid_7'."
            )
        if site is not None:
            site = Site.named(str(site)).name
        sites = {_neuronpedia_id(d): d.site.name for d in (dictionaries or {}).values()}
        notes: dict[str, str] = {}
        others: dict[str, None] = {}
        for record in _explanations(path):
            id = f"{record['modelId']}/{record['layer']}"
            at = site or sites.get(id)
            if at is None:
                others[id] = None
                continue
            if not str(record["index"]).isdecimal():
                raise FileFormatError(f"{path}: index {record['index']!r} is no feature.")
            text = str(record.get("description") or "").strip()
            if text:
                notes.setdefault(f"{at}.f{int(record['index'])}", text)
        if not notes and others:
            known = ", ".join(str(id) for id in sites if id) or "no Neuronpedia id at all"
            raise InputError(
                f"{path} is about {', '.join(list(others)[:3])}, and the dictionaries have {known}; give site=..."
            )
        return cls(notes)


def neuronpedia_url(dictionary: Dictionary, feature: int) -> str | None:
    """A feature's page on Neuronpedia, or None where its dictionary's metadata name none.

    >>> sc.neuronpedia_url(saes["resid_7"], 650)
    'https://www.neuronpedia.org/gpt2-small/8-res-jb/650'
    """
    id = _neuronpedia_id(dictionary)
    return None if id is None else f"{_NEURONPEDIA}/{quote(id)}/{feature}"


def _neuronpedia_id(dictionary: Dictionary) -> str | None:
    """``model/source`` from SAELens's metadata."""
    metadata = getattr(getattr(dictionary.sae, "cfg", None), "metadata", None)
    id = metadata.get("neuronpedia_id") if isinstance(metadata, Mapping) else getattr(metadata, "neuronpedia_id", None)
    return id if isinstance(id, str) and "/" in id else None


def _explanations(path: Path) -> Iterator[dict[str, Any]]:
    """Records with modelId, layer, index and description, whichever of its shapes a file has."""
    is_lines = ".jsonl" in path.suffixes
    content: Iterable[Any] = (row for _, row in _lines(path)) if is_lines else _json(path)
    if not is_lines and not isinstance(content, list):
        content = [content]
    for record in content:
        if not isinstance(record, dict) or not {"modelId", "layer", "index"} <= record.keys():
            raise FileFormatError(f"{path}: expected explanations with 'modelId', 'layer', 'index' and 'description'.")
        if isinstance(record.get("explanations"), list):
            shared = {name: record[name] for name in ("modelId", "layer", "index")}
            yield from ({**one, **shared} for one in record["explanations"] if isinstance(one, dict))
        else:
            yield record


def _json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        with open_text(path) as file:
            return json.load(file)
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path} is not JSON ({error}).") from None


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, json.loads(line)
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path} is not lines of JSON ({error}).") from None
