"""Noise on what a device sends, and what it promises: (epsilon, delta) of the whole run."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes

DELTA = 1e-5
MOST_LOSS = 10.0  # a larger loss is sent as this


@dataclass(frozen=True)
class Privacy:
    """Gaussian noise on the device, before anything leaves it.

    Slopes are shortened to the length `clip` and get noise of deviation `noise * clip`, each; a
    loss is cut to [0, `MOST_LOSS`] and gets `noise * MOST_LOSS`. Whatever data a device holds, what
    it sends differs by at most 2 `clip` and `MOST_LOSS`, so each round is zero-concentrated private
    with rho = 2 / noise^2 for the slopes and 1 / (2 noise^2) for a loss (Bun and Steinke 2016,
    arXiv:1605.02635, proposition 1.6). Rounds add up; nothing is gained by sampling, since every
    device takes part in every round. The promise is about all data of a device at once, and holds
    against the server too.

    Args:
      clip: length of the slopes of a step, at most.
      noise: deviation in units of that length.
    """

    clip: float
    noise: float

    def __post_init__(self) -> None:
        for name, value in (("clip", self.clip), ("noise", self.noise)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"fleet: {name} is {value:g}, must be larger than 0; set clip and noise, or "
                    "neither."
                )

    def slopes(self, values: Sequence[float]) -> list[float]:
        """Return slopes as they may leave the device."""
        length = math.sqrt(sum(value * value for value in values))
        share = min(1.0, self.clip / length) if length else 1.0
        return [value * share + _draw(self.noise * self.clip) for value in values]

    def loss(self, value: float) -> float:
        """Return a loss as it may leave the device."""
        return min(max(value, 0.0), MOST_LOSS) + _draw(self.noise * MOST_LOSS)

    def epsilon(self, steps: int, evaluations: int, delta: float = DELTA) -> float:
        """Return epsilon of a run: every step sends slopes and a loss, every evaluation a loss.

        (epsilon, delta) follows from rho as rho + 2 sqrt(rho ln(1 / delta)) (proposition 1.3).

        >>> round(Privacy(1.0, 100.0).epsilon(steps=100, evaluations=2), 2)
        1.1
        """
        rho = (2.5 * steps + 0.5 * evaluations) / self.noise**2
        return rho + 2 * math.sqrt(rho * math.log(1 / delta))

    def sentence(self, steps: int, evaluations: int, again: int = 0) -> str:
        """Return what is promised, for people.

        Args:
          steps, evaluations: of the whole run, with those that were measured again.
          again: how many of both were.
        """
        epsilon = self.epsilon(steps, evaluations)
        repeated = f" ({again} of them measured again)" if again else ""
        return (
            f"privacy: slopes are cut to length {self.clip:g} and get noise of {self.noise:g} "
            f"times that; {steps} steps and {evaluations} evaluations{repeated} are "
            f"({epsilon:.3g}, {DELTA:g})-private for all data of this device at once"
        )


class Ledger:
    """Rounds that a device measured a second time: each is one more release.

    A device that is killed before its answer was averaged draws new noise for the same round.
    What is counted is on the disk before anything is sent.

    Args:
      path: of its file; None: in memory alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.slopes = self.losses = 0
        self._last = -1
        if path is not None and path.exists():
            try:
                said = json.loads(path.read_text("utf-8"))
                self._last, self.slopes, self.losses = (int(said[name]) for name in _LEDGER)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: it counts what this device sent, and cannot be read; begin again in "
                    "a new folder."
                ) from error

    def count(self, number: int, slopes: bool) -> None:
        """Note that the numbers of a round are drawn, of slopes with a loss or of a loss."""
        if number == self._last:
            self.slopes, self.losses = self.slopes + slopes, self.losses + (not slopes)
        self._last = number
        if self._path is not None:
            said = dict(zip(_LEDGER, (self._last, self.slopes, self.losses), strict=True))
            write_bytes(self._path, json.dumps(said).encode())


_LEDGER = ("last", "slopes_again", "losses_again")
_SYSTEM = random.SystemRandom()  # of the system: a keyed draw could be taken off again


def _draw(deviation: float) -> float:
    return _SYSTEM.gauss(0.0, deviation)
