"""Teach a token what a few photos show: batches of noised latents with their prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key
from edge_train.tasks.personalize.weights import min_snr

_PRIOR = "prior/"  # before the names of tensors of the class
_OTHERS = "shape-"  # and of photos of another shape, with its number
_EVALUATION = Key(0, -2)  # the same evaluation draws in every run: curves can be compared


@dataclass(frozen=True)
class PhotoCache:
    """Everything training needs of the photos; made once, then the VAE is released.

    `mean` and `deviation` are (views, channels, height, width) float32: the posterior of every
    photo's latent, the photos first, then (where flips are on) their mirror images. `ids` holds
    for every text encoder the tokenized captions (captions, length) int64, id -1-j marking vector
    j of the token; `captions_of` (views, most) int64 lists the caption rows of a view, padded by
    repetition so that every caption of a view is equally likely. `draws`, where it is there, lists
    each view as often as it is to be drawn; without it all are drawn equally often. `masks`, where
    a photo has one, is (views, 1, height, width) float32 of 0 to 1: what its errors count. `prior`
    is the same of pictures of the class, where the model must not forget it. `sizes`, where the
    model is told of them, is (views, 6) float32 (`buckets.size_condition`). `others` are the caches
    of photos of other shapes.
    """

    mean: Array
    deviation: Array
    ids: Mapping[str, NDArray[np.int64]]
    captions_of: NDArray[np.int64]
    photos: int
    draws: NDArray[np.int64] | None = None
    masks: Array | None = None
    prior: "PhotoCache | None" = None
    sizes: Array | None = None
    others: "tuple[PhotoCache, ...]" = ()

    @property
    def all(self) -> "tuple[PhotoCache, ...]":
        """This one and those in it."""
        return (self, *self.others, *(() if self.prior is None else (self.prior,)))

    @property
    def draw_count(self) -> int:
        """How many draws there are in a round."""
        return len(self.mean) if self.draws is None else len(self.draws)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays to store; `from_tensors` reads them back."""
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "captions_of": self.captions_of,
            "photos": np.array([self.photos]),
            **({} if self.draws is None else {"draws": self.draws}),
            **({} if self.masks is None else {"masks": self.masks}),
            **({} if self.sizes is None else {"sizes": self.sizes}),
            **{f"ids/{name}": value for name, value in self.ids.items()},
            **(_under(_PRIOR, self.prior.tensors()) if self.prior else {}),
            **{
                name: value
                for number, other in enumerate(self.others, 1)
                for name, value in _under(f"{_OTHERS}{number}/", other.tensors()).items()
            },
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "PhotoCache":
        """Return the cache that `tensors` stored."""
        prior, ids = _of(_PRIOR, tensors), _of("ids/", tensors)
        others: list[PhotoCache] = []
        while other := _of(f"{_OTHERS}{len(others) + 1}/", tensors):
            others.append(cls.from_tensors(other))
        photos = int(tensors["photos"][0])
        return cls(
            *(tensors["mean"], tensors["deviation"], ids, tensors["captions_of"], photos),
            *(tensors.get("draws"), tensors.get("masks")),
            cls.from_tensors(prior) if prior else None,
            *(tensors.get("sizes"), tuple(others)),
        )


