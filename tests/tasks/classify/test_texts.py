"""Labeled texts are found in every layout we promise, and every broken file is one sentence."""

import json

import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.tasks.classify.columns import Columns
from edge_train.tasks.classify.numbers import load_numbers
from edge_train.tasks.classify.texts import Example, load_texts, read_examples

NAMES = ("LABEL_0", "LABEL_1")
ROWS = [("bad film", "0"), ("good film", "1"), ('a "quoted, odd" one', "1"), ("dull", "0")]


def write(path, rows, head=None):
    if path.suffix == ".jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    elif path.suffix == ".csv":
        lines = ['"' + text.replace('"', '""') + f'",{label}' for text, label in rows]
    else:
        lines = [f"{text}\t{label}" for text, label in rows]
    path.write_text("\n".join([*([head] if head else []), *lines]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    found = read_examples(write(tmp_path / f"train{suffix}", ROWS))
    assert found == tuple(Example(*row) for row in ROWS)


def test_columns_are_found_by_their_names(tmp_path):
    (tmp_path / "a.csv").write_text("id,label,sentence\n7,1,good\n8,0,bad\n")
    assert read_examples(tmp_path / "a.csv") == (Example("good", "1"), Example("bad", "0"))


def test_columns_without_names_are_told_apart_by_what_is_in_them(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tgood film\n0\tbad film\n1\tgreat film\n")
    assert read_examples(tmp_path / "a.tsv")[0] == Example("good film", "1")


def test_two_columns_of_one_name_are_said_and_are_no_pair(tmp_path):
    rows = [f"good {n},great {n},{n % 2},{n % 3}" for n in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["text,text,label,Label", *rows]))
    found = load_texts(tmp_path / "a.csv", ())
    assert Example("good 3", "1") in found.train
    assert found.notices[:2] == tuple(
        f"2 columns of a.csv are called {name!r}: the first is meant, and another can be named by "
        "its number, counted from 1"
        for name in ("label", "text")
    )
    named = read_examples(tmp_path / "a.csv", Columns(text="2", label="4"))
    assert named[2] == Example("great 2", "2")


def test_numbers_as_labels_work_in_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sentence": "good", "label": 1}\n\n')
    assert read_examples(tmp_path / "a.jsonl") == (Example("good", "1"),)


def test_a_folder_gives_train_dev_and_test(tmp_path):
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "validation.tsv", ROWS[:2])
    write(tmp_path / "test.csv", ROWS[:1])
    found = load_texts(tmp_path, NAMES)
    assert (len(found.train), len(found.dev), len(found.test)) == (4, 2, 1)
    assert found.numbers(found.train) == [0, 1, 1, 0]


def test_a_single_file_holds_out_every_tenth(tmp_path):
    rows = [(f"text {number}", str(number // 3 % 2)) for number in range(40)]
    found = load_texts(write(tmp_path / "all.tsv", rows), NAMES)
    assert [example.text for example in found.dev] == [f"text {n}" for n in (0, 10, 20, 30)]
    assert not set(found.dev) & set(found.train) and len(found.train) == 36


def test_labels_that_alternate_are_all_held_out(tmp_path):
    rows = [(f"text {number}", str(number % 2)) for number in range(40)]
    found = load_texts(write(tmp_path / "all.tsv", [*rows, ("rare", "2")]), ())
    assert [example.text for example in found.dev] == [f"text {n}" for n in (0, 1, 20, 21)]
    assert not set(found.dev) & set(found.train) and len(found.train) == 37


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (("neg", "pos"), ("neg", "pos"), [0, 1]),
        (("neg", "pos"), ("pos", "neg"), [1, 0]),  # the model's order counts
        (("0", "1"), ("pos", "neg"), [0, 1]),
        (("no", "yes"), NAMES, [0, 1]),  # the model has no names of its own
        (("Neg", "POS"), ("neg", "pos"), [0, 1]),
        (("1", "2"), NAMES, [0, 1]),
        (("-1", "1"), NAMES, [0, 1]),
        (("0.0", "1.0"), NAMES, [0, 1]),
        (("2.0", "10.0"), NAMES, [0, 1]),  # in the order of numbers, not of letters
        (("False", "True"), NAMES, [0, 1]),
        (("2", "1"), (), [1, 0]),  # as many outputs as there are labels
        (("10", "9"), (), [1, 0]),
        (("ham", "eggs"), (), [1, 0]),
        (("5", "2"), ("a", "b", "c", "d", "e"), [4, 1]),  # from 1 to 5, not all of them
    ],
)
def test_labels_may_be_names_or_numbers(tmp_path, labels, names, numbers):
    write(tmp_path / "train.tsv", [("a", labels[0]), ("b", labels[1])])
    write(tmp_path / "dev.tsv", [("a", labels[0])])
    found = load_texts(tmp_path, names)
    assert found.numbers(found.train) == numbers


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no examples in it"),
        (b"\n\n", "no examples in it"),
        (b"good\t1\nbad\t1\n", "all examples have the label '1'"),
        (
            b"good\t1\nbad\t5\nso\t0\n",
            "label 5 is out of range; the model has 2 classes, 0 to 1",
        ),
        (b"good\t1\nbad\n", "line 2 has 1 columns, expected 2"),
        (b"good\nbad\n", "line 1 has 1 columns, expected 2"),
        (b"good\t1\nb\xff\xfe\xc0\xe4d\t0\n", "line 2 is not UTF-8"),
        (b"good\tyes\nbad\tno\nso\tmaybe\n", "do not fit a model whose 2 classes are"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "train.tsv").write_bytes(content)
    write(tmp_path / "dev.tsv", ROWS)
    with pytest.raises(InputError, match=sentence) as caught:
        load_texts(tmp_path, NAMES)
    assert "train.tsv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1, 2]\n", "line 1 is a list, expected a JSON object"),
        ('{"text": "a"}\n', "has only 'text', expected 2: a text and its label"),
        ('{"text": "a", "label": [1, 2]}\n', "line 1 has more than one label"),
        ('{"text": ["a"], "label": 1}\n', "line 1 has no text"),
        ('{"text": "a", "label": null}\n', "line 1 has no label"),
        ('{"text": "a", "label": "nan"}\n', "line 1 has no label"),
    ],
)
def test_bad_json_lines_are_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_examples(tmp_path / "a.jsonl")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no train\.tsv"):
        load_texts(tmp_path, NAMES)
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_texts(tmp_path / "none.tsv", NAMES)
    (tmp_path / "some.doc").write_bytes(b"?")
    with pytest.raises(InputError, match=r"expected a table that ends in \.csv, \.tsv"):
        load_texts(tmp_path / "some.doc", NAMES)


