"""Cross-entropies of the next tokens from hidden states: logits exist for some words at a time.

One walk over the rows of a head that nothing trains gives every loss and its slope. Sums of
exp(logit - m) and of exp(logit - m) times the row are kept for the largest logit m so far, and made
smaller when that grows, as the running softmax of FlashAttention (arXiv:2205.14135) does with keys
and values. Each row is read and decoded once, however many tokens there are. We differ in leaving
the wanted word out of both sums: a loss near zero has a slope of small numbers, which would
otherwise be the difference of two large ones, rounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_train.runtimes.torch.calls import WORDS_AT_ONCE
from edge_train.runtimes.torch.products import product_added, product_into
from edge_train.runtimes.torch.stored_matrices import StoredMatrix


@dataclass(frozen=True)
class Found:
    """What is known of positions when their logits are gone.

    Attributes:
      losses: (tokens,).
      sums: logarithms of the sums of exponentials of their logits, (tokens,).
      errors: of each loss at its hidden state, (tokens, width); None: not asked for.
    """

    losses: Tensor
    sums: Tensor
    errors: Tensor | None


def in_words(
    hidden: Tensor,
    targets: Tensor,
    matrix: StoredMatrix,
    bias: Tensor | None,
    *,
    smoothing: float,
    sloped: bool,
) -> Found:
    """Return losses and, where asked, their slopes at hidden states; see `token_losses`.

    Args:
      hidden: (tokens, width).
      targets: (tokens,) int64.
      matrix: of the head, (words, width).

    Memory: logits of some words; the slope, and as much beside it.
    """
    tokens, left = len(hidden), hidden.to(matrix.kind)
    most = hidden.new_full((tokens, 1), -torch.inf)
    others, sums = hidden.new_zeros(tokens, 1), hidden.new_zeros(tokens, 1)
    wanted = hidden.new_empty(tokens)
    room = hidden if sloped else hidden[:0]
    slope, own = torch.zeros_like(room), torch.empty_like(room)  # own: rows of wanted words
    even = hidden.new_zeros(hidden.shape[1])
    for words, weights, scale in _parts(matrix, max(1, WORDS_AT_ONCE // tokens)):
        logits = hidden.new_empty(tokens, len(weights))
        product_into(logits, left, weights.T)
        if isinstance(scale, Tensor):
            logits *= scale
        if bias is not None:
            logits += bias[words]
        here = ((targets >= words.start) & (targets < words.stop)).nonzero()[:, 0]
        inside = targets[here] - words.start
        wanted[here] = logits[here, inside]
        if smoothing:
            sums += logits.sum(1, keepdim=True)
        larger = torch.maximum(most, logits.amax(1, keepdim=True))
        shrunk = (most - larger).exp_()
        most = larger
        logits.sub_(most).exp_()
        logits[here, inside] = 0
        others.mul_(shrunk).add_(logits.sum(1, keepdim=True))
        if not sloped:
            continue
        rows = weights[inside].float()
        own[here] = rows * scale[inside].unsqueeze(1) if isinstance(scale, Tensor) else rows
        if isinstance(scale, Tensor):
            logits *= scale
        slope.mul_(shrunk)
        product_added(slope, logits.to(matrix.kind), weights)
        if smoothing:
            plain = weights.float()
            even += (plain * scale.unsqueeze(1) if isinstance(scale, Tensor) else plain).sum(0)
    total = others + (wanted.unsqueeze(1) - most).exp()
    logarithms = (total.log() + most)[:, 0]
    losses = logarithms - (1 - smoothing) * wanted
    if smoothing:
        losses -= smoothing / matrix.shape[0] * sums[:, 0]
    if not sloped:
        return Found(losses, logarithms, None)
    slope.div_(total).add_(own.mul_(smoothing - others / total))
    if smoothing:
        slope -= smoothing / matrix.shape[0] * even
    return Found(losses, logarithms, slope)


def _parts(matrix: StoredMatrix, most: int) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
    """Yield the parts of a matrix, of `most` rows at most."""
    for rows, weights, scale in matrix.parts():
        for start in range(0, len(weights), most):
            some = slice(start, min(start + most, len(weights)))
            own = scale[some] if isinstance(scale, Tensor) else scale
            yield slice(rows.start + some.start, rows.start + some.stop), weights[some], own
