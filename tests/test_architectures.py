"""Every architecture of SAELens all the way: saved, loaded, spliced, and attributed as the splice itself says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import token_task
from torch import Tensor

import sparse_circuits as sc

pytest.importorskip("sae_lens", reason="SAELens is not installed (it needs TransformerLens 3)")
from test_dictionaries import ARCHITECTURES, make

NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")


def metric(logits: Tensor, batch: Any) -> Tensor:
    return logits[:, -1, 5] - logits[:, -1, 11]


@pytest.mark.parametrize("family", ["gpt2", "hooked-gpt2"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_save_load_splice_attribute(zoo, tmp_path: Path, family: str, normalize: str, name: str) -> None:
    """Scores under ZERO are what SAELens's own hook points in a splice give: a gradient, and a feature set to 0."""
    architecture, options = ARCHITECTURES[name]
    transcoder = "transcoder" in name
    make(architecture, normalize_activations=normalize, **options).save_model(tmp_path / "sae")
    place = "transcoder_1" if transcoder else "mlp_1"
    model, task = zoo(family), token_task(metric=metric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights, and a transcoder that is not told what it reads
        loaded = sc.load_dictionaries({place: tmp_path / "sae"}, model)
    tokens = torch.tensor(task.clean)
    found: dict[str, Tensor] = {}
    point = f"{loaded[place].hook_name_out}.hook_sae_acts_post"

    def keep(acts: Tensor, hook: Any) -> Tensor:
        found["acts"] = acts
        return acts

    with sc.splice(model, loaded, errors=True) as spliced:
        logits = spliced.run_with_hooks(tokens, fwd_hooks=[(point, keep)])
        torch.testing.assert_close(logits, model(tokens), atol=1e-5, rtol=0)
        (gradient,) = torch.autograd.grad(metric(logits, None).sum(), found["acts"])
        first_order = -(gradient * found["acts"]).sum((0, 1)) / len(tokens)
        strongest = int(first_order.abs().argmax())

        def ablate(acts: Tensor, hook: Any) -> Tensor:
            return acts.index_fill(-1, torch.tensor([strongest]), 0.0)

        with torch.no_grad():
            without = spliced.run_with_hooks(tokens, fwd_hooks=[(point, ablate)])
            exact = float((metric(without, None) - metric(logits, None)).mean())
    graph = sc.Graph.of(model, loaded)
    zero = {"ablation": sc.Ablation.ZERO}
    scores = sc.attribute(model, graph, task, sc.EAP(), nodes_above=0.0, **zero)
    ours = torch.tensor([scores.to_dict().get(f"{place}.f{i}", 0.0) for i in range(loaded[place].n_features)])
    torch.testing.assert_close(
        ours, first_order.detach(), atol=1e-4 * float(first_order.detach().abs().max()), rtol=1e-3
    )
    each = sc.attribute(model, graph, task, sc.Exact(), **zero).to_dict()
    assert each[f"{place}.f{strongest}"] == pytest.approx(exact, rel=1e-3, abs=1e-5)
    path = scores.top(5).save(tmp_path / "circuit.safetensors")
    circuit = sc.Circuit.load(path, dictionaries=loaded)
    whole = sc.evaluate(model, sc.FeatureCircuit.of(graph, list(graph.nodes)[:-1]), task, **zero)
    torch.testing.assert_close(whole.per_example, whole.clean, atol=1e-4, rtol=1e-4)
    result = sc.evaluate(model, circuit, task, **zero)
    assert result.per_example.isfinite().all()
    if normalize == "none":  # what load_dictionaries takes will do, too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = sc.evaluate(model, sc.Circuit.load(path), task, dictionaries={place: tmp_path / "sae"}, **zero)
        assert torch.equal(again.per_example, result.per_example)
        with pytest.raises(sc.InputError, match="expected what load_dictionaries"):
            sc.Circuit.load(path, dictionaries={place: tmp_path / "sae"})