def test_a_label_that_training_never_shows_is_refused(tmp_path):
    write(tmp_path / "train.tsv", [("a", "no"), ("b", "yes")])
    write(tmp_path / "dev.tsv", [("a", "perhaps")])
    with pytest.raises(InputError, match=r"dev\.tsv: label 'perhaps' of line 1 is in the dev"):
        load_texts(tmp_path, NAMES)


def test_too_few_to_hold_some_out_is_refused(tmp_path):
    with pytest.raises(InputError, match="too few to hold some out"):
        load_texts(write(tmp_path / "a.tsv", [("a", "0"), ("b", "1")]), NAMES)


def test_labels_from_another_base_are_said_with_the_outputs_that_they_are(tmp_path):
    rows = [(f"text {n}", str(1 + n % 5)) for n in range(50)]
    found = load_texts(write(tmp_path / "a.tsv", rows), ("--", "-", "0", "+", "++"))
    assert found.labels == ("1", "2", "3", "4", "5")
    assert "labels 1 to 5 are the model's 5 outputs in that order: 1 is '--', 5 is '++'" in (
        found.notices
    )


def test_a_scale_is_no_set_of_classes(tmp_path):
    rows = [{"text": f"text {n}", "label": f"{n / 7:.2f}"} for n in range(50)]
    with pytest.raises(InputError, match=r"50 different numbers with fractions.*--label-column"):
        load_texts(write_table(tmp_path / "a.tsv", rows), NAMES)


