"""The last blocks of a backbone are trained with the head: gradients, runs, answers, refusals."""

import json

import numpy as np
import pytest
from running import kill, run_to_the_end, steps_in
from timm_golden import GOLDEN, pixels_of, write_folder
from tiny_backbone import write_backbone, write_classes

from edge_train import cli
from edge_train.formats.tensor_store import load_tensors
from edge_train.formats.vision_folder import open_vision_folder
from edge_train.rng import Key
from edge_train.tasks.images.backbone import find_backbone

pytest.importorskip("torch")
NETWORKS = json.loads(GOLDEN.read_text())["networks"]


def network(folder, name):
    return write_folder(folder, NETWORKS[name]["shapes"], NETWORKS[name]["config"])


def stage_of(folder, blocks):
    from edge_train.runtimes.torch.picture_tail import PictureTail

    return PictureTail(open_vision_folder(folder), blocks)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "deit_tiny_patch16_32"])
def test_untrained_it_gives_the_frozen_features_divided_by_their_size(name, tmp_path):
    folder = network(tmp_path, name)
    rows = find_backbone(str(folder), None, 1).opened(1)(pixels_of(32))
    stage = stage_of(folder, 1)
    found, _ = stage.forward(stage.start(Key(0, 0)), rows)
    wanted = np.array(NETWORKS[name]["features"], np.float32)
    wanted /= np.sqrt((wanted**2).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["convnextv2_atto", "deit_tiny_patch16_32"])
def test_gradients_are_slopes_of_the_loss(name, tmp_path):
    folder, draw = network(tmp_path, name), np.random.default_rng(0)
    rows = find_backbone(str(folder), None, 2).opened(1)(
        np.concatenate([pixels_of(32)] * 5)  # more than are differentiated at once
    )
    stage = stage_of(folder, 2)
    start = stage.start(Key(0, 0))
    found, tape = stage.forward(start, rows)
    error = draw.standard_normal(found.shape).astype(np.float32)
    gradients, passed = stage.backward(tape, error, False)
    assert passed is None and gradients.keys() == stage.shapes().keys()
    for some in list(start)[::5]:
        along = draw.standard_normal(start[some].shape).astype(np.float32)
        ends = []
        for sign in (-0.5, 0.5):
            moved = {**start, some: np.float32(sign) * along}
            ends.append(float((stage.forward(moved, rows)[0].astype(np.float64) * error).sum()))
        slope = float((gradients[some].astype(np.float64) * along).sum())
        # losses of float32 differ by their last digits, and a step of half bends a little
        assert ends[1] - ends[0] == pytest.approx(slope, rel=0.05, abs=3e-3), some


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    write_classes(folder / "pets", side=32)
    network(folder / "deit", "deit_tiny_patch16_32")
    write_backbone(folder / "tiny.onnx")
    return folder


def words(given, *more):
    return (
        *("--task", "images", "--data", given / "pets", "--model", given / "deit"),
        *("--trained-blocks", "1", "--views", "2", "--samples", "8", "--threads", "1", *more),
    )


@pytest.mark.process
def test_a_run_trains_the_block_under_its_cap_and_answers_with_it(given, tmp_path, capsys):
    out = tmp_path / "run"
    asked = ("run", *words(given, "--steps", "40", "--mem", "900MB", "--json"))
    run_to_the_end(*asked, "--out", out, out=out)
    report = json.loads((out / "report.json").read_text())
    assert report["eval"]["best"] < 0.5 * report["eval"]["first"]
    assert report["measured_peak_bytes"] <= report["cap_bytes"]
    tensors, about = load_tensors(out / "classifier.safetensors")
    assert about["trained_blocks"] == "1"
    changed = [name for name, value in tensors.items() if ".tail." in name and value.any()]
    assert "head.tail.blocks.1.attn.qkv.weight" in changed
    assert not [name for name in tensors if "tail.blocks.0" in name]
    assert cli.main(["infer", str(out), str(given / "pets" / "owl"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["nearest"] for one in answers] == ["owl"] * 6
    assert cli.main(["audit", str(out)]) == 2
    assert "its backbone was trained with it" in capsys.readouterr().err


@pytest.mark.process
def test_killed_and_resumed_it_ends_with_the_same_bits(given, tmp_path):
    asked = ("run", *words(given, "--steps", "60"))
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_to_the_end(*asked, "--out", whole, out=whole)
    assert kill((*asked, "--out", out), out, 12, 0.01)
    assert 0 < steps_in(out) < 60
    run_to_the_end("run", "--resume", out, out=out)
    name = "classifier.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_what_cannot_be_trained_is_refused(given, capsys):
    for more, says in (
        (("--trained-blocks", "3"), "has 2 blocks; train from 1 to 2"),
        (("--model", given / "tiny.onnx"), "is not in timm's layout"),
        (("--method", "tpsgd"), "which method 'tpsgd' does not train"),
    ):
        assert cli.main(["run", *map(str, words(given, *more))]) == 2
        assert says in capsys.readouterr().err
