"""An artifact opens only if every byte of it is what its manifest says."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_train.artifact import MANIFEST, Artifact, describe_file, is_artifact, open_artifact
from edge_train.errors import ModelError

GOLDEN = Path(__file__).parent / "golden" / "artifact-v1"


@pytest.fixture
def copy(tmp_path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "artifact")


def edit(folder: Path, **changes) -> None:
    """Change top-level keys of the manifest."""
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_artifact(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_version_1_stays_readable_byte_for_byte() -> None:
    artifact = open_artifact(GOLDEN)
    assert artifact.manifest.to_bytes() == (GOLDEN / MANIFEST).read_bytes()
    assert (artifact.family, artifact.manifest.quant) == ("sd1", "int8")
    assert artifact.resolution == 32
    assert artifact.alphas_cumprod.shape == (1000,)
    assert artifact.embedding_rows("text_encoder", [5, 0]).shape == (2, 16)


def test_the_hash_of_an_artifact_is_that_of_its_manifest() -> None:
    expected = hashlib.sha256((GOLDEN / MANIFEST).read_bytes()).hexdigest()
    assert open_artifact(GOLDEN).sha256() == expected


def test_every_tensor_lies_where_the_manifest_says() -> None:
    for tensor in open_artifact(GOLDEN).manifest.tensors:
        raw = (GOLDEN / tensor.file).read_bytes()[tensor.offset : tensor.offset + tensor.bytes]
        assert hashlib.sha256(raw).hexdigest() == tensor.sha256
        assert np.frombuffer(raw, tensor.dtype).size == int(np.prod(tensor.shape))
        assert tensor.offset % (4096 if tensor.bytes >= 4096 else 64) == 0


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path) -> None:
    assert is_artifact(GOLDEN)
    assert not is_artifact(tmp_path)


def test_a_damaged_tensor_is_named(copy) -> None:
    tensor = open_artifact(copy).manifest.tensors[0]
    path = copy / tensor.file
    content = bytearray(path.read_bytes())
    content[tensor.offset] ^= 1
    path.write_bytes(content)
    message = refusal(copy)
    assert tensor.file in message
    assert tensor.name in message
    assert "export it again" in message


def test_a_file_cut_short_is_refused(copy) -> None:
    path = copy / "step.weights"
    path.write_bytes(path.read_bytes()[:-7])
    assert f"step.weights has {path.stat().st_size} bytes" in refusal(copy)


def test_a_missing_file_is_refused(copy) -> None:
    (copy / "vae_decoder.onnx").unlink()
    assert "vae_decoder.onnx: cannot be read" in refusal(copy)


def test_an_edited_tokenizer_is_refused(copy) -> None:
    path = copy / "tokenizer" / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"d", b"e"))
    assert "tokenizer/merges.txt has sha256" in refusal(copy)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_an_unknown_version_is_refused(copy, version) -> None:
    edit(copy, version=version)
    assert "install a newer edge-train" in refusal(copy)


@pytest.mark.parametrize(
    ("key", "value"), [("family", "flux"), ("quant", "int2"), ("prediction_type", "flow")]
)
def test_another_architecture_is_refused_by_name(copy, key, value) -> None:
    edit(copy, **{key: value})
    assert repr(value) in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": "zip"}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(copy, content) -> None:
    (copy / MANIFEST).write_bytes(content)
    assert MANIFEST in refusal(copy)


@pytest.mark.parametrize("key", ["family", "files", "signal", "tensors", "origin"])
def test_a_missing_key_is_named(copy, key) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    del content[key]
    (copy / MANIFEST).write_text(json.dumps(content))
    assert key in refusal(copy)


@pytest.mark.parametrize("files", [{"step.onnx": 3}, [], {"step.onnx": {"bytes": 1}}])
def test_a_key_of_a_wrong_type_is_refused(copy, files) -> None:
    edit(copy, files=files)
    assert "wrong type" in refusal(copy)


def test_a_file_outside_the_folder_is_refused(copy) -> None:
    (copy.parent / "secret").write_text("x")
    entry = describe_file(copy.parent / "secret")
    edit(copy, files={"../secret": {"bytes": entry.bytes, "sha256": entry.sha256}})
    assert "outside the folder" in refusal(copy)


def test_unknown_keys_of_a_known_version_are_ignored(copy) -> None:
    edit(copy, comment="made by hand")
    assert open_artifact(copy).manifest == open_artifact(GOLDEN).manifest


def test_a_token_id_outside_the_table_is_refused() -> None:
    with pytest.raises(ModelError, match="token id 100000 is outside the vocabulary"):
        open_artifact(GOLDEN).embedding_rows("text_encoder", [100_000])


def test_two_text_encoders_have_two_tokenizers() -> None:
    manifest = replace(open_artifact(GOLDEN).manifest, family="sdxl", text_widths=(16, 32))
    artifact = Artifact(GOLDEN, manifest)
    assert artifact.text_encoders == ("text_encoder", "text_encoder_2")
    assert [path.name for path in artifact.tokenizers] == ["tokenizer", "tokenizer_2"]
