"""Products of bfloat16: close to float32, in half the bytes, and refused where nobody has them."""

import dataclasses
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf_models
from gguf_files import Q8_0

from edge_train.errors import InputError
from edge_train.tasks.language_model import job as jobs
from edge_train.tasks.language_model.job import LanguageModelJob
from edge_train.tasks.language_model.recipe import LanguageModelRecipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    gguf_models.make_gguf(folder / "model.gguf", "llama", Q8_0)
    (folder / "text.txt").write_text("the hen and the fox in the den " * 200)
    return LanguageModelRecipe(
        model=str(folder / "model.gguf"), data=str(folder / "text.txt"), length=32, samples=4
    )


@pytest.mark.parametrize("trainable, quant", [("lora", "none"), ("lora", "int8"), ("all", "int8")])
def test_losses_and_gradients_are_those_of_float32_to_eight_bits(
    recipe, trainable, quant, tmp_path
):
    losses, gradients = {}, {}
    for dtype in ("float32", "bfloat16"):
        job = LanguageModelJob(
            dataclasses.replace(recipe, trainable=trainable, quant=quant, dtype=dtype)
        )
        (tmp_path / dtype).mkdir()
        job.prepare(tmp_path / dtype, lambda line: None)
        runtime = job.open_runtime()
        assert runtime.dtype == dtype
        held = job.task().held_out(4)
        losses[dtype] = runtime.forward(held, [runtime.parameters])
        gradients[dtype] = {}
        take = partial(_take, gradients[dtype])
        runtime.backward(held, take)
    # three significant digits in every product of a few layers
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.02)
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    for name, exact in gradients["float32"].items():
        difference = np.linalg.norm(gradients["bfloat16"][name] - exact)
        assert difference <= 0.1 * np.linalg.norm(exact), name


def _take(gradients, name, value):
    gradients[name] = np.array(value[:])


def test_a_frozen_base_in_float_is_planned_at_two_bytes_a_weight(tmp_path):
    import transformers

    folder = tmp_path / "model"
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        vocab_size=300, num_attention_heads=4, num_key_value_heads=2, **sizes
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    gguf_models.make_gguf(tmp_path / "model.gguf", "llama")  # whose tokenizer has 300 tokens
    from edge_train.formats.gguf.model import open_gguf

    open_gguf(tmp_path / "model.gguf").tokenizer().save(str(folder / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("the hen and the fox in the den " * 200)
    lines = {}
    for dtype in ("float32", "bfloat16"):
        job = LanguageModelJob(
            LanguageModelRecipe(
                model=str(folder),
                data=str(tmp_path / "text.txt"),
                length=32,
                trainable="lora",
                dtype=dtype,
            )
        )
        lines[dtype] = job.footprint().model_bytes
    vectors = 5 * 64 * 4
    assert lines["bfloat16"] - vectors == (lines["float32"] - vectors) / 2


def test_what_cannot_be_multiplied_is_refused(recipe):
    with pytest.raises(InputError, match=r"float16.*overflow"):
        LanguageModelJob(dataclasses.replace(recipe, dtype="float16"))
    with pytest.raises(InputError, match="'numpy', which multiplies float32"):
        LanguageModelJob(dataclasses.replace(recipe, dtype="bfloat16", runtime="numpy"))


def test_a_processor_without_them_is_told(recipe, monkeypatch):
    monkeypatch.setattr(jobs, "multiplies_bfloat16", lambda: False)
    notes = LanguageModelJob(dataclasses.replace(recipe, dtype="bfloat16")).notes
    assert any("no products of bfloat16" in note for note in notes)


_LENGTHS = """
import os
import torch
from edge_train.memory.measure import measure
from edge_train.runtimes.torch.products import products_in

torch.set_num_threads(1)
kind = products_in("bfloat16")
weights = torch.ones(1024, 576, dtype=kind)
for length in range(8, 308):
    torch.mm(torch.ones(length, 576, dtype=kind), weights.T)
    if length == 9:
        began = measure().resident_bytes
print(measure().resident_bytes - began)
"""


@pytest.mark.process
def test_what_is_made_for_products_of_one_length_is_not_kept_for_hundreds_of_them():
    done = subprocess.run([sys.executable, "-c", _LENGTHS], capture_output=True, check=True)
    assert int(done.stdout) < 120e6  # with all of them kept 220 MB
