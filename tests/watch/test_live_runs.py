"""What the page says of runs: as far as their journals go, and nothing that is not so."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from watched_page import END, Page, journal, make_run, step

from edge_train.records.lines import encode
from edge_train.records.lock import only_writer
from edge_train.watch import holder as holding
from edge_train.watch import live as reading
from edge_train.watch.curve import MOST_POINTS, Curve
from edge_train.watch.http import Refused
from edge_train.watch.live import Live
from edge_train.watch.runs import Runs

RESUME = {"kind": "resume", "step": 5, "seconds": 0.0, "cap_bytes": 9, "changes": {}}


@pytest.fixture
def looked(tmp_path):
    """Return a function that appends to a journal and looks at it again."""
    live = Live()

    def look(content=b""):
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write(content)
        live.look(str(tmp_path), "journal.jsonl")
        return live

    return look


def test_a_journal_is_read_on_from_where_the_last_look_ended(looked, monkeypatch):
    assert looked(journal(5)).steps == 5
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *at: read.append(pread(*at)) or read[-1])
    line = encode(step(5, eval=0.5))
    live = looked(line)
    assert (live.steps, live.eval, live.best) == (6, 0.5, [6, 0.5])
    assert b"".join(read) == line
    read.clear()
    assert looked().steps == 6
    assert read == []


def test_a_torn_line_is_waited_for_and_a_damaged_one_ends_what_is_shown(looked):
    line = encode(step(5))
    live = looked(journal(5) + line[:20])
    assert (live.steps, live.damaged) == (5, False)
    assert looked(line[20:]).steps == 6
    live = looked(b'{"kind":"step"}\n' + encode(step(6)))
    assert (live.steps, live.damaged) == (6, True)


@pytest.mark.parametrize("content", [b"\0" * 5000, b"\n", b"[]\n", journal(3)[200:], b"\xff\n" * 9])
def test_what_is_no_journal_is_an_empty_run(looked, content):
    live = looked(content)
    assert (live.steps, live.summary()["planned"]) == (0, None)


def test_a_journal_without_line_ends_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_LINE", 1 << 19)
    (tmp_path / "journal.jsonl").write_bytes(b"x" * (1 << 22))
    live = Live()
    live.look(str(tmp_path), "journal.jsonl")
    assert live.damaged and not live.behind


def test_a_journal_that_was_replaced_or_cut_is_read_anew(looked, tmp_path):
    looked(journal(5, END))
    os.truncate(tmp_path / "journal.jsonl", len(journal(3)))
    live = looked()
    assert (live.steps, live.status) == (3, "running")
    (tmp_path / "other").write_bytes(journal(4))
    (tmp_path / "other").replace(tmp_path / "journal.jsonl")
    assert looked().steps == 4


def test_a_long_journal_takes_several_looks(looked, monkeypatch):
    monkeypatch.setattr(reading, "_SLICE_BYTES", 1000)
    monkeypatch.setattr(reading, "_MOST_BYTES", 5000)
    live = looked(journal(200))
    assert live.behind and live.steps < 200
    looks = 1
    while live.behind:
        live, looks = looked(), looks + 1
    assert live.steps == 200 and looks > 5


@pytest.mark.parametrize("steps", range(26, 34))
def test_a_finished_journal_of_any_length_is_read_to_its_end(looked, monkeypatch, steps):
    monkeypatch.setattr(reading, "_SLICE_BYTES", 1000)
    monkeypatch.setattr(reading, "_MOST_BYTES", 5000)
    live = looked(journal(steps, END))
    while live.behind:
        live = looked()
    assert (live.steps, live.status) == (steps, "done")


def test_a_damaged_run_that_goes_on_is_shown_again(looked, tmp_path):
    live = looked(journal(5) + b"damaged\n" + journal(3))
    assert (live.steps, live.damaged) == (5, True)
    os.truncate(tmp_path / "journal.jsonl", len(journal(5)))
    live = looked(encode(RESUME) + encode(step(5)) + encode(END))
    assert (live.steps, live.damaged, live.status) == (6, False, "done")


def test_a_run_that_went_on_shows_its_new_cap_and_length(looked):
    more = [RESUME, {"kind": "extend", "step": 5, "steps": 9}, step(5), END]
    live = looked(journal(5, *more))
    shown = live.summary()
    assert (shown["cap"], shown["planned"], live.status) == (9, 9, "done")
    assert [text for _, text in live.curves()["events"]] == [
        "resumed",
        "made longer: 9 steps in all",
        "ended: done",
    ]


@pytest.mark.parametrize("steps", [1, MOST_POINTS, MOST_POINTS + 1, 10_007])
def test_a_curve_of_any_length_keeps_its_mean_and_its_peak(steps):
    mean, peak = Curve(), Curve(peak=True)
    for at in range(steps):
        mean.add(at, float(at))
        peak.add(at, 1.0 if at == steps // 2 else 0.0)
    points = mean.points()
    assert len(points) <= MOST_POINTS
    for middle, value in points[:-1]:  # the last stretch may not be full
        assert value == pytest.approx(middle, rel=1e-5)  # six digits are sent
    assert max(value for _, value in peak.points()) == 1.0


def row(root, name="dog"):
    return {run["name"]: run for run in Runs(str(root)).rows()}[name]


def test_a_run_whose_process_is_gone_is_broken_off_and_can_be_resumed(tmp_path):
    run = make_run(tmp_path / "dog")
    words = {"pid": 1, "host": os.uname().nodename, "boot": "another"}
    (run / "lock").write_text(json.dumps(words))
    shown = row(tmp_path)
    assert (shown["status"], shown["stops"], shown["resumes"]) == ("broken off", False, True)


def test_a_finished_run_is_neither_stopped_nor_resumed(tmp_path):
    make_run(tmp_path / "dog", 5, END)
    shown = row(tmp_path)
    assert (shown["status"], shown["stops"], shown["resumes"]) == ("done", False, False)


HOLD = """
import sys, signal
from pathlib import Path
from edge_train.records.lock import only_writer
def stopped(*_):
    print("told to stop", flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, stopped)
