"""The attribution graph: what is in its files, read, checked and written."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_circuits.circuit.circuit import Circuit
from sparse_circuits.circuit.feature_circuit import FeatureCircuit
from sparse_circuits.circuit.files import write_json
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
            slug: the graph's name in files and addresses, of letters, digits, "_", "-" and "."; by default task, model and
                example. Neuronpedia takes no ".".
            scan: where pages of features are looked up; by default the model's name, without its owner or folder. Neuronpedia
                wants its own name of the model; it takes only letters, digits, "_" and "-".
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
        if scan is not None and (not isinstance(scan, str) or not scan):
            raise InputError(
                f"AttributionGraph.of(scan={scan!r}): expected a name, such as Neuronpedia's of the model."
            )
        for name, given in (("pages", pages), ("labels", labels), ("feature_details", feature_details)):
            if not isinstance(given, Mapping | None):
                raise InputError(f"AttributionGraph.of({name}=...): expected a mapping, got {type(given).__name__}.")
        _refuse_unknown(circuit)
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
        number = None if task is None else example % len(task)
        metadata = metadata_of(circuit, prompt, slug, scan, number)
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
            InputError: if the folder cannot be written, ``features`` is given for a graph without pages, or the page could not
                ask for the file of a graph with this slug. FileFormatError: if the folder's list of graphs is damaged.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            if features is not None:
                if not self.pages:
                    raise InputError(
                        "save(features=...): this graph has no pages; pass AttributionGraph.of(..., pages=...)."
                    )
                self._write_pages(Path(features))
            return write_json(path, self.to_dict())
        if features is not None:
            raise InputError(
                "save(features=...): a folder has its pages under features/; leave it out, or give a .json file."
            )
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file that does not end in .json; expected a folder, or a name that does.")
        check_slug(self.slug)
        listed, metadata = _listed(path / _INDEX), dict(self.metadata)
        if self.pages:  # in a folder for each graph: others may have other dictionaries at the same sites
            self._write_pages(path / "features" / self.slug)
            metadata["scan"] = f"{LOCAL}{self.slug}"
        path.mkdir(parents=True, exist_ok=True)
        file = write_json(path / f"{self.slug}.json", {**self.to_dict(), "metadata": metadata})
        kept = [graph for graph in listed["graphs"] if graph.get("slug") != self.slug]
        write_json(path / _INDEX, {**listed, "graphs": [*kept, metadata]})
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
                write_json(temporary / f"{number}.json", page)
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


def check_slug(slug: Any) -> None:
    """
    Raises:
        InputError: for what cannot be a file's name, or would be escaped in an address: circuit-tracer's server reads no escapes.
    """
    if not isinstance(slug, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", slug):
        raise InputError(
            f"slug={slug!r}: expected letters, digits, '_', '-' and '.', since it names a file and an address."
        )
    if f"{slug}.json" == _INDEX:
        raise InputError(f"slug={slug!r}: {_INDEX} is the list of a folder's graphs; choose another name.")


def _refuse_unknown(circuit: Circuit | FeatureCircuit) -> None:
    """
    Raises:
        InputError: for scores that are no numbers, as of parts that an imported file has no score of.
    """
    of_edges = {} if isinstance(circuit, Circuit) or not circuit.n_edges else circuit.to_dict("edges")
    scored = (circuit.values if isinstance(circuit, Circuit) else circuit.node_values) is not None
    for name, score in {**(circuit.to_dict() if scored else {}), **of_edges}.items():
        if not math.isfinite(score):
            raise InputError(f"AttributionGraph.of: {name!r} has the score {score}; a graph has numbers only.")


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


def _listed(path: Path) -> Mapping[str, Any]:
    """The content of a folder's list of graphs, which need not be there yet."""
    content = _read(path) if path.is_file() else {"graphs": []}
    graphs = content.get("graphs") if isinstance(content, Mapping) else None
    if not isinstance(graphs, list) or not all(isinstance(graph, Mapping) for graph in graphs):
        raise FileFormatError(f"{path} is no list of graphs; expected an object with 'graphs'.")
    return content
