"""GGUF files: every type of block bit for bit as `gguf` has it, hostile headers in one sentence.

`tests/golden/gguf_blocks.npz` holds blocks of random codes with sane scales, and what gguf 0.19.0
makes of them; where that package is installed, it is asked again with other blocks.
"""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf_files import F32, gguf_bytes, info, padded, stored, string, value

from edge_train.errors import ModelError
from edge_train.formats.gguf.blocks import BLOCK_TYPES
from edge_train.formats.gguf.file import GgufFile

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "gguf_blocks.npz"
KINDS = {kind.name: (number, kind) for number, kind in BLOCK_TYPES.items()}


def same_bits(one, other):
    return np.array_equal(one.view(np.uint32), other.reshape(one.shape).view(np.uint32))


@pytest.mark.parametrize("name", KINDS)
def test_blocks_are_decoded_bit_for_bit(name):
    _, kind = KINDS[name]
    with np.load(GOLDEN) as golden:
        found = kind.decode(golden[f"{name}.raw"])
        assert same_bits(found, golden[name])


@pytest.mark.parametrize("name", KINDS)
def test_blocks_are_decoded_as_the_package_does(name):
    gguf = pytest.importorskip("gguf")
    number, kind = KINDS[name]
    raw = np.random.default_rng(1).integers(0, 128, (50, kind.nbytes), np.uint8)
    raw &= 0xBB  # no float of 16 or 32 bits among any bytes is then infinite or none
    wanted = gguf.quants.dequantize(raw.copy(), gguf.GGMLQuantizationType(number))
    assert same_bits(kind.decode(raw), np.asarray(wanted, np.float32))


def test_any_rows_are_read_in_any_order(tmp_path):
    values = np.random.default_rng(2).standard_normal((70, 64)).astype(np.float32)
    tensors, wanted = {}, {}
    for number in (0, 1, 2, 8):
        tensors[f"t{number}"], wanted[f"t{number}"] = stored(values, number)
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes({"a": 1}, tensors))
    file = GgufFile(path)
    for rows in (range(70), range(3, 9), [5, 6, 7, 2, 69, 0]):
        for name, numbers in wanted.items():
            out = np.empty((len(rows), 64), np.float32)
            file.rows_into(name, rows, out)
            assert same_bits(out, numbers[list(rows)])


def test_a_large_tensor_is_decoded_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_train.formats.gguf.file._PIECE_BYTES", 4 * 64 * 3)
    values = np.random.default_rng(2).standard_normal((70, 64)).astype(np.float32)
    tensor, wanted = stored(values, 8)
    (tmp_path / "a.gguf").write_bytes(gguf_bytes({}, {"t": tensor}))
    out = np.empty_like(values)
    GgufFile(tmp_path / "a.gguf").rows_into("t", range(70), out)
    assert same_bits(out, wanted)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_of_every_type_is_read(tmp_path, version):
    metadata = {
        "u8": struct.pack("<IB", 0, 250),
        "i8": struct.pack("<Ib", 1, -5),
        "u16": struct.pack("<IH", 2, 65000),
        "i16": struct.pack("<Ih", 3, -300),
        "u32": 7,
        "i32": -7,
        "f32": 0.5,
        "bool": True,
        "string": "ä word",
        "strings": ["a", "", "ö"],
        "numbers": [1, 2, 3],
        "u64": struct.pack("<IQ", 10, 1 << 60),
        "i64": struct.pack("<Iq", 11, -(1 << 60)),
        "f64": struct.pack("<Id", 12, 1e300),
    }
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes(metadata, {}, version))
    found = dict(GgufFile(path).metadata)
    assert found.pop("numbers").tolist() == [1, 2, 3]
    wanted = {"u8": 250, "i8": -5, "u16": 65000, "i16": -300, "u32": 7, "i32": -7, "f32": 0.5}
    wanted |= {"bool": True, "string": "ä word", "strings": ["a", "", "ö"]}
    assert found == wanted | {"u64": 1 << 60, "i64": -(1 << 60), "f64": 1e300}


