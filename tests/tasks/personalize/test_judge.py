"""Promises of the judge: NumPy alone gives the network's answers, and they are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from edge_train.tasks.personalize.judge import Judge

DATA = ROOT / "edge_train" / "data"
WEIGHTS = DATA / "judge.safetensors"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(WEIGHTS)


def random_pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_scores_equal_the_same_network_in_torch(judge: Judge) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(WEIGHTS, framework="pt") as file:
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        strides = json.loads(file.metadata()["strides"])
    images = random_pictures(35)  # more than one batch
    hidden = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    for index, stride in enumerate(strides):
        layer = f"convolution.{index}"
        hidden = torch.nn.functional.conv2d(
            hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride, padding=1
        ).relu()
    expected = hidden.flatten(1) @ weights["heads.weight"].T + weights["heads.bias"]
    # Both sum float32 products, in another order.
    tolerance = 1e-4 * float(expected.abs().max())
    np.testing.assert_allclose(judge.scores(images), expected.numpy(), rtol=0, atol=tolerance)


def test_shipped_photos_are_recognized(judge: Judge) -> None:
    right = []
    photos = sorted((DATA / "photos").glob("*/*.png"))
    for path in photos:
        verdict = judge.predict(np.asarray(Image.open(path))[None])
        caption = path.with_suffix(".txt").read_text().strip()
        color = judge.color_names[verdict.color_index[0]]
        background = judge.background_names[verdict.background_index[0]]
        assert caption == f"a photo of a {color} {{}} on a {background} background"
        right.append(judge.class_names[verdict.class_index[0]] == path.parent.name)
    assert len(photos) == 15
    assert sum(right) >= 13


def test_class_share_counts_one_class(judge: Judge) -> None:
    verdict = judge.predict(random_pictures(8))
    shares = [judge.class_share(verdict, name) for name in judge.class_names]
    assert sum(shares) == pytest.approx(1)


def test_a_picture_takes_fewer_than_thirty_million_multiplications(judge: Judge) -> None:
    """At a billion a second, what NumPy does on a small board, that is 0.03 s."""
    side, products = 32, 0
    for weight, _, stride in judge.convolutions:
        side //= stride
        products += side * side * weight.size
    assert products + judge.heads[0].size < 30e6


def test_wrong_pictures_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match=r"float64 \(1, 32, 32, 3\), expected uint8"):
        judge.predict(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"uint8 \(32, 32, 3\)"):
        judge.predict(np.zeros((32, 32, 3), np.uint8))


def test_no_pictures_give_an_empty_verdict(judge: Judge) -> None:
    assert judge.predict(np.zeros((0, 32, 32, 3), np.uint8)).class_index.shape == (0,)


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"format": "other"}}).encode()
    path = tmp_path / "other.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="format is 'other', expected 'edge-train judge 1'"):
        Judge.load(path)
