"""Cross-entropy of next tokens from hidden vectors, some rows of the output layer at a time.

The logits of all tokens never exist. One walk over the rows of the output layer gives the loss and
its gradient: sums of exp(logit - m) and of exp(logit - m) times the row are kept for the largest
logit m so far, and made smaller when that grows, as the running softmax of FlashAttention
(arXiv:2205.14135) does with keys and values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.runtimes.numpy.stored_matrices import StoredMatrices


@dataclass(frozen=True)
class Head:
    """The output layer.

    Attributes:
      name: of its matrix, (vocabulary, width).
      cap: c in c tanh(logit / c); None: logits are not capped.
    """

    matrices: StoredMatrices
    name: str
    cap: float | None

    def logits(self, hidden: Array) -> Array:
        """Return all logits of some tokens, (tokens, vocabulary)."""
        out = np.empty((len(hidden), self.matrices.shape(self.name)[0]), np.float32)
        self.matrices.times_transposed(hidden, self.name, out)
        if self.cap is not None:
            _cap(out, self.cap)
        return out


def token_losses(
    head: Head, hidden: Array, targets: NDArray[np.int64], smoothing: float, *, sloped: bool
) -> tuple[Array, Array | None]:
    """Return the cross-entropy of every token, and where asked its slope at the hidden vectors.

    Args:
      hidden: (tokens, width).
      targets: (tokens,) ids.
      smoothing: share of a target that all tokens of the vocabulary get.
      sloped: whether the second is wanted, (tokens, width).

    Memory: some rows of the output layer and their logits; the slope, and as much beside it.
    """
    tokens, vocabulary = len(hidden), head.matrices.shape(head.name)[0]
    most = np.full((tokens, 1), -np.inf, np.float32)
    total = np.zeros((tokens, 1), np.float32)
    wanted = np.zeros(tokens, np.float32)
    bends = np.ones(tokens, np.float32)  # slope of the cap at the target's logit
    sums = np.zeros(tokens, np.float32)
    slope = np.zeros_like(hidden) if sloped else None
    even = np.zeros_like(hidden) if sloped and smoothing else None
    targeted = np.empty_like(hidden) if sloped else None

    def one(rows: slice) -> tuple[slice, Array, Array]:
        weights = head.matrices.weights(head.name, rows)
        return rows, weights, hidden @ weights.T

    for rows, weights, logits in head.matrices.workers.each(one, head.matrices.pieces(head.name)):
        bent = None
        if head.cap is not None:
            bent = _cap(logits, head.cap)
        here = np.flatnonzero((targets >= rows.start) & (targets < rows.stop))
        inside = targets[here] - rows.start
        wanted[here] = logits[here, inside]
        if bent is not None:
            bends[here] = bent[here, inside]
        if targeted is not None:
            targeted[here] = weights[inside]
        if smoothing:
            sums += logits.sum(axis=1)
        larger = np.maximum(most, logits.max(axis=1, keepdims=True))
        shrunk = np.exp(most - larger)
        most = larger
        logits -= most
        np.exp(logits, out=logits)
        total *= shrunk
        total += logits.sum(axis=1, keepdims=True)
        if slope is None:
            continue
        if bent is not None:
            logits *= bent
        slope *= shrunk
        slope += logits @ weights
        if even is not None:
            even += weights.sum(axis=0) if bent is None else bent @ weights
    losses = np.log(total[:, 0]) + most[:, 0]
    share = np.float32(1 - smoothing)
    losses -= share * wanted
    if smoothing:
        losses -= np.float32(smoothing / vocabulary) * sums
    if slope is not None and targeted is not None:
        slope /= total
        targeted *= (share * bends)[:, None]
        slope -= targeted
        if even is not None:
            even *= np.float32(smoothing / vocabulary)
            slope -= even
    return losses, slope


def losses_among(
    head: Head,
    hidden: Array,
    targets: NDArray[np.int64],
    choices: NDArray[np.int64],
    *,
    sloped: bool,
) -> tuple[Array, Array | None]:
    """Return the cross-entropy of every token among a few, and its slope at the hidden vectors.

    log p(target) less the logarithm of what all of the few have together. With p(c) the share of
    choice c among them, the slope is that of the target's loss less the sum of p(c) times c's.

    Args:
      choices: (tokens, few); one of each row is the target.
    """
    each = [
        token_losses(head, hidden, choices[:, one], 0.0, sloped=sloped)
        for one in range(choices.shape[1])
    ]
    losses = np.stack([found for found, _ in each], axis=1)
    own = (choices == targets[:, None]).argmax(axis=1)
    least = losses.min(axis=1, keepdims=True)
    shares = np.exp(least - losses)
    total = shares.sum(axis=1, keepdims=True)
    found = losses[np.arange(len(own)), own] + np.log(total[:, 0]) - least[:, 0]
    if not sloped:
        return found, None
    shares /= -total
    shares[np.arange(len(own)), own] += 1
    slope = np.zeros_like(hidden)
    for one, (_, part) in enumerate(each):
        assert part is not None  # asked for
        slope += shares[:, one, None] * part
    return found, slope


def _cap(logits: Array, cap: float) -> Array:
    """Cap logits in place, and return the slope of that."""
    logits /= np.float32(cap)
    np.tanh(logits, out=logits)
    bent: Array = 1 - logits * logits
    logits *= np.float32(cap)
    return bent
