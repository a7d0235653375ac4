"""Documents packed into one sequence, as transformers takes them: positions that begin again."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_train.arrays.types import Batch
from edge_train.runtimes.torch.apart import positions_of


def network_inputs(batch: Batch, at: slice = slice(None)) -> dict[str, Any]:
    """Return what a causal language model of transformers takes for sequences of a batch.

    Positions that begin again tell transformers, from 4.53 on, where a document begins: its masks,
    those of sliding windows too, then keep attention within it. Where every sequence is one
    document nothing is said, and attention needs no mask.

    Args:
      at: which sequences.
    """
    ids = torch.from_numpy(batch["ids"][at])
    inputs: dict[str, Any] = {"input_ids": ids[:, :-1], "use_cache": False}
    if "document" in batch:
        positions = positions_of(batch["document"][at])
        if not (positions == np.arange(positions.shape[1])).all():
            inputs["position_ids"] = torch.from_numpy(positions)
    return inputs


def sequence_losses(
    logits: Tensor, batch: Batch, smoothing: float = 0.0, at: slice = slice(None)
) -> Tensor:
    """Return the loss of each sequence: sums over its tokens by `weight`, else their mean.

    Args:
      logits: (sequences, length, vocabulary).
      smoothing: share of a target that all tokens get.
      at: which sequences of the batch they are of.
    """
    targets = torch.from_numpy(batch["ids"][at])[:, 1:]
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing
    ).view(len(targets), -1)
    if "weight" not in batch:
        return losses.mean(dim=1)
    return (losses * torch.from_numpy(batch["weight"][at])).sum(dim=1)
