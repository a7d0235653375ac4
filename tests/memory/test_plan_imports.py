"""What a plan loads and holds where all engines are installed: none of them."""

import subprocess
import sys

import pytest

from edge_train.bench.plan import large_model

MEGABYTE = 10**6

_WHAT_A_PLAN_LOADS = """
import shutil
import sys
from pathlib import Path
from edge_train.cli import main
empty = shutil.disk_usage(".")._replace(free=10**12)  # this plan wants 31 GB of a disk
shutil.disk_usage = lambda place: empty
status = main(["plan", *sys.argv[1:]])
engines = {"torch", "transformers", "diffusers", "onnxruntime"} & set(sys.modules)
held = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(status, sorted(engines), held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are Linux's")
@pytest.mark.parametrize("words", [["--mem", "8GB"], None], ids=["demo", "language model"])
def test_a_plan_opens_no_engine_and_holds_at_most_150_megabytes(tmp_path, words):
    if words is None:
        folder, text = large_model(tmp_path)
        words = ["--task", "language-model", "--model", str(folder), "--data", str(text)]
    command = [sys.executable, "-c", _WHAT_A_PLAN_LOADS, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, engines, kilobytes = done.stdout.strip().split("\n")[-1].split(" ")
    assert (status, engines) == ("0", "[]")
    assert 1024 * int(kilobytes) <= 150 * MEGABYTE
