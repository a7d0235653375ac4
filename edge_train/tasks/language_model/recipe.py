"""The keys of task language-model."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.discrete import PromptKeys
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
    PromptKeys,
    DecayKeys,
    MicroBatchKeys,
    ClipKeys,
    SmoothingKeys,
    DropoutKeys,
    DifferenceKeys,
):
    """Train a transformers language model on a text: all weights, adapters, or a prompt."""

    task: ClassVar[str] = "language-model"
    loss_on: str = key(
        "completions",
        help="tokens of chats and prompts that are learned; a text is learned whole. labels: the "
        "first token of each answer, among those that the answers of the data begin with",
        choices=("completions", "all", "labels"),
        group="data",
    )
    trainable: str = key(
        "auto",
        help="what is trained: all weights, an adapter, or a prompt before every chat; auto: a "
        "prompt with --method discrete, an adapter of a GGUF file, and where a key of adapters is "
        "named; else all weights",
        flags=("--trainable", "--fine-tune-type"),
        translates={"full": "all"},
        choices=("auto", "all", "lora", "dora", "prompt"),
        common=True,
    )
    also_for: str | None = key(
        help="with --method discrete, another frozen model that the words are for as well: a "
        "folder, file or hub id; needs --prompt-start",
        group="model",
    )