@pytest.mark.parametrize("asked", [Columns(), Columns("Words", "Kind"), Columns("2", "3")])
def test_columns_with_names_of_their_own_are_told_apart_or_named(tmp_path, asked):
    rows = [{"id": str(n), "Words": f"so many words {n}", "Kind": "hs"[n % 2]} for n in range(40)]
    found = load_texts(write_table(tmp_path / "a.csv", rows), NAMES, asked)
    assert found.train[0] == Example("so many words 2", "h")
    said = "of a.csv, texts are column 'Words' and labels are column 'Kind'; --text-column and"
    assert any(said in line for line in found.notices) is (asked == Columns())


def test_columns_that_say_nothing_must_be_named(tmp_path):
    rows = [{"id": str(n), "words": f"text {n}"} for n in range(40)]
    with pytest.raises(InputError, match=r"none has values that repeat.*--text-column NAME"):
        load_texts(write_table(tmp_path / "a.csv", rows), NAMES)
    with pytest.raises(InputError, match=r"no column 'kind' \(--label-column\); it has 'id'"):
        load_texts(tmp_path / "a.csv", NAMES, Columns(label="kind"))


PAIRS = [
    {"idx": str(n), "premise": f"a {n}", "hypothesis": f"b {n}", "label": str(n % 2)}
    for n in range(30)
]


@pytest.mark.parametrize(
    "asked", [Columns(), Columns("premise", "label", "hypothesis"), Columns(pair="hypothesis")]
)
def test_pairs_of_texts_are_found_by_their_names(tmp_path, asked):
    found = load_texts(write_table(tmp_path / "a.tsv", PAIRS), NAMES, asked)
    assert found.in_pairs
    assert found.train[0] == Example("a 2", "0", "b 2")


def test_one_text_of_a_pair_may_be_asked_for(tmp_path):
    found = load_texts(write_table(tmp_path / "a.tsv", PAIRS), NAMES, Columns("hypothesis"))
    assert found.train[0] == Example("b 2", "0")


def test_a_test_part_without_labels_is_set_aside_and_said(tmp_path):
    rows = [{"sentence": f"text {n}", "label": str(n % 2)} for n in range(30)]
    write_table(tmp_path / "train.tsv", rows)
    kinds = {
        "no column": [{"index": "0", "sentence": "x"}],
        "-1 throughout": [{"sentence": "x", "label": "-1"}],
        "empty": [{"sentence": "x", "label": ""}, {"sentence": "y", "label": ""}],
    }
    for kind, test in kinds.items():
        write_table(tmp_path / "test.tsv", test)
        found = load_texts(tmp_path, NAMES)
        assert (len(found.train), len(found.test)) == (26, 0), kind
        assert any("test.tsv has no" in n and "set aside" in n for n in found.notices), kind
    write_table(tmp_path / "test.tsv", [*kinds["-1 throughout"], rows[0]])
    found = load_texts(tmp_path, NAMES)
    assert len(found.test) == 1
    assert "1 texts of test.tsv have no label and are left out" in found.notices


def test_minus_one_is_a_label_where_training_has_it(tmp_path):
    rows = [{"text": f"text {n}", "label": str(2 * (n % 2) - 1)} for n in range(30)]
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "test.csv", rows[:4])
    assert len(load_texts(tmp_path, NAMES).test) == 4


def test_numbers_are_read_as_labels_are_and_minus_one_may_be_one(tmp_path):
    rows = [{"text": f"text {n}", "score": f"{n / 4 - 2.1:.1f}"} for n in range(30)]
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "dev.csv", [{"text": "a", "score": "-1"}, {"text": "b", "score": "9"}])
    write_table(tmp_path / "test.csv", [{"text": "c", "score": "-1"}, {"text": "d", "score": -1}])
    found = load_numbers(tmp_path)
    assert [example.label for example in found.dev] == ["-1", "9"]
    assert (len(found.train), found.test) == (30, ())
    assert "test.csv has no labels, so it is set aside" in found.notices


def test_a_dev_file_that_lacks_the_text_is_named(tmp_path):
    write_table(tmp_path / "train.csv", PAIRS)
    write_table(tmp_path / "dev.csv", [{"premise": "a", "label": "1"}])
    with pytest.raises(InputError, match=r"dev\.csv: no column 'hypothesis' as in train\.csv"):
        load_texts(tmp_path, NAMES)


