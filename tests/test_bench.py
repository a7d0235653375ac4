"""Benchmarks can be done in sittings, and judge every method at a rate of its own."""

import json
import sys

import pytest

from edge_train import bench
from edge_train.bench import tuning
from edge_train.errors import TrainingStopped
from edge_train.records.journal import encode

NOBODY = sys.executable + "-that-is-not-there"
STEP = {"kind": "step", "step": 0, "seconds": 2.0, "peak_bytes": 7, "resident_bytes": 7}
STEP |= {"forwards": 1, "backwards": 0}


def folder_with(tmp_path, status):
    records = ({"kind": "start", "seconds": 1.0}, STEP)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(encode(record) for record in records))
    if status:
        (tmp_path / "report.json").write_text(json.dumps({"status": status}))
    return tmp_path


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    report = bench.run(folder_with(tmp_path, "done"), "--seed", "1", python=NOBODY)
    assert (report["training_seconds"], report["training_peak_bytes"]) == (3.0, 7)


@pytest.mark.parametrize("status", ["interrupted", "stopped", None])
def test_a_run_that_was_stopped_goes_on(tmp_path, status):
    folder = folder_with(tmp_path, status)
    with pytest.raises(TrainingStopped, match=f"run --resume {folder}: "):
        bench.run(folder, "--seed", "1", python="false")


def test_a_run_that_is_not_there_is_begun(tmp_path):
    with pytest.raises(TrainingStopped, match=f"run --seed 1 --out {tmp_path / 'new'}: "):
        bench.run(tmp_path / "new", "--seed", "1", python="false")


@pytest.mark.parametrize("suits", [1e-4, 2e-3, 3e-2])
def test_rates_are_searched_beyond_an_end(suits):
    losses = tuning.losses_by_rate(lambda rate: max(rate / suits, suits / rate), 2e-3)
    nearest = max(tuning.best(losses) / suits, suits / tuning.best(losses))
    assert nearest <= 2.5 and len(losses) <= 6


def test_a_search_ends_where_both_neighbors_are_worse():
    assert len(tuning.losses_by_rate(lambda rate: abs(rate - 1), 1.0)) == 3
