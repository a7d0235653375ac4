"""What a token's pictures score: likeness in every space, and whether they obey their prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_train.arrays.types import Array, Point
from edge_train.bench.feature_spaces import Space
from edge_train.bench.items import SCORED_LOOKS, Grey, Look, Pixels, paint, photos_of, write_photos
from edge_train.bench.likeness_scores import Likeness, likeness
from edge_train.bench.token_steps import TokenSteps
from edge_train.formats.embedded import DATA
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.tasks.personalize.judge import Judge
from edge_train.tasks.personalize.pictures import differing_pairs, draw

PICTURES = 16  # of each look
_COMPOSED = 32  # pictures in as many pairs of color and background
_TOGETHER = 32  # pictures in one batch


def composition_looks() -> list[Look]:
    """Return the looks that composition is asked for, spread over all that differ."""
    judge = Judge.load(DATA / "judge.safetensors")
    pairs = differing_pairs(judge)
    some = np.linspace(0, len(pairs), _COMPOSED, endpoint=False).astype(int)
    return [
        Look(judge.color_names[color], judge.background_names[background])
        for color, background in (pairs[number] for number in some)
    ]


def prompts() -> list[str]:
    """Return every prompt that is drawn, `{}` for the token."""
    return [look.prompt for look in (*SCORED_LOOKS, *composition_looks())]


@dataclass(frozen=True)
class Scores:
    """What one point scores.

    `spaces` is likeness by the name of the space, `composition` the share of pictures whose color
    and background are those that were asked for.
    """

    spaces: Mapping[str, Likeness]
    composition: float


@dataclass
class Gallery:
    """All items in every scored look, as features; made once and kept in a folder.

    Args:
      items: (10,000, 28, 28).
      out: where features are kept.
    """

    items: Grey
    spaces: Sequence[Space]
    out: Path
    _features: dict[tuple[str, Look], Array] = field(default_factory=dict)

    def features(self, space: Space, look: Look) -> Array:
        """Return the features (items, width)."""
        if (space.name, look) not in self._features:
            name = f"gallery-{space.name}-{look.color}-{look.background}".replace(" ", "-")
            path = self.out / f"{name}.safetensors"
            if not path.exists():
                save_tensors(path, {"features": space.features(paint(self.items, look))}, {})
            self._features[space.name, look] = load_tensors(path)[0]["features"]
        return self._features[space.name, look]

    def score(
        self, pictures: Mapping[Look, Pixels], photos: Pixels, true: int
    ) -> dict[str, Likeness]:
        """Return the mean over looks of what pictures score, by space.

        Args:
          pictures: by the look that was asked for.
          photos: that the token was learned from.
          true: the item.

        Raises:
          ValueError: features are not finite.
        """
        scores = {}
        for space in self.spaces:
            known = space.features(photos)
            each = [
                likeness(space.features(own), known, self.features(space, look), true)
                for look, own in pictures.items()
            ]
            scores[space.name] = Likeness(
                *(
                    float(np.mean([getattr(found, name) for found in each]))
                    for name in ("cosine", "rank", "first", "tenth")
                )
            )
        return scores


class Subjects(Protocol):
    """What tokens learn, by name: the photos that they learn from, and how like it they are."""

    @property
    def spaces(self) -> Sequence[Space]:
        """Where likeness is measured; headlines are in the first."""

    @property
    def prompts(self) -> Sequence[str]:
        """Every prompt that is drawn, `{}` for the token."""

    def write(self, name: str) -> Path:
        """Write the photos of a subject with their captions; return their folder."""

    def score(self, steps: TokenSteps, point: Point, name: str, *, composed: bool) -> Scores:
        """Draw a token's pictures and score them; composition is nan if it is not asked for."""


@dataclass(frozen=True)
class Items:
    """Items of the gallery, by name: their rows."""

    gallery: Gallery
    rows: Mapping[str, int]

    @property
    def spaces(self) -> Sequence[Space]:
        """Those of the gallery."""
        return self.gallery.spaces

    @property
    def prompts(self) -> Sequence[str]:
        """Every prompt that is drawn, `{}` for the token."""
        return prompts()

    def write(self, name: str) -> Path:
        """Write the five photos of an item with their captions; return their folder."""
        folder = self.gallery.out / "items" / name
        return write_photos(self.gallery.items[self.rows[name]], folder)

    def score(self, steps: TokenSteps, point: Point, name: str, *, composed: bool) -> Scores:
        """Draw a token's pictures and score them; see `score`."""
        row = self.rows[name]
        photos = photos_of(self.gallery.items[row])
        return score(steps, point, self.gallery, photos, row, composed=composed)


def drawn(steps: TokenSteps, point: Point, looks: Sequence[Look]) -> Pixels:
    """Return a picture of the token in each look; picture i starts from noise i."""
    texts = [look.prompt for look in looks]
    return draw(steps.job, steps.runtime, point, texts, together=_TOGETHER)


def score(
    steps: TokenSteps,
    point: Point,
    gallery: Gallery,
    photos: Pixels,
    true: int,
    *,
    composed: bool = True,
) -> Scores:
    """Draw a token's pictures and score them.

    Args:
      composed: whether composition is scored, too; else it is not a number.
    """
    looks = [look for look in SCORED_LOOKS for _ in range(PICTURES)]
    pictures = drawn(steps, point, looks)
    split = np.split(pictures, len(SCORED_LOOKS))
    found = gallery.score(dict(zip(SCORED_LOOKS, split, strict=True)), photos, true)
    return Scores(found, _composition(steps, point) if composed else float("nan"))


def _composition(steps: TokenSteps, point: Point) -> float:
    judge, looks = Judge.load(DATA / "judge.safetensors"), composition_looks()
    verdict = judge.predict(drawn(steps, point, looks))
    right = [
        judge.color_names[color] == look.color and judge.background_names[ground] == look.background
        for color, ground, look in zip(
            verdict.color_index, verdict.background_index, looks, strict=True
        )
    ]
    return float(np.mean(right))
