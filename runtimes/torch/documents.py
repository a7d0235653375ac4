"""Losses of sequences that may hold several documents, and that may count in part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_train.arrays.types import Batch
from edge_train.runtimes.torch.apart import positions_of


def positions_in(document: NDArray[Any] | None) -> dict[str, Tensor]:
    """Return what tells a causal language model of transformers where documents begin.

    Positions that begin again tell transformers, from 4.53 on, where a document begins: its masks,
    those of sliding windows too, then keep attention within it. Where every sequence is one
    document nothing is said, and attention needs no mask.

    Args:
      document: of every token, (sequences, length); None: one each.
    """
    if document is None:
        return {}
    positions = positions_of(document)
    if (positions == np.arange(positions.shape[1])).all():
        return {}
    return {"position_ids": torch.from_numpy(positions)}


def sequence_losses(
    batch: Batch,
    hidden: Callable[[Tensor, NDArray[Any] | None, NDArray[Any]], Tensor],
    losses: Callable[[Tensor, Tensor, float], Tensor],
) -> Tensor:
    """Return the loss of each sequence: sums over its tokens by `weight`, else their mean.

    A position whose weight is 0 costs nothing once hidden states are there.

    Args:
      hidden: returns hidden states (sequences, length, width) of ids, their documents, and which
        positions count.
      losses: returns cross-entropies (tokens,) of hidden states, targets, and the share of a
        target that all tokens get.
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
    states = hidden(tokens[:, :-1], batch.get("document"), weight != 0)
    some = states.flatten(0, 1) if weight.all() else states[at]
    found = losses(some, tokens[:, 1:][at], smoothing)
    return torch.zeros(count).index_add(0, at[0], found * torch.from_numpy(weight)[at])
