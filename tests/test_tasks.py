"""Metrics by hand, prompts, files, and what is refused."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import SHARED, VOCAB, token_task

import sparse_circuits as sc
from sparse_circuits.model import anatomy_of
from sparse_circuits.task.batch import Batch
from sparse_circuits.task.files import _names_in, read_csv, read_jsonl
from sparse_circuits.task.measure import measure
from sparse_circuits.task.task import Encoder


def batch_of(n: int, length: int = 3, **more: object) -> Batch:
    return Batch(torch.arange(n), torch.zeros(n, length, dtype=torch.long), torch.full((n,), length), **more)


def test_metrics_by_hand() -> None:
    row = torch.tensor([0.0, math.log(2), math.log(4), math.log(1)])
    logits = torch.zeros(2, 3, 4)
    logits[:, 2] = row
    logits[1, 1] = 100  # not the last position
    batch = batch_of(2)
    assert sc.LogitDiff([2, 1], [0, 2])(logits, batch).tolist() == pytest.approx([math.log(4), -math.log(2)])
    assert sc.LogitDiff([[1, 2], 1], [0, [0, 2]])(logits, batch).tolist() == pytest.approx(
        [math.log(8) / 2, 0.0], abs=1e-6
    )
    assert sc.ProbDiff([[1, 2], [3]], [[0], [1, 2]])(logits, batch).tolist() == pytest.approx([5 / 8, -5 / 8])
    assert sc.LogProb([2, [0, 3]])(logits, batch).tolist() == pytest.approx([math.log(1 / 2), math.log(1 / 4)])
    uniform = torch.zeros(2, 4)
    kl = sum(0.25 * math.log(0.25 / q) for q in (1 / 8, 2 / 8, 4 / 8, 1 / 8))
    assert sc.NegativeKL()(logits, replace(batch, clean_logits=uniform)).tolist() == pytest.approx([-kl, -kl])


def test_metrics_read_the_last_real_token_or_the_position_asked_for() -> None:
    logits = torch.arange(24.0).view(2, 4, 3) ** 2
    batch = Batch(torch.arange(2), torch.zeros(2, 4, dtype=torch.long), torch.tensor([2, 4]))
    last = sc.LogitDiff([1, 1], [0, 0])(logits, batch)
    assert last.tolist() == [float(logits[0, 1, 1] - logits[0, 1, 0]), float(logits[1, 3, 1] - logits[1, 3, 0])]
    first = sc.LogitDiff([1, 1], [0, 0], position=0)(logits, batch)
    assert first.tolist() == [float(logits[i, 0, 1] - logits[i, 0, 0]) for i in range(2)]
    with pytest.raises(sc.InputError, match="outside a prompt of 2 tokens"):
        sc.LogitDiff([1, 1], [0, 0], position=3)(logits, batch)


def test_one_position_gives_what_all_positions_give(zoo) -> None:
    model, task = zoo("gpt2"), token_task(4, varied=True)
    anatomy = anatomy_of(model)
    for metric in (
        task.metric,
        sc.ProbDiff([[1, 2]] * 4, [[3]] * 4),
        sc.LogProb([5] * 4),
        sc.LogProb([5] * 4, position=1),
    ):
        a = sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model)), sc.Task(task.clean, task.corrupted, metric=metric))
        whole = sc.Task(task.clean, task.corrupted, metric=lambda logits, batch, m=metric: m(logits, batch))
        b = sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model)), whole)
        torch.testing.assert_close(a.per_example, b.per_example, atol=1e-5, rtol=1e-5)
    final = torch.randn(4, 7, anatomy.d_model)
    with pytest.raises(sc.InputError, match="one number per example"):
        measure(anatomy, lambda logits, batch: logits.mean(), final, batch_of(4, 7))


def test_any_callable_sees_its_examples(zoo) -> None:
    """A metric of one's own gets the rows of the original task, also in a slice of it."""
    model, task = zoo("gpt2"), token_task(6)
    seen: list[int] = []

    def metric(logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
        assert logits.shape == (len(batch.index), 7, VOCAB)
        seen.extend(batch.index.tolist())
        for row, tokens in zip(batch.index.tolist(), batch.tokens.tolist(), strict=True):
            assert tokens == task.clean[row]
        return logits[:, -1, 0]

    mine = sc.Task(task.clean, task.corrupted, metric=metric)
    graph = sc.Graph.of(model)
    sc.evaluate(model, sc.Circuit.full(graph), mine[2:5], batch_size=2)
    assert set(seen) == {2, 3, 4}
    seen.clear()
    sc.attribute(model, graph, mine[[5, 0]][1:], sc.EAP())
    assert set(seen) == {0}


def test_arrays_of_ids_are_prompts_and_answers(zoo) -> None:
    model, task = zoo("gpt2"), token_task(3)
    right, wrong = torch.tensor(task.metric.correct), torch.tensor(task.metric.incorrect)
    arrays = sc.Task(
        torch.tensor(task.clean).numpy(), torch.tensor(task.corrupted), metric=sc.LogitDiff(right, wrong.numpy())
    )
    graph = sc.Graph.of(model)
    assert torch.equal(sc.attribute(model, graph, arrays).values, sc.attribute(model, graph, task).values)


def test_slices_keep_their_answers(zoo) -> None:
    model, task = zoo("gpt2"), token_task(6)
    full = sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model)), task).per_example
    part = sc.evaluate(model, sc.Circuit.full(sc.Graph.of(model)), task[[4, 1]]).per_example
    torch.testing.assert_close(part, full[[4, 1]])
    assert [one.clean for one in task] == [[prompt] for prompt in task.clean]
    assert task[-1].index == [5]
    with pytest.raises(IndexError):
        task[6]


