"""Files for TensorBoard, read back as its readers do."""

import io
import json
import struct
import sys

import pytest
from PIL import Image
from running import Command, steps_in

from edge_train import cli
from edge_train.cli.options import Words
from edge_train.errors import InputError
from edge_train.protocols import StepRecord
from edge_train.run.board import Board
from edge_train.run.observer import Bar

TAGS = {"train/loss", "train/learning_rate", "train/gradient_norm", "memory/held_bytes"}


def events(folder):
    """Return the events of all files of a run, a file after the other."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_ino):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])  # then a checksum, the event, a checksum
            found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return sorted(found, key=lambda event: event.wall_time)


def points(folder):
    """Return the points that are shown, by series: those of steps that were redone are dropped."""
    shown = {}
    for event in events(folder):
        if event.HasField("session_log"):
            for series in shown.values():
                series[:] = [one for one in series if one[0] < event.step]
        for value in event.summary.value:
            series = shown.setdefault(value.tag, [])
            shows = value.image if value.HasField("image") else value.simple_value
            series.append((event.step, shows))
    return shown


def record(step, **more):
    return StepRecord(step, 0.5, (), 2, 0, 7, 6, 1.0, **more)


def picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path)


def test_scalars_and_pictures_are_read_back(tmp_path):
    pytest.importorskip("tensorboardX")
    said = io.StringIO()
    board = Board(Bar(said))
    board.placed(tmp_path, 0, lambda step: 0.1 * step)
    board.started(0, 2, None)
    board.stepped(record(0, gradient_norm=3.0), None)
    picture(tmp_path / "samples" / "step-1-02.png")
    board.stepped(record(1, eval=0.25), None)
    picture(tmp_path / "samples" / "after-01.png")
    (tmp_path / "samples" / "torn.png").write_bytes(b"x")
    board.ended("done")
    shown = points(tmp_path)
    assert shown["train/loss"] == [(1, 0.5), (2, 0.5)]
    assert shown["eval/loss"] == [(2, 0.25)]
    assert shown["train/gradient_norm"] == [(1, 3.0)]
    assert [step for step, _ in shown["train/learning_rate"]] == [1, 2]
    assert shown["memory/held_bytes"] == [(1, 6.0), (2, 6.0)]
    ((step, image),) = shown["samples/preview-02"]
    assert (step, image.width, image.height) == (1, 4, 3)
    assert image.encoded_image_string == (tmp_path / "samples" / "step-1-02.png").read_bytes()
    assert [step for step, _ in shown["samples/after-01"]] == [2]
    assert "samples/torn" not in shown
    assert "done after" in said.getvalue()


def test_steps_that_are_taken_again_are_shown_once(tmp_path):
    pytest.importorskip("tensorboardX")
    for first, last in ((0, 5), (3, 8)):  # a power cut took two steps of the journal
        board = Board(Bar(io.StringIO()))
        picture(tmp_path / "samples" / "photo-01.png") if not first else None
        board.placed(tmp_path, first, lambda step: None)
        board.started(first, 8, None)
        for step in range(first, last):
            board.stepped(record(step), None)
        board.ended("interrupted")
        for file in (tmp_path / "tensorboard").iterdir():  # the next process has another id
            file.rename(file.with_name(file.name + f".{first}"))
    assert [step for step, _ in points(tmp_path)["train/loss"]] == list(range(1, 9))
    assert len(points(tmp_path)["samples/photo-01"]) == 1


def test_files_that_cannot_be_written_do_not_stop_a_run(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("in the way")
    said = io.StringIO()
    board = Board(Bar(said))
    board.placed(tmp_path, 0, lambda step: None)
    board.started(0, 1, None)
    board.stepped(record(0), None)
    board.ended("done")
    assert said.getvalue().count("the run goes on without") == 1
    assert "done after" in said.getvalue()


def test_a_missing_package_is_one_sentence_before_step_0(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.delitem(sys.modules, "tensorboardX.proto", raising=False)
    monkeypatch.delitem(sys.modules, "tensorboardX.proto.event_pb2", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--report-to", "tensorboard"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'edge-train[tensorboard]'" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_only_tensorboard_is_reported_to():
    for words in (["--report-to", "TensorBoard"], ["--report_to=tensorboard"]):
        assert Words(words, resumable=True).report_to == "tensorboard"
    assert Words(["--report-to", "none"], resumable=True).report_to is None
    with pytest.raises(InputError, match="--report-to tensorboard writes files"):
        Words(["--report-to", "wandb"], resumable=True).refuse()
    with pytest.raises(InputError, match="--report-to cannot be honored"):
        Words(["--report-to"], resumable=True).refuse()


@pytest.mark.process
def test_a_run_that_was_killed_goes_on_without_doubled_points(tmp_path):
    pytest.importorskip("tensorboardX")
    table, out = tmp_path / "rows.csv", tmp_path / "run"
    table.write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 2}\n" for n in range(64)))
    words = ["run", table, "--network", "mlp 8", "--mem", "300MB", "--report-to", "tensorboard"]
    with Command(*words, "--steps", "5000", "--out", out, out=out) as command:
        command.wait_for_steps(5)
    taken = steps_in(out)
    with Command(
        *("run", "--resume", out, "--steps", str(taken + 3), "--report-to", "tensorboard"),
        out=out,
    ) as command:
        assert command.wait() == 0
    shown = points(out)
    assert shown.keys() >= TAGS
    steps = [step for step, _ in shown["train/loss"]]
    assert len(steps) == len(set(steps))
    assert set(range(1, taken + 4)) - set(steps) <= {taken}  # killed between journal and file
    rates = dict(shown["train/learning_rate"])
    facts = json.loads((out / "journal.jsonl").read_text().split("\n")[0])["recipe"]["values"]
    assert 0 < rates[1] <= facts.get("learning_rate", 1.0)
