"""Engines torch and numpy take the same steps on the same adapter."""

import json
from dataclasses import replace

import numpy as np
import pytest
from gguf_files import Q8_0
from gguf_models import make_gguf
from running import records_of
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.methods import methods
from edge_train.run.survey import survey
from edge_train.tasks import tasks
from edge_train.tasks.language_model.adapting import _METHODS
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

pytest.importorskip("torch")

pytestmark = pytest.mark.process

# Adam divides by the root of a mean of squares, so that the last bits of a small gradient may be
# much of its first updates: what is compared is losses, and adapters as wholes.
CLOSE = 1e-3


# Moments of fewer than 4,096 numbers stay in float32: the rank is as large as layers are.
METHODS = {
    "adamw": ("--rank", "4"),
    "adamw8bit": ("--rank", "64"),
    "zo": ("--rank", "4", "--epsilon", "1e-2", "--queries", "3"),
}


def test_every_method_of_adapters_is_compared():
    assert METHODS.keys() == set(_METHODS) - {"auto", "backprop"}
    for use in tasks.get("language-model").uses.values():
        assert all(methods.get(name).needs <= use.offers for name in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_their_journals_tell_the_same_losses(tmp_path, method):
    make_gguf(tmp_path / "model.gguf", "smollm", Q8_0)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 60)
    words = ["run", str(tmp_path / "text.txt"), "--task", "language-model", "--json"]
    words += ["--model", str(tmp_path / "model.gguf"), "--threads", "1", "--length", "16"]
    words += ["--steps", "12", "--samples", "3", "--evaluate-every", "4"]
    words += ["--method", method, *METHODS[method]]
    told, adapters, scores = [], [], []
    for engine in ("torch", "numpy"):
        out = tmp_path / engine
        assert cli.main([*words, "--runtime", engine, "--out", str(out)]) == 0
        steps = [record for record in records_of(out) if record["kind"] == "step"]
        told.append([[s["loss"], s.get("gradient_norm") or 0.0, s["eval"] or 0.0] for s in steps])
        adapters.append(load_file(out / "adapter" / "adapter_model.safetensors"))
        scores.append(json.loads((out / "report.json").read_text())["metrics"]["held_out_loss"])
    np.testing.assert_allclose(*np.array(told), rtol=CLOSE)
    assert scores[0] == pytest.approx(scores[1], rel=CLOSE)
    assert adapters[0].keys() == adapters[1].keys()
    second = sorted(name for name in adapters[0] if "lora_B" in name)  # which begin at zero
    both = [np.concatenate([one[n].ravel() for n in second]) for one in adapters]
    assert np.linalg.norm(both[0] - both[1]) < 0.02 * np.linalg.norm(both[0])


@pytest.mark.parametrize(
    ("options", "cap", "named"),
    [
        ({}, 300, "Try --runtime numpy (plan needs "),
        ({"method": "zo"}, 300, "Try --runtime numpy (plan needs "),
        ({}, 100, ""),  # which is too small for that one, too
        ({"trainable": "all"}, 300, ""),  # which that one does not serve
        ({"device": "cpu", "quant": "int8", "trainable": "all"}, 300, ""),
    ],
)
def test_where_torch_has_no_room_a_lighter_engine_that_has_is_named(tmp_path, options, cap, named):
    make_gguf(tmp_path / "model.gguf", "smollm", Q8_0)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 60)
    data = {"data": str(tmp_path / "text.txt"), "model": str(tmp_path / "model.gguf")}
    recipe = LanguageModelRecipe(**data, threads=1, length=16, cap_bytes=cap * 10**6, **options)
    found = survey(recipe)
    assert not found.fits and found.shown.recipe.runtime == "torch"
    assert (found.elsewhere is not None) == bool(named) and named in found.refusal()
    if found.elsewhere is not None:
        kept = ("method", "trainable", "quant")
        assert all(
            getattr(found.elsewhere.recipe, key) == getattr(found.asked.recipe, key) for key in kept
        )
        assert survey(replace(recipe, runtime="numpy")).fits