def test_clean_logits_reach_a_metric_that_declares_them(zoo) -> None:
    model, task = zoo("gpt2"), token_task(4, varied=True)

    class Distance:
        needs_clean_logits = True

        def __call__(self, logits: torch.Tensor, batch: sc.Batch) -> torch.Tensor:
            assert batch.clean_logits.shape == logits.shape
            return -(logits - batch.clean_logits).abs().sum((1, 2))

    whole = sc.evaluate(
        model, sc.Circuit.full(sc.Graph.of(model)), sc.Task(task.clean, task.corrupted, metric=Distance())
    )
    assert whole.clean.abs().max() == 0
    assert whole.per_example.abs().max() < 1e-2
    assert (whole.empty < -1).all()


# --- files ---

WORDS = [
    "<bos>",
    "<unk>",
    ".",
    ",",
    "Then",
    "When",
    "Aaron",
    "and",
    "Amber",
    "Tiffany",
    "were",
    "working",
    "at",
    "the",
    "house",
    "decided",
    "to",
    "give",
    "a",
    "drink",
    "The",
    "uncle",
    "uncles",
    "has",
    "have",
    "year",
    "13",
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory):
    """A GPT-2 with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("reader")
    vocabulary = {w: i for i, w in enumerate(WORDS + [f"{y:02d}" for y in range(100) if y != 13])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>", pad_token="<bos>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    ).save_pretrained(folder)
    return sc.load_model(folder, device="cpu")


def write(path, text: str):
    path.write_text(text)
    return path


IOI = "Then, Aaron and Amber were working at the house. Aaron decided to give a drink to"


def test_ioi_csv_takes_answers_from_the_prompt_when_ids_are_of_another_tokenizer(reader, tmp_path) -> None:
    corrupted = IOI.replace("house. Aaron", "house. Tiffany")
    path = write(
        tmp_path / "ioi.csv", f'clean,corrupted,correct_idx,incorrect_idx\n"{IOI}","{corrupted}",47764,26757\n'
    )
    metric = read_csv(path, reader).metric
    assert (metric.correct, metric.incorrect) == ([" Amber"], [" Aaron"])


def test_ioi_csv_uses_ids_that_are_the_names(reader, tmp_path) -> None:
    amber, aaron = (WORDS.index(w) for w in ("Amber", "Aaron"))
    path = write(tmp_path / "ioi.csv", f'clean,corrupted,correct_idx,incorrect_idx\n"{IOI}","{IOI}",{amber},{aaron}\n')
    metric = read_csv(path, reader).metric
    assert (metric.correct, metric.incorrect) == ([amber], [aaron])


def test_ioi_csv_does_not_trust_ids_that_happen_to_be_in_the_prompt(reader, tmp_path) -> None:
    """Ids in this vocabulary's range that are words of the prompt, but not the two names."""
    house, comma = WORDS.index("house"), WORDS.index("to")
    path = write(tmp_path / "ioi.csv", f'clean,corrupted,correct_idx,incorrect_idx\n"{IOI}","{IOI}",{house},{comma}\n')
    assert read_csv(path, reader).metric.correct == [" Amber"]


