"""Labeled texts are found in every layout we promise, and every broken file is one sentence."""

import json

import pytest

from edge_train.errors import InputError
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
    rows = [(f"text {number}", str(number % 2)) for number in range(40)]
    found = load_texts(write(tmp_path / "all.tsv", rows), NAMES)
    assert [example.text for example in found.dev] == [f"text {n}" for n in (0, 10, 20, 30)]
    assert not set(found.dev) & set(found.train) and len(found.train) == 36


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (("neg", "pos"), ("neg", "pos"), [0, 1]),
        (("neg", "pos"), ("pos", "neg"), [1, 0]),  # the model's order counts
        (("0", "1"), ("pos", "neg"), [0, 1]),
        (("no", "yes"), NAMES, [0, 1]),  # the model has no names of its own
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
        (b"good\t1\nbad\t1\n", "all 2 examples have the label '1'"),
        (b"good\t1\nbad\t5\n", "label 5 is out of range; the model has 2 classes, 0 to 1"),
        (b"good\t1\nbad\n", "line 2 has 1 columns, expected 2"),
        (b"good\nbad\n", "line 1 has 1 columns, expected 2"),
        (b"good\t1\nb\xe4d\t0\n", "line 2 is not UTF-8"),
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
    [("[1, 2]\n", "line 1 is not a JSON object"), ('{"text": "a"}\n', "has the keys 'text'")],
)
def test_bad_json_lines_are_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_examples(tmp_path / "a.jsonl")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no train\.tsv"):
        load_texts(tmp_path, NAMES)
    with pytest.raises(InputError, match="cannot be read"):
        load_texts(tmp_path / "none.tsv", NAMES)
    with pytest.raises(InputError, match="expected a folder with train and dev files"):
        load_texts(tmp_path / "none.txt", NAMES)


def test_a_label_that_training_never_shows_is_refused(tmp_path):
    write(tmp_path / "train.tsv", [("a", "no"), ("b", "yes")])
    write(tmp_path / "dev.tsv", [("a", "perhaps")])
    with pytest.raises(InputError, match="'perhaps' is in the dev or test file"):
        load_texts(tmp_path, NAMES)


def test_too_few_to_hold_some_out_is_refused(tmp_path):
    with pytest.raises(InputError, match="too few to hold some out"):
        load_texts(write(tmp_path / "a.tsv", [("a", "0"), ("b", "1")]), NAMES)
