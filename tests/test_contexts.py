"""Where features fire: against everything kept and sorted, killed and resumed, extended; what directions do to the logits."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch
import transformers
from conftest import VOCAB, token_task

import sparse_circuits as sc
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.edited import copied
from sparse_circuits.errors import FileFormatError, InputError
from sparse_circuits.features import (
    Context,
    FeatureStore,
    Labels,
    collect,
    collect_contexts,
    feature_pages,
    head_report,
    logits,
    mlp_report,
    promoted,
    shades,
    similar,
)
from sparse_circuits.features.keep import Kept
from sparse_circuits.features.logits import directions
from sparse_circuits.features.nodes import columns_of
from sparse_circuits.features.tally import bin_edges
from sparse_circuits.features.texts import documents_of
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Site
from sparse_circuits.model.walk import Walk
from sparse_circuits.task.tokens import token_text

try:
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer  # noqa: F401

    HAS_SAES = True
except ImportError:
    HAS_SAES = False
needs_saes = pytest.mark.skipif(
    not HAS_SAES, reason="SAELens is not installed, or not beside a TransformerLens that it takes"
)


def rows(n: int, seed: int = 0, least: int = 3, most: int = 12) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(least, most + 1, (n,), generator=generator).tolist()
    return [torch.randint(1, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def thresholded(model, name: str = "resid_1", n: int = 11, threshold: float = 0.8, seed: int = 0) -> Dictionary:
    """A random JumpReLU dictionary of the library's own class."""
    site = Site.named(name)
    width = anatomy_of(model).d_model
    generator = torch.Generator().manual_seed(seed)
    W_enc, W_dec = torch.randn(width, n, generator=generator) / 4, torch.randn(n, width, generator=generator)
    zero = torch.zeros(n)

    def code(x: torch.Tensor) -> torch.Tensor:
        hidden = x @ W_enc
        return hidden * (hidden > threshold)

    return Dictionary(
        site, f"random {seed}", site.hook_name, site.hook_name, W_enc, zero, W_dec, torch.zeros(width), code
    )


@torch.no_grad()
def values_of(model, dictionary: Dictionary, ids: list[int]) -> torch.Tensor:
    """All features of one text, alone: ``[pos, features]``."""
    anatomy, kept = anatomy_of(model), {}

    def visit(site, read, written):
        kept["read"] = read
        return written

    Walk(anatomy, {dictionary.site}, None).run(anatomy.embed(torch.tensor([ids])), visit)
    return dictionary.features(kept["read"])[0]


@pytest.fixture
def model(zoo):
    return zoo("gpt2")


OPTIONS = {"context": 12, "before": 3, "after": 2, "top": 4, "samples": 7}


def collected(model, folder: Path, texts, dictionary: Dictionary, **options):
    nodes = {dictionary.site.name: range(dictionary.n_features)}
    options = OPTIONS | {"batch_size": 5} | options
    return collect_contexts(model, nodes, texts, store=folder, dictionaries=dictionary, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "hooked-rms"])
def test_counts_and_contexts_are_those_of_everything_kept_and_sorted(zoo, name: str, tmp_path: Path) -> None:
    model, texts = zoo(name), rows(23)
    dictionary = thresholded(model)
    store = collected(model, tmp_path / "store", texts, dictionary)
    everything = [values_of(model, dictionary, ids) for ids in texts]
    joined = torch.cat(everything)
    assert len(store) == dictionary.n_features
    for i in range(dictionary.n_features):
        page, values = store[f"resid_1.f{i}"], joined[:, i]
        fires = values[values != 0]
        assert page.tokens == len(joined)
        assert page.fired == len(fires)
        assert page.density == pytest.approx(len(fires) / len(joined))
        if len(fires) == 0:
            assert page.top == ()
            assert page.mean == 0.0
            continue
        assert page.mean == pytest.approx(float(fires.mean()), rel=1e-4)
        assert page.highest == pytest.approx(float(fires.max()), rel=1e-4)
        edges = torch.tensor(bin_edges())
        first = int((fires.min() >= edges).sum()) - 1
        assert page.bin_edges[0] == edges[first]
        assert sum(page.bin_counts) == len(fires)
        # the strongest token of each row, rows sorted
        peaks = [
            (float(v[:, i].max()), row, int(v[:, i].argmax())) for row, v in enumerate(everything) if v[:, i].max() > 0
        ]
        peaks.sort(key=lambda peak: -peak[0])
        assert len(page.top) == min(4, len(peaks))
        for context, (value, row, position) in zip(page.top, peaks, strict=False):
            assert context.value == pytest.approx(value, rel=1e-4)
            assert (context.row, context.position) == (row, position)
            start, stop = position - context.peak, position - context.peak + len(context.tokens)
            assert context.tokens == tuple(map(str, texts[row][start:stop]))
            assert torch.allclose(torch.tensor(context.values), everything[row][start:stop, i], atol=1e-4)
            assert len(context.tokens) == min(6, len(texts[row]))
        assert len(page.sample) == min(7, len(fires))
        places = {(context.row, context.position) for context in page.sample}
        assert len(places) == len(page.sample)
        assert all(everything[row][position, i] != 0 for row, position in places)


def test_quantiles_put_the_sample_in_order(model, tmp_path: Path) -> None:
    dictionary = thresholded(model, threshold=0.0)
    page = collected(model, tmp_path / "store", rows(40), dictionary, samples=50)["resid_1.f0"]
    bands = list(page.quantiles.items())
    assert [band for band, _ in bands] == [(0.8, 1.0), (0.6, 0.8), (0.4, 0.6), (0.2, 0.4), (0.0, 0.2)]
    for (_, higher), (_, lower) in pairwise(bands):
        assert len(higher) == 5
        assert min(c.value for c in higher) >= max(c.value for c in lower)


