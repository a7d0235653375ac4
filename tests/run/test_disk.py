"""What a run folder needs is known before it is made, and a disk without that room is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from edge_train import cli
from edge_train.memory.footprint import PlanLine
from edge_train.memory.plan import Phase, Plan
from edge_train.run import session
from edge_train.run.disk import folder_needs, step_bytes
from edge_train.run.observer import Bar
from edge_train.tasks import open_job
from edge_train.tasks.network.recipe import NetworkRecipe


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe whose run takes a moment."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((80, 3))
    path = tmp_path / "table.csv"
    table = np.column_stack([rows, rows.sum(axis=1) > 0])
    np.savetxt(path, table, "%.6f,%.6f,%.6f,%d", header="a,b,c,label", comments="")
    keys = {"data": str(path), "network": "mlp 64 64", "samples": 8, "steps": 60}
    return NetworkRecipe(**keys, evaluate_every=1, out=str(tmp_path / "run"))


@pytest.mark.parametrize("method", ["backprop", "tpsgd"])
def test_a_run_writes_no_more_than_was_said_and_not_much_less(
    recipe, tmp_path, method, monkeypatch
):
    recipe = replace(recipe, method=method)
    most = {"checkpoints": 0}
    from edge_train.records import checkpoint

    real = checkpoint.save_tensors

    def watched(path, tensors, metadata):
        real(path, tensors, metadata)
        held = sum(file.stat().st_size for file in path.parent.iterdir())
        most["checkpoints"] = max(most["checkpoints"], held)

    monkeypatch.setattr(checkpoint, "save_tensors", watched)
    assert session.run(recipe, Bar()) == 0
    job = open_job(recipe)
    lines = {line.name: line.bytes for line in job.footprint().folder}
    assert lines["checkpoints"] / 6 < most["checkpoints"] <= lines["checkpoints"]
    network = (tmp_path / "run" / "network.safetensors").stat().st_size
    assert network <= lines["results"] + 2000  # of a header, which is in none of the lines
    text = (tmp_path / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    steps = [len(line) for line in text if line.startswith(b'{"kind":"step"')]
    said = step_bytes(job.recipe)
    assert said / 3 < max(steps) <= said


def test_a_disk_that_is_too_small_is_refused_with_both_numbers(
    recipe, tmp_path, monkeypatch, capsys
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=123_000))
    words = ["--task", "network", "--data", str(recipe.data), "--network", "mlp 8"]
    words += ["--steps", "5", "--samples", "8", "--out", str(tmp_path / "new" / "run")]
    assert cli.main(["run", *words]) == 2
    said = capsys.readouterr().err
    assert "checkpoints" in said
    assert "0.123 MB left" in said or "123 kB left" in said
    assert "--out" in said
    assert not (tmp_path / "new").exists()


def test_more_steps_need_a_longer_journal_and_a_plan_keeps_its_lines(recipe):
    phase = Phase("train", (PlanLine("weights", 1),))
    plan = Plan((phase,), "estimate", folder=(PlanLine("checkpoints", 9),))
    assert Plan.from_record(plan.record()).folder == plan.folder
    short, long = (folder_needs(replace(recipe, steps=n), plan) for n in (10, 1000))
    more = sum(line.bytes for line in long) - sum(line.bytes for line in short)
    assert more == 990 * step_bytes(recipe)
