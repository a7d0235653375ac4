"""The keys of task classify."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import (
    ClassKeys,
    ClipKeys,
    DecayKeys,
    DropoutKeys,
    RateKeys,
    SmoothingKeys,
)
from edge_train.methods.low_rank import LowRankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import DifferenceKeys, TextKeys, key


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(
    TextKeys,
    ForwardKeys,
    LowRankKeys,
    DecayKeys,
    RateKeys,
    ClipKeys,
    SmoothingKeys,
    ClassKeys,
    DropoutKeys,
    DifferenceKeys,
):
    """Train a transformers sequence classifier on labeled texts."""

    task: ClassVar[str] = "classify"

    objective: str = key(
        "auto",
        help="classes, or regression: labels are numbers; auto asks the model",
        choices=("auto", "classes", "regression"),
    )
    trainable: str = key(
        "all",
        help="what learns; norms: head and vectors; lora: head and adapters",
        choices=("all", "head", "norms", "lora"),
    )
