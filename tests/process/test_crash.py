"""Killed at random instants and resumed, a run on torch ends with an undisturbed one's token.

What is about the journal and not about torch is tried with many more kills in `test_crash_network`.
"""

import random
import shutil

import numpy as np
import pytest
from places import SUPPORT
from running import Command, kill, run_to_the_end, steps_in
from safetensors.numpy import load_file

from edge_train.formats.diffusion_folder import EMBEDDED

pytest.importorskip("torch")
pytestmark = pytest.mark.process

STEPS = 40
KILLS = 3


def words(out):
    few = ("--method", "zo", "--steps", STEPS, "--preview-steps", 1, "--threads", 1)
    return ("run", "--model", EMBEDDED, "--out", out, *few)


def token(out):
    (vectors,) = load_file(out / "my-item.safetensors").values()
    return vectors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run_to_the_end(*words(out), out=out)
    return out


def test_killed_again_and_again_it_ends_with_the_same_bits(undisturbed, tmp_path):
    out, draws = tmp_path / "run", random.Random(0)
    for _ in range(KILLS):
        before = steps_in(out)
        assert kill(words(out), out, draws.randrange(5, 9), draws.uniform(0.001, 0.03))
        assert before < steps_in(out) < STEPS
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == STEPS
    np.testing.assert_array_equal(token(out), token(undisturbed))


def test_interrupted_once_it_saves_and_exits_130_then_resumes(undisturbed, tmp_path):
    out = tmp_path / "run"
    script = (str(SUPPORT / "dying.py"), "10", "interrupt")
    with Command(*words(out), out=out, script=script, OMP_NUM_THREADS="1") as command:
        assert command.wait() == 130, command.err
    assert (out / "my-item.safetensors").exists()
    assert steps_in(out) < STEPS
    run_to_the_end("run", "--resume", out, out=out)
    np.testing.assert_array_equal(token(out), token(undisturbed))


def test_a_damaged_journal_and_checkpoint_are_got_over(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "run")
    (out / "my-item.safetensors").unlink()
    content = bytearray((out / "journal.jsonl").read_bytes())
    content = content[: content.rindex(b'{"kind":"step"')]  # as of a run that was killed
    content[len(content) // 2] ^= 0xFF
    (out / "journal.jsonl").write_bytes(content)
    for path in (out / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    run_to_the_end("run", "--resume", out, out=out)
    assert (out / "journal.damaged.jsonl").read_bytes() == content
    np.testing.assert_array_equal(token(out), token(undisturbed))
