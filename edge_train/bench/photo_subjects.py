"""Photos of one thing each, from DreamBooth, and 10,000 of other things, from CIFAR-10: 32 pixels.

What `items.py` is for painted clothes, of real photos. Nothing is said of their looks: a caption is
"a photo of a {}". Two photos of each thing are kept from training; likeness is to these.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from edge_train.arrays.types import Array, Point
from edge_train.bench import unlabelled_network
from edge_train.bench.feature_spaces import Space, published
from edge_train.bench.item_likeness import Scores
from edge_train.bench.items import BACKGROUNDS, SIDE, Pixels
from edge_train.bench.likeness_scores import Likeness, cosines, likeness
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import InputError
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.tasks.personalize.pictures import draw

# first those whose photos both spaces tell from those of all others
SUBJECTS = ("dog6", "cat", "bear_plushie", "clock", "teapot", "backpack_dog")
PLAIN = "a photo of a {}"
GROUNDS = ("blue", "green", "white", "black")  # backgrounds that are asked for
KEPT = 2  # photos of each thing that no token learns from
PICTURES = 16  # on no named background, and on named ones
_EDGE = 4  # pixels of a picture's edge that are its background
_STEPS = 400  # of the network that learns here without labels
_SMALLEST = 16  # pixels of a view's side, of 32
_SHADES = 0.4  # by which a view's channels are brighter or darker, at most


def read_others(data: Path) -> Pixels:
    """Return the 10,000 training photos of CIFAR-10.

    Args:
      data: the folder of `cifar10_subset_jpeg.npz`.

    Raises:
      InputError: the file is missing or is another.
    """
    path = data / "cifar10_subset_jpeg.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content, ends = arrays["train_jpeg"].tobytes(), arrays["train_offsets"].tolist()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; name the folder that holds it: --data.") from error
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} has no photos; name another folder: --data.") from error
    photos = [Image.open(io.BytesIO(content[start:end])) for start, end in pairwise(ends)]
    return np.stack([np.asarray(photo.convert("RGB")) for photo in photos])


def read_subject(data: Path, name: str) -> Pixels:
    """Return the photos of one thing, the square in their middle made small.

    Args:
      data: the folder of `dreambooth/`.

    Raises:
      InputError: there are too few to learn from.
    """
    files = sorted((data / "dreambooth" / name).glob("*.jpg"))
    if len(files) < KEPT + 1:
        raise InputError(
            f"{data / 'dreambooth' / name}: {len(files)} photos, and {KEPT + 1} are needed; name "
            "the folder that holds dreambooth: --data."
        )
    return np.stack([_small(Image.open(file).convert("RGB")) for file in files])


def _small(photo: Image.Image) -> Pixels:
    side = min(photo.size)
    left, top = ((length - side) // 2 for length in photo.size)
    middle = photo.crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BOX))


def background_of(pictures: Pixels) -> list[str]:
    """Return the named background nearest to the edge of each picture (n, 32, 32, 3).

    >>> background_of(np.full((1, SIDE, SIDE, 3), (40, 80, 220), np.uint8))
    ['blue']
    """
    edge = np.ones((SIDE, SIDE), bool)
    edge[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    mean = pictures[:, edge].astype(np.float64).mean(axis=1)
    named = np.array(list(BACKGROUNDS.values()), np.float64)
    nearest = np.linalg.norm(mean[:, None] - named, axis=2).argmin(axis=1)
    return [list(BACKGROUNDS)[number] for number in nearest.tolist()]


def views(photos: Pixels, generator: np.random.Generator) -> Pixels:
    """Return a part of each photo, at its size, mirrored half of the time, in other shades."""
    found = []
    for photo in photos:
        side = int(generator.integers(_SMALLEST, SIDE + 1))
        left, top = generator.integers(0, SIDE - side + 1, size=2).tolist()
        part = Image.fromarray(photo[top : top + side, left : left + side])
        large = np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
        mirrored = large[:, ::-1] if generator.random() < 0.5 else large
        shades = 1 + generator.uniform(-_SHADES, _SHADES) + generator.uniform(-0.1, 0.1, size=3)
        found.append(np.clip(mirrored * shades, 0, 255).astype(np.uint8))
    return np.stack(found)


def photo_spaces(others: Pixels, out: Path, folder: Path | None) -> list[Space]:
    """Return every space there is; see `feature_spaces.spaces`.

    Raises:
      InputError: the folder is not there, or holds no network.
    """
    path = out / "unlabelled-photos.safetensors"
    own = Space("unlabelled", unlabelled_network.kept(path, others, _STEPS, views))
    return [own, *(published(folder) if folder else [])]


@dataclass
class PhotoSubjects:
    """Things with photos, and how like them the pictures of a token are.

    Args:
      photos: of each thing (n, 32, 32, 3); the last `KEPT` of them are kept from training.
      others: photos of other things, among which a kept photo of the true one has a rank.
      out: where photos and features of the others are kept.
    """

    photos: dict[str, Pixels]
    others: Pixels
    spaces: Sequence[Space]
    out: Path
    _features: dict[str, Array] = field(default_factory=dict)

    @property
    def prompts(self) -> list[str]:
        """Every prompt that is drawn, `{}` for the token."""
        return [PLAIN, *(f"{PLAIN} on a {ground} background" for ground in GROUNDS)]

    def write(self, name: str) -> Path:
        """Write the photos that a token learns from, with captions; return their folder."""
        folder = self.out / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(self.photos[name][:-KEPT], 1):
            Image.fromarray(photo).save(folder / f"{number:02d}.png")
            (folder / f"{number:02d}.txt").write_text(PLAIN + "\n", "utf-8")
        return folder

    def score(self, steps: TokenSteps, point: Point, name: str, *, composed: bool) -> Scores:
        """Draw pictures of a token, half of them on a named background, and score them.

        Args:
          composed: whether the share with the background that was asked for is told.
        """
        grounds = [ground for ground in GROUNDS for _ in range(PICTURES // len(GROUNDS))]
        texts = [PLAIN] * PICTURES + [f"{PLAIN} on a {ground} background" for ground in grounds]
        pictures = draw(steps.job, steps.runtime, point, texts, together=len(texts))
        right = np.equal(background_of(pictures[PICTURES:]), grounds).mean()
        spaces = {s.name: self._likeness(s, pictures, name) for s in self.spaces}
        return Scores(spaces, float(right) if composed else float("nan"))

    def _likeness(self, space: Space, pictures: Pixels, name: str) -> Likeness:
        kept = space.features(self.photos[name][-KEPT:])
        gallery = np.concatenate([self._others(space), kept[:1]])
        return likeness(space.features(pictures), kept, gallery, len(self.others))

    def _others(self, space: Space) -> Array:
        if space.name not in self._features:
            path = self.out / f"others-{space.name}.safetensors".replace(" ", "-")
            if not path.exists():
                save_tensors(path, {"features": space.features(self.others)}, {})
            self._features[space.name] = load_tensors(path)[0]["features"]
        return self._features[space.name]

    def between(self, space: Space, one: str, other: str) -> float:
        """Return the mean cosine of photos to learn one thing from with kept ones of another."""
        learned = space.features(self.photos[one][:-KEPT])
        return float(cosines(learned, space.features(self.photos[other][-KEPT:])).mean())
