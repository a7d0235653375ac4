"""The job of teaching a token: photos in, token file, pictures and their score out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import __version__
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Point
from edge_train.errors import EdgeTrainError, InputError, RunFolderError
from edge_train.estimators.remembering import Remembering
from edge_train.export.token_file import write_token
from edge_train.formats.diffusion_adapter import write_lora
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.hub import name_for_others
from edge_train.formats.pictures import read_picture
from edge_train.formats.tensor_store import load_tensors, save_tensors, sha256_of
from edge_train.memory.footprint import Footprint
from edge_train.memory.shortage import is_shortage, lost_card
from edge_train.methods import methods
from edge_train.protocols import Estimator, Transform
from edge_train.records.folder import RunFolder
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.adapting import LORA_FOLDER, trigger_of
from edge_train.tasks.personalize.buckets import in_words
from edge_train.tasks.personalize.captions import file_name_of
from edge_train.tasks.personalize.footprint import footprint
from edge_train.tasks.personalize.objective import Personalize, PhotoCache
from edge_train.tasks.personalize.photos import PhotoSet
from edge_train.tasks.personalize.pictures import (
    EmbeddedJudge,
    Pixels,
    draw,
    sample_latents,
    save_pictures,
)
from edge_train.tasks.personalize.prior import prior_cache
from edge_train.tasks.personalize.radius import wanted_radius
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import Denoiser, hashes_of

_START_FILE = "start.safetensors"
_DIRECTIONS = "directions_sha256"  # in the metadata of that file
_ALONE = (
    "one photo does not show what belongs to the thing and what to its background, and both are "
    "learned; 3 to 10 photos in different places are better"
)


class PersonalizeJob:
    """A `Job`: its words are checked here, photos are read by `load`, latents made by `prepare`.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """

    def __init__(self, recipe: PersonalizeRecipe) -> None:
        self._token_job = parts.check(recipe)
        self.recipe, self.notes = self._token_job.recipe, self._token_job.notes
        self.name = file_name_of(str(self.recipe.token))
        self._judge: EmbeddedJudge | None = None
        self._photos: PhotoSet
        self._texts: Sequence[Sequence[str]]
        self._cache: PhotoCache

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the model's weights."""
        return self._token_job.model.sha256()

    @property
    def _directions_sha256(self) -> str:
        return sha256_of(dict(self._token_job.directions))

    def footprint(self) -> Footprint:
        _, transform = self.method(0.1, dict.fromkeys(self._token_job.start, 1.0))
        return footprint(self._token_job, transform)

    def look_at_data(self) -> None:
        self.load()

    def load(self) -> None:
        job = self._token_job
        self._photos, self._texts = encoding.load_job_photos(job)
        cut = encoding.cut_captions(job, self._photos, self._texts)
        alone = (_ALONE,) if len(self._photos.photos) == 1 else ()
        self.notes = (*job.notes, *self._photos.notices, *cut, *alone)
        if self.recipe.flips and (why := encoding.without_mirror(self._photos)):
            self.notes = (*self.notes, why)
            self.recipe = replace(self.recipe, flips=False)
            self._token_job = replace(job, recipe=self.recipe)

    def prepare(self, folder: Path, say: Say) -> None:
        photos = self._photos.photos
        one = len(photos) == 1
        count = "1 photo" if one else f"{len(photos)} photos"
        mirrored = f" and {'its mirror image' if one else 'their mirror images'}"
        said = f"{count}{mirrored}" if self.recipe.flips else count
        say(f"{said}; encoding them once, then the VAE is released")
        self._cache = self._encoded(folder, say)
        metadata = {"model_sha256": self.model_sha256}
        if self._token_job.directions:
            metadata[_DIRECTIONS] = self._directions_sha256
        save_tensors(folder / _START_FILE, self._cache.tensors(), metadata)
        self._choose_judge([photo.pixels for photo in photos])

    def _encoded(self, folder: Path, say: Say) -> PhotoCache:
        """Return the latents of the photos, and of pictures of the class where some are kept."""
        cache = encoding.encode_photos(self._token_job, self._photos, self._texts)
        if not self.recipe.keeps_class:
            return cache
        return replace(cache, prior=prior_cache(self._token_job, folder, say))

    def restore(self, folder: Path, say: Say) -> None:
        try:
            tensors, metadata = load_tensors(folder / _START_FILE)
            began = metadata.get(_DIRECTIONS, self._directions_sha256)
            self._cache = PhotoCache.from_tensors(tensors)
        except (RunFolderError, KeyError) as error:
            say(f"{error} Encoding the photos again.")
            self.load()
            self._cache = self._encoded(folder, say)
            began = self._directions_sha256  # `data_sha256` tells
        if began != self._directions_sha256:
            raise RunFolderError(
                f"{folder}: the directions beside {self.recipe.model} (sha256 "
                f"{self._directions_sha256[:12]}...) are not those that this run began with "
                f"({began[:12]}...); put that file back, or start a new run."
            )
        if self._token_job.judged:
            self._choose_judge(self._kept_photos(folder, say))

    def _kept_photos(self, folder: Path, say: Say) -> list[Pixels]:
        """Return the photos that the run keeps, or the user's where those are damaged."""
        paths = sorted(RunFolder(folder).samples.glob("photo-*.png"))
        try:
            photos = [read_picture(path).pixels for path in paths]
        except InputError as error:
            say(f"{error} It is one that the run keeps. Reading the photos again.")
            photos = []
        side = self.recipe.resolution
        if not photos or any(photo.shape != (side, side, 3) for photo in photos):
            self.load()
            photos = [photo.pixels for photo in self._photos.photos]
        return photos

    def data_sha256(self) -> str:
        tensors = self._cache.tensors()
        if self.recipe.start is not None:  # what it starts from is read again when it goes on
            tensors = {**tensors, **{f"start/{n}": v for n, v in self._token_job.start.items()}}
        directions = self._token_job.directions.items()
        tensors = {**tensors, **{f"directions/{n}": m for n, m in directions}}
        return sha256_of(tensors)

    def _choose_judge(self, photos: Sequence[Pixels]) -> None:
        """Keep the judge of the embedded model's pictures; other models have none."""
        if self._token_job.judged:
            self._judge = EmbeddedJudge(np.stack(photos))

    def open_runtime(self) -> Denoiser:
        job, judged = self._token_job, self._judge.prompts if self._judge else ()
        prompts = (*self.recipe.prompts, *judged, "")
        ids = {
            name: np.concatenate(
                [
                    *(c.ids[name].ravel() for c in self._cache.all),
                    *(job.ids(p)[name] for p in prompts),
                ]
            )
            for name in job.tokenizers
        }
        return parts.open_runtime(job, Parameters(job.start), ids)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the runtime was told by itself."""
        self.recipe = replace(self.recipe, threads=count)
        self._token_job = replace(self._token_job, recipe=self.recipe)

    def task(self) -> Personalize:
        return parts.build_task(self._token_job, self._cache)

    def smallest_radius(self) -> float:
        return self._token_job.serving.smallest_radius(self._token_job.model)

    def wanted_radius(self) -> float:
        """Return where slopes hold from the first step to the last; see bench slopes."""
        return wanted_radius(self.recipe, self.smallest_radius())

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        own = self._token_job.parts(epsilon, scale)
        estimator, transform = build(self.recipe, own)
        if self._token_job.adapter is not None and self.recipe.clip is not None:
            estimator = Remembering(estimator)  # a LoRA's gradients are small enough to keep
        return estimator, transform

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe, photos = self.recipe, self._photos.photos
        pictures = save_pictures(RunFolder(folder).samples, "photo", [p.pixels for p in photos])
        captioned = all(photo.caption for photo in photos)
        return {
            "token": recipe.token,
            **self._of_adapter(),
            "class_word": recipe.class_word,
            "learn": recipe.learn,
            "vectors": recipe.vectors,
            "resolution": recipe.resolution,
            **({"buckets": in_words([p.trained for p in photos])} if recipe.buckets else {}),
            "window": list(recipe.window or ()),
            "vae": "in strips" if self._token_job.vae_in_strips else "whole",
            "prompts": list(recipe.prompts),
            "photos": [
                {"name": photo.name, "caption": photo.caption, "note": photo.note, "picture": path}
                for photo, path in zip(photos, pictures, strict=True)
            ],
            "captions_from": "files" if captioned else f"{recipe.learn} templates",
        }

    def _of_adapter(self) -> Mapping[str, Any]:
        """Return what the report says of a LoRA; nothing where a word is learned."""
        adapter = self._token_job.adapter
        if adapter is None:
            return {}
        return {
            "trigger": trigger_of(self.recipe),
            "trainable": "lora",
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "layers": len(adapter.targets),
        }

    def preview(self, folder: Path, step: int, runtime: Denoiser) -> str | None:
        every = self.recipe.preview_every
        if not (every and step and self.recipe.previews and step % every == 0):
            return None
        point = runtime.parameters.copy()
        try:
            pictures = draw(self._token_job, runtime, point, self.recipe.prompts)
        except Exception as error:
            if _has_answer(error):
                raise
            return f"no previews: {type(error).__name__}: {error}"
        paths = save_pictures(RunFolder(folder).samples, f"step-{step:08d}", pictures)
        return f"previews {paths[0]} ..."

    def finish(
        self, folder: Path, runtime: Denoiser, best: Point, steps: int, whole: bool
    ) -> Outcome:
        outputs = self._write(folder, best, steps)
        if not (whole and self.recipe.previews):
            return Outcome(outputs=outputs)
        # pictures wait until the token is safe: decoding them may hold the most
        try:
            metrics = self._draw(folder, runtime, best)
        except Exception as error:
            if _has_answer(error):
                raise
            missing = (
                f"pictures could not be drawn ({type(error).__name__}: {error}); what was learned "
                f"is saved, `edge-train generate {folder}` draws with it"
            )
            return Outcome(outputs=outputs, missing=missing)
        return Outcome(metrics, outputs, _verdict(metrics) if metrics else None)

    def _draw(self, folder: Path, runtime: Denoiser, best: Point) -> Mapping[str, Any]:
        """Draw pictures before and after training; return their scores, none without a judge."""
        job, recipe = self._token_job, self.recipe
        latents = {
            name: sample_latents(job, runtime, point, recipe.prompts)
            for name, point in (("before", job.start), ("after", best))
        }
        if self._judge is not None:
            judged = sample_latents(job, runtime, best, self._judge.prompts, together=64)
        if recipe.lean:
            runtime.close()  # nothing asks it again, and the decoder needs its room
        for name, own in latents.items():
            save_pictures(RunFolder(folder).samples, name, parts.decode_latents(job, own))
        if self._judge is None:
            return {}
        return self._judge.score(parts.decode_latents(job, judged))

    def _write(self, folder: Path, best: Point, steps: int) -> dict[str, str]:
        """Write what was learned; return its name in the run folder, by its kind."""
        job, recipe = self._token_job, self.recipe
        facts = {
            "base_model": name_for_others(recipe.model),
            "base_model_sha256": hashes_of(job.model)[0],  # words fit every export of a model
            "steps": str(steps),
            "class_word": str(recipe.class_word),
            "edge_train_version": __version__,
        }
        if job.adapter is None:
            files = write_token(folder, self.name, str(recipe.token), best, facts)
            return {"token": files[0].name}
        assert isinstance(job.model, ModelFolder), "an artifact has no gradients"
        facts["trigger"] = trigger_of(recipe)
        write_lora(folder / LORA_FOLDER, self.name, job.adapter, best, facts, job.model)
        return {"lora": LORA_FOLDER}


def _has_answer(error: Exception) -> bool:
    """Return whether a run answers an error of drawing: it is of memory, a card or a file.

    Any other leaves it without pictures, which are not what was learned.
    """
    by_class = isinstance(error, (EdgeTrainError, OSError))
    return by_class or is_shortage(error) or bool(lost_card(error))


def _verdict(metrics: Mapping[str, Any]) -> str:
    return (
        f"{metrics['pictures']} pictures of the new word, judged: "
        f"{100 * metrics['class_accuracy']:.0f} % show a {metrics['judged_class']}, "
        f"{100 * metrics['color_accuracy']:.0f} % in the color asked for, "
        f"{100 * metrics['background_accuracy']:.0f} % on the background asked for"
    )
