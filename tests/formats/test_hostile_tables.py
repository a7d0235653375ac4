"""Damaged and hostile tables: a sentence or a result in every task, never anything else."""

import random

import pytest
from tables import write_table

from edge_train.errors import EdgeTrainError
from edge_train.tasks.classify.texts import load_texts
from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.network.datasets import load
from edge_train.tasks.table_look import columns_of, first_rows

TEXTS = [{"text": f"{n}.5 \u00e4", "label": "ab"[n % 2], "x": n} for n in range(30)]
NUMBERS = [{"a": n, "b": f"{n}.5", "label": "ab"[n % 2]} for n in range(30)]
KINDS = (
    ("t.csv", {}),
    ("t.csv", {"coding": "utf-16"}),
    ("t.csv", {"delimiter": ";"}),
    ("t.csv.gz", {}),
    ("t.tsv", {}),
    ("t.jsonl", {}),
    ("t.json", {}),
)
PIECES = (
    *(b'"', b"\n", b"\r", b",", b";", b"\t", b"\0", b"\xff", b"\xfe\xff", b"NaN", b"1e999", b"-1"),
    *(b"[", b"{", b"}", b"]", b"null", b"9" * 5000, b'"text"', b"label", b"true", b"\xef\xbb\xbf"),
    *(b"sep=|\n", b'"' * 50, b"[" * 5000, b'{"a":' * 2000),
)


def of_language_model(path):
    texts = open_texts(path, None)
    texts.check()
    for _ in texts.documents(texts.train):
        pass


READERS = (
    lambda path: load_texts(path, ()),
    lambda path: load_texts(path, ("LABEL_0", "LABEL_1")),
    of_language_model,
    load,
    columns_of,
    first_rows,
)


def mutated(draw, content):
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(len(content) + 1), draw.randrange(5)
        if kind == 0:
            content[at:at] = draw.choice(PIECES)
        elif kind == 1:
            del content[at : at + draw.randint(1, 40)]
        elif kind == 2:
            content[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 3:
            content[at:at] = content[at : at + draw.randint(1, 60)]
        else:
            content = content[:at] or bytearray(b"x")
    return bytes(content)


def tried(folder, seed, count, kinds):
    draw = random.Random(seed)
    whole = [
        (name, write_table(folder / name, rows, **options).read_bytes())
        for name, options in kinds
        for rows in (TEXTS, NUMBERS)
    ]
    for _ in range(count):
        name, content = draw.choice(whole)
        path = folder / name
        path.write_bytes(mutated(draw, content))
        for read in READERS:
            try:
                read(path)
            except EdgeTrainError as error:
                assert "\n" not in str(error), path.read_bytes()


def test_every_damage_is_a_sentence_or_a_table(tmp_path):
    tried(tmp_path, 0, 150, KINDS)


@pytest.mark.slow
def test_ten_thousand_damages_are_sentences_or_tables(tmp_path):
    pytest.importorskip("pyarrow")
    tried(tmp_path, 1, 10_000, (*KINDS, ("t.parquet", {})))


@pytest.mark.process
def test_a_damaged_parquet_is_a_sentence_or_a_table(tmp_path):
    pytest.importorskip("pyarrow")
    tried(tmp_path, 2, 40, (("t.parquet", {}),))
