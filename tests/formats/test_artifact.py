"""An artifact opens only if every byte of it is what its manifest says."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import GOLDEN

from edge_train.errors import ModelError
from edge_train.formats.artifact import Artifact, is_artifact, open_artifact
from edge_train.formats.manifest import MANIFEST, describe_file


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
    assert "vae_decoder.onnx is missing or no file" in refusal(copy)


def test_an_edited_tokenizer_is_refused(copy) -> None:
    path = copy / "tokenizer" / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"d", b"e"))
    assert "tokenizer/merges.txt has sha256" in refusal(copy)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_an_unknown_version_is_refused(copy, version) -> None:
    edit(copy, version=version)
    assert "install a newer edge-train" in refusal(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("family", "flux"),
        ("quant", "int2"),
        ("prediction_type", "flow"),
        ("products", "int3"),
        ("calls", "everything at once"),
    ],
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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"files": {"step.onnx": 3}}, "files.step.onnx"),
        ({"files": []}, "files"),
        ({"tensors": [[]]}, "tensors[0]"),
        ({"tensors": {}}, "tensors"),
        ({"resolution": "32"}, "resolution"),
        ({"resolution": True}, "resolution"),
        ({"resolution": 32.5}, "resolution"),
        ({"text_widths": [16.0]}, "text_widths[0]"),
        ({"signal": ["much"]}, "signal[0]"),
        ({"family": ["sd1"]}, "family"),
        ({"engine": {"session.qdq_matmulnbits_accuracy_level": 1}}, "engine.session"),
        ({"requires": {"ir": "10", "opset": 18}}, "requires.ir"),
        ({"slopes": [{"epsilon": None, "correlation": 1, "sign_agreement": 1}]}, "epsilon"),
    ],
)
def test_a_key_of_a_wrong_type_is_named(copy, changes, named) -> None:
    edit(copy, **changes)
    message = refusal(copy)
    assert "wrong type" in message
    assert named in message


def test_a_missing_key_inside_another_is_named(copy) -> None:
    edit(copy, files={"step.onnx": {"bytes": 1}})
    assert "files.step.onnx.sha256 is missing" in refusal(copy)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"resolution": 10**9}, "resolution is 1000000000, must be from 8 to 4096"),
        ({"resolution": 33}, "resolution 33 is no multiple of 4"),
        ({"latent_scale": 0}, "latent_scale is 0"),
        ({"latent_channels": -4}, "latent_channels is -4"),
        ({"prompt_tokens": 10**7}, "prompt_tokens is 10000000"),
        ({"text_widths": [16, 16]}, "text_widths has 2 numbers, sd1 1"),
        ({"text_widths": []}, "text_widths has 0 numbers"),
        ({"signal": [0.5, 1.5]}, "signal is 1.5"),
        ({"signal": []}, "signal has no timesteps"),
        ({"scaling_factor": 0}, "scaling_factor is 0.0"),
        ({"safe_epsilon": -1}, "safe_epsilon is -1.0"),
        ({"requires": {"ir": 10}}, "requires.opset is missing"),
        ({"origin": {"model": "x"}}, "origin.sha256 is missing"),
        ({"engine": {"session.use_env_allocators": "1"}}, "'session.use_env_allocators'"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_read(copy, changes, sentence) -> None:
    for path in copy.glob("*.on*"):
        path.unlink()
    edit(copy, **changes)
    assert sentence in refusal(copy)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(copy, number) -> None:
    text = (copy / MANIFEST).read_text().replace('"shift_factor": 0.0', f'"shift_factor": {number}')
    (copy / MANIFEST).write_text(text)
    refusal(copy)


def test_a_key_that_stands_twice_is_refused(copy) -> None:
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace('"family"', '"quant": "none", "family"', 1))
    assert "key 'quant' stands there twice" in refusal(copy)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000])
def test_deeply_nested_json_is_one_sentence(copy, content) -> None:
    (copy / MANIFEST).write_bytes(content)
    assert "not a JSON object" in refusal(copy)


def test_a_huge_manifest_is_not_read(copy) -> None:
    with (copy / MANIFEST).open("wb") as file:
        file.truncate(10**12)
    assert "1000000000000 bytes" in refusal(copy)


def first_tensor(folder: Path, **changes) -> list:
    tensors = json.loads((folder / MANIFEST).read_text())["tensors"]
    return [tensors[0] | changes, *tensors[1:]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shape": [10**12, 10**12]}, "cannot have"),
        ({"shape": [-1, -1]}, "cannot have"),
        ({"offset": 10**15}, "goes past the end of"),
        ({"offset": -64}, "goes past the end of"),
        ({"file": "elsewhere"}, "file 'elsewhere', which is not listed"),
        ({"dtype": "object"}, "of type 'object', which is not known"),
        ({"role": "code"}, "is a 'code'"),
    ],
)
def test_an_impossible_tensor_is_named(copy, changes, sentence) -> None:
    tensors = first_tensor(copy, **changes)
    edit(copy, tensors=tensors)
    message = refusal(copy)
    assert sentence in message
    assert tensors[0]["name"] in message


def test_a_tensor_that_is_listed_twice_is_refused(copy) -> None:
    tensors = first_tensor(copy)
    edit(copy, tensors=[*tensors, tensors[0]])
    assert "is listed twice" in refusal(copy)


def listed(folder: Path, **names) -> dict:
    """Return the manifest's files with more of them: names -> paths, relative to the folder."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    for name in names.values():
        entry = describe_file(folder / name)
        files[name] = {"bytes": entry.bytes, "sha256": entry.sha256}
    return files


