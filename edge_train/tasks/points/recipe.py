"""The keys of task points."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import ClipKeys, DecayKeys, MicroBatchKeys
from edge_train.methods.low_rank import LowRankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import DataKeys, key


@dataclass(frozen=True, kw_only=True)
class PointsRecipe(DataKeys, ForwardKeys, LowRankKeys, DecayKeys, ClipKeys, MicroBatchKeys):
    """Train an autoencoder of clouds of points."""

    task: ClassVar[str] = "points"

    loss: str = key(
        "sliced",
        help="distance between a cloud and its reconstruction: sliced, max-sliced or v-dsw "
        "(Wasserstein along lines of any direction, the worst, or learned ones), or chamfer",
        choices=("sliced", "chamfer", "max-sliced", "v-dsw"),
    )
    points: int = key(
        256,
        help="points of a cloud that the network reads and writes",
        low=16,
        high=65536,
        group="data",
    )
    code: int = key(
        32, help="numbers that a cloud is compressed to", low=1, high=4096, group="model"
    )
    width: int = key(64, help="outputs of the first layer", low=4, high=2048, group="model")
    decoder: str = key(
        "mlp",
        help="what makes points of a code: layers, or a grid that is folded twice",
        choices=("mlp", "folding"),
        group="model",
    )
    slices: int = key(32, help="directions for each cloud in a step", low=1, high=4096)
    kappa: float = key(
        10.0, help="concentration of v-dsw's directions around the learned one", low=0.01, high=1e4
    )
    train_samples: int | None = key(help="most training samples", low=2, high=10**9, group="data")
