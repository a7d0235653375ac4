"""A run among other files and other processes: what lies beside it is never run, nothing is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("cap", [(), CAP, ("--mem", "100MB")], ids=["alone", "worker", "rehearsed"])
def test_a_file_of_the_current_folder_is_never_imported(table, cap):
    for name in ("numpy", "statistics", "ctypes", "resource", "tomllib"):
        Path(f"{name}.py").write_text("raise SystemExit('I was run')\n")
    done = edge_train("run", *NETWORK, *cap, "--steps", "2", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert "I was run" not in done.stderr
    assert json.loads(Path("r/report.json").read_text())["status"] == "done"
