"""Killed and resumed, a run on an artifact ends with an undisturbed one's bits, without torch."""

import numpy as np
import pytest
from places import GOLDEN
from running import kill, run_to_the_end, steps_in
from safetensors.numpy import load_file

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.process

STEPS = 40


def token(out):
    return load_file(out / "my-dog.safetensors")["<my-dog>"]


def test_killed_on_its_way_it_ends_with_the_same_bits(photos, tmp_path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"

    def words(folder):
        few = ("--steps", STEPS, "--threads", 1, "--preview-steps", 1, "--prompt", "a {}")
        return ("run", photos, "--model", GOLDEN, "--out", folder, "--class", "dog", *few)

    run_to_the_end(*words(whole), out=whole)
    assert kill(words(out), out, 15, 0.01)
    assert 0 < steps_in(out) < STEPS, "it was not killed in the middle"
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == STEPS
    np.testing.assert_array_equal(token(out), token(whole))
