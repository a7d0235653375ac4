"""The texts that `infer` is asked: of the command line, or of standard input."""

import io

import pytest

from edge_train.errors import InputError
from edge_train.tasks.asking import _texts


def test_bytes_that_are_no_text_are_one_sentence(monkeypatch):
    noise = io.BytesIO(b"good\n\xff\xfe\x00\n")
    for how, words in (("surrogateescape", ["-"]), ("strict", ["-"])):
        noise.seek(0)
        copy = io.TextIOWrapper(io.BytesIO(noise.read()), "utf-8", how)
        monkeypatch.setattr("sys.stdin", copy)
        with pytest.raises(InputError, match="standard input: is not UTF-8"):
            _texts(words)
    with pytest.raises(InputError, match="text 2: is not UTF-8"):
        _texts(["good", "b\udcffd"])
    with pytest.raises(InputError, match="leave out the others"):
        _texts(["-", "good"])
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n\n b\n"))
    assert _texts(["-"]) == ["a", " b"]


def test_a_line_ends_where_lines_end_and_nowhere_else(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\u2028b\x85c\nd\n"))
    assert _texts(["-"]) == ["a\u2028b\x85c", "d"]
