"""A run that is made longer and killed on its way ends with the bits of one that was not killed."""

import json
import shutil
import signal

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from places import SUPPORT
from running import Command, records_of, run_to_the_end, steps_in
from safetensors.numpy import load_file

from edge_train import cli

pytest.importorskip("torch")
pytestmark = [pytest.mark.process, pytest.mark.slow]

FIRST, ALL = 10, 40
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def words(task, place):
    """Return the words of a run with a schedule, a warm-up and moments, which all must go on."""
    data = make_data(place / "data")
    model = make_tiny_classifier(place / "model", data)
    more = ["--samples", "8"]
    if task == "language-model":
        text = place / "text.txt"
        text.write_text("the film is a story of two friends\n" * 300)
        for name in ("model.safetensors", "special_tokens_map.json"):
            (model / name).unlink(missing_ok=True)
        (model / "config.json").write_text(json.dumps(_LLAMA))
        data, more = text, ["--length", "16", "--samples", "4"]
    few = ["--steps", str(FIRST), "--lr", "5e-3", "--schedule", "cosine", "--warmup", "4"]
    few += ["--evaluate-every", "4", "--threads", "1", "--seed", "3"]
    return ["run", "--task", task, "--data", str(data), "--model", str(model), *more, *few]


def learned(out):
    """Return the numbers of every result file."""
    files = sorted((out / "model").glob("*.safetensors"))
    assert files
    return [array for file in files for _, array in sorted(load_file(file).items())]


@pytest.mark.parametrize("task", ["classify", "language-model"])
def test_a_longer_run_that_is_killed_ends_with_the_bits_of_an_undisturbed_one(tmp_path, task):
    first, whole, out = (tmp_path / name for name in ("first", "whole", "killed"))
    assert cli.main([*words(task, tmp_path), "--out", str(first)]) == 0
    for copy in (whole, out):
        shutil.copytree(first, copy)
    run_to_the_end("run", "--resume", whole, "--steps", ALL, out=whole)
    script = (str(SUPPORT / "dying.py"), "12", "0.01")
    go_on = ("run", "--resume", out, "--steps", ALL)
    with Command(*go_on, out=out, script=script, OMP_NUM_THREADS="1") as command:
        assert command.wait() == -signal.SIGPROF, command.err
    assert FIRST < steps_in(out) < ALL
    run_to_the_end("run", "--resume", out, out=out)  # how many steps there are is on record
    assert steps_in(out) == steps_in(whole) == ALL
    losses = [[r["loss"] for r in records_of(o) if r["kind"] == "step"] for o in (out, whole)]
    assert losses[0] == losses[1]
    for mine, theirs in zip(learned(out), learned(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert any((a != b).any() for a, b in zip(learned(whole), learned(first), strict=True))
