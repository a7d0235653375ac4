"""Updates inside a subspace: Subspace Gradient denoising of a zeroth-order estimate."""

import math
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State


@dataclass(frozen=True)
class DenoiseSubspace:
    """Removes from the gradient the directions in which the parameters hardly move.

    The last `tau` values of the block are kept. Every `tau` steps each coordinate is standardized
    over them, D = diag(1 / deviation), and the principal components beyond the share 1 - nu of the
    variance form P. Until the next refresh g becomes D^-1 (I - P^T P) D g, lengthened so that the
    estimate keeps the length that `NormCorrection` gave it: the removed share is no signal.

    Expect little from it: fed with pure noise it removes about 80 % of the buffer's directions too,
    because Adam's momentum is a low-pass filter, and at most tau - 1 directions can be removed.

    Args:
      queries: directions per estimate, n.
      tau: length of the history and of the refresh interval, in steps.
      nu: share of variance whose directions are removed.

    Memory: 4 * (2 * tau + 1) bytes per coordinate; twice that while it refreshes.

    Source: ZOODiP (arXiv:2503.14868), 3.2. We differ from the authors' code, which computes the
    basis in standardized coordinates but applies it to the raw gradient: we go there and back. The
    arbitrary last component of the centered (rank tau - 1) history is not part of P.
    """

    queries: int
    tau: int = 128
    nu: float = 1e-3

    def init(self, param: Array) -> State:
        """Return an empty history and an empty basis, both full-sized."""
        return {
            "history": np.zeros((self.tau, param.size), np.float32),
            "basis": np.zeros((self.tau, param.size), np.float32),
            "deviation": np.ones(param.size, np.float32),
            "removed": np.zeros(1, np.int64),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the denoised update; remember `param` and refresh the basis when it is due."""
        update = dense(update)
        count = int(state["count"][0])
        if count > 0 and count % self.tau == 0:
            self._refresh(state)
        state["history"][count % self.tau] = param.reshape(-1)
        state["count"] += 1
        removed = int(state["removed"][0])
        if removed == 0:
            return update
        basis, deviation = state["basis"][:removed], state["deviation"]
        standardized = update.reshape(-1) / deviation
        kept = (standardized - (basis @ standardized) @ basis) * deviation
        size, extra = param.size, self.queries - 1
        longer = math.sqrt((size + extra) / (size - removed + extra))
        return kept.astype(np.float32).reshape(param.shape) * np.float32(longer)

    def _refresh(self, state: State) -> None:
        history = state["history"]
        deviation = history.std(axis=0)
        moving = deviation > 0
        state["deviation"][:] = np.where(moving, deviation, 1)
        standardized = (history - history.mean(axis=0)) / state["deviation"]
        _, singular, components = np.linalg.svd(standardized, full_matrices=False)
        variance = np.cumsum(singular.astype(np.float64) ** 2)
        rank = min(self.tau - 1, components.shape[0])  # centering takes one dimension
        keep = 1 + int(np.searchsorted(variance / max(variance[-1], 1e-30), 1 - self.nu))
        removed = max(rank - keep, 0)
        state["basis"][:removed] = components[keep:rank]
        state["removed"][0] = removed