def test_greater_than_csv(reader, tmp_path) -> None:
    path = write(tmp_path / "gt.csv", "clean,corrupted,label\nThe year 13,The year 13,52\nThe year 13,The year 13,07\n")
    metric = read_csv(path, reader).metric
    assert metric.correct[0] == tuple(str(y) for y in range(53, 100))
    assert len(metric.incorrect[0]) == 53
    assert metric.incorrect[1] == tuple(f"{y:02d}" for y in range(8))


def test_plain_csv(reader, tmp_path) -> None:
    def load(text: str) -> sc.Task:
        return sc.load_task(write(tmp_path / "mine.csv", text), reader)

    task = load(
        "Clean, CORRUPTED ,correct,Incorrect\nThe uncle,The uncles, has,have\n,,,\nThe house,The year, has, have\n"
    )
    assert (task.clean, task.corrupted) == (["The uncle", "The house"], ["The uncles", "The year"])
    assert task.metric == sc.LogitDiff([" has", " has"], ["have", " have"])  # spaces are part of an answer
    for empty in ("", ",,"):  # a column in which nothing stands is none
        alone = load(f"\ufeffclean,correct{',corrupted,incorrect' if empty else ''}\nThe uncle, has{empty}\n")
        assert alone.corrupted is None
        assert alone.metric == sc.LogProb([" has"])
    has, the = WORDS.index("has"), WORDS.index("The")
    several = load(f'clean,correct,incorrect\n"[{the}, 5]","["" has"", "" at""]",[{has}]\n"Then, The","[7]",and\n')
    assert several.clean == [[the, 5], "Then, The"]
    assert several.metric == sc.LogitDiff([[" has", " at"], [7]], [[has], "and"])
    assert len(load("clean,correct,label,correct_idx\nThe year,13,12,99\n")) == 1  # text before ids


def test_plain_jsonl(reader, tmp_path) -> None:
    rows = [{"clean": "The uncle", "correct": [" has", " at"], "incorrect": 3, "spans": {"last": -1}}] * 2
    task = sc.load_task(write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows))), reader)
    assert task.metric == sc.LogitDiff([[" has", " at"]] * 2, [3, 3])
    assert (task.corrupted, task.spans) == (None, ({"last": -1},) * 2)
    odd = write(tmp_path / "odd.jsonl", json.dumps({"clean": "The\u2028uncle", "correct": "has"}, ensure_ascii=False))
    assert read_jsonl(odd).clean == ["The\u2028uncle"]  # a line ends at a line feed only
    (tmp_path / "latin.csv").write_bytes(b"clean,correct\nna\xefve,13\n")
    with pytest.raises(sc.FileFormatError, match=r"latin\.csv is not text in UTF-8"):
        sc.load_task(tmp_path / "latin.csv", reader)


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        (IOI, (" Amber", " Aaron")),
        ("When Mary and John went to the store, John gave a drink to", (" Mary", " John")),
        ("When John and Mary went to the store, John gave a drink to", (" Mary", " John")),
        ("John and Mary went out. Then John gave a drink to", (" Mary", " John")),
        ("Mary saw a dog.", None),
        ("Mary met Mary. John met John.", None),
    ],
)
def test_names_of_a_prompt(prompt: str, names: tuple[str, str] | None) -> None:
    assert _names_in(prompt) == names


