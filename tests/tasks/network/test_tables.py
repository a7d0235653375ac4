"""Tables of numbers: the class is found, what is no class or no number is said."""

import numpy as np
import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.tasks.network.datasets import load


def rows_of(count=40, **columns):
    return [{name: make(n) for name, make in columns.items()} for n in range(count)]


def features(data):
    """Return every sample in the order of its first number."""
    inputs = np.concatenate([data.train.inputs, data.test.inputs])
    return inputs[np.argsort(inputs[:, 0])]


@pytest.mark.parametrize("name", ["label", "Label", "\ufefflabel", " LABEL ", "Class"])
def test_the_column_of_classes_is_found_however_it_is_spelled(tmp_path, name):
    rows = rows_of(**{name: lambda n: n % 2, "a": lambda n: n, "b": lambda n: 0.1 * n})
    data = load(write_table(tmp_path / "t.csv", rows))
    assert (data.class_names, data.shape) == (("0", "1"), (2,))
    assert data.notices == ()


def test_a_column_of_classes_may_be_named(tmp_path):
    rows = rows_of(kind=lambda n: "ab"[n % 2], a=lambda n: n, b=lambda n: 0.1 * n)
    path = write_table(tmp_path / "t.csv", rows)
    for asked in ("kind", "Kind", "1"):
        assert load(path, label_column=asked).class_names == ("a", "b")
    with pytest.raises(InputError, match=r"no column 'c' \(--label-column\); it has 'kind', 'a'"):
        load(path, label_column="c")


def test_a_quantity_is_never_taken_for_classes(tmp_path):
    rows = rows_of(a=lambda n: n, b=lambda n: round(0.1 * n, 1))
    path = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(
        InputError, match=r"'b' has 40 different numbers with fractions.*a quantity"
    ):
        load(path)


def test_many_whole_numbers_in_a_column_that_nobody_named_are_said(tmp_path):
    rows = rows_of(80, a=lambda n: n, b=lambda n: n % 40)
    line = (
        "the last column of t.csv, 'b', is taken for classes: 40 different numbers; "
        "--label-column would name another"
    )
    path = write_table(tmp_path / "t.csv", rows)
    assert load(path).notices == (line,)
    assert load(path, label_column="b").notices == ()


@pytest.mark.parametrize("labels", [(-1, 1), (1.0, 2.0), ("True", "False"), (3, 7)])
def test_classes_are_numbers_from_any_base_or_words(tmp_path, labels):
    rows = rows_of(a=lambda n: n, label=lambda n: labels[n % 2])
    assert len(load(write_table(tmp_path / "t.csv", rows)).class_names) == 2


def test_a_table_without_a_header_loses_no_row(tmp_path):
    rows = rows_of(a=lambda n: n, b=lambda n: 0.5 * n, c=lambda n: n % 3)
    data = load(write_table(tmp_path / "t.csv", rows, head=False))
    assert len(features(data)) == 40
    assert data.class_names == ("0", "1", "2")


def test_numbers_with_a_decimal_comma_are_read_and_said(tmp_path):
    rows = rows_of(a=lambda n: n, b=lambda n: f"{n},25", label=lambda n: "ab"[n % 2])
    data = load(write_table(tmp_path / "t.csv", rows, delimiter=";"))
    np.testing.assert_array_equal(features(data)[:, 1], np.arange(40, dtype=np.float32) + 0.25)
    assert data.notices == ("numbers of t.csv have a decimal comma: 0,25 is read as 0.25",)
    rows[7]["a"] = "1.5"
    with pytest.raises(InputError, match=r"both a comma .* and a point"):
        load(write_table(tmp_path / "t.csv", rows, delimiter=";"))


def test_the_numbers_of_rows_that_pandas_writes_are_no_feature(tmp_path):
    rows = rows_of(**{"": lambda n: n, "a": lambda n: n % 7, "label": lambda n: n % 2})
    data = load(write_table(tmp_path / "t.csv", rows))
    assert data.shape == (1,)
    assert data.notices == ("a column of t.csv without a name counts its rows: it is left out",)


def test_a_named_column_that_counts_the_rows_is_said(tmp_path):
    rows = rows_of(Id=lambda n: n + 1, a=lambda n: n % 7, label=lambda n: n % 2)
    data = load(write_table(tmp_path / "t.csv", rows))
    assert data.shape == (2,)
    assert "column 'Id' of t.csv counts its rows, and is learned from" in data.notices[0]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id"])
def test_numbers_of_rows_that_were_shuffled_are_said(name, tmp_path):
    """Where rows stood by their class, these numbers give it away."""
    rows = rows_of(**{name: lambda n: n * 7 % 40, "a": lambda n: n % 7, "label": lambda n: n % 2})
    data = load(write_table(tmp_path / "t.csv", rows))
    assert data.shape == (2,)
    assert f"column {name!r} of t.csv has another number in each row" in data.notices[0]


def test_a_folder_of_parts_has_its_own_test_part(tmp_path):
    rows = rows_of(a=lambda n: n, label=lambda n: "ab"[n % 2])
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "test.csv", rows[:6])
    write_table(tmp_path / "val.csv", rows[:2])
    data = load(tmp_path)
    assert (len(data.train.labels), len(data.test.labels)) == (40, 6)
    assert data.notices == (
        "val.csv is not used: task network holds out some of its training samples",
    )
    write_table(tmp_path / "test.csv", [{**row, "label": -1} for row in rows[:6]])
    data = load(tmp_path)
    assert len(data.train.labels) == 32
    assert "the test part has no labels, so it is set aside" in data.notices
    write_table(tmp_path / "test.csv", [{"b": 1, "label": "a"}])
    with pytest.raises(InputError, match="its columns are 'b', 'label', those of the training"):
        load(tmp_path)


def test_words_among_the_numbers_name_their_column(tmp_path):
    rows = rows_of(a=lambda n: n, city=lambda n: "Oslo", label=lambda n: n % 2)
    with pytest.raises(InputError, match=r"line 2 has 'Oslo' in column 'city', which is no number"):
        load(write_table(tmp_path / "t.csv", rows))


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("", "has nothing in column 'a'"),
        ("nan", "has 'nan' in column 'a', which is no finite float32"),
        ("1e39", "has '1e39' in column 'a', which is no finite float32"),
    ],
)
def test_a_row_with_a_missing_number_is_left_out_and_not_the_whole_table(tmp_path, cell, why):
    rows = rows_of(a=lambda n: cell if n == 3 else n, b=lambda n: n, label=lambda n: n % 2)
    data = load(write_table(tmp_path / "t.csv", rows))
    assert len(data.train.labels) + len(data.test.labels) == 39
    assert data.notices == (f"1 of 40 rows of t.csv is left out: line 5 {why}",)


@pytest.mark.parametrize("word", ["", "NaN", "nan"])
def test_a_missing_label_is_no_class_and_makes_no_quantity_of_the_others(tmp_path, word):
    rows = rows_of(a=lambda n: n, b=lambda n: n, label=lambda n: word if n == 3 else n % 2)
    data = load(write_table(tmp_path / "t.csv", rows))
    assert data.class_names == ("0", "1")
    assert data.notices == ("1 of 40 rows of t.csv is left out: line 5 has no label",)
