"""How well a head tells pictures apart: accuracy, confusions, mistakes, who is called unknown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Point
from edge_train.tasks.images.classifier_file import Classifier
from edge_train.tasks.images.engine import HeadEngine
from edge_train.tasks.images.features import FeatureFile
from edge_train.tasks.images.objective import TOGETHER
from edge_train.tasks.mistakes import Mistake, merged, worst
from edge_train.tasks.scores import macro_f1, matthews


@dataclass(frozen=True)
class Scored:
    """The metrics of some pictures, and the worst mistakes, whose rows count from `pictures`."""

    metrics: dict[str, Any]
    mistakes: list[Mistake]
    pictures: NDArray[np.int64]


def score(
    engine: HeadEngine,
    point: Point,
    classifier: Classifier,
    rows: Callable[[NDArray[np.int64]], Array],
    pictures: NDArray[np.int64],
    file: FeatureFile,
    *,
    known: bool = False,
) -> Scored:
    """Return the scores of a head on pictures; few rows are held at once.

    Args:
      rows: standardized features of pictures.
      known: the pictures may be references themselves; each is then measured by the others.
    """
    count = len(file.classes)
    table, mistakes, far = np.zeros((count, count), np.int64), list[Mistake](), 0
    for start in range(0, len(pictures), TOGETHER):
        some = pictures[start : start + TOGETHER]
        inputs, labels = rows(some), file.labels[some]
        logits = engine.outputs(inputs, point)
        np.add.at(table, (labels, logits.argmax(axis=1)), 1)
        mistakes = merged(mistakes, worst(labels, logits, first_row=start))
        near = classifier.known.nearness(inputs, others=known)
        far += int((near < classifier.known.threshold).sum())
    metrics = {
        "accuracy": float(np.trace(table) / table.sum()),
        "scored_pictures": len(pictures),
        "macro_f1": macro_f1(table),
        "matthews": matthews(table),
        "class_names": list(file.classes),
        "confusion": table.tolist(),
        "taken_for_unknown": far,
        "unknown_below_cosine": classifier.known.threshold,
    }
    return Scored(metrics, mistakes, pictures)
