"""Another package's engine serves personalize by the module that it names, and no file of ours."""

import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from places import GOLDEN

from edge_train.errors import InputError
from edge_train.formats.embedded import EMBEDDED, MODEL_FOLDER
from edge_train.methods.method import FORWARD
from edge_train.runtimes.engine import Engine, Use, engines
from edge_train.tasks.personalize import on_onnx, parts
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

ARTIFACT = PersonalizeRecipe(model=str(GOLDEN), class_word="dog", threads=1)


def toy_fix(recipe, model):
    if recipe.lean:
        raise InputError("engine 'toy' holds its weights.")
    return replace(recipe, quant="none")


@pytest.fixture
def toy(monkeypatch):
    """An engine that runs artifacts as ours does, except where it has its own words."""
    module = ModuleType("toy_serving")
    vars(module).update({k: v for k, v in vars(on_onnx).items() if not k.startswith("__")})
    module.fix = toy_fix
    module.device_notes = lambda recipe, model: ["device toy"]
    module.decode = lambda recipe, model, latents, strips: np.zeros((1, 8, 8, 3), np.uint8)
    module.smallest_radius = lambda model: 0.25
    monkeypatch.setitem(sys.modules, "toy_serving", module)
    use = Use(offers=frozenset({FORWARD}), open="toy_serving", libraries=("toy_serving",))
    engine = Engine(name="toy", says="a toy", distributions=("toy",), serves={"personalize": use})
    monkeypatch.setitem(engines.all(), "toy", engine)
    return module


def test_a_named_engine_serves_with_its_own_module(toy):
    job = PersonalizeJob(replace(ARTIFACT, runtime="toy"))
    assert job.recipe.runtime == "toy"
    assert job.recipe.quant == "none"  # its `fix`, not that of the artifact's usual engine
    assert "device toy" in job.notes
    assert job.smallest_radius() == 0.25
    assert job.footprint().libraries == ("toy_serving",)
    pictures = parts.decode_latents(parts.check(job.recipe), np.zeros((1, 4, 1, 1), np.float32))
    assert pictures.shape == (1, 8, 8, 3)


def test_what_its_module_refuses_is_refused(toy):
    with pytest.raises(InputError, match="engine 'toy' holds its weights"):
        parts.check(replace(ARTIFACT, runtime="toy", lean=True))


def test_the_kind_of_model_picks_the_engine_where_nobody_named_one(toy, monkeypatch):
    monkeypatch.setattr(on_onnx, "device_notes", lambda recipe, model: [])
    assert parts.check(ARTIFACT).serving is on_onnx
    pytest.importorskip("torch")
    from edge_train.tasks.personalize import on_torch

    assert parts.check(PersonalizeRecipe(model=EMBEDDED)).serving is on_torch


@pytest.mark.parametrize(
    ("model", "runtime", "sentence"),
    [
        (
            str(MODEL_FOLDER),
            "onnx",
            "runtime 'onnx' runs exported models; write one with `edge-train exp",
        ),
        (EMBEDDED, "ort-training", "runtime 'ort-training' has no gradient for the GroupNorm"),
        (EMBEDDED, "numpy", "runtime 'numpy' does not serve task 'personalize'"),
        (str(GOLDEN), "torch", "runtime 'torch' was asked for, but artifact .* for 'onnx'; leave"),
        (str(GOLDEN), "ort-training", "runtime 'ort-training' was asked for, but artifact"),
    ],
)
def test_an_engine_that_cannot_run_the_model_is_refused(model, runtime, sentence):
    with pytest.raises(InputError, match=sentence):
        parts.check(PersonalizeRecipe(model=model, runtime=runtime))


@pytest.mark.process
def test_choosing_an_engine_loads_none():
    script = (
        "import sys\n"
        "from edge_train.tasks.personalize import on_onnx, on_torch, parts\n"
        "heavy = {'torch', 'onnxruntime', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
