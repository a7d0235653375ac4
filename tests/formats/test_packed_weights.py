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
        header[name if "." in name else name.replace("__", ".")] = {
            "dtype": kind,
            "shape": shape,
            "data_offsets": offsets,
        }
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
    with pytest.raises(ModelError, match=rf"model\.safetensors: holds {kind} weights.*, first"):
        refuse_packed(tmp_path, {}, [file])
    config = {"quantization_config": {"quant_method": "some way"}}
    with pytest.raises(ModelError, match="packed by some way"):
        refuse_packed(tmp_path, config, [file])


LAYER = "model.layers.0.self_attn.q_proj"
# One layer of 64 x 128 as each library writes it: name, type, shape, bytes.
PUBLISHED = {
    "gptq": (
        ("qweight", "I32", [16, 64], 4096),
        ("qzeros", "I32", [1, 8], 32),
        ("scales", "F16", [1, 64], 128),
        ("g_idx", "I32", [128], 512),
    ),
    "awq": (
        ("qweight", "I32", [128, 8], 4096),
        ("qzeros", "I32", [1, 8], 32),
        ("scales", "F16", [1, 64], 128),
    ),
    "bitsandbytes": (
        ("weight", "U8", [4096, 1], 4096),
        ("weight.absmax", "U8", [128], 128),
        ("weight.nested_absmax", "F32", [1], 4),
        ("weight.quant_map", "F32", [16], 64),
        ("weight.quant_state.bitsandbytes__nf4", "U8", [93], 93),
    ),
    "bitsandbytes, 8 bits": (
        ("weight", "I8", [64, 128], 8192),
        ("SCB", "F32", [64], 256),
        ("weight_format", "U8", [], 1),
    ),
    "torchao": (
        ("_weight_qdata", "I8", [64, 128], 8192),
        ("_weight_scale", "F32", [64, 1], 256),
        ("_weight_zero_point", "I8", [64, 1], 64),
    ),
    "torchao, older": (
        ("weight:qdata", "U8", [64, 64], 4096),
        ("weight:scale", "BF16", [64, 1], 128),
    ),
}


@pytest.mark.parametrize("claimed", [False, True], ids=["header", "configuration"])
@pytest.mark.parametrize("published", PUBLISHED)
def test_a_layer_as_it_is_published_is_refused_by_way_file_and_what_to_name_instead(
    tmp_path, published, claimed
):
    way = published.split(",")[0]
    tensors = {f"{LAYER}.{name}": rest for name, *rest in PUBLISHED[published]}
    file = file_of(tmp_path / "model-00001-of-00002.safetensors", **tensors)
    config = {"quantization_config": {"quant_method": way}} if claimed else {}
    with pytest.raises(ModelError) as caught:
        refuse_packed(tmp_path, config, [file])
    said = str(caught.value)
    told = f"packed by {way}" if claimed or way != "awq" else "packed by gptq or awq"
    assert said.startswith(str(file.path)) and told in said and LAYER in said
    assert "name the bfloat16, float16 or float32 version of this model" in said


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
