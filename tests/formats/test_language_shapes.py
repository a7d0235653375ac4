"""Headers of files tell the blocks of a language model, or say that only the network knows."""

import json
import shutil

import architectures
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_train.formats.language_folder import open_language_model
from edge_train.formats.language_shapes import _TIED_BY_DEFAULT, shapes_in_files

torch = pytest.importorskip("torch")
# A head of its own, a tied one with transposed matrices, and one whose default is to be tied; the
# others of the list are `slow`.
FAST = ("llama", "gpt2", "smollm3")
KINDS = [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in _TIED_BY_DEFAULT]


@pytest.mark.parametrize("kind", KINDS)
def test_headers_tell_the_blocks_that_the_network_has(tmp_path, kind):
    from edge_train.runtimes.torch.language_network import parameter_shapes

    architectures.make_model(tmp_path, kind)
    folder = open_language_model(tmp_path)
    assert shapes_in_files(folder) == parameter_shapes(folder)


@pytest.mark.parametrize("kind", ["mixtral", "gpt_neox"])
def test_files_with_other_names_than_the_network_tell_nothing(tmp_path, kind):
    architectures.make_model(tmp_path, kind)
    assert shapes_in_files(open_language_model(tmp_path)) is None


def test_a_folder_without_weights_tells_nothing(tmp_path):
    architectures.make_model(tmp_path / "whole", "llama")
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "bare")
    assert shapes_in_files(open_language_model(tmp_path / "bare")) is None


def test_a_tied_head_that_is_stored_too_may_differ_and_tells_nothing(tmp_path):
    architectures.make_model(tmp_path, "llama")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": True}))
    assert shapes_in_files(open_language_model(tmp_path)) is None


def test_masks_that_older_files_hold_are_no_blocks(tmp_path):
    architectures.make_model(tmp_path, "gpt2")
    known = shapes_in_files(open_language_model(tmp_path))
    file = tmp_path / "model.safetensors"
    mask = np.ones((1, 1, 64, 64), np.float32)
    save_file({**load_file(file), "transformer.h.0.attn.bias": mask}, file, {"format": "pt"})
    assert shapes_in_files(open_language_model(tmp_path)) == known
