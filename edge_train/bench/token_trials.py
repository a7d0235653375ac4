"""Training with forward passes along directions of several kinds: paired runs, scored and kept."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edge_train.bench.item_likeness import PICTURES, Gallery, drawn
from edge_train.bench.items import SCORED_LOOKS, photos_of, write_photos
from edge_train.bench.likeness import recipe_for
from edge_train.bench.token_concepts import Rows
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import NonFinite
from edge_train.estimators.directions import Spanned
from edge_train.formats.atomic import write_bytes
from edge_train.tasks.personalize.recipe import ISOTROPIC

_RATE = 0.2  # of exact steps, relative to the token's root mean square
EVALUATED = 64  # samples of the fixed batch: the run's own 16 leave a tenth of noise


@dataclass(frozen=True)
class Trial:
    """What a run ended with: the fixed batch's loss, and likeness in the first space."""

    loss: float
    cosine: float
    rank: float


@dataclass(frozen=True)
class Way:
    """Directions by the rows (k, width) of a matrix; None: isotropic."""

    name: str
    rows: Rows | None = None


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

    def zo(self, way: Way, forwards: int, seed: int) -> Trial:
        """Return how zo's default rate and rule end after so many forwards."""
        name = f"{way.name}-{forwards}-seed{seed}".replace(" ", "-")
        return self._kept(name, "zo", forwards // 5, seed, way)

    def exact(self, steps: int, seed: int) -> Trial:
        """Return how exact steps of the default rate end; none of them: how it starts."""
        return self._kept(f"exact-{steps}-seed{seed}", "backprop", steps, seed, Way("exact"))

    def _kept(self, name: str, method: str, count: int, seed: int, way: Way) -> Trial:
        path = self.out / f"trial-{self.name}-{name}.json"
        if not path.exists():
            steps = self._trained(method, count, seed, way)
            write_bytes(path, json.dumps(asdict(self._scored(steps))).encode())
            steps.runtime.close()
        return Trial(**json.loads(path.read_text("utf-8")))

    def _scored(self, steps: TokenSteps) -> Trial:
        looks = [look for look in SCORED_LOOKS for _ in range(PICTURES)]
        split = np.split(drawn(steps, steps.point, looks), len(SCORED_LOOKS))
        photos = photos_of(self.gallery.items[self.row])
        pictures = dict(zip(SCORED_LOOKS, split, strict=True))
        found = self.gallery.score(pictures, photos, self.row)[self.gallery.spaces[0].name]
        return Trial(steps.held_loss(steps.point), found.cosine, found.rank)

    def _trained(self, method: str, count: int, seed: int, way: Way) -> TokenSteps:
        item = self.gallery.items[self.row]
        photos = write_photos(item, self.out / "items" / str(self.row))
        recipe = replace(recipe_for(self.model, photos, seed), steps=max(count, 1), method=method)
        if method == "zo":  # or what ships would be drawn from
            recipe = replace(recipe, directions=ISOTROPIC)
        else:
            recipe = replace(recipe, relative_rate=_RATE)
        steps = TokenSteps.open(recipe, [look.prompt for look in SCORED_LOOKS])
        steps.task = replace(steps.task, evaluation_samples=EVALUATED)
        if way.rows is not None:
            draw = Spanned({"token": way.rows.astype(np.float32)})
            steps.estimator = replace(steps.estimator, draw=draw)
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
