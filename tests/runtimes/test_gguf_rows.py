"""GGUF blocks in torch: the very bits that NumPy makes of them, and products with rows in pairs."""

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf_models
import torch
from gguf_files import F32, Q8_0

from edge_train.formats.gguf.blocks import BLOCK_TYPES
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.tensor_file import StoredTensor
from edge_train.runtimes.torch import stored_matrices
from edge_train.runtimes.torch.gguf_rows import DECODERS
from edge_train.runtimes.torch.stored_matrices import Buffer, stored_matrix, times, times_transposed

KINDS = {kind.name: kind for kind in BLOCK_TYPES.values()}


@pytest.mark.parametrize("name", DECODERS)
def test_blocks_become_the_bits_that_numpy_makes_of_them(name):
    kind = KINDS[name]
    draw = np.random.default_rng(4)
    raw = draw.integers(0, 256, (500, kind.nbytes), dtype=np.uint8)
    halves = {"Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}.get(name, (0,))
    for start in halves:  # scales of a sane size: a random half may be no number
        scales = draw.uniform(-2, 2, (500, 1)).astype(np.float16)
        raw[:, start : start + 2] = scales.view(np.uint8)
    found = torch.empty(500, kind.weights)
    DECODERS[name](torch.from_numpy(raw), found)
    np.testing.assert_array_equal(found.numpy(), kind.decode(raw))


@pytest.mark.parametrize("stored_as", [F32, Q8_0])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_products_with_a_file_are_those_with_its_numbers(tmp_path, monkeypatch, kind, stored_as):
    monkeypatch.setattr(stored_matrices, "_WEIGHTS_AT_ONCE", 3000)  # so that there are several
    monkeypatch.setattr(stored_matrices, "_DECODED_AT_ONCE", 700)
    gguf_models.make_gguf(tmp_path / "model.gguf", kind, stored_as)
    [file] = open_gguf(tmp_path / "model.gguf").files
    draw = torch.Generator().manual_seed(1)
    for name in (f"model.layers.0.{end}.weight" for end in ("self_attn.q_proj", "mlp.down_proj")):
        matrix = stored_matrix(StoredTensor(file, name), Buffer())
        whole = torch.from_numpy(file.read(name))
        inputs = torch.randn(5, whole.shape[1], generator=draw)
        errors = torch.randn(5, whole.shape[0], generator=draw)
        torch.testing.assert_close(times_transposed(inputs, matrix), inputs @ whole.T)
        torch.testing.assert_close(times(errors, matrix), errors @ whole)
        ids = torch.tensor([3, 0, 3, 7])
        torch.testing.assert_close(matrix.rows(ids), whole[ids], rtol=0, atol=0)


@pytest.mark.parametrize("stored_as", [F32, Q8_0])
def test_products_of_bfloat16_are_those_of_rounded_numbers(tmp_path, monkeypatch, stored_as):
    monkeypatch.setattr(stored_matrices, "_WEIGHTS_AT_ONCE", 3000)  # so that there are several
    gguf_models.make_gguf(tmp_path / "model.gguf", "llama", stored_as)
    [file] = open_gguf(tmp_path / "model.gguf").files
    draw = torch.Generator().manual_seed(1)
    name = "model.layers.0.self_attn.q_proj.weight"
    matrix = stored_matrix(StoredTensor(file, name), Buffer(torch.bfloat16))
    whole = torch.from_numpy(file.read(name)).bfloat16().double()
    inputs = torch.randn(5, whole.shape[1], generator=draw).bfloat16().double()
    errors = torch.randn(5, whole.shape[0], generator=draw).bfloat16().double()
    for found, left, right in (
        (times_transposed(inputs.float(), matrix), inputs, whole.T),
        (times(errors.float(), matrix), errors, whole),
    ):
        assert found.dtype == torch.float32
        # a sum, or the sum of a part, is rounded to 8 bits: none is larger than that of sizes
        room = 2.0**-8 * (left.abs() @ right.abs())
        assert ((found - left @ right).abs() <= room).all()
        assert not torch.equal(found, (left @ right).float())  # they were rounded
    assert torch.equal(matrix.rows(torch.tensor([3])), torch.from_numpy(file.read(name))[[3]])