with only_writer(Path(sys.argv[1]), print):
    print("holds", flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def holds(tmp_path):
    """Return a function that starts a process which holds a run; it ends with the test."""
    started = []

    def start(folder, *words):
        command = [sys.executable, "-c", HOLD, str(folder), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.process
@pytest.mark.skipif(not holding.HAS_PROC, reason="needs /proc")
def test_stop_reaches_the_command_that_trains_once(tmp_path, holds):
    process = holds(make_run(tmp_path / "dog"), "run", "edge_train")
    runs = Runs(str(tmp_path))
    (shown,) = runs.rows()
    assert (shown["status"], shown["stops"], shown["resumes"]) == ("running", True, False)
    with pytest.raises(Refused, match="it is running"):
        runs.resume("dog")
    runs.stop("dog")
    assert process.stdout.readline() == "told to stop\n"
    assert process.wait() == 0
    with pytest.raises(Refused, match="no `edge-train run`"):
        runs.stop("dog")


@pytest.mark.process
@pytest.mark.skipif(not holding.HAS_PROC, reason="needs /proc")
def test_a_second_stop_does_not_end_a_run_that_is_saving(tmp_path, holds, monkeypatch):
    holds(make_run(tmp_path / "dog"), "run", "edge_train")
    sent = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda process, number: sent.append(number))
    runs = Runs(str(tmp_path))
    runs.stop("dog")
    runs.stop("dog")
    assert sent == [signal.SIGINT]
    assert runs.rows()[0]["status"] == "stopping"


@pytest.mark.process
@pytest.mark.skipif(not holding.HAS_PROC, reason="needs /proc")
def test_no_other_process_is_ever_sent_a_signal(tmp_path, holds, monkeypatch):
    """A lock that names somebody else, one that nobody holds, one of a notebook."""
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: pytest.fail("a signal was sent"))
    run = make_run(tmp_path / "dog")
    runs = Runs(str(tmp_path))
    holds(run)  # trains inside another program: no command of ours
    assert runs.rows()[0]["status"] == "running"
    assert not runs.rows()[0]["stops"]
    with pytest.raises(Refused, match="no `edge-train run`"):
        runs.stop("dog")
    words = json.loads((run / "lock").read_text())
    other = subprocess.Popen([sys.executable, "-c", "input()", "run", "edge_train"], stdin=-1)
    try:
        for pid in (other.pid, os.getpid(), 1, 0, -1, 2**40, True, "7", None):
            (run / "lock").write_text(json.dumps({**words, "pid": pid}))
            with pytest.raises(Refused, match="no `edge-train run`"):
                runs.stop("dog")
    finally:
        other.communicate(b"\n")


