"""A run among other files and processes: nothing of them is run, nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT
from running import Command, records_of, steps_in

pytestmark = pytest.mark.process

NETWORK = ("--task", "network", "--data", "table.csv", "--network", "mlp 4", "--samples", "10")
CAP = () if sys.platform != "linux" else ("--mem", "300MB")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of two classes in the current folder."""
    lines = [f"{n % 7},{-n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def edge_train(*words, **options):
    """Run the command to its end; return what it did."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options}
    return subprocess.run(
        [sys.executable, "-m", "edge_train", *map(str, words)], check=False, **options
    )


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("cap", [(), CAP, ("--mem", "100MB")], ids=["alone", "worker", "rehearsed"])
def test_a_file_of_the_current_folder_is_never_imported(table, cap):
    for name in ("numpy", "statistics", "ctypes", "resource", "tomllib"):
        Path(f"{name}.py").write_text("raise SystemExit('I was run')\n")
    done = edge_train("run", *NETWORK, *cap, "--steps", "2", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert "I was run" not in done.stderr
    assert json.loads(Path("r/report.json").read_text())["status"] == "done"


@pytest.mark.parametrize("cap", [(), CAP], ids=["alone", "worker"])
def test_a_run_folder_has_one_writer_and_a_killed_one_leaves_it_free(table, cap):
    folder = Path("r")
    words = ("run", *NETWORK, *cap, "--steps", "1000000", "--out", "r")
    with Command(*words, out=folder) as first:
        first.wait_for_steps(3)
        pid = json.loads((folder / "lock").read_text())["pid"]
        for second in (("--resume", "r"), ("--resume", "r", *CAP)):
            refused = edge_train("run", *second)
            assert refused.returncode == 2
            assert f"a process (pid {pid}) is training in r" in refused.stderr
        before = steps_in(folder)
        assert edge_train("report", "r").returncode == 0  # it only reads what the run writes
        first.wait_for_steps(before + 1)
        os.kill(pid, signal.SIGKILL)
        first.wait()
    with Command("run", "--resume", "r", out=folder) as again:
        again.wait_for_steps(steps_in(folder) + 1)
        again.send(signal.SIGINT)
        assert again.wait() == 130, again.err
    steps = [r["step"] for r in records_of(folder) if r["kind"] == "step"]
    assert steps == list(range(len(steps)))


@pytest.mark.skipif(sys.platform != "linux", reason="the wall is Linux's")
def test_nobody_comes_between_two_workers_of_a_run(table):
    script = (str(SUPPORT / "planted.py"), "stranger")
    words = ("run", *NETWORK, *CAP, "--steps", "12", "--out", "r")
    with Command(*words, out=Path("r"), script=script) as command:
        assert command.wait() == 3, command.err
    assert set(Path("knocked").read_text().split()) == {"held"}
    assert edge_train("run", "--resume", "r").returncode == 0


@pytest.mark.parametrize("cap", [(), CAP], ids=["alone", "worker"])
def test_nothing_is_left_where_nothing_was_started(table, cap):
    before = names()
    for out in ((), ("--out", "deep/er/r"), ("--out", "empty")):
        Path("empty").mkdir(exist_ok=True)
        done = edge_train("run", *NETWORK, *cap, "--steps", "2", *out, "--host-mem", "1GB")
        assert done.returncode == 2, done.stderr
        assert "--host-mem is for the host" in done.stderr
        assert not names("empty")
        Path("empty").rmdir()
        assert names() == before


def test_a_folder_of_other_files_is_refused_by_name(table):
    Path("mine").mkdir()
    for name in "edcba":
        Path("mine", name).touch()
    done = edge_train("run", *NETWORK, "--out", "mine")
    assert done.returncode == 2
    assert "mine holds no run but other files (a, b, c and 2 more)" in done.stderr
    assert names("mine") == list("abcde")


def test_what_is_gone_of_a_finished_run_is_made_again_bit_for_bit(table):
    assert edge_train("run", *NETWORK, "--steps", "5", "--out", "r").returncode == 0
    network = Path("r/network.safetensors")
    before = network.read_bytes()
    network.unlink()
    again = edge_train("run", "--resume", "r")
    assert again.returncode == 0, again.stderr
    assert "this run is finished, but network.safetensors is gone; made again" in again.stderr
    assert network.read_bytes() == before
