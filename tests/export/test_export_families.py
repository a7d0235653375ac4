"""Stable Diffusion 2 and XL, however their weights are stored, become artifacts that train."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from edge_train import cli
from edge_train.arrays.parameters import Parameters
from edge_train.errors import ModelError
from edge_train.formats.artifact import open_artifact
from edge_train.formats.diffusion_folder import open_model
from edge_train.records import checkpoint
from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tiny_models import make_tiny_model, prompt_ids

from edge_train.export.diffusion_graphs import step_graph
from edge_train.runtimes.onnx import vae as onnx_vae
from edge_train.runtimes.onnx.diffusion import OnnxDiffusion
from edge_train.runtimes.torch.diffusion import TorchDiffusion
from edge_train.tasks.personalize import export as exporting

# Largest difference of a loss from torch's float32, as a share. `none`: float32 sums in another
# order, measured 2.4e-7. `int8-fast`: what rounding itself does, measured 1.9e-3 and 2.9e-3. Its
# integer sums are exact on every processor (test_products.py); the float sums around them can move
# single numbers to the next level, which adds less than rounding did: two engines differ by 4e-4.
ERRORS = {"none": 1e-5, "int8-fast": 0.01}


def configure(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder, stem: str) -> None:
    """Store the weights of a component in two files and an index, as large models come."""
    path = folder / f"{stem}.safetensors"
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    parts = {"00001": names[: len(names) // 2], "00002": names[len(names) // 2 :]}
    places = {}
    for number, own in parts.items():
        file = f"{stem}-{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in own}, folder / file)
        places |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def give_old_names(folder) -> None:
    """Name a VAE's attention layers as checkpoints before 2023 did."""
    path = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new_name, name in old.items():
        found = {key for key in tensors if f".{new_name}." in key}
        assert found
        for key in found:
            tensors[key.replace(f".{new_name}.", f".{name}.")] = tensors.pop(key)
    save_file(tensors, path)


def make_model(folder, family):
    """Return a tiny model with what the published ones of its family have."""
    import torch

    if family == "sd2":  # a list of heads, upcast attention, gelu, float16 in shards
        model = make_tiny_model(folder, "sd2", widths=(16,), dtype=torch.float16)
        unet = model / "unet" / "config.json"
        configure(unet, attention_head_dim=[4], upcast_attention=True)
        configure(model / "text_encoder" / "config.json", hidden_act="gelu")
        shard(model / "unet", "diffusion_pytorch_model")
        shard(model / "text_encoder", "model")
    else:
        model = make_tiny_model(folder, "sdxl", widths=(16,))
        give_old_names(model / "vae")
    return model


@pytest.fixture(scope="module", params=["sd2", "sdxl"])
def family(request, tmp_path_factory, exported):
    """Return a model and two of its artifacts; the step's graph is made once."""
    root = tmp_path_factory.mktemp(request.param)
    model = make_model(root / "model", request.param)
    step = step_graph(open_model(model), 32)
    with pytest.MonkeyPatch.context() as patch:
        effort = replace(exporting._EFFORT, slope_samples=1, calibration_samples=8)
        patch.setattr(exporting, "_EFFORT", effort)
        patch.setattr(exporting, "step_graph", lambda *_: step.clone())
        patch.setattr(exporting, "vae_graphs", lambda *_: [g.clone() for g in exported.vae_graphs])
        for quant in ERRORS:
            exporting.export(
                str(model),
                root / quant,
                quant=quant,
                photos=None,
                resolution=None,
                threads=1,
                say=print,
            )
    artifacts = {quant: root / quant for quant in ERRORS}
    return SimpleNamespace(name=request.param, model=model, artifacts=artifacts)


def batch_for(family):
    draw = np.random.default_rng(0)
    shape = (4, 4, 8, 8)
    batch = {
        "latents": draw.standard_normal(shape).astype(np.float32),
        "target": draw.standard_normal(shape).astype(np.float32),
        "timesteps": np.array([10, 300, 600, 950]),
        "ids": np.array([prompt_ids("a", "photo", "of", -1)] * 4),
    }
    if family.name == "sdxl":
        batch["ids_2"] = np.array([prompt_ids("a", "photo", "of", -1, pad=0)] * 4)
        batch["time_ids"] = np.tile(np.array([32, 32, 0, 0, 32, 32], np.float32), (4, 1))
    return batch


