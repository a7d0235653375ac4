"""One reader of tables: every coding, dialect, header and format gives the same rows."""

import csv
import gzip
import json
import math
import os
import tracemalloc

import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.formats.tables import delimited, parquet, records
from edge_train.formats.tables.coding import coding_of
from edge_train.formats.tables.header import header_of
from edge_train.formats.tables.names import KNOWN
from edge_train.formats.tables.numbers import number
from edge_train.formats.tables.splits import beside, splits_of
from edge_train.formats.tables.table import KINDS, open_table

ROWS = [
    {"text": "a café, really", "label": "1"},
    {"text": 'a "quoted" word; and | more', "label": "0"},
    {"text": "two\nlines", "label": "1"},
    {"text": "plain", "label": "0"},
]
PLAIN = [
    {"text": "a café by the sea", "label": "1"},
    {"text": "no film at all", "label": "0"},
    {"text": "Zoë said it", "label": "1"},
]


def cells(rows):
    return [tuple(row.values()) for row in rows]


def read(path, known=KNOWN):
    return [tuple(row) for _, row in open_table(path, known).rows()]


@pytest.mark.parametrize(
    "name",
    [
        *("t.csv", "t.tsv", "t.txt", "t.jsonl", "t.json", "t.ndjson.gz", "T.CSV", "t.Tsv.GZ"),
        pytest.param("t.parquet", marks=pytest.mark.process),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if name == "t.ndjson.gz":
        lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        (tmp_path / name).write_bytes(gzip.compress(lines))
    else:
        write_table(tmp_path / name, ROWS)
    table = open_table(tmp_path / name, KNOWN)
    assert (table.columns, table.named) == (("text", "label"), True)
    assert [tuple(row) for _, row in table.rows()] == cells(ROWS)
    assert table.wrong.sentence() == ""


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_every_coding_gives_the_same_rows(tmp_path, coding, name):
    assert read(write_table(tmp_path / name, PLAIN, coding=coding)) == cells(PLAIN)


@pytest.mark.parametrize("coding", ["cp1252", "latin-1"])
def test_western_text_of_old_programs_is_read_and_said_to_be_a_guess(tmp_path, coding):
    path = write_table(tmp_path / "t.csv", PLAIN, coding=coding)
    assert read(path) == cells(PLAIN)
    (said,) = open_table(path, KNOWN).said
    assert "t.csv is not UTF-8: it is read as Windows-1252 (line 2)" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,label\nжизнь и мир,1\n".encode("cp1251"), "does not look like Windows-1252"),
        ("text,label\n映画はよかった,1\n".encode("shift-jis"), "does not look like Windows-1252"),
        (
            "text,label\nà é ö,1\n".encode() + b"bad \xff,0\n",
            "line 3 is not UTF-8, though the rest",
        ),
        (b"text,label\na\0b,1\n", "zero bytes"),
        ("text,label\npodatek nałożony źle,1\n".encode("iso8859_2"), "iconv -f CODING -t UTF-8"),
        (b"\xff\xfet\x00,\x00\x00\xd8", "does not go on so"),
    ],
)
def test_letters_that_would_come_out_wrong_are_refused(tmp_path, content, sentence):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        open_table(tmp_path / "t.csv", KNOWN)


def test_a_coding_is_judged_by_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_train.formats.tables.coding._PIECE_BYTES", 7)
    (tmp_path / "t.txt").write_text("ä plain line\n" * 20, "utf-8")
    assert coding_of(tmp_path / "t.txt").name == "utf-8-sig"
    (tmp_path / "t.txt").write_bytes(b"a plain line\n" * 20 + b"caf\xe9\n")
    assert coding_of(tmp_path / "t.txt").name == "cp1252"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("head", [True, False])
def test_every_dialect_gives_the_same_rows(tmp_path, delimiter, name, quoting, head):
    path = write_table(tmp_path / name, ROWS, delimiter=delimiter, quoting=quoting, head=head)
    table = open_table(path, KNOWN)
    assert table.named is head
    assert [tuple(row) for _, row in table.rows()] == cells(ROWS)


def test_quotes_in_texts_with_tabs_are_letters(tmp_path):
    lines = ['"It is good , " he said .\t1', 'no "quotes\t0', '"\t1', 'an end "\t0']
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    assert read(tmp_path / "t.tsv") == [tuple(line.split("\t")) for line in lines]


