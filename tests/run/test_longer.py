"""A run is given more steps than it began with: its past stays, its future is one and the same."""

import json
import shutil
import threading

import numpy as np
import pytest

from edge_train import cli
from edge_train.methods.exact import rate_of
from edge_train.recipe import Recipe
from edge_train.records import journal
from edge_train.records.longer import length_of
from edge_train.run import session
from edge_train.run.observer import Bar
from edge_train.tasks.network.recipe import NetworkRecipe


@pytest.fixture
def keys(tmp_path):
    """Return the keys of a run that takes a moment."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((80, 3))
    table = np.column_stack([rows, rows.sum(axis=1) > 0])
    path = tmp_path / "table.csv"
    np.savetxt(path, table, "%.6f,%.6f,%.6f,%d", header="a,b,c,label", comments="")
    return {
        "data": str(path),
        "network": "mlp 6",
        "samples": 8,
        "seed": 3,
        "method": "backprop",
        "schedule": "cosine",
        "evaluate_every": 10,
    }


def start(keys, out, **more):
    assert session.run(NetworkRecipe(**{**keys, **more, "out": str(out)}), Bar()) == 0
    return out


def go_on(out, *words):
    return cli.main(["run", "--resume", str(out), *words])


def records_of(out):
    return list(journal.read(out / "journal.jsonl")[0])


def steps_of(out):
    """Return what the steps computed: not how long they took."""
    clocks = ("seconds", "peak_bytes", "resident_bytes")
    steps = [dict(r) for r in records_of(out) if r["kind"] == "step"]
    return [{name: v for name, v in step.items() if name not in clocks} for step in steps]


def cut_after(out, steps):
    """Leave of a run what a kill after so many steps leaves."""
    book = out / "journal.jsonl"
    lines = book.read_bytes().splitlines(keepends=True)
    kept = next(n for n, line in enumerate(lines) if f'"step":{steps},'.encode() in line)
    book.write_bytes(b"".join(lines[:kept]))
    for path in (out / "checkpoints").glob("*.safetensors"):
        if int(path.stem.partition("-")[2]) > steps:
            path.unlink()


def test_a_finished_run_goes_on_and_a_kill_on_the_way_changes_no_bit(keys, tmp_path, capsys):
    run = start(keys, tmp_path / "run", steps=30)
    before = steps_of(run)
    assert go_on(run, "--steps", "50") == 0
    assert "30 steps are done, going on to 50 in all" in capsys.readouterr().err
    assert steps_of(run)[:30] == before
    assert len(steps_of(run)) == 50
    assert "steps = 50" in (run / "recipe.toml").read_text()
    assert json.loads((run / "report.json").read_text())["status"] == "done"
    killed = tmp_path / "killed"
    shutil.copytree(run, killed)
    cut_after(killed, 41)
    assert go_on(killed) == 0
    assert steps_of(killed) == steps_of(run)
    assert (killed / "network.safetensors").read_bytes() == (
        run / "network.safetensors"
    ).read_bytes()


def test_a_kill_between_journal_and_recipe_is_gone_on_with(keys, tmp_path):
    run = start(keys, tmp_path / "run", steps=20)
    assert go_on(run, "--steps", "30") == 0
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("steps = 30", "steps = 20"))
    cut_after(run, 24)
    assert go_on(run) == 0
    assert len(steps_of(run)) == 30
    assert "steps = 30" in recipe.read_text()
    recipe.write_text(recipe.read_text().replace("steps = 30", "steps = 29"))
    assert go_on(run) == 2


def test_no_more_steps_than_were_taken_are_refused_and_nothing_changes(keys, tmp_path, capsys):
    run = start(keys, tmp_path / "run", steps=20)
    before = (run / "journal.jsonl").read_bytes()
    assert go_on(run, "--steps", "20") == 2
    assert "20 steps are done, so --steps 20 adds none" in capsys.readouterr().err
    assert (run / "journal.jsonl").read_bytes() == before


def test_a_run_that_settled_is_not_settled_again_at_once(keys, tmp_path):
    run = start(keys, tmp_path / "run", steps=60, evaluate_every=1, patience=2, learning_rate=1e-6)
    settled = len(steps_of(run))
    assert settled < 60
    assert go_on(run, "--steps", "60") == 0
    assert len(steps_of(run)) > settled
    assert length_of(records_of(run)).evaluations == settled


def test_blocks_one_after_the_other_have_no_place_for_more_steps(keys, tmp_path, capsys):
    run = start(keys, tmp_path / "run", steps=20, method="tpsgd", mode="sequential")
    assert go_on(run, "--steps", "30") == 2
    assert "no block" in capsys.readouterr().err


def test_rates_before_the_extension_stay_and_those_after_it_are_of_the_whole_length():
    short = rate_of(Recipe(steps=10, schedule="cosine", warmup=2), 1.0, 0.1)
    whole = rate_of(Recipe(steps=20, schedule="cosine", warmup=2), 1.0, 0.1)
    spans = ((0, 10), (7, 20))
    longer = rate_of(Recipe(steps=20, schedule="cosine", warmup=2, spans=spans), 1.0, 0.1)
    shares = [longer.share(count) for count in range(20)]
    assert shares[:7] == [short.share(count) for count in range(7)]
    assert shares[7:] == [whole.share(count) for count in range(7, 20)]


def test_a_run_in_a_thread_leaves_signals_to_the_program(keys, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(start(keys, tmp_path / "run", steps=5)), daemon=True
    )
    thread.start()
    thread.join()
    assert found == [tmp_path / "run"]


def test_a_new_run_starts_from_what_another_one_learned(keys, tmp_path, capsys):
    run = start(keys, tmp_path / "run", steps=30)
    learned = [r["eval"] for r in records_of(run) if r.get("eval") is not None]
    new = tmp_path / "new"
    assert cli.main(["run", "--from", str(run), "--steps", "10", "--out", str(new)]) == 0
    first = records_of(new)[0]
    choice = f"that of the run {run}, which this one starts from"
    assert first["facts"]["choice"] == f"method {first['facts']['method']}: {choice}"
    assert first["eval"] == pytest.approx(min(learned), rel=1e-6)
    assert go_on(new, "--steps", "15") == 0
    other = ["--network", "mlp 7", "--out", str(tmp_path / "other")]
    capsys.readouterr()
    assert cli.main(["run", "--from", str(run), *other]) == 2
    assert "shape [7, 3], that one has one of shape [6, 3]" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert cli.main(["run", "--from", str(run), "--task", "classify"]) == 2
    assert "is of task 'network'" in capsys.readouterr().err


def test_a_start_that_changed_meanwhile_is_not_gone_on_with(keys, tmp_path):
    run = start(keys, tmp_path / "run", steps=10)
    file = tmp_path / "start.safetensors"
    shutil.copy(run / "network.safetensors", file)
    new = start(keys, tmp_path / "new", steps=10, start=str(file))
    cut_after(new, 5)
    shutil.copy(start(keys, tmp_path / "again", steps=20) / "network.safetensors", file)
    assert go_on(new) == 2


def test_what_is_trained_may_be_smoothed_weighted_and_clipped_and_still_resumes(keys, tmp_path):
    more = {"label_smoothing": 0.1, "class_weights": "balanced", "clip": 0.1, "warmup": 5}
    run = start(keys, tmp_path / "run", steps=20, **more)
    norms = [step["gradient_norm"] for step in steps_of(run)]
    assert min(norms) > 0
    report = json.loads((run / "report.json").read_text())
    assert {"macro_f1", "matthews"} <= report["metrics"].keys()
    before = steps_of(run)
    cut_after(run, 11)
    assert go_on(run) == 0
    assert steps_of(run) == before


def test_options_that_a_method_does_not_read_are_refused(keys, tmp_path, capsys):
    words = ["--task", "network", "--data", keys["data"], "--network", "mlp 6", "--steps", "9"]
    assert cli.main(["run", *words, "--method", "tpsgd", "--clip", "1"]) == 2
    assert "clip is not read by method 'tpsgd'" in capsys.readouterr().err
    assert cli.main(["run", *words, "--warmup", "9"]) == 2
    assert "warmup is 9, but the run has 9 steps" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zo", "backprop"])
def test_a_token_is_learned_further_to_the_same_bits(tmp_path, method):
    run, killed = tmp_path / "run", tmp_path / "killed"
    words = ["--token", "<x>", "--steps", "3", "--samples", "1", "--no-previews", "--out", str(run)]
    words += ["--evaluation-samples", "2", "--evaluate-every", "1", "--method", method]
    assert cli.main(["run", *words]) == 0
    before = steps_of(run)
    assert go_on(run, "--steps", "6") == 0
    assert steps_of(run)[:3] == before
    shutil.copytree(run, killed)
    cut_after(killed, 4)
    assert go_on(killed) == 0
    assert steps_of(killed) == steps_of(run)
    assert (killed / "x.safetensors").read_bytes() == (run / "x.safetensors").read_bytes()
