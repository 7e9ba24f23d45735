"""The bundled tasks: what their prompts must be, under two tokenizers, and read as a person would read them."""

import dataclasses
import random
import re
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import sparse_circuits as sc
from sparse_circuits.model import anatomy_of
from sparse_circuits.task import bundled
from sparse_circuits.task.bundled import BUNDLED, Pairs, TooFewWords, Vocabulary, agreement, words
from sparse_circuits.task.bundled.base import Example, collect
from sparse_circuits.task.bundled.greater_than import frame_held_out
from sparse_circuits.task.bundled.ioi import names_held_out
from sparse_circuits.zoo import language
from sparse_circuits.zoo import tokenizer as toy_tokenizer

N = 60


@pytest.fixture(scope="module")
def toy() -> Vocabulary:
    return Vocabulary(toy_tokenizer.build(96))


@pytest.fixture(scope="module")
def byte_level() -> Vocabulary:
    """A byte-level BPE as GPT-2's, learned on text that has most of the words often enough."""
    rng = random.Random(0)
    text = [language.document(rng) for _ in range(4000)]
    tokenizer = Tokenizer(models.BPE())
    # Two-digit chunks: in GPT-2, too, most four-digit years are a " 13" and a "52".
    chunks = pre_tokenizers.Split(Regex(" ?[0-9]{2}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([chunks, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2500, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(text, trainer)
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


@pytest.fixture(params=["toy", "byte_level"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=list(BUNDLED))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_registry_names() -> None:
    assert list(BUNDLED) == [
        "ioi",
        "greater-than",
        "sva-simple",
        "sva-pp",
        "sva-within-rc",
        "sva-across-rc",
        "gendered-pronouns",
        "induction",
    ]
    assert all(task.name == name and "\n" not in task.summary for name, task in BUNDLED.items())
    assert {name for name, task in BUNDLED.items() if task.metric == "prob_diff"} == {"greater-than"}


def test_bundled_modules_import_nothing_heavy() -> None:
    folder = Path(bundled.__file__).parent
    imports = {line.split()[1].split(".")[0] for file in folder.glob("*.py") for line in _import_lines(file)}
    assert imports <= {
        "sparse_circuits",
        "collections",
        "dataclasses",
        "functools",
        "hashlib",
        "random",
        "re",
        "typing",
    }


def _import_lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if re.match(r"\s*(from|import) ", line)]


def test_lengths_answers_and_spans(name: str, vocabulary: Vocabulary) -> None:
    pairs = BUNDLED[name].generate(vocabulary, N, 3)
    columns = [getattr(pairs, column.name) for column in dataclasses.fields(pairs)]
    assert [len(column) for column in columns] == [N] * 5
    for clean, corrupted, correct, incorrect, spans in zip(*columns, strict=True):
        before, after = vocabulary.ids(clean), vocabulary.ids(corrupted)
        assert len(before) == len(after)
        assert before != after
        assert correct
        assert incorrect
        assert not set(correct) & set(incorrect)
        for answer in (*correct, *incorrect):
            assert len(vocabulary.ids(clean + answer)) == len(before) + 1, (clean, answer)
            assert vocabulary.ids(clean + answer)[:-1] == before
        assert spans["last"] == (len(before) - 1, len(before))
        assert all(0 <= start < stop <= len(before) for start, stop in spans.values())
        assert spans.keys() == pairs.spans[0].keys()


def test_spans_name_the_right_words(toy: Vocabulary) -> None:
    def words_at(name: str, span: str) -> list[tuple[str, str, str]]:
        pairs = BUNDLED[name].generate(toy, N, 5)
        found = []
        for clean, corrupted, spans in zip(pairs.clean, pairs.corrupted, pairs.spans, strict=True):
            start, stop = spans[span]
            texts = (" ".join(language.split(prompt)[start:stop]) for prompt in (clean, corrupted))
            found.append((*texts, clean))
        return found

    assert all(a != b and {a, b} < set(words.NAMES) for a, b, _ in words_at("ioi", "second_subject"))
    assert all(a == b and clean.count(a) == 2 for a, b, clean in words_at("ioi", "subject"))
    assert all(a == b and clean.count(a) == 1 for a, b, clean in words_at("ioi", "indirect_object"))
    assert all(b == "01" and a in words.YEARS for a, b, _ in words_at("greater-than", "year"))
    nouns = {noun for forms in words.SUBJECTS + words.INNER_SUBJECTS + words.OTHER_PEOPLE for noun in forms}
    for name in agreement.PHRASES:
        assert all(a != b and {a, b} <= nouns for a, b, _ in words_at(name, "subject"))
    for name in ("sva-pp", "sva-within-rc", "sva-across-rc"):
        assert all(a == b for a, b, _ in words_at(name, "attractor"))
    women = words.FEMALE_NAMES
    assert all((a in women) != (b in women) for a, b, _ in words_at("gendered-pronouns", "name"))
    assert all(a == clean.split()[-1] for a, _, clean in words_at("induction", "context"))


# What a loaded task's groups hold, in the words that the model reads.
GROUPS = {
    "ioi": ("subject", "indirect_object", "second_subject", "last", "other"),
    "greater-than": ("noun", "century", "year", "last_century", "last", "other"),
    "sva-simple": ("subject", "last", "other"),
    "sva-pp": ("subject", "attractor", "last", "other"),
    "sva-within-rc": ("subject", "attractor", "last", "other"),
    "sva-across-rc": ("subject", "attractor", "last", "other"),
    "gendered-pronouns": ("name", "last", "other"),
    "induction": ("context", "source", "last", "other"),
}


@pytest.fixture(scope="module")
def toy_model():
    return sc.load_model("toy", device="cpu")


def grouped(name: str, model, n: int = 30) -> list[dict[str, list[str]]]:
    """Every example's words by group, as batches hold them."""
    prompts = sc.load_task(name, model, n=n, seed=5).tokenized(model, anatomy_of(model), corrupted=True)
    positions = prompts.positions("spans")
    assert positions.names == GROUPS[name]
    found: list[dict[str, list[str]]] = [{} for _ in range(n)]
    for rows, batch in prompts.batches(7, positions):
        assert batch.tokens[:, 0].eq(model.tokenizer.bos_token_id).all()
        assert batch.groups[:, 0].eq(len(GROUPS[name]) - 1).all()
        for row, tokens, groups in zip(rows.tolist(), batch.tokens, batch.groups, strict=True):
            for i, group in enumerate(GROUPS[name]):
                found[row][group] = [model.tokenizer.decode([t]).strip() for t in tokens[groups == i].tolist()]
    return found


def test_groups_of_a_loaded_task_hold_the_right_words(toy_model) -> None:
    task = sc.load_task("ioi", toy_model, n=30, seed=5)
    for words_of, clean, right, wrong in zip(
        grouped("ioi", toy_model), task.clean, task.metric.correct, task.metric.incorrect, strict=True
    ):
        (indirect,), (subject,) = (tuple(map(str.strip, answer)) for answer in (right, wrong))
        assert words_of["subject"] == words_of["second_subject"] == [subject]
        assert words_of["indirect_object"] == [indirect]
        assert words_of["last"] == [language.split(clean)[-1]]
        # everything else, with BOS in front
        left = [word for word in language.split(clean)[:-1] if word not in (subject, indirect)]
        assert words_of["other"][1:] == left
    for words_of in grouped("greater-than", toy_model):
        assert words_of["year"][0] in words.YEARS
        assert words_of["century"] == words_of["last_century"]
        assert words_of["last"] == []  # the last century is the last token, and named first
    for words_of in grouped("sva-simple", toy_model):
        assert words_of["subject"][0] in {form for pair in words.SUBJECTS for form in pair}
        assert words_of["last"] == []


def test_every_loaded_task_has_its_spans(name: str, toy_model) -> None:
    task = sc.load_task(name, toy_model, n=30, seed=5)
    assert tuple(task.spans[0]) == GROUPS[name][:-1]
    for words_of, clean in zip(grouped(name, toy_model), task.clean, strict=True):
        assert sorted(word for group in words_of.values() for word in group) == sorted(
            ["<bos>", *language.split(clean)]
        )
    prompts = task[3:5].tokenized(toy_model, anatomy_of(toy_model), corrupted=True)
    assert task[3:5].spans == task.spans[3:5]
    assert prompts.spans == [
        {span: (start + 1, stop + 1) for span, (start, stop) in one.items()} for one in task.spans[3:5]
    ]


def test_seed_fixes_the_prompts(name: str, toy: Vocabulary) -> None:
    generate = BUNDLED[name].generate
    assert generate(toy, N, 1) == generate(toy, N, 1)
    assert generate(toy, N, 1) != generate(toy, N, 2)
    assert generate(toy, N, 1).clean[:7] == generate(toy, 7, 1).clean


def test_prompts_are_distinct(name: str, toy: Vocabulary) -> None:
    assert len(set(BUNDLED[name].generate(toy, 400, 0).clean)) == 400


def test_more_prompts_than_there_are() -> None:
    toy = Vocabulary(toy_tokenizer.build(96))

    def draw(rng: random.Random) -> Example:
        return Example(rng.choice(("The uncle", "The aunt")), "The aunts", (" is",), (" are",), {})

    pairs = collect(toy, 5, 0, "small", draw)
    assert len(pairs.clean) == 5
    assert set(pairs.clean) == {"The uncle", "The aunt"}


def test_at_least_one_example(toy: Vocabulary) -> None:
    with pytest.raises(ValueError, match="n is 0"):
        BUNDLED["ioi"].generate(toy, 0, 0)


# The conventions, read off the text.


def read(name: str, vocabulary: Vocabulary) -> list[tuple[list[str], list[str], tuple[str, ...], tuple[str, ...]]]:
    pairs: Pairs = BUNDLED[name].generate(vocabulary, N, 11)
    rows = zip(pairs.clean, pairs.corrupted, pairs.correct, pairs.incorrect, strict=True)
    return [
        (language.split(clean), language.split(corrupted), tuple(map(str.strip, right)), tuple(map(str.strip, wrong)))
        for clean, corrupted, right, wrong in rows
    ]


def changed(clean: list[str], corrupted: list[str]) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b]


def test_ioi_reads_right(vocabulary: Vocabulary) -> None:
    orders = set()
    for clean, corrupted, (right,), (wrong,) in read("ioi", vocabulary):
        assert clean.count(wrong) == 2
        assert clean.count(right) == 1
        (place,) = changed(clean, corrupted)
        assert clean[place] == wrong
        assert corrupted[place] not in clean
        assert corrupted[place] in words.NAMES
        assert clean.index(right) < place
        assert clean.index(wrong) < place
        assert names_held_out(right, wrong)
        orders.add(clean.index(right) < clean.index(wrong))
    assert orders == {True, False}


def test_greater_than_reads_right(vocabulary: Vocabulary) -> None:
    for clean, corrupted, right, wrong in read("greater-than", vocabulary):
        (place,) = changed(clean, corrupted)
        assert corrupted[place] == "01"
        assert clean[place - 1] == clean[-1]
        year = int(clean[place])
        assert all(int(answer) > year for answer in right)
        assert all(int(answer) <= year for answer in wrong)
        assert (*wrong, *right) == tuple(digits for digits in words.TWO_DIGITS if vocabulary.count(digits) == 1)
    for clean in BUNDLED["greater-than"].generate(vocabulary, N, 0).clean:
        noun = next(word for word in language.split(clean) if word in words.EVENTS + words.OTHER_EVENTS)
        frame = re.sub(r"\d\d$", "{century}", re.sub(r"\d{4}", "{start}", re.sub(rf"\b{noun}\b", "{noun}", clean)))
        assert frame_held_out(frame, noun)


@pytest.mark.parametrize("name", agreement.PHRASES)
def test_agreement_reads_right(name: str, vocabulary: Vocabulary) -> None:
    people = words.SUBJECTS + words.INNER_SUBJECTS + words.OTHER_PEOPLE
    number = {form: i for pair in people for i, form in enumerate(pair)}
    verbs = {form: i for pair in words.VERBS for i, form in enumerate(pair)}
    numbers = set()
    for clean, corrupted, (right,), (wrong,) in read(name, vocabulary):
        (place,) = changed(clean, corrupted)
        assert number[clean[place]] == verbs[right]
        assert number[corrupted[place]] == verbs[wrong]
        assert (right, wrong) in words.VERBS or (wrong, right) in words.VERBS
        places = [i for i, word in enumerate(clean) if word in number]
        assert place == (places[-1] if name == "sva-within-rc" else places[0])
        numbers.add(verbs[right])
    assert numbers == {0, 1}


def test_pronouns_read_right(vocabulary: Vocabulary) -> None:
    for clean, corrupted, (right,), (wrong,) in read("gendered-pronouns", vocabulary):
        (place,) = changed(clean, corrupted)
        gender = {True: "she", False: "he"}
        assert gender[clean[place] in words.FEMALE_NAMES] == right
        assert gender[corrupted[place] in words.FEMALE_NAMES] == wrong != right


def test_induction_reads_right(vocabulary: Vocabulary) -> None:
    for clean, corrupted, (right,), (wrong,) in read("induction", vocabulary):
        for prompt, follows in ((clean, right), (corrupted, wrong)):
            again = prompt.index(prompt[-1])
            assert again < len(prompt) - 1
            assert prompt[again + 1] == follows
        assert sorted(clean) == sorted(corrupted)
        assert len(changed(clean, corrupted)) == 2


# Tokenizers with few words.


def words_only(text: str) -> Vocabulary:
    ids = {word: i for i, word in enumerate(["<unk>", *dict.fromkeys(text.split())])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))