def test_line_ends_of_other_systems_and_excels_first_line_are_no_rows(tmp_path):
    for ends in ("\n", "\r\n", "\r"):
        (tmp_path / "t.csv").write_bytes(f"sep=;{ends}text;label{ends}a, b;1{ends}{ends}".encode())
        assert read(tmp_path / "t.csv") == [("a, b", "1")]


def test_lines_that_end_with_the_delimiter_have_no_further_column(tmp_path):
    (tmp_path / "t.csv").write_text("text,label,\na,1,\nb,0,\n")
    table = open_table(tmp_path / "t.csv", KNOWN)
    assert table.columns == ("text", "label")
    assert read(tmp_path / "t.csv") == [("a", "1"), ("b", "0")]


@pytest.mark.parametrize(
    ("lines", "named", "said"),
    [
        (["Text,LABEL", "a b,1"], True, False),
        (["\ufefflabel,a", "1,2"], True, False),
        (["Utter,Kind", "a b,ham", "b c,spam", "c d,ham", "d e,spam"], True, True),
        (["id,words", "1,a b", "2,c d"], True, False),  # numbers below a word
        (["0,1,2", "4.5,3,1", "2,1,0"], True, False),  # as pandas counts columns
        (["4,5,2", "4.5,3,1", "2,1,0"], False, False),
        (["good film,pos", "bad film,neg", "so so,pos", "dull,neg"], False, False),
        (["good film,1", "bad film,0"], False, False),
        (["v1,v2,,,", *["ham,a b c,,,", "spam,b c d,,x,"] * 2], True, True),  # spam.csv
        (["text,spam", "a b,text", "c d,spam"], True, False),
        (["label,x", "label,y", "c,label"], False, False),  # a word that stands below, too
    ],
)
def test_a_first_line_that_is_like_no_other_names_the_columns(tmp_path, lines, named, said):
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", "utf-8")
    table = open_table(tmp_path / "t.csv", KNOWN)
    assert table.named is named
    assert len(read(tmp_path / "t.csv")) == len(lines) - named
    assert any("taken for names of columns" in line for line in table.said) is said


