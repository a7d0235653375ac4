"""The sensor demo: it learns a series, notices a drift, keeps old behaviour, and bears bad rows."""

import errno
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import places
import pytest

from edge_train.errors import InputError, TrainingStopped

FOLDER = places.ROOT / "demos" / "raspberry_pi"


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_demo", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


series = script("readings").series


@pytest.fixture(scope="module")
def sensor():
    return script("sensor")


def write(path, rows):
    path.write_text("x,y,state\n" + "\n".join(rows) + "\n")
    return str(path)


@pytest.mark.process
@pytest.mark.slow
def test_a_drift_is_noticed_and_what_was_learned_is_kept(sensor, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sensor, "FIRST", 1200)
    monkeypatch.setattr(sensor, "AGAIN", 600)
    rows = series(3200, drifted=1900)
    rows[700] = "bad,cable,slow"
    source = write(tmp_path / "readings.csv", rows)
    sensor.main(source, tmp_path / "out", steps=300)
    said = capsys.readouterr().out
    assert "line 702 is left out: 'bad,cable,slow' is no row of numbers" in said
    assert said.count("drift: ") == 1
    kept = said.partition("still answered: ")[2].partition(" %")[0]
    assert int(kept) >= 80
    sensor.main(write(tmp_path / "more.csv", rows[2600:]), tmp_path / "out")  # it goes on
    assert "learned" not in capsys.readouterr().out.splitlines()[0]


def test_errors_that_do_not_grow_are_no_drift_and_those_that_do_are(sensor):
    """Twenty streams of one error in ten for 500 answers, then one in two."""
    for seed in range(20):
        drift, draw = sensor.Drift(), np.random.default_rng(seed)
        assert not any(drift.wrong(draw.random() < 0.1) for _ in range(500))
        assert any(drift.wrong(draw.random() < 0.5) for _ in range(60))


def test_a_column_that_turns_to_text_is_one_sentence(sensor, tmp_path):
    rows = [*series(100, drifted=100), *(["1.0,E7,slow"] * 60)]
    found = []
    with pytest.raises(
        TrainingStopped, match=r"50 rows in a row are no numbers, the last in line 151"
    ):
        found += sensor.rows_of(write(tmp_path / "text.csv", rows))


def test_a_row_that_lacks_a_column_or_has_no_number_is_left_out(sensor, tmp_path):
    path = write(tmp_path / "few.csv", ["1,2,idle", "1,idle", "nan,2,idle", "3,4,slow"])
    assert [row[1] for row in list(sensor.rows_of(path))[1:]] == ["idle", "slow"]
    assert Path(path).exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "its first line names no columns"),
        ("x\n1\n", "its first line names no columns of numbers and, last, one of states: 'x'"),
        ("0.1,0.2,idle\n", "its first line names no columns"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_table_is_status_2_and_leaves_nothing(sensor, tmp_path, capsys, text, sentence):
    path = tmp_path / "readings.csv"
    if text is not None:
        path.write_text(text)
    assert sensor.script([str(path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert sensor.script([]) == 2


def test_a_torn_quote_and_bytes_of_noise_cost_one_row(sensor, tmp_path, capsys):
    path = tmp_path / "noise.csv"
    path.write_bytes(b'"x","y","state"\n1,2,idle\n3,"4\n\xff\xfe\x00\n\n"5", 6, "slow"\n')
    assert list(sensor.rows_of(str(path))) == [
        ["x", "y", "state"],
        ([1, 2], "idle"),
        ([5, 6], "slow"),
    ]
    assert "line 3 is left out" in capsys.readouterr().out


class Port:
    """A serial port that was joined in the middle of a row, and is unplugged in the end."""

    def __init__(self, name, baud):
        assert (name, baud) == ("/dev/ttyUSB0", 115200)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def __iter__(self):
        yield from (b"34,slow\r\n", b"1,2,idle\r\n", b"3,4,slow\r\n")
        raise OSError("device disconnected")  # a SerialException is one


def test_a_port_is_joined_in_the_middle_and_may_go_away(sensor, monkeypatch):
    module = ModuleType("serial")
    module.Serial = Port
    monkeypatch.setitem(sys.modules, "serial", module)
    rows = sensor.rows_of("/dev/ttyUSB0")
    assert next(rows) == ["column 1", "column 2", "state"]
    assert next(rows) == ([3, 4], "slow")
    with pytest.raises(
        TrainingStopped, match=r"ttyUSB0 went away \(device disconnected\); plug it"
    ):
        next(rows)
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(InputError, match="pip install pyserial"):
        next(sensor.rows_of("/dev/ttyUSB0"))


def test_a_card_that_is_full_is_one_sentence(sensor, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "open", lambda *words, **more: (_ for _ in ()).throw(full))
    with pytest.raises(TrainingStopped, match=r"cannot be written \(No space left on device\)"):
        sensor.keep(tmp_path / "part-0.csv", ["x", "state"], [([1.0], "idle")])


def test_names_that_were_not_learned_are_left_out_once_the_first_rows_are(
    sensor, tmp_path, monkeypatch, capsys
):
    first = tmp_path / "network.safetensors"
    monkeypatch.setattr(
        sensor.network_file, "load", lambda path: SimpleNamespace(class_names=("idle", "slow"))
    )
    found = [([0], "fall"), ([1], "idle"), ([2], "fall"), ([3], "fall"), ([4], "slow")]
    rows = sensor.of_known(iter(found), first)
    assert next(rows) == ([0], "fall")
    first.touch()
    assert [label for _, label in rows] == ["idle", "slow"]
    assert capsys.readouterr().out.count("'fall' was not among the first rows") == 1


def test_a_run_that_a_power_cut_ended_is_finished_or_begun_anew(sensor, tmp_path, monkeypatch):
    """With its journal it is resumed and asks for no rows; without it nothing was taken."""
    said = []
    done = SimpleNamespace(wait=lambda: "done")
    monkeypatch.setattr(sensor.et, "resume", lambda run: said.append(("resume", run)) or done)
    monkeypatch.setattr(sensor.et, "run", lambda recipe, mem: said.append(("run", recipe)) or done)
    run = tmp_path / "run-0"
    run.mkdir()
    (run / "recipe.toml").touch()
    sensor.learn(tmp_path, 0, "state", 10)
    assert said[0][0] == "run"
    assert not run.exists()
    run.mkdir()
    (run / "journal.jsonl").touch()
    sensor.learn(tmp_path, 0, "state", 10)
    assert said[1] == ("resume", run)
