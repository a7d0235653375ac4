"""What `--head` names: a record of how a head is built on the features of a backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_train.registry import Registry, load

if TYPE_CHECKING:
    from edge_train.tasks.images.stage import HeadStage


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a head is built for.

    Attributes:
      width: numbers of a picture's features.
      classes: that it tells apart.
      size: `head_size`: of its bank or hidden layer.
      difference: `tversky_difference`.
    """

    width: int
    classes: int
    size: int
    difference: str = "subtractmatch"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head: one stage after the other, from features to a number for each class.

    Attributes:
      name: what `--head` says.
      says: a line for people.
      stages: "module:function" that makes its stages of a `Shape`.
      sized: whether it reads `head_size`.
      size: of it where nobody says, from width and classes.
    """

    name: str
    says: str
    stages: str
    sized: bool = False
    size: Callable[[int, int], int] = lambda width, classes: 1


_STAGES = "edge_train.tasks.images.stages"
_LEAST_BANK, _MOST_BANK = 16, 256


def _bank(_: int, classes: int) -> int:
    return min(max(4 * classes, _LEAST_BANK), _MOST_BANK)


def _as_many_parameters(width: int, classes: int) -> int:
    """Return the hidden units of a two-layer head with the parameters of a Tversky head."""
    parameters = (_bank(width, classes) + classes) * width + 3
    return max(round((parameters - classes) / (width + classes + 1)), 1)


HEADS = (
    Head(
        name="linear",
        says="a linear layer on the features",
        stages=f"{_STAGES}:linear",
    ),
    Head(
        name="cosine",
        says="the cosine of the features and a prototype of each class",
        stages=f"{_STAGES}:cosine",
    ),
    Head(
        name="tversky",
        says="Tversky similarity to a prototype of each class, over a learned bank of features",
        stages=f"{_STAGES}:tversky",
        sized=True,
        size=_bank,
    ),
    Head(
        name="two-layer",
        says="a hidden layer of as many parameters as a Tversky head has, and a linear one",
        stages=f"{_STAGES}:two_layer",
        sized=True,
        size=_as_many_parameters,
    ),
)
heads: Registry[Head] = Registry("head", "edge_train.tasks.images.heads", "HEADS")


def stages_of(head: Head, shape: Shape) -> "Sequence[HeadStage]":
    """Return the stages of a head, without their parameters."""
    stages: Sequence[HeadStage] = load(head.stages)(shape)
    return stages
