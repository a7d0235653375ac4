"""Logits of the next token of a network of transformers; of tokens before, keys and values stay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edge_train.arrays.types import Array

_AT_ONCE = 256  # tokens that are read together; activations of more would be held, too


class CachedLogits:
    """Asks a network for the token after a text; texts that begin alike are read once.

    Memory: keys and values of every token that was read, for every layer.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._cache: Any = None
        self._read: list[int] = []

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,).

        Args:
          ids: at least one.
        """
        from transformers import DynamicCache

        same = 0
        while same < min(len(ids) - 1, len(self._read)) and ids[same] == self._read[same]:
            same += 1
        if self._cache is None or not same:
            # of no configuration: layers with a window would forget what a shorter text needs
            self._cache, same = DynamicCache(), 0
        elif same < len(self._read):
            self._cache.crop(same - len(self._read))  # so many less
        self._read = list(ids[:same])
        logits: Any = None
        with torch.no_grad():
            for start in range(same, len(ids), _AT_ONCE):
                some = ids[start : start + _AT_ONCE]
                logits = self._network(
                    input_ids=torch.tensor([some]),
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits
                self._read += some
        found: Array = logits[0, -1].float().numpy().astype(np.float32, copy=False)
        return found
