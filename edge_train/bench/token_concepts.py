"""Tokens of many training items, learned by exact gradients, and draws of the metric: kept files.

Items are of Fashion-MNIST's training split, painted as `items.py` paints those that likeness is
measured on, which are test items: what is made of these has not seen those.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.bench.items import CLASSES, PHOTO_LOOKS, Grey, photos_of
from edge_train.bench.token_steps import TokenSteps
from edge_train.bench.unlabelled_network import views
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.rng import Key
from edge_train.tasks.personalize.inversions import STEPS, invert
from edge_train.tasks.personalize.metric_draws import metric_draws
from edge_train.tasks.personalize.objective import PhotoCache, build_cache

ROUND = 6  # items of each class that learn side by side
_TOGETHER = 32  # draws in a call

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Concepts:
    """Tokens (concepts, width), where they started (width,), their classes by number.

    `looks` and `others` (concepts, numbers of a latent) are mean latents of photos of each item:
    in the five looks that it was learned from, and in five that were drawn for it.
    """

    tokens: Rows
    start: Rows
    classes: NDArray[np.int64]
    looks: Rows
    others: Rows

    @property
    def moves(self) -> Rows:
        """How far each token went."""
        return self.tokens - self.start


@dataclass
class Items:
    """Training items as concepts of an open model.

    Args:
      steps: of a recipe whose photos are of no account.
      items, labels: of the training split.
      out: where tokens and draws are kept.
      name: of the model, in the names of files.
    """

    steps: TokenSteps
    items: Grey
    labels: NDArray[np.int64]
    out: Path
    name: str

    def chosen(self, number: int) -> list[int]:
        """Return the rows of a round's items, class by class; always the same."""
        rows = []
        for number_of_class, name in enumerate(CLASSES):
            own = np.flatnonzero(self.labels == number_of_class)
            order = Key(0, 0).generator("prior item", name).permutation(own)
            rows += order[number * ROUND : (number + 1) * ROUND].tolist()
        return rows

    def caches(self, rows: list[int]) -> list[PhotoCache]:
        """Return the latents and captions of each item's photos."""
        job = self.steps.job
        pixels = np.concatenate([photos_of(self.items[row]) for row in rows])
        mean, deviation = job.serving.encode(job.recipe, job.model, pixels, strips=False)
        count, ids = len(PHOTO_LOOKS), self._captions()
        places = [slice(count * number, count * (number + 1)) for number in range(len(rows))]
        return [build_cache(mean[own], deviation[own], ids) for own in places]

    def concepts(self, rounds: int) -> Concepts:
        """Return the tokens of `rounds` x `ROUND` items a class; rounds that are there are read."""
        start = self.steps.job.start["token"]
        found, classes, looks, others = [], [], [], []
        for number in range(rounds):
            path = self.out / f"tokens-{self.name}-{number}-{STEPS}.safetensors"
            rows = self.chosen(number)
            caches = self.caches(rows)
            if not path.exists():
                tasks = [replace(self.steps.task, cache=cache) for cache in caches]
                seeds = [1000 + row for row in rows]
                learned = invert(self.steps.runtime, tasks, {"token": start}, seeds=seeds)
                save_tensors(path, learned, {})
            found.append(load_tensors(path)[0]["token"][:, 0])
            looks += [cache.mean.mean(axis=0).ravel() for cache in caches]
            others += self._other_looks(rows)
            classes.append(self.labels[rows])
        tokens = np.concatenate(found).astype(np.float64)
        numbers = np.concatenate(classes)
        own, other = (np.stack(each).astype(np.float64) for each in (looks, others))
        return Concepts(tokens, start[0].astype(np.float64), numbers, own, other)

    def _other_looks(self, rows: list[int]) -> list[Array]:
        """Return mean latents of five photos of each item, in looks and places that are drawn."""
        job, count = self.steps.job, len(PHOTO_LOOKS)
        pictures = [
            views(np.repeat(self.items[row][None], count, 0), Key(0, row).generator("other looks"))
            for row in rows
        ]
        mean, _ = job.serving.encode(job.recipe, job.model, np.concatenate(pictures), strips=False)
        return [own.mean(axis=0).ravel() for own in np.split(mean, len(rows))]

    def draws(self, kind: str, count: int) -> Rows:
        """Return draws of the metric on pictures of a kind; those that are there are read.

        Args:
          kind: "items" of the first round, "one bag" of them, or "noise", which an export without
            photos has.
        """
        path = self.out / f"metric-{self.name}-{kind.replace(' ', '-')}-{count}.safetensors"
        if not path.exists():
            task = replace(self.steps.task, cache=self._pictures(kind))
            drawn = metric_draws(
                self.steps.runtime, task, self.steps.job.start, count, together=_TOGETHER
            )
            save_tensors(path, {"draws": drawn["token"]}, {})
        return load_tensors(path)[0]["draws"].astype(np.float64)

    def _pictures(self, kind: str) -> PhotoCache:
        caches = self.caches(self.chosen(0))
        if kind == "one bag":
            return caches[CLASSES.index("bag") * ROUND]
        if kind == "noise":
            mean: Array = np.zeros((1, *caches[0].mean.shape[1:]), np.float32)
            return build_cache(mean, np.ones_like(mean), self._captions()[:1])
        means = np.concatenate([cache.mean for cache in caches])
        deviations = np.concatenate([cache.deviation for cache in caches])
        return build_cache(means, deviations, self._captions() * len(caches))

    def _captions(self) -> list[list[dict[str, NDArray[np.int64]]]]:
        return [[self.steps.job.ids(look.prompt)] for look in PHOTO_LOOKS]
