"""Write what edge-train ships: the stock pipeline, its card, and example photos."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from networks import Painter, make_scheduler, write_tokenizer
from pictures import BACKGROUNDS, CLASSES, COLORS, Grey, paint, sentence, to_bytes
from training import keyed

CONCEPTS = ("bag", "sneaker", "three")  # the photos to personalize with
PHOTOS = 5  # of each concept


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, which is removed."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def write_pipeline(
    painter: Painter, vae: AutoencoderKL, words: tuple[str, ...], folder: Path
) -> None:
    """Write a Stable Diffusion pipeline in float16; replaces `folder`.

    The networks are converted in place. `words` are the tokenizer's.
    """
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    tokenizer = write_tokenizer(words, new / "tokenizer")
    for network in (vae, painter.text_encoder, painter.unet):
        network.half()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=painter.text_encoder,
        tokenizer=tokenizer,
        unet=painter.unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(new)
    for weights in new.glob("*/*.safetensors"):
        weights.chmod(0o644)
    # transformers loads in the dtype written here, diffusers in float32: they must agree.
    settings = new / "text_encoder" / "config.json"
    config = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", "utf-8")
    shutil.rmtree(new / "tokenizer")
    write_tokenizer(words, new / "tokenizer")  # only the two files that CLIP always had
    replace_folder(new, folder)


def write_card(card: str, facts: dict[str, object], folder: Path) -> None:
    """Write the model card into the pipeline's folder; `card` is its file, with {names} to fill."""
    text = Path(__file__).with_name(card).read_text("utf-8").format(**facts)
    (folder / "README.md").write_text(text, "utf-8")


def write_photos(test: Grey, seed: int, folder: Path) -> None:
    """Write five 32x32 test pictures of each concept with their captions; replaces `folder`.

    The five differ in color and in background. `{}` in a caption stands for the noun.
    """
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    color_names, background_names = tuple(COLORS), tuple(BACKGROUNDS)
    for concept in CONCEPTS:
        generator = keyed(seed, f"photos-{concept}", 0)
        candidates = torch.nonzero(test.labels == CLASSES.index(concept)).flatten()
        rows = candidates[torch.randperm(len(candidates), generator=generator)[:PHOTOS]]
        same = True
        while same:
            color = torch.randperm(len(COLORS), generator=generator)[:PHOTOS]
            background = torch.randperm(len(BACKGROUNDS), generator=generator)[:PHOTOS]
            names = zip(color.tolist(), background.tolist(), strict=True)
            same = any(color_names[c] == background_names[b] for c, b in names)
        count = len(rows)
        pixels = paint(
            test.images[rows],
            color[:count],
            background[:count],
            zoom=torch.ones(count),
            center=torch.zeros(count, 2),
            light=torch.ones(count, 2),
        )
        (new / concept).mkdir(parents=True)
        for index, picture in enumerate(to_bytes(pixels)):
            caption = sentence(
                "{}",
                color_names[int(color[index])],
                background_names[int(background[index])],
                False,
                "a photo of a",
            )
            stem = new / concept / f"{index + 1:02d}"
            Image.fromarray(picture).save(stem.with_suffix(".png"))
            stem.with_suffix(".txt").write_text(caption + "\n", "utf-8")
    replace_folder(new, folder)
