"""Training with forward passes along directions of several kinds: paired runs, scored and kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.bench.item_likeness import Gallery, prompts, score
from edge_train.bench.items import photos_of, write_photos
from edge_train.bench.likeness import read_scores, recipe_for, write_scores
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import NonFinite
from edge_train.estimators.directions import Spanned
from edge_train.formats.atomic import write_bytes

EVALUATED = 64  # samples of the fixed batch: the run's own 16 leave a tenth of noise


@dataclass(frozen=True)
class Trial:
    """What a run ended with: the fixed batch's loss, likeness in a space, composition."""

    loss: float
    cosine: float
    rank: float
    composition: float


@dataclass(frozen=True)
class Trials:
    """Runs on one item of the gallery.

    Args:
      gallery: test items.
      row: the item.
      out: where scores are kept.
      name: of the model and the item, in the names of files.
      model: a folder; None: the embedded one.
    """

    gallery: Gallery
    row: int
    out: Path
    name: str
    model: Path | None

    def zo(self, way: str, matrices: Mapping[str, Array], forwards: int, seed: int) -> Trial:
        """Return how zo's default ends after so many forwards, its directions from matrices."""
        name = f"{way}-{forwards}-seed{seed}".replace(" ", "-")
        return self._kept(name, "zo", forwards // 5, seed, matrices)

    def exact(self, steps: int, seed: int) -> Trial:
        """Return how exact steps of the default rate end; none of them: how it starts."""
        return self._kept(f"exact-{steps}-seed{seed}", "backprop", steps, seed, {})

    def _kept(
        self,
        name: str,
        method: str,
        count: int,
        seed: int,
        matrices: Mapping[str, Array],
    ) -> Trial:
        path = self.out / f"trial-{self.name}-{name}.json"
        loss = path.with_suffix(".loss")
        if not (path.exists() and loss.exists()):
            steps = self._trained(method, count, seed, matrices)
            write_bytes(loss, json.dumps(steps.held_loss(steps.point)).encode())
            photos = photos_of(self.gallery.items[self.row])
            write_scores(path, score(steps, steps.point, self.gallery, photos, self.row))
            steps.runtime.close()
        scores = read_scores(path)
        own = scores.spaces[self.gallery.spaces[0].name]
        held = float(json.loads(loss.read_text("utf-8")))
        return Trial(held, own.cosine, own.rank, scores.composition)

    def _trained(
        self,
        method: str,
        count: int,
        seed: int,
        matrices: Mapping[str, Array],
    ) -> TokenSteps:
        item = self.gallery.items[self.row]
        photos = write_photos(item, self.out / "items" / str(self.row))
        recipe = replace(recipe_for(self.model, photos, seed), steps=max(count, 1), method=method)
        steps = TokenSteps.open(recipe, prompts())
        steps.task = replace(steps.task, evaluation_samples=EVALUATED)
        if matrices:
            steps.estimator = replace(steps.estimator, draw=Spanned(matrices))
        try:
            for number in range(count):
                steps.take(number)
        except NonFinite:
            steps.move_to(steps.job.start)
        return steps


def paired(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return the mean difference of paired runs, second less first, and its standard error."""
    differences = np.array(second) - np.array(first)
    if len(differences) < 2:
        return float(differences.mean()), float("nan")
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
