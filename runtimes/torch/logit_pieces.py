"""Cross-entropies of the next tokens from hidden states: logits exist for some positions at a time.

The gradient of a piece's hidden states is computed where its logits are, so that neither logits nor
their gradients are ever whole: 50,000 or 260,000 numbers for each position of a batch. Where that
takes several pieces, and with them the head's rows several times, words are gone through instead.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edge_train.runtimes.torch.halves import Head
from edge_train.runtimes.torch.word_pieces import Found, in_words

_COPIES = 4  # of logits that a network changes before they are used: autograd keeps them
_AT_ONCE = 1 << 20  # numbers of logits that are gone through together, in the processor's cache
AfterHead = Callable[[Tensor], Tensor]


def token_losses(
    hidden: Tensor,
    targets: Tensor,
    head: Head,
    after: AfterHead | None,
    *,
    smoothing: float,
    most: int,
) -> Tensor:
    """Return the cross-entropy of every position, (tokens,); differentiable in `hidden`.

    Args:
      hidden: (tokens, width).
      targets: (tokens,) int64.
      after: what a network does to the head's outputs (a soft cap, a scale); None: nothing.
      smoothing: share of a target that all tokens get.
      most: numbers of logits that exist at once.
    """
    apply: Any = _Losses.apply
    losses: Tensor = apply(hidden, targets, head, after, smoothing, most, torch.is_grad_enabled())
    return losses


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        head: Head,
        after: AfterHead | None,
        smoothing: float,
        most: int,
        differentiated: bool,
    ) -> Tensor:
        found = in_pieces(
            hidden, targets, head, after, smoothing=smoothing, most=most, sloped=differentiated
        )
        if found.errors is not None:
            ctx.save_for_backward(found.errors)
        return found.losses

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        (errors,) = ctx.saved_tensors
        return errors * upper.unsqueeze(1), None, None, None, None, None, None


def in_pieces(
    hidden: Tensor,
    targets: Tensor,
    head: Head,
    after: AfterHead | None,
    *,
    smoothing: float,
    most: int,
    sloped: bool,
) -> Found:
    """Return losses and, where asked, their slopes at hidden states; see `token_losses`."""
    step = max(1, most // head.outputs // (1 if after is None else _COPIES))
    if head.words is not None and after is None and step < len(hidden):
        bias = None if head.bias is None else head.bias.detach()
        return in_words(hidden, targets, head.words, bias, smoothing=smoothing, sloped=sloped)
    losses, sums = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
    errors = torch.empty_like(hidden) if sloped else None
    for start in range(0, len(hidden), step):
        at = slice(start, start + step)
        logits = head.forward_product(hidden[at])
        if head.bias is not None:
            logits += head.bias
        if after is None:
            losses[at], sums[at] = _in_place(logits, targets[at], smoothing, sloped)
        elif errors is None:
            losses[at] = _entropies(after(logits), targets[at], smoothing)
        else:
            losses[at], sums[at], logits = _through(after, logits, targets[at], smoothing)
        if errors is not None:
            errors[at] = head.backward_product(logits)
    return Found(losses, sums, errors)


def _in_place(
    logits: Tensor, targets: Tensor, smoothing: float, differentiated: bool
) -> tuple[Tensor, Tensor]:
    """Return losses and logarithms of sums; `logits` become their gradients.

    Memory: none beside the logits but some rows of them.
    """
    losses, sums = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    step = max(1, _AT_ONCE // logits.shape[1])
    for start in range(0, len(logits), step):
        some, wanted = logits[start : start + step], targets[start : start + step].unsqueeze(1)
        largest = some.amax(1, keepdim=True)
        chosen = some.gather(1, wanted) - largest
        mean = some.mean(1, keepdim=True) - largest if smoothing else chosen
        some.sub_(largest).exp_()
        total = some.sum(1, keepdim=True)
        loss = total.log() - (1 - smoothing) * chosen - smoothing * mean
        losses[start : start + step] = loss[:, 0]
        sums[start : start + step] = (total.log() + largest)[:, 0]
        if differentiated:
            some.div_(total)
            if smoothing:
                some.sub_(smoothing / logits.shape[1])
            some.scatter_add_(1, wanted, torch.full_like(chosen, smoothing - 1))
    return losses, sums


@torch.enable_grad()
def _through(
    after: AfterHead, logits: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses, logarithms of sums, and the losses' gradients in the head's outputs."""
    outputs = logits.detach().requires_grad_()
    changed = after(outputs)
    losses = _entropies(changed, targets, smoothing)
    sums = changed.detach().logsumexp(1)
    (errors,) = torch.autograd.grad(losses.sum(), outputs)
    return losses.detach(), sums, errors


def _entropies(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
