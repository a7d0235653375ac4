"""Killed at random instants and resumed, a run on an artifact ends with an undisturbed one's bits.

No torch is needed, so this is also tested where there is none.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edge_train import journal

pytest.importorskip("onnxruntime")

GOLDEN = Path(__file__).parent / "golden" / "artifact-v1"
STEPS = 400
KILLS = 6


def start(photos, out):
    """Start the command: a run, or its resumption where there is something to resume."""
    words = ["run", str(photos), "--model", str(GOLDEN), "--out", str(out), "--class", "dog"]
    words += ["--steps", str(STEPS), "--threads", "1", "--preview-steps", "1", "--prompt", "a {}"]
    if (out / "recipe.toml").exists():
        words = ["run", "--resume", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "edge_train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def steps_done(out) -> int:
    if not (out / "journal.jsonl").exists():
        return 0
    records, _ = journal.read(out / "journal.jsonl")
    return sum(record["kind"] == "step" for record in records)


def token(out):
    return load_file(out / "my-dog.safetensors")["<my-dog>"]


def test_killed_again_and_again_it_ends_with_the_same_bits(photos, tmp_path) -> None:
    whole, out, draws = tmp_path / "whole", tmp_path / "run", random.Random(0)
    assert start(photos, whole).wait(timeout=240) == 0
    landed = set()
    for _ in range(KILLS):
        process = start(photos, out)
        goal = steps_done(out) + draws.randrange(1, STEPS // KILLS)
        while steps_done(out) < goal and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        landed.add(steps_done(out))
    assert len(landed) >= KILLS // 2, "it was not killed in the middle often enough"
    assert start(photos, out).wait(timeout=240) == 0
    assert steps_done(out) == steps_done(whole) == STEPS
    np.testing.assert_array_equal(token(out), token(whole))
