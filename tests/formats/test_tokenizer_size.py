"""What tokenizers hold is known from their tokens and merges, and opening one takes little more."""

import json
import subprocess
import sys
from itertools import product

import pytest
from tokenizers import Tokenizer

from edge_train.formats.tokenizer_files import open_tokenizer, open_with_size
from edge_train.formats.tokenizer_size import Source

_PROBE = """
import sys
from pathlib import Path
from edge_train.formats.tokenizer_files import open_with_size
from edge_train.memory.measure import give_back_memory, measure
before = measure().resident_bytes
_, size = open_with_size(Path(sys.argv[1]), 10**6)
peak = measure().peak_bytes - before
give_back_memory()
print(size.held_bytes, measure().resident_bytes - before, size.opening_bytes, peak)
"""


def folder_of(path, letters, length, *, words=False, pieces=()):
    """Write a folder whose tokens are all words of up to `length` letters, in all their parts."""
    tokens = ["".join(one) for n in range(1, length + 1) for one in product(letters, repeat=n)]
    merges = [[t[:at], t[at:]] for t in tokens for at in range(1, len(t))]
    merges += [list(pair) for pair in pieces]
    tokens += ["".join(pair) for pair in pieces] + [one for pair in pieces for one in pair]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    model = {"type": "BPE", "vocab": vocabulary}
    model["merges"] = [" ".join(pair) for pair in merges] if words else merges
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": model}))
    return path


@pytest.mark.parametrize("pieces", [(), [("a b", "c")], [("#version", "c")]])
def test_merges_in_lists_are_read_as_the_library_reads_them(tmp_path, pieces):
    folder = folder_of(tmp_path, "abcd", 3, pieces=pieces)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert open_tokenizer(folder, 1000).to_str() == plain.to_str()


@pytest.mark.parametrize(
    ("words", "pieces", "source"),
    [
        (True, (), Source.WORDS),
        (False, (), Source.JOINED),
        (False, [("a b", "c")], Source.PAIRS),
    ],
)
def test_tokens_and_merges_are_counted(tmp_path, words, pieces, source):
    _, size = open_with_size(folder_of(tmp_path, "abc", 3, words=words, pieces=pieces), 1000)
    more = len(pieces)
    assert (size.tokens, size.merges, size.source) == (39 + 2 * more, 63 + more, source)
    assert not size.in_tree


@pytest.mark.process
def test_the_bytes_of_a_large_tokenizer_are_those_that_it_takes(tmp_path):
    """Within 12 MB, the library's code and what the allocator leaves; 52,060 tokens."""
    folder = folder_of(tmp_path, "abcdefghijklmno", 4)
    command = [sys.executable, "-c", _PROBE, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    said, held, said_peak, peak = map(int, found)
    assert said - 3_000_000 < held < said + 12_000_000
    assert said_peak - 12_000_000 < peak < said_peak + 12_000_000
    assert peak < 3 * held
