"""Killed at random instants and resumed, a run ends with the very token of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from edge_train import journal
from edge_train.models import EMBEDDED

pytest.importorskip("torch")

STEPS = 400
KILLS = 20


def command(out, *options):
    base = [sys.executable, "-m", "edge_train", "run"]
    if options == ("--resume",):
        return [*base, "--resume", str(out)]
    return [*base, "--model", EMBEDDED, "--out", str(out), *options]


def start(out, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(out, *options),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def token(out):
    (vectors,) = load_file(out / "my-item.safetensors").values()
    return vectors


def steps_done(out):
    if not (out / "journal.jsonl").exists():
        return 0
    records, _ = journal.read(out / "journal.jsonl")
    return sum(record["kind"] == "step" for record in records)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    options = ("--steps", str(STEPS), "--preview-steps", "1")
    assert start(out, *options).wait(timeout=240) == 0
    return token(out)


def test_killed_twenty_times_it_ends_with_the_same_bits(undisturbed, tmp_path):
    out, draws = tmp_path / "run", random.Random(0)
    options = ("--steps", str(STEPS), "--preview-steps", "1")
    process, kills, landed = start(out, *options), 0, set()
    for _ in range(KILLS):
        # some die while starting up, the others at a random step further on
        if draws.random() < 0.3:
            time.sleep(draws.uniform(0, 4))
        else:
            goal = steps_done(out) + draws.randrange(1, 2 * STEPS // KILLS)
            while steps_done(out) < goal and process.poll() is None:
                time.sleep(0.01)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        landed.add(steps_done(out))
        process = start(out, *(("--resume",) if (out / "recipe.toml").exists() else options))
    assert process.wait(timeout=240) == 0
    assert kills >= KILLS // 2 and len(landed) >= KILLS // 4
    np.testing.assert_array_equal(token(out), undisturbed)


def test_interrupted_once_it_saves_and_exits_130_then_resumes(undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start(out, "--steps", str(STEPS), "--preview-steps", "1")
    while steps_done(out) < 30:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert (out / "my-item.safetensors").exists()
    assert steps_done(out) < STEPS
    assert start(out, "--resume").wait(timeout=240) == 0
    np.testing.assert_array_equal(token(out), undisturbed)


def test_a_damaged_journal_and_checkpoint_are_got_over(undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start(out, "--steps", str(STEPS), "--preview-steps", "1")
    while steps_done(out) < 120:
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.wait()
    content = bytearray((out / "journal.jsonl").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (out / "journal.jsonl").write_bytes(content)
    for path in (out / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert start(out, "--resume").wait(timeout=240) == 0
    assert (out / "journal.damaged.jsonl").read_bytes() == content
    np.testing.assert_array_equal(token(out), undisturbed)