def test_a_sample_takes_each_token_alike(model, tmp_path: Path) -> None:
    """Of many draws, early and late tokens are in the sample equally often."""
    dictionary = thresholded(model, n=1, threshold=-math.inf)
    texts, early, drawn = rows(30, least=8, most=8), 0, 0
    for seed in range(10):
        page = collected(model, tmp_path / str(seed), texts, dictionary, seed=seed, samples=30)["resid_1.f0"]
        early += sum(context.row < 15 for context in page.sample)
        drawn += len(page.sample)
    assert drawn == 300
    assert abs(early / drawn - 0.5) < 0.1  # 3.5 standard deviations


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_batches_make_no_difference(model, tmp_path: Path, batch_size: int) -> None:
    dictionary, texts = thresholded(model), rows(23)
    one = collected(model, tmp_path / "one", texts, dictionary)
    other = collected(model, tmp_path / "other", texts, dictionary, batch_size=batch_size)
    for name in one:
        assert [(c.row, c.position) for c in one[name].top] == [(c.row, c.position) for c in other[name].top]
        assert [(c.row, c.position) for c in one[name].sample] == [(c.row, c.position) for c in other[name].sample]
        assert one[name].bin_counts == other[name].bin_counts
        assert one[name].mean == pytest.approx(other[name].mean, rel=1e-5)


