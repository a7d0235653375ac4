"""A table of the hub's imagefolder says which picture has which text or label."""

import json

import pytest

from edge_train.errors import InputError
from edge_train.formats.picture_tables import TEXTS, kinds_in, read_column
from edge_train.formats.tables.names import LABELS


def table(folder, content, name="metadata.csv", coding="utf-8"):
    (folder / name).write_bytes(content.encode(coding))
    return folder / name


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("head", ["file_name,text", "File_Name,Caption", "file_name;text"])
def test_a_csv_gives_texts_by_name(tmp_path, head, coding):
    mark = ";" if ";" in head else ","
    rows = [head, f"a.png{mark}a  caf\u00e9", f"sub/b.png{mark}{' '}", f"./c.png{mark}two"]
    named = read_column(table(tmp_path, "\n".join(rows) + "\n", coding=coding), TEXTS)
    assert named.texts == {"a.png": "a caf\u00e9", "c.png": "two"}


def test_a_jsonl_gives_labels_by_name(tmp_path):
    rows = [{"file_name": "a.png", "label": 3}, {"file_name": "b.png", "label": "cat"}]
    path = table(tmp_path, "".join(map("{}\n".format, map(json.dumps, rows))), "metadata.jsonl")
    assert read_column(path, LABELS).texts == {"a.png": "3", "b.png": "cat"}
    assert read_column(path, TEXTS) is None
    assert kinds_in(tmp_path) == {"label"}


@pytest.mark.parametrize(
    "name",
    ["../x.png", "/etc/x.png", "a/../../x.png", "C:\\\\x.png", "..\\\\x.png", "a\\u0000.png"],
)
def test_a_name_that_climbs_out_is_refused(tmp_path, name):
    path = table(tmp_path, f'{{"file_name": "{name}", "text": "x"}}\n', "metadata.jsonl")
    with pytest.raises(InputError, match=r"line 1 names .* nothing outside of it is opened"):
        read_column(path, TEXTS)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("name,text\na.png,x\n", "no column file_name.*'name', 'text'"),
        ("file_name,text\na.png,x\na.png,y\n", "a.png stands there twice.*'x' and 'y'"),
        ("file_name,text\n", "no examples"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        read_column(table(tmp_path, rows), TEXTS)


def test_a_label_that_is_no_word_is_refused(tmp_path):
    path = table(tmp_path, '{"file_name": "a.png", "label": [1]}\n', "metadata.jsonl")
    with pytest.raises(InputError, match=r"line 1: label is '.1.'; expected a text or a whole"):
        read_column(path, LABELS)