def test_what_is_odd_or_left_out_is_one_line_each(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(30)]
    train = [*rows, rows[1], {"text": "text 3", "label": "a"}, {"text": "rare", "label": "c"}]
    write_table(tmp_path / "train.csv", [*train, {"text": "", "label": "a"}])
    write_table(tmp_path / "dev.csv", [rows[0], {"text": "new", "label": "b"}])  # no "c"
    write_table(tmp_path / "val.csv", rows)
    found = load_texts(tmp_path, ())
    assert set(found.notices) == {
        "val.csv is not used: dev.csv is",
        "1 of 34 rows of train.csv are left out: line 35 has no text".replace("are", "is"),
        "2 of 33 training texts are there more than once; 1 texts have more than one label",
        "1 of 2 dev and test texts are training texts, too",
        "1 class has one training example only: 'c'",
        "no dev example has the label 'c': training is judged without it; put a dev file beside "
        "the training file",
    }
    found = load_texts(tmp_path / "train.csv", ())
    assert (
        f"dev.csv and val.csv beside train.csv are not used; --data {tmp_path} uses the folder"
        in (found.notices)
    )


def test_the_label_that_stands_for_no_agreement_is_set_aside_and_said(tmp_path):
    labels = ["entailment", "-", "neutral", "contradiction"] * 6
    rows = [{"text": f"a text {n}", "label": label} for n, label in enumerate(labels)]
    write_table(tmp_path / "train.jsonl", rows)
    write_table(tmp_path / "dev.jsonl", rows[:8])
    found = load_texts(tmp_path, ())
    assert found.labels == ("contradiction", "entailment", "neutral")
    assert [len(found.train), len(found.dev)] == [18, 6]
    assert any(
        "6 of 24 rows of train.jsonl are left out: line 2 has the label '-'" in line
        for line in found.notices
    )
    assert "2 texts of dev.jsonl have no label and are left out" in found.notices


def test_minus_beside_plus_is_a_label(tmp_path):
    rows = [{"text": f"text {n}", "label": "+-0"[n % 3]} for n in range(30)]
    found = load_texts(write_table(tmp_path / "t.csv", rows), ())
    assert set(found.labels) == {"+", "-", "0"}


def named(path, labels, names):
    """A table as the hub's library writes it: numbers, and their names in the schema."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [f"text {n}" for n in range(len(labels))]
    feature = {"names": names, "_type": "ClassLabel"}
    about = json.dumps({"info": {"features": {"label": feature, "text": {"dtype": "string"}}}})
    table = pyarrow.table({"text": texts, "label": labels})
    parquet.write_table(table.replace_schema_metadata({"huggingface": about}), path)
    return path


SNLI = ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ((), tuple(SNLI)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), tuple(SNLI)),
        (("yes", "maybe", "no"), tuple(SNLI)),
        # of a model of the same classes in another order, each is the output of its name
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), tuple(reversed(SNLI))),
    ],
)
def test_classes_have_the_names_that_a_table_of_the_hub_has_for_them(tmp_path, model, labels):
    path = named(tmp_path / "train.parquet", [0, 1, 2, -1] * 10, SNLI)
    found = load_texts(path, model)
    assert found.labels == labels
    first = next(example for example in found.train if example.text == "text 1")
    assert first.label == "neutral"
    assert any("10 of 40 rows of train.parquet are left out" in line for line in found.notices)


@pytest.mark.parametrize("names", [None, ["a"], ["a", "a", "b"], ["a", 1, "b"], "abc", {"a": 1}])
def test_names_in_a_schema_that_name_nothing_are_left_alone(tmp_path, names):
    path = named(tmp_path / "train.parquet", [0, 1, 2] * 10, names)
    assert load_texts(path, ()).labels == ("0", "1", "2")


def test_numbers_to_predict_stay_numbers_whatever_the_schema_calls_them(tmp_path):
    path = named(tmp_path / "train.parquet", [0, 1, 2] * 10, SNLI)
    assert {example.label for example in load_numbers(path).train} == {"0", "1", "2"}