def test_columns_are_found_by_name_spelling_or_number(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffMy Text , Kind,kind\na,1,2\n", "utf-8")
    table = open_table(tmp_path / "t.csv", (), ("my text",))
    assert [table.place(name, "--x") for name in ("my text", "Kind", "kind", "3")] == [0, 1, 2, 2]
    for wrong in ("text", "4", "0", "KIND"):
        with pytest.raises(InputError, match=r"no column .*\(--x\); it has 'My Text', 'Kind'"):
            table.place(wrong, "--x")


def test_wrong_rows_are_counted_and_the_first_three_told_by_line(tmp_path):
    rows = ["text,label", *["a,1", "b,0"] * 10, "c", "", "d,1,2", '"e\ne",1,2', "f", "g,1"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    table = open_table(tmp_path / "t.csv", KNOWN)
    assert len(list(table.rows())) == 21
    assert table.wrong.sentence() == (
        "4 of 25 rows of t.csv are left out: line 22 has 1 columns, expected 2; line 24 has 3 "
        "columns, expected 2; line 25 has 3 columns, expected 2; and 1 more"
    )
    table.wrong.check()
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n[1]\n{"text": \n{"text": "b"}\n')
    table = open_table(tmp_path / "t.jsonl", KNOWN)
    assert [row for _, row in table.rows()] == [["a"], ["b"]]
    with pytest.raises(InputError, match=r"line 2 is a list, expected a JSON object \(2 of 4 rows"):
        table.wrong.check()


def test_a_book_in_a_cell_is_read_and_pythons_limit_stays(tmp_path):
    before = csv.field_size_limit()
    write_table(tmp_path / "t.csv", [{"text": "word " * 60_000, "label": "1"}] * 3)
    assert [len(row[0]) for row in read(tmp_path / "t.csv")] == [300_000] * 3
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_line_that_no_memory_holds_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(delimited, "MOST_CHARACTERS", 1000)
    write_table(tmp_path / name, [{"text": "a", "label": "1"}, {"text": "b" * 1200, "label": "0"}])
    with pytest.raises(InputError, match="has more than 1,000 characters"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_is_read_a_row_at_a_time(tmp_path, name):
    write_table(
        tmp_path / name, [{"text": "word " * 400, "label": str(n % 2)} for n in range(6000)]
    )
    size = (tmp_path / name).stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_table(tmp_path / name, KNOWN).rows()) == 6000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the sample has 2 MB of characters, and the coding is judged by pieces of one
    assert size > 12_000_000 > 1.5 * peak


def test_a_quote_that_never_ends_is_named_by_its_line(tmp_path):
    (tmp_path / "t.csv").write_text('text,label\na,1\n"b,0\nc,1\nd,0\n')
    with pytest.raises(InputError, match="line 3 opens a quote that never ends"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "value",
    [
        [{"text": "a", "label": 1}, {"text": "b", "label": None}],
        {"text": ["a", "b"], "label": [1, None]},
        {"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": None}},
        {"version": "1", "data": [{"text": "a", "label": 1}, {"text": "b", "label": None}]},
    ],
)
def test_a_json_of_records_or_of_columns_is_a_table(tmp_path, value):
    (tmp_path / "t.json").write_text(json.dumps(value, indent=1))
    assert read(tmp_path / "t.json") == [("a", 1), ("b", None)]


@pytest.mark.parametrize("content", ["[", '"text"', "{}", "[" * 100_000, '{"a": 1}'])
def test_a_json_that_is_no_table_is_one_sentence(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=r"JSON|expected a list of records|no examples"):
        open_table(tmp_path / "t.json", KNOWN)


def test_one_chat_in_a_json_is_one_record(tmp_path):
    """Its turns were read as documents, a text each."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 3
    said = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    for chat in (
        {"messages": turns},
        {"id": "x", "messages": turns, "tools": [{"type": "function"}]},
        {"conversations": said},
        {"prompt": turns[:1], "completion": turns[1:2]},
    ):
        (tmp_path / "t.json").write_text(json.dumps(chat, indent=1))
        table = open_table(tmp_path / "t.json", KNOWN)
        assert (table.columns, read(tmp_path / "t.json")) == (tuple(chat), cells([chat]))


def test_a_list_of_records_that_is_called_messages_stays_one(tmp_path):
    letters = [{"id": 1, "from": "a@b.c", "text": "hi"}, {"id": 2, "from": "d@e.f", "text": "ho"}]
    (tmp_path / "t.json").write_text(json.dumps({"name": "an export", "messages": letters}))
    assert read(tmp_path / "t.json") == cells(letters)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.jsonl.gz"])
def test_a_column_that_comes_late_is_read(tmp_path, name):
    """Columns were those of the first 1,000 rows; others were dropped without a word."""
    rows = [{"text": "a"}] * 1500 + [{"text": "b", "system": "c"}] * 2 + [{"text": "d", "x": 1}]
    lines = ",\n".join(map(json.dumps, rows))
    text = f"[{lines}]" if name == "t.json" else lines.replace(",\n", "\n")
    packed = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    (tmp_path / name).write_bytes(packed)
    table = open_table(tmp_path / name, KNOWN)
    assert table.columns == ("text", "system", "x")
    found = [row for _, row in table.rows()]
    assert found[1499:] == [["a", None, None], *[["b", "c", None]] * 2, ["d", None, 1]]


def test_columns_are_looked_for_once_for_as_long_as_a_file_stays_the_same(tmp_path, monkeypatch):
    passes = []
    lines_of = records.lines_of
    monkeypatch.setattr(records, "lines_of", lambda *where: passes.append(1) or lines_of(*where))
    path = write_table(tmp_path / "t.jsonl", PLAIN)
    tables = [open_table(path, KNOWN) for _ in range(3)]
    assert len(passes) == 1 + len(tables)  # each table reads its first rows
    write_table(path, [{**PLAIN[0], "more": 1}])
    assert open_table(path, KNOWN).columns == ("text", "label", "more")


def test_records_of_which_each_has_its_own_names_are_one_sentence(tmp_path):
    lines = (json.dumps({f"id {n}": n}) for n in range(10_003))
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"more than 10,000 names that others lack.*under one name"
    ):
        open_table(tmp_path / "t.jsonl", KNOWN)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": ', "is not JSON (Expecting value at character 10)"),
        ('{"text": %s}' % ("9" * 10_000), "cannot be read (a number of thousands of digits)"),
        ('{"text": %s}' % ("[" * 100_000), "cannot be read (nested too deeply)"),
        ('{"text": 1, "text": 2}', "has two values for 'text', expected one value a name"),
        ("null", "is null, expected a JSON object"),
        ('"text"', "is a text, expected a JSON object"),
        ("3", "is a number, expected a JSON object"),
        ("[1, 2]", "is a list, expected a JSON object"),
        (
            '[{"text": "b"}]',
            "is a list of JSON objects, expected one object; let its name end in .json",
        ),
    ],
)
def test_a_line_that_is_left_out_has_its_true_reason(tmp_path, line, why):
    """Each was said to be no JSON object with one value a name."""
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' * 3 + line)
    table = open_table(tmp_path / "t.jsonl", KNOWN)
    assert [row for _, row in table.rows()] == [["a"]] * 3
    assert table.wrong.sentence() == f"1 of 4 rows of t.jsonl is left out: line 4 {why}"


def test_a_json_with_a_number_of_thousands_of_digits_is_said_to_have_one(tmp_path):
    (tmp_path / "t.json").write_text('[{"text": "a", "x": %s}]' % ("9" * 10_000))
    with pytest.raises(
        InputError, match=r"cannot be read as JSON \(a number of thousands of digits"
    ):
        open_table(tmp_path / "t.json", KNOWN)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_half_of_a_letter_becomes_a_replacement_character_and_is_said_once(tmp_path, name):
    """Scraped texts have emojis that were cut in two; their rows were left out."""
    texts = ["hi \ud83d", "\ude00 there \ud83d\ude00", "plain \u00e4"]
    lines = [json.dumps({"text": text, "more": [{text: text}]}) for text in texts]
    (tmp_path / name).write_text("\n".join(lines) if name == "t.jsonl" else f"[{','.join(lines)}]")
    table = open_table(tmp_path / name, KNOWN)
    whole = ["hi \ufffd", "\ufffd there \U0001f600", "plain \u00e4"]
    assert [row for _, row in table.rows()] == [[text, [{text: text}]] for text in whole]
    (said,) = table.said
    assert said.startswith(f"{name} has halves of letters")
    assert said.endswith("in 2 rows: each is read as U+FFFD")
    assert not table.wrong.sentence()


def test_records_may_lack_columns(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert read(tmp_path / "t.jsonl") == [(1, None), (None, 2)]


def test_a_damaged_packing_is_one_sentence(tmp_path):
    whole = gzip.compress(b"text,label\n" + b"a,1\n" * 1000)
    for content in (whole[:-20], b"text,label\na,1\n", whole[:30] + b"x" * 9 + whole[39:]):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(InputError, match="gzip"):
            read(tmp_path / "t.csv.gz")


def test_what_is_no_file_and_what_is_no_name_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    (tmp_path / "dev.csv").mkdir()
    with pytest.raises(InputError, match="is a pipe, not a file"):
        open_table(tmp_path / "train.csv", KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        open_table(tmp_path / "dev.csv", KNOWN)
    with pytest.raises(InputError, match="no train"):
        splits_of(tmp_path, (".csv",))
    with pytest.raises(InputError, match="not text that can be kept"):
        open_table(tmp_path / os.fsdecode(b"lat\xe9.csv"), KNOWN)


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"edge-train\[parquet\]"):
        parquet.columns_of(tmp_path / "t.parquet")


@pytest.mark.process
def test_a_damaged_parquet_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    write_table(tmp_path / "t.parquet", ROWS)
    content = (tmp_path / "t.parquet").read_bytes()
    for damaged in (b"PAR1", content[:-9], content[:40] + b"x" * 30 + content[70:]):
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged, or not a parquet file"):
            read(tmp_path / "t.parquet")


def test_a_file_of_no_known_kind_names_those_that_are(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError) as caught:
        open_table(tmp_path / "t.xlsx", KNOWN)
    assert all(kind in str(caught.value) for kind in KINDS)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *(("1.5", 1.5), ("1,5", 1.5), (" -2e3 ", -2000.0), (7, 7.0), (True, 1.0), (None, math.nan)),
        *(("", math.nan), ("1_000", None), ("a", None), ("1,2,3", None), ([1], None)),
    ],
)
def test_numbers_are_read_with_a_point_or_a_comma(cell, value):
    found = number(cell)
    assert found == value or (value is not None and math.isnan(value) and math.isnan(found))


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text\na\n")
    return folder


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train.csv", "dev.csv", "test.csv"), ("train.csv", "dev.csv", "test.csv")),
        (("Train.TSV", "VAL.tsv"), ("Train.TSV", "VAL.tsv", None)),
        (("train.jsonl", "validation.jsonl.gz"), ("train.jsonl", "validation.jsonl.gz", None)),
        (("train.csv", "valid.csv", "notes.csv"), ("train.csv", "valid.csv", None)),
        (
            ("data/train-00000-of-00001.csv", "data/test-00000-of-00001.csv"),
            ("train-00000-of-00001.csv", None, "test-00000-of-00001.csv"),
        ),
        (("only.csv", "readme.md"), ("only.csv", None, None)),
    ],
)
def test_parts_have_their_usual_names(tmp_path, names, parts):
    found = splits_of(touched(tmp_path, *names), (".csv", ".tsv", ".jsonl")).files
    own = tuple(found[part][0].name if part in found else None for part in ("train", "dev", "test"))
    assert own == parts


def test_pieces_of_a_part_are_read_in_their_order_and_other_files_are_said(tmp_path):
    pieces = [f"train-0000{n}-of-00002.csv" for n in range(2)]
    touched(tmp_path, *reversed(pieces), "val.csv", "dev.csv", "dev.tsv", "dev_mismatched.csv")
    found = splits_of(tmp_path, (".csv", ".tsv"))
    assert [path.name for path in found.files["train"]] == pieces
    assert [path.name for path in found.files["dev"]] == ["dev.csv"]
    assert found.said == ("dev_mismatched.csv, dev.tsv, val.csv are not used: dev.csv is",)


def test_every_other_file_of_a_folder_is_named_with_its_reason(tmp_path):
    """A test part that was a link to elsewhere was left out without a word."""
    (tmp_path / "elsewhere.csv").write_text("secret")
    folder = tmp_path / "data"
    folder.mkdir()
    touched(folder, "train.csv", "notes.csv", "readme.pdf", ".hidden.csv")
    (folder / "test.csv").symlink_to(tmp_path / "elsewhere.csv")
    (folder / "dev.csv").symlink_to("gone.csv")
    found = splits_of(folder, (".csv",))
    assert [*found.files] == ["train"]
    assert sorted(found.said) == [
        "left aside: .hidden.csv (hidden file)",
        "left aside: dev.csv (a broken link)",
        "left aside: notes.csv (its name is no train, dev or test)",
        "left aside: readme.pdf (no table or text that is read)",
        "left aside: test.csv (a link that leads out of the folder; copy the file itself with "
        "cp -L)",
    ]
    (folder / "train.csv").unlink()
    (folder / "notes.csv").unlink()
    with pytest.raises(InputError, match=r"no train\.tsv.*test\.csv \(a link that leads out"):
        splits_of(folder, (".csv",))


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_record_in_which_a_name_has_two_values_is_left_out_and_said(tmp_path, name):
    """The last one was taken without a word."""
    records = [f'{{"text": "a {n}", "label": {n % 2}}}' for n in range(5)]
    records.insert(1, '{"text": "b", "label": 0, "label": 1}')
    records.insert(3, '{"text": "c", "label": 0, "label": 0, "other": NaN}')
    text = "\n".join(records) if name == "t.jsonl" else f"[{', '.join(records)}]"
    (tmp_path / name).write_text(text)
    table = open_table(tmp_path / name, KNOWN)
    assert [row[0] for _, row in table.rows()] == ["a 0", "a 1", "c", "a 2", "a 3", "a 4"]
    assert "1 of 7 rows" in table.wrong.sentence() and "one value a name" in table.wrong.sentence()


def test_a_folder_without_a_training_part_names_what_it_has(tmp_path):
    touched(tmp_path, "one.csv", "two.csv")
    with pytest.raises(InputError, match=r"no train\.tsv.*it has one\.csv, two\.csv"):
        splits_of(tmp_path, (".csv",))


def test_dev_and_test_files_beside_a_training_file_are_found(tmp_path):
    touched(tmp_path, "train.csv", "val.csv", "other.csv")
    assert [path.name for path in beside(tmp_path / "train.csv", (".csv",))] == ["val.csv"]
    assert beside(tmp_path / "other.csv", (".csv",)) == ()


def test_a_header_is_told_whatever_the_length_of_the_rows_below():
    for body in ([["a", "b", "c"]], [["a"], ["a", "b", "c"]], [[]], []):
        assert header_of(["text", "label"], body, KNOWN) == (True, "")


def test_a_message_about_a_huge_name_is_short(tmp_path):
    (tmp_path / "t.csv").write_text(f"text,{'9' * 5000}x\na,1\n")
    with pytest.raises(InputError) as caught:
        open_table(tmp_path / "t.csv", KNOWN).place("y" * 5000, "--x")
    assert len(str(caught.value)) < 400
