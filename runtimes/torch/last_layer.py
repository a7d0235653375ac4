"""What the gradient of a network's last layer is made of, sample by sample, by forward passes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.types import Array, Batch
from edge_train.errors import InputError, ModelError
from edge_train.protocols import LastLayer
from edge_train.runtimes.torch.card import on_host
from edge_train.runtimes.torch.halves import Halves
from edge_train.runtimes.torch.logit_pieces import in_pieces


def output_layer(network: Any) -> nn.Linear:
    """Return the linear layer that gives the logits of a classifier: the last one of its head.

    Raises:
      ModelError: there is none with an output for every class.
    """
    encoder = f"{network.base_model_prefix}."
    found = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(encoder)
    ]
    if not found or found[-1].out_features != network.config.num_labels:
        raise ModelError(
            f"a {type(network).__name__} has no linear layer that gives its logits; use "
            "--batch-selection loss."
        )
    return found[-1]


def classifier_factors(
    layer: nn.Linear,
    parts: Iterator[slice],
    run: Callable[[slice], Tensor],
    losses: Callable[[Tensor, slice], Tensor],
) -> LastLayer:
    """Return what enters a classifier's last layer and the errors at its logits, a row a text.

    Args:
      parts: of the batch, one call each.
      run: returns the logits of a part.
      losses: returns those of logits.

    Memory: one call without a tape; two vectors of each text.
    """
    entered: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    inputs, errors, found = list[Array](), list[Array](), list[Array]()
    try:
        for at in parts:
            entered.clear()
            with torch.no_grad():
                logits = run(at)
                inputs.append(on_host(_pooled(layer, entered[-1], logits).float()))
            with torch.enable_grad():
                outputs = logits.detach().requires_grad_()
                own = losses(outputs, at)
                (slope,) = torch.autograd.grad(own.sum(), outputs)
            errors.append(on_host(slope))
            found.append(on_host(own))
    finally:
        hook.remove()
    joined = np.concatenate(found)
    rows = np.arange(len(joined), dtype=np.int64)
    return LastLayer(joined, np.concatenate(inputs), np.concatenate(errors), rows)


def _pooled(layer: nn.Linear, entered: Tensor, logits: Tensor) -> Tensor:
    """Return the row of each text that its logits are made of: decoders compute one a token."""
    if entered.ndim == 2:
        return entered
    outputs = layer(entered.to(layer.weight.dtype))
    gap = (outputs - logits.unsqueeze(1)).abs().amax(2)
    return entered[torch.arange(len(entered), device=entered.device), gap.argmin(1)]


def told_apart(network: Any, halves: Halves | None) -> Halves:
    """Return the halves of a network.

    Raises:
      InputError: it has no head that can be told apart.
    """
    if halves is None:
        raise InputError(
            f"a {type(network).__name__} has no output layer that can be told apart from the rest, "
            "which this batch selection needs; use --batch-selection loss."
        )
    return halves


def head_factors(
    batch: Batch,
    hidden: Callable[[Tensor, NDArray[Any] | None], Tensor],
    halves: Halves,
    together: int,
    most: int,
) -> LastLayer:
    """Return `token_factors` of a network whose head can be told apart.

    Args:
      hidden: states before the head of ids (sequences, tokens) and the documents they are of.
      together: sequences in one call.
      most: logits that exist at once.
    """
    document: Any = batch.get("document")
    ids = torch.from_numpy(batch["ids"])[:, :-1]

    def before(at: slice) -> Tensor:
        return hidden(ids[at], None if document is None else document[at])

    def pieces(some: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        found = in_pieces(
            some, targets, halves.head, halves.after, smoothing=smoothing, most=most, sloped=True
        )
        assert found.errors is not None
        return found.losses, found.errors

    calls = (slice(start, start + together) for start in range(0, len(ids), together))
    return token_factors(batch, before, pieces, calls)


def token_factors(
    batch: Any,
    hidden: Callable[[slice], Tensor],
    pieces: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
    calls: Iterator[slice],
) -> LastLayer:
    """Return hidden states and the errors at them, a row a token that counts.

    They are the factors of a square layer between the hidden states and the head, at identity: the
    head's own gradient seen through its weights. Errors at the logits, a number for each word, are
    never whole.

    Args:
      batch: as `sequence_losses` takes it.
      hidden: returns hidden states (sequences, length, width) of some sequences.
      pieces: returns cross-entropies (tokens,) of hidden states, targets and the share of a target
        that all tokens get, and their slopes at the hidden states.
      calls: sequences that are computed at once.

    Memory: one call without a tape; two vectors of each token.
    """
    ids = batch["ids"]
    count, length = ids.shape[0], ids.shape[1] - 1
    weight = batch.get("weight")
    if weight is None:
        weight = np.full((count, length), 1 / length, np.float32)
    smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
    losses = np.zeros(count, np.float64)
    inputs, errors, samples = list[Array](), list[Array](), list[NDArray[np.int64]]()
    for at in calls:
        rows, places = np.nonzero(weight[at])
        with torch.no_grad():
            states = hidden(at)
            where = (torch.from_numpy(rows), torch.from_numpy(places))
            some = states[where[0].to(states.device), where[1].to(states.device)]
            targets = torch.from_numpy(ids[at, 1:])[where].to(states.device)
            found, slopes = pieces(some, targets, smoothing)
        counts = weight[at][rows, places]
        np.add.at(losses, at.start + rows, found.cpu().numpy() * counts.astype(np.float64))
        inputs.append(some.float().cpu().numpy())
        errors.append(slopes.float().cpu().numpy() * counts[:, None])
        samples.append((at.start + rows).astype(np.int64))
    return LastLayer(
        losses.astype(np.float32),
        np.concatenate(inputs),
        np.concatenate(errors),
        np.concatenate(samples),
    )
