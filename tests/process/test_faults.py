"""A handful of the campaign of faults, and a recipe that was edited after its run began."""

import re
import subprocess
import sys

import numpy as np
import pytest
from places import TESTS

from edge_train import cli

pytestmark = pytest.mark.process

CAMPAIGN = TESTS / "faults" / "campaign.py"
KINDS = ("mutation", "kill", "full", "terminate", "clock")
EACH = 1


def test_a_handful_of_faults_ends_with_the_same_bits_or_one_sentence(tmp_path):
    command = [sys.executable, CAMPAIGN, "--tasks", "network", "--kinds", *KINDS]
    command += ["--count", str(EACH), "--seed", "12", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{EACH * len(KINDS)} cases, 0 failed" in done.stdout


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of a network that has one step to go."""
    root = tmp_path_factory.mktemp("recipe")
    draw = np.random.default_rng(0)
    arrays = {f"{p}_images": draw.integers(0, 255, (20, 4, 4), np.uint8) for p in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(20) % 2 for part in ("train", "test")}
    np.savez(root / "data.npz", **arrays)
    words = f"run --task network --data {root / 'data.npz'} --steps 3 --samples 5"
    words = [*words.split(), "--network", "mlp 6", "--out", str(root / "run")]
    assert cli.main(words) == 0
    lines = (root / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "run" / "journal.jsonl").write_bytes(b"".join(lines[:3]))
    return root / "run"


@pytest.mark.parametrize("key", ["learning_rate", "samples", "momentum", "schedule", "mode"])
def test_a_recipe_that_was_edited_is_refused_by_its_key(stopped, capsys, key):
    recipe = stopped / "recipe.toml"
    whole = recipe.read_text()
    other = {"schedule": '"constant"', "mode": '"sequential"', "samples": "4"}.get(key, "0.25")
    kept = [line for line in whole.splitlines() if not line.startswith(f"{key} =")]
    recipe.write_text("\n".join([*kept, f"{key} = {other}"]))
    try:
        assert cli.main(["run", "--resume", str(stopped)]) == 2
    finally:
        recipe.write_text(whole)
    said = capsys.readouterr().err
    assert re.search(rf"recipe.toml says {key} = \S+, this run began with", said), said


def test_what_computes_nothing_may_change_and_folders_are_made_again(stopped, capsys):
    for path in (stopped / "checkpoints").iterdir():
        path.unlink()
    (stopped / "checkpoints").rmdir()
    assert cli.main(["run", "--resume", str(stopped), "--mem", "2GB"]) == 0