@pytest.mark.parametrize("name", ["../secret", "tokenizer/../../secret"])
def test_a_file_outside_the_folder_is_refused(copy, name) -> None:
    (copy.parent / "secret").write_text("x")
    edit(copy, files=listed(copy, secret=name))
    assert "outside the folder" in refusal(copy)


@pytest.mark.parametrize("name", ["/etc/hostname", "C:secret", "..\\secret"])
def test_a_file_that_is_outside_on_any_system_is_refused(copy, name) -> None:
    edit(copy, files=listed(copy) | {name: {"bytes": 1, "sha256": "0"}})
    assert "outside the folder" in refusal(copy)


def test_a_link_out_of_the_folder_is_refused(copy) -> None:
    (copy / "vae_decoder.onnx").rename(copy.parent / "elsewhere.onnx")
    (copy / "vae_decoder.onnx").symlink_to(copy.parent / "elsewhere.onnx")
    assert "outside the folder" in refusal(copy)


def test_a_link_to_the_whole_folder_is_followed(copy) -> None:
    (copy.parent / "link").symlink_to(copy)
    assert open_artifact(copy.parent / "link").manifest == open_artifact(copy).manifest


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(copy) -> None:
    (copy / "step.weights").unlink()
    os.mkfifo(copy / "step.weights")
    assert "step.weights is missing or no file" in refusal(copy)


def test_a_listed_file_that_nothing_uses_does_no_harm(copy) -> None:
    (copy / "notes.txt").write_text("made on a Tuesday")
    edit(copy, files=listed(copy, notes="notes.txt"))
    assert open_artifact(copy).family == "sd1"


def test_a_file_that_is_not_listed_does_no_harm(copy) -> None:
    (copy / "step.py").write_text("raise SystemExit")
    assert open_artifact(copy).manifest == open_artifact(GOLDEN).manifest


@pytest.mark.parametrize("name", ["step.onnx", "vae_encoder.onnx", "embeddings.safetensors"])
def test_a_required_file_must_be_listed(copy, name) -> None:
    files = listed(copy)
    del files[name]
    edit(copy, files=files, tensors=[])
    assert f"file '{name}' is not listed" in refusal(copy)


@pytest.mark.parametrize("half", ["vae_encoder", "vae_decoder"])
def test_one_graph_in_strips_without_the_other_is_refused(copy, half) -> None:
    graph = (copy / f"{half}.onnx").read_bytes()
    (copy / f"{half}_strips.onnx").write_bytes(graph)
    edit(copy, files=listed(copy, name=f"{half}_strips.onnx"))
    assert "only one of vae_encoder_strips.onnx, vae_decoder_strips.onnx" in refusal(copy)


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its hash, as whoever makes a hostile artifact would."""
    (folder / name).write_bytes(content)
    edit(folder, files=listed(folder, name=name))


# As long as step.weights, so that every length inside the file stays right.
@pytest.mark.parametrize("place", ["../s.weights", "/etc/shadows", "./ep.weights", "steq.weights"])
def test_a_graph_that_reads_another_file_is_refused(copy, place) -> None:
    content = (copy / "step.onnx").read_bytes()
    rewrite(copy, "step.onnx", content.replace(b"step.weights", place.encode(), 1))
    assert f"reads its weights from {place!r}" in refusal(copy)


def test_a_graph_that_reads_past_the_end_of_its_weights_is_refused(copy) -> None:
    rewrite(copy, "vae_decoder.weights", (copy / "vae_decoder.weights").read_bytes()[:4096])
    edit(copy, tensors=[])
    assert "vae_decoder.onnx reads past the end of vae_decoder.weights" in refusal(copy)


def test_a_graph_newer_than_the_manifest_says_is_refused(copy) -> None:
    edit(copy, requires={"ir": 9, "opset": 18})
    assert "is of ir 10, manifest says 9" in refusal(copy)
    edit(copy, requires={"ir": 10, "opset": 17})
    assert "is of opset 18, manifest says 17" in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(100), b"\xff" * 100])
def test_a_file_that_is_no_graph_is_refused(copy, content) -> None:
    rewrite(copy, "vae_encoder.onnx", content)
    assert "vae_encoder.onnx: not an ONNX graph" in refusal(copy)


@pytest.mark.parametrize("keep", [0, 7, 20, 300])
def test_a_damaged_token_table_is_refused(copy, keep) -> None:
    rewrite(copy, "embeddings.safetensors", (copy / "embeddings.safetensors").read_bytes()[:keep])
    assert "not a whole safetensors file" in refusal(copy)


def test_a_token_table_of_another_width_is_refused(copy) -> None:
    edit(copy, text_widths=[24])
    assert "table 'text_encoder' is F32 [525, 16], expected floats, 24 a token" in refusal(copy)


def test_a_missing_tokenizer_is_refused(copy) -> None:
    shutil.rmtree(copy / "tokenizer")
    files = {name: e for name, e in listed(copy).items() if not name.startswith("tokenizer")}
    edit(copy, files=files)
    assert "tokenizer: no vocab.json" in refusal(copy)


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
