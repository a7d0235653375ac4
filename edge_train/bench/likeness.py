"""`edge-train bench likeness`: is the measure saturated? One item, settings from none to good."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.bench.feature_spaces import spaces
from edge_train.bench.item_likeness import PICTURES, Gallery, Scores, prompts, score
from edge_train.bench.items import (
    SCORED_LOOKS,
    Grey,
    Pixels,
    choose,
    paint,
    photos_of,
    read_items,
    write_photos,
)
from edge_train.bench.likeness_scores import Likeness
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import InputError, NonFinite
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import EMBEDDED
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

CLASSES = ("bag", "sneaker", "dress")  # of the items, in this order
WINDOW = (300, 1000)
CLASS_WORD = "item"
# name, steps, rate relative to the token's root mean square
_SETTINGS = (
    ("before training", 0, 0.2),
    ("exact, 10 steps", 10, 0.2),
    ("exact, 100 steps at a hundredth of the rate", 100, 0.002),
    ("exact, 100 steps at 10 times the rate", 100, 2.0),
    ("exact, 100 steps", 100, 0.2),
    ("exact, 400 steps", 400, 0.2),
)


def recipe_for(model: Path | None, photos: Path, seed: int) -> PersonalizeRecipe:
    """Return what is common to all runs on an item."""
    return PersonalizeRecipe(
        model=str(model or EMBEDDED),
        photos=str(photos),
        class_word=CLASS_WORD,
        window=WINDOW,
        flips=False,
        threads=1,
        seed=seed,
    )


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    features: Path | None = None,
    limit: int = len(CLASSES),
) -> str:
    """Learn items by exact gradients in good and bad settings; return Markdown tables.

    Args:
      out: where networks, features of the gallery and scores are kept; scores that are there are
        not measured again.
      seeds: of training, for every item.
      data: the folder of `fashion_mnist.npz`.
      model: a folder of `demos/tiny_sd/pretrain.py`; the embedded model without it.
      features: a folder of feature networks; see `feature_spaces.spaces`.
      limit: how many of the items bag, sneaker, dress, in this order.

    Raises:
      InputError: a folder is missing.
    """
    gallery, labels = gallery_of(out, data, features)
    items = gallery.items
    name = model.name if model else EMBEDDED
    tables = []
    for item, row in choose(labels, CLASSES[:limit]).items():
        rows = [_row("the item itself, painted", [_real(gallery, items, row, None)])]
        through = recipe_for(model, write_photos(items[row], out / "items" / item), 0)
        rows.append(_row("the same through the VAE", [_real(gallery, items, row, through)]))
        for setting, steps, rate in _SETTINGS:
            found = []
            for seed in range(seeds if steps else 1):
                kept = out / f"likeness-{name}-{item}-{steps}-{rate}-seed{seed}.json"
                if not kept.exists():
                    recipe = replace(through, seed=seed, steps=max(steps, 1), relative_rate=rate)
                    photos = photos_of(items[row])
                    write_scores(kept, _learned(recipe, steps, gallery, photos, row))
                found.append(read_scores(kept))
            rows.append(_row(setting, found))
        heads = [f"{s.name}: cosine, rank, first" for s in gallery.spaces]
        tables.append(f"`{item}` (item {row}), {seeds} seeds.\n\n")
        tables[-1] += bench.table(["what", *heads, "color and background"], rows)
    said = f"{len(SCORED_LOOKS)} looks x {PICTURES} pictures, rank among {len(items):,} items."
    return "\n\n".join([said, *tables])


def gallery_of(
    out: Path, data: Path | None, features: Path | None
) -> tuple[Gallery, NDArray[np.int64]]:
    """Return all test items with every space, and the classes of the items.

    Raises:
      InputError: no folder of data was named, or one does not hold what it should.
    """
    if data is None:
        raise InputError("items come from Fashion-MNIST: --data FOLDER with fashion_mnist.npz.")
    items, labels = read_items(data, "test")
    out.mkdir(parents=True, exist_ok=True)
    return Gallery(items, spaces(read_items(data, "train")[0], out, features), out), labels


def _learned(
    recipe: PersonalizeRecipe, count: int, gallery: Gallery, photos: Pixels, row: int
) -> Scores:
    """Return the scores after `count` exact steps; of a run that diverged, where it stopped."""
    steps = TokenSteps.open(recipe, prompts(), method="backprop")
    try:
        for number in range(count):
            steps.take(number)
    except NonFinite:
        steps.move_to(steps.job.start)
    found = score(steps, steps.point, gallery, photos, row)
    steps.runtime.close()
    return found


def _real(gallery: Gallery, items: Grey, row: int, through: PersonalizeRecipe | None) -> Scores:
    """Return the scores of the item itself, as it is or as the model's VAE gives it back."""
    own = items[row : row + 1]
    pictures = {look: paint(own, look) for look in SCORED_LOOKS}
    if through is not None:
        job = parts.check(through)
        for look, picture in pictures.items():
            mean, _ = job.serving.encode(job.recipe, job.model, picture, strips=False)
            pictures[look] = parts.decode_latents(job, mean)
    return Scores(gallery.score(pictures, photos_of(items[row]), row), float("nan"))


def write_scores(path: Path, scores: Scores) -> None:
    """Write scores as JSON."""
    write_bytes(path, json.dumps(asdict(scores), indent=1).encode())


def read_scores(path: Path) -> Scores:
    """Read what `write_scores` wrote."""
    words = json.loads(path.read_text("utf-8"))
    return Scores({n: Likeness(**v) for n, v in words["spaces"].items()}, words["composition"])


def _row(name: str, found: list[Scores]) -> list[str]:
    cells = []
    for space in found[0].spaces:
        own = [scores.spaces[space] for scores in found]
        cosine, rank, first = (
            float(np.mean([getattr(one, of) for one in own])) for of in ("cosine", "rank", "first")
        )
        cells.append(f"{cosine:.3f}, {rank:,.0f}, {100 * first:.0f} %")
    composed = float(np.mean([scores.composition for scores in found]))
    cells.append("-" if np.isnan(composed) else f"{100 * composed:.0f} %")
    return [name, *cells]
