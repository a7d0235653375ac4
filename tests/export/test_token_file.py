"""The learned token loads in diffusers and by the rules of A1111, ComfyUI and stable-diffusion.cpp.

The rules of the last three are written down here from their documented behavior: what a loader
accepts, and which tensor it takes for which text encoder.
"""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.export.token_file import write_token

ONE = {"token": np.arange(12, dtype=np.float32).reshape(2, 6)}
TWO = {**ONE, "token_2": np.ones((2, 10), np.float32)}


def write(folder, blocks):
    (path,) = write_token(folder, "my-dog", "<my-dog>", blocks, {"steps": "7", "class_word": "dog"})
    return path


def test_one_encoder_gives_one_key_named_like_the_token(tmp_path):
    path = write(tmp_path, ONE)
    assert path.name == "my-dog.safetensors"
    tensors = load_file(path)
    assert list(tensors) == ["<my-dog>"]
    assert tensors["<my-dog>"].dtype == np.float32
    np.testing.assert_array_equal(tensors["<my-dog>"], ONE["token"])


def test_metadata_are_strings_that_say_where_it_came_from(tmp_path):
    with safe_open(write(tmp_path, ONE), framework="numpy") as file:
        metadata = file.metadata()
    assert metadata == {"format": "pt", "token": "<my-dog>", "steps": "7", "class_word": "dog"}


def load_like_a1111(tensors):
    """A single-key file is an embedding; XL needs clip_l and clip_g; anything else is an error."""
    if "clip_l" in tensors and "clip_g" in tensors:
        return [tensors["clip_l"], tensors["clip_g"]]
    if len(tensors) != 1:
        raise ValueError("Couldn't identify as a textual inversion embedding")
    (vectors,) = tensors.values()
    return [vectors[None] if vectors.ndim == 1 else vectors]


def load_like_comfyui(tensors, encoder):
    """The encoder's own key if present, else the first tensor of the file."""
    if encoder in tensors:
        return tensors[encoder]
    return next(iter(tensors.values()))


def load_like_sd_cpp(tensors, width):
    """Tensors are matched by their width; the file's name is the trigger word."""
    return [value for value in tensors.values() if value.shape[-1] == width]


def test_one_encoder_loads_everywhere(tmp_path):
    tensors = load_file(write(tmp_path, ONE))
    np.testing.assert_array_equal(load_like_a1111(tensors)[0], ONE["token"])
    np.testing.assert_array_equal(load_like_comfyui(tensors, "clip_l"), ONE["token"])
    np.testing.assert_array_equal(load_like_sd_cpp(tensors, 6)[0], ONE["token"])


def test_two_encoders_load_where_xl_loads(tmp_path):
    tensors = load_file(write(tmp_path, TWO))
    for found, expected in zip(load_like_a1111(tensors), TWO.values(), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(load_like_comfyui(tensors, "clip_g"), TWO["token_2"])
    np.testing.assert_array_equal(load_like_comfyui(tensors, "clip_l"), TWO["token"])


@pytest.mark.parametrize("vectors", [1, 3])
def test_diffusers_itself_loads_it(tmp_path, vectors):
    pytest.importorskip("torch")
    pipelines = pytest.importorskip("diffusers")
    from edge_train.formats.diffusion_folder import EMBEDDED
    from edge_train.formats.hub import find_model

    folder = find_model(EMBEDDED).path
    pipeline = pipelines.StableDiffusionPipeline.from_pretrained(folder)
    values = np.random.default_rng(0).standard_normal((vectors, 128)).astype(np.float32)
    pipeline.load_textual_inversion(str(write(tmp_path, {"token": values})))
    ids = pipeline.tokenizer.convert_tokens_to_ids(
        ["<my-dog>", *(f"<my-dog>_{i}" for i in range(1, vectors))]
    )
    table = pipeline.text_encoder.get_input_embeddings().weight.detach().float().numpy()
    np.testing.assert_allclose(table[ids], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_a_token_learned_on_the_engine_draws_in_diffusers(
    exported, photos, tmp_path, quant
) -> None:
    diffusers = pytest.importorskip("diffusers")
    out = tmp_path / "run"
    words = ["run", str(photos), "--model", str(exported.artifacts[quant]), "--class", "dog"]
    words += ["--steps", "3", "--epsilon", "0.1", "--threads", "1", "--preview-steps", "1"]
    assert cli.main([*words, "--prompt", "a {}", "--out", str(out)]) == 0
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(exported.model)
    pipeline.load_textual_inversion(str(out / "my-dog.safetensors"))
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        "a photo of <my-dog>", num_inference_steps=2, height=32, width=32, output_type="np"
    ).images
    assert pictures.shape == (1, 32, 32, 3)
    assert np.isfinite(pictures).all()
    ours = load_file(out / "my-dog.safetensors")["<my-dog>"]
    index = pipeline.tokenizer.convert_tokens_to_ids("<my-dog>")
    table = pipeline.text_encoder.get_input_embeddings().weight.detach().float().numpy()
    np.testing.assert_allclose(table[index], ours[0], rtol=1e-3, atol=1e-3)
