"""The start-up slope check: picks the perturbation radius that this graph can resolve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.methods.zo import ZerothOrder
from edge_train.protocols import Batch, Runtime, Task
from edge_train.rng import Key

GRID = (0.003, 0.01, 0.03, 0.1, 0.3)  # shares of a coordinate's root mean square
_DIRECTIONS = 6
_AGREEMENT = 0.7  # two neighboring radii that agree this well are one plateau
_SETUP_STEP = -1  # the key of draws made before step 0


@dataclass(frozen=True)
class Slope:
    """One radius: its slopes along the check's directions and how well they agree.

    `agreement` compares these slopes a with those at the next larger radius b:
    1 - |a - b| / max(|a|, |b|). Rounding noise spoils it at small radii, curvature at large ones.
    """

    epsilon: float
    slopes: tuple[float, ...]
    agreement: float


@dataclass(frozen=True)
class SlopeCheck:
    """The chosen radius, the table behind it and the single-sample forwards it took."""

    epsilon: float
    rows: tuple[Slope, ...]
    forwards: int

    def record(self) -> dict[str, Any]:
        """Return plain values for the journal."""
        return asdict(self)


def check_slopes(
    runtime: Runtime,
    task: Task,
    batch: Batch,
    scale: Mapping[str, float],
    seed: int,
    wanted: float,
    grid: Sequence[float] = GRID,
) -> SlopeCheck:
    """Return the radius nearest to `wanted` whose slopes agree with those at the next radius.

    Along the same few directions and on the same batch the one-sided slope is measured at every
    radius of the grid. A slope that holds between two neighbouring radii is signal; where the
    engine rounds (bf16, int8 activations) small radii measure noise, and learning from them would
    look like training that does nothing.

    Args:
      batch: (samples, ...); a few samples do.
      scale: root mean square of each block.
      wanted: radius that learns best where the engine is exact.

    Raises:
      ModelError: no two radii agree, or a loss is not finite.
    """
    key = Key(seed, _SETUP_STEP)
    radii = [*grid, grid[-1] * grid[-1] / grid[-2]]
    estimator = ZerothOrder(1.0, scale)
    center = runtime.parameters
    queries = range(_DIRECTIONS)
    points = [estimator.perturbed(center, key, q, radius) for radius in radii for q in queries]
    losses = task.loss(runtime, batch, [center, *points])
    if not np.isfinite(losses).all():
        raise ModelError(
            "the model's loss is not finite before the first step; its weights are damaged or its "
            "precision is too low. Try --quant none, or another model."
        )
    means = losses.astype(np.float64).mean(axis=1)
    table = (means[1:] - means[0]).reshape(len(radii), _DIRECTIONS) / np.array(radii)[:, None]
    rows = tuple(
        Slope(radius, tuple(table[i].tolist()), _agreement(table[i], table[i + 1]))
        for i, radius in enumerate(grid)
    )
    usable = [row.epsilon for row in rows if row.agreement >= _AGREEMENT]
    if not usable:
        best = max(rows, key=lambda row: row.agreement)
        raise ModelError(
            f"the loss does not respond to the token: slopes at radius {best.epsilon:g} and the "
            f"next agree only to {best.agreement:.2f}, needed {_AGREEMENT:g}. Try --quant none, or "
            "a class word nearer to the photos."
        )
    chosen = min(usable, key=lambda radius: abs(np.log(radius / wanted)))
    return SlopeCheck(chosen, rows, losses.size)


def repeats_itself(runtime: Runtime, task: Task, batch: Batch) -> bool:
    """Return whether the same pass, taken twice, gives the same bits.

    Engines promise it for some devices and settings only, and a run resumes exactly on no others.
    """
    first, second = (task.loss(runtime, batch, [runtime.parameters]) for _ in range(2))
    return bool((first == second).all())


def _agreement(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    largest = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    return 1 - float(np.linalg.norm(a - b)) / largest if largest > 0 else 0.0
