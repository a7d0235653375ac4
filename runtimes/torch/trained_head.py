"""Cross-entropies by an output layer that is trained, whose errors at logits are never whole.

The gradient of its weights is left^T right, left the errors at the logits: a number for each token
and word. Whoever consumes it takes some rows at a time, some words that is, and their errors follow
from the hidden states, the weights of these words and each token's sum: a product once more, for
memory that does not grow with the number of words.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_train.arrays.factored import tiles
from edge_train.arrays.types import Array
from edge_train.runtimes.torch.card import on_host
from edge_train.runtimes.torch.held_layers import HeldHead
from edge_train.runtimes.torch.logit_pieces import AfterHead, in_pieces


def trained_losses(
    hidden: Tensor,
    targets: Tensor,
    head: HeldHead,
    after: AfterHead | None,
    *,
    smoothing: float,
    most: int,
) -> Tensor:
    """Return the cross-entropy of every position, (tokens,); see `token_losses`.

    Differentiable in `hidden` and the head's bias; its weights' gradient is handed over.
    """
    apply: Any = _Losses.apply
    sloped = torch.is_grad_enabled()
    losses: Tensor = apply(hidden, head.bias, targets, head, after, smoothing, most, sloped)
    return losses


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: HeldHead,
        after: AfterHead | None,
        smoothing: float,
        most: int,
        sloped: bool,
    ) -> Tensor:
        found = in_pieces(
            hidden, targets, head, after, smoothing=smoothing, most=most, sloped=sloped
        )
        if found.errors is not None:
            ctx.save_for_backward(hidden, targets, found.sums, found.errors)
            ctx.head, ctx.after, ctx.smoothing, ctx.biased = (
                head,
                after,
                smoothing,
                bias is not None,
            )
        return found.losses

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, sums, errors = (one.detach() for one in ctx.saved_tensors)
        head: HeldHead = ctx.head
        again = _Again(hidden, targets, sums, upper, head, ctx.after, ctx.smoothing)
        bias: Tensor | None = None
        if ctx.biased:
            bias = hidden.new_empty(head.outputs)
            for words in tiles((head.outputs, head.inputs)):
                bias[words] = torch.from_numpy(again(words)).to(bias.device).sum(0)
        before = errors.mul_(upper.unsqueeze(1))
        head.hand_over(again, hidden)
        return before, bias, None, None, None, None, None, None


class _Again:
    """Makes the errors at the logits of some words again, (tokens, some)."""

    def __init__(
        self,
        hidden: Tensor,
        targets: Tensor,
        sums: Tensor,
        upper: Tensor,
        head: HeldHead,
        after: AfterHead | None,
        smoothing: float,
    ) -> None:
        self._hidden, self._sums, self._upper = hidden, sums, upper
        self._targets = targets.contiguous()  # torch warns of others where they are looked up
        self._head, self._after, self._smoothing = head, after, smoothing
        # as it is now: a step may change it before the weights
        self._bias = None if head.bias is None else head.bias.detach().clone()

    def __call__(self, words: slice | NDArray[Any]) -> Array:
        """Return the errors, times what each token's loss counts."""
        with torch.no_grad():
            outputs = self._head.some_outputs(self._hidden, words)
            if self._bias is not None:
                outputs += self._bias[words]
        if self._after is None:
            errors = self._at_logits(outputs, words)
        else:
            with torch.enable_grad():
                outputs.requires_grad_()
                logits = self._after(outputs)
            changed = self._at_logits(logits.detach().clone(), words)
            (errors,) = torch.autograd.grad(logits, outputs, changed)
        return on_host(errors.mul_(self._upper.unsqueeze(1)))

    def _at_logits(self, logits: Tensor, words: slice | NDArray[Any]) -> Tensor:
        """Make of logits, in place, the slope of each token's loss."""
        logits.sub_(self._sums.unsqueeze(1)).exp_()
        if self._smoothing:
            logits.sub_(self._smoothing / self._head.outputs)
        numbers = torch.arange(self._head.outputs)[words].to(logits.device)
        found = torch.searchsorted(numbers, self._targets).clamp_(max=max(len(numbers) - 1, 0))
        here = (numbers[found] == self._targets).nonzero()[:, 0]
        logits[here, found[here]] += self._smoothing - 1
        return logits
