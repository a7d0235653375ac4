"""The sensor demo: it learns a series, notices a drift, keeps old behaviour, and bears bad rows."""

import importlib.util
from pathlib import Path

import numpy as np
import places
import pytest

from edge_train.errors import InputError

SCRIPT = places.ROOT / "demos" / "raspberry_pi" / "sensor.py"
STATES = {"idle": (0.1, 0.0), "slow": (0.6, 0.25), "fast": (1.0, 0.9)}


@pytest.fixture(scope="module")
def sensor():
    spec = importlib.util.spec_from_file_location("sensor_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def series(total, drifted, seed=0):
    """Return rows of a machine in three states, mounted the other way from a row on."""
    draw, rows = np.random.default_rng(seed), []
    while len(rows) < total:
        name = list(STATES)[draw.integers(3)]
        size, speed = STATES[name]
        for t in range(draw.integers(90, 130)):
            x, y = size * np.array([np.sin(speed * t), np.cos(speed * t)])
            x, y = np.array([x, y]) + 0.1 * draw.standard_normal(2)
            if len(rows) >= drifted:
                x, y = 0.4 * x + 1.5, -0.4 * y - 1.5
            rows.append(f"{x:.4f},{y:.4f},{name}")
    return rows[:total]


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
    with pytest.raises(InputError, match=r"50 rows in a row are no numbers, the last in line 151"):
        found += sensor.rows_of(write(tmp_path / "text.csv", rows))


def test_a_row_that_lacks_a_column_or_has_no_number_is_left_out(sensor, tmp_path):
    path = write(tmp_path / "few.csv", ["1,2,idle", "1,idle", "nan,2,idle", "3,4,slow"])
    assert [row[1] for row in list(sensor.rows_of(path))[1:]] == ["idle", "slow"]
    assert Path(path).exists()
