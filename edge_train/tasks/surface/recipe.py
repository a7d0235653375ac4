"""The keys of task surface."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import ClipKeys, DecayKeys, MicroBatchKeys
from edge_train.methods.low_rank import LowRankKeys
from edge_train.recipe import DataKeys, key


@dataclass(frozen=True, kw_only=True)
class SurfaceRecipe(DataKeys, LowRankKeys, DecayKeys, ClipKeys, MicroBatchKeys):
    """Train a network of the distance to a surface, open or closed, from points on it."""

    task: ClassVar[str] = "surface"

    loss: str = key(
        "level-set",
        help="level-set: queries are pulled to the surface, and level sets agree; distance: the "
        "network tells the distance to the nearest point, for comparison",
        choices=("level-set", "distance"),
    )
    points: int = key(
        20_000,
        help="points of the cloud that are kept at most",
        low=16,
        high=1_000_000,
        group="data",
    )
    width: int = key(64, help="outputs of each layer", low=8, high=2048, group="model")
    layers: int = key(8, help="hidden layers", low=2, high=32, group="model")
    neighbor: int = key(
        50,
        help="queries lie around a point as far as a quarter of the distance to its nth neighbor",
        low=2,
        high=1000,
        group="data",
    )
    mesh_cells: int = key(
        96,
        help="cells of the mesh's grid along the longest side; 0: no mesh",
        low=0,
        high=512,
        group="evaluation",
    )
    dense_points: int = key(
        40_000,
        help="points of the denser cloud with normals; 0: none",
        low=0,
        high=10_000_000,
        group="evaluation",
    )
