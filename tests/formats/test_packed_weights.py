"""Weights in few bits are refused by the name of their packing; masks of old files are none."""

import json

import pytest

from edge_train.errors import ModelError
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile


def file_of(path, **tensors):
    """Write a header of (type, shape, bytes) and as many zeros."""
    header, start = {}, 0
    for name, (kind, shape, size) in tensors.items():
        offsets = [start, start + size]
        header[name.replace("__", ".")] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        start += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(start))
    return TensorFile(path)


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("F8_E4M3", "a__weight", 4),
        ("F8_E5M2", "a__weight", 4),
        ("I8", "a__weight", 4),  # bitsandbytes, 8 bits
        ("U8", "a__weight", 4),  # and 4
        ("I32", "a__qweight", 16),  # GPTQ, AWQ
        ("I8", "a__weight___data", 4),  # quanto
        ("U8", "a__gate_up_proj_blocks", 4),  # MXFP4
    ],
)
def test_packed_weights_are_named(tmp_path, kind, name, size):
    file = file_of(tmp_path / "model.safetensors", **{name: (kind, [2, 2], size)})
    with pytest.raises(ModelError, match=f"holds {kind} weights, first"):
        refuse_packed(tmp_path, {}, [file])
    config = {"quantization_config": {"quant_method": "some way"}}
    with pytest.raises(ModelError, match="packed by some way"):
        refuse_packed(tmp_path, config, [file])


def test_masks_and_positions_of_older_files_are_no_weights(tmp_path):
    file = file_of(
        tmp_path / "model.safetensors",
        h__0__attn__bias=("U8", [1, 1, 4, 4], 16),
        embeddings__position_ids=("I64", [1, 4], 32),
        a__weight=("BF16", [2, 2], 8),
    )
    refuse_packed(tmp_path, {}, [file])


def test_a_packing_that_only_the_configuration_claims_is_told(tmp_path):
    file = file_of(tmp_path / "model.safetensors", a__weight=("F32", [2, 2], 16))
    with pytest.raises(ModelError, match="are packed by gptq, but they are plain floats"):
        refuse_packed(tmp_path, {"quantization_config": {"quant_method": "gptq"}}, [file])