def test_who_has_the_file_open_without_its_lock_does_not_train(tmp_path):
    run = make_run(tmp_path / "dog")
    words = []
    with only_writer(run, words.append):
        content = (run / "lock").read_text()
        assert row(tmp_path)["status"] == "running"
    with (run / "lock").open() as file:
        assert json.loads(content)["pid"] == os.getpid()
        assert row(tmp_path)["status"] == "broken off"
        fcntl.flock(file, fcntl.LOCK_SH)
        assert row(tmp_path)["status"] == "running"


def test_a_folder_that_is_no_run_is_a_page_without_runs(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.png").write_bytes(b"x")
    (tmp_path / "journal.jsonl").mkdir()
    with Page(tmp_path) as page:
        assert page.data("/runs")["runs"] == []
        assert page.ask("/run/photos/data")[0] == 404


def test_a_run_that_vanishes_is_no_longer_listed(tmp_path):
    run = make_run(tmp_path / "dog")
    make_run(tmp_path / "cat")
    with Page(tmp_path) as page:
        assert len(page.data("/runs")["runs"]) == 2
        shutil.rmtree(run)
        assert [one["name"] for one in page.data("/runs")["runs"]] == ["cat"]
        assert page.ask("/run/dog/data")[0] == 404
        shutil.rmtree(tmp_path)
        assert page.data("/runs")["runs"] == []


def test_a_run_itself_can_be_watched_before_it_is_there(tmp_path):
    folder = tmp_path / "new"
    with Page(folder, one=True) as page:
        assert page.data("/run/new/data")["status"] == "not begun"
        make_run(folder)
        assert page.data("/runs")["runs"][0]["steps"] == 5
        assert page.ask("/run/new/report.html")[0] == 200
        assert page.ask("/run/tmp/report.html")[0] == 404


@pytest.mark.parametrize("name", ["my dog", "dög", "a%2fb", "#1?", "..dog", "<b>"])
def test_a_run_of_any_name_is_found(tmp_path, name):
    make_run(tmp_path / name)
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    with Page(tmp_path) as page:
        assert page.data(f"/run/{escaped}/data")["name"] == name


def test_beside_a_run_nothing_is_started(tmp_path):
    make_run(tmp_path / "dog")
    runs = Runs(str(tmp_path), beside=True)
    assert not runs.rows()[0]["resumes"]
    with pytest.raises(Refused, match="beside a run"):
        runs.resume("dog")


@pytest.mark.process
def test_a_run_that_cannot_go_on_says_why(tmp_path):
    run = make_run(tmp_path / "dog")
    (run / "recipe.toml").write_text("no toml at [all")
    (run / "journal.jsonl").write_bytes(journal(0)[:-20])
    with Page(tmp_path) as page:
        assert page.ask("/run/dog/resume", "POST")[0] == 200
        page.runs._started["dog"].wait()
        assert "edge-train: " in page.data("/run/dog/data")["said"]


def test_pictures_stand_in_the_order_of_the_run(tmp_path):
    run = make_run(tmp_path / "dog")
    for name in ("photo-01", "before-01", "step-20-01", "step-100-01"):
        (run / "samples" / f"{name}.png").write_bytes(b"x")
    shown = Runs(str(tmp_path)).one("dog")["pictures"]
    names = ["photo-01", "before-01", "step-20-01", "step-100-01", "after-01"]
    assert shown == [f"{name}.png" for name in names]
