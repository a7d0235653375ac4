"""The photos of a job: read with their captions, and encoded once; the VAE comes and goes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.artifact import Artifact
from edge_train.formats.left_aside import some_of
from edge_train.recipe import required
from edge_train.tasks.personalize import captions
from edge_train.tasks.personalize.buckets import in_words, size_condition
from edge_train.tasks.personalize.objective import PhotoCache, build_cache
from edge_train.tasks.personalize.parts import TokenJob, offered_sizes, photos_of, sizes_of
from edge_train.tasks.personalize.photos import (
    Photo,
    PhotoSet,
    load_photos,
    require_content,
)
from edge_train.tasks.personalize.weights import in_cells


def load_job_photos(job: TokenJob) -> tuple[PhotoSet, tuple[tuple[str, ...], ...]]:
    """Return the photos, cropped, and the captions of each.

    Raises:
      InputError: no photos, a broken photo or a caption that cannot be used.
    """
    recipe = job.recipe
    sizes = sizes_of(job) if recipe.buckets else ()
    photos = load_photos(
        photos_of(recipe), required(recipe.resolution), sizes=sizes, offered=offered_sizes(job)
    )
    require_content(photos_of(recipe), photos.photos)
    if recipe.buckets:
        trained = in_words([photo.trained for photo in photos.photos])
        photos = replace(photos, notices=(*photos.notices, f"photos are trained at {trained}"))
    learn: Literal["object", "style"] = "style" if recipe.learn == "style" else "object"
    _check_masks(job, [photo.name for photo in photos.photos if photo.mask is not None])
    texts = captions.captions_for(
        photos.photos, required(recipe.token), required(recipe.class_word), learn
    )
    for text in {text for own in texts for text in own}:
        job.ids(text)
    return photos, texts


def _check_masks(job: TokenJob, masked: Sequence[str]) -> None:
    """Raise InputError if photos have masks, and the model's loss cannot weigh errors by them.

    Args:
      masked: names of the photos that have one.
    """
    if masked and isinstance(job.model, Artifact):
        raise InputError(
            f"{masked[0]} has a mask, and the loss of an exported model has no weights; take the "
            "masks out of the folder, or name the model folder that it was exported from."
        )


def cut_captions(
    job: TokenJob, photos: PhotoSet, texts: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Return a line about captions that lose their end, for every text encoder that cuts some."""
    lines = []
    for tokenizer in {t.room: t for t in job.tokenizers.values()}.values():
        counts = {
            photo.name: max(tokenizer.count(job.text(text), job.recipe.vectors) for text in own)
            for photo, own in zip(photos.photos, texts, strict=True)
            if photo.caption
        }
        if longer := {name: n for name, n in counts.items() if n > tokenizer.room}:
            shown = some_of([f"{name} has {count}" for name, count in longer.items()])
            lines.append(
                f"{len(longer)} of {len(counts)} captions are longer than the {tokenizer.room} "
                f"tokens that the model reads and lose their end: {shown}"
            )
    return tuple(lines)


def without_mirror(photos: PhotoSet) -> str | None:
    """Return a line that says why photos are not mirrored, None where nothing is against it."""
    texts = {photo.name: photo.caption for photo in photos.photos if photo.caption}
    words = {
        name: word for name, text in texts.items() if (word := captions.contradicts_mirror(text))
    }
    if not words:
        return None
    shown = some_of([f"{name} says {word!r}" for name, word in words.items()])
    return (
        f"photos are not mirrored: {len(words)} of {len(texts)} captions name a side or words "
        f"({shown})"
    )


def encode_photos(job: TokenJob, photos: PhotoSet, texts: Sequence[Sequence[str]]) -> PhotoCache:
    """Return the latents of the photos and the ids of their captions; the VAE comes and goes.

    It comes once for each shape of photos.
    """
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, photo in enumerate(photos.photos):
        shapes.setdefault(photo.trained, []).append(index)
    first, *others = (
        _encoded(job, [photos.photos[i] for i in own], [texts[i] for i in own])
        for own in shapes.values()
    )
    return replace(first, others=tuple(others))


def _encoded(job: TokenJob, photos: Sequence[Photo], texts: Sequence[Sequence[str]]) -> PhotoCache:
    """Return the cache of photos of one shape."""
    recipe = job.recipe
    pixels = np.stack([photo.pixels for photo in photos])
    if recipe.flips:
        pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    mean, deviation = job.serving.encode(recipe, job.model, pixels, strips=job.vae_in_strips)
    repeats = [photo.repeats for photo in photos]
    ids = [[job.ids(text) for text in own] for own in texts]
    sizes = None
    if recipe.buckets and job.model.family == "sdxl":
        told = [size_condition(photo.size, photo.trained) for photo in photos]
        sizes = np.array(told * (len(mean) // len(photos)), np.float32)
    cache = build_cache(mean, deviation, ids, repeats, _masks(job, photos), sizes)
    if cache.draws is None and repeats[0] > 1:  # than photos of another shape
        cache = replace(cache, draws=np.repeat(np.arange(len(mean)), repeats[0]))
    return cache


def _masks(job: TokenJob, photos: Sequence[Photo]) -> Array | None:
    """Return what each latent cell of every view counts, None where no photo has a mask."""
    if all(photo.mask is None for photo in photos):
        return None
    whole = np.ones(photos[0].pixels.shape[:2], np.float32)
    masks = [whole if photo.mask is None else photo.mask for photo in photos]
    if job.recipe.flips:
        masks += [mask[:, ::-1] for mask in masks]
    return np.stack([in_cells(mask, job.model.latent_scale) for mask in masks])