def header(keys=0, tensors=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def table(*lines, alignment=None):
    start = header(alignment is not None, len(lines))
    if alignment is not None:
        start += string("general.alignment") + value(alignment)
    return padded(start + b"".join(lines)) + bytes(256)


PLAIN = info("a", F32, (4, 4), 0)
HOSTILE = {
    "nothing": (b"", "begins with b''"),
    "another file": (b"PK\3\4" + bytes(99), "expected b'GGUF'"),
    "older": (b"tjgg" + bytes(99), "before GGUF"),
    "version 1": (header(version=1), "version is 1"),
    "version 0": (header(version=0), "version is 0"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big endian"),
    "counts that lie": (header(keys=1 << 60), "claims 0 tensors"),
    "more keys than there are": (header(keys=5), "ends in the middle"),
    "a key of 2^60": (header(1) + struct.pack("<Q", 1 << 60), "claims 1152921504606846976"),
    "a key without a name": (header(1) + string("") + value(1), "name is empty"),
    "a key that is no text": (header(1) + string(b"\xff\xfe") + value(1), "not UTF-8"),
    "a string of 2^60": (
        header(1) + string("a") + struct.pack("<IQ", 8, 1 << 60),
        "a string claims",
    ),
    "a type that is not": (header(1) + string("a") + struct.pack("<I", 77), "has type 77"),
    "a truth of 2": (header(1) + string("a") + struct.pack("<IB", 7, 2), "truth value is 2"),
    "nested": (
        header(1) + string("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000,
        "array holds arrays",
    ),
    "an array of 2^60 strings": (
        header(1) + string("a") + struct.pack("<IIQ", 9, 8, 1 << 60),
        "claims 1152921504606846976 strings",
    ),
    "an array of 2^60 numbers": (
        header(1) + string("a") + struct.pack("<IIQ", 9, 4, 1 << 60),
        "claims 1152921504606846976 numbers",
    ),
    "an array of what is not": (
        header(1) + string("a") + struct.pack("<IIQ", 9, 66, 1),
        "array has type 66",
    ),
    "a key twice": (header(2) + 2 * (string("a") + value(1)), "'a' is there twice"),
    "a tensor twice": (table(PLAIN, info("a", F32, (4, 4), 64)), "'a' is there twice"),
    "alignment 0": (table(PLAIN, alignment=0), "general.alignment is 0"),
    "alignment 12": (table(PLAIN, alignment=12), "no power of two"),
    "alignment of a word": (table(PLAIN, alignment="x" * 999), "general.alignment is x"),
    "shared bytes": (table(PLAIN, info("b", F32, (4, 4), 32)), "'a' and 'b' share bytes"),
    "between places": (table(info("a", F32, (4, 4), 4)), "begins at 4"),
    "behind the end": (table(info("a", F32, (4, 4), 320)), "would end at"),
    "far behind the end": (table(info("a", F32, (4, 4), (1 << 64) - 32)), "would end at"),
    "no sides": (table(info("a", F32, (), 0)), "has 0 sides"),
    "five sides": (table(info("a", F32, (1,) * 5, 0)), "has 5 sides"),
    "2^31 sides": (
        header(0, 1) + string("a") + struct.pack("<I", 1 << 31) + bytes(99),
        "2147483648 sides",
    ),
    "a side of 0": (table(info("a", F32, (4, 0), 0)), "is [4, 0]"),
    "sides that overflow": (table(info("a", F32, (1 << 32, 1 << 32), 0)), "is [4294967296"),
    "a type that nobody knows": (table(info("a", 99, (4, 4), 0)), "type 99"),
    "part of a block": (table(info("a", 2, (4, 48), 0)), "blocks of 32 do not fill"),
    "a long name": (table(info("a" * 64, F32, (4, 4), 0)), "claims 64 bytes"),
    "another type": (table(info("a", 23, (4, 256), 0)), "stored as IQ4_XS, which is not read"),
    "a part": (
        header(1) + string("split.count") + value(3),
        "one of 3 parts of a model; join them",
    ),
}


def test_a_file_that_llama_cpp_joined_is_whole(tmp_path):
    path = tmp_path / "joined.gguf"
    path.write_bytes(header(1) + string("split.count") + value(0))
    assert GgufFile(path).metadata["split.count"] == 0


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_one_sentence(tmp_path, name):
    content, says = HOSTILE[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        GgufFile(path)
    message = str(caught.value)
    assert says in message and "\n" not in message and message.startswith(str(path))


def test_a_file_cut_anywhere_is_refused(tmp_path):
    tensor, _ = stored(np.ones((3, 32), np.float32), 8)
    whole = gguf_bytes({"general.name": "x", "words": ["a", "b"], "many": [1, 2]}, {"t": tensor})
    path = tmp_path / "a.gguf"
    data = len(whole) - len(padded(tensor[2]))
    for end in [*range(data), data, len(whole) - 32]:
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match="cannot be used as a GGUF file"):
            GgufFile(path)


def test_a_file_that_becomes_shorter_is_refused(tmp_path):
    tensor, values = stored(np.ones((3, 32), np.float32), 8)
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes({}, {"t": tensor}))
    file = GgufFile(path)
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(ModelError, match="became shorter"):
        file.rows_into("t", range(3), np.empty_like(values))


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ModelError):
            GgufFile(path)


@pytest.mark.parametrize("name", KINDS)
def test_decoding_a_large_tensor_takes_a_few_megabytes(tmp_path, name):
    number, kind = KINDS[name]
    rows, columns = 2048, 2048  # 16.8 MB in float32
    raw = np.zeros(rows * columns // kind.weights * kind.nbytes, np.uint8)
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes({}, {"t": (number, (rows, columns), raw.tobytes())}))
    file, out = GgufFile(path), np.empty((rows, columns), np.float32)
    tracemalloc.start()
    try:
        file.rows_into("t", range(rows), out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20, peak
