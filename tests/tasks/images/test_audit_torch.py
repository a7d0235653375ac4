"""An audit on a torch backbone, which has slopes: they are right, and a patch is fitted by them."""

import json

import numpy as np
import pytest
from tiny_backbone import write_classes

from edge_train import cli
from edge_train.formats.vision_folder import open_vision_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A vision transformer of random weights for pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("backbone") / "vit"
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=32, patch_size=8, initializer_range=0.3
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.ViTModel(config).save_pretrained(folder)
    return folder


def test_the_way_back_to_pixels_agrees_with_differences(backbone):
    from edge_train.runtimes.torch.pictures import TorchPictures

    network = TorchPictures(open_vision_folder(backbone), 1)
    draw = np.random.default_rng(0)
    pixels = draw.uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    features, back = network.differentiable(pixels)
    np.testing.assert_allclose(features, network(pixels), rtol=1e-5, atol=1e-6)
    error = draw.standard_normal(features.shape).astype(np.float32)
    gradient = back(error)
    assert gradient.shape == pixels.shape
    for _ in range(3):
        way = draw.standard_normal(pixels.shape).astype(np.float32)
        further, nearer = (network(pixels + sign * way) for sign in (1, -1))
        expected = float(((further - nearer).astype(np.float64) * error).sum()) / 2
        # a step of one grey level bends a little: within a tenth of the steepest way of that size
        steepest = float(np.linalg.norm(gradient) * np.linalg.norm(way)) / np.sqrt(way.size)
        assert abs(float((gradient * way).sum()) - expected) < 0.1 * steepest
    assert all(one.grad is None for one in network._network.parameters())


@pytest.mark.process
def test_a_patch_is_fitted_by_exact_slopes_under_a_cap(backbone, tmp_path):
    write_classes(tmp_path / "pets", side=32)
    run = tmp_path / "run"
    words = ("--task", "images", "--model", str(backbone), "--steps", "60", "--threads", "1")
    assert cli.main(["run", str(tmp_path / "pets"), *words, "--out", str(run)]) == 0
    budget = ("--forwards", "2400", "--threads", "1", "--mem", "2GB")  # pytest itself is in it
    assert cli.main(["audit", str(run), *budget]) == 0
    found = json.loads((run / "audit.json").read_text())
    assert found["slopes"] == "exact"
    leads = {row["patch"]: row["lead"] for row in found["rows"]}
    assert leads["fitted through 1 view"] < min(leads["grey"], leads["random"])
    assert leads["fitted through 3 views"] < leads["none"]
