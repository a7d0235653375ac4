"""Pictures of the class that a model must not forget: a folder of them, or drawn before training.

Source: prior preservation of DreamBooth (arXiv:2208.12242). As in diffusers' script every step has
as many of these as of photos, and their loss is added, times a weight.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.picture_folders import pictures_below, shown
from edge_train.formats.pictures import read_picture
from edge_train.recipe import required
from edge_train.records.folder import RunFolder
from edge_train.tasks.job import Say
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.objective import PhotoCache, build_cache
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.photos import load_photos
from edge_train.tasks.personalize.pictures import Pixels, png, sample_latents
from edge_train.tasks.personalize.recipe import MOST_CLASS_PICTURES, PersonalizeRecipe

_TOGETHER = 8  # pictures that are in memory at once


def missing(recipe: PersonalizeRecipe) -> int:
    """Return how many pictures the model has to draw, beside those in the folder.

    Raises:
      InputError: the folder cannot be read, or has too many; or none and no count was named.
    """
    return max((recipe.class_count or 0) - len(_given(recipe)), 0)


def class_prompt(recipe: PersonalizeRecipe) -> str:
    """Return what the pictures are of.

    >>> class_prompt(PersonalizeRecipe(class_word="dog"))
    'a photo of a dog'
    """
    return f"a photo of a {required(recipe.class_word)}"


def prior_cache(job: TokenJob, folder: Path, say: Say) -> PhotoCache:
    """Return latents and prompt of the class pictures; what is drawn is kept in the run folder.

    Raises:
      InputError: the folder of pictures cannot be used.
    """
    recipe = job.recipe
    pictures = _given(recipe)
    if count := missing(recipe):
        if len(_drawn(folder)) < count:
            say(
                f"{_lacking(recipe)}drawing {count} pictures of {class_prompt(recipe)!r}, to be "
                f"kept in mind, into {RunFolder(folder).samples.name}/ of the run"
            )
            _draw(job, folder, count)
        pictures += [read_picture(path).pixels for path in _drawn(folder)[:count]]
    say(f"{len(pictures)} pictures of the class {recipe.class_word!r} beside the photos")
    found = [
        job.serving.encode(recipe, job.model, np.stack(some), strips=job.vae_in_strips)
        for some in _some(pictures)
    ]
    mean, deviation = (np.concatenate(part) for part in zip(*found, strict=True))
    ids = [[job.ids(class_prompt(recipe))]] * len(pictures)
    return build_cache(mean, deviation, ids)


def _given(recipe: PersonalizeRecipe) -> list[Pixels]:
    """Return the pictures in the user's folder; none where it has none and some are to be drawn.

    As in diffusers' script it need not exist then. What is drawn is not written there.
    """
    if recipe.class_photos is None:
        return []
    path = Path(recipe.class_photos).expanduser()
    if _has_none(path):
        if recipe.class_count is not None:
            return []
        raise InputError(
            f"{shown(path)}: no pictures of the class there; put some there, or add "
            "--class-count 100, and the model draws them."
        )
    side = required(recipe.resolution)
    return [photo.pixels for photo in load_photos(path, side, most=MOST_CLASS_PICTURES).photos]


def _has_none(path: Path) -> bool:
    """Return whether there is no such folder, or no picture in it or further down."""
    try:
        return not pictures_below(path)
    except FileNotFoundError:
        return not os.path.lexists(path)
    except OSError:
        return False  # `load_photos` says what is wrong with it


def _lacking(recipe: PersonalizeRecipe) -> str:
    """Return how a line begins that tells of pictures to be drawn in the place of all."""
    if recipe.class_photos is None or not _has_none(path := Path(recipe.class_photos).expanduser()):
        return ""
    return f"no pictures in {shown(path)}; "


def _drawn(folder: Path) -> list[Path]:
    return sorted(RunFolder(folder).samples.glob("class-*.png"))


def _draw(job: TokenJob, folder: Path, count: int) -> None:
    """Draw pictures of the class with the model as it is."""
    prompts = [class_prompt(job.recipe)] * count
    ids = {
        name: np.stack([job.ids(text)[name] for text in (prompts[0], "")])
        for name in job.tokenizers
    }
    runtime = parts.open_runtime(job, Parameters(job.start), ids)
    latents = sample_latents(job, runtime, job.start, prompts, seed=job.recipe.seed)
    runtime.close()
    for first in range(0, count, _TOGETHER):
        pixels = parts.decode_latents(job, latents[first : first + _TOGETHER])
        for number, picture in enumerate(pixels, first + 1):
            write_bytes(RunFolder(folder).samples / f"class-{number:03d}.png", png(picture))


def _some(pictures: list[Pixels]) -> Iterator[list[Pixels]]:
    for first in range(0, len(pictures), _TOGETHER):
        yield pictures[first : first + _TOGETHER]
