"""Pictures of a token: sample latents, decode them, write PNG files, score them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_train.arrays.types import Array, Point
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import DATA
from edge_train.rng import Key
from edge_train.tasks.personalize.judge import Judge
from edge_train.tasks.personalize.parts import TokenJob, decode_latents
from edge_train.tasks.personalize.sampler import sample
from edge_train.tasks.personalize.serving import Denoiser

Pixels = NDArray[np.uint8]
_PICTURES = Key(0, -3)  # the noise that previews start from is the same in every run
JUDGED = 64  # pictures of the embedded model's score


def draw(
    job: TokenJob,
    runtime: Denoiser,
    point: Point,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    together: int = 8,
) -> Pixels:
    """Return one picture (height, width, 3) per prompt; picture i always starts from noise i."""
    latents = sample_latents(job, runtime, point, prompts, seed=seed, together=together)
    if runtime.pages is not None:
        runtime.pages.release()  # the decoder needs the room; they are read again when needed
    return decode_latents(job, latents)


def sample_latents(
    job: TokenJob,
    runtime: Denoiser,
    point: Point,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    together: int = 8,
) -> Array:
    """Return the latents (n, C, h, w) of the pictures that `draw` decodes.

    Args:
      point: value of the token's vectors.
      together: pictures sampled in one batch.
    """
    recipe, model = job.recipe, job.model
    side = (recipe.resolution or model.resolution) // model.latent_scale
    shape = (model.latent_channels, side, side)
    latents = []
    for first in range(0, len(prompts), together):
        some = prompts[first : first + together]
        ids = [job.ids(prompt) for prompt in some]
        noise = [
            _PICTURES.generator("picture", seed, first + i).standard_normal(shape, np.float32)
            for i in range(len(some))
        ]
        latents.append(
            sample(
                lambda batch: runtime.predict(batch, point),
                {name: np.stack([own[name] for own in ids]) for name in job.tokenizers},
                job.ids(""),
                np.stack(noise),
                model.alphas_cumprod,
                steps=recipe.preview_steps,
                guidance=1.0 if recipe.guidance is None else recipe.guidance,
                prediction_type=model.prediction_type,
                constant=job.constant(),
                spacing=model.spacing,
                zeroes_empty=model.zeroes_empty,
            )
        )
    return np.concatenate(latents)


def save_pictures(folder: Path, name: str, pictures: Iterable[Pixels]) -> list[str]:
    """Write `name-01.png`, `name-02.png`, ... atomically; return paths relative to the run."""
    paths = []
    for number, picture in enumerate(pictures, 1):
        path = folder / f"{name}-{number:02d}.png"
        write_bytes(path, png(picture))
        paths.append(f"{folder.name}/{path.name}")
    return paths


def png(picture: Pixels) -> bytes:
    """Return a picture (height, width, 3) as the bytes of a PNG file."""
    from io import BytesIO

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def contact_sheet(pictures: Pixels, columns: int, gap: int = 2) -> Pixels:
    """Return pictures (n, height, width, 3) as one, in rows, with a white gap."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def differing_pairs(judge: Judge) -> list[tuple[int, int]]:
    """Return every pair of a color and a background whose names differ, as indices."""
    return [
        (color, background)
        for color, color_name in enumerate(judge.color_names)
        for background, background_name in enumerate(judge.background_names)
        if color_name != background_name
    ]


class EmbeddedJudge:
    """Scores pictures of the embedded model: is it the thing on the photos, in the asked colors?

    Args:
      photos: (n, 32, 32, 3); what most of them show, by the judge, is the class to find.
    """

    def __init__(self, photos: Pixels) -> None:
        self._judge = Judge.load(DATA / "judge.safetensors")
        votes = np.bincount(self._judge.predict(photos).class_index)
        self._class = int(votes.argmax())
        colors, backgrounds = self._judge.color_names, self._judge.background_names
        differing = differing_pairs(self._judge)
        pick = np.linspace(0, len(differing), JUDGED, endpoint=False).astype(int)
        self._pairs = np.array([differing[i] for i in pick])
        self.prompts = tuple(
            f"a photo of a {colors[c]} {{}} on a {backgrounds[b]} background"
            for c, b in self._pairs.tolist()
        )

    def score(self, pictures: Pixels) -> dict[str, Any]:
        """Return shares of `pictures` (one per prompt) that show what was asked."""
        verdict = self._judge.predict(pictures)
        share: Mapping[str, NDArray[np.bool_]] = {
            "class_accuracy": verdict.class_index == self._class,
            "color_accuracy": verdict.color_index == self._pairs[:, 0],
            "background_accuracy": verdict.background_index == self._pairs[:, 1],
        }
        scores: dict[str, Any] = {name: float(hit.mean()) for name, hit in share.items()}
        scores["judged_class"] = self._judge.class_names[self._class]
        scores["pictures"] = len(pictures)
        return scores
