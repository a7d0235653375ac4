"""A journal is read as far as each record may follow the one before it, and no further."""

import pytest

from edge_train.protocols import StepRecord
from edge_train.records import journal

STEP = StepRecord(0, 0.25, (1.5, -2e-07), 3, 0, 1000, 900, 0.01, eval=0.2)
START = {"kind": "start", "version": 1, "facts": {}, "eval": 0.5}
END = {"kind": "end", "status": "done", "seconds_total": 1.0}
MEMORY = {
    "kind": "memory",
    "step": 0,
    "seconds": [0, 1],
    "held_bytes": [1, 2],
    "anon_bytes": [1, 2],
}


def step(number, **changes):
    return {**journal.step_line(STEP), "step": number, **changes}


def read(path, *records):
    path.write_bytes(b"".join(map(journal.encode, records)))
    found, intact = journal.read(path)
    assert intact == sum(len(journal.encode(record)) for record in records[: len(found)])
    return len(found)


def test_a_whole_journal_is_read(tmp_path):
    end = {"kind": "end", "status": "interrupted", "seconds_total": 1.0}
    more = {"kind": "resume", "step": 1, "cap_bytes": None, "changes": {}}
    later = {"kind": "something of a later version"}
    assert read(tmp_path / "j", START, step(0), MEMORY, end, more, later, step(1)) == 7


@pytest.mark.parametrize(
    "broken",
    [
        (START, step(0), step(0), step(1)),  # doubled
        (START, step(0), step(2), step(3)),  # missing
        (START, step(0), START, step(1)),
        (START, step(0), {"step": 1}, step(1)),
        (START, step(0), step(1, scalars="x"), step(2)),
        (START, step(0), step(1, loss=[]), step(2)),
        (START, step(0), step(True), step(2)),
        (START, step(0), {"kind": "resume", "step": 7, "cap_bytes": None}, step(1)),
        (START, step(0), {"kind": "end", "status": 3, "seconds_total": 1.0}, step(1)),
        (START, step(0), {**END, "step": 2}, step(1)),  # its last step is missing
        (START, step(0), {**MEMORY, "step": 2}, step(1)),
        (START, step(0), {"kind": "event", "step": 2, "text": "x"}, step(1)),
        (START, step(0), {**END, "sha256": {"../x": "00"}}, step(1)),
        (START, step(0), {**END, "weights_passes": "x"}, step(1)),
        (START, step(0), step(1, loss=10**400), step(2)),  # no float is as large
        (START, step(0), step(1, gpu_bytes="x"), step(2)),
        (START, step(0), {**MEMORY, "held_bytes": 10**30}, step(1)),
        (START, step(0), {**MEMORY, "held_bytes": [1]}, step(1)),
        (START, step(0), {"kind": "event", "text": "x", "seconds": "x"}, step(1)),
        (START, step(0), {"kind": "event", "text": "x", "predicted_seconds": "x"}, step(1)),
    ],
)
def test_what_cannot_follow_ends_what_is_read(tmp_path, broken):
    assert read(tmp_path / "j", *broken) == 2


@pytest.mark.parametrize(
    "first",
    [
        step(0),
        {"version": 1},
        {**START, "eval": "x"},
        {**START, "facts": {"plan_peak_bytes": "x"}},
        {**START, "facts": {"threads": "x"}},
        {**START, "threads": [1]},
        {**START, "recipe": {"sha256": "", "values": {}, "others": 3}},
    ],
)
def test_without_a_start_nothing_is_read(tmp_path, first):
    assert read(tmp_path / "j", first, step(0), step(1)) == 0


def test_a_record_that_is_nested_too_deep_is_damaged(tmp_path):
    deep = b'{"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    (tmp_path / "j").write_bytes(journal.encode(START) + deep + journal.encode(step(0)))
    records, _ = journal.read(tmp_path / "j")
    assert len(records) == 1


def test_the_position_is_right_after_a_torn_end_was_cut_off(tmp_path):
    (tmp_path / "j").write_bytes(journal.encode(START) + b"torn" * 100)
    book = journal.Journal(tmp_path / "j", keep_bytes=len(journal.encode(START)))
    assert book._file.tell() == len(journal.encode(START))
    book.close()
