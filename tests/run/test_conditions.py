"""A run trains when `--when` lets it, and one command begins it or goes on with it."""

import json

import numpy as np
import pytest

from edge_train import cli
from edge_train.memory.link import Link
from edge_train.power import energy, when
from edge_train.recipe import Recipe
from edge_train.records import journal
from edge_train.run import conditions
from edge_train.run.conditions import Conditions, wait_until_allowed


@pytest.fixture
def words(tmp_path):
    """Return the words of a run of a moment."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((80, 3))
    table = np.column_stack([rows, rows.sum(axis=1) > 0])
    path = tmp_path / "table.csv"
    np.savetxt(path, table, "%.6f,%.6f,%.6f,%d", header="a,b,c,label", comments="")
    network = ("--task", "network", "--network", "mlp 6", "--steps", "40")
    return [str(path), *network, "--out", str(tmp_path / "run")]


def battery(folder, status):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text("Battery\n")
    (folder / "status").write_text(f"{status}\n")


def test_a_run_stops_when_mains_goes_and_goes_on_when_it_is_back(
    words, tmp_path, monkeypatch, capsys
):
    supplies = tmp_path / "power"
    battery(supplies / "BAT0", "Charging")
    monkeypatch.setattr(when, "SUPPLIES", supplies)
    monkeypatch.setattr(conditions, "_LOOK_SECONDS", 0.0)
    looks = []

    def unplugged(self):
        looks.append(1)
        if len(looks) == 7:
            battery(supplies / "BAT0", "Discharging")
        return look(self)

    look = Conditions.objection
    monkeypatch.setattr(Conditions, "objection", unplugged)
    assert cli.main(["run", *words, "--when", "mains"]) == 3
    said = capsys.readouterr().err
    assert "the machine is on battery (BAT0 is discharging)" in said
    assert "--resume" in said
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["status"], report["steps"]) == ("stopped", 7)

    objection, waits = when.When.objection, iter([True, True])

    def soon_plugged_in(self):
        if next(waits, False):
            return objection(self)
        battery(supplies / "BAT0", "Full")
        return objection(self)

    monkeypatch.setattr(conditions, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(when.When, "objection", soon_plugged_in)
    assert cli.main(["run", *words, "--when", "mains", "--go-on"]) == 0
    said = capsys.readouterr().err
    assert said.index("waiting to train: the machine is on battery") < said.index("going on")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["status"], report["steps"], report["resumed"]) == ("done", 40, 1)


def test_waiting_is_no_part_of_the_time_of_a_run(monkeypatch):
    now, said, link = [50.0], [], Link(watch=None)
    link.began = 49.0
    monkeypatch.setattr(conditions.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(conditions.time, "sleep", lambda seconds: now.__setitem__(0, 3000.0))
    objections = iter(["it is noon", "it is noon", None])
    monkeypatch.setattr(when.When, "objection", lambda self: next(objections))
    wait_until_allowed(Recipe(when="night"), said.append, link)
    assert said == ["waiting to train: it is noon", "going on"]
    assert link.began == 2999.0


def test_one_command_begins_a_run_goes_on_with_it_and_is_done(words, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["run", *words, "--go-on"]) == 0
    book = run / "journal.jsonl"
    lines = book.read_bytes().splitlines(keepends=True)
    kept = next(n for n, line in enumerate(lines) if b'"step":20,' in line)
    learned = (run / "network.safetensors").read_bytes()
    book.write_bytes(b"".join(lines[:kept]))  # as a power cut leaves it
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert cli.main(["run", *words, "--go-on"]) == 0
    assert "resumed after step 19" in capsys.readouterr().err
    assert (run / "network.safetensors").read_bytes() == learned
    assert cli.main(["run", *words, "--go-on"]) == 0
    assert "this run is finished" in capsys.readouterr().err
    assert cli.main(["run", *words, "--go-on", "--seed", "3"]) == 2
    assert "began with seed = 42, not 3" in capsys.readouterr().err


def test_one_command_with_more_steps_takes_a_finished_run_to_them(words, tmp_path, capsys):
    assert cli.main(["run", *words, "--go-on"]) == 0
    more = ["50" if word == "40" else word for word in words]
    assert cli.main(["run", *more, "--go-on"]) == 0
    assert "going on to 50 in all" in capsys.readouterr().err
    assert cli.main(["run", *more, "--go-on"]) == 0  # as the service does after a power cut
    assert cli.main(["run", *words, "--go-on"]) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["steps"] == 50


def test_one_command_does_not_go_on_with_another_network(words, tmp_path, capsys):
    assert cli.main(["run", *words, "--go-on"]) == 0
    other = ["mlp 8" if word == "mlp 6" else word for word in words]
    assert cli.main(["run", *other, "--go-on"]) == 2
    assert "began with network = 'mlp 6', not 'mlp 8'" in capsys.readouterr().err


def test_to_go_on_a_folder_is_named(words, capsys):
    assert cli.main(["run", *words[:-2], "--go-on"]) == 2
    assert "--go-on needs --out" in capsys.readouterr().err


def test_joules_are_reported_where_a_counter_can_be_read(words, tmp_path, monkeypatch):
    class Counter:
        name = "RAPL (package-0)"

        def joules(self):
            return 2.5

    monkeypatch.setattr("edge_train.run.training.open_counter", lambda: (Counter(), ""))
    assert cli.main(["run", *words]) == 0
    run = tmp_path / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["joules"] >= 2.5
    assert report["joules_from"] == "RAPL (package-0)"
    assert "by RAPL (package-0), other programs included" in (run / "report.html").read_text()


def test_without_a_counter_there_are_none(words, tmp_path, monkeypatch):
    none = energy.open_counter(tmp_path / "no")
    monkeypatch.setattr("edge_train.run.training.open_counter", lambda: none)
    assert cli.main(["run", *words]) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["joules"] is None


def test_a_card_that_fills_stops_the_run_and_nothing_learned_is_lost(
    words, tmp_path, monkeypatch, capsys
):
    assert cli.main(["run", *words]) == 0
    learned = (tmp_path / "run" / "network.safetensors").read_bytes()
    again = [*words[:-1], str(tmp_path / "again")]
    append = journal.Journal.append
    left = [12]  # records that the card has room for

    def fills(self, record, durable=False):
        left[0] -= 1
        if left[0] < 0:
            raise_full(self)
        append(self, record, durable)

    def raise_full(self):
        from edge_train.errors import RunFolderError

        raise RunFolderError(f"{self._path}: cannot be written (No space left on device).")

    monkeypatch.setattr(journal.Journal, "append", fills)
    assert cli.main(["run", *again]) == 3
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "--resume" in said
    left[0] = 10**6
    assert cli.main(["run", "--resume", again[-1]]) == 0
    assert (tmp_path / "again" / "network.safetensors").read_bytes() == learned