def test_jsonl(reader, tmp_path) -> None:
    row = {"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " has", "patch_answer": " have"}
    task = sc.load_task(write(tmp_path / "sva.jsonl", json.dumps(row) + "\n\n" + json.dumps(row)), reader)
    assert len(task) == 2
    assert task.tokenized(reader, anatomy_of(reader), corrupted=True).clean[0] == [
        0,
        WORDS.index("The"),
        WORDS.index("uncle"),
    ]


def test_jsonl_with_spans(reader, tmp_path) -> None:
    row = {"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " has", "patch_answer": " have"}
    rows = [{**row, "spans": {"start": [0, 1], "last": -1}}, {**row, "spans": {"last": [1, 2], "start": [0, 0]}}]
    task = sc.load_task(write(tmp_path / "sva.jsonl", "\n".join(map(json.dumps, rows))), reader)
    prompts = task.tokenized(reader, anatomy_of(reader), corrupted=True)
    assert prompts.spans == [{"start": (1, 2), "last": (2, 3)}, {"start": (1, 1), "last": (2, 3)}]
    # the same row without the field, or with an empty one, is a task without spans
    for plain in (row, {**row, "spans": None}):
        assert sc.load_task(write(tmp_path / "plain.jsonl", json.dumps(plain)), reader).spans is None


SPANS_ROW = (
    '{"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " has", "patch_answer": " have", '
    '"spans": {"subject": %s}}\n'
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "", "holds no rows"),
        ("e.csv", "clean,corrupted,label\n", "holds no rows"),
        ("m.csv", "clean,label\nThe year 13,13\n", "m.csv, line 2, row 0: no 'corrupted'"),
        (
            "k.csv",
            "clean,corrupted\nThe year 13,The year 13\n",
            "expected columns 'clean', 'correct', .* found 'clean', 'corrupted'",
        ),
        ("k.csv", "clean;correct\nThe year;13\n", "found 'clean;correct'.* Columns are separated by commas"),
        ("k.csv", "clean,corrupted,country_idx\nThe year,The year,13\n", "give answers as text instead"),
        ("k.csv", "clean,Clean ,correct\nThe year,The year,13\n", "two columns are called 'clean'"),
        (
            "p.csv",
            "clean,correct,incorrect\nThe year, 13, 14\n\nThe year, 13\n",
            "p.csv, line 4, row 1: no 'incorrect'",
        ),
        ("p.csv", "clean,correct,incorrect\nThen, The year, 13, 14\n", "line 2, row 0: 4 cells in 3 columns; put text"),
        ("p.csv", "clean,correct\n,13\n", "line 2, row 0: no 'clean'"),
        ("p.csv", 'clean,correct\n"The year,13\n', "p.csv, line 2: not a line of CSV"),
        ("p.csv", "clean,correct\nThe year,13 13\n", "row 0: correct answer '13 13' is 2 tokens"),
        ("p.jsonl", '{"clean": "The year", "correct": "13"}\n{"clean": "The year"}', "p.jsonl, row 1: no 'correct'"),
        ("y.csv", "clean,corrupted,label\nThe year 13,The year 13,1352\n", "row 0: expected a two-digit year"),
        (
            "n.csv",
            "clean,corrupted,correct_idx,incorrect_idx\nThe house,The house,1,2\n",
            "row 0: the ids 1, 2 are not names",
        ),
        (
            "l.csv",
            "clean,corrupted,label\nThe year 13,The year 13,13\nThe year 13,The 13,20\n",
            "row 1: the clean prompt is 4 tokens",
        ),
        ("e.jsonl", "", "holds no rows"),
        ("b.jsonl", '{"clean_prefix": \n', "row 0: not a line of JSON"),
        ("f.jsonl", '{"clean_prefix": "The"}\n', "row 0: no 'patch_prefix'"),
        ("s.jsonl", SPANS_ROW % "[1, 2]" + SPANS_ROW.replace("spans", "span") % "0", "row 1: no 'spans'"),
        (
            "s.jsonl",
            SPANS_ROW % "[1, 2]" + SPANS_ROW % '"1"',
            r"s.jsonl, row 1: span 'subject': expected whole numbers",
        ),
        ("s.jsonl", SPANS_ROW % "[1, 2]" + SPANS_ROW % "[1, 3]", "row 1: span 'subject' at \\(1, 3\\) lies outside"),
        ("s.jsonl", SPANS_ROW.replace("subject", "my noun") % "1", "s.jsonl, row 0: 'my noun' cannot name a span"),
        (
            "t.jsonl",
            '{"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " has a", "patch_answer": " have"}\n',
            "row 0: correct answer ' has a' is 2 tokens",
        ),
        (
            "u.jsonl",
            '{"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " eats", "patch_answer": " have"}\n',
            "row 0: correct answer ' eats' is not in the vocabulary of this model's tokenizer",
        ),
    ],
)
def test_bad_files_name_the_row(reader, tmp_path, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(sc.SparseCircuitsError, match=message):
        sc.load_task(path, reader)


def test_words_outside_the_vocabulary_are_reported(reader) -> None:
    task = sc.Task(["The aardvark"], metric=sc.LogitDiff([" has"], [" have"]))
    with pytest.warns(UserWarning, match="outside the model's vocabulary"):
        task.tokenized(reader, anatomy_of(reader), corrupted=False)


def test_answers_outside_the_vocabulary_are_refused_whether_or_not_the_unknown_token_is_declared(reader) -> None:
    from transformers import PreTrainedTokenizerFast

    backend = reader.tokenizer.backend_tokenizer
    undeclared = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend), cfg=reader.cfg)
    assert undeclared.tokenizer.unk_token_id is None
    for model in (reader, undeclared):
        encode = Encoder(model)
        assert encode.answer(" has") == [WORDS.index("has")]
        assert encode.answer(" eats") is None
        assert encode.answer("has eats") is None
        task = sc.Task(["The uncle"], metric=sc.LogitDiff([" has"], [" eats"]))
        with pytest.raises(
            sc.InputError, match=r"row 0: incorrect answer ' eats' is not in the vocabulary .* choose a word"
        ):
            task.tokenized(model, anatomy_of(reader), corrupted=False)
        with pytest.warns(UserWarning, match="outside the model's vocabulary"):
            sc.Task(["The aardvark"], metric=sc.CrossEntropy()).tokenized(model, anatomy_of(reader), corrupted=False)


