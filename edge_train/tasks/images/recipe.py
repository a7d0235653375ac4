"""The keys of task images."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import (
    ClassKeys,
    ClipKeys,
    DecayKeys,
    MicroBatchKeys,
    SmoothingKeys,
)
from edge_train.methods.layerwise import LayerwiseKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import key
from edge_train.tasks.table_keys import LabelColumnKeys


@dataclass(frozen=True, kw_only=True)
class ImagesRecipe(
    LabelColumnKeys,
    ForwardKeys,
    LayerwiseKeys,
    DecayKeys,
    ClipKeys,
    MicroBatchKeys,
    SmoothingKeys,
    ClassKeys,
):
    """Train a classifier of pictures on the features of a frozen backbone."""

    task: ClassVar[str] = "images"

    head: str = key(
        "linear",
        help="what is trained on the features: linear, cosine, tversky or two-layer",
        group="model",
    )
    head_size: int | None = key(
        help="features in the bank of a tversky head, or hidden units of a two-layer one",
        low=1,
        high=65536,
        group="model",
    )
    tversky_difference: str = key(
        "subtractmatch",
        help="what a tversky head counts as missing: how much more one side has of a common "
        "feature, or the features that the other side lacks",
        choices=("ignorematch", "subtractmatch"),
        group="model",
    )
    momentum: float = key(0.9, help="momentum of stochastic gradient descent", low=0, high=0.999)
    views: int | None = key(
        help="augmentation: views of each training picture, cropped, mirrored and brightened by "
        "the seed; 1: none; default: as many as 500 features leave room for, at most 8",
        low=1,
        high=64,
        group="data",
    )
    patch_views: int = key(
        0,
        help="hardening: further views of each training picture with a patch of random colours on "
        "a tenth of it; `edge-train audit RUN --harden` sets it",
        low=0,
        high=64,
        group="data",
    )
    view_dropout: float | None = key(
        help="hardening: train on the mean of a picture's views, each left out with this "
        "probability; default: on one view at a time",
        low=0,
        high=0.95,
        group="data",
    )
    trained_blocks: int = key(
        0,
        help="last blocks of the backbone that are trained with the head, by exact gradients; of a "
        "folder in timm's layout; 0: the backbone is frozen",
        low=0,
        high=100,
        group="model",
    )
    resolution: int | None = key(help="side of a picture in pixels", low=8, high=4096, group="data")
    train_samples: int | None = key(help="most training samples", low=4, high=10**9, group="data")
