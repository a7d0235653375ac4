"""A Bayes filter over where a token ends: a mean and a covariance, updated by measured slopes."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.bench.token_steps import TokenSteps
from edge_train.estimators.residual_slopes import residual_slopes
from edge_train.rng import Key
from edge_train.tasks.personalize.metric_draws import metric_draws

_DRAWS, _TOGETHER = 256, 32  # of the metric
_QUERIES = 4
_REMEMBERED = 0.95  # of the running means of noise and of the metric's scale

Matrix = NDArray[np.float64]


@dataclass
class BayesFilter:
    """x = x_0 + B^T a, with a ~ N(0, I) before the first slope: B are a prior's likely moves.

    With H = B (metric) B^T, directions z_i ~ N(0, S) and slopes s_i = z_i . H (a - a*) + noise of
    covariance R = noise Z^T H Z:

        K = S H Z (Z^T H S H Z + R)^-1,   a <- a - K s,   S <- S - K (H Z)^T S

    H is known but for its scale, which the curvature along z_i tells; noise is the mean of
    s_i^2 / z_i^T H z_i, which has the signal in it and is too large at first.

    Args:
      steps: whose runtime and batches it takes.
      rows: B (k, width).
      metric: H (k, k), of any scale.
      a, covariance: what is known of the answer.
    """

    steps: TokenSteps
    rows: Matrix
    metric: Matrix
    a: Matrix
    covariance: Matrix
    scale: float = 0.0
    noise: float = 0.0
    taken: int = 0
    forwards: int = 0

    @classmethod
    def open(cls, steps: TokenSteps) -> "BayesFilter":
        """Return the filter at the start of a token whose recipe draws along a prior."""
        rows = steps.job.directions["token"].astype(np.float64)
        start = steps.job.start
        drawn = metric_draws(steps.runtime, steps.task, start, _DRAWS, together=_TOGETHER)
        along = drawn["token"].astype(np.float64) @ rows.T
        count = len(rows)
        return cls(steps, rows, along.T @ along / _DRAWS, np.zeros(count), np.eye(count))

    @property
    def step_forwards(self) -> int:
        """Of one sample."""
        return _QUERIES + 1

    @property
    def expected_gap(self) -> float:
        """The share of the first expected loss gap that it believes is left: tr(H S) / tr(H)."""
        return float(np.trace(self.metric @ self.covariance) / np.trace(self.metric))

    def take(self, number: int) -> None:
        """Measure slopes of a batch along likely directions and update what is known."""
        steps, key = self.steps, Key(self.steps.job.recipe.seed, number)
        batch = replace(steps.task, samples=1).batch(key)
        root = np.linalg.cholesky(self.covariance + 1e-9 * np.eye(len(self.a)))
        z = root @ key.generator("filter").standard_normal((len(self.a), _QUERIES))
        moves = z.T @ self.rows  # (queries, width), each of its own length
        lengths = np.linalg.norm(moves, axis=1)
        reach = steps.estimator.epsilon * float(np.linalg.norm(steps.job.start["token"]))
        unit = moves / lengths[:, None]
        here = steps.point["token"]
        points = [{"token": here + (reach * own).astype(np.float32)} for own in unit]
        found = residual_slopes(steps.runtime, steps.task, batch, points, [{"token": here}], reach)
        slopes = found.slopes.mean(axis=1) * lengths
        curvature = np.diag(found.curvature) * lengths**2
        self.forwards += self.step_forwards
        self._learn(z, slopes, curvature)
        steps.move_to({"token": self._token()})

    def _learn(self, z: Matrix, slopes: Matrix, curvature: Matrix) -> None:
        plain = np.einsum("iq,ij,jq->q", z, self.metric, z)
        self.taken += 1
        debias = 1 - _REMEMBERED**self.taken
        self.scale = _mean(self.scale, float(curvature.sum() / plain.sum()))
        metric = self.metric * (self.scale / debias)
        own = np.einsum("iq,ij,jq->q", z, metric, z)
        self.noise = _mean(self.noise, float(np.mean(slopes**2 / own)))
        hz = metric @ z
        spread = hz.T @ self.covariance @ hz + self.noise / debias * (z.T @ hz)
        gain = np.linalg.solve(spread, hz.T @ self.covariance).T
        self.a = self.a - gain @ slopes
        self.covariance = self.covariance - gain @ hz.T @ self.covariance
        self.covariance = (self.covariance + self.covariance.T) / 2

    def _token(self) -> Array:
        start = self.steps.job.start["token"]
        token: Array = (start + (self.a @ self.rows)[None]).astype(np.float32)
        return token


def _mean(before: float, new: float) -> float:
    return _REMEMBERED * before + (1 - _REMEMBERED) * new