def test_naming_the_unknown_token_is_not_a_word_outside_the_vocabulary() -> None:
    """GPT-2's unknown token is its end of text, which prompts may well name."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<end>": 0, "a": 1}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<end>", eos_token="<end>")
    encode = Encoder(SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(default_prepend_bos=False)))
    assert (encode.answer("<end>"), encode.answer("b")) == ([0], None)
    assert encode.prompt("<end> a") == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode.warn_unknown("mine")
    encode.prompt("a b")
    with pytest.warns(UserWarning, match="for example 'a b'"):
        encode.warn_unknown("mine")


def test_examples_are_read_one_by_one(reader) -> None:
    answers = sc.LogitDiff([" has", [" at", 3], torch.tensor([4])], ["a", ("b", "c"), 7])
    task = sc.Task(["one", "two", [1, 2]], ["1", "2", [3, 4]], metric=answers, name="mine")
    assert [e.index for e in task.examples] == [0, 1, 2]
    second = task[1:].examples[0]
    assert (second.index, second.clean, second.corrupted) == (1, "two", "2")
    assert (second.correct, second.incorrect) == ((" at", 3), ("b", "c"))
    (last,) = task[1:][-1].examples
    assert (last.clean, last.correct, last.incorrect) == ([1, 2], (4,), (7,))
    alone = sc.Task(["one"], metric=sc.LogProb([" has"])).examples[0]
    assert (alone.corrupted, alone.correct, alone.incorrect) == (None, (" has",), None)
    assert sc.Task(["one"], metric=lambda logits, batch: logits[:, 0, 0]).examples[0].correct is None
    assert repr(task) == "Task('mine': 3 examples, LogitDiff, the first 'one')"
    assert len(repr(sc.Task(["word " * 1000], metric=sc.CrossEntropy()))) < 150


def test_bos_follows_the_model_unless_told(reader) -> None:
    def ids(prompt: object, **options: object) -> list[int]:
        task = sc.Task([prompt], metric=sc.LogitDiff([3], [4]), **options)
        return task.tokenized(reader, anatomy_of(reader), corrupted=False).clean[0]

    the = WORDS.index("The")
    assert ids("The") == reader.to_tokens("The")[0].tolist() == [0, the]
    assert ids("The", prepend_bos=False) == [the]
    assert ids("The", prepend_bos=True) == [0, the]
    assert ids([the, 5]) == [the, 5]


def test_published_files_read_as_they_are(reader, tmp_path) -> None:
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("the published task files (../shared/data) are not here")
    for path in data.glob("*.jsonl"):
        lines = path.read_text().splitlines()
        assert len(read_jsonl(path)) == len([line for line in lines if line.strip()])
    task = read_csv(data / "ioi.csv", reader)
    for prompt, right, wrong in zip(task.clean, task.metric.correct, task.metric.incorrect, strict=True):
        assert prompt.count(str(right).strip()) == 1
        assert prompt.count(str(wrong).strip()) >= 2
    years = read_csv(data / "greater_than.csv", reader)
    assert all(len(c) + len(i) == 100 for c, i in zip(years.metric.correct, years.metric.incorrect, strict=True))


# --- spans and position groups ---

PROMPTS = [[5, 6, 7, 8], [5, 6], [5, 6, 7]]
SPANS = [{"noun": (1, 3), "last": -1}, {"noun": (0, 0), "last": (1, 2)}, {"noun": (-2, -1), "last": 2}]


def spanned(spans: object = SPANS, prompts: object = PROMPTS, **more: object) -> sc.Task:
    answers = [[1] * len(prompts), [2] * len(prompts)]
    return sc.Task(prompts, prompts, metric=sc.LogitDiff(*answers), spans=spans, name="mine", **more)


def prompts_of(model, task: sc.Task):
    return task.tokenized(model, anatomy_of(model), corrupted=False)


def test_spans_are_placed_in_the_tokens_that_run(zoo, reader) -> None:
    assert prompts_of(zoo("gpt2"), spanned()).spans == [
        {"noun": (1, 3), "last": (3, 4)},
        {"noun": (0, 0), "last": (1, 2)},
        {"noun": (1, 2), "last": (2, 3)},
    ]
    answers = sc.LogitDiff([" has"] * 2, [" have"] * 2)
    # text gets a BOS token in front, ids do not
    mixed = sc.Task(
        ["The uncle", [7, 8, 9]], metric=answers, spans=[{"noun": 1, "all": (0, 2)}, {"noun": 1, "all": (0, 3)}]
    )
    assert prompts_of(reader, mixed).spans == [{"noun": (2, 3), "all": (1, 3)}, {"noun": (1, 2), "all": (0, 3)}]
    bare = replace(mixed, prepend_bos=False)
    assert prompts_of(reader, bare).spans == [{"noun": (1, 2), "all": (0, 2)}, {"noun": (1, 2), "all": (0, 3)}]
    assert mixed.spans == ({"noun": 1, "all": (0, 2)}, {"noun": 1, "all": (0, 3)})


def test_spans_may_be_arrays_and_are_not_changed(zoo) -> None:
    given = [
        {"noun": torch.tensor([1, 3]), "last": torch.tensor(-1)},
        {"last": [1, 2], "noun": torch.tensor([0, 0]).numpy()},
    ]
    task = spanned(given, PROMPTS[:2])
    assert task.spans == ({"noun": (1, 3), "last": -1}, {"noun": (0, 0), "last": (1, 2)})
    assert [list(names) for names in task.spans] == [["noun", "last"]] * 2
    assert list(given[1]) == ["last", "noun"]


def test_slices_keep_spans(zoo) -> None:
    task = spanned()
    assert task[1:].spans == task.spans[1:]
    assert task[[2, 0]].spans == (task.spans[2], task.spans[0])
    assert task[-1].spans == (task.spans[2],)
    assert prompts_of(zoo("gpt2"), task[[2, 0]]).positions("spans").groups.tolist() == [[2, 0, 1, -1], [2, 0, 0, 1]]


def test_spans_enter_the_hash_only_if_there_are_any() -> None:
    assert sc.Task([[1, 2]], [[1, 3]], metric=sc.LogitDiff([1], [2])).hash == "b9a46b2472e5fdcb"
    assert sc.Task(["a"], metric=sc.NegativeKL()).hash == "7cf23ce1ca49d653"
    hashes = {spanned(None).hash, spanned().hash, spanned([{"noun": (0, 1)}] * 3).hash}
    assert len(hashes) == 3
    assert spanned([{"noun": [0, 1]}] * 3).hash == spanned([{"noun": (0, 1)}] * 3).hash
    assert spanned()[:3].hash == spanned().hash


SPAN_ERRORS = {
    "one mapping for all": ({"last": -1}, "Task 'mine': expected spans as a list of one mapping per example.*got dict"),
    "too few": (SPANS[:2], "Task 'mine': 2 mappings of spans for 3 examples"),
    "not a mapping": ([SPANS[0], SPANS[1], [(0, 1)]], "row 2: expected a mapping of span names .* got list"),
    "an empty mapping": ([{}] * 3, "row 0: expected a mapping of span names .* got an empty one"),
    "names that differ": (
        [{"a": 0}, {"a": 0, "b": 1}, {"a": 0}],
        "Task 'mine', row 1: spans 'a', 'b', but row 0 has 'a'; expected the same names in every example",
    ),
    "a stop that is missing": ([{"a": (1,)}] * 3, r"row 0: span 'a': expected whole numbers .* got \(1,\)"),
    "not numbers": ([{"a": 0}, {"a": ("0", "1")}, {"a": 0}], "row 1: span 'a': expected whole numbers"),
    "not whole numbers": ([{"a": (0, 1.0)}] * 3, "row 0: span 'a': expected whole numbers"),
    "nothing": ([{"a": 0}, {"a": 0}, {"a": None}], "row 2: span 'a': expected whole numbers .* got None"),
    "truth": ([{"a": True}] * 3, "row 0: span 'a': expected whole numbers .* got True"),
    "name with @": ([{"a@b": 0}] * 3, "row 0: 'a@b' cannot name a span; names become part of node names such as m3@subject"),
    "name with an arrow": ([{"a->b": 0}] * 3, "'a->b' cannot name a span"),
    "name with a bracket": ([{"a<q>": 0}] * 3, "'a<q>' cannot name a span"),
    "name with a space": ([{"my noun": 0}] * 3, "'my noun' cannot name a span"),
    "name that is empty": ([{"": 0}] * 3, "'' cannot name a span"),
    "name that is no text": ([{1: 0}] * 3, "1 cannot name a span"),
    "name that is a number": ([{"7": 0}] * 3, "'7' cannot name a span: numbers name single positions"),
    "name of the rest": ([{"other": 0}] * 3, "'other' cannot name a span: it stands for the tokens that lie in no span"),
}  # fmt: skip


@pytest.mark.parametrize(("spans", "message"), SPAN_ERRORS.values(), ids=SPAN_ERRORS.keys())
def test_bad_spans(spans: object, message: str) -> None:
    with pytest.raises(sc.InputError, match=message) as caught:
        spanned(spans)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (3, "Task 'mine', row 2: span 'b' at 3 lies outside a prompt of 3 tokens"),
        (-4, "span 'b' at -4 lies outside a prompt of 3 tokens"),
        (
            (1, 4),
            r"span 'b' at \(1, 4\) lies outside a prompt of 3 tokens .a BOS token that the library prepends is not",
        ),
        ((-4, 1), r"span 'b' at \(-4, 1\) lies outside"),
        ((4, 4), r"span 'b' at \(4, 4\) lies outside"),
        ((2, 1), r"span 'b' at \(2, 1\) starts at token 2 and stops before token 1"),
        ((-1, 0), r"span 'b' at \(-1, 0\) starts at token 2 and stops before token 0"),
    ],
)
def test_spans_outside_the_prompt(zoo, span: object, message: str) -> None:
    model = zoo("gpt2")
    task = spanned([{"a": 0, "b": 0}, {"a": 0, "b": 0}, {"a": 0, "b": span}])
    for call in (lambda: prompts_of(model, task), lambda: sc.attribute(model, sc.Graph.of(model), task, sc.EAP())):
        with pytest.raises(sc.InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_bos_token_is_in_no_span(reader) -> None:
    answers = sc.LogitDiff([" has"], [" have"])
    with pytest.raises(sc.InputError, match="span 'noun' at 2 lies outside a prompt of 2 tokens"):
        prompts_of(reader, sc.Task(["The uncle"], metric=answers, spans=[{"noun": 2}]))
    first = prompts_of(reader, sc.Task(["The uncle"], metric=answers, spans=[{"all": (0, 2)}]))
    assert first.positions("spans").names == ("all", "other")
    assert first.positions("spans").groups.tolist() == [[1, 0, 0]]
    assert first.positions("keep").names == ("0", "1", "2")
    assert first.positions("keep").groups.tolist() == [[0, 1, 2]]


def test_groups_by_hand(zoo) -> None:
    prompts = prompts_of(zoo("gpt2"), spanned())
    keep, spans = prompts.positions("keep"), prompts.positions("spans")
    assert (keep.names, len(keep)) == (("0", "1", "2", "3"), 4)
    assert keep.groups.tolist() == [[0, 1, 2, 3], [0, 1, -1, -1], [0, 1, 2, -1]]
    assert (spans.names, len(spans)) == (("noun", "last", "other"), 3)
    assert spans.groups.tolist() == [[2, 0, 0, 1], [2, 1, -1, -1], [2, 0, 1, -1]]
    rows = torch.tensor([2, 1])
    assert spans.of(rows, 3).tolist() == [[2, 0, 1], [2, 1, -1]]
    assert spans.of(rows, 5).tolist() == [[2, 0, 1, -1, -1], [2, 1, -1, -1, -1]]
    assert keep.of(rows, 3).dtype == spans.of(rows, 3).dtype == torch.int64


def test_a_token_in_several_spans_is_in_the_first_named(zoo) -> None:
    both = [{"noun": (0, 2), "last": -1}] * 2
    first = prompts_of(zoo("gpt2"), spanned(both, [[5, 6], [5, 6]])).positions("spans")
    assert first.names == ("noun", "last")  # nothing is left for "other"
    assert first.groups.tolist() == [[0, 0], [0, 0]]
    # the order is the first example's, whatever that of the others
    turned = [{"last": -1, "noun": (0, 2)}, {"noun": (0, 2), "last": -1}]
    second = prompts_of(zoo("gpt2"), spanned(turned, [[5, 6], [5, 6]])).positions("spans")
    assert second.names == ("last", "noun")
    assert second.groups.tolist() == [[1, 0], [1, 0]]


def test_batches_run_from_the_longest_and_carry_groups(zoo) -> None:
    prompts = prompts_of(zoo("gpt2"), spanned()[[1, 2, 0]])
    batches = list(prompts.batches(2, prompts.positions("spans")))
    assert [rows.tolist() for rows, _ in batches] == [[2, 1], [0]]
    assert [batch.lengths.tolist() for _, batch in batches] == [[4, 3], [2]]
    assert [batch.index.tolist() for _, batch in batches] == [[0, 2], [1]]
    assert [batch.groups.tolist() for _, batch in batches] == [[[2, 0, 0, 1], [2, 0, 1, -1]], [[2, 1]]]
    for _, batch in batches:
        assert torch.equal(batch.groups >= 0, batch.real)
    assert all(batch.groups is None for _, batch in prompts.batches(2))


def test_groups_of_another_task_by_name(zoo) -> None:
    prompts = prompts_of(zoo("gpt2"), spanned())
    for kind in ("keep", "spans"):
        found = prompts.positions(kind)
        again = prompts.positions_named(found.names)
        assert again.names == found.names
        assert torch.equal(again.groups, found.groups)
    more = prompts.positions_named(("0", "1", "2", "3", "4", "5"))  # a circuit found on longer prompts
    assert more.names == ("0", "1", "2", "3", "4", "5")
    assert torch.equal(more.groups, prompts.positions("keep").groups)
    # spans that the circuit does not know are in "other"; its order of names decides
    assert prompts.positions_named(("last", "other")).groups.tolist() == [[1, 1, 1, 0], [1, 0, -1, -1], [1, 1, 0, -1]]
    assert prompts.positions_named(("other", "last")).groups.tolist() == [[0, 0, 0, 1], [0, 1, -1, -1], [0, 0, 1, -1]]
    whole = prompts_of(zoo("gpt2"), spanned([{"a": (0, 4), "b": -1}, {"a": (0, 2), "b": -1}, {"a": (0, 3), "b": -1}]))
    assert whole.positions_named(("a",)).groups.tolist() == [[0, 0, 0, 0], [0, 0, -1, -1], [0, 0, 0, -1]]
    assert whole.positions_named(("b", "a")).groups.tolist() == [[1, 1, 1, 0], [1, 0, -1, -1], [1, 1, 0, -1]]
    assert whole.positions_named(("a", "other")).names == ("a", "other")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda p, none: none.positions("spans"),
            r"Task 'mine' has no named spans; pass Task\(spans=...\), or use a bundled",
        ),
        (lambda p, none: p.positions("sum"), "positions='sum': expected 'keep' or 'spans'"),
        (
            lambda p, none: p.positions_named(("0", "1", "2")),
            "row 0: 4 tokens, but the positions kept apart are '0' to '2', which is for prompts of at most 3 tokens",
        ),
        (lambda p, none: p.positions_named(("0", "2")), "expected positions '0', '1', ... in order .* got '0', '2'"),
        (
            lambda p, none: p.positions_named(("noun", "verb", "other")),
            r"Task 'mine': no span 'verb'; it has 'noun', 'last'. Pass Task\(spans=...\)",
        ),
        (lambda p, none: none.positions_named(("noun", "other")), "no span 'noun'; it has none"),
        (
            lambda p, none: p.positions_named(("last", "noun")),
            "row 0: the token at position 0 lies in none of the spans 'last', 'noun', and .* no 'other'",
        ),
        (lambda p, none: p.positions_named(("last", "last", "other")), "each once, got 'last', 'last', 'other'"),
        (lambda p, none: p.positions_named(()), "each once, got none"),
    ],
)
def test_groups_that_cannot_be(zoo, ask, message: str) -> None:
    prompts = prompts_of(zoo("gpt2"), spanned())
    with pytest.raises(sc.InputError, match=message) as caught:
        ask(prompts, replace(prompts, spans=None))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
