"""GGUF files that are written: read back by our reader and the package's, Q8_0 bit for bit.

`tests/golden/gguf_written.npz` holds numbers and the blocks that gguf 0.19.0 makes of them.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gguf_files import F32, gguf_bytes, stored, value

from edge_train.formats.gguf.encoding import encode
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.writing import (
    NewTensor,
    count,
    gguf_parts,
    real,
    stored_values,
    word,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "gguf_written.npz"
# A half has 11 bits, a code of Q8_0 is half a step of 1/127 off at most, its scale has 11 bits.
CLOSE = {"F32": 0.0, "F16": 2.0**-11, "Q8_0": 0.5 / 127 + 2.0**-11}


def parts_of(values, kind, rows=3):
    return [encode(values[at : at + rows], kind) for at in range(0, len(values), rows)]


def write(path, values, tensors, alignment=32):
    made = {
        name: NewTensor(kind, of.shape, partial(parts_of, of, kind))
        for name, (kind, of) in tensors.items()
    }
    path.write_bytes(b"".join(gguf_parts(values, made, alignment)))


def test_blocks_of_eight_bits_are_those_of_the_package():
    with np.load(GOLDEN) as golden:
        assert encode(golden["values"], "Q8_0") == golden["q8_0"].tobytes()


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-30, 400.0])
def test_blocks_of_eight_bits_are_those_of_the_package_here(scale):
    gguf = pytest.importorskip("gguf")
    draw = np.random.default_rng(1)
    values = (scale * draw.standard_normal((40, 96))).astype(np.float32)
    wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    assert encode(values, "Q8_0") == wanted.tobytes()


@pytest.mark.parametrize("alignment", [32, 64])
def test_what_is_written_is_read_back(tmp_path, alignment):
    draw = np.random.default_rng(2)
    tensors = {
        f"{kind} {rows}": (kind, draw.standard_normal((rows, 64)).astype(np.float32))
        for kind in CLOSE
        for rows in (1, 7)
    }
    own = {"general.alignment": count(alignment), "a": word("b\u00e9"), "c": real(0.5)}
    write(tmp_path / "a.gguf", own, tensors, alignment)
    file = GgufFile(tmp_path / "a.gguf")
    assert file.metadata == {"general.alignment": alignment, "a": "b\u00e9", "c": 0.5}
    assert list(file.tensors) == list(tensors)
    for name, (kind, values) in tensors.items():
        assert file.tensors[name].start % alignment == 0
        found = np.empty_like(values)
        file.rows_into(name, range(len(values)), found)
        assert np.abs(found - values).max() <= CLOSE[kind] * np.abs(values).max()


def test_the_package_reads_what_is_written(tmp_path):
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(3).standard_normal((6, 64)).astype(np.float32)
    write(tmp_path / "a.gguf", {"a": word("b")}, {kind: (kind, values) for kind in CLOSE})
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.get_field("a").contents() == "b"
    for tensor in reader.tensors:
        found = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        assert np.abs(found - values).max() <= CLOSE[tensor.name] * np.abs(values).max()


def test_values_of_another_file_are_carried_over_byte_for_byte(tmp_path):
    held = {
        "small": value(b"\x00\x00\x00\x00\x07"),  # a number of eight bits stays one
        "words": ["a", "", "\u00e9"],
        "numbers": np.array([1, -2, 3]),
        "truth": True,
        "last": "end",
    }
    tensor, _ = stored(np.ones((2, 32), np.float32), F32)
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(held, {"t": tensor}))
    found = stored_values(tmp_path / "a.gguf")
    assert found == {key: value(of) for key, of in held.items()}
    write(tmp_path / "b.gguf", found, {"t": ("F32", np.ones((2, 32), np.float32))})
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_a_number_that_a_type_cannot_hold_is_refused(kind):
    with pytest.raises(OverflowError):
        encode(np.full((1, 32), 1e8, np.float32), kind)


def test_a_tensor_of_other_bytes_than_its_shape_is_refused():
    tensor = NewTensor("F16", (2, 32), lambda: [bytes(64)])
    with pytest.raises(ValueError, match="64 bytes, expected 128"):
        list(gguf_parts({}, {"t": tensor}))


def test_numbers_too_small_for_a_scale_are_zeros():
    blocks = encode(np.full((1, 32), 3e-44, np.float32), "Q8_0")
    assert blocks == bytes(34)
