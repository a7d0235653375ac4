"""The progress line and the JSON events."""

import io
import json
from dataclasses import replace

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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class GonePipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, steps: int, seconds: float) -> None:
    """Take steps that last `seconds` each."""
    clock = Clock()
    line = Bar(stream, clock)
    line.started(0, steps, CAP)
    for step in range(steps):
        clock.now += seconds
        line.stepped(replace(STEP, step=step, seconds=seconds), None)
    line.ended("done")


def test_line_shows_pace_memory_and_best() -> None:
    stream, clock = io.StringIO(), Clock()
    line = Bar(stream, clock)
    line.started(0, 864, CAP)
    clock.now += 597
    line.stepped(STEP, (300, 0.1201))
    assert stream.getvalue() == (
        "Steps:  51%| 448/864 [09:57<15:28, 2.23s/it, loss=0.253] mem 1.42/4.00 GB "
        " eval 0.1243 (best 0.1201 @ 300)\n"
    )


def test_file_gets_a_line_every_ten_seconds_and_the_last() -> None:
    stream = io.StringIO()
    run(stream, steps=25, seconds=1.0)
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["1/25", "11/25", "21/25", "25/25"]
    assert lines[-1] == "done after 25s"
    assert "\r" not in stream.getvalue()


def test_last_line_is_not_written_twice() -> None:
    stream = io.StringIO()
    run(stream, steps=11, seconds=1.0)
    assert stream.getvalue().count("11/11") == 1


def test_terminal_is_rewritten_at_most_five_times_a_second() -> None:
    stream = Terminal()
    run(stream, steps=100, seconds=0.01)
    assert stream.getvalue().count("\rSteps") <= 7


def test_line_is_clipped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "columns", lambda stream: 30)
    stream = Terminal()
    run(stream, steps=3, seconds=1.0)
    drawn = [part for part in stream.getvalue().split("\n")[0].split("\r") if part]
    assert drawn
    assert max(map(len, drawn)) == 29


def test_message_gets_a_line_of_its_own() -> None:
    stream = Terminal()
    line = Bar(stream, Clock())
    line.started(0, 5, None)
    line.stepped(replace(STEP, step=0), None)
    line.said("slope check passed")
    line.ended("done")
    screen = [text.split("\r")[-1] for text in stream.getvalue().split("\n")]
    assert screen[0] == "slope check passed"
    assert screen[1].startswith("Steps:  20%| 1/5")


def test_step_without_loss_keeps_the_last_one() -> None:
    stream, clock = io.StringIO(), Clock()
    line = Bar(stream, clock)
    line.started(0, 2, CAP)
    line.stepped(replace(STEP, step=0), None)
    line.stepped(replace(STEP, step=1, loss=None, eval=None, skipped="not finite"), None)
    line.ended("done")
    assert "loss=0.253" in stream.getvalue().splitlines()[1]


def test_reader_that_went_away_does_not_stop_the_run() -> None:
    run(GonePipe(), steps=3, seconds=1.0)
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
