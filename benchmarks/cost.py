"""What attribution and evaluation cost, as ratios to the bare passes of the plain Hugging Face model.

    python benchmarks/cost.py            # GPT-2-small shape, random weights, 10 prompts of 20 tokens
    python benchmarks/cost.py --large    # also the peak memory of a 24-layer model with 32 prompts of 64 tokens

Passes that EAP cannot do without: one forward (corrupted), one forward and backward to the embedding (clean). EAP-IG
with n steps: two forwards, n forward-and-backwards. All in one run, in turns; medians. Then EAP against layers, heads, positions
and examples on a smaller model, and exact patching on the bundled one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from shapes import gpt2_folder, in_turns, token_task
from transformers import AutoModelForCausalLM

import sparse_circuits as sc
from sparse_circuits.model import anatomy_of
from sparse_circuits.task.bundled import BUNDLED

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)


def bare_passes(
    hf: torch.nn.Module, clean: torch.Tensor, corrupted: torch.Tensor, forwards: int, gradients: int
) -> None:
    """The same passes of the plain model: forwards without and with a backward pass to the embedding."""
    embed = hf.get_input_embeddings()
    with torch.no_grad():
        for _ in range(forwards):
            hf(inputs_embeds=embed(corrupted), use_cache=False)
    for _ in range(gradients):
        embedding = embed(clean).detach().requires_grad_()
        logits = hf(inputs_embeds=embedding, use_cache=False).logits[:, -1]
        torch.autograd.grad((logits[:, 1] - logits[:, 2]).sum(), embedding)


def peak_megabytes(folder: Path, what: str, prompts: int, tokens: int) -> float:
    """Peak resident memory of one job beyond that of the loaded model, in a process of its own."""
    out = subprocess.run(
        [
            sys.executable,
            __file__,
            "--peak",
            what,
            "--folder",
            str(folder),
            "--prompts",
            str(prompts),
            "--tokens",
            str(tokens),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(out.stdout.split()[-1])


def peak_job(folder: Path, what: str, prompts: int, tokens: int) -> None:
    model: Any = (
        AutoModelForCausalLM.from_pretrained(folder) if what == "bare" else sc.load_model(str(folder), device="cpu")
    )
    task = token_task(
        prompts, tokens, model.get_input_embeddings().num_embeddings if what == "bare" else model.cfg.d_vocab
    )
    clean, corrupted = torch.tensor(task.clean), torch.tensor(task.corrupted)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if what == "bare":
        bare_passes(model, clean, corrupted, 1, 1)
    else:
        method = sc.EAP() if what == "eap" else sc.EAPIG(steps=5)
        sc.attribute(model, sc.Graph.of(model), task, method, batch_size=prompts)
    print(resident("VmHWM") - before)


def resident(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at its peak. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: then memory is not measured")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak_job(args.folder, args.peak, args.prompts, args.tokens)
        return
    with tempfile.TemporaryDirectory() as root:
        folder = gpt2_folder(Path(root))
        figures = measure(folder, args.prompts, args.tokens, args.repeats, args.device)
        figures |= scaling(Path(root), max(3, args.repeats // 2), args.device)
        figures |= exact(max(3, args.repeats // 2), args.device)
        if args.large:
            figures |= large(Path(root))
    for name, value in figures.items():
        print(f"{name:60s} {value:8.3f}")
    if args.json:
        name = "CPU" if args.device == "cpu" else torch.cuda.get_device_name(args.device)
        args.json.write_text(json.dumps({"device": name, "figures": figures}, indent=1))


def measure(folder: Path, prompts: int, tokens: int, repeats: int, device: str) -> dict[str, float]:
    hf = AutoModelForCausalLM.from_pretrained(folder).to(device)
    model = sc.load_model(str(folder), device=device)
    task = token_task(prompts, tokens, model.cfg.d_vocab)
    clean, corrupted = (torch.tensor(side, device=device) for side in (task.clean, task.corrupted))
    graph, nodes, neurons = (sc.Graph.of(model, level=level) for level in ("edges", "nodes", "neurons"))
    seconds = in_turns(
        {
            "bare 1+1": lambda: bare_passes(hf, clean, corrupted, 1, 1),
            "eap": lambda: sc.attribute(model, graph, task, sc.EAP(), batch_size=prompts),
            "bare 2+5": lambda: bare_passes(hf, clean, corrupted, 2, 5),
            "eap-ig": lambda: sc.attribute(model, graph, task, sc.EAPIG(steps=5), batch_size=prompts),
            "relp": lambda: sc.attribute(model, graph, task, sc.RelP(), batch_size=prompts),
            "nodes": lambda: sc.attribute(model, nodes, task, sc.EAP(), batch_size=prompts),
            "neurons": lambda: sc.attribute(model, neurons, task, sc.EAP(), batch_size=prompts),
        },
        repeats,
    )
    scores = sc.attribute(model, graph, task, sc.EAP())
    circuits = {f: scores.greedy(round(f * graph.n_edges)) for f in FRACTIONS}
    jobs = {
        f"{f:.1%}": (lambda c=c: sc.evaluate_many(model, [c], task, batch_size=prompts)) for f, c in circuits.items()
    }
    jobs["all"] = lambda: sc.evaluate_many(model, list(circuits.values()), task, batch_size=prompts)
    jobs["forward"] = lambda: bare_passes(hf, clean, corrupted, 1, 0)
    evaluation = in_turns(jobs, max(3, repeats // 2))
    figures = {
        "EAP / its bare passes": seconds["eap"] / seconds["bare 1+1"],
        "EAPIG(steps=5) / its bare passes": seconds["eap-ig"] / seconds["bare 2+5"],
        "RelP / the bare passes of EAP": seconds["relp"] / seconds["bare 1+1"],
        "EAP of nodes / its bare passes": seconds["nodes"] / seconds["bare 1+1"],
        "EAP of neurons / its bare passes": seconds["neurons"] / seconds["bare 1+1"],
        "EAP, seconds": seconds["eap"],
        "bare passes of EAP, seconds": seconds["bare 1+1"],
        "plain forward, seconds": evaluation["forward"],
        "10 circuits in one call / 10 plain forwards": evaluation["all"] / (10 * evaluation["forward"]),
    }
    for f, circuit in circuits.items():
        name = f"one circuit, {f:.1%} of edges ({circuit.n_edges}), with shared runs / 1 forward"
        figures[name] = evaluation[f"{f:.1%}"] / evaluation["forward"]
    for what in ("bare", "eap", "eap-ig") if device == "cpu" else ():
        figures[f"peak memory beyond the model, {what}, MB"] = peak_megabytes(folder, what, prompts, tokens)
    return figures


def scaling(root: Path, repeats: int, device: str) -> dict[str, float]:
    """EAP against what it cannot do without, one size at a time changed from 6 layers, 8 heads, 32 prompts of 32 tokens."""
    base = {"layers": 6, "heads": 8, "tokens": 32, "prompts": 32}
    figures = {}
    for name, values in {"layers": (3, 12), "heads": (4, 16), "tokens": (8, 128), "prompts": (8, 128)}.items():
        for value in (values[0], base[name], values[1]):
            ratio = _ratio(root, repeats, device, **(base | {name: value}))
            figures[f"EAP / its bare passes, {value} {name} (d_model 256)"] = ratio
    return figures


def _ratio(root: Path, repeats: int, device: str, layers: int, heads: int, tokens: int, prompts: int) -> float:
    folder = gpt2_folder(root, n_layer=layers, n_head=heads, n_embd=256, n_vocab=1000)
    hf, model = AutoModelForCausalLM.from_pretrained(folder).to(device), sc.load_model(str(folder), device=device)
    task, graph = token_task(prompts, tokens, 1000), sc.Graph.of(model)
    clean, corrupted = (torch.tensor(side, device=device) for side in (task.clean, task.corrupted))
    seconds = in_turns(
        {
            "bare": lambda: bare_passes(hf, clean, corrupted, 1, 1),
            "eap": lambda: sc.attribute(model, graph, task, sc.EAP(), batch_size=prompts),
        },
        repeats,
    )
    return seconds["eap"] / seconds["bare"]


def exact(repeats: int, device: str) -> dict[str, float]:
    """Plain forward passes that an edge's exact effect costs, over the same 32 examples on the bundled model."""
    model = sc.load_model("toy", device=device)
    graph, hf = sc.Graph.of(model), model.original_model
    figures = {}
    for name in BUNDLED:
        task = sc.load_task(name, model, n=32)
        prompts = task.tokenized(model, anatomy_of(model), corrupted=True)
        batches = [batch for _, batch in prompts.batches(32)]

        @torch.no_grad()
        def forward(batches: list[sc.Batch] = batches) -> None:
            for batch in batches:
                hf(batch.tokens, use_cache=False)

        seconds = in_turns(
            {"forward": forward, "exact": lambda task=task: sc.attribute(model, graph, task, sc.Exact())}, repeats
        )
        figures[f"Exact, forwards an edge, {name}"] = seconds["exact"] / graph.n_edges / seconds["forward"]
    return figures


def large(root: Path) -> dict[str, float]:
    """Peak memory of EAP on 24 layers, 16 heads, d_model 1024, above that of the bare forward and backward pass."""
    folder = gpt2_folder(root, n_layer=24, n_head=16, n_embd=1024, n_vocab=5000)
    bare, eap = (peak_megabytes(folder, what, 32, 64) for what in ("bare", "eap"))
    sources = 1 + 24 * 17
    allowed = 32 * 64 * sources * 1024 * 4 / 4 / 2**20
    return {
        "24 x 16 x 1024, 32 prompts of 64 tokens: peak MB of the bare passes": bare,
        "the same: peak MB of EAP": eap,
        "the same: EAP above the bare passes, share of batch x positions x sources x d_model x 4 bytes / 4": (
            eap - bare
        )
        / allowed,
    }


if __name__ == "__main__":
    main()
