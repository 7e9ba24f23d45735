"""``sparse-circuits find``: score a graph, choose a circuit, and say how good it is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from sparse_circuits.cli import output
from sparse_circuits.cli.feature_search import FoundFeatures, search_features
from sparse_circuits.cli.feature_summary import report_features, write_features
from sparse_circuits.cli.folder import check_out
from sparse_circuits.cli.methods import CHECKPOINTED
from sparse_circuits.cli.options import (
    FEATURES,
    NODES,
    NODES_ABOVE,
    SIZES,
    STEPS_OF_FEATURES,
    AblationName,
    BatchSize,
    Device,
    DirectName,
    Draws,
    Errors,
    Examples,
    Force,
    KVName,
    LevelName,
    MethodName,
    ObjectiveName,
    PathName,
    PositionsName,
    QuadratureName,
    RuleName,
    SelectName,
    StartLayer,
    dictionaries_option,
    model_option,
    option,
    sites_option,
    task_option,
    whole_option,
)
from sparse_circuits.cli.record import PAGE, Arguments, Record
from sparse_circuits.cli.search import Found, search
from sparse_circuits.cli.summary import report, write
from sparse_circuits.errors import InputError

EXAMPLES = (
    "find --model toy --task ioi --method eap-ig --edges 200 --out runs/ioi",
    "find --model gpt2 --task pairs.jsonl --method eap --threshold 0.01",
    "find --level neurons --positions spans --size 100 --out runs/neurons",
    "find --task sva-across-rc --dictionaries toy --nodes 100 --out runs/rc",
    "find --from runs/ioi/run.json --seed 1 --out runs/ioi-1",
)
# headings of the help, in the order in which their options are first met
PROMPTS, SCORING, OWN, CHOOSING = (
    "Model and task",
    "What is scored, and how",
    "Options of single methods",
    "Which circuit is chosen",
)


def find(
    model: Annotated[str | None, model_option(Arguments.model, PROMPTS)] = None,
    task: Annotated[str | None, task_option(Arguments.task, PROMPTS)] = None,
    method: Annotated[
        MethodName | None,
        option("--method", "How; 'sparse-circuits methods' has a line on each.", Arguments.method, panel=SCORING),
    ] = None,
    level: Annotated[
        LevelName | None,
        option(
            "--level",
            "Edges; heads and MLPs; the dimensions of what these write; or MLPs' neurons and heads' dimensions.",
            Arguments.level,
            panel=SCORING,
        ),
    ] = None,
    positions: Annotated[
        PositionsName | None,
        option(
            "--positions", "Summed, each kept apart, or by the task's named spans.", Arguments.positions, panel=SCORING
        ),
    ] = None,
    ablation: Annotated[
        AblationName | None,
        option("--ablation", "What stands in for a part left out.", Arguments.ablation, panel=SCORING),
    ] = None,
    kv: Annotated[
        KVName | None,
        option("--kv", "Keys and values of grouped-query attention.", Arguments.kv, panel=SCORING),
    ] = None,
    rule: Annotated[
        RuleName | None,
        option("--rule", "eap, eap-ig, clean-corrupted: the backward rule.", "plain", panel=OWN),
    ] = None,
    steps: Annotated[
        int | None,
        option(
            "--steps",
            "eap-ig: gradients taken; edge-pruning: steps of training.",
            f"5, {STEPS_OF_FEATURES} of features; and 1000",
            panel=OWN,
            metavar="N",
            min=1,
        ),
    ] = None,
    path: Annotated[
        PathName | None,
        option("--path", "eap-ig: what is interpolated.", "inputs, but activations of features", panel=OWN),
    ] = None,
    quadrature: Annotated[
        QuadratureName | None, option("--quadrature", "eap-ig: where gradients are taken.", "midpoint", panel=OWN)
    ] = None,
    direct: Annotated[
        DirectName | None,
        option("--direct", "eap-ig: how edges into the logits are scored.", "path", panel=OWN),
    ] = None,
    qk_fix: Annotated[
        bool | None,
        option(
            "--qk-fix/--no-qk-fix", "atp-star: recompute the attention of patched queries and keys.", "on", panel=OWN
        ),
    ] = None,
    grad_drop: Annotated[
        bool | None,
        option("--grad-drop/--no-grad-drop", "atp-star: a backward pass without each layer.", "on", panel=OWN),
    ] = None,
    acdc_threshold: Annotated[
        float | None,
        option(
            "--acdc-threshold",
            "acdc: an edge goes if that costs less than X of the metric.",
            0.01,
            panel=OWN,
            metavar="X",
        ),
    ] = None,
    sparsity: Annotated[
        float | None, option("--sparsity", "edge-pruning: share to remove.", 0.95, panel=OWN, metavar="X")
    ] = None,
    warmup: Annotated[
        float | None,
        option("--warmup", "edge-pruning: share of the steps until then.", 0.6, panel=OWN, metavar="X"),
    ] = None,
    learning_rate: Annotated[
        float | None, option("--learning-rate", "edge-pruning: of the gates.", 0.1, panel=OWN, metavar="X")
    ] = None,
    objective: Annotated[
        ObjectiveName | None,
        option("--objective", "edge-pruning: what the circuit has in common with the model.", "kl", panel=OWN),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        option("--checkpoint", "edge-pruning: keep its state there, and go on from it.", panel=OWN, metavar="FILE"),
    ] = None,
    size: Annotated[
        int | None,
        option(
            "--size",
            "How many edges, nodes or units to choose.",
            ", ".join(f"{n} {name}" for name, n in SIZES.items()) + ", or all if fewer",
            panel=CHOOSING,
            metavar="N",
            min=1,
        ),
    ] = None,
    edges: Annotated[
        int | None,
        option(
            "--edges", "The same, of edges; of features, those between the nodes.", panel=CHOOSING, metavar="N", min=1
        ),
    ] = None,
    threshold: Annotated[
        float | None, option("--threshold", "Instead: all with |score| of at least X.", panel=CHOOSING, metavar="X")
    ] = None,
    stable: Annotated[
        float | None,
        option(
            "--stable",
            "Of the strongest, those that stay so, with their sign, in that share of resampled examples.",
            panel=CHOOSING,
            metavar="SHARE",
        ),
    ] = None,
    select: Annotated[
        SelectName | None,
        option("--select", "The strongest edges as grown from the logits, or from anywhere.", "greedy", panel=CHOOSING),
    ] = None,
    signed: Annotated[
        bool | None,
        option(
            "--signed/--unsigned",
            "Strongest is the most damaging, or the largest either way.",
            "unsigned",
            panel=CHOOSING,
        ),
    ] = None,
    dictionaries: Annotated[str | None, dictionaries_option("Find features: of ")] = None,
    sites: Annotated[list[str] | None, sites_option("Which of them")] = None,
    whole: Annotated[list[str] | None, whole_option("as one node each: attn, mlp_0; z for heads")] = None,
    nodes: Annotated[
        int | None, option("--nodes", "How many to choose.", NODES, panel=FEATURES, metavar="N", min=1)
    ] = None,
    node_threshold: Annotated[
        float | None,
        option("--node-threshold", "Instead: all with |score| above X.", panel=FEATURES, metavar="X"),
    ] = None,
    edge_threshold: Annotated[
        float | None,
        option(
            "--edge-threshold",
            "Keep edges with |score| above X, and of the nodes those that they connect.",
            panel=FEATURES,
            metavar="X",
        ),
    ] = None,
    cumulative: Annotated[
        float | None,
        option(
            "--cumulative",
            "Instead: the fewest nodes with that share of the influence.",
            panel=FEATURES,
            metavar="SHARE",
        ),
    ] = None,
    nodes_above: Annotated[
        float | None,
        option(
            "--nodes-above",
            "Find edges into nodes with an effect above X, per example and position.",
            NODES_ABOVE,
            panel=FEATURES,
            metavar="X",
        ),
    ] = None,
    nodes_only: Annotated[
        bool | None, option("--nodes-only", "Find no edges, which is much faster.", panel=FEATURES, is_flag=True)
    ] = None,
    errors: Errors = None,
    start_layer: StartLayer = None,
    examples: Examples = None,
    seed: Annotated[
        int | None,
        option("--seed", "Of bundled prompts, training and random circuits.", Arguments.seed, metavar="N", min=0),
    ] = None,
    batch_size: BatchSize = None,
    draws: Draws = None,
    repeat: Annotated[
        Path | None, option("--from", "Repeat a run; other options override its own.", metavar="RUN.JSON")
    ] = None,
    out: Annotated[Path | None, option("--out", "Folder to write.", "runs/TASK", metavar="FOLDER")] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Find the circuit of a task in a model: of components, or with --dictionaries of features.

    Writes one folder: the circuit, the scores of all edges (nodes, units), a picture (.svg, .png), a page to explore it in
    (explorer.html), and run.json, from which the run can be repeated. A circuit of features is evaluated on other prompts
    than it was found on.
    """
    here: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in locals().items()
    }
    given: dict[str, Any] = {
        field.name: here[field.name] for field in fields(Arguments) if here[field.name] not in (None, ())
    }
    earlier = None if repeat is None else Record.load(repeat)
    if dictionaries is not None and level is None:
        given["level"] = "features"
    of = given.get("level", (Arguments if earlier is None else earlier.arguments).level)
    if edges is not None and of != "features":
        given |= _of_edges(given.pop("edges"), size, of)
    if nodes is not None:
        given |= _of_nodes(nodes, size, of)
    arguments = Arguments(**given) if earlier is None else earlier.arguments.overridden(given)
    _check_checkpoint(checkpoint, arguments)
    out = Path("runs") / Path(arguments.task).stem if out is None else out
    check_out(out, force)
    features = arguments.dictionaries is not None
    found = search_features(arguments, device) if features else search(arguments, device, checkpoint)
    if earlier is not None and found.arguments == earlier.arguments:
        _warn_if_changed(earlier, found)
    if isinstance(found, FoundFeatures):
        write_features(found, out, force)
        report_features(found, out)
    else:
        write(found, out, force)
        report(found, out)
    output.line()
    output.line(f"Open in a browser to explore it: {out / PAGE}")


