"""What a run learned, as one file: the head, what makes features comparable, known pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.formats.vision_folder import MOST_SIDE
from edge_train.tasks.images.backbone import find_backbone
from edge_train.tasks.images.heads import Shape, heads, stages_of
from edge_train.tasks.images.objective import Standard
from edge_train.tasks.images.stage import HeadStage
from edge_train.tasks.images.tail import tail_of
from edge_train.tasks.images.unknowns import Known

CLASSIFIER = "classifier.safetensors"
_HEAD = "head."  # before the names of its parameters
_VERSION = "1"
_MOST, _MOST_SCALE = 1e6, 1e9  # of any number of a head, and of features: no product overflows


@dataclass(frozen=True)
class Classifier:
    """A trained head with all that turns features into an answer.

    Attributes:
      model: name of the backbone, as the run had it.
      model_sha256: of the backbone.
      side: of the pictures that the backbone was given.
      tail: the stage of its last blocks, where these were trained, and how many they are.
    """

    head: str
    shape: Shape
    parameters: Mapping[str, Array]
    standard: Standard
    known: Known
    classes: Sequence[str]
    model: str
    model_sha256: str
    side: int
    tail: Sequence[HeadStage] = ()
    trained_blocks: int = 0

    @property
    def stages(self) -> Sequence[HeadStage]:
        """The stages of its head, behind those blocks."""
        return (*self.tail, *stages_of(heads.get(self.head), self.shape))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
          RunFolderError: it cannot be written.
        """
        tensors = {f"{_HEAD}{name}": np.array(v) for name, v in self.parameters.items()}
        tensors |= {"mean": self.standard.mean, "references": self.known.references}
        about = {
            "version": _VERSION,
            "head": self.head,
            "size": str(self.shape.size),
            "difference": self.shape.difference,
            "scale": repr(self.standard.scale),
            "threshold": repr(self.known.threshold),
            "classes": json.dumps(list(self.classes)),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "side": str(self.side),
        }
        if self.trained_blocks:
            about |= {
                "trained_blocks": str(self.trained_blocks),
                "features": str(self.shape.width),
            }
        save_tensors(path, tensors, about)


def load_classifier(path: Path, model: str | None = None) -> Classifier:
    """Return what a run learned.

    Args:
      model: the backbone, where it is now; it is opened where its last blocks were trained.

    Raises:
      RunFolderError: it is missing, damaged, or of a later version.
      InputError: its head is not known here.
    """
    tensors, about = load_tensors(path)
    try:
        if about["version"] != _VERSION:
            raise ValueError(f"it is of version {about['version']}, this reads {_VERSION}")
        classes = tuple(map(str, json.loads(about["classes"])))
        mean, references = tensors["mean"], tensors["references"]
        shape = Shape(
            width=int(about.get("features", len(mean))),
            classes=len(classes),
            size=int(about["size"]),
            difference=about["difference"],
        )
        parameters = {
            name.removeprefix(_HEAD): value
            for name, value in tensors.items()
            if name.startswith(_HEAD)
        }
        standard, trained = (
            Standard(mean, float(about["scale"])),
            int(about.get("trained_blocks", 0)),
        )
        tail: Sequence[HeadStage] = ()
        if trained:
            tail = tail_of(find_backbone(model or about["model"], None, trained), standard)
            if tail[0].inputs != len(mean):
                raise ValueError("its rows are not those of its backbone")
        found = Classifier(
            head=about["head"],
            shape=shape,
            parameters=parameters,
            standard=standard,
            known=Known(references, float(about["threshold"])),
            classes=classes,
            model=about["model"],
            model_sha256=about["model_sha256"],
            side=int(about["side"]),
            tail=tail,
            trained_blocks=trained,
        )
        shapes = {
            f"{stage.name}.{name}": shape
            for stage in found.stages
            for name, shape in stage.shapes().items()
        }
        given = {name: value.shape for name, value in parameters.items()}
        if given != shapes or mean.ndim != 1 or references.shape[1:] != mean.shape:
            raise ValueError("its arrays do not fit its head")
        _check_numbers(found)
    except (InputError, ModelError):
        raise
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise RunFolderError(f"{path}: is no classifier of pictures ({error}).") from error
    return found


def _check_numbers(found: Classifier) -> None:
    """Refuse what an answer cannot be computed with.

    Raises:
      ValueError: as described.
    """
    arrays = [found.standard.mean, found.known.references, *found.parameters.values()]
    if any(one.dtype != np.float32 or not (np.abs(one) < _MOST).all() for one in arrays):
        raise ValueError(f"an array is not of numbers below {_MOST:g} in float32")
    if not 1 / _MOST_SCALE < found.standard.scale < _MOST_SCALE:
        raise ValueError(f"features are divided by {found.standard.scale}")
    if not len(found.known.references) or not math.isfinite(found.known.threshold):
        raise ValueError("it says of no picture whether it is known")
    if not found.classes or not 0 < found.side <= MOST_SIDE:
        raise ValueError(f"{len(found.classes)} classes, pictures of {found.side} pixels")
