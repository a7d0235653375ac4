"""The keys of task network."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.continual import ContinualKeys
from edge_train.methods.exact import ClassKeys, ClipKeys, MicroBatchKeys, SmoothingKeys
from edge_train.methods.layerwise import LayerwiseKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import key
from edge_train.tasks.table_keys import LabelColumnKeys


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(
    LabelColumnKeys,
    ContinualKeys,
    LayerwiseKeys,
    ForwardKeys,
    MicroBatchKeys,
    ClipKeys,
    SmoothingKeys,
    ClassKeys,
):
    """Train a small network from its beginning, or behind a frozen backbone."""

    task: ClassVar[str] = "network"

    network: str | None = key(
        help="layers of the network, such as 'mlp 500 500'", group="data", common=True
    )
    momentum: float = key(0.9, help="momentum of stochastic gradient descent", low=0, high=0.999)
    preview_every: int = key(0, help="steps", low=0, high=10_000_000, group="run")
    resolution: int | None = key(help="side of a picture in pixels", low=8, high=4096, group="data")
    train_samples: int | None = key(help="most training samples", low=4, high=10**9, group="data")
    test_samples: int | None = key(help="most test samples", low=1, high=10**9, group="data")
    series: tuple[int, int] | None = key(
        help="rows and stride of the windows of a table, such as 16,4", group="data"
    )
    backbone: str | None = key(
        help="frozen network in front: network.safetensors of a run, or an .onnx file",
        is_path=True,
        beside_recipe=True,
        group="data",
    )
    backbone_blocks: int | None = key(
        help="blocks of the backbone that are used; default: all but the last",
        low=1,
        high=1000,
        group="data",
    )
    standardization: str | None = key(
        help="mean, then deviation, of each channel or column, such as '72.9 90.0', instead of "
        "those of the data: for devices of a fleet, which may then hold one class each",
        group="data",
    )
    old_data: str | None = key(
        help="data that the backbone was trained on, to measure forgetting",
        is_path=True,
        beside_recipe=True,
        group="data",
    )
