"""The parts of a gradient's noise: what each random draw of a sample adds to its variance.

With g(x_1, ..., x_k) the gradient of one sample, drawn by independent factors, G its mean and
V = E |g - G|^2:

    alone(f)  = Var(E[g | x_f]) / V      what f explains by itself
    with(f)   = E Var(g | all but f) / V what would go if f never changed: alone and together
    rho       = sqrt(V) / |G|            how many times longer the noise is than the gradient

From pairs: gradients that share f and nothing else have E <a, b> = |G|^2 + alone(f) V; gradients
that share all but f have E |a - b|^2 / 2 = with(f) V.

Source: I. M. Sobol', "Sensitivity estimates for nonlinear mathematical models" (1993); M. J. W.
Jansen (1999) for `with`. We differ in vectors in the place of numbers, and in |G|^2 from all pairs
of draws that share nothing, which is unbiased and may be below zero where there is no signal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]  # (draws, numbers of a gradient)
UNSEEN = "no mean seen"  # in the place of a number that divides by |G|
_GROUPS = 20  # of the jackknife


@dataclass(frozen=True)
class Estimated:
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return UNSEEN
        error = f"{self.error:.2f}" if np.isfinite(self.error) else "much"
        return f"{self.value:.2f} +- {error}"


def squared_mean(gradients: Rows) -> float:
    """Return |G|^2 without bias, from all pairs of two different draws.

    Raises:
      ValueError: fewer than two draws.
    """
    count = len(gradients)
    if count < 2:
        raise ValueError(f"{count} draws; two are needed")
    total = gradients.sum(axis=0)
    return float((total @ total - (gradients**2).sum()) / (count * (count - 1)))


def variance(gradients: Rows) -> float:
    """Return V = E |g - G|^2 without bias."""
    return float((gradients**2).sum(axis=1).mean()) - squared_mean(gradients)


def rho(gradients: Rows) -> float:
    """Return the length of the noise over that of the mean; infinite where no mean is seen."""
    signal = squared_mean(gradients)
    return float(np.sqrt(variance(gradients) / signal)) if signal > 0 else float("inf")


def alone(base: Rows, sharing: Rows) -> float:
    """Return the share of V that shared factors explain by themselves.

    Args:
      sharing: draw i shares with draw i of `base` the factors in question, and no other.
    """
    count = len(base)
    paired = float((base * sharing).sum())
    others = float(base.sum(axis=0) @ sharing.sum(axis=0)) - paired  # pairs that share nothing
    return (paired / count - others / (count * (count - 1))) / variance(base)


def together(base: Rows, redrawn: Rows) -> float:
    """Return the share of V that goes with a factor.

    Args:
      redrawn: draw i differs from draw i of `base` in that factor alone.
    """
    return float(((base - redrawn) ** 2).sum(axis=1).mean()) / 2 / variance(base)


def antithetic(base: Rows, mirrored: Rows, redrawn: Rows) -> float:
    """Return the correlation of the noise's part between a noise and its negative.

    A pair of them then has (1 + c) / 2 of that part, where two independent noises have 1/2.

    Args:
      mirrored: draw i has the negative noise of draw i of `base`, and all else of it.
      redrawn: draw i has another noise, and all else.
    """
    part = ((base - redrawn) ** 2).sum(axis=1).mean() / 2
    return float(((base * mirrored).sum(axis=1) - (base * redrawn).sum(axis=1)).mean() / part)


def estimated(
    of: Callable[[Mapping[str, Rows]], float], gradients: Mapping[str, Rows]
) -> Estimated:
    """Return a number made of gradients, with its error by a jackknife over groups of draws.

    Args:
      gradients: arrays whose draws belong together by number; those with other counts are refused.

    Raises:
      ValueError: the counts differ, or there are fewer draws than groups.
    """
    counts = {len(rows) for rows in gradients.values()}
    if len(counts) != 1 or min(counts) < _GROUPS:
        raise ValueError(f"draws {sorted(counts)}: one count of at least {_GROUPS} is needed")
    group = np.arange(counts.pop()) % _GROUPS
    without = np.array(
        [of({name: r[group != i] for name, r in gradients.items()}) for i in range(_GROUPS)]
    )
    if not np.isfinite(without).all():
        return Estimated(of(gradients), float("inf"))
    error = np.sqrt((_GROUPS - 1) / _GROUPS * ((without - without.mean()) ** 2).sum())
    return Estimated(of(gradients), float(error))


def best_timesteps(squares: Rows) -> tuple[Rows, float]:
    """Return how often to draw each bin of timesteps, and what is left of E |g|^2 then.

    With probabilities p and weights 1 / (bins p) the mean stays, and E |g|^2 becomes
    mean of E_b^2 / (bins p_b), least for p proportional to E_b: (mean E_b)^2.

    Args:
      squares: (bins,) mean square of a gradient in each bin; the bins are equally likely.

    >>> p, left = best_timesteps(np.array([1.0, 9.0]))
    >>> p.tolist(), left
    ([0.25, 0.75], 0.8)
    """
    roots = np.sqrt(squares)
    return roots / roots.sum(), float(roots.mean() ** 2 / squares.mean())