@pytest.mark.parametrize("killed_at", [1, 2, 4])
def test_a_killed_run_goes_on_to_the_same_bytes(model, tmp_path: Path, monkeypatch, killed_at: int) -> None:
    dictionary, texts = thresholded(model), rows(40)
    collected(model, tmp_path / "whole", texts, dictionary, save_every=1)
    take, calls = collect._Run.take, []

    def killed(self, batch, done):
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(batch)
        take(self, batch, done)

    monkeypatch.setattr(collect._Run, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        collected(model, tmp_path / "killed", texts, dictionary, save_every=1)
    monkeypatch.undo()
    assert contents(tmp_path / "killed") != contents(tmp_path / "whole")
    (tmp_path / "killed" / ".part-000.safetensors.x7.safetensors").write_bytes(b"half of it")
    collected(model, tmp_path / "killed", texts, dictionary, save_every=2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*"))


def test_a_run_killed_inside_a_batch_goes_on_to_the_same_bytes(model, tmp_path: Path, monkeypatch) -> None:
    dictionary, texts = thresholded(model), rows(40)
    collected(model, tmp_path / "whole", texts, dictionary)
    add, calls = collect._Pass.visit, []

    def killed(self, *args):
        calls.append(args)
        if len(calls) == 4:
            raise RuntimeError("killed")
        add(self, *args)

    monkeypatch.setattr(collect._Pass, "visit", killed)
    with pytest.raises(RuntimeError, match="killed"):
        collected(model, tmp_path / "killed", texts, dictionary, save_every=2)
    monkeypatch.undo()
    assert FeatureStore.load(tmp_path / "killed")["resid_1.f0"].tokens == sum(map(len, texts[:10]))
    collected(model, tmp_path / "killed", texts, dictionary)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_text_is_counted_once_and_a_longer_one_gone_on_with(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(40)
    collected(model, tmp_path / "whole", texts, dictionary)
    store = collected(model, tmp_path / "store", texts[:20], dictionary)
    before = contents(tmp_path / "store")
    for again in (texts[:20], texts[:7], iter(texts[:20])):
        collected(model, tmp_path / "store", again, dictionary)
        assert contents(tmp_path / "store") == before
    longer = collected(model, tmp_path / "store", texts, dictionary)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert longer["resid_1.f0"].tokens == sum(map(len, texts)) > store["resid_1.f0"].tokens


def test_another_text_is_added(model, tmp_path: Path) -> None:
    dictionary, one, other = thresholded(model), rows(15), rows(15, seed=1)
    collected(model, tmp_path / "store", one, dictionary)
    both = collected(model, tmp_path / "store", other, dictionary)
    together = collected(model, tmp_path / "together", one + other, dictionary)
    assert len(both.tokens) == 2
    for name in both:
        assert both[name].tokens == together[name].tokens
        assert both[name].bin_counts == together[name].bin_counts
        assert [c.tokens for c in both[name].top] == [c.tokens for c in together[name].top]


def test_a_text_that_changes_after_its_beginning_is_refused(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(70)
    collected(model, tmp_path / "store", texts, dictionary)
    with pytest.raises(InputError, match="begins as 'texts' does, of which the store has counted 70 rows, but differs"):
        collected(model, tmp_path / "store", texts[:65] + rows(20, seed=3), dictionary)


def test_new_features_get_a_pass_and_old_ones_keep_their_counts(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(20)
    options = {"dictionaries": dictionary, "batch_size": 5, **OPTIONS}
    some = ["resid_1.f3", "resid_1.f1"]
    collect_contexts(model, some, texts, store=tmp_path / "store", **options)
    old = (tmp_path / "store" / "part-000.safetensors").read_bytes()
    store = collect_contexts(model, [*some, "resid_1.f7"], texts, store=tmp_path / "store", **options)
    assert (tmp_path / "store" / "part-000.safetensors").read_bytes() == old
    whole = collected(model, tmp_path / "whole", texts, dictionary)
    assert dict(store.items()) == {name: whole[name] for name in store}
    # both sets go on over a longer text in one pass, each from where it ended
    longer = rows(20) + rows(9, seed=5)
    collect_contexts(model, "resid_1.f9", longer[:8], store=store, **options)
    store = collect_contexts(model, [*some, "resid_1.f7", "resid_1.f9"], longer, store=store, **options)
    assert {store[name].tokens for name in store} == {sum(map(len, longer))}
    whole = collected(model, tmp_path / "longer", longer, dictionary)
    for name in store:
        assert store[name].bin_counts == whole[name].bin_counts
        assert [c.row for c in store[name].sample] == [c.row for c in whole[name].sample]


def test_what_is_kept_does_not_grow_with_the_text(model, tmp_path: Path) -> None:
    dictionary = thresholded(model, threshold=-math.inf)
    sizes = []
    for n in (60, 600):
        collected(model, tmp_path / str(n), rows(n), dictionary, batch_size=20)
        sizes.append((tmp_path / str(n) / "part-000.safetensors").stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]


def test_tokens_limits_and_is_gone_on_from(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(30)
    store = collected(model, tmp_path / "store", texts, dictionary, tokens=50)
    assert 50 <= store["resid_1.f0"].tokens < 50 + 12
    store = collected(model, tmp_path / "store", texts, dictionary, tokens=100)
    assert 100 <= store["resid_1.f0"].tokens < 100 + 12


def test_long_texts_are_cut_into_rows(model, tmp_path: Path) -> None:
    dictionary = thresholded(model, threshold=-math.inf)
    page = collected(model, tmp_path / "store", rows(1, least=40, most=40), dictionary)["resid_1.f0"]
    assert page.tokens == 40
    assert {context.row for context in page.top} == {0, 1, 2, 3}


def test_neurons_and_heads_are_looked_at(zoo, tmp_path: Path) -> None:
    for name in ("gpt2", "neox"):
        model, texts = zoo(name), rows(9)
        anatomy = anatomy_of(model)
        names = ["m1.n5", "m0.n2", "a1.h2", "a0.h0.n3"]
        store = collect_contexts(model, names, texts, store=tmp_path / name, **OPTIONS)
        assert set(store) == set(names)
        cache = [model.run_with_cache(torch.tensor([ids]))[1] for ids in texts]
        hidden = torch.cat([c["blocks.1.mlp.hook_post"][0, :, 5] for c in cache])
        z = [c["blocks.1.attn.hook_z"][0] for c in cache]
        z = torch.cat([x.unflatten(-1, (anatomy.blocks[1].attention.n_heads, -1)) if x.dim() == 2 else x for x in z])
        sizes = (z[:, 2] @ anatomy.blocks[1].attention.W_O[2]).norm(dim=-1).detach()
        assert store["m1.n5"].highest == pytest.approx(max(0.0, float(hidden.max())), rel=1e-4)
        assert store["m1.n5"].lowest == pytest.approx(min(0.0, float(hidden.min())), rel=1e-4)
        assert store["a1.h2"].highest == pytest.approx(float(sizes.max()), rel=1e-4)
        assert store["a1.h2"].mean == pytest.approx(float(sizes.mean()), rel=1e-4)
        assert (store["a1.h2"].source, store["m1.n5"].source, store["a0.h0.n3"].source) == (
            "heads",
            "neurons",
            "neurons",
        )


def test_circuits_of_any_kind_say_what_to_look_at(model, tmp_path: Path) -> None:
    task = token_task()
    neurons = sc.load_dictionaries("neurons", model, sites=["mlp"])
    graph = sc.Graph.of(model, neurons, whole="z")
    circuit = sc.FeatureCircuit.of(graph, ["mlp_1.f3", "mlp_1.error", "a1.h1"])
    store = collect_contexts(model, circuit, task, store=tmp_path / "features", **OPTIONS)
    assert set(store) == {"mlp_1.f3", "a1.h1"}
    assert next(iter(store.tokens)).startswith("prompts of random")
    plain = sc.Circuit.of(sc.Graph.of(model), ["a0.h1->m1", "m1->logits"]) if hasattr(sc.Circuit, "of") else None
    if plain is not None:
        assert set(collect_contexts(model, plain, task, store=tmp_path / "heads", **OPTIONS)) == {"a0.h1"}


@pytest.mark.parametrize("sizes", [[1] * 60, [7, 0, 13, 40], [60]])
def test_the_best_of_a_stream_are_those_of_all_sorted(sizes: list[int]) -> None:
    """Keys with many ties, in pieces of any size: what came first stays."""
    generator = torch.Generator().manual_seed(0)
    n = sum(sizes)
    feature, key = (
        torch.randint(0, 3, (n,), generator=generator),
        torch.randint(0, 4, (n,), generator=generator).double(),
    )
    kept, start = Kept.empty(3, 5, 2), 0
    for size in sizes:
        some = slice(start, start + size)

        def windows(which: torch.Tensor, first: int = start):
            row = which + first
            place = torch.stack([torch.zeros_like(row), row, row, row], dim=1)
            return place, torch.stack([row, row], 1).int(), torch.stack([row, row], 1).float()

        kept.add(feature[some], key[some], key[some].float(), windows)
        start += size
    for i in range(3):
        expected = sorted((j for j in range(n) if feature[j] == i), key=lambda j: -key[j])[:5]
        assert kept.at[i, kept.order(i), 1].tolist() == expected
        assert kept.tokens[i, kept.order(i), 0].tolist() == expected
        assert kept.value[i, kept.order(i)].tolist() == key[expected].tolist()


def test_values_that_are_not_finite_are_refused(model, tmp_path: Path) -> None:
    dictionary = thresholded(model)
    dictionary.W_enc[:, 2] = 1e38
    with pytest.raises(InputError, match="Among rows 0 to 4 of the text a feature has a value that is not finite"):
        collected(model, tmp_path / "store", rows(20), dictionary)


# --- texts ---


@pytest.fixture(scope="module")
def toy():
    return sc.load_model("toy", device="cpu")


def toy_store(toy, folder: Path, texts, **options) -> FeatureStore:
    neurons = sc.load_dictionaries("neurons", toy, sites=["resid_3"])
    return collect_contexts(toy, ["resid_3.f4"], texts, store=folder, dictionaries=neurons, **options)


def test_text_in_any_form_is_the_same_text(toy, tmp_path: Path) -> None:
    documents = ["The cats like the dog.", "In February the garden is green.\nJohn spoke to Mary."]
    (tmp_path / "a.txt").write_text("\n\n".join(documents) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text, "id": 3}) + "\n" for text in documents))
    ids = [[toy.tokenizer.bos_token_id, *toy.tokenizer(t, add_special_tokens=False)["input_ids"]] for t in documents]
    sources = {
        "list": documents,
        "generator": (text for text in documents),
        "txt": tmp_path / "a.txt",
        "jsonl": str(tmp_path / "a.jsonl"),
        "rows": [{"text": text} for text in documents],
        "ids": ids,
        "tensors": [torch.tensor(row) for row in ids],
        "numpy": [list(torch.tensor(row).numpy()) for row in ids],
    }
    pages = {name: toy_store(toy, tmp_path / name, texts)["resid_3.f4"] for name, texts in sources.items()}
    for name, page in pages.items():
        assert page.tokens == sum(len(row) - 1 for row in ids), name  # BOS is not counted
        assert [c.tokens for c in page.top] == [c.tokens for c in pages["list"].top]
        assert page.top[0].tokens[0] == "<bos>"
    kept = toy_store(toy, tmp_path / "with bos", documents, skip_bos=False)["resid_3.f4"]
    assert kept.tokens == sum(map(len, ids))


def test_hugging_face_datasets_are_streamed(toy, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    documents = ["The cats like the dog.", "In February the garden is green."] * 3
    whole = datasets.Dataset.from_dict({"text": documents})
    whole.save_to_disk(tmp_path / "saved")
    expected = toy_store(toy, tmp_path / "list", documents)["resid_3.f4"].to_dict()
    streams = {"dataset": whole, "stream": whole.to_iterable_dataset(), "folder": tmp_path / "saved"}
    for name, texts in streams.items():
        found = toy_store(toy, tmp_path / f"store {name}", texts)["resid_3.f4"].to_dict()
        assert found["histogram"] == expected["histogram"]
        assert found["tokens"] == expected["tokens"]
    splits = tmp_path / "splits"
    datasets.DatasetDict({"validation": whole, "test": whole}).save_to_disk(splits)
    with pytest.raises(
        InputError, match="has no split 'train', only 'validation', 'test'; give the folder of one, such as"
    ):
        toy_store(toy, tmp_path / "store splits", splits)
    of_one = toy_store(toy, tmp_path / "store splits", splits / "validation")["resid_3.f4"]
    assert of_one.to_dict()["histogram"] == expected["histogram"]
    renamed = whole.rename_column("text", "article")
    with pytest.raises(InputError, match="fields article; expected one of text"):
        toy_store(toy, tmp_path / "renamed", renamed)


def test_a_hugging_face_dataset_is_named_with_its_configuration(toy, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def load_dataset(*names: object, **options: object) -> list[dict[str, str | None]]:
        if names[0] == "broken":
            raise ConnectionError("no way there\nat all")
        asked.append((*names, options))
        return [{"text": "The cats like the dog."}, {"text": None}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    for i, name in enumerate(("hf:a/b", "hf:a/b:small", "https://huggingface.co/datasets/a/b")):
        assert toy_store(toy, tmp_path / str(i), name)["resid_3.f4"].tokens == 6
    streamed = {"split": "train", "streaming": True}
    assert asked == [("a/b", None, streamed), ("a/b", "small", streamed), ("a/b", None, streamed)]
    with pytest.raises(InputError, match=r"'broken' cannot be loaded \(no way there\)"):
        toy_store(toy, tmp_path / "no", "hf:broken")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="need the package datasets: pip install datasets"):
        toy_store(toy, tmp_path / "no", "hf:a/b")


def test_a_stream_that_breaks_off_is_gone_on_with(toy, tmp_path: Path, monkeypatch) -> None:
    rows, breaks_at = [{"text": "The cats like the dog."}, {"text": "The dog likes the cats."}] * 100, [150, None]

    def load_dataset(*_: object, **__: object) -> Iterator[dict[str, str]]:
        end = breaks_at.pop(0)
        yield from rows[:end]
        if end is not None:
            raise TimeoutError("no answer\nfor long")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    options = {"batch_size": 4, "save_every": 50}
    with pytest.raises(InputError, match=r"'a/b' could not be read further \(TimeoutError: no answer\)\.$"):
        toy_store(toy, tmp_path / "broken", "hf:a/b", **options)
    assert FeatureStore.load(tmp_path / "broken")["resid_3.f4"].tokens == 888  # all whole batches that came
    broken = toy_store(toy, tmp_path / "broken", "hf:a/b", **options)
    whole = toy_store(toy, tmp_path / "whole", [row["text"] for row in rows], **options)
    assert broken["resid_3.f4"].tokens == whole["resid_3.f4"].tokens == 1200
    assert broken["resid_3.f4"].mean == whole["resid_3.f4"].mean


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", "Café".encode("latin-1"), FileFormatError, "is not text in UTF-8"),
        ("a.txt.gz", gzip.compress(b"The cats like the dog.", mtime=0)[:-9], FileFormatError, "is no whole gzip file"),
        ("a.txt.gz", b"The cats", FileFormatError, "is no whole gzip file"),
        ("a.jsonl", b'{"text": "The cats"}\n{"text": \n', FileFormatError, "line 2: not JSON"),
        ("a.json", b'[\n{"text": "The cats"}\n]', FileFormatError, "line 1: not JSON .* one text in each line"),
        ("a.jsonl", b'\n{"story": "The cats"}', InputError, "line 2: .* the fields story; expected one of text"),
        ("a.jsonl", b'{"text": null}', InputError, "hold no token"),
    ],
)
def test_files_that_are_no_text_are_refused(toy, tmp_path: Path, name: str, content: bytes, error, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        toy_store(toy, tmp_path / "store", tmp_path / name)
    assert not (tmp_path / "store").exists()


def test_a_file_is_read_in_pieces(tmp_path: Path, monkeypatch) -> None:
    """Also one long line, or many without an empty one between them: as much is held as is allowed."""
    lines = [f"word{i} " * (1 + i % 5) for i in range(40)]
    (tmp_path / "a.txt").write_text("\ufeff" + "\n".join(lines) + "\n\n" + "x" * 500)
    _, whole = documents_of(tmp_path / "a.txt")
    assert list(whole) == ["\n".join(lines).strip(), "x" * 500]
    monkeypatch.setattr("sparse_circuits.features.texts._LONGEST", 100)
    _, pieces = documents_of(tmp_path / "a.txt")
    found = list(pieces)
    assert "".join("".join(found).split()) == "".join("".join(lines).split()) + "x" * 500
    assert max(map(len, found)) < 200


def test_the_toy_language_has_no_end_and_one_seed(toy, tmp_path: Path) -> None:
    one = toy_store(toy, tmp_path / "one", "toy", tokens=900)["resid_3.f4"]
    same = toy_store(toy, tmp_path / "same", "toy", tokens=900)["resid_3.f4"]
    other = toy_store(toy, tmp_path / "other", "toy", tokens=900, seed=1)["resid_3.f4"]
    assert one.tokens == 950 == other.tokens
    assert one == same
    assert one.bin_counts != other.bin_counts
    both = toy_store(toy, tmp_path / "one", "toy:1", tokens=900)
    assert both["resid_3.f4"].tokens == 1900
    assert sorted(name.partition(" (")[0] for name in both.tokens) == ["toy, seed 0", "toy, seed 1"]


@pytest.mark.parametrize("share", [i / 20 for i in range(-20, 21)])
def test_tokens_can_be_read_on_their_shades(share: float) -> None:
    """White or black on the shade over white, by WCAG's contrast: the better of the two, or nearly, and at least 4.5."""
    rgb = [int(shades.hue(share)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    blended = [1 - shades.depth(share) * (1 - c) for c in rgb]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in blended]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    white, black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    assert (white if shades.dark(share) else black) >= 4.5
    assert ("color:#FFFFFF" in shades.style(share)) == shades.dark(share)


def test_tokens_are_shown_with_the_spaces_that_they_have() -> None:
    """Pieces of words stand together, whole words apart; a space that a tokenizer drops at the start of a text is there."""
    assert str(Context(("The", " c", "at", "\n", " s", "at"), (0.0,) * 6, 2, 0.0)) == "The c[at]\u21b5 sat"
    assert str(Context(("The", "cat", "sat"), (0.0,) * 3, 1, 0.0)) == "The [cat] sat"
    html = Context(("un", "happy", " <b>"), (0.0, 1.0, 0.0), 1, 1.0).to_html()
    assert re.sub("<[^>]*>", "", html) == "unhappy &lt;b&gt;"
    vocabulary = {name: i for i, name in enumerate(["<s>", "\u2581cat", "cat", "\u2581", "s"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
    steps = [
        tokenizers.decoders.Replace("\u2581", " "),
        tokenizers.decoders.Fuse(),
        tokenizers.decoders.Strip(" ", 1, 0),
    ]
    inner.decoder = tokenizers.decoders.Sequence(steps)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    assert tokenizer.decode([1]) == "cat"  # what needs mending
    assert [token_text(tokenizer, i) for i in range(5)] == ["<s>", " cat", "cat", " ", "s"]
    assert token_text(None, 7) == "7"


# --- weights ---


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "olmo2", "hooked-local-softcap", "hooked-no-norm"])
def test_promoted_tokens_are_those_whose_logits_rise(zoo, name: str) -> None:
    """Beside adding a little of the direction to the last stream, the norm's factor held: equal up to the vocabulary's mean."""
    model = zoo(name)
    anatomy = anatomy_of(model)
    dictionary = thresholded(model)
    up, down = promoted(model, "resid_1.f2", VOCAB, dictionaries=dictionary)["resid_1.f2"]
    values = torch.zeros(VOCAB)
    for token, value in up:
        values[int(token)] = value
    assert [v for _, v in up] == sorted((v for _, v in up), reverse=True)
    assert [t for t, _ in down] == [t for t, _ in reversed(up)]
    stream = torch.randn(3, anatomy.d_model, generator=torch.Generator().manual_seed(0))
    norm = anatomy.final_norm
    scale = norm.inverse_scale(stream)

    def frozen(x: torch.Tensor) -> torch.Tensor:
        out = norm.normalize(x, scale) if norm.kind != "none" else x
        return out if norm.weight is None else out * norm.weight

    # the model's own module, in front of a cap on the logits, which is the identity to first order around 0
    unembedding = model.unembed(torch.eye(anatomy.d_model)) - model.unembed(torch.zeros(1, anatomy.d_model))
    eps = 1e-2
    change = (frozen(stream + eps * dictionary.W_dec[2]) - frozen(stream)) / eps @ unembedding / scale
    change = change - change.mean(-1, keepdim=True)
    assert torch.allclose(change, values.expand_as(change), rtol=1e-3, atol=1e-3 * float(values.abs().max()))


def rounded(zoo, name: str):
    """A model in bfloat16, and one in float32 with the same weights."""
    model, exact = zoo(name, torch.bfloat16), copied(zoo(name))
    for parameter in exact.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return model, exact


@pytest.mark.parametrize("name", ["phi", "gptj", "gemma2", "hooked-gpt2", "hooked-local-softcap"])
def test_promoted_tokens_do_not_hang_on_the_dtype(zoo, name: str) -> None:
    found = [dict(promoted(model, "m1.n2", VOCAB)["m1.n2"][0]) for model in rounded(zoo, name)]
    assert list(found[0]) == list(found[1])
    assert list(found[0].values()) == pytest.approx(list(found[1].values()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("report", "node"), [(head_report, "a1.h1"), (mlp_report, "m1")])
@pytest.mark.parametrize("name", ["phi", "hooked-gpt2"])
def test_a_report_of_a_bfloat16_model_is_off_by_its_run_only(zoo, name: str, report, node: str) -> None:
    task = token_task(varied=True)
    ours, exact = (report(model, task, node, k=VOCAB) for model in rounded(zoo, name))
    for side in ("adds_to_correct", "adds_to_incorrect"):
        torch.testing.assert_close(getattr(ours, side), getattr(exact, side), rtol=0.03, atol=0.03)
    values, expected = dict(ours.promoted), dict(exact.promoted)
    assert [values[token] for token in expected] == pytest.approx(list(expected.values()), rel=0.03, abs=0.03)


def test_the_unembedding_is_gone_through_in_pieces(model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = promoted(model, "m1.n2", VOCAB)
    monkeypatch.setattr(logits, "_ELEMENTS", 5 * anatomy_of(model).d_model)
    pieces = promoted(model, "m1.n2", VOCAB)
    for found, expected in zip(pieces["m1.n2"], whole["m1.n2"], strict=True):
        assert dict(found) == pytest.approx(dict(expected), abs=1e-5)


def test_directions_go_through_heads_and_mlps(model) -> None:
    anatomy = anatomy_of(model)
    identity = sc.load_dictionaries("neurons", model, sites=["z_1", "resid_1"])
    heads = anatomy.blocks[1].attention
    d_head = heads.W_O.shape[1]
    found = promoted(model, [f"z_1.f{d_head + 3}", "a1.h1.n3", "m2.n7"], 4, dictionaries=identity)
    assert found[f"z_1.f{d_head + 3}"] == found["a1.h1.n3"]
    by_hand = thresholded(model)
    by_hand.W_dec[0] = anatomy.blocks[2].mlp.W_out[7].detach()
    expected = promoted(model, "resid_1.f0", 4, dictionaries=by_hand)["resid_1.f0"][0]
    assert [token for token, _ in found["m2.n7"][0]] == [token for token, _ in expected]
    assert [value for _, value in found["m2.n7"][0]] == pytest.approx([value for _, value in expected], abs=1e-5)
    with pytest.raises(InputError, match=r"a1\.h1 is a head, which writes in many directions; use head_report"):
        promoted(model, "a1.h1")


def test_similar_features_point_the_same_way(model) -> None:
    dictionary = thresholded(model)
    dictionary.W_dec[5] = 3 * dictionary.W_dec[2] + 0.01
    found = similar(dictionary, 2, 4)
    assert found[0].name == "resid_1.f5"
    assert found[0].decoder > 0.99
    cosine = torch.nn.functional.cosine_similarity
    for other in found:
        i = int(other.name.rpartition("f")[2])
        assert other.decoder == pytest.approx(float(cosine(dictionary.W_dec[2], dictionary.W_dec[i], dim=0)), abs=1e-5)
        enc = dictionary.W_enc
        assert other.encoder == pytest.approx(float(cosine(enc[:, 2], enc[:, i], dim=0)), abs=1e-5)
    assert similar(dictionary, "resid_1.f2", 4) == found
    for wrong in (11, "resid_1.f99", "mlp_0.f1"):
        with pytest.raises(InputError, match="resid_1 has the features 0 to 10"):
            similar(dictionary, wrong)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_similar_neurons_write_the_same_way(zoo, name: str) -> None:
    model = zoo(name)
    anatomy = anatomy_of(model)
    pages = feature_pages(model, ["m1.n3", "m1.n0", "a0.h1.n2", "a0.h1"], k=5)
    n_heads, d_head = anatomy.blocks[0].attention.W_O.shape[:2]
    units = {
        "m1.n3": [f"m1.n{i}" for i in range(anatomy.blocks[1].mlp.d_mlp)],
        "a0.h1.n2": [f"a0.h{head}.n{i}" for head in range(n_heads) for i in range(d_head)],
    }
    for unit, others in units.items():
        written = directions(anatomy, others, {})
        cosines = torch.nn.functional.cosine_similarity(written, written[others.index(unit)][None])
        expected = sorted(zip(others, cosines.tolist(), strict=True), key=lambda pair: -pair[1])[1:6]
        assert [other for other, _ in pages[unit].similar] == [other for other, _ in expected]
        assert [value for _, value in pages[unit].similar] == pytest.approx([value for _, value in expected], abs=1e-5)
    assert pages["a0.h1"].similar == ()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "hooked-attn-only"])
def test_a_head_report_is_what_the_head_does(zoo, name: str) -> None:
    model = zoo(name)
    anatomy, task = anatomy_of(model), token_task(varied=True)
    report = head_report(model, task, "a1.h1", k=VOCAB, prompts=3)
    assert len(report.prompts) == 3
    for ids, prompt in zip(task.clean, report.prompts, strict=False):
        assert prompt.tokens == tuple(map(str, ids))
        _, cache = model.run_with_cache(torch.tensor([ids]))
        assert torch.allclose(prompt.pattern, cache["blocks.1.attn.hook_pattern"][0, 1], atol=1e-4)
    assert sum(share for _, share in report.looks_at) == pytest.approx(1, abs=1e-4)
    if name in ("gpt2", "llama"):
        ids = task.clean[0]
        _, cache = model.run_with_cache(torch.tensor([ids]))
        z = cache["blocks.1.attn.hook_z"][0, -1]
        z = z.view(anatomy.blocks[1].attention.n_heads, -1)
        out = z[1] @ anatomy.blocks[1].attention.W_O[1]
        stream = cache[f"blocks.{len(anatomy.blocks) - 1}.hook_out"][0, -1:]
        norm = anatomy.final_norm
        if norm.kind == "layer":
            out = out - out.mean()
        effect = anatomy.unembed((out * norm.weight * norm.inverse_scale(stream))[0:1])[0]
        effect = effect - effect.mean()
        found = {int(token): value for token, value in report.prompts[0].promoted}
        assert torch.allclose(torch.tensor([found[i] for i in range(VOCAB)]), effect, atol=1e-3)
    json.dumps(report.to_dict(), allow_nan=False)
    first = dict(report.prompts[0].promoted)
    assert float(report.adds_to_correct[0]) == report.prompts[0].adds_to_correct
    assert float(report.adds_to_correct[0]) == pytest.approx(first[str(task.metric.correct[0])], abs=1e-5)
    assert float(report.adds_to_incorrect[0]) == pytest.approx(first[str(task.metric.incorrect[0])], abs=1e-5)
    with pytest.raises(InputError, match="is no head of the model"):
        head_report(model, task, "m1")


@pytest.mark.parametrize(("report", "node"), [(head_report, "a1.h1"), (mlp_report, "m1")])
def test_effects_on_the_answers_are_read_where_the_metric_reads(zoo, report, node: str) -> None:
    model, clean = zoo("gpt2"), token_task(5, varied=True).clean
    answers = [[3, 4], 5, [6], 7, 8], [9, [10, 11, 12], 13, 14, 15]

    def of(metric: object, prompts: list[list[int]] = clean):
        return report(model, sc.Task(prompts, metric=metric), node, batch_size=2)

    found = of(sc.ProbDiff(*answers, position=2))
    # what an output at a token does there does not depend on the tokens after it
    short = of(sc.LogitDiff(*answers), [ids[:3] for ids in clean])
    torch.testing.assert_close(found.adds_to_correct, short.adds_to_correct, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.adds_to_incorrect, short.adds_to_incorrect, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found.adds_to_correct, of(sc.LogitDiff(*answers)).adds_to_correct, atol=1e-3)
    both = of(sc.LogProb([3] * 5)).adds_to_correct + of(sc.LogProb([4] * 5)).adds_to_correct
    assert float(of(sc.LogProb(answers[0])).adds_to_correct[0]) == pytest.approx(float(both[0]) / 2, abs=1e-5)
    known = short.to_dict()
    assert known["adds_to_correct"] == pytest.approx(float(short.adds_to_correct.mean()), abs=1e-3)
    assert of(sc.LogProb([3] * 5)).adds_to_incorrect is None
    without = of(sc.NegativeKL())
    assert (without.adds_to_correct, without.adds_to_incorrect) == (None, None)
    assert "adds_to_correct" not in without.to_dict()
    # of a slice, its own examples'
    part = report(model, sc.Task(clean, metric=sc.LogitDiff(*answers))[[4, 1]], node)
    whole = of(sc.LogitDiff(*answers))
    torch.testing.assert_close(part.adds_to_incorrect, whole.adds_to_incorrect[[4, 1]])


@needs_saes
@pytest.mark.parametrize(
    "architecture", ["standard", "gated", "jumprelu", "topk", "transcoder", "skip_transcoder", "jumprelu_transcoder"]
)
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_some_columns_of_a_dictionary_are_those_of_all(architecture: str, normalize: str) -> None:
    from sae_lens.registry import get_sae_class

    from sparse_circuits.dictionary.saelens import wrap

    kind, config = get_sae_class(architecture)
    options = {"d_in": 12, "d_sae": 30, "dtype": "float32", "device": "cpu", "normalize_activations": normalize}
    if architecture == "topk":
        options["k"] = 5
    if "transcoder" in architecture:
        options |= {"d_out": 12, "apply_b_dec_to_input": False}
    torch.manual_seed(0)
    sae = kind(config(**options))
    for name, parameter in sae.named_parameters():
        torch.nn.init.uniform_(parameter, 0.0, 0.3) if name == "threshold" else torch.nn.init.normal_(
            parameter, std=0.4
        )
    dictionary = wrap(sae, Site.named("mlp_1"), "x", "in", "out")
    x, some = torch.randn(50, 12), [3, 4, 17, 29]
    values = columns_of(dictionary, some)
    assert torch.allclose(values(x), dictionary.features(x)[:, some], atol=1e-5)
    assert float((values(x) != 0).float().mean()) > 0.01
    assert (getattr(values, "__self__", None) is not None) == (architecture != "topk")


@needs_saes
def test_every_kind_of_site_is_read_where_its_dictionary_reads(toy, tmp_path: Path) -> None:
    """Beside the model's own cache, at the hook names that the dictionaries have from SAELens."""
    saes = sc.load_dictionaries("toy", toy, sites=["attn_1", "mlp_2", "resid_0", "transcoder_3"])
    documents = ["The cats like the dog.", "In February the garden is green.", "John spoke to Mary."]
    nodes = {site: range(40) for site in saes}
    store = collect_contexts(toy, nodes, documents, store=tmp_path / "store", dictionaries=saes, skip_bos=False)
    assert len(store) == 160
    fired = 0
    for site, dictionary in saes.items():
        caches = [toy.run_with_cache(toy.to_tokens(text))[1] for text in documents]
        values = torch.cat([dictionary.features(cache[dictionary.hook_name])[0, :, :40] for cache in caches]).detach()
        for i in range(40):
            page = store[f"{site}.f{i}"]
            assert page.tokens == len(values)
            assert page.fired == int((values[:, i] != 0).sum())
            assert page.highest == pytest.approx(float(values[:, i].max()), abs=1e-4)
            fired += page.fired
    assert fired > 100


@needs_saes
def test_pages_of_a_circuit_put_everything_together(toy, tmp_path: Path) -> None:
    saes = sc.load_dictionaries("toy", toy, sites=["resid", "transcoder"])
    graph = sc.Graph.of(toy, saes)
    circuit = sc.FeatureCircuit.of(graph, {"resid_3.f17": -0.4, "transcoder_2.f30": 0.2, "resid_3.error": 0.1})
    store = collect_contexts(toy, circuit, store=tmp_path / "store", tokens=4000)
    labels = Labels({"resid_3.f17": "plural subjects"})
    pages = feature_pages(toy, circuit, store, labels=labels, k=5)
    assert set(pages) == {"resid_3.f17", "transcoder_2.f30"}
    page = pages["resid_3.f17"]
    assert page.label == "plural subjects"
    assert page.link is None
    assert page.source == saes["resid_3"].id
    assert page.top == store["resid_3.f17"].top
    assert len(page.promoted) == len(page.suppressed) == len(page.similar) == 5
    assert page.promoted[0][1] > 0 > page.suppressed[0][1]
    again = json.loads(json.dumps(page.to_dict(), allow_nan=False))
    assert again["top"][0]["tokens"][again["top"][0]["peak"]]
    html = page._repr_html_()
    assert "plural subjects" in html
    assert "rgba(" in html
    assert len(html) < 40_000
    assert feature_pages(toy, "resid_3.f17", dictionaries=saes)["resid_3.f17"].top == ()
    assert set(feature_pages(toy, ["resid_3.f17@3", "resid_3.f17@last"], dictionaries=saes)) == {"resid_3.f17"}


# --- bad input ---


def test_bad_input_is_named(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(5)

    def refused(message: str, nodes="resid_1.f0", given=texts, store="bad", **options) -> None:
        with pytest.raises(InputError, match=message):
            collect_contexts(model, nodes, given, store=tmp_path / store, **{"dictionaries": dictionary, **options})

    refused("'resid_1.g3' names no feature, neuron or head", "resid_1.g3")
    refused("no feature, neuron or head among the nodes", ["resid_1.error", "m0"])
    refused("No dictionary at mlp_0, which mlp_0.f3", "mlp_0.f3")
    refused("resid_1 has 11 features; there is no resid_1.f11", "resid_1.f11")
    refused("m0 has 96 neurons; there is no m0.n96", "m0.n96")
    refused("a1 has 3 heads; there is no a1.h3", "a1.h3")
    refused("The model has 3 layers; there is no head in layer 9", "a9.h0")
    refused("Expected a circuit or names", 3)
    refused("there is no such file; expected 'toy'", given="The cats like")
    refused("the model has no tokenizer", given=["The cats like"])
    refused("which this model does not speak", given="toy")
    refused("expected ids from 0 to 60", given=[[1, 99]])
    refused("A text is list; expected a string or a list of token ids", given=[["a"]])
    refused("hold no token", given=[])
    refused("expected texts, a file or a dataset", given=3)
    refused("one split of a dataset", given={"train": texts})
    refused("texts=Table: expected texts, not a table; give one column", given=Table())
    refused("texts='hf:': names no dataset; expected a name after it", given="hf:")
    refused("texts='hf: :en': names no dataset", given="hf: :en")
    refused("expected a .txt file, or a .jsonl", given=Path(__file__))
    refused("context=99: the model has no more than 32 positions", context=99)
    refused("top=0: expected a whole number", top=0)
    refused("batch_size=0: expected", batch_size=0)
    refused("tokens=0: expected", tokens=0)
    refused("tokens=True: expected a whole number", tokens=True)
    refused("skip_bos='no': expected True or False", skip_bos="no")
    refused("A text holds token -1; expected ids from 0 to 60", given=[[5, -1, 7]])
    refused("A text is list; expected", given=[[True, 3]])
    refused("expected what load_dictionaries", dictionaries={"resid_1": 3})
    assert not (tmp_path / "bad").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    refused("is no feature store; give store", store="full")
    with pytest.raises(InputError, match=r"holds no store.json"):
        FeatureStore.load(tmp_path / "full")


class Table:
    """As pandas has them: going through one gives the names of its columns."""

    columns = ("text",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def iterrows(self) -> Iterator[tuple[int, str]]:
        return iter([(0, "The cats like the dog.")])


def test_numbers_and_tasks_that_are_none_are_named(model, tmp_path: Path) -> None:
    task = token_task()
    for report, node in ((head_report, "a1.h1"), (mlp_report, "m1")):
        with pytest.raises(InputError, match=rf"{report.__name__}\(task='ioi'\): expected a Task"):
            report(model, "ioi", node)
        with pytest.raises(InputError, match="batch_size=0: expected a whole number of at least 1"):
            report(model, task, node, batch_size=0)
        with pytest.raises(InputError, match="k=-1: expected a whole number of at least 0"):
            report(model, task, node, k=-1)
        with pytest.raises(InputError, match=r"3 is no (head|MLP) of the model"):
            report(model, task, 3)
    with pytest.raises(InputError, match="prompts=-1: expected"):
        head_report(model, task, "a1.h1", prompts=-1)
    for function in (promoted, feature_pages):
        with pytest.raises(InputError, match="k=-1: expected a whole number of at least 0"):
            function(model, ["m1.n2"], k=-1)
    with pytest.raises(InputError, match="k=-1: expected a whole number of at least 0"):
        similar(thresholded(model), 2, -1)
    with pytest.raises(InputError, match="store=3: expected a FeatureStore, or the folder of one"):
        feature_pages(model, ["m1.n2"], 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"Labels\(3\): expected notes by name"):
        feature_pages(model, ["m1.n2"], labels=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"holds no store.json"):
        feature_pages(model, ["m1.n2"], tmp_path / "none")


def test_pages_take_the_folder_of_a_store(model, tmp_path: Path) -> None:
    store = collect_contexts(model, "m1.n2", rows(5), store=tmp_path / "store")
    expected = feature_pages(model, "m1.n2", store)["m1.n2"]
    assert expected.fired > 0
    for folder in (tmp_path / "store", str(tmp_path / "store")):
        assert feature_pages(model, "m1.n2", folder)["m1.n2"].to_dict() == expected.to_dict()


def test_a_store_is_of_one_revision_of_a_model(model, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(5)
    edited = sc.ablate_features(model, {"resid_1": dictionary}, ["resid_1.f3"])
    stores = {
        one: collected(one, tmp_path / f"{number}", texts, dictionary) for number, one in enumerate((model, edited))
    }
    assert stores[model].revision is None
    assert stores[edited].revision == FeatureStore.load(tmp_path / "1").revision == edited.sparse_circuits_revision
    for one, other in ((model, edited), (edited, model)):
        collected(one, stores[one].path, texts, dictionary)
        feature_pages(one, "resid_1.f0", stores[one], dictionaries=dictionary)
        before = contents(stores[one].path)
        for store in (stores[one], stores[one].path):
            with pytest.raises(InputError, match=r"is of another revision of .*edited: without resid_1\.f3"):
                collected(other, store, rows(9), dictionary)
            with pytest.raises(InputError, match=r"is of another revision of .*edited: without resid_1\.f3"):
                feature_pages(other, "resid_1.f0", store, dictionaries=dictionary)
        assert contents(stores[one].path) == before
    # one that was written before revisions were
    header = json.loads((tmp_path / "0" / "store.json").read_text())
    del header["revision"]
    (tmp_path / "0" / "store.json").write_text(json.dumps(header))
    assert collected(model, tmp_path / "0", texts, dictionary).revision is None


def test_a_store_stays_what_it_is(model, zoo, tmp_path: Path) -> None:
    dictionary, texts = thresholded(model), rows(5)
    folder = tmp_path / "store"
    store = collected(model, folder, texts, dictionary)
    with pytest.raises(InputError, match="has top=4, not 9; leave it out"):
        collected(model, folder, texts, dictionary, top=9)
    with pytest.raises(InputError, match="are of 'random 0', and these of 'random 1'"):
        collected(model, folder, texts, thresholded(model, seed=1))
    with pytest.raises(InputError, match="and this model is"):
        collected(zoo("llama"), folder, texts, thresholded(zoo("llama")))
    with pytest.raises(InputError, match="and this model is"):
        feature_pages(zoo("llama"), "resid_1.f0", store, dictionaries=thresholded(zoo("llama")))
    with pytest.raises(KeyError, match=r"has no 'resid_1\.f99'"):
        store["resid_1.f99"]
    assert store["resid_1.f3@7"] == store["resid_1.f3"]
    assert "resid_1.f3@7" in store
    assert "resid_1.f99@7" not in store
    assert "11 features" in repr(store)
    part = folder / "part-000.safetensors"
    part.write_bytes(part.read_bytes()[:300])
    with pytest.raises(FileFormatError, match="is damaged"):
        FeatureStore.load(folder)
    (folder / "store.json").write_text("{}")
    with pytest.raises(FileFormatError, match="is damaged"):
        FeatureStore.load(folder)
