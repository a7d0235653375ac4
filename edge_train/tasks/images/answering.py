"""A picture's class by a trained head, with its probability, or that it is of no known class."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError
from edge_train.formats.picture_folders import PictureRoot, shown
from edge_train.memory.machine import cores
from edge_train.tasks.images.backbone import find_backbone
from edge_train.tasks.images.classifier_file import CLASSIFIER, Classifier, load_classifier
from edge_train.tasks.images.engine import HeadEngine
from edge_train.tasks.images.views import whole


@dataclass(frozen=True)
class Answer:
    """What is said of a picture.

    Attributes:
      label: the likeliest class.
      probability: of it, among the known ones.
      nearness: cosine of the nearest known picture.
      is_known: whether that is near enough.
    """

    label: str
    probability: float
    nearness: float
    is_known: bool


class Answering:
    """A classifier whose head is at hand.

    Args:
      classifier: that a run learned.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._engine = HeadEngine(classifier.stages, Parameters(classifier.parameters))

    def answers(self, features: Array) -> list[Answer]:
        """Return an answer for each row of features, (rows, width), as a backbone gives them."""
        one = self._classifier
        inputs = one.standard(features)
        logits = self._engine.outputs(inputs, self._engine.parameters).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return [
            Answer(
                label=one.classes[int(row.argmax())],
                probability=float(row.max()),
                nearness=float(near),
                is_known=bool(near >= one.known.threshold),
            )
            for row, near in zip(shares, one.known.nearness(inputs), strict=True)
        ]


def infer(
    run: Path, pictures: Sequence[Path], *, model: str | None = None, as_json: bool = False
) -> Iterator[str]:
    """Yield a line about each picture, in order.

    Args:
      pictures: files, or folders of them.
      model: the backbone, where it is now; None: where it was.

    Raises:
      InputError, ModelError, RunFolderError: a picture, the backbone or the run cannot be used.
    """
    run, files = run.expanduser(), _files(pictures)
    if not (run / CLASSIFIER).is_file():
        raise InputError(
            f"{run}: there is no {CLASSIFIER}; name the folder of a run of task 'images' that has "
            "ended, such as runs/images-photos."
        )
    classifier = load_classifier(run / CLASSIFIER, model)
    backbone = find_backbone(model or classifier.model, None, classifier.trained_blocks)
    if backbone.sha256 != classifier.model_sha256:
        raise ModelError(
            f"{model or classifier.model} is not the backbone that {run} was trained on; its "
            "features mean something else. Name the same file with --model."
        )
    network, answering = backbone.opened(cores()), Answering(classifier)
    for file in files:
        features = network(whole(file, classifier.side)[None])
        if not np.isfinite(features).all():
            raise ModelError(f"{file}: its features are not finite; the backbone is damaged.")
        [answer] = answering.answers(features)
        yield _as_json(file, answer, classifier) if as_json else _in_words(file, answer, classifier)


def _files(pictures: Sequence[Path]) -> list[Path]:
    """Return files, with those of folders in their place.

    Raises:
      InputError: there is none in a folder.
    """
    found: list[Path] = []
    for path in (one.expanduser() for one in pictures):
        inside = PictureRoot(path).below(path) if path.is_dir() else (path,)
        if not inside:
            raise InputError(f"{shown(path)}: there is no picture in it; name a photo.")
        found += inside
    return found


def _in_words(file: Path, answer: Answer, classifier: Classifier) -> str:
    near, least = f"{answer.nearness:.2f}", f"{classifier.known.threshold:.2f}"
    if answer.is_known:
        return f"{shown(file)}: {answer.label} ({100 * answer.probability:.1f} %)"
    return (
        f"{shown(file)}: unknown (nearest to {answer.label}; {near} alike, known pictures have "
        f"{least} or more)"
    )


def _as_json(file: Path, answer: Answer, classifier: Classifier) -> str:
    return json.dumps(
        {
            "picture": shown(file),
            "class": answer.label if answer.is_known else None,
            "nearest": answer.label,
            "probability": round(answer.probability, 6),
            "alike": round(answer.nearness, 6),
            "threshold": round(classifier.known.threshold, 6),
        },
        ensure_ascii=False,
    )
