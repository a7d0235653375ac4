"""Killed at random instants under a cap, a search ends with the bits of an undisturbed one."""

import json
import random

import pytest
from running import kill, run_to_the_end, steps_in
from tiny_encoder import make_encoder, make_notes

pytestmark = pytest.mark.process

STEPS = 400
CAP = 300_000_000
FILES = ("index/index.safetensors", "index/tokens.bin", "head/head.onnx")


def test_killed_and_resumed_under_its_cap_it_ends_with_the_same_index(tmp_path):
    model, notes = make_encoder(tmp_path / "model"), make_notes(tmp_path / "notes", 40)
    words = (
        "run",
        notes,
        "--task",
        "retrieve",
        "--model",
        model,
        "--mem",
        "300MB",
        "--threads",
        "1",
    )
    words = (*words, "--steps", STEPS, "--samples", 8)
    whole, out, draws = tmp_path / "whole", tmp_path / "run", random.Random(0)
    run_to_the_end(*words, "--out", whole, out=whole)
    landed = []
    for records in (0, 20, 60):
        if kill((*words, "--out", out), out, records, draws.uniform(0.001, 0.1)):
            landed.append(steps_in(out))
    assert len(landed) >= 2, "the run was over before it was killed often enough"
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == STEPS
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for folder in (whole, out):
        report = json.loads((folder / "report.json").read_text())
        assert report["measured_peak_bytes"] <= CAP == report["cap_bytes"]
