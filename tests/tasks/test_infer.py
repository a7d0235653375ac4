"""From data to a task: the table of docs/start.md, one row a test, and what is ambiguous."""

import dataclasses
import json
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from edge_train.errors import InputError
from edge_train.tasks import tasks
from edge_train.tasks.infer import infer


def pictures(folder, count=2):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    return folder


def text(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def photos(folder):
    return pictures(folder / "dog")


def repeats(folder):
    pictures(folder / "set" / "10_dog")
    return folder / "set"


def classes(folder):
    pictures(folder / "set" / "cat")
    pictures(folder / "set" / "dog")
    return folder / "set"


def parts(folder):
    for part in ("train", "validation"):
        for name in ("cat", "dog"):
            pictures(folder / "set" / part / name)
    return folder / "set"


def labeled(folder):
    pictures(folder / "set")
    text(folder / "set" / "metadata.csv", "file_name,label\n0.png,cat\n1.png,dog\n")
    return folder / "set"


def captioned(folder):
    pictures(folder / "set")
    text(folder / "set" / "metadata.csv", "file_name,text\n0.png,a cat\n1.png,a red cat\n")
    return folder / "set"


def arrays(folder):
    np.savez(folder / "x.npz", train_images=np.zeros((1, 2, 2)))
    return folder / "x.npz"


def rows(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


DATA = {
    "photos": (photos, "personalize"),
    "photos in folders of repeats": (repeats, "personalize"),
    "a folder for each class": (classes, "network"),
    "a folder for each class in parts": (parts, "network"),
    "pictures with a table of labels": (labeled, "network"),
    "pictures with a table of captions": (captioned, "personalize"),
    "arrays": (arrays, "network"),
    "numbers with a class": (
        lambda f: text(f / "iris.csv", "a,b,kind\n5.1,3.5,setosa\n6.2,2.9,virginica\n"),
        "network",
    ),
    "numbers only": (lambda f: text(f / "series.csv", "1,2,3\n4,5,6\n"), "network"),
    "sentences with labels": (
        lambda f: text(f / "r.csv", "text,label\nwhat a film,1\nso very dull,0\n"),
        "classify",
    ),
    "a tsv": (lambda f: text(f / "r.tsv", "so good indeed\t1\nnot good at all\t0\n"), "classify"),
    "sentences with semicolons": (
        lambda f: text(f / "R.CSV", "Text;Label\nwhat a film;1\nso very dull;0\n"),
        "classify",
    ),
    "numbers with decimal commas": (
        lambda f: text(f / "n.csv", "a;b;kind\n5,1;3,5;x\n6,2;2,9;y\n"),
        "network",
    ),
    "numbers in records": (
        lambda f: text(f / "n.jsonl", rows({"a": 1.5, "b": 2, "label": "x"})),
        "network",
    ),
    "a list of labeled records": (
        lambda f: text(f / "r.json", json.dumps([{"text": "good film", "label": 1}] * 3)),
        "classify",
    ),
    "texts of UTF-16": (
        lambda f: (
            (f / "t.csv").write_bytes("text,label\nso good,1\n".encode("utf-16")) and f / "t.csv"
        ),
        "classify",
    ),
    "rows with labels": (
        lambda f: text(f / "r.jsonl", rows({"text": "good", "label": 1})),
        "classify",
    ),
    "a text": (lambda f: text(f / "book.txt", "once upon a time"), "language-model"),
    "rows of texts": (lambda f: text(f / "t.jsonl", rows({"text": "once"})), "language-model"),
    "chats with a score and a kind": (
        lambda f: text(f / "c.jsonl", rows({"messages": [], "score": 3, "category": "sums"})),
        "language-model",
    ),
    "chats": (
        lambda f: text(f / "c.jsonl", rows({"messages": [{"role": "user", "content": "hi"}]})),
        "language-model",
    ),
    "clouds": (
        lambda f: (
            (
                text(f / "clouds" / "a.xyz", "0 0 1\n") and text(f / "clouds" / "b.xyz", "1 2 3\n")
            ).parent
        ),
        "points",
    ),
    "one cloud": (lambda f: text(f / "scan.obj", "v 0 0 1\nv 1 0 0\n"), "surface"),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_says_which_task_it_is_of(kind, tmp_path):
    make, wanted = DATA[kind]
    task, what = infer(make(tmp_path))
    assert task.name == wanted
    assert what


def test_a_folder_of_labeled_parts_is_of_texts(tmp_path):
    text(tmp_path / "train.tsv", "good\t1\n")
    assert infer(tmp_path)[0].name == "classify"


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("train.csv", "a,b,label\n1,2,x\n3,4,y\n", "network"),
        ("train-00000-of-00001.jsonl", rows({"sentence": "a film", "label": 1}), "classify"),
        ("data/Train.TSV", "sentence\tlabel\na film\t1\n", "classify"),
        ("train.jsonl", rows({"text": "once"}), "language-model"),
        ("train.txt", "once upon a time", "language-model"),
    ],
)
def test_a_folder_of_parts_is_what_its_training_part_is(tmp_path, name, content, wanted):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    text(tmp_path / name, content)
    assert infer(tmp_path)[0].name == wanted


def test_pictures_beside_folders_of_pictures_are_ambiguous_and_both_lines_are_given(tmp_path):
    pictures(tmp_path)
    pictures(tmp_path / "cat")
    with pytest.raises(InputError, match="may be data of 2 tasks") as caught:
        infer(tmp_path)
    for task in ("personalize", "network"):
        assert f"edge-train run {tmp_path} --task {task}" in str(caught.value)


def test_what_no_task_knows_is_refused_with_every_line(tmp_path):
    with pytest.raises(InputError, match="looks like data of no task") as caught:
        infer(text(tmp_path / "x.bin", "?"))
    assert str(caught.value).count("--task") == len(tasks.names())
    assert f"put one of these behind `edge-train run {tmp_path / 'x.bin'}`:" in str(caught.value)


def test_what_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="there is no such file or folder"):
        infer(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name, content):
    with pytest.raises(InputError, match="the file is empty"):
        infer(text(tmp_path / name, content))


_CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
_LONG = {"messages": [{"role": "user", "content": "word " * 60_000}, _CHAT["messages"][1]]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", rows(_LONG, _CHAT)),
        ("x.jsonl", rows(_LONG)),
        ("x.jsonl", '{"messages":' + "[" * 300_000 + "\n" + rows(_CHAT)),
        ("x.jsonl", "\n" * 60 + rows(_CHAT)),
        ("x.jsonl", '{"messages": [{"role": "user", "content": "a \\ud83d"}]}\n'),
        ("x.json", rows(_LONG, _CHAT)),
        ("x.json", json.dumps([_LONG, _CHAT])),
        ("x.json", json.dumps({"version": 1, "data": [_CHAT] * 3})),
        ("x.json", json.dumps({"version": 1, "data": [_LONG, _CHAT]})),
        ("x.json", json.dumps(_CHAT, indent=1)),
        ("x.json", json.dumps(_LONG, indent=1)),
        ("x.json", json.dumps({"id": 3, "messages": _CHAT["messages"] * 9_000})),
        ("x.json", json.dumps({"messages": [_CHAT["messages"]] * 9_000}, indent=1)),
    ],
)
def test_chats_are_known_however_long_their_first_row_is_and_whatever_is_around(
    tmp_path, name, content
):
    task, what = infer(text(tmp_path / name, content))
    assert (task.name, what) == ("language-model", "chats")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_labeled_texts_are_known_however_long_the_first_is(tmp_path, name):
    row = {"text": "word " * 60_000, "label": "pos"}
    content = (
        rows(row)
        if name == "x.jsonl"
        else "\n" * 60 + f"{','.join(row)}\n{','.join(row.values())}\n"
    )
    assert infer(text(tmp_path / name, content))[0].name == "classify"


@pytest.mark.parametrize("indent", [None, 1])
def test_columns_in_a_json_are_known_by_their_rows(tmp_path, indent):
    columns = {"text": ["a film", "no film"] * 9_000, "label": ["pos", "neg"] * 9_000}
    content = json.dumps(columns, indent=indent)
    assert infer(text(tmp_path / "x.json", content))[0].name == "classify"


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe,\x80\n", b'{"text": ', b"a" * 300_000])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.tsv"])
def test_broken_files_are_never_a_traceback(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with suppress(InputError):
        infer(tmp_path / name)


def test_a_look_at_a_huge_file_reads_little_of_it(tmp_path):
    for name in ("x.csv", "x.jsonl", "x.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**9)  # one line of zeros
        before = tracemalloc_peak(lambda name=name: look(tmp_path / name))
        assert before < 20_000_000


def look(path):
    with suppress(InputError):
        infer(path)


def tracemalloc_peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 50_000, '{"text": ' + "9" * 5000 + "}"]
)
def test_rows_without_end_are_rows_of_no_task(content, tmp_path):
    with pytest.raises(InputError, match="no task"):
        infer(text(tmp_path / "x.jsonl", content))


def test_a_folder_without_rights_is_one_sentence(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        infer(tmp_path)


def test_a_task_that_cannot_look_is_named_and_the_others_are_asked(tmp_path, monkeypatch):
    lost = dataclasses.replace(tasks.get("classify"), name="lost", accepts="lost_package:accepts")
    monkeypatch.setattr(tasks, "_found", {**tasks.all(), "lost": lost})
    task, what = infer(text(tmp_path / "book.txt", "once"))
    assert task.name == "language-model"
    assert "task 'lost' was not asked (lost_package:accepts: ModuleNotFoundError" in what
