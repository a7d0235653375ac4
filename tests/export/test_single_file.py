"""A single-file checkpoint becomes a folder with the same numbers; nothing is downloaded."""

import pytest

from edge_train import cli

pytest.importorskip("diffusers")

from original_layout import write_single_file
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_model

from edge_train.formats.hub import find_model


def tensors_of(folder):
    found = {}
    for component in ("unet", "vae", "text_encoder"):
        tensors = load_file(next((folder / component).glob("*.safetensors")))
        plain = {name.removeprefix("text_model."): value for name, value in tensors.items()}
        found |= {f"{component}.{name}": value for name, value in plain.items()}
    return found


@pytest.mark.slow
def test_a_checkpoint_in_the_original_layout_becomes_the_folder_that_it_was(tmp_path):
    model = make_tiny_model(tmp_path / "model")
    file = write_single_file(model, tmp_path / "checkpoint.safetensors")
    out = tmp_path / "out"
    words = ["export", str(file), str(out), "--for", "folder", "--config", str(model)]
    assert cli.main(words) == 0
    expected, found = tensors_of(model), tensors_of(out)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    one, other = find_model(str(model)), find_model(str(out))
    assert (one.family, one.resolution) == (other.family, other.resolution)


def test_what_is_no_checkpoint_is_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    import torch

    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.weight": torch.zeros(2, 2)}, lora)
    assert cli.main(["export", str(lora), str(tmp_path / "out"), "--for", "folder"]) == 2
    assert "is no single-file Stable Diffusion checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    packed = tmp_path / "fp8.safetensors"
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({name: torch.zeros(2, 2, dtype=torch.float8_e4m3fn)}, packed)
    assert cli.main(["export", str(packed), str(tmp_path / "out"), "--for", "folder"]) == 2
    assert "fp8.safetensors: holds F8_E4M3 weights" in capsys.readouterr().err
    assert cli.main(["export", str(lora), str(tmp_path / "out"), "--config", "x"]) == 2
    assert "--config is for --for folder" in capsys.readouterr().err
