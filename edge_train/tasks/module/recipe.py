"""The keys of task module."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import ClipKeys, DecayKeys
from edge_train.methods.low_rank import LowRankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import key


@dataclass(frozen=True, kw_only=True)
class ModuleRecipe(ForwardKeys, LowRankKeys, DecayKeys, ClipKeys):
    """Train a torch module of the user's by the user's own loss."""

    task: ClassVar[str] = "module"

    module: str | None = key(
        help="package:function that returns a torch module, its loss and its batches",
        group="data",
        is_code=True,
    )
