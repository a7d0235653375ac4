"""The keys of task language-model."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import (
    AdapterKeys,
    ClipKeys,
    DecayKeys,
    DropoutKeys,
    MicroBatchKeys,
    SmoothingKeys,
)
from edge_train.methods.low_rank import LowRankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import DifferenceKeys, TextKeys, key
from edge_train.tasks.table_keys import SourceKeys, TextColumnKeys


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(
    TextKeys,
    TextColumnKeys,
    SourceKeys,
    ForwardKeys,
    LowRankKeys,
    AdapterKeys,
    DecayKeys,
    MicroBatchKeys,
    ClipKeys,
    SmoothingKeys,
    DropoutKeys,
    DifferenceKeys,
):
    """Train a transformers language model on a text: all weights, or adapters."""

    task: ClassVar[str] = "language-model"
    loss_on: str = key(
        "completions",
        help="tokens of chats and prompts that are learned; a text is learned whole",
        choices=("completions", "all"),
        group="data",
    )
