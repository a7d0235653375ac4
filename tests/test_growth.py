"""Nine things are added by a package of somebody else; no file of ours is touched.

Each goes through plan, run, kill, resume and report by the real command, and ends with the bits
of an undisturbed run. `tests/support/toys` is the package.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT, SUPPORT
from running import kill, run_to_the_end, steps_in

pytestmark = pytest.mark.process

STEPS = 40
NETWORK = ("--network", "mlp 12 10", "--samples", "20", "--evaluate-every", "10")
KINDS = {
    "task": ("{numbers}",),
    "engine": ("{pictures}", *NETWORK, "--runtime", "slow-numpy"),
    "method with a key": ("{pictures}", *NETWORK, "--method", "signed", "--stride", "0.002"),
    "update rule": ("{pictures}", *NETWORK, "--method", "lion"),
    "quantisation": ("{pictures}", *NETWORK, "--quant", "roomy", "--method", "backprop"),
    "report section": ("{pictures}", *NETWORK, "--method", "tpsgd"),
    "command": ("{pictures}", *NETWORK, "--method", "local"),
    "batch selection": ("{pictures}", *NETWORK, "--batch-selection", "first", "--first-count", "5"),
    "block schedule": ("{pictures}", *NETWORK, "--method", "backprop", "--block-schedule", "turns"),
}
FACTS = {
    "task": {"task": "mean"},
    "engine": {"runtime": "slow-numpy"},
    "method with a key": {"method": "signed"},
    "update rule": {"method": "lion"},
    "quantisation": {"quant": "roomy"},
    "report section": {"method": "tpsgd"},
    "command": {"method": "local"},
    "batch selection": {},
    "block schedule": {},
}


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory):
    """Install the package where only these tests' commands find it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(SUPPORT / "toys", folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        found = [str(folder), str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
        patch.setenv("PYTHONPATH", os.pathsep.join(found))
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    parts = {"train": 120, "test": 40}
    arrays = {f"{p}_images": draw.integers(0, 255, (n, 6, 6), np.uint8) for p, n in parts.items()}
    arrays |= {f"{part}_labels": np.arange(count) % 4 for part, count in parts.items()}
    np.savez(folder / "pictures.npz", **arrays)
    (folder / "numbers.mean").write_text("3 4 5 4\n")
    return {"pictures": folder / "pictures.npz", "numbers": folder / "numbers.mean"}


def edge_train(*words):
    done = subprocess.run(
        [sys.executable, "-m", "edge_train", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def left(run):
    """Return what a run learned, as bytes."""
    report = json.loads((run / "report.json").read_text())
    return {name: (run / name).read_bytes() for name in report["outputs"].values()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_of_another_package_is_planned_run_killed_resumed_and_reported(
    kind, data, tmp_path
):
    words = [word.format(**data) for word in KINDS[kind]]
    words += ["--steps", str(STEPS)]
    plan = json.loads(edge_train("plan", *words, "--json"))
    assert plan["plan"]["phases"]

    whole, out = tmp_path / "whole", tmp_path / "run"
    run_to_the_end("run", *words, "--out", whole, out=whole)
    assert kill(("run", *words, "--out", out), out, 12, 0.0005)
    assert 0 < steps_in(out) < STEPS
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == STEPS
    assert left(out) == left(whole)

    page = edge_train("report", out).strip()
    report = json.loads((out / "report.json").read_text())
    assert {name: report[name] for name in FACTS[kind]} == FACTS[kind]
    if report["task"] == "network":
        assert "40 steps, as the toys count" in Path(page).read_text()
    assert edge_train("count", out) == f"counted {STEPS} steps\n"


def test_a_package_that_cannot_be_imported_is_named_and_the_rest_works(toys, data, tmp_path):
    broken = tmp_path / "broken"
    info = broken / "edge_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge_train.methods]\nlost = edge_broken:LOST\n")
    (broken / "edge_broken.py").write_text("raise RuntimeError('no such luck')\n")
    environment = {**os.environ, "PYTHONPATH": f"{broken}:{os.environ['PYTHONPATH']}"}
    words = ["run", str(data["pictures"]), *NETWORK, "--steps", "2"]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-m", "edge_train", *words, *more],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    asked = run("--method", "lost", "--out", str(tmp_path / "lost"))
    assert asked.returncode == 2
    assert "no such luck" in asked.stderr
    assert "edge_broken:LOST" in asked.stderr
    assert not (tmp_path / "lost").exists()
    fine = run("--out", str(tmp_path / "fine"))
    assert fine.returncode == 0, fine.stderr
