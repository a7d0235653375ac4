"""Killed at random instants and resumed, a LoRA on torch ends with an undisturbed one's numbers."""

import random

import numpy as np
import pytest
from running import kill, run_to_the_end, steps_in
from safetensors.numpy import load_file

from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE
from edge_train.formats.embedded import EMBEDDED

pytest.importorskip("torch")
pytestmark = [pytest.mark.process, pytest.mark.slow]

STEPS = 20


def words(out):
    few = ("--steps", STEPS, "--samples", 1, "--no-previews", "--threads", 1, "--snr-gamma", 5)
    return ("run", "--model", EMBEDDED, "--out", out, "--trainable", "lora", *few)


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
    whole, out, draws = tmp_path / "whole", tmp_path / "run", random.Random(0)
    run_to_the_end(*words(whole), out=whole)
    for _ in range(2):
        before = steps_in(out)
        assert kill(words(out), out, draws.randrange(4, 7), draws.uniform(0.001, 0.03))
        assert before < steps_in(out) < STEPS
    run_to_the_end("run", "--resume", out, out=out)
    expected = load_file(whole / "lora" / DIFFUSERS_FILE)
    found = load_file(out / "lora" / DIFFUSERS_FILE)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