def _of_nodes(nodes: int, size: int | None, level: str) -> dict[str, int]:
    if size is not None:
        raise InputError("Expected --nodes or --size, got both; they mean the same.")
    if level != "features":
        raise InputError("--nodes counts nodes of a feature circuit, and needs --dictionaries; otherwise give --size.")
    return {"size": nodes}


def _of_edges(edges: int, size: int | None, level: str) -> dict[str, int]:
    if size is not None:
        raise InputError("Expected --edges or --size, got both; they mean the same.")
    if level != "edges":
        raise InputError(f"--edges counts edges; with --level {level} give --size.")
    return {"size": edges}


def _check_checkpoint(checkpoint: Path | None, arguments: Arguments) -> None:
    if checkpoint is None:
        return
    if arguments.method != CHECKPOINTED:
        raise InputError(f"--checkpoint goes with --method {CHECKPOINTED} only, not with {arguments.method}.")
    if not checkpoint.parent.is_dir():
        raise InputError(f"--checkpoint {checkpoint}: there is no folder {checkpoint.parent}.")


def _warn_if_changed(earlier: Record, found: Found | FoundFeatures) -> None:
    """Say so where a repeated run could not see the same prompts or libraries again."""
    import warnings

    then, now = earlier.provenance, found.circuit.provenance
    if then.get("task_hash") != now.get("task_hash"):
        warnings.warn(f"The prompts of {found.arguments.task} are not those of the earlier run.", stacklevel=1)
    if then.get("dictionaries") != now.get("dictionaries"):
        warnings.warn(
            f"The dictionaries of {found.arguments.dictionaries} are not those of the earlier run.", stacklevel=1
        )
    if then.get("versions") != now.get("versions"):
        warnings.warn(
            "The earlier run was made with other library versions; scores may differ by rounding.", stacklevel=1
        )
