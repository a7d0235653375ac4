"""Engines torch and numpy take the same steps on the same adapter."""

import json

import numpy as np
import pytest
from gguf_files import Q8_0
from gguf_models import make_gguf
from running import records_of
from safetensors.numpy import load_file

from edge_train import cli

pytest.importorskip("torch")

pytestmark = pytest.mark.process

# Adam divides by the root of a mean of squares, so that the last bits of a small gradient may be
# much of its first updates: what is compared is losses, and adapters as wholes.
CLOSE = 1e-3


def test_their_journals_tell_the_same_losses(tmp_path):
    make_gguf(tmp_path / "model.gguf", "smollm", Q8_0)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 60)
    words = ["run", str(tmp_path / "text.txt"), "--task", "language-model", "--json"]
    words += ["--model", str(tmp_path / "model.gguf"), "--threads", "1", "--length", "16"]
    words += ["--steps", "12", "--samples", "3", "--evaluate-every", "4", "--rank", "4"]
    told, adapters, scores = [], [], []
    for engine in ("torch", "numpy"):
        out = tmp_path / engine
        assert cli.main([*words, "--runtime", engine, "--out", str(out)]) == 0
        steps = [record for record in records_of(out) if record["kind"] == "step"]
        told.append([[s["loss"], s["gradient_norm"], s["eval"] or 0.0] for s in steps])
        adapters.append(load_file(out / "adapter" / "adapter_model.safetensors"))
        scores.append(json.loads((out / "report.json").read_text())["metrics"]["held_out_loss"])
    np.testing.assert_allclose(*np.array(told), rtol=CLOSE)
    assert scores[0] == pytest.approx(scores[1], rel=CLOSE)
    assert adapters[0].keys() == adapters[1].keys()
    both = [np.concatenate([one[n].ravel() for n in sorted(one)]) for one in adapters]
    assert np.linalg.norm(both[0] - both[1]) < 0.02 * np.linalg.norm(both[0])