def point_for(family, scale):
    draw, widths = np.random.default_rng(1), {"token": 32}
    if family.name == "sdxl":
        widths["token_2"] = 48
    return {n: scale * draw.standard_normal((1, w)).astype(np.float32) for n, w in widths.items()}


def token_ids(batch):
    names = [name for name in ("ids", "ids_2") if name in batch]
    return [sorted({i for i in batch[name].ravel().tolist() if i >= 0}) for name in names]


def test_the_manifest_knows_the_family(family) -> None:
    manifest = open_artifact(family.artifacts["none"]).manifest
    assert manifest.family == family.name
    assert manifest.prediction_type == ("v_prediction" if family.name == "sd2" else "epsilon")
    assert manifest.text_widths == ((32,) if family.name == "sd2" else (32, 48))


@pytest.mark.parametrize("quant", ERRORS)
def test_losses_are_those_of_torch(family, quant) -> None:
    batch, points = batch_for(family), [point_for(family, 0.1), point_for(family, 3.0)]
    exact = TorchDiffusion.open(
        open_model(family.model),
        Parameters(points[0]),
        dtype="float32",
        device="cpu",
        token_ids=token_ids(batch),
        threads=1,
    )
    expected = exact.forward(batch, points)
    exact.close()
    runtime = OnnxDiffusion(
        open_artifact(family.artifacts[quant]),
        Parameters(points[0]),
        device="cpu",
        token_ids=token_ids(batch),
        threads=1,
    )
    losses = runtime.forward(batch, points)
    np.testing.assert_allclose(losses, expected, rtol=ERRORS[quant])
    assert (losses[0] != losses[1]).all(), "the token does not matter"
    for name in points[1]:  # every block has its own say
        one = runtime.forward(batch, [{**points[0], name: points[1][name]}])[0]
        assert (one != losses[0]).all(), name
    runtime.close()


def test_latents_of_photos_are_those_of_torch(family) -> None:
    from edge_train.runtimes.torch import vae as torch_vae

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    expected = torch_vae.encode_photos(open_model(family.model), images, "cpu")
    found = onnx_vae.encode_photos(open_artifact(family.artifacts["none"]), images, "cpu", 1)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("quant", ERRORS)
def test_a_run_moves_every_block_and_draws(family, quant, tmp_path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")
    words = ["run", str(photos), "--model", str(family.artifacts[quant]), "--class", "dog"]
    words += ["--steps", "3", "--threads", "1", "--preview-steps", "2", "--prompt", "a {}"]
    # A random model hardly responds to its token: the radius is given, not looked for.
    assert cli.main([*words, "--epsilon", "0.1", "--out", str(tmp_path / "run")]) == 0
    tensors = load_file(tmp_path / "run" / "my-dog.safetensors")
    names = {"<my-dog>"} if family.name == "sd2" else {"clip_l", "clip_g"}
    assert names <= tensors.keys()
    snapshot, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints", at_most=3)
    moved = snapshot.parameters  # the token that is saved is the best, which may be the start
    assert moved.keys() == point_for(family, 1.0).keys()
    artifact = open_artifact(family.artifacts[quant])
    for block, component, folder in zip(
        moved, artifact.text_encoders, artifact.tokenizers, strict=True
    ):
        ids = PromptTokenizer.from_folder(folder).word_ids("dog")
        start = artifact.embedding_rows(component, ids).mean(axis=0)
        assert (moved[block] != start).all(), block
    assert len(list((tmp_path / "run" / "samples").glob("after-*.png"))) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_embed_type", "timestep"),
        ("num_class_embeds", 10),
        ("encoder_hid_dim_type", "image_proj"),
        ("addition_embed_type", "image"),
    ],
)
def test_a_unet_with_other_conditions_is_refused_by_name(tmp_path, key, value) -> None:
    model = make_tiny_model(tmp_path / "model", widths=(16,))
    configure(model / "unet" / "config.json", **{key: value})
    with pytest.raises(ModelError, match=f"{key}.*{value}"):
        open_model(model)


def test_an_xl_without_its_added_conditions_is_refused(tmp_path) -> None:
    model = make_tiny_model(tmp_path / "model", "sdxl", widths=(16,))
    configure(model / "unet" / "config.json", addition_embed_type=None)
    with pytest.raises(ModelError, match="addition_embed_type None"):
        open_model(model)
