"""Losses of sequences that may hold several documents, and that may count in part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_train.arrays.types import Batch
from edge_train.formats.language_apart import keeps_apart
from edge_train.runtimes.torch.card import HOST


def positions_in(document: NDArray[Any] | None, kind: str) -> dict[str, Tensor]:
    """Return what tells a causal language model of transformers where documents begin.

    Positions that begin again tell transformers, from 4.53 on, where a document begins: its masks,
    those of sliding windows too, then keep attention within it. Where every sequence is one
    document nothing is said, and attention needs no mask.

    Args:
      document: of every token, (sequences, length); None: one each.
      kind: of the network, its `model_type`.

    Raises:
      ValueError: documents of this kind would read each other.
    """
    if document is None or (document == document[:, :1]).all():
        return {}
    if not keeps_apart(kind):
        raise ValueError(f"a {kind!r} reads one document of a sequence in the other")
    return {"position_ids": torch.from_numpy(_places(document))}


def _places(document: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of every token in its document.

    >>> _places(np.array([[0, 0, 0, 4, 4, 5]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    places = np.arange(document.shape[1])
    begins = np.ones(document.shape, bool)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    starts = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return (places - starts).astype(np.int64)


def sequence_losses(
    batch: Batch,
    hidden: Callable[[Tensor, NDArray[Any] | None], Tensor],
    losses: Callable[[Tensor, Tensor, float], Tensor],
    device: torch.device = HOST,
) -> Tensor:
    """Return the loss of each sequence: sums over its tokens by `weight`, else their mean.

    They are on the host, where they are added up: a card does it in any order.

    A position whose weight is 0 costs nothing once hidden states are there. Where the batch has
    `choices` (sequences, tokens), a loss is that of the target among these alone.

    Args:
      hidden: returns hidden states (sequences, length, width) of ids and their documents.
      losses: returns cross-entropies (tokens,) of hidden states, targets, and the share of a
        target that all tokens get.
      device: where hidden states and cross-entropies are computed.
    """
    ids: Any = batch["ids"]
    count, length = ids.shape[0], ids.shape[1] - 1
    weight: Any = batch.get("weight")
    if weight is None:
        weight = np.full((count, length), 1 / length, np.float32)
    smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
    tokens = torch.from_numpy(ids)
    rows, places = np.nonzero(weight)
    at = (torch.from_numpy(rows), torch.from_numpy(places))
    states = hidden(tokens[:, :-1].to(device), batch.get("document"))
    some = states.flatten(0, 1) if weight.all() else states[at[0].to(device), at[1].to(device)]
    targets = tokens[:, 1:][at].to(device)
    if "choices" in batch:
        choices = torch.from_numpy(batch["choices"][rows]).to(device)
        found = _among(choices, targets, lambda ids: losses(some, ids, 0.0)).cpu()
    else:
        found = losses(some, targets, smoothing).cpu()
    return torch.zeros(count).index_add(0, at[0], found * torch.from_numpy(weight)[at])


def _among(choices: Tensor, targets: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the cross-entropy of targets among some tokens, (tokens,).

    log p(target) less the logarithm of what all of `choices` (tokens, some) have together; one of
    them is the target.
    """
    each = torch.stack([losses(choices[:, number]) for number in range(choices.shape[1])], dim=1)
    own = each.gather(1, (choices == targets[:, None]).int().argmax(dim=1, keepdim=True))[:, 0]
    return own + torch.logsumexp(-each, dim=1)
