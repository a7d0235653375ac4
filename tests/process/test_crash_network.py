"""Killed at twenty random instants, a run ends with an undisturbed one's bits: journal and loop.

A network in NumPy starts in a third of a second, so this is where many kills are tried.
"""

import random

import numpy as np
import pytest
from running import kill, run_to_the_end, steps_in

pytestmark = pytest.mark.process

STEPS = 3000  # so many that it is not over on a fast processor, where more pass by an instant
KILLS = 20


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    draw = np.random.default_rng(0)
    parts = {"train": 200, "test": 40}
    arrays = {f"{p}_images": draw.integers(0, 255, (n, 8, 8), np.uint8) for p, n in parts.items()}
    arrays |= {f"{part}_labels": np.arange(count) % 4 for part, count in parts.items()}
    np.savez(folder / "pictures.npz", **arrays)
    keys = {"task": "network", "data": "pictures.npz", "network": "mlp 20 16", "quant": "int8"}
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    path = folder / "recipe.toml"
    path.write_text("\n".join([*lines, f"steps = {STEPS}", "samples = 20", "momentum = 0.5"]))
    return path


def test_killed_twenty_times_it_ends_with_the_same_bits(recipe, tmp_path):
    whole, out, draws = tmp_path / "whole", tmp_path / "run", random.Random(0)
    run_to_the_end("run", "--recipe", recipe, "--out", whole, out=whole)
    words, landed = ("run", "--recipe", recipe, "--out", out), []
    for _ in range(KILLS):
        # some die while starting up, the others at a random instant a few steps further on
        starting = draws.random() < 0.3
        records = 0 if starting else draws.randrange(1, 20)
        if not kill(words, out, records, draws.uniform(0.001, 0.15 if starting else 0.006)):
            break
        landed.append(steps_in(out))
    assert len(landed) >= KILLS // 2, "the run was over before it was killed often enough"
    assert landed == sorted(landed) and landed[-1] < STEPS  # a resumed run loses no step
    assert len(set(landed)) >= KILLS // 4
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == STEPS
    name = "network.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
