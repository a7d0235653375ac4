"""The keys of task language-model."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import ClipKeys, DecayKeys, DropoutKeys, MicroBatchKeys, SmoothingKeys
from edge_train.methods.low_rank import LowRankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import DifferenceKeys, Recipe, TextKeys, key
from edge_train.tasks.table_keys import TextColumnKeys


@dataclass(frozen=True, kw_only=True)
class AdapterKeys(Recipe):
    """Of low-rank adapters beside frozen weights."""

    trainable: str = key(
        "auto",
        help="what is trained: all weights, or an adapter; auto: an adapter of a model that has "
        "weights, by a method that can",
        choices=("auto", "all", "lora", "dora"),
        common=True,
    )
    alpha: float | None = key(
        help="alpha of an adapter, which is scaled by alpha / rank; default: twice the rank",
        flags=("--alpha", "--lora_alpha"),
        low=1e-6,
        high=1e6,
    )
    targets: str | None = key(
        help="layers that get an adapter, by the ends of their names, separated by commas, such as "
        "q_proj,v_proj; default: all linear layers but the head",
        flags=("--targets", "--target_modules"),
    )
    rslora: bool = key(
        False,
        help="scale an adapter by alpha / sqrt(rank)",
        flags=("--rslora", "--use_rslora"),
    )


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(
    TextKeys,
    TextColumnKeys,
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
