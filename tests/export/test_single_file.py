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
    for file in folder.glob("*/*.safetensors"):
        component, tensors = file.parent.name, load_file(file)
        plain = {name.removeprefix("text_model."): value for name, value in tensors.items()}
        found |= {f"{component}.{name}": value for name, value in plain.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_checkpoint_in_the_original_layout_becomes_the_folder_that_it_was(
    tmp_path, capsys, family
):
    model = make_tiny_model(tmp_path / "model", family)
    file = write_single_file(model, tmp_path / "checkpoint.safetensors")
    out = tmp_path / "out"
    words = ["export", str(file), str(out), "--for", "folder", "--config", str(model)]
    assert cli.main(words) == 0
    expected, found = tensors_of(model), tensors_of(out)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    one, other = find_model(str(model)), find_model(str(out))
    assert (one.family, one.resolution) == (other.family, other.resolution)
    assert one.prediction_type == other.prediction_type
    assert f"predicts {one.prediction_type}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("family", "wrong"), [("sdxl", "sd1"), ("sd1", "sdxl"), ("sd2", "sd1")])
def test_the_configuration_of_another_kind_of_model_is_one_sentence(
    tmp_path, capsys, family, wrong
):
    model = make_tiny_model(tmp_path / "model", family)
    other = make_tiny_model(tmp_path / "other", wrong)
    file = write_single_file(model, tmp_path / "checkpoint.safetensors")
    words = ["export", str(file), str(tmp_path / "out"), "--for", "folder", "--config", str(other)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "diffusers cannot convert it" in said and "--config" in said
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    import torch

    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.weight": torch.zeros(2, 2)}, lora)
    assert cli.main(["export", str(lora), str(tmp_path / "out"), "--for", "folder"]) == 2
    assert "is no single-file Stable Diffusion checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    inpainting = tmp_path / "inpainting.safetensors"
    save_file({name: torch.zeros(8, 9, 3, 3)}, inpainting)
    assert cli.main(["export", str(inpainting), str(tmp_path / "out"), "--for", "folder"]) == 2
    assert "'inpainting'" in (said := capsys.readouterr().err) and "1.x, 2.x or XL base" in said
    packed = tmp_path / "fp8.safetensors"
    save_file({name: torch.zeros(2, 2, dtype=torch.float8_e4m3fn)}, packed)
    assert cli.main(["export", str(packed), str(tmp_path / "out"), "--for", "folder"]) == 2
    assert "fp8.safetensors: holds F8_E4M3 weights" in capsys.readouterr().err
    assert cli.main(["export", str(lora), str(tmp_path / "out"), "--config", "x"]) == 2
    assert "--config is for --for folder" in capsys.readouterr().err
