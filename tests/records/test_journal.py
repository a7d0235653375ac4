"""The journal opens wherever it was cut, notices every edit, and refuses what it cannot read."""

import json
import tracemalloc

import pytest
from places import TESTS

from edge_train.errors import RunFolderError
from edge_train.protocols import StepRecord
from edge_train.records import journal
from edge_train.records.history import summarize
from edge_train.records.journal import encode
from edge_train.run.ending import write_report

GOLDEN = TESTS / "golden" / "journal.jsonl"
STEP = StepRecord(0, 0.25, (1.5, -2e-07), 3, 0, 1000, 900, 0.01, eval=0.2)


def write(path, count=4):
    book = journal.Journal(path)
    book.append({"kind": "start", "version": 1, "eval": 0.5})
    for step in range(count):
        book.append({**journal.step_line(STEP), "step": step})
    book.close()


def test_every_line_is_json_and_reads_back(tmp_path):
    write(tmp_path / "j")
    for line in (tmp_path / "j").read_text().splitlines():
        assert "crc" in json.loads(line)
    records, intact = journal.read(tmp_path / "j")
    assert intact == (tmp_path / "j").stat().st_size
    assert journal.step_record(records[1]) == STEP


def test_cut_anywhere_it_opens_with_all_whole_lines(tmp_path):
    write(tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    for cut in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:cut])
        records, intact = journal.read(tmp_path / "cut")
        assert len(records) == content[:cut].count(b"\n")
        assert content[:intact].endswith(b"\n") or intact == 0


def test_every_flipped_bit_is_noticed(tmp_path):
    write(tmp_path / "j", count=1)
    content = (tmp_path / "j").read_bytes()
    whole, _ = journal.read(tmp_path / "j")
    for position in range(len(content) - 1):  # the last newline may become another space
        damaged = bytearray(content)
        damaged[position] ^= 0x04
        (tmp_path / "bad").write_bytes(damaged)
        records, _ = journal.read(tmp_path / "bad")
        assert len(records) < len(whole)


def test_opening_with_keep_cuts_the_torn_tail(tmp_path):
    write(tmp_path / "j", count=2)
    with open(tmp_path / "j", "ab") as file:
        file.write(b'{"kind":"step","st')
    _, intact = journal.read(tmp_path / "j")
    book = journal.Journal(tmp_path / "j", keep_bytes=intact)
    book.append({"kind": "event", "step": 2, "text": "x"})
    book.close()
    records, _ = journal.read(tmp_path / "j")
    assert [r["kind"] for r in records] == ["start", "step", "step", "event"]


def test_the_golden_journal_is_still_written_byte_for_byte(tmp_path):
    write(tmp_path / "j", count=2)
    assert (tmp_path / "j").read_bytes() == GOLDEN.read_bytes()


def test_a_later_version_is_refused(tmp_path):
    book = journal.Journal(tmp_path / "j")
    book.append({"kind": "start", "version": 99})
    book.close()
    with pytest.raises(RunFolderError, match="version 99"):
        journal.read(tmp_path / "j")


def test_a_missing_journal_is_one_sentence(tmp_path):
    with pytest.raises(RunFolderError, match="cannot be read"):
        journal.read(tmp_path / "none")


def test_values_that_are_not_finite_never_reach_the_file(tmp_path):
    book = journal.Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="JSON"):
        book.append({"kind": "event", "text": float("nan")})
    book.close()
    assert (tmp_path / "j").read_bytes() == b""


def long_journal(path, steps):
    """Write the journal of a finished run of so many steps, as a network's."""
    line = {"kind": "step", "loss": 0.5, "scalars": [], "forwards": 100, "backwards": 0}
    line |= {"peak_bytes": 90_000_000, "resident_bytes": 80_000_000, "seconds": 0.01}
    line |= {"skipped": None, "block_losses": [0.25, 0.5, 0.75]}
    facts = {"task": "network", "cap_bytes": 120_000_000}
    start = {"kind": "start", "version": 1, "facts": facts, "eval": 2.0, "seconds": 1.0}
    start["slope_check"] = None
    end = {"kind": "end", "status": "done", "seconds_total": 300.0, "metrics": {}}
    with path.open("wb") as file:
        file.write(encode(start))
        for step in range(steps):
            seen = 2 / (step + 2) if (step + 1) % 100 == 0 else None
            file.write(encode({**line, "step": step, "eval": seen}))
        file.write(encode(end))
    return path


def _peak_of_reading(path, read):
    tracemalloc.start()
    try:
        read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", ["journal", "summary", "steps", "report"])
def test_a_journal_of_20000_steps_costs_a_reader_little_memory(tmp_path, read):
    """A run under a cap ended without memory: its journal was read whole, 2 kB a step."""
    readers = {
        "journal": journal.read,
        "summary": lambda path: summarize(path.parent),
        "steps": lambda path: sum(1 for _ in journal.Steps(journal.read(path)[0])),
        "report": lambda path: write_report(path.parent),
    }
    path = tmp_path / "journal.jsonl"
    write_report(long_journal(path, 9).parent)  # imports
    few, many = (_peak_of_reading(long_journal(path, n), readers[read]) for n in (650, 1150))
    assert 20_000 * (many - few) / 500 < 5_000_000  # 40 MB in records


def test_records_are_a_sequence_like_any_other(tmp_path):
    whole = long_journal(tmp_path / "journal.jsonl", steps=9)
    records, intact = journal.read(whole)
    kept = list(records)
    assert (len(records), intact) == (11, whole.stat().st_size)
    assert records == kept and records[3:5] == kept[3:5] and records[-1] == kept[-1]
    assert list(reversed(records)) == kept[::-1]
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match="has changed"):
        list(records)
