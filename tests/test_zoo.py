"""The bundled model: its folder, its tokenizer, what it can do, and the script that trained it."""

import csv
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparse_circuits.task.bundled import agreement
from sparse_circuits.task.bundled.words import SUBJECTS
from sparse_circuits.zoo import evaluate, language, measure, tokenizer, toy_path
from sparse_circuits.zoo import train as training

PUBLISHED = Path(__file__).parents[1] / ".." / "shared" / "data"
needs_published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published files are not beside the project")
TINY = training.Settings(seed=3, steps=4, batch=2, context=24, layers=1, heads=2, width=16, warmup=1)


@pytest.fixture(scope="module")
def toy() -> measure.Toy:
    return measure.Toy.load(toy_path())


def published_prompts() -> list[str]:
    prompts: list[str] = []
    for file in measure.PUBLISHED:
        with (PUBLISHED / file).open(newline="") as lines:
            if file.endswith(".csv"):
                columns = ("clean", "corrupted", "corrupted_hard")
                prompts += [row[key] for row in csv.DictReader(lines) for key in columns if row.get(key)]
            else:
                prompts += [row[key] for row in map(json.loads, lines) for key in ("clean_prefix", "patch_prefix")]
    return prompts


# The folder


def test_folder_is_small_and_complete() -> None:
    files = {file.name: file.stat().st_size for file in toy_path().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files.keys()
    assert sum(files.values()) <= 8_000_000


def test_folder_loads_as_any_hugging_face_folder() -> None:
    model, fast = AutoModelForCausalLM.from_pretrained(toy_path()), AutoTokenizer.from_pretrained(toy_path())
    assert model.config.model_type == "gpt2"
    assert 4 <= model.config.n_layer <= 6
    assert model.config.vocab_size <= 1600
    # Half precision on disk, single in memory: rounding must not depend on how the model was loaded.
    assert model.dtype == torch.float32
    assert fast.is_fast
    assert fast.padding_side == "right"


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, sparse_circuits.zoo as zoo; zoo.toy_path(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The tokenizer


def test_tokenizer_in_the_folder_is_the_languages(toy: measure.Toy) -> None:
    assert toy.tokenizer.get_vocab() == tokenizer.build(toy.model.config.n_positions).get_vocab()
    assert len(toy.tokenizer) == toy.model.config.vocab_size


def test_special_tokens(toy: measure.Toy) -> None:
    fast = toy.tokenizer
    ids = (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id, fast.unk_token_id)
    assert len(set(ids)) == 4
    assert None not in ids
    assert fast.encode("The uncle") == fast.encode("The uncle", add_special_tokens=False)
    assert fast.encode(f"{language.BOS}The uncle")[0] == fast.bos_token_id


def test_words_and_years(toy: measure.Toy) -> None:
    fast = toy.tokenizer
    text = "Then, the plan lasted from the year 1352 to the year 13"
    tokens = fast.convert_ids_to_tokens(fast.encode(text))
    assert " ".join(tokens) == "Then , the plan lasted from the year 13 52 to the year 13"
    assert tokens == language.split(text)
    assert fast.decode(fast.encode(text)) == text
    assert fast.encode(" has") == fast.encode("has") != fast.encode("Has")
    assert fast.encode("The") != fast.encode("the")


def test_text_survives_a_round_trip(toy: measure.Toy) -> None:
    rng = random.Random(0)
    for _ in range(200):
        ids = toy.ids(language.document(rng))[1:]
        assert toy.tokenizer.encode(toy.tokenizer.decode(ids)) == ids


@needs_published
def test_tokenizer_covers_the_published_files(toy: measure.Toy) -> None:
    for prompt in published_prompts():
        toy.ids(prompt)  # raises for an unknown word
    for file, (_, read) in measure.PUBLISHED.items():
        pairs = read(PUBLISHED / file)
        for answer in {answer for answers in pairs.correct + pairs.incorrect for answer in answers}:
            assert toy.word(answer) != toy.tokenizer.unk_token_id


def test_transformer_lens_prepends_one_bos(toy: measure.Toy) -> None:
    bridge = pytest.importorskip("transformer_lens.model_bridge").TransformerBridge
    model = bridge.boot_transformers(str(toy_path()), device="cpu")
    row = toy.ids("The uncle")
    assert model.to_tokens("The uncle").tolist() == [row]
    with torch.no_grad():
        torch.testing.assert_close(model(torch.tensor([row]))[0], toy.logits([row])[0], rtol=1e-4, atol=1e-4)


# What it can do. The card has the numbers on more examples.


def test_numbers_on_held_out_combinations(toy: measure.Toy) -> None:
    rows = measure.on_bundled_tasks(toy, 200)
    assert len([row for row in rows if row.wanted is not None]) >= 9
    for row in rows:
        assert row.wanted is None or row.value >= row.wanted, row


@needs_published
def test_numbers_on_published_files(toy: measure.Toy) -> None:
    for row in measure.on_published_files(toy, PUBLISHED, limit=200):
        assert row.value >= (row.wanted or 1), row


def test_the_measure_can_fail() -> None:
    untrained = training.Run(training.Settings(width=16, heads=2, layers=1))
    rows = measure.on_bundled_tasks(measure.Toy(untrained.model.eval(), untrained.tokenizer), 40)
    assert all(row.wanted is None or row.value < row.wanted for row in rows)


def test_card_states_what_was_measured(toy: measure.Toy) -> None:
    text = (toy_path() / "README.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count("|") == 7]
    values = [(row[4], row[5].rstrip(" |")) for row in rows[1:]]
    assert len(values) == len(measure.PUBLISHED) + 10
    assert all(float(value) >= float(wanted) for value, wanted in values if wanted)
    assert f"{sum(p.numel() for p in toy.model.parameters()):,} parameters" in text
    row = measure.Measurement("ioi", "generated", "accuracy", 7, 0.98765, 0.95)
    text = evaluate.card(toy, toy_path(), [row], published=False)
    assert "| ioi | generated | accuracy | 7 | 0.9877 | 0.95 |" in text


# The language


def test_language_is_fixed_by_the_seed() -> None:
    first, again, other = (language.row(random.Random(seed), 96) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 96
    assert first[0] == language.BOS
    assert language.BOS not in first[1:]


def test_language_has_no_unknown_words() -> None:
    rng, known = random.Random(5), set(language.vocabulary()) | set(language.SPECIAL)
    assert len(known) <= 1600
    assert {token for _ in range(1500) for token in language.row(rng, 96, late=rng.random())} <= known


@needs_published
def test_no_published_prompt_is_training_text() -> None:
    prompts = {tuple(language.split(prompt)) for prompt in published_prompts()}
    lengths = {len(prompt) for prompt in prompts}
    rng = random.Random("check")
    for _ in range(1500):
        row = language.row(rng, 96, late=rng.random())
        found = {tuple(row[i : i + n]) for n in lengths for i in range(len(row))} & prompts
        assert not found


def test_held_out_nouns_never_follow_the() -> None:
    nouns = {noun for forms in SUBJECTS for noun in forms}
    rng = random.Random("the")
    tokens = [token for _ in range(1000) for token in language.row(rng, 96, late=rng.random())]
    after = {second for first, second in pairwise(tokens) if first == "The"}
    assert after
    assert not after & nouns
    assert nouns <= set(tokens)
    assert agreement.determiner_held_out("The", "uncle")
    assert not agreement.determiner_held_out("My", "uncle")


def test_no_bundled_prompt_is_training_text(toy: measure.Toy) -> None:
    vocabulary = measure.Vocabulary(toy.tokenizer)
    prompts = {
        tuple(language.split(prompt))
        for name, task in measure.BUNDLED.items()
        if name != "induction"
        for prompt in task.generate(vocabulary, 200, 0).clean
    }
    lengths = {len(prompt) for prompt in prompts}
    rng = random.Random("bundled")
    for _ in range(1000):
        row = language.row(rng, 96, late=rng.random())
        assert not {tuple(row[i : i + n]) for n in lengths for i in range(len(row))} & prompts


# The trainer


def weights(run: training.Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = training.train(TINY, tmp_path / "whole")
    part = training.Run(TINY)
    part.advance()
    part.advance()
    part.save_checkpoint(tmp_path / "checkpoint")
    resumed = training.train(TINY, tmp_path / "resumed", tmp_path / "checkpoint", every=1)
    assert resumed.step == whole.step == 4
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "resumed/model.safetensors").read_bytes()
    # Neither run leaves a temporary file behind.
    assert sorted(file.name for file in (tmp_path / "resumed").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]
    assert sorted(file.name for file in (tmp_path / "checkpoint").iterdir()) == ["checkpoint.pt", "seconds.json"]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    run = training.Run(TINY)
    run.save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        training.train(training.Settings(), tmp_path / "out", tmp_path)


def test_a_saved_model_is_the_trained_one_in_half_precision(tmp_path: Path) -> None:
    run = training.train(TINY, tmp_path)
    loaded = measure.Toy.load(tmp_path)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.half().float()), name
    assert json.loads((tmp_path / "training.json").read_text())["seed"] == TINY.seed


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def write() -> None:
        with training.replacing(file) as temporary:
            temporary.write_text("new")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        write()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (training.main, ["--out", "nowhere", "--steps", "0"], "--steps must be at least 1, but is 0"),
        (training.main, ["--out", "nowhere", "--every", "0"], "--every must be at least 1, but is 0"),
        (evaluate.main, ["--model", "nowhere"], "nowhere is not a folder that sparse_circuits.zoo.train wrote"),
        (evaluate.main, ["--data", "nowhere"], "nowhere lacks ioi.csv"),
        (evaluate.main, ["--n", "0"], "--n must be at least 1, but is 0"),
    ],
)
def test_command_lines_refuse_bad_input(
    command: Callable[[], object],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_evaluation_writes_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "toy"
    shutil.copytree(toy_path(), folder)
    (folder / "README.md").unlink()
    monkeypatch.setattr(sys, "argv", ["evaluate", "--model", str(folder), "--n", "20"])
    assert evaluate.main() in (0, 1)
    assert "| ioi | generated | accuracy | 20 |" in (folder / "README.md").read_text()
