"""The progress line and the JSON events."""

import fcntl
import io
import json
import os
import struct
import termios
from dataclasses import replace
from typing import TextIO

import pytest

from edge_train.protocols import StepRecord
from edge_train.run import observer as progress
from edge_train.run.observer import Bar, JsonEvents

STEP = StepRecord(
    step=447,
    loss=0.2531,
    scalars=(0.5,),
    forwards=32,
    backwards=0,
    peak_bytes=1_500_000_000,
    resident_bytes=1_420_000_000,
    seconds=2.23,
    eval=0.1243,
)
CAP = 4_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What time it is for the line, which only a test moves on."""
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class GonePipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return True


def run(clock: Clock, stream: TextIO, steps: int, seconds: float) -> None:
    """Take steps that last `seconds` each."""
    line = Bar(stream)
    line.started(0, steps, CAP)
    for step in range(steps):
        clock.now += seconds
        line.stepped(replace(STEP, step=step, seconds=seconds), None)
    line.ended("done")


def test_line_shows_pace_memory_and_best(clock: Clock) -> None:
    stream = io.StringIO()
    line = Bar(stream)
    line.started(446, 864, CAP)
    clock.now += 2.0
    line.stepped(STEP, (300, 0.1201))
    assert stream.getvalue() == (
        "going on at step 446 of 864\n"
        "Steps:  52%| 448/864 [00:02<06:56,  1.00it/s, loss=0.253] mem 1.42/4.00 GB"
        "  eval 0.1243 (best 0.1201 @ 300)\n"
    )
    line.ended("done")


def test_file_gets_a_line_every_ten_seconds_and_the_last(clock: Clock) -> None:
    stream = io.StringIO()
    run(clock, stream, steps=25, seconds=1.0)
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["1/25", "10/25", "20/25", "25/25"]
    assert lines[-1] == "done after 25s"
    assert "\r" not in stream.getvalue()


def test_last_line_is_not_written_twice(clock: Clock) -> None:
    stream = io.StringIO()
    run(clock, stream, steps=10, seconds=1.0)
    assert stream.getvalue().count("10/10") == 1


def test_terminal_is_rewritten_at_most_five_times_a_second(clock: Clock) -> None:
    stream = Terminal()
    run(clock, stream, steps=100, seconds=0.01)
    assert 3 <= stream.getvalue().count("\rSteps") <= 7


def test_line_is_clipped_to_the_terminal(clock: Clock) -> None:
    near, far = os.openpty()
    size = struct.pack("HHHH", 24, 30, 0, 0)  # rows, columns
    fcntl.ioctl(far, termios.TIOCSWINSZ, size)
    with os.fdopen(far, "w") as stream:
        run(clock, stream, steps=3, seconds=1.0)
        text = ""
        while "done after" not in text:
            text += os.read(near, 65_536).decode()
    os.close(near)
    drawn = [part for part in text.split("\n")[0].split("\r") if part.strip()]
    assert len(drawn) >= 3
    assert max(map(len, drawn)) <= 30


def test_message_gets_a_line_of_its_own() -> None:
    stream = Terminal()
    line = Bar(stream)
    line.said("first")
    line.started(0, 5, None)
    line.said("second")
    line.stepped(replace(STEP, step=0), None)
    line.said("slope check passed")
    line.ended("done")
    screen = [text.rpartition("\r")[2] for text in stream.getvalue().split("\n")]
    assert screen[:3] == ["first", "second", "slope check passed"]
    assert screen[3].startswith("Steps:  20%|")
    assert screen[4:] == ["done after 0s", ""]


def test_a_run_that_takes_no_step_draws_no_line() -> None:
    for stream in (io.StringIO(), Terminal()):
        line = Bar(stream)
        line.started(3, 5, None)
        line.ended("interrupted")
        assert "Steps" not in stream.getvalue()
        assert stream.getvalue().endswith("interrupted after 0s\n")


def test_step_without_loss_keeps_the_last_one() -> None:
    stream = io.StringIO()
    line = Bar(stream)
    line.started(0, 2, CAP)
    line.stepped(replace(STEP, step=0), None)
    line.stepped(replace(STEP, step=1, loss=None, eval=None, skipped="not finite"), None)
    line.ended("done")
    assert "loss=0.253" in stream.getvalue().splitlines()[1]


def test_reader_that_went_away_does_not_stop_the_run(clock: Clock) -> None:
    run(clock, GonePipe(), steps=3, seconds=1.0)
    JsonEvents(GonePipe()).said("nobody reads this")


def test_events_are_one_json_object_a_line() -> None:
    stream = io.StringIO()
    events = JsonEvents(stream)
    events.started(3, 10, None)
    events.stepped(STEP, (400, 0.12))
    events.said("a\nb")
    events.ended("done")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["started", "step", "message", "ended"]
    assert lines[1]["best"] == {"step": 400, "eval": 0.12}
    assert lines[1]["loss"] == STEP.loss
    assert "scalars" not in lines[1]
    assert lines[2]["text"] == "a\nb"
