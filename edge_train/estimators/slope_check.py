"""The start-up slope check: makes sure that training's radius measures slopes, not rounding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Batch, Point
from edge_train.errors import ModelError
from edge_train.estimators.zo import ZerothOrder
from edge_train.protocols import Objective, Runtime
from edge_train.rng import Key

SAMPLES = 3  # of the batch that the check sees
_DIRECTIONS = 4
_FACTORS = (1, 2, 0.5, 4, 0.25)  # of the wanted radius, in the order in which they are tried
# Rounding that is the share v of the slopes' variance at a radius is v / 4 at the double: the two
# differ by sqrt(1.25 v / (1 + v)), so 0.4 is v = 0.4, slopes that correlate 0.85 with exact ones.
# Noise alone is below 0. Twelve slopes are few: on the embedded 8-bit profiles at their safe
# radius 17 seeds gave 0.39 to 0.93 (mean 0.74), at an eighth of it -0.16 to 0.66 (mean 0.2).
_AGREEMENT = 0.4
_SETUP_STEP = -1  # the key of draws made before step 0


@dataclass(frozen=True)
class Slope:
    """One radius: its slopes, (directions x samples) of them, and how well they agree.

    `agreement` compares these slopes a with those at the double radius b:
    1 - |a - b| / max(|a|, |b|). Rounding noise spoils it at small radii, curvature at large ones.
    """

    epsilon: float
    slopes: tuple[float, ...]
    agreement: float


@dataclass(frozen=True)
class SlopeCheck:
    """The chosen radius, the radii that were tried and the single-sample forwards it took."""

    epsilon: float
    rows: tuple[Slope, ...]
    forwards: int

    def record(self) -> dict[str, Any]:
        """Return plain values for the journal."""
        return asdict(self)

    def sentence(self) -> str:
        """Return what was chosen, and why the radius that was wanted was not."""
        chosen = f"slope check: perturbation radius {self.epsilon:g} of the rms"
        first = self.rows[0]
        if first.epsilon == self.epsilon:
            return chosen
        moved = "raised" if self.epsilon > first.epsilon else "lowered"
        return (
            f"{chosen}, {moved} from {first.epsilon:g}, where slopes agree only to "
            f"{first.agreement:.2f} with those at {2 * first.epsilon:g} ({_AGREEMENT:g} is needed)"
        )


def check_slopes(
    runtime: Runtime,
    task: Objective,
    batch: Batch,
    scale: Mapping[str, float],
    seed: int,
    wanted: float,
    smallest: float = 0.0,
) -> SlopeCheck:
    """Return the radius nearest to `wanted` whose slopes agree with those at its double.

    A slope that holds at two radii is signal; where the engine rounds (bf16, int8 activations)
    small radii measure noise, and learning from them would look like training that does nothing.
    All slopes are one-sided, along the same directions, sample by sample as a training step with
    one sample sees them: a mean over samples would hide noise.

    Args:
      batch: (samples, ...); `SAMPLES` do.
      scale: root mean square of each block.
      wanted: radius that learns best where the engine is exact.
      smallest: radius below which none is taken: an artifact's `safe_epsilon`.

    Raises:
      ModelError: no two radii agree, or a loss is not finite.
    """
    measured = _Measured(runtime, task, batch, scale, Key(seed, _SETUP_STEP))
    wanted = max(wanted, smallest)
    rows: list[Slope] = []
    for radius in (factor * wanted for factor in _FACTORS if factor * wanted >= smallest):
        slopes = measured.slopes(radius)
        agreement = _agreement(slopes, measured.slopes(2 * radius))
        rows.append(Slope(radius, tuple(slopes.ravel().tolist()), agreement))
        if agreement >= _AGREEMENT:
            return SlopeCheck(radius, tuple(rows), measured.forwards)
    best = max(rows, key=lambda row: row.agreement)
    raise ModelError(
        f"the loss does not respond to the token: slopes at radius {best.epsilon:g} and the "
        f"double agree only to {best.agreement:.2f}, needed {_AGREEMENT:g}. Try --quant none, or "
        "a class word nearer to the photos."
    )


class _Measured:
    """Slopes of one batch along the same directions, by radius; none is measured twice."""

    def __init__(
        self, runtime: Runtime, task: Objective, batch: Batch, scale: Mapping[str, float], key: Key
    ) -> None:
        self._runtime, self._task, self._batch, self._key = runtime, task, batch, key
        self._estimator = ZerothOrder(1.0, scale)
        self._slopes: dict[float, NDArray[np.float64]] = {}
        self.forwards = 0
        self._center = self._losses([runtime.parameters])

    def slopes(self, radius: float) -> NDArray[np.float64]:
        """Return (directions, samples)."""
        if radius not in self._slopes:
            center = self._runtime.parameters
            points = [
                self._estimator.perturbed(center, self._key, query, radius)
                for query in range(_DIRECTIONS)
            ]
            self._slopes[radius] = (self._losses(points) - self._center) / radius
        return self._slopes[radius]

    def _losses(self, points: Sequence[Point]) -> NDArray[np.float64]:
        losses = self._task.loss(self._runtime, self._batch, points)
        if not np.isfinite(losses).all():
            raise ModelError(
                "the model's loss is not finite before the first step; its weights are damaged or "
                "its precision is too low. Try --quant none, or another model."
            )
        self.forwards += losses.size
        return losses.astype(np.float64)


def repeats_itself(runtime: Runtime, task: Objective, batch: Batch) -> bool:
    """Return whether the same pass, taken twice, gives the same bits.

    Engines promise it for some devices and settings only, and a run resumes exactly on no others.
    """
    first, second = (task.loss(runtime, batch, [runtime.parameters]) for _ in range(2))
    return bool((first == second).all())


def _agreement(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    largest = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    difference = float(np.linalg.norm(a - b)) / largest if largest > 0 else math.inf
    return 1 - difference if math.isfinite(difference) else 0.0