def test_too_few_words(name: str) -> None:
    with pytest.raises(TooFewWords) as caught:
        BUNDLED[name].generate(words_only("The Mary John uncle is"), 4, 0)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.task == name
    assert error.left < error.needed
    for part in (f"task {name!r}", f"only {error.left} {error.kind}", f"at least {error.needed}", ".csv or .jsonl"):
        assert part in str(error)


def test_slots_hold_only_single_tokens() -> None:
    known = ["Aaron", "Adam", "Mary", "Kate", "John", "Paul", "Lisa", "Emma", "Jack", "Mark", "Ruth", "Anna", "Luke"]
    other = "The Then , . park store farm ring hat map"
    pairs = BUNDLED["ioi"].generate(words_only(" ".join([*known, other])), 30, 0)
    used = {word for prompt in pairs.clean + pairs.corrupted for word in language.split(prompt)}
    assert used & set(words.NAMES) <= set(known)
    assert used & set(words.PLACES) <= {"park", "store", "farm"}


def test_vocabulary_of_a_tokenizer(toy: Vocabulary, byte_level: Vocabulary) -> None:
    assert toy.keep(["Mary", "xylophone", "uncle"]) == ("Mary", "uncle")
    assert toy.single(" Mary")
    assert not toy.single(" Mary Ann")
    assert byte_level.single(" gave")
    assert not byte_level.single(" xylophone")
