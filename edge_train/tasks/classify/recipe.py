"""The keys of task classify."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.discrete import PromptKeys
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
from edge_train.tasks.table_keys import LabelColumnKeys, SourceKeys, TextColumnKeys


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(
    TextKeys,
    TextColumnKeys,
    LabelColumnKeys,
    SourceKeys,
    ForwardKeys,
    PromptKeys,
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

    pair_column: str | None = key(
        help="column of the second text of each pair: its name, or its number from 1 on",
        group="data",
    )
    objective: str = key(
        "auto",
        help="classes or regression; auto reads it from the model's configuration",
        choices=("auto", "classes", "regression"),
    )
    trainable: str = key(
        "all",
        help="what is trained; norms: head and vectors; lora: head and adapters",
        choices=("all", "head", "norms", "lora"),
    )
    new_head: bool = key(
        False,
        help="put a new head on the model, with an output for each label of the data",
        flags=("--new-head",),
    )
