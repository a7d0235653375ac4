"""Promises of the pretraining script: it runs, resumes bit for bit, and keeps classes held out."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from places import ROOT
from running import STALLED_SECONDS

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

pytestmark = pytest.mark.process
FOLDER = ROOT / "demos" / "tiny_sd"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six noise pictures a class and split."""
    folder = tmp_path_factory.mktemp("data")
    labels = np.tile(np.arange(10), 6)
    noise = np.random.default_rng(0).integers(0, 256, (2, 60, 28, 28), dtype=np.uint8)
    for name in ("fashion_mnist", "mnist"):
        np.savez(
            folder / f"{name}.npz",
            train_images=noise[0],
            train_labels=labels,
            test_images=noise[1],
            test_labels=labels,
        )
    return folder


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("pictures")


@pytest.fixture
def mixes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("mixes")


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts the script, which ends with the test at the latest."""
    with ExitStack() as stack:

        def start(
            data: Path, work: Path, out: Path, recipe: str = "tiny_sd"
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(FOLDER / "pretrain.py"), "--quick"]
                + ["--data", str(data), "--work", str(work), "--out", str(out)]
                + ["--recipe", recipe],
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)  # waits for it
            stack.callback(process.kill)  # before that
            return process

        yield start


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=STALLED_SECONDS)
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["tiny_sd", "wide_clothes"])
def test_killed_run_resumes_to_the_same_pipeline(
    recipe: str, start: Start, data: Path, tmp_path: Path
) -> None:
    finish(start(data, tmp_path / "work", tmp_path / "out", recipe))
    killed = start(data, tmp_path / "other-work", tmp_path / "other-out", recipe)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("painter step 3/"):
            killed.kill()
            break
    killed.communicate()
    assert killed.returncode != 0
    assert not (tmp_path / "other-out" / recipe).exists()
    finish(start(data, tmp_path / "other-work", tmp_path / "other-out", recipe))

    straight = sorted(path for path in (tmp_path / "out").rglob("*.safetensors"))
    assert len(straight) == 4  # judge, text encoder, UNet, VAE
    for path in straight:
        resumed = tmp_path / "other-out" / path.relative_to(tmp_path / "out")
        assert resumed.read_bytes() == path.read_bytes()
    paint_one_picture(tmp_path / "out" / recipe)


def paint_one_picture(folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder)  # float16 files, float32 networks
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a photo of a red boot", num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 32, 32, 3)
    ids = pipeline.tokenizer("Any text: 1 zebra, ünï").input_ids
    assert ids[0] == pipeline.text_encoder.config.bos_token_id
    assert ids[-1] == pipeline.text_encoder.config.eos_token_id
    assert pipeline.tokenizer.decode(ids, skip_special_tokens=True) == "any text : 1 zebra , ünï"


def test_held_out_classes_are_never_shown(
    data: Path, pictures: ModuleType, mixes: ModuleType
) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    shown = pictures.load_grey(data, "train").without(pictures.HELD_OUT)
    batch = pictures.compose(shown, 2000, generator)
    labels = {pictures.CLASSES[label] for label in batch.label.tolist()}
    assert labels == set(pictures.CLASSES) - {"sneaker", "seven"}
    facts = (batch.label, batch.color, batch.background, batch.small)
    captions = mixes.CLOTHES.describe(*facts, generator)
    words = {word for caption in captions for word in caption.split()}
    assert not words & {"sneaker", "seven", "bag", "three"}
    assert set(pictures.NAMED) <= words


@pytest.fixture
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos a class and split: red, on the edge blue."""
    folder = tmp_path_factory.mktemp("photos")
    picture = np.full((32, 32, 3), (45, 85, 225), np.uint8)
    picture[4:-4, 4:-4] = (225, 40, 40)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=95)
    data = np.frombuffer(file.getvalue(), np.uint8)
    parts = {}
    for split in ("train", "test"):
        parts[f"{split}_jpeg"] = np.tile(data, 30)
        parts[f"{split}_offsets"] = np.arange(31) * len(data)
        parts[f"{split}_labels"] = np.tile(np.arange(10), 3)
    np.savez(folder / "cifar10_subset_jpeg.npz", **parts)
    return folder


def test_photos_are_described_by_the_colors_that_they_have(
    photos: Path, mixes: ModuleType, pictures: ModuleType
) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    mix = mixes.PHOTOS
    batch = mix.compose(mix.load(photos, "train").without(mix.held_out), 300, generator)
    assert {list(pictures.COLORS)[i] for i in batch.color.tolist()} == {"red"}
    assert {list(pictures.BACKGROUNDS)[i] for i in batch.background.tolist()} == {"blue"}
    facts = (batch.label, batch.color, batch.background, batch.small)
    words = {word for text in mix.describe(*facts, generator) for word in text.split()}
    assert not words & {"horse", "frog", "small"}
    assert {*mix.named, "red", "blue"} <= words <= set(mix.vocabulary)


def test_missing_data_is_one_sentence(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path, tmp_path / "work", tmp_path / "out")
    output, _ = process.communicate(timeout=STALLED_SECONDS)
    assert process.returncode == 2
    assert "fashion_mnist.npz is missing; pass the folder that holds it as --data." in output
    assert "Traceback" not in output


@pytest.fixture
def pretrain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("pretrain")


def test_a_work_folder_is_of_one_recipe(pretrain: ModuleType, tmp_path: Path) -> None:
    wide, tiny = pretrain.RECIPES["wide_clothes"], pretrain.RECIPES["tiny_sd"]
    pretrain.claim(tmp_path / "work", wide)
    pretrain.claim(tmp_path / "work", wide)
    with pytest.raises(pretrain.OtherPlan, match="begun with another recipe; use another --work"):
        pretrain.claim(tmp_path / "work", tiny)


def test_minutes_and_bytes_are_said_before_training(pretrain: ModuleType, tmp_path: Path) -> None:
    wide = pretrain.RECIPES["wide_clothes"]
    tokenizer = pretrain.write_tokenizer(wide.mix.vocabulary, tmp_path)
    said = pretrain.expected(wide, tokenizer)
    assert "about 100 minutes of one AVX-512 core" in said
    assert "MB of checkpoints" in said and "Same bits again: torch " in said
    assert wide.sizes.text_width == 768


@pytest.mark.parametrize(
    ("has", "type_name"), [(True, "bfloat16"), (False, "float32"), (None, "float32")]
)
def test_the_text_encoder_multiplies_in_what_the_processor_has(
    pretrain: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    has: bool | None,
    type_name: str,
    tmp_path: Path,
) -> None:
    wide = pretrain.RECIPES["wide_photos"]
    monkeypatch.setattr(pretrain, "multiplies_bfloat16", lambda: has)
    assert str(pretrain.text_type(wide)) == f"torch.{type_name}"
    tokenizer = pretrain.write_tokenizer(wide.mix.vocabulary, tmp_path)
    assert f"text encoder in {type_name}, " in pretrain.expected(wide, tokenizer)


def test_only_the_tiny_model_is_written_into_the_package(
    pretrain: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = [recipe.name for recipe in pretrain.RECIPES.values() if recipe.shipped]
    assert shipped == ["tiny_sd"]
    words = ["pretrain.py", "--recipe", "wide_clothes", "--out", str(pretrain.SHIPPED)]
    monkeypatch.setattr(sys, "argv", words)
    assert pretrain.main() == 2
    assert "wide_clothes is not shipped; use another --out." in capsys.readouterr().err