def _under(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Personalize:
    """Noise-prediction loss of a frozen denoiser on the user's photos.

    Args:
      cache: latents and captions.
      signal: (timesteps,) float32, the share of the signal's variance left at each timestep
        (diffusers' `alphas_cumprod`).
      prediction_type: "epsilon" or "v_prediction".
      window: timesteps are drawn from [window[0], window[1]): where the token matters most
        (partial uniform timestep sampling, ZOODiP).
      samples: photos in a batch.
      evaluation_samples: size of the fixed evaluation batch.
      constant: further model inputs that are the same for every sample, without a batch axis
        (SDXL's `time_ids`).
      snr_gamma: where the share of signal to noise is cut that errors are weighted by; None: all
        timesteps weigh the same.
      prior_weight: of the loss on pictures of the class, where the cache has some: a batch then
        holds `samples` of them, too, and its loss is the sum of both means.
    """

    cache: PhotoCache
    signal: Array
    prediction_type: str
    window: tuple[int, int]
    samples: int
    evaluation_samples: int
    constant: Mapping[str, Array]
    snr_gamma: float | None = None
    prior_weight: float = 1.0

    def batch(self, key: Key) -> Batch:
        """Return photos, captions, timesteps and noise drawn from the key.

        All photos of a batch have one shape: that of the first one drawn. So each is drawn as often
        as the others in the long run, whatever the shapes.
        """
        own = self._drawn(key.generator("batch"))
        if self.cache.prior is None:
            return own
        prior = replace(self, cache=self.cache.prior)._drawn(key.generator("prior"))
        # the loss of a batch is the mean of all its samples: twice this one's is the sum of both
        return _beside(own, 2.0, prior, 2.0 * self.prior_weight)

    def _drawn(self, draw: np.random.Generator) -> Batch:
        """Return `samples` views with captions, timesteps and noise."""
        if self.cache.others:
            shapes = self._by_shape()
            ends = np.cumsum([own.cache.draw_count for own in shapes])
            first = draw.integers(ends[-1])
            return shapes[int(np.searchsorted(ends, first, side="right"))]._drawn(draw)
        views = draw.integers(self.cache.draw_count, size=self.samples)
        if self.cache.draws is not None:
            views = self.cache.draws[views]
        timesteps = draw.integers(*self.window, size=self.samples)
        captions = draw.integers(self.cache.captions_of.shape[1], size=self.samples)
        return self._noised(views, timesteps, captions, draw)

    def evaluation(self) -> Batch:
        """Return the fixed evaluation batch: photos in turn, timesteps at equal distances.

        Samples of the second shape and later ones have its number before their names: "1/latents".
        """
        draw = _EVALUATION.generator("evaluation")
        count = self.evaluation_samples
        index = np.arange(count)
        low, high = self.window
        timesteps = low + ((index + 0.5) * (high - low) / count).astype(np.int64)
        captions = draw.integers(self.cache.captions_of.shape[1], size=count)
        timesteps = draw.permutation(timesteps)
        if not self.cache.others:
            return self._noised(index % self.cache.photos, timesteps, captions, draw)
        batch: dict[str, Any] = {}
        shapes, begin = self._by_shape(), 0
        turn = index % sum(own.cache.photos for own in shapes)
        for number, own in enumerate(shapes):
            views = turn - begin
            here = (views >= 0) & (views < own.cache.photos)
            most = own.cache.captions_of.shape[1]
            if here.any():
                part = own._noised(views[here], timesteps[here], captions[here] % most, draw)
                batch |= _under(f"{number}/" if number else "", part)
            begin += own.cache.photos
        return batch

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return mean squared errors, (points, samples): the model computes its own loss."""
        prefixes = dict.fromkeys(name.partition("/")[0] + "/" for name in batch if "/" in name)
        if not prefixes:
            return runtime.forward(batch, points)
        first = {name: value for name, value in batch.items() if "/" not in name}
        parts = [first, *(_of(prefix, batch) for prefix in prefixes)]
        return np.concatenate([runtime.forward(part, points) for part in parts], axis=1)

    def _by_shape(self) -> "list[Personalize]":
        """Return this task with photos of each shape alone."""
        caches = (replace(self.cache, others=()), *self.cache.others)
        return [replace(self, cache=cache) for cache in caches]

    def residuals(self, runtime: Any, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the errors that losses are mean squares of, (points, samples, values).

        Divided by the root of their number, and weighted where the batch weighs them, so that a
        loss is the sum of squares.

        Args:
          runtime: one that hands out its predictions.
        """
        found: Array = runtime.predictions(batch, points)
        found -= batch["target"]
        if "weights" in batch:
            found *= np.sqrt(batch["weights"])
        found = found.reshape(*found.shape[:2], -1)
        found *= np.float32(found.shape[2] ** -0.5)
        return found

    def _noised(
        self,
        views: NDArray[np.int64],
        timesteps: NDArray[np.int64],
        captions: NDArray[np.int64],
        draw: np.random.Generator,
    ) -> Batch:
        shape = (len(views), *self.cache.mean.shape[1:])
        posterior = draw.standard_normal(shape, dtype=np.float32)
        noise = draw.standard_normal(shape, dtype=np.float32)
        clean = self.cache.mean[views] + self.cache.deviation[views] * posterior
        signal = self.signal[timesteps][:, None, None, None]
        root_signal, root_noise = np.sqrt(signal), np.sqrt(1 - signal)
        if self.prediction_type == "epsilon":
            target = noise
        else:
            target = root_signal * noise - root_noise * clean
        rows = self.cache.captions_of[views, captions]
        return {
            "latents": root_signal * clean + root_noise * noise,
            "timesteps": timesteps,
            "target": target,
            **self._weights(views, timesteps),
            **{name: ids[rows] for name, ids in self.cache.ids.items()},
            **{name: np.stack([value] * len(views)) for name, value in self.constant.items()},
            **({} if self.cache.sizes is None else {"time_ids": self.cache.sizes[views]}),
        }

    def _weights(self, views: NDArray[np.int64], timesteps: NDArray[np.int64]) -> dict[str, Array]:
        """Return what squared errors are multiplied by, (samples, 1, h, w), if by anything."""
        if self.snr_gamma is None and self.cache.masks is None:
            return {}
        found = np.ones((len(views), 1, *self.cache.mean.shape[2:]), np.float32)
        if self.cache.masks is not None:
            found *= self.cache.masks[views]
        if self.snr_gamma is not None:
            weights = min_snr(self.signal, timesteps, self.snr_gamma, self.prediction_type)
            found *= weights[:, None, None, None]
        return {"weights": found}


def _beside(first: Batch, weight: float, second: Batch, other: float) -> Batch:
    """Return the samples of two batches, whose squared errors count by these weights."""
    both = {name: np.concatenate([first[name], second[name]]) for name in first if name in second}
    parts = []
    for batch, factor in ((first, weight), (second, other)):
        count, _, height, width = batch["latents"].shape
        plain = np.ones((count, 1, height, width), np.float32)
        parts.append(batch.get("weights", plain) * np.float32(factor))
    return {**both, "weights": np.concatenate(parts)}


def build_cache(
    mean: Array,
    deviation: Array,
    captions: Sequence[Sequence[Mapping[str, NDArray[np.int64]]]],
    repeats: Sequence[int] = (),
    masks: Array | None = None,
    sizes: Array | None = None,
) -> PhotoCache:
    """Return the cache of some photos and their tokenized captions.

    Args:
      mean, deviation: (views, channels, height, width); views is photos, or twice photos when
        mirror images follow the photos.
      captions: per photo, its captions; each maps a text encoder's input name to ids (length,).
      repeats: per photo, how often it is drawn for once that another one is; empty: all equally.
      masks: (views, 1, height, width), what the errors of a view count; None: all the same.
      sizes: (views, 6), what the model is told of each view's size; None: the same of all.
    """
    rows: list[Mapping[str, NDArray[np.int64]]] = [c for own in captions for c in own]
    starts = np.cumsum([0, *map(len, captions)])
    most = max(map(len, captions))
    own_rows = [
        [int(starts[photo]) + i % len(own) for i in range(most)]
        for photo, own in enumerate(captions)
    ]
    views = len(mean) // len(captions)
    ids = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    draws = None
    if len(set(repeats)) > 1:
        draws = np.repeat(np.arange(len(mean)), [*repeats] * views)
    rows_of = np.array(own_rows * views)
    return PhotoCache(mean, deviation, ids, rows_of, len(captions), draws, masks, sizes=sizes)
