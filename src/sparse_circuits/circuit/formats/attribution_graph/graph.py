"""The attribution graph: what is in its files, read, checked and written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.circuit.formats.attribution_graph.build import Drawing, metadata_of
from sparse_circuits.circuit.formats.attribution_graph.circuit_tracer import circuit_of
from sparse_circuits.circuit.formats.attribution_graph.own import OWN, packed, unpacked
from sparse_circuits.circuit.formats.attribution_graph.pages import page_of
from sparse_circuits.circuit.formats.attribution_graph.prompt import Prompt
from sparse_circuits.circuit.formats.attribution_graph.schema import check
from sparse_circuits.circuit.formats.attribution_graph.state import first_sight
from sparse_circuits.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from sparse_circuits.graph import FeatureGraph
    from sparse_circuits.task.task import Task

LOCAL = "./data/features/"
"""Where circuit-tracer's page looks for pages that its own server has, and not a site on the network."""
_INDEX = "graph-metadata.json"


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """A circuit over one prompt, as Neuronpedia and circuit-tracer's page show it: plain JSON values.

    Attributes:
        metadata: slug, scan, prompt, prompt_tokens and so on.
        q_params: what the page shows at first: pinnedIds, supernodes, clickedId, linkType, sg_pos.
        nodes, links: as in the file.
        more: further fields of the file; the circuit itself is in one of them.
        pages: of features, by the number of their nodes.

    Values are checked when they are made, loaded and saved: a graph that exists can be written.

    Raises:
        FileFormatError: for what the schema does not allow, a link to no node, or two nodes with one id, naming the field.
    """

    metadata: Mapping[str, Any]
    q_params: Mapping[str, Any]
    nodes: tuple[Mapping[str, Any], ...]
    links: tuple[Mapping[str, Any], ...]
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)
    pages: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "links", tuple(self.links))
        _check(self.to_dict(), "the attribution graph")
        for number, page in self.pages.items():
            check(page, "page", f"the page of feature {number}")

    @classmethod
    def of(
        cls,
        circuit: Circuit | FeatureCircuit,
        model: Any = None,
        task: Task | None = None,
        *,
        example: int = 0,
        tokens: Sequence[Any] | None = None,
        slug: str | None = None,
        scan: str | None = None,
        pages: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        state: str | Path | Mapping[str, Any] | None = None,
        feature_details: Mapping[str, str] | None = None,
    ) -> AttributionGraph:
        """A circuit, drawn over one prompt.

        >>> task = sc.load_task("sva-across-rc", model)[:1]    # the graph of a single prompt: attribution on that prompt alone
        >>> scores = sc.attribute(model, graph, task, sc.EAP(), nodes_above=0.1, positions="keep")
        >>> sc.AttributionGraph.of(scores.top(60), model, task, pages=pages).save("graphs")

        The circuit's scores are means over the examples that it was found on, whichever of them it is drawn over. Cost: one
        forward pass on the prompt.

        Args:
            model, task, example: the prompt: one of the task's clean ones. Its tokens are the tokenizer's, or numbers.
            tokens: or the prompt's tokens alone, without a model: then nothing is known of probabilities and activations.
            slug: the graph's name in files and addresses; by default task, model and example.
            scan: where pages of features are looked up; by default the model's name, without its owner or folder. Neuronpedia
                wants its own name of the model; it takes only letters, digits, "_" and "-" here and in the slug.
            pages: by a node's name, what ``feature_pages`` returns.
            labels: by a node's name, what people call it; otherwise that of its page.
            state: pins, groups and notes that the explorer saved: pinned nodes, supernodes and labels here.
            feature_details: as Neuronpedia wants it: "neuronpedia_source_set" or "feature_json_base_url".

        Raises:
            InputError: for a circuit without scores, or a prompt that it cannot be drawn over. FileFormatError: for a state
                that is none.
        """
        if not isinstance(circuit, Circuit | FeatureCircuit):
            raise InputError(
                f"AttributionGraph.of({type(circuit).__name__}): expected a circuit, such as scores.top(60) returns."
            )
        if slug is not None:
            check_slug(slug)
        if tokens is not None and model is None and task is None:
            prompt = Prompt.of_tokens(circuit, tokens)
        elif tokens is None and model is not None and task is not None:
            prompt = Prompt.of_task(circuit, model, task, example)
        else:
            raise InputError("AttributionGraph.of: expected the prompt, as model= and task=, or as tokens=.")
        pages = pages or {}
        drawing = Drawing(circuit, prompt, pages, labels or {})
        notes, q_params = first_sight(state, drawing.ids)
        drawing = replace(drawing, labels={**drawing.labels, **notes})
        metadata = metadata_of(circuit, prompt, slug, scan, example if tokens is None else None)
        if feature_details is not None:
            metadata["feature_details"] = dict(feature_details)
        links, numbers = drawing.links(), drawing.numbers
        made = {numbers[name]: page_of(name, numbers[name], page) for name, page in pages.items() if name in numbers}
        return cls(metadata, q_params, tuple(drawing.nodes(links)), tuple(links), {OWN: packed(circuit)}, made)

    @property
    def slug(self) -> str:
        """Its name in files and addresses."""
        return self.metadata["slug"]

    def to_dict(self) -> dict[str, Any]:
        """The content of its file."""
        return {
            "metadata": dict(self.metadata),
            "qParams": dict(self.q_params),
            "nodes": [dict(node) for node in self.nodes],
            "links": [dict(link) for link in self.links],
            **self.more,
        }

    def save(self, path: str | Path, *, features: str | Path | None = None) -> Path:
        """Write it: a ``.json`` file, as Neuronpedia takes it; or a folder, as circuit-tracer's page takes it.

        A folder gets ``<slug>.json``; the pages of features under ``features/<slug>/``, to which ``scan`` then points; and a line
        in ``graph-metadata.json``, which lists all graphs there. ``circuit_tracer.frontend.local_server.serve(data_dir=folder)``
        shows them.

        Args:
            features: with a ``.json`` file, a folder for the pages, ``<number>.json`` each; they are then to be served from
                where ``scan`` or ``feature_details`` says.

        Returns:
            the graph's file.

        Raises:
            InputError: if the folder cannot be written, or ``features`` is given for a graph without pages.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            if features is not None:
                if not self.pages:
                    raise InputError(
                        "save(features=...): this graph has no pages; pass AttributionGraph.of(..., pages=...)."
                    )
                self._write_pages(Path(features))
            return _write(path, self.to_dict())
        if features is not None:
            raise InputError(
                "save(features=...): a folder has its pages under features/; leave it out, or give a .json file."
            )
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file that does not end in .json; expected a folder, or a name that does.")
        shown = self
        if self.pages:
            own = _file_name(self.slug)  # a folder for each graph: others may have other dictionaries at the same sites
            self._write_pages(path / "features" / own)
            shown = replace(self, metadata={**self.metadata, "scan": f"{LOCAL}{own}"})
        path.mkdir(parents=True, exist_ok=True)
        file = _write(path / f"{_file_name(self.slug)}.json", shown.to_dict())
        _list(path / _INDEX, shown.metadata)
        return file

    @classmethod
    def load(cls, path: str | Path, *, features: str | Path | None = None) -> AttributionGraph:
        """A graph from a file: one of ours, circuit-tracer's or Neuronpedia's.

        Args:
            features: a folder with pages of its features, ``<number>.json``; those that are there are read.

        Raises:
            InputError: if there is no such file. FileFormatError: if it is no attribution graph, naming the field.
        """
        path = Path(path)
        content = _read(path)
        _check(content, str(path))
        known = {"metadata", "qParams", "nodes", "links"}
        pages = {}
        for number in {node["feature"] for node in content["nodes"]} if features is not None else ():
            file = Path(features or "") / f"{number}.json"
            if isinstance(number, int) and number >= 0 and file.is_file():
                pages[number] = _read(file)
                check(pages[number], "page", str(file))
        more = {key: value for key, value in content.items() if key not in known}
        nodes, links = tuple(content["nodes"]), tuple(content["links"])
        return cls(content["metadata"], content["qParams"], nodes, links, more, pages)

    def to_networkx(self) -> Any:
        """The same as a ``networkx.DiGraph``: nodes by id with their fields, edges with weight and theirs; metadata as the
        graph's attributes. A source and a target have at most one link.
        """
        import networkx

        graph = networkx.DiGraph(**self.metadata)
        graph.add_nodes_from((node["node_id"], dict(node)) for node in self.nodes)
        graph.add_edges_from((link["source"], link["target"], dict(link)) for link in self.links)
        return graph

    def to_circuit(
        self, graph: FeatureGraph | None = None, dictionaries: Mapping[str, Any] | None = None
    ) -> Circuit | FeatureCircuit:
        """The circuit, bit for bit, where this library wrote the file; of another file what
        :func:`~sparse_circuits.circuit.formats.attribution_graph.circuit_tracer.circuit_of` makes of it.

        Args:
            graph: of a file of circuit-tracer's, the graph of the same transcoders.
            dictionaries: of one of ours, what its graph refers to; without them it can be looked at but not evaluated.

        Raises:
            InputError: where ``graph`` is missing, or is of other transcoders. FileFormatError: for a damaged file.
        """
        if OWN in self.more:
            return unpacked(self.more[OWN], dictionaries)
        return circuit_of(self, graph)

    def _write_pages(self, folder: Path) -> None:
        """All of them, or none where that is interrupted."""
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.new"
        try:
            temporary.mkdir()
            for number, page in self.pages.items():
                _write(temporary / f"{number}.json", page)
            for page in list(temporary.iterdir()):
                page.replace(folder / page.name)
            temporary.rmdir()
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for one in made:  # innermost first
                if not any(one.iterdir()):
                    one.rmdir()
            raise

    def __repr__(self) -> str:
        return f"AttributionGraph({self.slug!r}, {len(self.nodes)} nodes, {len(self.links)} links, {len(self.pages)} pages)"


def check_slug(slug: str) -> None:
    """
    Raises:
        InputError: for what no file can be called.
    """
    if not re.fullmatch(r"[^/\\]+", slug):
        raise InputError(f"slug={slug!r}: expected a name that a file may have.")


def _check(content: Any, what: str) -> None:
    check(content, "graph", what)
    ids = [node["node_id"] for node in content["nodes"]]
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))
        raise FileFormatError(f"{what}: two nodes have the id {twice!r}.")
    known = set(ids)
    for i, link in enumerate(content["links"]):
        for end in ("source", "target"):
            if link[end] not in known:
                raise FileFormatError(f"{what}: links[{i}].{end} is {link[end]!r}, which is no node's id.")
    n = len(content["metadata"]["prompt_tokens"])
    for i, node in enumerate(content["nodes"]):
        if node["ctx_idx"] >= n:
            raise FileFormatError(f"{what}: nodes[{i}].ctx_idx is {node['ctx_idx']}, and the prompt has {n} tokens.")


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"No file at {path}.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not JSON ({error}).") from None


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _list(path: Path, metadata: Mapping[str, Any]) -> None:
    """Add a graph to the list of a folder's, or put it in the place of the one of the same name."""
    content = _read(path) if path.is_file() else {"graphs": []}
    graphs = content.get("graphs") if isinstance(content, Mapping) else None
    if not isinstance(graphs, list) or not all(isinstance(graph, Mapping) for graph in graphs):
        raise FileFormatError(f"{path} is no list of graphs; expected an object with 'graphs'.")
    kept = [graph for graph in graphs if graph.get("slug") != metadata["slug"]]
    _write(path, {**content, "graphs": [*kept, dict(metadata)]})


def _file_name(text: str, others: Iterable[str] = '/\\:*?"<>|') -> str:
    """Text as a name that a file may have, and an address need not escape."""
    return (
        "".join("-" if character in others or character.isspace() else character for character in text).strip(".")
        or "-"
    )
